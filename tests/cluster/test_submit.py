"""`ray-mae submit` against a real cluster with a token."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import EVENTS
from tests.cluster.head import Head, clean_environment, head
from tests.cluster.relay import relay
from tests.shards import write_shards

pytestmark = pytest.mark.slow

TINY = """\
method: {name: mvmae, decoder_width: 32, decoder_depth: 1, decoder_heads: 2, mask_ratio: 0.5, gamma: 0.0}
encoder: {name: vit, preset: tiny, image_size: 32, patch_size: 8, width: 32, depth: 1, heads: 2}
data: {shuffle_window: 8}
optim: {batch_size: 8, micro_batch_size: 8, steps: 4, base_lr: 0.05}
engine: {precision: fp32}
scaling: {workers: 1, gpu: false}
tracking: {every: 1, pictures: 0}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with head(cpus=2, A_SECRET="of the cluster") as started:
        yield started


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's working folder: settings, and data that must stay where it is."""
    (tmp_path / "work" / "shards").mkdir(parents=True)
    (tmp_path / "work" / "tiny.yaml").write_text(TINY)
    (tmp_path / "work" / "scan.dcm").write_text("a patient")
    (tmp_path / "work" / "shards" / "manifest.json").write_text("{}")
    return tmp_path / "work"


def submit(
    environment: dict[str, str], folder: Path, *words: object
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ray_mae", "submit", *map(str, words)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )


def follow(environment: dict[str, str], folder: Path, *words: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ray_mae", "submit", "--follow", *map(str, words)],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_pretrainings_leave_each_other_a_cpu_to_read_with_and_both_end(
    cluster: Head, folder: Path, shards: Path, tmp_path: Path
) -> None:
    """Two CPUs, and one for the worker of each: taken by both at once, neither would get any data."""
    began = time.time()
    command = [
        "--env",
        "A_SECRET",
        "--",
        "pretrain",
        "--config",
        "tiny.yaml",
        "--shards",
        shards,
        "--output",
    ]
    first = submit(
        cluster.environment(), folder, "--address", cluster.address, *command, tmp_path / "a"
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert "sent along: 1 files" in first.stdout  # neither the scan nor the shards
    assert "every node of the cluster must mount" in first.stdout
    with relay(cluster.address) as line:
        second = follow(
            cluster.environment(), folder, "--address", line.address, *command, tmp_path / "b"
        )
        assert second.stdout
        printed = ""
        for text in second.stdout:
            printed += text
            if "training data" in text:
                assert line.cut()  # while the second waits for the first
        assert second.wait() == 0, printed
    for once in ("training data", "starting workers", "step      4  loss"):
        assert printed.count(once) == 1, printed
    assert "of the cluster\n" not in printed  # the secret's value
    events_of = {}
    deadline = time.time() + 200
    while not (tmp_path / "a" / "summary.json").is_file():  # it may have been its turn later
        assert time.time() < deadline
        time.sleep(0.2)
    for run in "ab":
        assert json.loads((tmp_path / run / "summary.json").read_text())["steps"] == 4
        events_of[run] = {e["event"]: e["time"] for e in read_jsonl(tmp_path / run / EVENTS)}
    earlier, later = sorted(events_of.values(), key=lambda events: events["worker ready"])
    assert earlier["done"] < later["worker ready"]  # workers of both at a time would never be fed
    print(f"from submit to first step: {events_of['a']['first step'] - began:.1f} s")


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
def test_the_probes_of_kubernetes_are_answered_without_the_token(cluster: Head, probe: str) -> None:
    file = Path(__file__).parents[2] / "cluster/kubernetes/cluster.yaml"
    head = yaml.safe_load(file.read_text())["spec"]["headGroupSpec"]["template"]["spec"]
    request = head["containers"][0][probe]["httpGet"]
    assert request["port"] == 52365  # where agents listen unless told otherwise, as they are here
    for _ in range(60):  # the agent comes up after the head
        with (
            suppress(OSError),
            urlopen(f"http://127.0.0.1:{cluster.agent}{request['path']}") as answer,
        ):
            assert answer.status == 200
            return
        time.sleep(1)
    raise AssertionError("no answer")


def test_a_job_fails_with_one_line_and_its_own_exit_code(cluster: Head, folder: Path) -> None:
    words = ["--", "inspect", "--shards", "/nowhere", "--output", "/nowhere"]
    options = ["--address", cluster.address]
    secret = follow(
        cluster.environment(), folder, *options, "--env", "MISSING_SECRET", *words
    )  # fmt: skip
    path = follow(cluster.environment(), folder, *options, *words)
    printed, _ = secret.communicate()
    assert secret.returncode == 2
    assert "ray-mae: MISSING_SECRET is not set on the cluster" in printed
    printed, _ = path.communicate()
    assert path.returncode == 1
    assert "ray-mae: " in printed.splitlines()[-2]
    assert "/nowhere" in printed.splitlines()[-2]


def test_a_cluster_refuses_a_wrong_token_and_none_in_one_line(cluster: Head, folder: Path) -> None:
    words = ["--address", cluster.address, "--", "inspect", "--shards", "/shards"]
    for variables, message in [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses the token"),
        ({"RAY_AUTH_MODE": "disabled"}, "wants a token: set RAY_AUTH_MODE=token"),
    ]:
        done = submit(clean_environment() | variables, folder, *words)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_ctrl_c_leaves_the_job_running(cluster: Head, folder: Path) -> None:
    following = follow(
        cluster.environment(), folder, "--address", cluster.address,
        "--", "demo", "--output", folder / "demo",
    )  # fmt: skip
    assert following.stdout
    lines = iter(following.stdout)
    stop = next(line for line in lines if "stop:" in line).split(":", 1)[1]
    next(line for line in lines if "Generating" in line)
    following.send_signal(signal.SIGINT)
    assert "goes on" in following.stdout.read()
    assert following.wait() == 130
    ask = {"shell": True, "env": cluster.environment(), "capture_output": True, "text": True}
    status = subprocess.run(stop.replace(" stop ", " status "), **ask)
    assert "RUNNING" in status.stdout + status.stderr
    assert subprocess.run(stop, **ask).returncode == 0
