"""Joining a cluster."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ray_mae.cluster.runtime import NO_USAGE_STATISTICS, connect
from ray_mae.config import SubmitConfig
from ray_mae.submit.command import _runtime_env

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
