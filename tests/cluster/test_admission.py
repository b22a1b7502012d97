"""Whose workers may take CPUs, so that reading data always keeps some."""

import pytest

from ray_mae.cluster.admission import QueueEntry, describe_no_reader, must_wait
from ray_mae.config.pretrain import ScalingConfig


def entry(since: float, cpus: float, free: float = 1) -> QueueEntry:
    return QueueEntry(since, cpus, free, str(since))


def test_the_last_cpu_is_never_taken() -> None:
    one, two = entry(1, cpus=1), entry(2, cpus=1)
    assert not must_wait(one, [one, two], cpus=2)
    assert must_wait(two, [one, two], cpus=2)
    assert not must_wait(two, [one, two], cpus=3)
    assert not must_wait(two, [two], cpus=2)  # the first has ended


def test_a_run_with_a_probe_keeps_its_cpus_too() -> None:
    one, two = entry(1, cpus=1, free=2), entry(2, cpus=1)
    assert must_wait(two, [one, two], cpus=3)
    assert not must_wait(two, [one, two], cpus=4)


def test_the_queue_is_in_order_and_what_never_fits_holds_up_nobody() -> None:
    running, large, small = entry(1, cpus=2), entry(2, cpus=3), entry(3, cpus=1)
    queue = [small, large, running]
    assert must_wait(large, queue, cpus=4)
    assert must_wait(small, queue, cpus=4)  # else a large run could wait for ever
    too_large = entry(2, cpus=9)
    assert not must_wait(too_large, [running, too_large, small], cpus=4)  # asks the cluster to grow
    assert not must_wait(small, [running, too_large, small], cpus=4)


@pytest.mark.parametrize(
    ("cpus_per_worker", "workers", "cpus", "told"),
    [(1, 2, 2, True), (1, 2, 3, False), (4, 2, 8, True), (4, 2, 16, False)],
)
def test_workers_that_leave_no_cpu_to_read_with_are_told_at_each_start(
    cpus_per_worker: int, workers: int, cpus: int, told: bool
) -> None:
    scaling = ScalingConfig(cpus_per_worker=cpus_per_worker)
    line = describe_no_reader(scaling, workers, cpus)
    assert (line is not None) == told
    if line:
        assert f"{workers} workers hold all of the cluster's {cpus} CPUs" in line
