"""What settings of several methods are refused for. Needs no PyTorch."""

from ray_mae.config.sections import EncoderSettings, MethodSettings


def require_no_film(method: MethodSettings, encoder: EncoderSettings) -> None:
    """Raise ValueError where an encoder wants a noise level, which the method has none of."""
    if getattr(encoder, "film", False):
        raise ValueError(
            f"encoder.film must be false with method.name {method.name}, which has no noise level"
        )


def require_side(name: str, side: int, encoder: EncoderSettings) -> None:
    """Raise ValueError where an encoder cannot see inputs of a side that is smaller than its own.

    Args:
        name: dotted name of the setting that says the side, or words.
        side: in voxels.
        encoder: whose own settings have been checked.
    """
    if side > encoder.input_size:
        raise ValueError(
            f"{name} ({side}) must be at most encoder.crop_size ({encoder.input_size}), which it is cut from"
        )
    try:
        encoder.resized(side)
    except ValueError as error:
        raise ValueError(f"{name} does not fit encoder.name {encoder.name}: {error}") from error
