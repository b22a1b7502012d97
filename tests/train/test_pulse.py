"""Who is waited for, when a run falls silent."""

from dataclasses import replace

from ray_mae.train.recovery.pulse import EVERY_S, Sign, Silence

SIGN = Sign(rank=0, step=57, doing="training", host="node-a", pid=11, time=0.0)


class Workers:
    """Two of them, whose signs of life are as old as the test says."""

    def __init__(self) -> None:
        self.signs = [SIGN, replace(SIGN, rank=1, host="node-b", pid=12, doing="reading data")]

    def read(self, attempt: str) -> list[Sign]:
        assert attempt == "now"
        return self.signs

    def beat(self, rank: int, time: float) -> None:
        self.signs[rank] = replace(self.signs[rank], time=time)


def test_the_worker_without_a_sign_of_life_is_named_and_what_goes_on() -> None:
    workers = Workers()
    silence = Silence("now", workers.read)
    assert silence.look(1e6) is None  # workers start
    silence.heard(0.0)
    lines = []
    for now in range(1, 131):
        if now % EVERY_S == 0:
            workers.beat(0, now)
        if line := silence.look(float(now)):
            lines.append((now, line))
    assert [now for now, _ in lines] == [60, 120]
    assert lines[0][1].startswith(
        "no metrics for 60 s: no sign of life of worker 1 (node-b, process 12) for 30 s, last reading data "
        "after step 57; the others (1) wait. One that does not answer for 600 s is given up"
    )
    assert silence.heard(131.0) == "metrics again after 131 s"
    assert silence.heard(132.0) is None


def test_where_all_live_the_one_behind_is_named() -> None:
    workers = Workers()
    silence = Silence("now", workers.read)
    silence.heard(0.0)
    line = None
    for now in range(1, 61):
        for rank in (0, 1):
            workers.beat(rank, now)
        line = silence.look(float(now)) or line
    assert line
    assert (
        "all 2 workers are alive; worker 1 (node-b, process 12) is reading data after step 57"
        in line
    )


def test_a_run_whose_metrics_come_seldom_is_given_more_time_and_one_that_rests_is_left_alone() -> (
    None
):
    silence = Silence("now", Workers().read)
    silence.heard(0.0)
    silence.heard(100.0)
    assert not any(silence.look(100.0 + s) for s in range(499))
    assert silence.look(601.0)
    silence.rest()
    assert silence.look(1e6) is None
