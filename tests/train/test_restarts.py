"""After which errors of workers a run goes on."""

import pickle
from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from ray_mae.train.errors import FatalError
from ray_mae.train.metrics.jsonl import append_jsonl
from ray_mae.train.recovery.restarts import Failed, Restarts, cause_of, keep_trace, restarts_of
from ray_mae.train.run_folder import EVENTS, RunFolder
from tests.records import write_record


def folder_of(run: Path) -> RunFolder:
    return RunFolder(run, attempt="now", patience=10)


def began(run: Path, attempt: str = "now") -> None:
    append_jsonl(run / EVENTS, {"event": "first step", "attempt": attempt})


def lost(preempted: bool = False) -> WorkerHealthCheckFailedError:
    cause = RayActorError(preempted=preempted)
    return WorkerHealthCheckFailedError("a worker is gone", cause)


def test_failures_in_a_row_end_a_run_and_a_checkpoint_ends_the_row(tmp_path: Path) -> None:
    began(tmp_path)
    restarts = Restarts(folder_of(tmp_path), 2)
    for step in (10, 20):
        for _ in range(2):
            restarts.after_exception(None, {0: ValueError("collateral"), 3: lost()})
        write_record(tmp_path, step)
    for _ in range(2):
        restarts.after_exception(None, {0: ValueError("shapes")})
    with pytest.raises(Failed, match=r"worker 3.*failure 3 in a row with no checkpoint") as ended:
        restarts.after_exception(None, {0: ValueError("collateral"), 3: lost()})
    assert "collateral" not in str(ended.value)  # the one that was lost is the cause


def test_an_error_of_a_program_before_the_first_step_would_only_come_again(tmp_path: Path) -> None:
    began(tmp_path, "an earlier start")
    restarts = Restarts(folder_of(tmp_path), 5)
    restarts.after_exception(None, {0: lost()})  # a machine's may not
    try:
        raise ValueError("channels\nmust be 1")
    except ValueError as error:
        keep_trace(error)
        with pytest.raises(Failed, match="training ended on worker 1: must be 1") as ended:
            restarts.after_exception(None, {1: pickle.loads(pickle.dumps(error))})
    line, full = cause_of(ControllerError(pickle.loads(pickle.dumps(ended.value))))
    assert line == "training ended on worker 1: must be 1"
    assert "test_restarts.py" in full  # where it came from
    began(tmp_path)
    restarts.after_exception(None, {1: ValueError("must be 1")})


def test_preempted_nodes_do_not_count_and_an_ending_is_one(tmp_path: Path) -> None:
    began(tmp_path)
    restarts = Restarts(folder_of(tmp_path), 0)
    for _ in range(5):
        restarts.after_exception(None, {0: ValueError("collateral"), 1: lost(preempted=True)})
    with pytest.raises(FatalError, match="a full disk"):
        restarts.after_exception(None, {0: lost(), 1: FatalError("a full disk")})
    with pytest.raises(Failed):
        restarts.after_exception(None, {0: lost()})
    for _ in range(9):
        Restarts(folder_of(tmp_path), -1).after_exception(None, {0: lost()})


def test_each_restart_is_an_event_that_says_who_was_lost_and_where_all_begin(
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path)
    began(tmp_path)
    assert restarts_of(tmp_path) == []
    write_record(tmp_path, 20)
    restarts = pickle.loads(pickle.dumps(Restarts(folder, 1)))  # it travels to the controller
    restarts.after_exception(None, {0: ValueError("collateral"), 3: lost()})
    restarts.after_exception(None, {2: lost(preempted=True), 1: lost()})
    write_record(tmp_path, 30)
    restarts.after_exception(None, {0: ValueError("shapes")})
    first, second, third = restarts_of(tmp_path)
    assert first.startswith("worker 3 lost (")
    assert first.endswith("all start again after step 20")
    assert second.startswith("workers 1, 2 lost (")
    assert third == "worker 0 failed (shapes): all start again after step 30"
    assert "collateral" not in first
    with pytest.raises(Failed):
        restarts.after_exception(None, {0: ValueError("shapes")})
    assert len(restarts_of(tmp_path)) == 3  # nothing starts again
    assert len([e for e in folder.events() if e.get("restart")]) == 3
