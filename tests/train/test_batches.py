"""What a worker is given: in order, whole, and on a GPU before it is asked for."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ray_mae.data.kinds import KINDS
from ray_mae.data.letterbox import flatten
from ray_mae.data.loading.stream import to_block
from ray_mae.train.batches import Batches
from ray_mae.train.errors import FatalError
from tests.batches import study_batch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def arrays(seed: int) -> dict[str, np.ndarray]:
    """A batch as a collator makes it."""
    batch = study_batch([2, 1], seed=seed)
    squares = zip(batch.images[:, 0].numpy(), batch.side.tolist(), strict=True)
    pixels, shape = flatten([image[:side, :side] for image, side in squares])
    values = {k: v.numpy() for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    del values["images"], values["side"]
    return {"pixels": pixels, "shape": shape, **values}


def blocks(steps: list[int], error: Exception | None = None) -> Iterator[Any]:
    """One for each step, and what comes after them."""
    for step in steps:
        yield to_block(arrays(step), step=step, weight=1.5, folders=[0, 1], lost="[]", note="")
    if error:
        raise error


@pytest.mark.parametrize("device", DEVICES)
def test_batches_come_in_order_and_as_they_were_collated(device: str) -> None:
    batches = Batches(blocks([3, 4, 5]), KINDS["study"], torch.device(device))
    for step in (3, 4, 5):
        micro = batches.next(step)
        batches.prepare()  # after the last one there is none, which is no error
        batches.prepare()
        assert micro.weight == 1.5
        assert micro.folders.tolist() == [0, 1]
        assert micro.batch.known_most == 2
        for name, expected in vars(KINDS["study"].to_batch(arrays(step))).items():
            value = getattr(micro.batch, name)
            if isinstance(expected, torch.Tensor):
                assert value.device.type == device
                assert torch.equal(value.cpu(), expected)
    assert batches.take_waited() > 0
    assert batches.take_waited() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_of_another_step_is_refused(device: str) -> None:
    batches = Batches(blocks([3, 5]), KINDS["study"], torch.device(device))
    batches.next(3)
    batches.prepare()
    with pytest.raises(RuntimeError, match="step 4 was given a micro-batch of step 5"):
        batches.next(4)


@pytest.mark.parametrize("device", DEVICES)
def test_damage_ends_the_step_that_it_belongs_to(device: str) -> None:
    damage = RuntimeError("in Ray's words: DamagedShard: train-3.parquet is not as it was")
    batches = Batches(blocks([3], damage), KINDS["study"], torch.device(device))
    batches.next(3)
    batches.prepare()  # step 3 may end before anybody hears of it
    with pytest.raises(FatalError, match=r"^train-3\.parquet is not as it was"):
        batches.next(4)
