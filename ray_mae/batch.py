"""What travels from the data to a method: batches of tensors."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

FRONTAL, LATERAL, UNKNOWN = 0, 1, 2


@dataclass(frozen=True)
class StudyBatch:
    """S studies with N views, packed: no absent view is stored or computed.

    Each image is letterboxed into a square (black outside) in the upper left of the canvas.
    """

    images: Tensor
    """[N, 1, C, C] uint8, grey values; only the first `side` rows and columns are the image's."""
    side: Tensor
    """[N] int64, side of the square that holds the image, in pixels."""
    study: Tensor
    """[N] int64, index of the view's study, non-decreasing."""
    view: Tensor
    """[N] int64, 0 frontal, 1 lateral, 2 unknown."""
    key: Tensor
    """[S] int64, stable key of the study."""
    draw: Tensor
    """[S] int64, key of the study's random draws in this epoch: from (seed, epoch, key)."""
    view_draw: Tensor
    """[N] int64, the same for each view."""
    tokens: Tensor
    """[S, L] int64, report tokens: first, words, last, padding."""
    has_report: Tensor
    """[S] bool."""
    shape: Tensor | None = None
    """[N, 2] int64, height and width of the image in the middle of its square; None: they are squares."""
    study_weight: Tensor | None = None
    """[S] float32, factor of the study's loss by its findings, where a run reads labels; None: all 1."""
    target: Tensor | None = None
    """[S, L] float32, 0 or 1 of each label, where a method learns labels; None: it does not."""
    target_weight: Tensor | None = None
    """[S, L] float32, factor of each target's loss, 0 where it is not known."""
    known_most: int | None = None
    """Views of the study that has most, where it is known beside the device; see `most_views`."""

    @property
    def samples(self) -> int:
        """S, the number of studies."""
        return self.key.shape[0]

    @property
    def inputs(self) -> int:
        """N, the number of views."""
        return self.images.shape[0]

    @property
    def most_views(self) -> int:
        """Views of the study that has most: shapes depend on it, so the device should not be asked."""
        return int(self.study.bincount().max()) if self.known_most is None else self.known_most

    def to(self, device: torch.device | str) -> "StudyBatch":
        """The batch on a device."""
        return replace(self, known_most=self.most_views, **_moved(self, device))


@dataclass(frozen=True)
class VolumeBatch:
    """B crops of volumes, one channel each: several contrasts of one person are several samples."""

    voxels: Tensor
    """[B, 1, D, H, W] float16 or float32, z-scored over the foreground; 0 where nothing is."""
    valid: Tensor
    """[B, 1, D, H, W] bool, False outside the volume and where it was anonymised."""
    key: Tensor
    """[B] int64, stable key of the volume."""
    draw: Tensor
    """[B] int64, key of the sample's random draws in this epoch: from (seed, epoch, key)."""
    regions: Tensor | None = None
    """[B, 1, D, H, W] uint8, label maps, 0 where there is none; None: the method does not read them."""
    target: Tensor | None = None
    """[B, L] float32, as of StudyBatch."""
    target_weight: Tensor | None = None
    """[B, L] float32, the same."""
    known_draw: Tensor | None = None
    """`draw` on the CPU: what depends on it can be known there, and nobody waits for the device."""

    @property
    def samples(self) -> int:
        """B, the number of crops."""
        return self.key.shape[0]

    @property
    def inputs(self) -> int:
        """B, the number of crops."""
        return self.key.shape[0]

    def to(self, device: torch.device | str) -> "VolumeBatch":
        """The batch on a device."""
        moved = _moved(self, device)
        known = self.draw.cpu() if self.known_draw is None else self.known_draw
        return replace(self, **moved | {"known_draw": known})


@dataclass(frozen=True)
class WindowBatch:
    """B volumes, each by windows over its foreground: W crops in all."""

    voxels: Tensor
    """[W, 1, S, S, S] float16 or float32, as of VolumeBatch."""
    valid: Tensor
    """[W, 1, S, S, S] bool"""
    volume: Tensor
    """[W] int64, index of the window's volume, non-decreasing."""
    weight: Tensor
    """[W] float32, share of its volume's foreground; those of a volume sum to 1."""
    key: Tensor
    """[B] int64, stable key of the volume."""

    @property
    def samples(self) -> int:
        """B, the number of volumes."""
        return self.key.shape[0]

    def pool(self, values: Tensor) -> Tensor:
        """[B, …]: the mean of values [W, …] over each volume's windows, by their weights."""
        weighted = values * self.weight.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        return values.new_zeros(self.samples, *values.shape[1:]).index_add(0, self.volume, weighted)

    def to(self, device: torch.device | str) -> "WindowBatch":
        """The batch on a device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)


def _moved(batch: StudyBatch | VolumeBatch, device: torch.device | str) -> dict[str, Tensor]:
    """Its tensors on a device, by name."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {k: v.to(device, non_blocking=True) for k, v in values.items() if isinstance(v, Tensor)}


def mean_per_study(
    value: Tensor, study: Tensor, studies: int, counts: Tensor | None = None
) -> Tensor:
    """[S, …] mean of the values [K, …] of each study [K]; 0 for a study without any.

    counts: [K] bool, which values there are; None: all.
    """
    there = torch.ones_like(study) if counts is None else counts.to(study.dtype)
    if counts is not None:
        value = torch.where(counts.view(-1, *[1] * (value.ndim - 1)), value, 0)
    total = value.new_zeros(studies, *value.shape[1:]).index_add(0, study, value)
    count = there.new_zeros(studies).index_add(0, study, there).clamp(min=1)
    return total / count.reshape(-1, *[1] * (value.ndim - 1))
