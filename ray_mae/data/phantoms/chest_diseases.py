"""Diseases as changes of a simulated chest in three dimensions, and the words for what was drawn.

Each function changes a `Chest` in place at a random, anatomically sensible place and returns a
`Finding`. Crude caricatures for trying the software out; they say nothing about medicine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.phantoms.chest_anatomy import LEFT, RIGHT, Chest, Ellipsoid, rotation

SIDES = ("right", "left")


@dataclass(frozen=True)
class Finding:
    """What a report can say about one disease that was drawn."""

    side: str = ""
    """right, left, bilateral, or empty where a side means nothing."""
    place: str = ""
    """Such as `right upper lobe`; may be empty."""
    size: str = ""
    """An adjective, or for a device its name."""


def size_word(share: float) -> str:
    """An adjective for a share of the range of sizes, 0 to 1."""
    return ("small", "moderate", "large")[min(int(share * 3), 2)]


def _side(rng: np.random.Generator) -> int:
    return int(rng.integers(2))


def _out(side: int) -> int:
    """Sign of x on this side."""
    return -1 if side == RIGHT else 1


def lobe(side: int, point: NDArray[np.float64], lung: Ellipsoid) -> str:
    """The lobe that holds a point, by its height in the lung."""
    level = (point[2] - lung.centre[2]) / lung.radii[2]
    if level > 0.25:
        return f"{SIDES[side]} upper lobe"
    if side == RIGHT and point[1] < -1 and level > -0.3:
        return "right middle lobe"
    return f"{SIDES[side]} lower lobe" if level < 0 else f"{SIDES[side]} mid lung"


def lesion(chest: Chest, rng: np.random.Generator) -> Finding:
    """One to three round nodules anywhere in the lungs."""
    side, place = _side(rng), ""
    share = rng.random()
    for _ in range(int(rng.integers(1, 4))):
        centre = chest.place(side, rng, 0.8)
        radius = 1.3 + 0.9 * share
        chest.solids.append((Ellipsoid.at(centre, radius * rng.uniform(0.9, 1.1, 3)), 0.36))
        place = place or lobe(side, centre, chest.lungs[side])
    return Finding(SIDES[side], place, size_word(share))


def opacity(chest: Chest, rng: np.random.Generator) -> Finding:
    """A wide faint haze without structure."""
    side, share = _side(rng), rng.random()
    centre = chest.place(side, rng, 0.6)
    chest.clouds.append((Ellipsoid.at(centre, rng.uniform(3.2, 5.2, 3)), 0.18 + 0.08 * share))
    return Finding(SIDES[side], lobe(side, centre, chest.lungs[side]), size_word(share))


def consolidation(chest: Chest, rng: np.random.Generator) -> Finding:
    """Dense confluent filling of part of one lobe, with a coarse mesh of open bronchi."""
    side, share = _side(rng), rng.random()
    centre = chest.place(side, rng, 0.65)
    for _ in range(4):
        part = centre + rng.normal(0, 1.0, 3)
        chest.clouds.append((Ellipsoid.at(part, rng.uniform(1.8, 3.0, 3)), 0.18 + 0.08 * share))
    _mesh(chest, rng, Ellipsoid.at(centre, [2.8, 2.8, 2.8]), side, 60, 0.08)
    return Finding(SIDES[side], lobe(side, centre, chest.lungs[side]), size_word(share))


def pneumonia(chest: Chest, rng: np.random.Generator) -> Finding:
    """A patch of small soft spots."""
    side, share = _side(rng), rng.random()
    centre = chest.place(side, rng, 0.6)
    region = Ellipsoid.at(centre, [3.2, 3.4, 3.6])
    for part in region.sample(rng, 13 + int(7 * share)):
        chest.clouds.append((Ellipsoid.at(part, [rng.uniform(0.8, 1.2)] * 3), 0.4))
    return Finding(SIDES[side], lobe(side, centre, chest.lungs[side]), size_word(share))


def edema(chest: Chest, rng: np.random.Generator) -> Finding:
    """Texture of both lungs around the hila: a fine mesh of fluid, of almost no mean density."""
    share = rng.random()
    for side in (RIGHT, LEFT):
        lung = chest.lungs[side]
        around = lung.grown(np.array([0.95, 0.8, 0.62]), (-_out(side) * 0.3, 0, 1))
        _mesh(chest, rng, around, side, 170, 0.10 + 0.05 * share)
    return Finding("bilateral", "", ("mild", "moderate", "severe")[min(int(3 * share), 2)])


def _mesh(
    chest: Chest, rng: np.random.Generator, region: Ellipsoid, side: int, lines: int, mass: float
) -> None:
    """Short straight lines, 1.5 to 3 cm, at random places and angles of the aerated lung."""
    middle = region.sample(rng, lines)
    along = rng.normal(size=(lines, 3))
    along *= rng.uniform(0.75, 1.5, (lines, 1)) / np.linalg.norm(along, axis=1, keepdims=True)
    steps = np.linspace(-1, 1, 12)
    points = (middle[:, None] + steps[None, :, None] * along[:, None]).reshape(-1, 3)
    points = points[chest.aerated(side, points)]
    chest.points["mesh"].append((points, np.full(len(points), mass * 0.2)))


def atelectasis(chest: Chest, rng: np.random.Generator) -> Finding:
    """Two or three plates of airless lung at a base, and its diaphragm drawn up a little."""
    side, share = _side(rng), rng.random()
    lung = chest.lungs[side]
    up = rng.uniform(0.5, 1.6)
    chest.domes[side] = chest.domes[side].grown(1, (0, 0, up))
    top = chest.domes[side].centre[2] + chest.domes[side].radii[2]
    for _ in range(2 + (share > 0.5)):
        centre = [
            lung.centre[0] + _out(side) * rng.uniform(-1.5, 2.5),
            rng.uniform(-4, 4),
            top + rng.uniform(0.8, 4.5),
        ]
        radii = [rng.uniform(2.2, 3.4), rng.uniform(2.4, 3.6), rng.uniform(0.3, 0.42)]
        tilt = rotation(x=rng.normal(0, 6), y=rng.normal(0, 14))
        chest.solids.append((Ellipsoid.at(centre, radii, tilt), 0.27))
    return Finding(SIDES[side], f"{SIDES[side]} base", size_word(share))


def effusion(chest: Chest, rng: np.random.Generator) -> Finding:
    """Fluid at one or both bases: its surface is a bowl, so that the angles are blunted."""
    sides = [RIGHT, LEFT] if rng.random() < 0.35 else [_side(rng)]
    share = rng.random()
    for side in sides:
        lung, dome = chest.lungs[side], chest.domes[side]
        top = dome.centre[2] + dome.radii[2]
        level = top - 1.6 + 4.5 * share + rng.normal(0, 0.3)
        bowl = np.array([1.15, 1.15, 1.0]) * lung.radii
        centre = [lung.centre[0] - _out(side) * 0.6, 0, level + bowl[2]]
        chest.remains[side].append(Ellipsoid.at(centre, bowl, lung.turn))
    side_word = "bilateral" if len(sides) == 2 else SIDES[sides[0]]
    return Finding(side_word, "", size_word(share))


def pneumothorax(chest: Chest, rng: np.random.Generator) -> Finding:
    """Air without vessels over an apex, and the thin line of the lung's own edge."""
    side, share = _side(rng), rng.random()
    lung = chest.lungs[side]
    chest.collapsed[side] = lung.grown(
        np.array([0.9, 0.93, 0.9]) - 0.09 * share,
        (-_out(side) * (0.2 + 0.3 * share), 0, -1.3 - 1.2 * share),
    )
    return Finding(SIDES[side], f"{SIDES[side]} apex", size_word(share))


