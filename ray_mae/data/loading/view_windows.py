"""Windows of views in training: which grey levels are black and which are white, chosen anew each time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.stored_images import DEFAULT, Bytes, Window, is_deep
from ray_mae.data.loading.order import mix
from ray_mae.random_streams import Draw


@dataclass(frozen=True)
class WindowJitter:
    """Random windows around the default ones, by each view's draw."""

    amount: float | None = None
    """The width is within 1 ± this, the centre moves by up to half of it; None: OF_DEEP for views with more
    than 8 bits, no other windows for others."""

    OF_DEEP: ClassVar[float] = 0.3

    def of(self, images: Sequence[Bytes], draws: NDArray[np.int64]) -> Iterator[Window]:
        """The window of each view; images: [N] as stored, draws: [N] of the views."""
        widths, centres = (_uniform(draws, axis) for axis in range(2))
        for data, width, centre in zip(images, widths, centres, strict=True):
            amount = self.amount
            if amount is None:
                amount = self.OF_DEEP if is_deep(data) else 0.0
            if amount == 0:
                yield DEFAULT
                continue
            middle, half = 0.5 + 0.5 * amount * centre, 0.5 * (1 + amount * width)
            yield Window(middle - half, middle + half)


def _uniform(draws: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    """[N] numbers in [-1, 1), of the draws [N]."""
    return mix(draws, Draw.WINDOW, axis).astype(np.float64) / 2.0**63
