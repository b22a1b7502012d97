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
    code is not 0, and srun ends the task of every node. Another node that is lost later is for the run to
    do without.
    """
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    head = os.environ["SLURM_PROCID"] == "0"
    host = os.environ[HEAD].rpartition(":")[0]
    alone = os.environ["SLURM_JOB_NUM_NODES"] == "1"
    interface = os.environ.get(INTERFACE)
    address = host if head else own_address(interface, None if alone else host)
    if found := interface_of(
        address
    ):  # where the processes of a run meet; a setting of the job's wins
        for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
            os.environ.setdefault(variable, found)

    for number in _TOLD:
        signal.signal(number, _tell_script if head else lambda *_: None)
    ray = subprocess.Popen(
        start_command(os.environ, address),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD),
    )
    over = threading.Event()
    threading.Thread(target=_end_with_input, args=(ray, over), daemon=True).start()
    up = False
    lines: list[str] = []
    assert ray.stdout
    for line in ray.stdout:
        if _STARTED in line and not up:
            up = True
            lines.clear()
            print(f"ready {name} {address}", flush=True)
        lines.append(line)
    ray.wait()
    if over.is_set():
        return 0
    problem = "ended" if up else "could not be started"
    sys.stderr.write(f"{''.join(lines[-_LINES:])}ray-mae: Ray {problem} on {name} ({address})\n")
    return 1 if head or not up else 0


def _tell_script(*_: object) -> None:
    """Tells the job's script, on the same node, what Slurm tells steps alone."""
    os.kill(int(os.environ[BATCH]), signal.SIGUSR1)


def _end_with_input(ray: subprocess.Popen[str], over: threading.Event) -> None:
    """Ends Ray when the job's script closes our input, or is gone."""
    sys.stdin.buffer.read()
    over.set()
    ray.kill()  # by the kernel its children end with it


def main() -> int:
    """Entry point of this module's two commands."""
    if sys.argv[1:] == ["node"]:
        return run_node()
    try:
        peer = os.environ.get("RAY_MAE_PEER")
        print(own_address(os.environ.get(INTERFACE), peer))
    except (ValueError, OSError) as error:
        print(f"ray-mae: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