def cardiomegaly(chest: Chest, rng: np.random.Generator) -> Finding:
    """A larger heart, mostly to the left and down."""
    share = rng.random()
    chest.heart = chest.heart.grown(1.20 + 0.15 * share, (0.5, 0, -0.2))
    return Finding("", "", ("mild", "moderate", "severe")[min(int(3 * share), 2)])


def wide_mediastinum(chest: Chest, rng: np.random.Generator) -> Finding:
    """A wider upper mediastinum and a larger aortic knob."""
    share = rng.random()
    chest.mediastinum = chest.mediastinum.grown(np.array([1.3 + 0.25 * share, 1.15, 1]))
    chest.knob = chest.knob.grown(1.25 + 0.2 * share, (0.7, 0, 0.3))
    return Finding("", "", ("mild", "moderate", "marked")[min(int(3 * share), 2)])


def plaques(chest: Chest, rng: np.random.Generator) -> Finding:
    """A rind of thick pleura along the chest wall, with calcified plates in it."""
    sides = [RIGHT, LEFT] if rng.random() < 0.4 else [_side(rng)]
    share = rng.random()
    for side in sides:
        lung = chest.lungs[side]
        inward = -_out(side) * (0.6 + 0.7 * share)
        chest.remains[side].append(lung.grown(np.array([0.98, 0.99, 1.03]), (inward, 0, 0)))
        for _ in range(5 + int(3 * share)):
            turn = rng.uniform(0.1, 0.95) * np.pi  # from the back over the side to the front
            z = rng.uniform(-0.45, 0.6)
            shrink = np.sqrt(1 - z * z)
            wall = np.array([_out(side) * np.sin(turn) * shrink, np.cos(turn) * shrink, z])
            centre = lung.centre + (wall * lung.radii * 0.97) @ lung.turn.T
            facing = rotation(x=rng.normal(0, 40), z=np.degrees(np.arctan2(wall[1], wall[0])))
            radii = [0.3, rng.uniform(1.4, 2.4), rng.uniform(0.5, 0.8)]
            chest.solids.append((Ellipsoid.at(centre, radii, facing), 0.9))
    side_word = "bilateral" if len(sides) == 2 else SIDES[sides[0]]
    return Finding(side_word, "", size_word(share))


