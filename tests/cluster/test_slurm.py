"""cluster/slurm/job.sbatch on a real Slurm of two nodes without GPUs."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.slurm import ADDRESSES, SCRIPT, Slurm, slurm

pytestmark = pytest.mark.slow

NODES = """python - <<END
import ray
ray.init(address="auto", logging_level="WARNING")
print("nodes", sum(node["Alive"] for node in ray.nodes()), "CPUs", ray.cluster_resources()["CPU"])
END
"""
SAVES = f"""\
# a command that takes a while to save, for which it needs its cluster
trap 'sleep 3; {{ {NODES} }}; echo saved; exit 143' TERM
echo "start ${{SLURM_RESTART_COUNT:-0}}"
((${{SLURM_RESTART_COUNT:-0}})) && exit 0
for _ in {{1..300}}; do sleep 1; done
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Slurm]:
    # not pytest's folder: names of sockets lie below it
    with (
        tempfile.TemporaryDirectory(prefix="sl", ignore_cleanup_errors=True) as folder,
        slurm(Path(folder)) as started,
    ):
        yield started


@pytest.fixture(autouse=True)
def log(running: Slurm, request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends what a test left in the queue; prints logs of one that failed."""
    yield
    for file in sorted((running.folder / "work").glob("slurm-*.log")):
        print(f"--- {request.node.name} {file.name}\n{file.read_text()}")
        file.unlink()
    running.ask("scancel", "--user=root")
    for job in running.ask("squeue", "--noheader", "--format=%A").split():
        running.wait(job, "CANCELLED", "FAILED", "COMPLETED", "TIMEOUT")


def test_a_command_runs_on_all_nodes_and_its_log_has_no_error(running: Slurm) -> None:
    running.stand_in(f'printf "%s|" "$@"; echo; {NODES}')
    job = running.submit("pretrain", "--config", "a b.yaml")
    state = running.wait(job, "COMPLETED", "FAILED")
    log = running.log(job)
    assert (state["JobState"], state["ExitCode"]) == ("COMPLETED", "0:0"), log
    assert "pretrain|--config|a b.yaml|" in log
    assert "nodes 2 CPUs 4.0" in log  # without GPUs SLURM_GPUS_ON_NODE is not set
    assert not re.search(r"(?i)error|abort|kill|terminat|traceback", log), log
    for name, address in ADDRESSES.items():
        assert f"Ray is up on {name} ({address})" in log


def test_a_commands_exit_code_is_the_jobs_and_it_is_not_queued_again(running: Slurm) -> None:
    running.stand_in("exit 3")
    state = running.wait(running.submit("pretrain", options="--nodes=1"), "COMPLETED", "FAILED")
    assert (state["JobState"], state["ExitCode"], state["Restarts"]) == ("FAILED", "3:0", "0")


def test_a_preempted_job_saves_with_its_cluster_and_is_queued_again(running: Slurm) -> None:
    running.stand_in(SAVES)
    job = running.submit("pretrain")
    running.wait(job, text="start 0")
    urgent = running.ask(
        *"sbatch --parsable --partition=high --nodes=1 --exclusive --wrap".split(), "sleep 5"
    )
    running.wait(urgent, "RUNNING", "COMPLETED")
    log = running.log(job)
    assert re.search(
        r"Slurm wants the nodes back[^$]*nodes 2 CPUs 4.0[^$]*saved[^$]*queued again", log
    )
    running.start_again(job)
    state = running.wait(job, "COMPLETED", "FAILED", "CANCELLED")
    assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "1"), running.log(job)
    assert "start 1" in running.log(job)


def test_a_job_whose_time_is_over_saves_and_is_queued_again(running: Slurm) -> None:
    running.stand_in(SAVES)
    job = running.submit("pretrain", options="--time=5 --signal=B:USR1@120 --nodes=1")
    running.wait(job, text="queued again", seconds=300)  # Slurm tells up to a minute early
    running.start_again(job)
    state = running.wait(job, "COMPLETED", "FAILED", "TIMEOUT")
    log = running.log(job)
    assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "1"), log
    assert re.search(
        r"start 0[^$]*wants the nodes back[^$]*saved[^$]*queued again[^$]*start 1", log
    )


def test_a_command_that_ends_well_when_told_to_stop_is_not_queued_again(running: Slurm) -> None:
    running.stand_in(
        "trap 'echo told; exit 0' TERM; echo now at work; for _ in {1..300}; do sleep 1; done"
    )
    job = running.submit("pretrain", options="--nodes=1")
    running.wait(job, text="now at work")
    running.ask("scancel", "--signal=USR1", "--batch", job)
    state = running.wait(job, "COMPLETED", "FAILED")
    assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "0"), running.log(job)


def test_a_cancelled_job_is_not_queued_again(running: Slurm) -> None:
    running.stand_in(SAVES)
    job = running.submit("pretrain")
    running.wait(job, text="start 0")
    running.ask("scancel", job)
    state = running.wait(job, "CANCELLED")
    assert state["Restarts"] == "0"
    assert not running.ask("squeue", "--noheader", "--states=PENDING", f"--jobs={job}")


def test_a_node_that_does_not_start_ends_the_job_at_once(running: Slurm) -> None:
    running.stand_in("echo never")
    job = running.submit("pretrain", BROKEN="node2")
    after = running.ask(
        "sbatch",
        "--parsable",
        f"--dependency=afterok:{job}",
        "--kill-on-invalid-dep=yes",
        "--wrap",
        "true",
    )
    state = running.wait(job, "COMPLETED", "FAILED", seconds=60)
    log = running.log(job)
    assert (state["JobState"], state["ExitCode"]) == ("FAILED", "1:0"), log
    assert "no space left on this node's disk" in log
    assert "Ray could not be started on node2; the lines above" in log
    assert "queued again" not in log
    assert "never" not in log
    assert running.wait(after, "CANCELLED", seconds=60)["JobState"] == "CANCELLED"


def test_a_node_that_hangs_is_waited_for_no_longer_than_said(
    running: Slurm, tmp_path: Path
) -> None:
    text = SCRIPT.read_text().replace("patience=600 ", "patience=20 ")
    (tmp_path / "job.sbatch").write_text(text)
    running.stand_in("echo never")
    job = running.ask(
        *"sbatch --parsable --gpus-per-node=0 --cpus-per-task=2".split(),
        *(tmp_path / "job.sbatch", "pretrain"),
        HANGS="node2",
    )
    state = running.wait(job, "COMPLETED", "FAILED", seconds=90)
    log = running.log(job)
    assert state["JobState"] == "FAILED", log
    assert "Ray is up on node1 of node1 node2 alone" in log


def test_a_ray_that_cannot_start_fails_the_job(running: Slurm) -> None:
    server = subprocess.Popen(
        ["nsenter", "-t", str(running.network), "-n", sys.executable, "-m", "http.server", "6379"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        running.stand_in("echo never")
        job = running.submit("pretrain", options="--nodes=1")
        state = running.wait(job, "COMPLETED", "FAILED")
    finally:
        server.terminate()
        server.wait()
    log = running.log(job)
    assert (state["JobState"], state["ExitCode"]) == ("FAILED", "1:0"), log
    assert "6379" in log
    assert re.search(r"ray-mae: Ray could not be started on node1 \(\S+\)", log)
    assert "never" not in log


def raylets(running: Slurm, address: str) -> list[psutil.Process]:
    """Of this Slurm's jobs, on one node: no other process of Ray has that option."""
    mine = []
    for process in psutil.process_iter():
        try:
            here = f"--node_ip_address={address}" in process.cmdline()
            if here and process.environ().get("SLURM_CONF") == running.environment["SLURM_CONF"]:
                mine.append(process)
        except psutil.Error:
            continue
    return mine


def test_a_node_whose_ray_dies_comes_back(running: Slurm) -> None:
    running.stand_in(f"echo now at work; sleep 15; {NODES} sleep 30; {NODES}")
    job = running.submit("pretrain")
    running.wait(job, text="now at work")
    (raylet,) = raylets(running, ADDRESSES["node2"])
    raylet.kill()
    state = running.wait(job, "COMPLETED", "FAILED")
    log = running.log(job)
    assert state["JobState"] == "COMPLETED", log
    assert re.search(r"ray-mae: Ray ended on node2 .*, and is started again", log)
    assert log.rstrip().endswith("nodes 2 CPUs 4.0")


def test_a_first_node_whose_ray_dies_fails_the_job(running: Slurm) -> None:
    running.stand_in("echo now at work; for _ in {1..300}; do sleep 1; done")
    job = running.submit("pretrain")
    running.wait(job, text="now at work")
    (raylet,) = raylets(running, ADDRESSES["node1"])
    raylet.kill()
    state = running.wait(job, "COMPLETED", "FAILED", seconds=60)
    log = running.log(job)
    assert (state["JobState"], state["ExitCode"]) == ("FAILED", "1:0"), log
    assert "Ray ended on the first node, and with it the command" in log
