"""The learning rate, by step."""

import math

POWER = 0.9
"""Of nnU-Net's polynomial decay."""


def learning_rate(
    step: int, *, peak: float, floor: float, warmup: int, steps: int, decay: str = "cosine"
) -> float:
    """Linear from 0 in the first `warmup` steps, then down to `floor` at the last one.

    step: 0-based optimiser step. decay: "cosine" (half a cosine) or "poly", (1 - share)^0.9.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    left = (1 - share) ** POWER if decay == "poly" else 0.5 * (1 + math.cos(math.pi * share))
    return floor + (peak - floor) * left
