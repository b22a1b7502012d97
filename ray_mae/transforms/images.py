"""Stored images → what the encoder sees, in batch, on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ray_mae.batch import StudyBatch
from ray_mae.config.sections import Sight, StudyDataConfig
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import uniforms

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""Of grey values in [0, 1]; close to the statistics of chest X-rays (.506, .252 in MIMIC-CXR)."""


@dataclass(frozen=True)
class Augmentation:
    """Random square crop, brightness and contrast; no flip by default: laterality matters."""

    crop_scale: tuple[float, float] = (0.5, 1.0)
    brightness: float = 0.4
    contrast: float = 0.4
    jitter_share: float = 0.8
    flip: bool = False

    @classmethod
    def of(cls, data: StudyDataConfig) -> "Augmentation":
        """That of the settings."""
        return cls(data.crop_scale, data.brightness, data.contrast, data.jitter_share, data.flip)

    def __call__(self, batch: StudyBatch, size: int) -> Tensor:
        """Normalised random crops [N, 1, size, size] float32, drawn per view from `view_draw`."""
        side = batch.side.to(torch.float32)
        u = uniforms(batch.view_draw, 3, Stream.CROP)  # [N, 3]
        low, high = self.crop_scale
        extent = side * (low + (high - low) * u[:, 0]).sqrt()  # [N], the scale is an area
        box = torch.stack([*((side - extent) * u[:, i] for i in (1, 2)), extent], dim=1)
        x = resample(batch.images, batch.side, box, size)

        j = uniforms(batch.view_draw, 3, Stream.JITTER)
        on = (j[:, 0] < self.jitter_share).float()[:, None, None, None]
        bright, contrast = (
            1 + on * amount * (2 * j[:, i, None, None, None] - 1)
            for i, amount in ((1, self.brightness), (2, self.contrast))
        )
        x = (x * bright).clamp(0, 1)
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = ((x - mean) * contrast + mean).clamp(0, 1)
        if self.flip:
            mirrored = uniforms(batch.view_draw, 1, Stream.FLIP)[:, 0] < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        return normalise(x)


def whole(batch: StudyBatch, size: int, sight: Sight | None = None) -> Tensor:
    """Each whole image in its square, normalised, [N, 1, size, size] float32: for frozen use.

    sight: of an encoder of others, which may see the middle alone, or squash what is no square.
    """
    return normalise(seen(batch.images, batch.side, batch.shape, size, sight or Sight()))


def seen(images: Tensor, side: Tensor, shape: Tensor | None, size: int, sight: Sight) -> Tensor:
    """What an encoder sees of images, [N, 1, size, size] in [0, 1].

    images, side: as of `resample`; shape: [N, 2], height and width in the middle of the square.
    """
    square = side.to(torch.float32)
    zero = torch.zeros_like(square)
    cubic = sight.interpolation == "bicubic"
    if sight.fit == "letterbox" or shape is None:
        box = torch.stack([zero, zero, square], dim=1)
        return resample(images, side, box, size, cubic=cubic)
    inside = shape.to(torch.float32)  # [N, 2]
    corner = ((side[:, None] - shape) // 2).to(torch.float32)
    extent = inside
    if sight.fit == "middle":
        extent = (inside.amin(1, keepdim=True) * sight.middle).expand(-1, 2)
    box = torch.cat([corner + (inside - extent) / 2, extent], dim=1)  # [N, 4]
    return resample(images, side, box, size, cubic=cubic, inside=torch.cat([corner, inside], dim=1))


def normalise(x: Tensor) -> Tensor:
    """Grey values in [0, 1] → mean 0, deviation 1."""
    return (x - PIXEL_MEAN) / PIXEL_STD


def denormalise(x: Tensor) -> Tensor:
    """The inverse of `normalise`, clipped to [0, 1]."""
    return (x * PIXEL_STD + PIXEL_MEAN).clamp(0, 1)


def resample(
    images: Tensor,
    side: Tensor,
    box: Tensor,
    size: int,
    *,
    cubic: bool = False,
    inside: Tensor | None = None,
) -> Tensor:
    """Crop and resize with a filter as wide as the reduction (antialiased bilinear, or bicubic).

    images: [N, 1, C, C] uint8; side: [N]; box: [N, 3] top, left and extent of the square crop in
    pixels, or [N, 4] with height and width; inside: the same of what may be read, by default the square
    of the image. Returns [N, 1, size, size] in [0, 1]. Two batched matrix products, one per axis, so
    every image has a box of its own and any device does it.
    """
    canvas = images.shape[-1]
    limits = [(torch.zeros_like(side), side)] * 2
    if inside is not None:
        limits = [(inside[:, i], inside[:, i] + inside[:, i + 2]) for i in (0, 1)]
    rows = _filter(box[:, 0], box[:, 2], *limits[0], canvas, size, cubic)  # [N, size, C]
    columns = _filter(box[:, 1], box[:, -1], *limits[1], canvas, size, cubic)
    x = images[:, 0].to(torch.float32) / 255  # [N, C, C]
    x = (rows @ x @ columns.transpose(1, 2))[:, None]
    return x.clamp(0, 1) if cubic else x  # a cubic overshoots at edges


CUBIC = -0.5
"""Slope of the cubic filter at one pixel, as Pillow and PyTorch have it where they antialias."""


def _filter(
    start: Tensor,
    extent: Tensor,
    first: Tensor,
    end: Tensor,
    canvas: int,
    size: int,
    cubic: bool,
) -> Tensor:
    """[N, size, canvas] weights of source pixels; each row sums to 1 and stays in [first, end)."""
    source = torch.arange(canvas, device=start.device)
    scale = extent / size  # [N] source pixels per target pixel
    centre = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * scale[:, None]
    distance = (source + 0.5 - centre[..., None]).abs() / scale.clamp(min=1)[:, None, None]
    weight = cubic_weight(distance) if cubic else (1 - distance).clamp(min=0)
    within = (source >= first[:, None]) & (source < end[:, None])
    weight = weight * within[:, None, :]
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def cubic_weight(d: Tensor) -> Tensor:
    """The cubic filter at distances d ≥ 0 in pixels."""
    a = CUBIC
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d < 1, near, torch.where(d < 2, far, 0.0))
