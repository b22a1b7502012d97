"""A simulated chest as ellipsoids and points, and its projection along any direction.

Synthetic anatomy for trying the software out; it says nothing about medicine. Lengths are in cm.
Patient axes: x to the patient's left, y to the back, z to the head. A ray meets an ellipsoid in one
interval that has a closed form, and the intersection of intervals is an interval, so the length of
air along a ray (lung and not heart, not diaphragm …) is exact by inclusion and exclusion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Array = NDArray[np.float32]
Interval = tuple[Array, Array]
Window = tuple[slice, slice]  # rows, columns
WHOLE: Window = (slice(None), slice(None))
RIGHT, LEFT = 0, 1  # index of a lung; the patient's right is at negative x

SOFT, LUNG = 0.19, 0.05  # attenuation per cm of soft tissue and of aerated lung
CORTEX = 0.06  # attenuation of one wall of a bone
PLEURA, SHELL = 0.4, 0.02  # attenuation per cm of a lung's own edge, and its share of the radius
BLURS = {"bone": 0.14, "vessel": 0.16, "mesh": 0.26, "coarse": 0.45, "wire": 0.12}  # cm, sigma
BASELINES = {"mesh": 1.3, "coarse": 2.0}  # cm; drawn less its own blur: texture, no brightness


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> NDArray[np.float64]:
    """Rotation matrix [3, 3] by angles in degrees about the x, then y, then z axis."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians([x, y, z])), np.sin(np.radians([x, y, z]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@dataclass
