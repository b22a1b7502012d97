"""What the loaders ask of a kind of sample."""

from typing import Any, ClassVar, Protocol

import numpy as np

from ray_mae.data.schema import Row


class Collator(Protocol):
    """How rows of one schema become a batch."""

    kind: ClassVar[str]
    """Of the manifest: study or volume."""
    columns: ClassVar[tuple[str, ...]]
    """What is read of a row."""

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        """The arrays of a batch, by name; epochs: which drawing of each row it is, by `RowLocation.draw`."""
        ...

    def describe(self, rows: list[Row]) -> dict[str, list[Any]]:
        """What an evaluation wants to know of the rows, by name."""
        ...
