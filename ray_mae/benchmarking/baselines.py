"""What a sample is described by without any encoder: its intensities, and what is known besides the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.foreground import foreground

BINS = 64
PERCENTILES = tuple(range(5, 100, 10))
GREY, Z_SCORE = (0.0, 256.0), (-4.0, 8.0)
"""What the bins are over; values beyond are counted in the first and the last."""

Vector = NDArray[np.float32]


def histogram(image: NDArray[np.uint8]) -> Vector:
    """Intensities of a radiograph [H, W]: 80 numbers.

    Over the foreground, which is all that is not black: shares of 64 bins, mean, SD, skewness, kurtosis,
    entropy in bits, ten percentiles; then the share of the image that is foreground.
    """
    inside = image > 0
    values = image[inside if inside.any() else np.ones_like(inside)]
    return np.append(_intensities(values, GREY), inside.mean()).astype(np.float32)


def volume_histogram(
    voxels: NDArray[np.floating],
    valid: NDArray[np.bool_] | None,
    spacing_mm: Sequence[float],
    mean: float,
    std: float,
) -> Vector:
    """Intensities of a volume: 82 numbers, as `histogram`, and the last three its own.

    Args:
        voxels: [X, Y, Z] z-scores.
        valid: [X, Y, Z], None where all are.
        spacing_mm: [3] between voxels.
        mean, std: of the foreground before z-scoring, as its row says.

    Returns:
        The last three are the volume of the foreground in ml, and mean and SD as scanned.
    """
    inside = foreground(voxels.astype(np.float32))
    inside = inside if valid is None else inside & valid
    values = voxels[inside if inside.any() else np.ones_like(inside)].astype(np.float64)
    millilitres = inside.sum() * float(np.prod(spacing_mm)) / 1000
    return np.append(_intensities(values, Z_SCORE), [millilitres, mean, std]).astype(np.float32)


def _intensities(values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.float64]:
    """[BINS + 15] of values [N]."""
    values = values.astype(np.float64)
    within = values.clip(limits[0], np.nextafter(limits[1], limits[0]))
    shares = np.histogram(within, BINS, limits)[0] / len(values)
    mean, deviation = values.mean(), values.std()
    scores = (values - mean) / deviation if deviation > 0 else np.zeros_like(values)
    some = shares[shares > 0]
    moments = [mean, deviation, (scores**3).mean(), (scores**4).mean(), -(some @ np.log2(some))]
    return np.concatenate([shares, moments, np.percentile(values, PERCENTILES)])


def metadata(
    attributes: Mapping[str, NDArray[Any]],
    columns: Sequence[str],
    train_rows: NDArray[np.intp],
) -> Vector:
    """What is known of S samples without their images, as numbers [S, D].

    Args:
        attributes: by name [S] objects, None where unknown.
        columns: names of those that are taken; none for all, by name.
        train_rows: samples by which numbers are standardised, and whose categories have a column.

    Returns:
        Of a number two columns: the standardised value, 0 where unknown, and whether it is unknown. Of any
        other attribute one for each category among the training rows, and a last one for what is unknown
        or was not among them.

    Raises:
        ValueError: there is no such attribute, or none at all.
    """
    names = list(columns) or sorted(attributes)
    if missing := [name for name in names if name not in attributes]:
        raise ValueError(
            f"there is no attribute {missing[0]!r} (columns); there are "
            f"{', '.join(sorted(attributes)) or 'none'}: ingest with --attributes"
        )
    if not names:
        raise ValueError("no attribute is known of these samples: ingest with --attributes")
    parts = [
        _number(attributes[name], train_rows)
        if _is_number(attributes[name])
        else _categories(attributes[name], train_rows)
        for name in names
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _is_number(values: NDArray[Any]) -> bool:
    known = [v for v in values if v is not None]
    return bool(known) and all(
        isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in known
    )


def _number(values: NDArray[Any], train_rows: NDArray[np.intp]) -> NDArray[np.float64]:
    numbers = np.array([np.nan if v is None else float(v) for v in values])
    known = numbers[train_rows][~np.isnan(numbers[train_rows])]
    mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    scores = (numbers - mean) / (deviation if deviation > 0 else 1.0)
    return np.stack([np.nan_to_num(scores), np.isnan(numbers)], axis=1)


def _categories(values: NDArray[Any], train_rows: NDArray[np.intp]) -> NDArray[np.float64]:
    seen = sorted({str(v) for v in values[train_rows] if v is not None})
    column = {category: i for i, category in enumerate(seen)}
    which = [len(seen) if v is None else column.get(str(v), len(seen)) for v in values]
    return np.eye(len(seen) + 1)[which]
