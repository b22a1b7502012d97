"""Labels of volumes, as an archive brings them, → binary targets for a probe."""

from collections.abc import Sequence

import numpy as np

from ray_mae.evaluate.metrics import FloatArray

MOST_CLASSES = 10


def label_targets(
    labels: Sequence[dict[str, float]],
) -> tuple[FloatArray, list[str], dict[str, str]]:
    """Targets [V, L] (0, 1, NaN where a volume has no such label), their names, and what was left out.

    labels: of each volume, by name. A label of the values 0 and 1 is one target; one of a few whole
    numbers is a target for each, one against the rest, named LABEL=VALUE. A label with more values
    (an age) is no class: it is left out, with the reason.
    """
    columns, names, left_out = [], [], {}
    for name in sorted({name for row in labels for name in row}):
        values = np.array([row.get(name, np.nan) for row in labels], dtype=np.float64)
        known = np.unique(values[~np.isnan(values)])
        if len(known) < 2:
            left_out[name] = "one value only"
        elif len(known) > MOST_CLASSES or (known % 1).any():
            left_out[name] = f"{len(known)} values: a number, no class"
        else:
            binary = known.tolist() == [0.0, 1.0]
            for value in known[-1:] if binary else known:
                columns.append(np.where(np.isnan(values), np.nan, values == value))
                names.append(name if binary else f"{name}={value:g}")
    targets = np.stack(columns, axis=1) if columns else np.empty((len(labels), 0))
    return targets, names, left_out
