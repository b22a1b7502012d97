"""Global and local crops of views and volumes, each drawn and changed by a key of its own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.batch import StudyBatch, VolumeBatch
from ray_mae.config.sections import EncoderSettings
from ray_mae.methods.base import Batch, Context
from ray_mae.methods.dino.settings import GLOBALS, DinoSettings
from ray_mae.methods.parts.inputs import Crops, Inputs, Reader, Views, reader_of
from ray_mae.random_streams import Stream
from ray_mae.transforms.images import Augmentation
from ray_mae.transforms.intensities import IntensityChanges, blurred
from ray_mae.transforms.keyed_random import repeated, uniforms
from ray_mae.transforms.volumes import VolumeAugmentation


class MultiCrop(Protocol):
    """Makes the crops of batches of one kind."""

    plain: Reader

    def __call__(self, batch: Batch) -> tuple[list[Inputs], list[Inputs]]:
        """The global crops and the local ones, each of all N views or volumes."""
        ...

    def lettered(self) -> "MultiCrop":
        """The same for pictures that say where a person's right is: nothing is mirrored there."""
        ...


def crops_of(context: Context, settings: DinoSettings, encoder: EncoderSettings) -> MultiCrop:
    """Returns what makes the crops for an encoder.

    Args:
        context: of the run, whose data say how inputs are changed.
        settings: of the method.
        encoder: its settings, whose kind decides.
    """
    sizes = encoder.input_size, settings.local_side(encoder)
    plain = reader_of(context, encoder)
    if encoder.kind == "study":
        return StudyCrops(Augmentation.of(context.studies), settings, sizes, plain)
    return VolumeCrops(VolumeAugmentation.of(context.volumes), settings, sizes, plain)


class StudyCrops:
    """Crops of views, with brightness, contrast and blur.

    Args:
        augment: changes of training; its scale of crops is not used.
        settings: of the method.
        sizes: sides of a global and of a local crop as the encoder sees them.
        plain: reader of whole views.
    """

    def __init__(
        self,
        augment: Augmentation,
        settings: DinoSettings,
        sizes: tuple[int, int],
        plain: Reader,
    ) -> None:
        self.settings, self.plain = settings, plain
        scales = settings.global_scale, settings.local_scale
        self.readers = [
            Views(replace(augment, crop_scale=scale), size)
            for scale, size in zip(scales, sizes, strict=True)
        ]

    def __call__(self, batch: Batch) -> tuple[list[Inputs], list[Inputs]]:
        studies = cast(StudyBatch, batch)
        keys = _keys(studies.view_draw, self.settings)
        return _divided(self._crop(studies, keys[:, i], i) for i in range(keys.shape[1]))

    def lettered(self) -> "StudyCrops":
        return self  # pictures of views have no letters of their own

    def _crop(self, batch: StudyBatch, draw: Tensor, place: int) -> Inputs:
        inputs = self.readers[place >= GLOBALS](replace(batch, view_draw=draw))
        share = self.settings.blur[min(place, GLOBALS)]
        if not share:
            return inputs
        u = uniforms(draw, 2, Stream.BLUR)[:, :, None, None, None]  # [N, 2, 1, 1, 1]
        low, high = self.settings.blur_sigma
        soft = blurred(inputs.x, low + (high - low) * u[:, 1])
        return replace(inputs, x=torch.where(u[:, 0] < share, soft, inputs.x))


class VolumeCrops:
    """Cubes of the crops that are read, enlarged to the encoder's size, with other grey values.

    Args:
        augment: changes of training, of each cube's crop.
        settings: of the method.
        sizes: sides of a global and of a local crop as the encoder sees them.
        plain: reader of whole crops.
    """

    def __init__(
        self,
        augment: VolumeAugmentation,
        settings: DinoSettings,
        sizes: tuple[int, int],
        plain: Reader,
    ) -> None:
        self.settings, self.sizes, self.plain = settings, sizes, plain
        self.augment = augment
        self.scales = settings.global_scale, settings.local_scale
        self.reader, self.changes = Crops(augment), IntensityChanges()

    def __call__(self, batch: Batch) -> tuple[list[Inputs], list[Inputs]]:
        volumes = cast(VolumeBatch, batch)
        keys = _keys(volumes.draw, self.settings)
        host = volumes.draw if volumes.known_draw is None else volumes.known_draw
        known = _keys(host, self.settings)
        return _divided(
            self._crop(replace(volumes, draw=keys[:, i], known_draw=known[:, i]), i >= GLOBALS)
            for i in range(keys.shape[1])
        )

    def lettered(self) -> "VolumeCrops":
        augment = replace(self.augment, mirror=False)
        return VolumeCrops(augment, self.settings, self.sizes, self.plain)

    def _crop(self, batch: VolumeBatch, local: bool) -> Inputs:
        inputs = self.reader(batch)
        assert inputs.valid is not None
        low, high = self.scales[local]
        u = uniforms(batch.draw, 4, Stream.CROPS)
        side = (low + (high - low) * u[:, 0]) ** (1 / 3)  # [B], shares of the crop's; u is a volume
        x, valid = cube(
            inputs.x, inputs.valid, (1 - side[:, None]) * u[:, 1:], side, self.sizes[local]
        )
        return replace(inputs, x=torch.where(valid, self.changes(x, batch.draw), 0.0), valid=valid)


def cube(
    x: Tensor, valid: Tensor, corner: Tensor, side: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Cubes of volumes at another resolution [B, 1, size, size, size], and where they are valid.

    Trilinear. A voxel is valid if all it was made of is; the others are 0.

    Args:
        x: [B, 1, S, S, S].
        valid: [B, 1, S, S, S] bool.
        corner: [B, 3] where a cube begins on each axis, in shares of S.
        side: [B] its side, in the same.
        size: side of the result, in voxels.
    """
    shift = 2 * corner + side[:, None] - 1  # of the centre, from -1 to 1
    theta = torch.cat([torch.diag_embed(side[:, None].expand(-1, 3)), shift.flip(1)[..., None]], 2)
    grid = F.affine_grid(theta, [len(x), 1, size, size, size], align_corners=False)
    both = torch.cat([x, valid.float()], dim=1)
    moved, share = F.grid_sample(both, grid, "bilinear", "border", align_corners=False).split(1, 1)
    inside = share > 0.999  # of weights that are rounded
    return torch.where(inside, moved, 0.0), inside


def _keys(draw: Tensor, settings: DinoSettings) -> Tensor:
    """[N, crops] keys of the crops of inputs with the keys draw [N]."""
    crops = GLOBALS + settings.locals
    return repeated(draw, crops).view(-1, crops)


def _divided(crops: Iterator[Inputs]) -> tuple[list[Inputs], list[Inputs]]:
    every = [*crops]
    return every[:GLOBALS], every[GLOBALS:]
