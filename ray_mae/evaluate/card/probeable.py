"""Which labels each split of a data set can carry: enough of both classes to be probed."""

from ray_mae.config import ProbeConfig
from ray_mae.evaluate.cohort import SplitCount, too_rare

LEAST: int = ProbeConfig.min_positive
"""Patients of each class that a probe wants of a label in each split, unless it is told otherwise."""


def too_few(counts: dict[str, SplitCount]) -> dict[str, dict[str, str]]:
    """The labels that a split cannot carry.

    Args:
        counts: by split, all labels.

    Returns:
        By split, those of its labels with fewer than LEAST patients of a class, and how many; no split
        that carries all.
    """
    lacking: dict[str, dict[str, str]] = {}
    for split, count in counts.items():
        for label, reason in too_rare({split: count}, LEAST).items():
            lacking.setdefault(split, {})[label] = reason.partition(";")[0].replace(
                f" in {split}", ""
            )
    return lacking
