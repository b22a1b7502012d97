"""A real Slurm of two nodes on this machine, each in a network of its own that nothing outside can reach."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import psutil
import pytest

from tests.cluster.head import clean_environment

SCRIPT = Path(__file__).parents[2] / "cluster/slurm/job.sbatch"
PROGRAMS = ("slurmctld", "slurmd", "munged", "ip", "nsenter", "unshare")
ADDRESSES = {"node1": "10.99.0.1", "node2": "10.99.0.2"}
GRACE_S = 45

CONFIG = """\
ClusterName=test
SlurmctldHost=localhost({node1})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort=7817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
MinJobAge=600
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=node1 NodeHostname=localhost NodeAddr={node1} Port=7821 CPUs=2 RealMemory=2000
NodeName=node2 NodeHostname=localhost NodeAddr={node2} Port=7822 CPUs=2 RealMemory=2000
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime={grace}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


@dataclass
class Slurm:
    """A running Slurm."""

    folder: Path
    network: int
    """A process in the network of the first node."""
    environment: dict[str, str]
    started: list[subprocess.Popen] = field(default_factory=list)

    def ask(self, *words: object, **more: str) -> str:
        """Runs one of Slurm's programs; returns what it prints."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.network), "-n", *map(str, words)],
            cwd=self.folder / "work",
            env=self.environment | more,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def submit(self, *command: object, options: str = "", **more: str) -> str:
        """Submits the project's script with a command; returns the job's number."""
        fit = f"--parsable --gpus-per-node=0 --cpus-per-task=2 {options}".split()
        return self.ask("sbatch", *fit, SCRIPT, *command, **more)

    def log(self, job: str) -> str:
        """What the job has printed."""
        file = self.folder / "work" / f"slurm-{job}.log"
        return file.read_text() if file.is_file() else ""

    def state(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job, such as JobState, ExitCode, Restarts."""
        text = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(word.partition("=")[::2] for word in text.split() if "=" in word)

    def wait(self, job: str, *states: str, text: str = "", seconds: float = 120) -> dict[str, str]:
        """Waits until a job is in one of the states, or its log has a text."""
        deadline = time.time() + seconds
        while True:
            state = self.state(job)
            if state["JobState"] in states or (text and text in self.log(job)):
                return state
            assert time.time() < deadline, f"{state}\n{self.log(job)}"
            time.sleep(0.5)

    def start_again(self, job: str) -> None:
        """Has a job that was queued again start at once, and not after Slurm's two minutes."""
        self.wait(job, "PENDING")
        self.ask("scontrol", "update", f"jobid={job}", "StartTime=now")

    def stand_in(self, text: str) -> None:
        """Has jobs run a shell script in the place of `python -m ray_mae COMMAND …`."""
        (self.folder / "command.sh").write_text(text)


def why_not() -> str:
    """Why there can be no Slurm here; empty where there can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"no {', '.join(missing)}: Debian's packages slurm-wlm, munge, iproute2 have them"
    if subprocess.run(
        ["unshare", "-n", "ip", "link", "add", "v0", "type", "veth"], capture_output=True
    ).returncode:
        return "no right to make networks, which root has"
    return ""


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Starts munged, slurmctld and two slurmd; skips where they are not installed. Ended one by one."""
    if reason := why_not():
        pytest.skip(f"Slurm cannot run here: {reason}")
    variables = clean_environment() | {"SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1"}
    variables["PATH"] += ":/usr/sbin:/sbin"
    (folder / "state").mkdir()
    for name in ADDRESSES:
        (folder / f"spool-{name}").mkdir()
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, grace=GRACE_S, **ADDRESSES))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    _environment(folder)
    started: list[subprocess.Popen] = []

    def start(*words: object, network: int | None = None) -> subprocess.Popen:
        inside = ["nsenter", "-t", str(network), "-n"] if network else []
        log = (folder / "daemons.log").open("a")
        process = subprocess.Popen(
            [*inside, *map(str, words)], env=variables, stdout=log, stderr=log
        )
        started.append(process)
        return process

    try:
        holders = {name: start("unshare", "-n", "sleep", "infinity").pid for name in ADDRESSES}
        _connect(holders)
        first = holders["node1"]
        start(
            *("munged", "--foreground", "--force", "--key-file", folder / "munge.key"),
            *("--socket", folder / "munge.socket", "--pid-file", folder / "munged.pid"),
            *("--log-file", folder / "munged.log", "--seed-file", folder / "munged.seed"),
        )
        time.sleep(1)
        start("slurmctld", "-D", network=first)
        for name, holder in holders.items():
            start("slurmd", "-D", "-N", name, network=holder)
        running = Slurm(folder, first, variables, started)
        deadline = time.time() + 60
        while running.ask("sinfo", "--noheader", "--states=idle", "--format=%D") not in (
            "2",
            "2\n2",
        ):
            assert time.time() < deadline, (folder / "daemons.log").read_text()
            time.sleep(0.5)
        yield running
    finally:
        families = [
            psutil.Process(p.pid).children(recursive=True) for p in started if p.poll() is None
        ]
        for process in reversed(started):
            process.terminate()
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        for process in chain(*families):  # steps of jobs that had not ended
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _end_what_is_left(folder)


def _environment(folder: Path) -> None:
    """A folder to submit from, whose .venv is this one, but for a stand-in where a test has one."""
    programs = folder / "work/.venv/bin"
    programs.mkdir(parents=True)
    (programs / "ray").symlink_to(Path(sys.executable).parent / "ray")
    (programs / "python").write_text(
        f"""#!/bin/bash
if [[ "$1 $2" == "-m ray_mae" && -e {folder}/command.sh ]]; then
  shift 2
  exec bash {folder}/command.sh "$@"
elif [[ "$1 $2" == "-m ray_mae.cluster.slurm" && $SLURMD_NODENAME == "$BROKEN" ]]; then
  echo "no space left on this node's disk" >&2
  exit 1
elif [[ "$1 $2" == "-m ray_mae.cluster.slurm" && $SLURMD_NODENAME == "$HANGS" ]]; then
  exec sleep 300
fi
exec {sys.executable} "$@"
"""
    )
    (programs / "python").chmod(0o755)


def _connect(holders: dict[str, int]) -> None:
    """Joins the nodes' networks by a pair of virtual interfaces."""
    time.sleep(0.5)  # until they are theirs
    (one, first), (two, second) = holders.items()
    enter = ["nsenter", "-t", str(first), "-n", "ip"]
    pair = f"link add to2 type veth peer name to1 netns {second}".split()
    subprocess.run([*enter, *pair], check=True)
    for holder, name, link in ((first, one, "to2"), (second, two, "to1")):
        for words in (
            "link set lo up",
            f"addr add {ADDRESSES[name]}/24 dev {link}",
            f"link set {link} up",
        ):
            subprocess.run(["nsenter", "-t", str(holder), "-n", "ip", *words.split()], check=True)


def _end_what_is_left(folder: Path) -> None:
    """Ends processes that detached from Slurm's, known by its configuration in their environment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_CONF") == f"{folder}/slurm.conf":
                process.kill()
