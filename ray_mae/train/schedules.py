"""The learning rate, by step."""

import math


def learning_rate(step: int, *, peak: float, floor: float, warmup: int, steps: int) -> float:
    """Linear from 0 in the first `warmup` steps, then half a cosine down to `floor` at the last.

    step: 0-based optimiser step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * share))