class Ellipsoid:
    """Points p with |diag(1/radii) turnᵀ (p - centre)| <= 1."""

    centre: NDArray[np.float64]  # [3]
    radii: NDArray[np.float64]  # [3]
    turn: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))

    @classmethod
    def at(
        cls,
        centre: Sequence[float] | NDArray[np.float64],
        radii: Sequence[float] | NDArray[np.float64],
        turn: NDArray[np.float64] | None = None,
    ) -> "Ellipsoid":
        c, r = np.asarray(centre, float), np.asarray(radii, float)
        return cls(c, r, np.eye(3) if turn is None else turn)

    def grown(
        self, factor: float | NDArray[np.float64], shift: Sequence[float] = (0, 0, 0)
    ) -> "Ellipsoid":
        """The same ellipsoid with its radii times `factor`, moved by `shift`."""
        return Ellipsoid(self.centre + np.asarray(shift, float), self.radii * factor, self.turn)

    def level(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Squared normalised radius of points [n, 3]: below 1 inside."""
        return np.square((points - self.centre) @ self.turn / self.radii).sum(-1)

    def sample(self, rng: np.random.Generator, n: int, within: float = 1.0) -> NDArray[np.float64]:
        """Points [n, 3], uniform in the ellipsoid shrunk by `within`."""
        p = rng.normal(size=(n, 3))
        p *= within * rng.random((n, 1)) ** (1 / 3) / np.linalg.norm(p, axis=1, keepdims=True)
        return self.centre + (p * self.radii) @ self.turn.T


@dataclass
class Camera:
    """A parallel projection: rows of `axes` are the image's right, its up, and the ray."""

    axes: NDArray[np.float64]  # [3, 3]
    height: int  # pixels
    width: int  # pixels
    pixel: float  # cm
    shift: tuple[float, float] = (0.0, 0.0)  # cm, of the patient to the right and up

    def __post_init__(self) -> None:
        columns, rows = np.arange(self.width), np.arange(self.height)
        u = (columns - self.width / 2) * self.pixel - self.shift[0]
        v = (self.height / 2 - rows) * self.pixel - self.shift[1]
        self.u: Array = u.astype(np.float32)[None, :]  # [1, W]
        self.v: Array = v.astype(np.float32)[:, None]  # [H, 1]

    def window(self, e: Ellipsoid) -> Window:
        """Rows and columns of the image that hold the ellipsoid's shadow."""
        cu, cv, _ = self.axes @ e.centre
        ru, rv, _ = np.linalg.norm(self.axes @ e.turn * e.radii, axis=1)
        top, bottom = np.searchsorted(-self.v[:, 0], [-cv - rv, -cv + rv])
        left, right = np.searchsorted(self.u[0], [cu - ru, cu + ru])
        return slice(int(top), int(bottom)), slice(int(left), int(right))

    def chord(self, e: Ellipsoid, window: Window = WHOLE) -> tuple[Interval, Array]:
        """Where each ray [h, w] is inside: (entry, exit), equal outside; and depth in [0, 1].

        Along a ray the squared normalised radius is 1 - depth + (t / tau)²; depth is 0 outside.
        """
        frame = self.axes @ e.turn / e.radii
        M = (frame @ frame.T).astype(np.float32)
        cu, cv, cw = (self.axes @ e.centre).astype(np.float32)
        u, v = self.u[:, window[1]] - cu, self.v[window[0]] - cv
        cross = (M[0, 2] * u + M[1, 2] * v) / M[2, 2]
        depth = (1 - M[0, 0] * u * u) - (2 * M[0, 1]) * u * v - M[1, 1] * v * v
        depth = np.maximum(depth + M[2, 2] * cross * cross, 0)
        half = np.sqrt(depth / M[2, 2])
        middle = cw - cross
        return (middle - half, middle + half), depth

    def add(self, image: Array, e: Ellipsoid, mu: float, cloud: bool = False) -> None:
        """Add an ellipsoid to an image [H, W]: a body of mu per cm, or a cloud of mu (1 - r²)."""
        window = self.window(e)
        (t0, t1), depth = self.chord(e, window)
        image[window] += (mu * 2 / 3) * (t1 - t0) * depth if cloud else mu * (t1 - t0)

    def splat(self, points: NDArray[np.floating], mass: NDArray[np.floating]) -> Array:
        """Points [n, 3] of mass [n] (attenuation times volume) as an image [H, W]."""
        c = points @ self.axes[:2].T  # [n, 2]
        column = np.rint((c[:, 0] + self.shift[0]) / self.pixel + self.width / 2).astype(int)
        row = np.rint(self.height / 2 - (c[:, 1] + self.shift[1]) / self.pixel).astype(int)
        seen = (row >= 0) & (row < self.height) & (column >= 0) & (column < self.width)
        flat = np.bincount(
            row[seen] * self.width + column[seen],
            weights=mass[seen] / self.pixel**2,
            minlength=self.height * self.width,
        )
        return flat.reshape(self.height, self.width).astype(np.float32)

    def gaussian(self, sigma: float) -> Array:
        """Transfer function [H, W // 2 + 1] of a Gaussian blur of sigma cm."""
        fy = np.fft.fftfreq(self.height, self.pixel).astype(np.float32)[:, None]
        fx = np.fft.rfftfreq(self.width, self.pixel).astype(np.float32)[None, :]
        scale = np.float32(-2 * (np.pi * sigma) ** 2)
        return np.exp(scale * fy * fy) * np.exp(scale * fx * fx)


def common(a: Interval, b: Interval) -> Interval:
    """The intersection of two intervals per ray; entry and exit are equal where it is empty."""
    entry = np.maximum(a[0], b[0])
    return entry, np.maximum(np.minimum(a[1], b[1]), entry)


def outside(inner: Interval, organs: Sequence[Interval]) -> Array:
    """Length of `inner` in none of the `organs`, [h, w]: inclusion and exclusion, shared."""
    total = inner[1] - inner[0]
    for k, organ in enumerate(organs):
        within = common(inner, organ)
        if (within[1] > within[0]).any():
            total -= outside(within, organs[:k])
    return total


@dataclass
class Chest:
    """One patient's chest on one day. Diseases change it in place before it is projected."""

    trunk: list[Ellipsoid]
    shoulders: list[Ellipsoid]
    lungs: list[Ellipsoid]  # RIGHT, LEFT
    domes: list[Ellipsoid]  # diaphragm with what is below it
    heart: Ellipsoid
    mediastinum: Ellipsoid
    knob: Ellipsoid
    trachea: Ellipsoid
    bubble: Ellipsoid  # air in the stomach
    breasts: list[Ellipsoid]
    spine: Ellipsoid
    ribs: dict[tuple[int, int], NDArray[np.float64]]  # (side, number) -> [n, 3]
    vessels: list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # per lung: [n, 3], [n]
    bone: float = 1.0
    """Density of the bones, as a factor."""
    remains: list[list[Ellipsoid]] = field(default_factory=lambda: [[], []])
    """What pleural fluid or thick pleura leaves of each lung: the inside of all of these."""
    collapsed: list[Ellipsoid | None] = field(default_factory=lambda: [None, None])
    """What a pneumothorax leaves of a lung."""
    solids: list[tuple[Ellipsoid, float]] = field(default_factory=list)
    """Bodies with the attenuation per cm they add."""
    clouds: list[tuple[Ellipsoid, float]] = field(default_factory=list)
    """Clouds of density 1 - r² with the attenuation per cm added at their centre."""
    points: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = field(
        default_factory=lambda: {name: [] for name in BLURS}
    )
    """Thin things: positions [n, 3] and masses [n], by their blur."""

    def aerated(self, side: int, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of the points [n, 3] are in the lung that still holds air and vessels."""
        inside = self.lungs[side].level(points) < 1
        collapsed = self.collapsed[side]
        for e in self.remains[side] if collapsed is None else [*self.remains[side], collapsed]:
            inside &= e.level(points) < 1
        for e in (self.domes[side], self.heart, self.mediastinum):
            inside &= e.level(points) > 1
        return inside

    def place(self, side: int, rng: np.random.Generator, within: float = 0.75) -> NDArray:
        """A random point [3] in the aerated part of a lung."""
        p = self.lungs[side].sample(rng, 64, within)
        return p[np.argmax(self.aerated(side, p))]


def draw_patient(rng: np.random.Generator) -> dict[str, float]:
    """The build of a patient: factors and lengths that stay over all studies."""
    size = rng.normal(1, 0.05)
    return {
        "width": size * rng.normal(1, 0.05),
        "depth": size * rng.normal(1, 0.07),
        "height": size * rng.normal(1, 0.05),
        "fat": rng.gamma(2.0, 0.7),
        "heart": rng.normal(1, 0.05),
        "axis": rng.normal(38, 8),
        "mediastinum": rng.normal(1, 0.07),
        "knob": rng.uniform(1.3, 2.0),
        "breasts": rng.uniform(2, 5) * (rng.random() < 0.5),
        "bone": rng.uniform(0.7, 1.3),
        "lean": rng.normal(6, 2),
        "drop": rng.normal(7, 1),
    }


def build(patient: dict[str, float], rng: np.random.Generator, breath: float) -> Chest:
    """A healthy chest of this patient; `breath` in cm lowers the diaphragm. `rng`: vessels."""
    w, d, h = patient["width"], patient["depth"], patient["height"]
    fat, lean = patient["fat"], patient["lean"]
    lungs = [
        Ellipsoid.at([s * 7.0 * w, 0.2, -3 * h], [r * w, 8.6 * d, 15.5 * h], rotation(y=-s * lean))
        for s, r in ((-1, 5.9), (1, 5.6))
    ]
    domes = [
        Ellipsoid.at([s * 7.2 * w, -0.8, z - breath], [7.3 * w, 9.8 * d, 9 * h])
        for s, z in ((-1, -16.3 * h), (1, -17.2 * h))
    ]
    k = patient["heart"] * (w * d * h) ** (1 / 3)
    wide = 14.6 * w
    return Chest(
        trunk=[
            Ellipsoid.at([0, 0, -9], [wide + 0.6 + fat, 10.4 * d + fat, 40]),
            Ellipsoid.at([0, 1, 20 * h], [6.2, 6.2, 15]),
        ],
        shoulders=[
            Ellipsoid.at(
                [s * 11 * w, 1.5, 9.5 * h], [14 * w, 6 + fat / 2, 6.5 * h], rotation(y=s * 32)
            )
            for s in (-1, 1)
        ],
        lungs=lungs,
        domes=domes,
        heart=Ellipsoid.at(
            [1.9 * k, -3.2 * d, -6.0 * h],
            np.array([6.3, 4.6, 4.7]) * k,
            rotation(y=patient["axis"], z=-15),
        ),
        mediastinum=Ellipsoid.at(
            [0.1, -0.2, 3 * h], np.array([2.7 * patient["mediastinum"] * w, 4.2 * d, 15 * h])
        ),
        knob=Ellipsoid.at([2.3 * w, 0.8, 5.6 * h], [patient["knob"]] * 3),
        trachea=Ellipsoid.at([0, 0.6, 12 * h], [0.85, 0.85, 8.5]),
        bubble=Ellipsoid.at([5 + rng.normal(), -2, -13.2 * h - breath], rng.uniform(0.8, 2.2, 3)),
        breasts=[
            Ellipsoid.at([s * 7.5 * w, -8.5 * d - fat, -7 * h], [5.5, patient["breasts"], 5])
            for s in (-1, 1)
            if patient["breasts"]
        ],
        spine=Ellipsoid.at([0, 6.6 * d, 0], [1.75, 1.7, 60]),
        ribs=_ribs(wide - 0.9, 9.2 * d, h, patient["drop"]),
        vessels=[_vessels(rng, side, w, lungs[side]) for side in (RIGHT, LEFT)],
        bone=patient["bone"],
    )


def _ribs(wide: float, deep: float, h: float, drop: float) -> dict[tuple[int, int], NDArray]:
    """Ten pairs of ribs, each a tube [n, 3] from the spine round to the front and down."""
    turn = np.linspace(0.16, 2.55, 100)  # 0 at the spine, pi at the sternum
    ring = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    number = np.arange(10)[:, None]
    slope = drop * (0.45 + 0.06 * number)
    z = h * (13.2 - 2.35 * number - slope * (1 - np.cos(turn)) / 2)  # [10, 100]
    narrow = np.sqrt(np.clip(1 - ((z + 4) / (21 * h)) ** 2, 0.05, 1))
    out = np.stack([np.sin(turn), np.cos(turn), 0 * turn], -1)  # [100, 3]
    axis = out * np.array([wide, deep, 0]) * narrow[..., None]  # [10, 100, 3]
    axis[..., 2] = z
    around = 0.32 * np.cos(ring)[:, None] * out[:, None]  # [100, 8, 3]
    around[..., 2] = 0.52 * np.sin(ring)
    left = (axis[:, :, None] + around).reshape(10, -1, 3)
    right = left * np.array([-1, 1, 1])
    return {(s, k): tube[k] for s, tube in ((RIGHT, right), (LEFT, left)) for k in range(10)}


def _vessels(
    rng: np.random.Generator, side: int, w: float, lung: Ellipsoid
) -> tuple[NDArray, NDArray]:
    """Two generations of vessels from the hilum: positions [n, 3] and masses [n]."""
    s = -1 if side == RIGHT else 1
    hilum = np.array([s * 3.6 * w, 0.8, 0.0])
    positions, masses = [], []
    start, radius = np.repeat(hilum[None], 22, 0), 0.42
    for branches, steps in ((22, 44), (70, 26)):
        goal = lung.sample(rng, branches) - start
        goal /= np.linalg.norm(goal, axis=1, keepdims=True)
        bend = np.cumsum(rng.normal(0, 0.08, (branches, steps, 3)), 1)
        path = start[:, None] + np.cumsum(0.33 * (goal[:, None] + bend), 1)  # [B, T, 3]
        thin = radius * np.linspace(1, 0.3, steps)[None] * rng.uniform(0.6, 1.1, (branches, 1))
        positions.append(path.reshape(-1, 3))
        masses.append((0.22 * np.pi * np.square(thin) * 0.33).ravel())
        pick = rng.integers(0, branches, 70), rng.integers(6, 30, 70)
        start, radius = path[pick[0], np.minimum(pick[1], steps - 1)], 0.25
    return np.concatenate(positions), np.concatenate(masses)


def project(chest: Chest, camera: Camera, arms_up: bool) -> Array:
    """Attenuation along every ray, [H, W]: the integral that Beer and Lambert put in the exponent.

    `arms_up`: as for a lateral film, which takes the shoulders out of the way.
    """
    trunk = [*chest.trunk] if arms_up else [*chest.trunk, *chest.shoulders]
    chords = [camera.chord(e)[0] for e in trunk]
    entry = reduce(np.minimum, [np.where(t1 > t0, t0, np.inf) for t0, t1 in chords])
    leave = reduce(np.maximum, [np.where(t1 > t0, t1, -np.inf) for t0, t1 in chords])
    total = SOFT * np.maximum(leave - entry, 0).astype(np.float32)

    for side in (RIGHT, LEFT):
        _lung(chest, camera, side, total)
    for e in (chest.trachea, chest.bubble):
        camera.add(total, e, -SOFT)
    for e in chest.breasts:
        camera.add(total, e, 0.6 * SOFT, cloud=True)

    window = camera.window(chest.spine)
    (t0, t1), _ = camera.chord(chest.spine, window)
    vertebra = 1 + 0.3 * np.cos(camera.v[window[0]] * np.float32(2 * np.pi / 2.7))
    total[window] += (0.09 * chest.bone) * vertebra * (t1 - t0)
    for e, mu in chest.solids:
        camera.add(total, e, mu)
    for e, mu in chest.clouds:
        camera.add(total, e, mu, cloud=True)
    return total + _thin(chest, camera)


def _lung(chest: Chest, camera: Camera, side: int, total: Array) -> None:
    """Replace soft tissue by one lung, in place: aerated tissue, free air, and a pleural edge."""
    window = camera.window(chest.lungs[side])
    organs = [chest.domes[side], chest.heart, chest.mediastinum]
    if side == LEFT:
        organs.append(chest.knob)
    chords = [camera.chord(e, window)[0] for e in organs]
    air = camera.chord(chest.lungs[side], window)[0]
    for e in chest.remains[side]:
        air = common(air, camera.chord(e, window)[0])
    free = outside(air, chords)
    collapsed = chest.collapsed[side]
    if collapsed is None:
        total[window] -= (SOFT - LUNG) * free
        return
    tissue = outside(common(air, camera.chord(collapsed, window)[0]), chords)
    core = outside(common(air, camera.chord(collapsed.grown(1 - SHELL), window)[0]), chords)
    total[window] += LUNG * tissue - SOFT * free + PLEURA * (tissue - core)


def _thin(chest: Chest, camera: Camera) -> Array:
    """Attenuation of ribs, vessels, meshes and wires, [H, W]: points, blurred."""
    points = {name: list(some) for name, some in chest.points.items()}
    for tube in chest.ribs.values():
        area = 2.9 * 34 / len(tube)  # cm² of bone surface per point
        points["bone"].append((tube, np.full(len(tube), CORTEX * chest.bone * area)))
    for side in (RIGHT, LEFT):
        where, mass = chest.vessels[side]
        inside = chest.aerated(side, where)
        points["vessel"].append((where[inside], mass[inside]))
    spectrum = np.zeros((camera.height, camera.width // 2 + 1), np.complex64)
    for name, some in points.items():
        if some:
            where, mass = (np.concatenate(column) for column in zip(*some, strict=True))
            blur = camera.gaussian(BLURS[name])
            if name in BASELINES:
                blur = blur - camera.gaussian(BASELINES[name])
            spectrum += scipy.fft.rfft2(camera.splat(where, mass)) * blur
    return scipy.fft.irfft2(spectrum, s=(camera.height, camera.width)).astype(np.float32)
