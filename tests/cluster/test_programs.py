"""The image's file and the Slurm script, by their linters; the script also by what it starts."""

import os
import platform
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

ROOT = Path(__file__).parents[2]
IMAGE, SCRIPT = ROOT / "cluster/Dockerfile", ROOT / "cluster/slurm/job.sbatch"
BIN = Path(sys.executable).parent

linted = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the linters are x86_64 programs"
)


def lint(program: str, text: str) -> subprocess.CompletedProcess:
    return subprocess.run([BIN / program, "-"], input=text, capture_output=True, text=True)


@linted
@pytest.mark.parametrize(
    ("program", "file", "right", "wrong", "rule"),
    [
        ("hadolint", IMAGE, "USER 1000\n", "USER root\n", "DL3002"),
        ("hadolint", IMAGE, "uv==", "uv #", "DL3013"),
        ("shellcheck", SCRIPT, '"$head:6379"', "$head:6379", "SC2086"),
        ("shellcheck", SCRIPT, '"$@"', "$@", "SC2068"),
    ],
)
def test_linters_find_nothing_and_a_mistake(
    program: str, file: Path, right: str, wrong: str, rule: str
) -> None:
    text = file.read_text()
    assert right in text
    clean = lint(program, text)
    assert clean.returncode == 0, clean.stdout
    result = lint(program, text.replace(right, wrong))
    assert result.returncode != 0
    assert rule in result.stdout


def test_the_image_copies_what_is_there_and_pins_what_the_tests_ran_with() -> None:
    text = IMAGE.read_text()
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in text.splitlines():
        if line.startswith("COPY") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
                assert f"!{name}" in ignored, name
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    assert any(p.startswith("ray==") for p in pins["constraint-dependencies"])
    assert "uv sync" in text
    assert "nvidia-cuda-nvcc==" in text


def test_login_shells_of_the_image_find_its_programs() -> None:
    """`ray up` runs all in them; /etc/profile has set PATH before."""
    (echo,) = re.findall(r"(echo .*) > /etc/profile\.d/\w+\.sh", IMAGE.read_text())
    profile = subprocess.check_output(["sh", "-c", echo], text=True)
    shell = ["bash", "-c", f"{profile}\nbash -c 'echo $PATH'"]
    path = subprocess.check_output(shell, text=True, env={"PATH": "/usr/bin:/bin"}).strip()
    assert path == "/opt/venv/bin:/usr/bin:/bin"
    last = IMAGE.read_text().rpartition("\nFROM ")[2]
    assert "/usr/local/bin/uv" in last  # for `submit --environment uv`


def test_a_job_that_is_queued_again_keeps_its_log() -> None:
    options = re.findall(r"(?m)^#SBATCH (.*)$", SCRIPT.read_text())
    assert {"--requeue", "--open-mode=append"} <= {*options}


def test_the_slurm_script_starts_ray_on_all_nodes_and_the_command_on_one(tmp_path: Path) -> None:
    """With programs in the place of Slurm's that write down what they were asked."""
    for name, body in {
        "scontrol": "echo node7; echo node8",
        "srun": f'printf "%q " "$@" > {tmp_path}/asked; env > {tmp_path}/environment',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n".replace("sh", "bash", 1))
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "48",
        "SLURM_GPUS_ON_NODE": "4",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    command = ["pretrain", "--config", "jobs/a b.yaml", "--output", "/data/run"]
    subprocess.run(["bash", SCRIPT, *command], env=slurm, check=True)
    arguments = shlex.split((tmp_path / "asked").read_text())
    cut = arguments.index("--")
    ray = arguments.index("ray")
    assert "--cpus-per-task=48" in arguments[:ray]
    assert arguments[ray + 1] == "symmetric-run"
    assert arguments[ray + 2 : cut] == [
        *("--address", "node7:6379", "--min-nodes", "2", "--num-cpus", "48", "--num-gpus", "4")
    ]
    # as Ray itself takes it apart: these go to `ray start`
    assert curate_and_validate_ray_start_args(arguments[ray + 2 : cut]) == [
        *("--num-cpus", "48", "--num-gpus", "4")
    ]
    assert arguments[cut + 1 :] == ["env", "RAY_ADDRESS=auto", "python", "-m", "ray_mae", *command]
    environment = (tmp_path / "environment").read_text()
    assert "RAY_AUTH_MODE=token" in environment
    token = environment.split("RAY_AUTH_TOKEN=")[1].split()[0]
    assert len(token) == 64
    assert token not in " ".join(arguments)  # which everybody on the node can read