def fracture(chest: Chest, rng: np.random.Generator) -> Finding:
    """A step and a callus in three to five neighbouring ribs."""
    side = _side(rng)
    first, count = int(rng.integers(2, 6)), int(rng.integers(3, 6))
    broken = 0.15 + 0.3 * rng.random()  # share of the way round
    for number in range(first, min(first + count, 10)):
        tube = chest.ribs[side, number].copy()
        cut = int(np.clip(broken + rng.normal(0, 0.03), 0.1, 0.9) * len(tube) / 8) * 8
        tube[cut:, 2] -= rng.uniform(1.0, 1.5)
        tube[cut:, 0] -= _out(side) * 0.4
        chest.ribs[side, number] = tube
        middle = tube[cut - 8 : cut + 8].mean(0)
        chest.clouds.append((Ellipsoid.at(middle, [1.0, 1.0, 1.1]), 1.0))
    region = "posterior" if broken < 0.3 else "lateral"
    return Finding(SIDES[side], f"{SIDES[side]} {region} ribs", f"{SIDES[side]}")


def devices(chest: Chest, rng: np.random.Generator) -> Finding:
    """A pacemaker, a central line, or a tube in the trachea with one in the stomach."""
    kind = ("pacemaker", "line", "tube")[rng.integers(3)]
    s = 1 if rng.random() < 0.7 else -1
    heart = chest.heart.centre
    steps = np.linspace(0, 1, 160)[:, None]
    if kind == "pacemaker":
        box = np.array([s * rng.uniform(6.5, 9.5), -8.0, rng.uniform(6, 9)])
        turn = rotation(y=rng.uniform(-30, 30))
        chest.solids.append((Ellipsoid.at(box, [2.2, 0.45, 1.8], turn), 1.2))
        corners = [box, box * [0.4, 0.6, 1.3], [-1.5, -1, 5], heart - [0, 0, 2.5]]
    elif kind == "line":
        s = -s
        corners = [[s * 9, -6, 9.5], [s * 5, -4, 11.5], [-1.2, -1, 7], [-1.8, -1, 0]]
    else:
        corners = [[0, 0.5, 18], [0, 0.5, 12], [0.4, 4, 2], [4, -1, -14]]
    a, b, c, e = (np.asarray(p, float) + rng.normal(0, 0.3, 3) for p in corners)
    curve = (
        a * (1 - steps) ** 3 + 3 * b * steps * (1 - steps) ** 2
        + 3 * c * steps**2 * (1 - steps) + e * steps**3
    )  # fmt: skip
    chest.points["wire"].append((curve, np.full(len(curve), 0.08)))
    names = {
        "pacemaker": ("dual-chamber pacemaker", "cardiac pacemaker", "pacemaker"),
        "line": ("central venous catheter", "PICC line", "central line"),
        "tube": ("gastric tube", "nasogastric tube", "feeding tube"),
    }[kind]
    return Finding("left" if s > 0 else "right", "", names[rng.integers(3)])


@dataclass(frozen=True)
class Texture:
    """A coarse texture of both lungs that stands for a disease in a cohort of caricatures."""

    lines: int
    """Per lung."""
    half_length: float
    """In cm; 0 gives spots."""
    direction: tuple[float, float, float]
    """Weights of x, y and z in the lines' random directions."""
    mass: float
    """Of a line."""

    def draw(self, chest: Chest, rng: np.random.Generator) -> None:
        """Add it to the chest: no brightness of its own, in every patch of the lungs."""
        mass = self.mass * rng.uniform(0.8, 1.2)
        for side in (RIGHT, LEFT):
            middle = chest.lungs[side].sample(rng, self.lines, 0.95)
            along = rng.normal(size=(self.lines, 3)) * self.direction
            along *= self.half_length / np.linalg.norm(along, axis=1, keepdims=True)
            steps = np.linspace(-1, 1, 16)
            points = (middle[:, None] + steps[None, :, None] * along[:, None]).reshape(-1, 3)
            points = points[chest.aerated(side, points)]
            chest.points["coarse"].append((points, np.full(len(points), mass / 16)))


CARICATURES = {
    "Atelectasis": Texture(30, 3.0, (1, 1, 0.05), 5.0),
    "Consolidation": Texture(30, 3.0, (0.05, 0.05, 1), 5.0),
    "Pneumonia": Texture(50, 0.0, (1, 1, 1), 3.0),
    "Lung Lesion": Texture(9, 0.3, (1, 1, 1), 9.0),
    "Edema": Texture(70, 1.2, (1, 1, 1), 2.2),
}
"""Lying and standing lines, small and large spots, a mesh: what a network tells apart soon, and
what has no brightness that a linear model of pixels could see."""


DISEASES: dict[str, Callable[[Chest, np.random.Generator], Finding]] = {
    # anatomy first: what moves the lungs' borders comes before what is placed inside them
    "Cardiomegaly": cardiomegaly,
    "Enlarged Cardiomediastinum": wide_mediastinum,
    "Atelectasis": atelectasis,
    "Pleural Effusion": effusion,
    "Pneumothorax": pneumothorax,
    "Lung Lesion": lesion,
    "Lung Opacity": opacity,
    "Consolidation": consolidation,
    "Pneumonia": pneumonia,
    "Edema": edema,
    "Pleural Other": plaques,
    "Fracture": fracture,
    "Support Devices": devices,
}
