"""Whose workers may take CPUs, so that reading data always keeps some."""

from ray_mae.cluster.admission import Claim, must_wait


def claim(since: float, held: float, beside: float = 1) -> Claim:
    return Claim(since, held, beside, str(since))


def test_the_last_cpu_is_never_taken() -> None:
    one, two = claim(1, held=1), claim(2, held=1)
    assert not must_wait(one, [one, two], cpus=2)
    assert must_wait(two, [one, two], cpus=2)
    assert not must_wait(two, [one, two], cpus=3)
    assert not must_wait(two, [two], cpus=2)  # the first has ended


def test_a_run_with_a_probe_keeps_its_cpus_too() -> None:
    one, two = claim(1, held=1, beside=2), claim(2, held=1)
    assert must_wait(two, [one, two], cpus=3)
    assert not must_wait(two, [one, two], cpus=4)


def test_turns_are_in_order_and_what_never_fits_holds_up_nobody() -> None:
    running, large, small = claim(1, held=2), claim(2, held=3), claim(3, held=1)
    every = [small, large, running]
    assert must_wait(large, every, cpus=4)
    assert must_wait(small, every, cpus=4)  # else a large run could wait for ever
    too_large = claim(2, held=9)
    assert not must_wait(too_large, [running, too_large, small], cpus=4)  # asks the cluster to grow
    assert not must_wait(small, [running, too_large, small], cpus=4)
