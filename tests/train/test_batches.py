"""What a worker is given: in order, whole, and on a GPU before it is asked for."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.stream import to_block
from ray_mae.train.batches import Batches
from ray_mae.train.errors import FatalError
from tests.batches import study_batch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def arrays(seed: int) -> dict[str, np.ndarray]:
    """A batch as a collator makes it."""
    values = vars(study_batch([2, 1], seed=seed)).items()
    return {name: value.numpy() for name, value in values if isinstance(value, torch.Tensor)}


class Shard:
    """Of a dataset: a block for each step, and what comes after them."""

    def __init__(self, steps: list[int], error: Exception | None = None) -> None:
        self._steps, self._error = steps, error

    def iter_batches(self, **_: Any) -> Iterator[Any]:
        for step in self._steps:
            yield to_block(arrays(step), step=step, weight=1.5, folders=[0, 1], lost="[]")
        if self._error:
            raise self._error


@pytest.mark.parametrize("device", DEVICES)
def test_batches_come_in_order_and_as_they_were_collated(device: str) -> None:
    batches = Batches(Shard([3, 4, 5]), KINDS["study"], torch.device(device))
    for step in (3, 4, 5):
        micro = batches.next(step)
        batches.prepare()  # after the last one there is none, which is no error
        batches.prepare()
        assert micro.weight == 1.5
        assert micro.folders.tolist() == [0, 1]
        assert micro.batch.known_most == 2
        for name, expected in arrays(step).items():
            value = getattr(micro.batch, name)
            assert value.device.type == device
            assert np.array_equal(value.cpu().numpy(), expected)
    assert batches.take_waited() > 0
    assert batches.take_waited() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_of_another_step_is_refused(device: str) -> None:
    batches = Batches(Shard([3, 5]), KINDS["study"], torch.device(device))
    batches.next(3)
    batches.prepare()
    with pytest.raises(RuntimeError, match="step 4 was given a micro-batch of step 5"):
        batches.next(4)


@pytest.mark.parametrize("device", DEVICES)
def test_damage_ends_the_step_that_it_belongs_to(device: str) -> None:
    damage = RuntimeError("in Ray's words: DamagedShard: train-3.parquet is not as it was")
    batches = Batches(Shard([3], damage), KINDS["study"], torch.device(device))
    batches.next(3)
    batches.prepare()  # step 3 may end before anybody hears of it
    with pytest.raises(FatalError, match=r"^train-3\.parquet is not as it was"):
        batches.next(4)
