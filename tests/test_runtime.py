"""Joining a cluster."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from ray_mae.cluster.runtime import NO_USAGE_STATISTICS, _temporary_folder, connect
from ray_mae.config import SubmitConfig
from ray_mae.search.database import storage_url
from ray_mae.submit.command import _runtime_env
from ray_mae.terminal import console
from ray_mae.train.metrics.prometheus import as_tag
from ray_mae.train.metrics.trackers import mlflow_uri

ROOT = Path(__file__).parents[1]


def test_a_cluster_that_does_not_answer_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:  # nobody listens, and nobody else can
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {address}"):
            connect()


def test_usage_statistics_are_off_wherever_ray_is_started() -> None:
    for name, value in NO_USAGE_STATISTICS.items():
        assert os.environ[name] == value
    for file in ("Dockerfile", "slurm/job.sbatch"):
        text = (ROOT / "cluster" / file).read_text()
        assert all(f"{name}={value}" in text for name, value in NO_USAGE_STATISTICS.items()), file
    job = _runtime_env(SubmitConfig(command=["doctor"]))["env_vars"]
    assert NO_USAGE_STATISTICS.items() <= job.items()


def test_the_packages_that_tell_of_their_use_know_that_they_must_not() -> None:
    """By their own functions: a name that they have given up would be no protection."""
    code = (
        "import ray_mae.cluster.runtime\n"
        "from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY\n"
        "print(usage_stats_enabled(), is_telemetry_disabled(), HF_HUB_DISABLE_TELEMETRY)"
    )
    names = {*NO_USAGE_STATISTICS, "CI", "PYTEST_CURRENT_TEST"}  # MLflow looks for tests, too
    environment = {k: v for k, v in os.environ.items() if k not in names}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["False", "True", "True"]


NAMES = [
    "Müller",
    "脑",
    "a ?b",
    "a#b",
    "50%25",
    "[b]x[red]",
    "a;b&c=d",
    "it's",
    'a"b',
    "<b>",
    "a\\b",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / name
    folder.mkdir()
    assert as_tag(str(folder)).isascii()
    assert unquote(as_tag(name)) == unquote(name)
    for url in (storage_url(folder, None), mlflow_uri(folder)):
        with sqlalchemy.create_engine(url).connect() as connection:
            connection.execute(sqlalchemy.text("create table t (a integer)"))
        file = Path(make_url(url).database or "")
        assert file.parent == folder
        assert file.is_file()
    with caplog.at_level("INFO", "ray_mae"):
        monkeypatch.setattr("ray_mae.terminal.log.propagate", True)
        console.print(f"in {name}")
    assert caplog.messages[-1] == f"in {name}\n"


def test_a_long_tmpdir_is_not_for_rays_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/scratch")
    assert _temporary_folder() is None
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/" + 60 * "ü")
    assert _temporary_folder() == f"/tmp/ray-{os.getuid()}"
    monkeypatch.setenv("RAY_TMPDIR", "/scratch/" + 60 * "x")
    with pytest.raises(ValueError, match=r"RAY_TMPDIR is /scratch/x+: too long"):
        _temporary_folder()
