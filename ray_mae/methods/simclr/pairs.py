"""Two crops of an input: of each view of a study, or some pairs of each volume."""

from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from torch import Tensor

from ray_mae.batch import StudyBatch
from ray_mae.config.sections import EncoderSettings
from ray_mae.methods.base import Batch, Context
from ray_mae.methods.parts.crops import anatomy, cut, filled
from ray_mae.methods.parts.inputs import Crops, Views
from ray_mae.methods.simclr.settings import SimclrSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.images import Augmentation
from ray_mae.transforms.intensities import IntensityChanges
from ray_mae.transforms.keyed_random import repeated, uniforms
from ray_mae.transforms.volumes import VolumeAugmentation, mirrored

TRIES = 8
"""Places from which that of a pair's first crop is chosen."""


@dataclass(frozen=True)
class Pairs:
    """R crops of S samples: 2i and 2i + 1 are a pair."""

    x: Tensor
    """[R, 1, *sides] float32, normalised."""
    draw: Tensor
    """[R] int64, keys of the crops."""
    group: Tensor
    """[R] int64, index of what an anchor's positives have in common."""
    sample: Tensor
    """[R] int64, index of the crop's sample, non-decreasing."""
    view: Tensor | None = None
    """[R] int64, kind of view; None: there are none."""


class PairMaker(Protocol):
    """Makes pairs of batches of one kind."""

    per_input: int
    """Crops of each view or volume."""
    side: int
    """Of a crop, in pixels or voxels."""

    def __call__(self, batch: Batch) -> Pairs: ...


class ViewPairs:
    """Two random square crops of each view, by keys of their own.

    Args:
        augment: of one crop.
        intensities: changes beside those.
        size: side of a crop, in pixels.
        of_study: whether all crops of a study belong together, or those of a view.
    """

    per_input = 2

    def __init__(
        self, augment: Augmentation, intensities: IntensityChanges, size: int, *, of_study: bool
    ) -> None:
        self.views, self.intensities, self.side = Views(augment, size), intensities, size
        self.of_study = of_study

    def __call__(self, batch: Batch) -> Pairs:
        twice = doubled(cast(StudyBatch, batch))
        inputs = self.views(cast(Batch, twice))
        x = self.intensities(inputs.x, inputs.draw)
        view = torch.arange(batch.inputs, device=x.device).repeat_interleave(2)
        group = twice.study if self.of_study else view
        return Pairs(x, inputs.draw, group, twice.study, twice.view)


def doubled(batch: StudyBatch) -> StudyBatch:
    """The batch with each view twice, the second time with other draws."""
    rows = {"images", "side", "study", "view", "shape"}
    values = {name: getattr(batch, name) for name in rows}
    twice = {k: v.repeat_interleave(2, dim=0) for k, v in values.items() if v is not None}
    most = None if batch.known_most is None else 2 * batch.known_most
    return replace(batch, **twice, view_draw=repeated(batch.view_draw, 2), known_most=most)


class CropPairs:
    """Pairs of crops of each volume's crop, that share half of a side or more along each axis.

    Args:
        augment: of the whole crop, first.
        intensities: changes of each smaller crop.
        settings: how many, how large and how full they are.
    """

    def __init__(
        self, augment: VolumeAugmentation, intensities: IntensityChanges, settings: SimclrSettings
    ) -> None:
        self.crops, self.intensities = Crops(augment), intensities
        self.mirror = augment.mirror
        self.pairs, self.side = settings.pairs, settings.crop_side
        self.foreground = settings.foreground
        self.per_input = 2 * settings.pairs

    def __call__(self, batch: Batch) -> Pairs:
        inputs = self.crops(batch)
        draw = repeated(inputs.draw, self.per_input)  # [B · 2P]
        where = anatomy(inputs.x, inputs.valid)
        x = cut(inputs.x, self.starts(where, inputs.draw), self.side)
        x = self.intensities(x, draw)
        if self.mirror:
            x = mirrored(x, draw, Stream.MIRROR)
        rows = torch.arange(len(x), device=x.device)
        return Pairs(x, draw, rows // 2, rows // self.per_input)

    def starts(self, where: Tensor, draw: Tensor) -> Tensor:
        """[B, 2P, 3] where the crops of volumes begin, pairs together, by keys draw [B].

        where: [B, 1, S, S, S] bool, anatomy, of which the first crop of a pair should hold some.
        The second crop of a pair is moved by up to half of its side along each axis, and stays inside.
        """
        B, room = len(where), where.shape[-1] - self.side
        u = uniforms(draw, 3 * self.pairs * (TRIES + 1), Stream.PAIR)
        u = u.view(B, self.pairs, TRIES + 1, 3)
        place = (u[:, :, :TRIES] * (room + 1)).long()  # [B, P, TRIES, 3]
        share = filled(where, place.flatten(1, 2), self.side).view(B, self.pairs, TRIES)
        order = torch.arange(TRIES, device=draw.device)
        rank = torch.where(share >= self.foreground, 2 - order / TRIES, share)
        chosen = rank.argmax(2)[..., None, None].expand(-1, -1, 1, 3)
        first = place.gather(2, chosen)[:, :, 0]  # [B, P, 3]
        shift = (u[:, :, TRIES] * (self.side + 1)).long() - self.side // 2
        second = (first + shift).clamp(0, room)
        return torch.stack([first, second], dim=2).flatten(1, 2)


def pairs_of(context: Context, encoder: EncoderSettings, settings: SimclrSettings) -> PairMaker:
    """Returns what makes the pairs of an encoder, whose kind decides."""
    intensities = IntensityChanges().times(settings.intensities)
    if encoder.kind == "study":
        augment = replace(Augmentation.of(context.studies), crop_scale=settings.crop_scale)
        together = settings.positives == "views"
        return ViewPairs(augment, intensities, encoder.input_size, of_study=together)
    return CropPairs(VolumeAugmentation.of(context.volumes), intensities, settings)
