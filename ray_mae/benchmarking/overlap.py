"""Test patients and test images that stand in the shards of a pretraining, too."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ray_mae.data.decoding.foreground import foreground
from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.decoding.voxels import decode_voxels
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.look_alikes import ContentIndex, bits_of
from ray_mae.data.paths import resolve_path
from ray_mae.data.schema import Manifest, Shard

SIDE = 32
"""Of the small volume that a foreground is looked at by."""
CORRELATION = 0.99
"""From which two small volumes are alike."""
_COLUMNS = {
    "study": ("study_id", "patient_id", "views"),
    "volume": ("volume_id", "patient_id", "voxels", "encoding", "dtype", "shape"),
}
Each = Callable[..., Iterable["Looks"]]
"""Applies a function to the shards, in order: `map`, or one that spreads over a cluster."""


@dataclass
class Looks:
    """What tells the images or volumes of some rows: N of them."""

    sample: list[str] = field(default_factory=list)
    """[N] study_id or volume_id."""
    patient: list[str] = field(default_factory=list)
    """[N] pseudonyms."""
    content: list[bytes] = field(default_factory=list)
    """[N] of an image its 256 bits; of a volume nothing."""
    small: list[NDArray[np.float16]] = field(default_factory=list)
    """[N] of a volume [SIDE³], of mean 0 and length 1."""

    def extend(self, other: "Looks") -> None:
        for name in vars(self):
            getattr(self, name).extend(getattr(other, name))


@dataclass(frozen=True)
class Overlap:
    """What a test split and a pretraining have in common."""

    patients: frozenset[str] = frozenset()
    """Pseudonyms of test patients who are in the train split of the pretraining."""
    images: frozenset[int] = frozenset()
    """Test images or volumes, by their place, that are the same as one of it or look the same."""
    samples: frozenset[str] = frozenset()
    """Identifiers of the test samples that are of such patients, or show such an image."""

    def __or__(self, other: "Overlap") -> "Overlap":
        return Overlap(
            self.patients | other.patients,
            self.images | other.images,
            self.samples | other.samples,
        )


def looks_of(at: tuple[Path, Shard, str]) -> Looks:
    """What tells the rows of a shard; at: its folder, its entry of the manifest, and the kind."""
    folder, shard, kind = at
    found = Looks()
    for group in range(len(shard.row_groups)):
        for row in read_rows(folder / shard.file, shard, group, _COLUMNS[kind], wait=True):
            if kind == "study":
                found.content += [bits_of(decode(view["image"])) for view in row["views"]]
            else:
                found.small.append(small_volume(decode_voxels(row).astype(np.float32)))
            images = len(row.get("views", [None]))
            found.sample += [row[f"{kind}_id"]] * images
            found.patient += [row["patient_id"]] * images
    return found


def small_volume(voxels: NDArray[np.float32]) -> NDArray[np.float16]:
    """The box around the foreground of a volume [X, Y, Z] on SIDE cells along each axis: [SIDE³].

    Of mean 0 and length 1, so that a product of two is their correlation.
    """
    inside = foreground(voxels)
    places = np.argwhere(inside) if inside.any() else np.argwhere(np.ones_like(inside))
    box = tuple(slice(a, b + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
    crop = voxels[box]
    factor = SIDE / np.array(crop.shape)
    smooth = ndimage.gaussian_filter(crop, np.maximum(1 / factor - 1, 0) / 2)
    small = ndimage.zoom(smooth, factor, order=1, grid_mode=True, mode="nearest").ravel()
    small = small - small.mean()
    return (small / max(float(np.linalg.norm(small)), 1e-12)).astype(np.float16)


def shards_of(folder: Path, manifest: Manifest, splits: Sequence[str]) -> Iterator[Any]:
    """What `looks_of` takes."""
    folder = resolve_path(folder)  # workers may have another working folder
    return ((folder, s, manifest.kind) for s in manifest.shards if s.split in splits)


def find_overlap(test: Looks, pretraining: Iterable[Looks]) -> Overlap:
    """What test samples share with a pretraining.

    Args:
        test: all of them.
        pretraining: of its train split, shard by shard.
    """
    people = set(test.patient)
    shared: set[str] = set()
    images = np.zeros(len(test.sample), bool)
    if test.small:
        matrix = np.stack(test.small).astype(np.float32)  # [T, SIDE³]
        for part in pretraining:
            shared |= people & set(part.patient)
            if part.small:
                products = matrix @ np.stack(part.small).astype(np.float32).T
                images |= (products > CORRELATION).any(1)
    else:
        index = ContentIndex()
        for bits in test.content:
            index.add("test", "test", "", b"", bits)
        for part in pretraining:
            shared |= people & set(part.patient)
            for bits in part.content:
                index.add("pretraining", "train", "", b"", bits)
        for first, _ in index.across():  # the test images were added first
            images[first] = True
    alike = np.flatnonzero(images).tolist()
    samples = {s for s, p in zip(test.sample, test.patient, strict=True) if p in shared}
    samples |= {test.sample[i] for i in alike}
    return Overlap(frozenset(shared), frozenset(alike), frozenset(samples))
