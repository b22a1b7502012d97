"""Ray on the nodes of a Slurm job, for cluster/slurm/job.sbatch.

    python -m ray_mae.cluster.slurm address    # prints the address of this node, which others reach
    python -m ray_mae.cluster.slurm node       # on each node, by srun: Ray, until its input ends

Slurm tells of a preemption by SIGTERM to every process of a step, on all nodes. Ray has to outlast that, or
nothing could be saved: its processes have the signal blocked, which a handler of theirs does not undo.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping

import psutil

HEAD, BATCH, INTERFACE = "RAY_MAE_HEAD", "RAY_MAE_BATCH", "RAY_MAE_INTERFACE"
"""Variables of the job: HOST:PORT of the head, process id of its script, name of a network interface."""
_STARTED = "Ray runtime started."
"""What `ray start` prints when the node has joined."""
_LINES = 15
"""The last ones of a Ray that failed, which say why."""
_TOLD = {signal.SIGTERM, signal.SIGUSR1}
"""Signals by which Slurm, or the job's script through srun, tells a step that it must end."""


def own_address(interface: str | None, peer: str | None) -> str:
    """Returns this node's IPv4 address.

    Args:
        interface: the one to take; None takes the one that leads to the peer.
        peer: name or address of another node; None where there is none, and then loopback is enough.

    Raises:
        ValueError: There is no such interface, or it has no address.
    """
    if interface:
        for address in psutil.net_if_addrs().get(interface, []):
            if address.family == socket.AF_INET:
                return address.address
        names = ", ".join(sorted(psutil.net_if_addrs()))
        raise ValueError(
            f"{INTERFACE} is {interface}, which has no IPv4 address here; there are {names}"
        )
    if peer is None:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing
        probe.connect((peer, 9))
        address_there: str = probe.getsockname()[0]
    return address_there


def interface_of(address: str) -> str | None:
    """Returns the name of the interface with an IPv4 address; None where no one has it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None


def start_command(variables: Mapping[str, str], address: str) -> list[str]:
    """Returns the command that starts Ray here.

    Args:
        variables: the environment of a task of the job.
        address: this node's.
    """
    head = variables[HEAD]
    where = ["--address", head]
    if variables["SLURM_PROCID"] == "0":
        where = ["--head", "--port", head.rpartition(":")[2]]
    cpus = variables.get("SLURM_CPUS_PER_TASK") or variables["SLURM_CPUS_ON_NODE"]
    gpus = variables.get("SLURM_GPUS_ON_NODE") or "0"  # unset where the job has none
    sizes = ["--num-cpus", cpus, "--num-gpus", gpus]
    return ["ray", "start", "--block", *where, "--node-ip-address", address, *sizes]


def run_node() -> int:
    """Runs Ray on this node until standard input ends; returns the exit code of the task.

    Prints one line to standard output when Ray is up; the job's script waits for as many as there are
    nodes. All else goes to standard error, the log. Without the head, or where Ray does not start, the
    code is not 0, and the script ends the job. On another node a Ray that ends is started again: the run
    may be waiting for it.
    """
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    head = os.environ["SLURM_PROCID"] == "0"
    host = os.environ[HEAD].rpartition(":")[0]
    alone = os.environ["SLURM_JOB_NUM_NODES"] == "1"
    address = host if head else own_address(os.environ.get(INTERFACE), None if alone else host)
    if found := interface_of(address):  # where a run's processes meet; the job's own setting wins
        for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
            os.environ.setdefault(variable, found)
    for number in _TOLD:
        signal.signal(number, _tell_script if head else lambda *_: None)

    ray = _Ray(start_command(os.environ, address))
    was_up = False
    while True:
        up, lines = ray.run(f"ready {name} {address}" if not was_up else None)
        if ray.over:
            return 0
        problem = "ended" if up else "could not be started"
        again = up and not head
        what_next = ", and is started again" if again else ""
        sys.stderr.write(f"{lines}ray-mae: Ray {problem} on {name} ({address}){what_next}\n")
        if head and up:
            os.kill(int(os.environ[BATCH]), signal.SIGUSR2)  # the command ends with it
        if not again:
            return 0 if was_up and not head else 1
        was_up = True
        ray.restart()


class _Ray:
    """Ray on this node, until standard input ends.

    Args:
        command: that starts it, and ends with it.
    """

    def __init__(self, command: list[str]) -> None:
        self.over = False
        """Whether the job's script has closed our input, or is gone."""
        self._command, self._process = command, self._start(command)
        threading.Thread(target=self._end_with_input, daemon=True).start()

    def run(self, ready: str | None) -> tuple[bool, str]:
        """Waits until Ray ends, by whatever cause.

        Args:
            ready: line to print when it is up.

        Returns:
            Whether it was up, and its last lines.
        """
        up = False
        lines: list[str] = []
        assert self._process.stdout
        for line in self._process.stdout:
            if _STARTED in line and not up:
                up = True
                if ready:
                    print(ready, flush=True)
            lines.append(line)
        self._process.wait()
        return up, "".join(lines[-_LINES:])

    def restart(self) -> None:
        """Starts Ray once more, after it has ended."""
        self._process = self._start(self._command)
        if self.over:  # in between
            self._process.kill()

    @staticmethod
    def _start(command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD),
        )

    def _end_with_input(self) -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        self.over = True
        self._process.kill()  # by the kernel its children end with it


def _tell_script(*_: object) -> None:
    """Tells the job's script, on the same node, what Slurm tells steps alone."""
    os.kill(int(os.environ[BATCH]), signal.SIGUSR1)


def main() -> int:
    """Entry point of this module's two commands."""
    try:
        if sys.argv[1:] == ["node"]:
            return run_node()
        peer = os.environ.get("RAY_MAE_PEER")
        print(own_address(os.environ.get(INTERFACE), peer))
    except (ValueError, OSError) as error:
        print(f"ray-mae: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
