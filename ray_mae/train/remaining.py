"""What is left of a run's data, cut for the workers that there are now."""

from collections.abc import Callable
from typing import Any

import ray.train
from ray.data import DataIterator, ExecutionOptions

from ray_mae.data.loading.stream import Stream


class Remaining(ray.train.DataConfig):
    """Makes the run's dataset anew whenever Ray Train starts a group of workers, for their number.

    What is given to the trainer as `datasets` stands for a name only.
    """

    def __init__(self, stream: Callable[[int], Stream]) -> None:
        """stream: from the number of workers to the samples after the last committed checkpoint."""
        super().__init__(
            execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False
        )
        self._stream = stream

    def configure(
        self, datasets: dict[str, Any], world_size: int, *rest: Any, **more: Any
    ) -> list[dict[str, DataIterator]]:
        """An iterator for each worker, by the dataset's name."""
        made = {name: self._stream(world_size).dataset() for name in datasets}
        return super().configure(made, world_size, *rest, **more)
