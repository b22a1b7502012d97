"""`tune` for real: a search with a trial that fails, one that is stopped, repeats, and its report."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
import ray
import yaml
from optuna.trial import TrialState

from ray_mae import cli
from ray_mae.cluster.runtime import cluster
from ray_mae.config import RunConfig, ScalingConfig
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.search.capacity import trials_of_cluster
from ray_mae.search.files import study_name
from ray_mae.search.optuna_study import open_study
from ray_mae.search.prometheus import METRICS
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import EVENTS
from tests.metrics import names_scraped
from tests.shards import rewrite, write_volume_shards

SEARCH = {
    "run": {
        "method": {"name": "mdae", "block_size": 4},
        "encoder": {"name": "resenc", "preset": "tiny", "crop_size": 16},
        "optim": {
            "optimizer": "adamw",
            "lr": 0.001,
            "steps": 8,
            "batch_size": 4,
            "micro_batch_size": 4,
        },
        "scaling": {"workers": 1, "gpu": False},
        "probe": {"bootstrap": 50, "min_positive": 3, "label_counts": [12]},
        "tracking": {"every": 2, "pictures": 0},
    },
    "probes": 2,
    "at_once": 2,
    "repeat": {"best": 0},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the test patients no voxel can be read: who tries, fails."""
    folder = tmp_path_factory.mktemp("shards")
    write_volume_shards(folder, train=24, held_out=16)

    def spoil(row: dict) -> None:
        if row["split"] == "test":
            row["voxels"] = b"not voxels"

    rewrite(folder, spoil)
    return folder


@pytest.fixture(scope="module")
def ray_with_dashboard() -> Iterator[None]:
    with cluster(cpus=7, dashboard=True):
        yield


def search(file: Path, shards: Path, output: Path, **changes: object) -> list[str]:
    """Arguments of the command line; settings in a file, as a user has them."""
    file.write_text(yaml.safe_dump({**SEARCH, **changes}))
    return ["tune", "--config", str(file), "--shards", str(shards), "--output", str(output)]


def trials(output: Path, kind: str = "search") -> list[optuna.trial.FrozenTrial]:
    name = study_name(output, kind)
    return optuna.load_study(study_name=name, storage=f"sqlite:///{output}/study.db").trials


@pytest.mark.slow
@pytest.mark.usefixtures("ray_with_dashboard")
def test_a_search_from_end_to_end(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "grid"
    # the second learning rate leaves no finite weight: that trial fails, and the search goes on
    space = {"optim.lr": {"grid": [1e-3, 1e30]}}
    arguments = search(
        tmp_path / "s.yaml",
        shards,
        output,
        space=space,
        asha={"stop": False},
        repeat={"best": 1, "seeds": 2},
        retries=1,
    )
    with names_scraped() as names:
        cli.run(arguments)
    assert {f"ray_{name}" for name in METRICS} <= names

    first, second = trials(output)
    assert [first.state, second.state] == [TrialState.COMPLETE, TrialState.FAIL]
    assert "not finite" in second.user_attrs["reason"]
    assert len(second.user_attrs["restarts"]) == 1  # it had its second try
    attributes = first.user_attrs
    assert len(attributes["probes"]) == 2
    assert attributes["seconds"] > attributes["start_up_seconds"] > 0
    assert attributes["hours"] > 0
    assert len(trials(output, "repeats")) == 2
    assert {t.user_attrs["values"]["seed"] for t in trials(output, "repeats")} == {1000, 2000}

    summary = json.loads((output / "summary.json").read_text())
    assert summary["trials"]["failed"] == 1
    assert summary["runs_of_best"] == 2
    page = (output / "report.html").read_text()
    assert "Failures" in page
    assert "of the 16 test volumes none was read" in " ".join(page.split())
    assert not outside(page)
    assert list((output / "search" / "0000" / "tensorboard").glob("*.hparams"))
    printed = capsys.readouterr().out
    assert "2 of 2 trials done" in printed
    assert "optuna-dashboard --host 127.0.0.1" in printed

    best = ["pretrain", "--config", str(output / "best.yaml"), "--output", "x"]
    assert cli.parsed(best)[1].optim.lr == 1e-3  # the best settings are those of a run
    assert not capsys.readouterr().err  # in the form of today


@pytest.mark.slow
@pytest.mark.usefixtures("ray_with_dashboard")
def test_what_stopped_trials_held_is_given_back(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "stopped"
    space = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
    changes = {"asha": {"grace": 0.5}, "trials": 3, "resume": True}
    arguments = search(tmp_path / "s.yaml", shards, output, space=space, **changes)
    study = open_study(cli.parsed(arguments)[1], "search")
    # an earlier trial, at its half better than any other can be
    attrs = {"values": {"optim.lr": 1e-3}, "probes": {"4": [1.1, 1.0, 1.2, 50]}, "percent": 50}
    study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, user_attrs=attrs))

    cli.run(arguments)
    stopped = trials(output)
    assert [t.state for t in stopped] == [TrialState.PRUNED] * 3
    assert all(t.user_attrs["percent"] == 50 for t in stopped)
    assert "3 stopped early" in (output / "report.html").read_text()
    deadline = time.time() + 180
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.time() < deadline, ray.available_resources()
        time.sleep(1)


