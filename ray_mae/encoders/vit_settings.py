"""Sizes of networks and their input, and whether they fit together. Needs no PyTorch."""

from dataclasses import dataclass, replace

from ray_mae.config import MvmaeConfig

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""Of grey values in [0, 1]; close to the statistics of chest X-rays (.506, .252 in MIMIC-CXR)."""


@dataclass(frozen=True)
class Shape:
    """Width, depth and heads of a transformer."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


PRESETS: dict[str, tuple[Shape, Shape]] = {
    "tiny": (Shape(192, 12, 3), Shape(192, 4, 3)),
    "small": (Shape(384, 12, 6), Shape(384, 4, 6)),
    "base": (Shape(768, 12, 12), Shape(768, 4, 12)),
    "large": (Shape(1024, 24, 16), Shape(1024, 8, 8, 2.0)),
    "huge": (Shape(1280, 32, 16), Shape(1024, 8, 8, 2.0)),
}
"""Encoder and decoder; the decoders of tiny, base and large are those of the authors' code."""


def shapes(config: MvmaeConfig) -> tuple[Shape, Shape]:
    """Encoder and decoder: the preset's, with single values overridden.

    Raises ValueError that names the settings which do not fit together.
    """
    encoder, decoder = PRESETS[config.preset]
    encoder = _override(encoder, config.width, config.depth, config.heads)
    decoder = _override(decoder, config.decoder_width, config.decoder_depth, config.decoder_heads)
    multiple("image_size", config.image_size, "patch_size", config.patch_size)
    for part, shape in (("", encoder), ("decoder_", decoder)):
        multiple(f"{part}width", shape.width, f"{part}heads", shape.heads)
        if config.positions == "sincos":
            multiple(f"{part}width", shape.width, "4 (positions: sincos)", 4)
    if config.gamma > 0:
        multiple("width", encoder.width, "caption_heads", config.caption_heads)
    return encoder, decoder


def _override(shape: Shape, width: int | None, depth: int | None, heads: int | None) -> Shape:
    given = {"width": width, "depth": depth, "heads": heads}
    return replace(shape, **{k: v for k, v in given.items() if v is not None})


def multiple(name: str, value: int, of: str, divisor: int) -> None:
    """Raise ValueError unless value is a multiple; of: a setting, or words that start with a digit."""
    if value % divisor:
        what = of if of[0].isdigit() else f"method.{of}, {divisor}"
        raise ValueError(f"method.{name} ({value}) must be a multiple of {what}")
