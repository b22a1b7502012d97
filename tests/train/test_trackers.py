"""MLflow and W&B, the real packages without a network: one run there, however often it is started."""

import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ray_mae.config import PretrainConfig, TrackingConfig
from ray_mae.config.base import to_dict
from ray_mae.methods.mvmae.settings import MvmaeSettings
from ray_mae.train.metrics.trackers import (
    IDS,
    Listener,
    Listeners,
    Mlflow,
    Wandb,
    check_trackers,
    open_trackers,
)

ROOT = Path(__file__).parents[2]


def config_of(output: Path, *trackers: str) -> PretrainConfig:
    output.mkdir(exist_ok=True)
    tracking = TrackingConfig(trackers=list(trackers))  # type: ignore[arg-type]
    return PretrainConfig(shards=output, output=output, method=MvmaeSettings(), tracking=tracking)


def opened(config: PretrainConfig, ids: dict[str, str]) -> Sequence[Listener]:
    return open_trackers(config.output, config.tracking.trackers, to_dict(config), ids)


def start(config: PretrainConfig, first: int, ends_well: bool) -> str:
    """Four steps from `first` on, and a probe; the id there."""
    (tracker,) = opened(config, {})
    for step in range(first, first + 4):
        tracker.metrics({"step": step, "loss": 1 / step, "loss/hospital (2019)": 2 / step})
    tracker.probe({"step": first, "probe_auroc": 0.7, "labels": {"effusion": 0.7}})
    tracker.close(ends_well)
    assert isinstance(tracker, Mlflow | Wandb)
    return tracker.id


def test_mlflow_continues_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    # the default, SQLite, takes 20 seconds to make its tables
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    config = config_of(tmp_path / "run", "mlflow")
    run_id = start(config, 1, ends_well=False)
    assert start(config, 3, ends_well=True) == run_id  # as after a checkpoint of step 2
    client = MlflowClient(f"file://{tmp_path}/mlruns")
    (experiment,) = (e for e in client.search_experiments() if e.name == "ray_mae")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.batch_size"] == "1024"
    losses = {m.step: m.value for m in client.get_metric_history(run_id, "loss")}
    assert losses == {step: 1 / step for step in range(1, 7)}
    assert run.data.metrics["loss_hospital _2019_"] == 2 / 6
    assert run.data.metrics["probe_auroc"] == 0.7

    (tmp_path / "run" / IDS).unlink()  # a folder that came with its checkpoints alone
    (tracker,) = opened(config, {"mlflow": run_id})
    assert isinstance(tracker, Mlflow)
    assert tracker.id == run_id
    with pytest.raises(ValueError, match=r"MLflow cannot be used .*leave mlflow out"):
        opened(config_of(tmp_path / "other", "mlflow"), {"mlflow": "0" * 32})


def test_mlflow_gets_later_what_it_did_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    (tracker,) = opened(config_of(tmp_path / "run", "mlflow"), {})
    assert isinstance(tracker, Mlflow)
    tracker.metrics({"step": 1, "loss": 1.0})
    (tmp_path / "mlruns").rename(tmp_path / "away")
    with pytest.raises(Exception, match="does not exist"):
        tracker.metrics({"step": 2, "loss": 2.0})
    shutil.rmtree(tmp_path / "mlruns", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "mlruns")
    tracker.metrics({"step": 3, "loss": 3.0})
    history = MlflowClient(f"file://{tmp_path}/mlruns").get_metric_history(tracker.id, "loss")
    assert [m.value for m in history] == [1.0, 2.0, 3.0]


def test_wandb_continues_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start is a process, as drivers are: W&B's service does not end a run at once."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    program = (
        "import sys; from pathlib import Path; from tests.train.test_trackers import *; "
        "print(start(config_of(Path(sys.argv[1]), 'wandb'), int(sys.argv[2]), True))"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "run")]
    said = [subprocess.check_output([*words, n], text=True, cwd=ROOT) for n in "13"]
    run_id = said[0].split()[-1]
    starts = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert [logged_steps(file) for file in starts] == [[1, 2, 3, 4, 1], [3, 4, 5, 6, 3]]


def logged_steps(file: Path) -> list[int]:
    """The steps in what `wandb sync` would send: a LevelDB log of protobuf records."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, steps = file.read_bytes(), 7, []
    assert len(content) < 32768  # one block: no record is cut in parts
    while place < len(content):
        _, length, kind = struct.unpack_from("<IHB", content, place)
        assert kind == 1
        record = Record.FromString(content[place + 7 : place + 7 + length])
        place += 7 + length
        steps += [
            int(item.value_json)
            for item in record.history.item
            if "step" in (item.key, *item.nested_key)
        ]
    return steps


def test_what_cannot_be_tracked_is_told_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"tracking.trackers: no_such is not installed"):
        check_trackers(["no_such"])
    (tmp_path / "no_such").mkdir()  # as W&B leaves a folder of its name
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"tracking.trackers: no_such is not installed"):
        check_trackers(["no_such"])
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ValueError, match="W&B has no key here"):
        check_trackers(["wandb"])
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'a' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    check_trackers(["wandb"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match=r"MLflow cannot be used .*MLFLOW_TRACKING_URI"):
        opened(config_of(tmp_path / "run", "mlflow"), {})


def test_a_tracker_that_fails_is_told_of_once_and_stops_nobody() -> None:
    heard: list[int] = []

    class Down:
        def metrics(self, record: dict) -> None:
            if record["step"] < 3:
                raise ConnectionError("no answer\nin many lines")

        event = probe = close = metrics

    class Up(Down):
        def metrics(self, record: dict) -> None:
            heard.append(record["step"])

        event = probe = close = metrics

    said: list[str] = []
    listeners = Listeners([Down(), Up()], said.append)  # type: ignore[list-item]
    for step in (1, 2, 3, 1):
        listeners.metrics({"step": step})
    assert heard == [1, 2, 3, 1]
    assert said == ["warning: Down was not told: no answer"] * 2