@pytest.mark.slow
def test_without_a_dashboard_nothing_would_take_back_what_stopped_trials_held(
    shards: Path, tmp_path: Path
) -> None:
    arguments = search(tmp_path / "s.yaml", shards, tmp_path / "out", space={"seed": {"grid": [1]}})
    script = (
        "import ray; from ray_mae import cli; "
        "ray.init(address='local', include_dashboard=False, num_cpus=6); "
        f"cli.run({arguments!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "start the head node with --include-dashboard=true" in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("ray_with_dashboard")
def test_two_objectives_leave_a_front(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "two"
    space = {"method.mask_ratio[0]": {"uniform": [0.1, 0.5]}}
    cli.run(
        [
            *search(tmp_path / "s.yaml", shards, output, space=space, trials=2),
            *("--objective", "auroc_and_hours", "--asha.stop", "no", "--probes", "1"),
        ]
    )
    assert all(len(t.values) == 2 for t in trials(output))
    assert "AUROC against hours" in (output / "report.html").read_text()
    cli.run(["tune", "report", "--output", str(output)])


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL])  # SIGTERM ends it as any other command
def test_a_search_whose_driver_was_killed_goes_on(
    shards: Path, tmp_path: Path, how: signal.Signals
) -> None:
    output = tmp_path / "killed"
    changes = {
        "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}},
        "run": {**SEARCH["run"], "optim": {**SEARCH["run"]["optim"], "steps": 24}},
        "trials": 3,
        "at_once": 1,
        "probes": 3,
        "asha": {"stop": False},
    }
    arguments = search(tmp_path / "s.yaml", shards, output, **changes)
    study = open_study(cli.parsed(arguments)[1], "search")
    study.add_trial(
        optuna.trial.create_trial(
            value=0.5,
            params={"optim.lr": 1e-3},
            distributions={
                "optim.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
            },
            user_attrs={"values": {"optim.lr": 1e-3}, "probes": {"8": [0.5, 0.4, 0.6, 33]}},
        )
    )
    command = [str(Path(sys.executable).with_name("ray-mae")), *arguments, "--resume", "true"]
    with (tmp_path / "said").open("w") as file:
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    try:
        deadline = time.time() + 240
        while not probed(output, 1):
            assert first.poll() is None
            assert time.time() < deadline
            time.sleep(0.2)
    finally:
        os.kill(first.pid, how)
        first.wait()
    said = (tmp_path / "said").read_text()
    if how == signal.SIGTERM:
        assert first.returncode == 143, said
        assert "ray-mae: SIGTERM: " in said
        assert said.endswith("--resume true\n")
        saved = read_jsonl(output / "search" / "0001" / EVENTS)[-1]["event"]
        assert saved in ("stopped", "done")
    before = trials(output)
    assert [t.state for t in before] == [TrialState.COMPLETE, TrialState.RUNNING]

    with pytest.raises(ValueError, match="add --resume true"):
        cli.run(arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    after = trials(output)
    assert [t.state for t in after] == [TrialState.COMPLETE] * 3
    assert after[0].values == before[0].values
    assert after[1].params == before[1].params
    assert after[2].params != after[1].params  # the sampler does not begin again
    events = read_jsonl(output / "search" / "0001" / EVENTS)
    starts = [e["first_step"] for e in events if e["event"] == "engine ready"]
    assert starts[0] == 0
    assert all(starts[1:])  # it went on from its checkpoint, if it had not come to its end


def probed(output: Path, number: int) -> bool:
    """Whether a trial has a probe but not its last one."""
    try:
        all_trials = trials(output)
    except Exception:  # no database yet
        return False
    return len(all_trials) > number and 0 < len(all_trials[number].user_attrs.get("probes", {})) < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"optim.lrr": {"choice": [1]}}}, "did you mean optim.lr?"),
        ({"space": {"method.mask_ratio[0]": {"uniform": [0.5, 2]}}}, "method.mask_ratio must be"),
        ({"space": {"optim.batch_size": {"choice": [4, 6]}}}, "which space allows"),
        ({"space": {"probe.every": {"choice": [1]}}}, "a search sets probe itself"),
        ({"trackers": ["wandb"]}, "wandb is not installed"),
        ({"objective": "auroc_and_hours"}, "asha.stop must be off"),
        ({"run": {**SEARCH["run"], "probe": {"min_positive": 40}}}, "lower probe.min_positive"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    changes: dict, message: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    changes = {"space": {"seed": {"grid": [1]}}, **changes}
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        cli.run(search(tmp_path / "s.yaml", shards, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def outside(page: str) -> list[str]:
    """Addresses that the page would load something from."""
    addresses: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            addresses.extend(
                v
                for k, v in attrs
                if k in ("src", "href") and v and not v.startswith(("data:", "#"))
            )

    Links().feed(page)
    return addresses


@pytest.mark.usefixtures("ray_with_dashboard")
def test_no_more_trials_at_a_time_than_their_workers_readers_and_probes_have_room() -> None:
    def run(workers: int) -> RunConfig:
        return RunConfig(method=MdaeSettings(), scaling=ScalingConfig(workers=workers))

    assert trials_of_cluster(run(1), gpus=False) == 2  # of 3 CPUs each, and two drivers
    assert trials_of_cluster(run(4), gpus=False) == 1
    with pytest.raises(ValueError, match=r"takes 10 CPUs .* the cluster has 7 CPUs.*lower"):
        trials_of_cluster(run(8), gpus=False)
    with pytest.raises(ValueError, match="and 1 GPUs"):
        trials_of_cluster(run(1), gpus=True)
