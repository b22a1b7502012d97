"""How others prepare an image for their encoder: read from their files."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray_mae.encoders.timm_settings import TimmSettings

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_BILINEAR = 2
"""Pillow's number of the filter, as `resample` has it."""


def of_hf(
    settings: TimmSettings, seen: Mapping[str, Any], default: tuple[list[float], list[float]]
) -> tuple[TimmSettings, int]:
    """Returns settings with the preprocessing of preprocessor_config.json, and the size that it makes.

    Args:
        settings: of the network.
        seen: what the file holds, or nothing.
        default: mean and deviation of its family.
    """
    mean, std = seen.get("image_mean") or default[0], seen.get("image_std") or default[1]
    if seen.get("do_normalize") is False:
        mean, std = [0.0], [1.0]
    channels = settings.keywords.get("in_chans", 3)
    size, crop = seen.get("size"), seen.get("crop_size")
    shorter = size if isinstance(size, int) else (size or {}).get("shortest_edge")
    inner = crop if isinstance(crop, int) else (crop or {}).get("height")
    fit, middle, made = "letterbox", 1.0, settings.image_size
    if shorter and inner and seen.get("do_center_crop", True):
        fit, middle, made = "middle", min(1.0, inner / shorter), inner
    elif isinstance(size, Mapping) and "height" in size:
        fit, made = "squash", size["height"]
    settings = replace(
        settings,
        mean=_of_channels(mean, channels),
        std=_of_channels(std, channels),
        interpolation="bilinear" if seen.get("resample") == _BILINEAR else "bicubic",
        fit=fit,  # type: ignore[arg-type]
        middle=middle,
    )
    return settings, int(made)


def of_timm(settings: TimmSettings, seen: Mapping[str, Any]) -> TimmSettings:
    """Returns settings with the preprocessing of `pretrained_cfg` of timm's config.json."""
    channels = settings.keywords.get("in_chans", 3)
    fit = {"squash": "squash", "border": "letterbox"}.get(seen.get("crop_mode", "center"), "middle")
    return replace(
        settings,
        mean=_of_channels(seen.get("mean") or IMAGENET[0], channels),
        std=_of_channels(seen.get("std") or IMAGENET[1], channels),
        interpolation="bilinear" if seen.get("interpolation") == "bilinear" else "bicubic",
        fit=fit,  # type: ignore[arg-type]
        middle=float(seen.get("crop_pct") or 1.0) if fit == "middle" else 1.0,
    )


def _of_channels(values: Any, channels: int) -> list[float]:
    """One number for each channel."""
    numbers = [float(v) for v in (values if isinstance(values, (list, tuple)) else [values])]
    return numbers * channels if len(numbers) == 1 else numbers
