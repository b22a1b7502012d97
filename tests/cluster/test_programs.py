"""The image's file and the Slurm script, by their linters; the script also by what it starts."""

import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_mae.cluster.slurm import interface_of, own_address, start_command

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
        ("shellcheck", SCRIPT, 'node "${nodes[1]}"', "node ${nodes[1]}", "SC2086"),
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
    assert path == "/opt/venv/bin:/usr/bin:/bin:/usr/local/nvidia/bin"
    last = IMAGE.read_text().rpartition("\nFROM ")[2]
    assert "/usr/local/bin/uv" in last  # for `submit --environment uv`


def test_a_job_that_is_queued_again_keeps_its_log() -> None:
    options = re.findall(r"(?m)^#SBATCH (.*)$", SCRIPT.read_text())
    assert {"--requeue", "--open-mode=append"} <= {*options}


PROGRAMS = {
    # in the place of Slurm's and of Python: they write down what they are asked
    "scontrol": """case "$1" in
        show) printf 'node7\\nnode8\\n' ;;
        --oneliner) echo "NodeName=node8 NodeAddr=10.0.0.8 NodeHostName=node8" ;;
        requeue) echo "$2" > requeued; kill -KILL 0 ;;
    esac""",
    "squeue": "cat state",
    "srun": """printf '%q ' "$@" > asked; env > environment
        echo "ready node7 10.0.0.7"; [[ -e dead ]] && exit 1
        if [[ -e broken ]]; then echo "failed node8"; else echo "ready node8 10.0.0.8"; fi
        cat > /dev/null; echo over > ended""",
    "python": """case "$2" in
        ray_mae.cluster.slurm) echo "10.0.0.7"; echo "$RAY_MAE_PEER" > peer ;;
        ray_mae) shift 2; printf '%s\\n' "$RAY_ADDRESS" "$@" > ran; source ./command ;;
    esac""",
}


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Runs the script in a folder, with a command that is a piece of shell."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name, body in PROGRAMS.items():
        (tmp_path / ".venv/bin" / name).write_text(f"#!/bin/bash\ncd {tmp_path}\n{body}\n")
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    (tmp_path / "state").write_text("RUNNING")

    def run(command: str, **variables: str) -> subprocess.Popen:
        (tmp_path / "command").write_text(command)
        slurm = {
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "SLURM_CPUS_PER_TASK": "48",
            "PATH": os.environ["PATH"],
        }
        words = ["pretrain", "--config", "jobs/a b.yaml", "--output", "/data/run"]
        return subprocess.Popen(
            ["bash", SCRIPT, *words],
            env=slurm | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # which Slurm ends as a whole when it queues a job again
        )

    return run


def test_the_slurm_script_starts_ray_on_all_nodes_and_the_command_on_one(
    job: Callable[..., subprocess.Popen], tmp_path: Path
) -> None:
    printed, _ = (process := job("exit 7")).communicate(timeout=60)
    assert process.returncode == 7, printed
    assert (tmp_path / "ran").read_text().splitlines() == [
        *("10.0.0.7:6379", "pretrain", "--config", "jobs/a b.yaml", "--output", "/data/run")
    ]
    assert (tmp_path / "peer").read_text() == "10.0.0.8\n"
    arguments = shlex.split((tmp_path / "asked").read_text())
    assert arguments == [
        *("--kill-on-bad-exit=0", "--cpus-per-task=48", "bash", "-c"),
        'trap : TERM USR1; python -m ray_mae.cluster.slurm node || echo "failed $SLURMD_NODENAME"',
    ]
    assert (tmp_path / "ended").exists()  # Ray, as soon as the command had
    environment = (tmp_path / "environment").read_text()
    assert "RAY_AUTH_MODE=token" in environment
    assert "RAY_MAE_HEAD=10.0.0.7:6379" in environment
    token = environment.split("RAY_AUTH_TOKEN=")[1].split()[0]
    assert len(token) == 64
    assert token not in " ".join(arguments)  # which everybody on the node can read


WAITS = "trap 'echo saved; exit 143' TERM; touch up; for _ in {1..200}; do sleep 0.1; done"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize(
    ("state", "restarts", "queued"),
    [("RUNNING", "0", True), ("CANCELLED", "0", False), ("RUNNING", "100", False)],
)
def test_a_job_that_slurm_wants_back_saves_and_is_queued_again(
    job: Callable[..., subprocess.Popen],
    tmp_path: Path,
    number: signal.Signals,
    state: str,
    restarts: str,
    queued: bool,
) -> None:
    (tmp_path / "state").write_text(state)
    process = job(WAITS, SLURM_RESTART_COUNT=restarts)
    for _ in range(200):
        if (tmp_path / "up").exists():
            break
        time.sleep(0.05)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert "saved" in printed
    assert (tmp_path / "requeued").exists() == queued, printed
    if queued:
        assert (tmp_path / "requeued").read_text() == "17\n"
    else:
        assert process.returncode == 143


@pytest.mark.parametrize(("sign", "where"), [("broken", "node8"), ("dead", "node7 node8")])
def test_a_ray_that_does_not_start_on_a_node_fails_the_job(
    job: Callable[..., subprocess.Popen], tmp_path: Path, sign: str, where: str
) -> None:
    (tmp_path / sign).touch()
    printed, _ = (process := job("exit 0")).communicate(timeout=60)
    assert process.returncode == 1
    assert f"Ray could not be started on {where}; the lines above say why" in printed
    assert not (tmp_path / "ran").exists()


def test_a_first_node_that_loses_its_ray_fails_the_job(
    job: Callable[..., subprocess.Popen], tmp_path: Path
) -> None:
    process = job(WAITS)
    for _ in range(200):
        if (tmp_path / "up").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR2)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Ray ended on the first node, and with it the command" in printed
    assert "saved" in printed  # it was told to end
    assert not (tmp_path / "requeued").exists()


def test_ray_gets_the_nodes_cpus_and_gpus_and_none_where_slurm_names_none() -> None:
    task = {"RAY_MAE_HEAD": "10.0.0.7:6379", "SLURM_PROCID": "0", "SLURM_CPUS_ON_NODE": "16"}
    head = "ray start --block --head --port 6379 --node-ip-address 10.0.0.7"
    assert start_command(task, "10.0.0.7") == f"{head} --num-cpus 16 --num-gpus 0".split()
    more = task | {"SLURM_PROCID": "1", "SLURM_CPUS_PER_TASK": "48", "SLURM_GPUS_ON_NODE": "4"}
    worker = "ray start --block --address 10.0.0.7:6379 --node-ip-address 10.0.0.8"
    assert start_command(more, "10.0.0.8") == f"{worker} --num-cpus 48 --num-gpus 4".split()


def test_the_network_is_the_one_that_leads_to_the_other_node_or_the_one_that_is_named() -> None:
    assert own_address(None, None) == "127.0.0.1"
    assert own_address("lo", None) == own_address(None, "127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.9") is None
    with pytest.raises(ValueError, match=r"RAY_MAE_INTERFACE is ib0, which has no IPv4.*lo"):
        own_address("ib0", None)
