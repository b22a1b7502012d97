"""Findings from facts of the nodes. Nodes are known by name; all functions are pure."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ray_mae.health.accelerators import GKE_LIBRARIES
from ray_mae.health.finding import Finding

Facts = Mapping[str, Mapping[str, Any]]
"""By node."""
GIB = 2.0**30


def versions(facts: Facts) -> Iterator[Finding]:
    """Checks that versions are the same everywhere: Ray and pickled functions want it."""
    for name in next(iter(facts.values()))["versions"]:
        nodes = defaultdict(list)
        for node, fact in facts.items():
            nodes[fact["versions"][name]].append(node)
        if "missing" in nodes:
            text = f"{name} is missing on {', '.join(nodes['missing'])}"
            yield Finding("versions", "problem", text, "install ray-mae there, with all it needs")
        elif len(nodes) > 1:
            text = "; ".join(f"{name} {v} on {', '.join(on)}" for v, on in nodes.items())
            yield Finding(
                "versions", "problem", text, "give all nodes the same image or environment"
            )
    first = next(iter(facts.values()))["versions"]
    yield Finding("versions", "ok", ", ".join(f"{name} {v}" for name, v in first.items()))


def shared_memory(facts: Facts, object_store: Mapping[str, float]) -> Iterator[Finding]:
    """Checks that /dev/shm can hold Ray's object store.

    Args:
        facts: of `Node.facts`, by node.
        object_store: its bytes by node.
    """
    for node, fact in facts.items():
        size, needed = fact["shm"], object_store.get(node, 0)
        text = f"{node}: /dev/shm {size / GIB:.1f} GiB, object store {needed / GIB:.1f} GiB"
        if size < needed:
            remedy = f"start the container with --shm-size={needed / GIB:.0f}g or more"
            yield Finding("shared memory", "problem", text, f"{remedy}, or Ray swaps to disk")
        else:
            yield Finding("shared memory", "ok", text)


def limits(facts: Facts) -> Iterator[Finding]:
    """Checks open files, and the disk where Ray keeps logs and what does not fit into memory."""
    for node, fact in facts.items():
        files, disk = fact["open_files"], fact["temporary"]
        text = f"{node}: {files:,} open files"
        if 0 < files < 8192:
            yield Finding("open files", "warning", text, "ulimit -n 65536 before Ray starts")
        else:
            yield Finding("open files", "ok", text if files > 0 else f"{node}: no limit")
        text = (
            f"{node}: Ray's temporary folder is {disk['used']:.0%} full, {_size(disk['free'])} free"
        )
        if disk["used"] > 0.95:
            remedy = (
                "make room, or start Ray with --temp-dir elsewhere: above 95% it spills nothing"
            )
            yield Finding("disk", "problem", text, remedy)
        elif disk["used"] > 0.9:
            yield Finding("disk", "warning", text, "make room before it is 95% full")
        else:
            yield Finding("disk", "ok", text)


def dashboard(facts: Facts, metrics: Mapping[str, str | None]) -> Iterator[Finding]:
    """Checks that modules of the dashboard are installed, and that nodes give metrics.

    Args:
        facts: of `Node.facts`, by node.
        metrics: what went wrong when a node's agent was asked for metrics, by node.
    """
    for node, fact in facts.items():
        if fact["missing_parts"]:
            text = f"{node}: {', '.join(fact['missing_parts'])} missing"
            yield Finding("dashboard", "problem", text, 'pip install "ray[default]" there')
        elif metrics.get(node):
            remedy = "start Ray with its dashboard agent, and open --metrics-export-port"
            yield Finding("dashboard", "warning", f"{node}: no metrics ({metrics[node]})", remedy)
        else:
            yield Finding("dashboard", "ok", f"{node}: its parts are there")


def accelerators(facts: Facts, gpu_counts: Mapping[str, float]) -> Iterator[Finding]:
    """Checks GPUs, NCCL and DeepSpeed.

    Args:
        facts: of `Node.accelerators`, by node.
        gpu_counts: GPUs that Ray believes to be there, by node.
    """
    for node, fact in facts.items():
        if "error" in fact:
            text = f"{node}: PyTorch gives no answer: {fact['error']}"
            remedy = "run `python -m ray_mae.health.accelerators` there"
            yield Finding("accelerators", "problem", text, remedy)
            continue
        gpus = fact["gpus"]
        names = ", ".join(f"{g['name']} {g['memory']:g} GiB" for g in gpus) or "no GPU"
        text = f"{node}: {names}" + (f", NCCL {fact['nccl']}" if gpus else "")
        if gpu_counts.get(node, 0) > len(gpus):
            text = f"{node}: Ray counts {gpu_counts[node]:g} GPUs, PyTorch sees {len(gpus)}"
            remedy = _why_unseen(fact)
            yield Finding("accelerators", "problem", text, remedy)
        elif not all(gpu["bf16"] for gpu in gpus):
            yield Finding("accelerators", "warning", f"{text}, no bf16", "runs will take fp32")
        else:
            yield Finding("accelerators", "ok", text)
        if len(gpus) > 1:
            if fact["all_reduce"]:
                text = f"{node}: NCCL cannot sum over its GPUs: {fact['all_reduce']}"
                remedy = "NCCL_DEBUG=INFO tells why; in containers often --shm-size or --ipc=host"
                yield Finding("NCCL", "problem", text, remedy)
            else:
                yield Finding("NCCL", "ok", f"{node}: sums over {len(gpus)} GPUs are right")
        if "error" in fact["deepspeed"]:
            text = f"{node}: DeepSpeed cannot be used: {fact['deepspeed']['error']}"
            yield Finding("DeepSpeed", "problem", text, "reinstall it; it needs no compiler here")
        else:
            name = fact["deepspeed"]["accelerator"]
            yield Finding("DeepSpeed", "ok", f"{node}: works on {name}")


def _why_unseen(fact: Mapping[str, Any]) -> str:
    """Returns the remedy for GPUs that Ray counts, by their number in a file, and PyTorch does not see."""
    there = fact.get("absence") or {"devices": True, "library": True}
    if not there["devices"] and there["driver"]:
        return (
            "the driver runs and this container was given no GPU: start it with `--gpus all`, on "
            "Kubernetes with nvidia.com/gpu among its limits"
        )
    if not there["devices"]:
        return (
            "the node has no GPU, or its driver is not loaded: nvidia-smi on the node itself tells"
        )
    if not there["library"] and there["gke"]:
        return f"add {GKE_LIBRARIES} to LD_LIBRARY_PATH of the container, as our image does"
    if not there["library"]:
        return (
            "the container lacks the driver's libcuda.so.1: NVIDIA_DRIVER_CAPABILITIES=compute,utility, "
            "and NVIDIA's container runtime on the node"
        )
    return f"check the driver with nvidia-smi; PyTorch is built for CUDA {fact['cuda']}"


def network(facts: Facts, backend: str) -> Iterator[Finding]:
    """Checks the sums of processes on all nodes. facts: of `Node.network`, by node."""
    several = f"a sum over {len(facts)} nodes by {backend}"
    failures = {node: fact for node, fact in facts.items() if "error" in fact or fact["wrong"]}
    for node, fact in failures.items():
        text = f"{node}: {several} fails: {fact.get('error', 'wrong sums')}"
        names = "NCCL_SOCKET_IFNAME, NCCL_IB_HCA" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
        remedy = f"open all ports between the nodes; {names} name the network to take"
        yield Finding("network", "problem", text, remedy)
    if not failures:
        rate = min(fact["rate"] for fact in facts.values())
        yield Finding("network", "ok", f"{several} is right, {rate / 1e9:.2f} GB/s each")


def clocks(skews: Mapping[str, tuple[float, float]]) -> Iterator[Finding]:
    """Checks the clocks. skews: seconds ahead of the driver's clock and ± of that, by node."""
    for node, (ahead, error) in skews.items():
        text = f"{node}: {ahead:+.3f} s beside the driver's clock (± {error:.3f})"
        if abs(ahead) - error > 1:
            yield Finding("clocks", "warning", text, "start chrony or another NTP service there")
        else:
            yield Finding("clocks", "ok", text)


def output(facts: Facts, folder: str) -> Iterator[Finding]:
    """Checks the folder where runs will be written. facts: of `Node.write`, by node."""
    for node, fact in facts.items():
        if "error" in fact:
            text = f"{node} cannot write to {folder}: {fact['error']}"
            remedy = "give --output on storage that every node mounts and may write to"
            yield Finding("output", "problem", text, remedy)
            continue
        if not fact["seen"]:
            text = f"{node} sees another {folder} than the driver"
            yield Finding("output", "problem", text, "mount the same storage on every node")
            continue
        text = f"{node}: writes {fact['write']:.0f} MB/s, reads {fact['read']:.0f} MB/s"
        free = fact["free"]
        text += "" if free is None else f", {_size(free)} free"
        if free is not None and free < 10e9:
            remedy = "make room: `ray-mae plan` tells what checkpoints will take"
            yield Finding("output", "problem" if free < 1e9 else "warning", text, remedy)
        elif fact["write"] < 50:
            yield Finding("output", "warning", text, "slow: raise checkpoint.every, or take a disk")
        else:
            yield Finding("output", "ok", text)


def shards(facts: Facts, folder: str) -> Iterator[Finding]:
    """Checks that all nodes see the same whole shards. facts: of `Node.shards`, by node."""
    first = next((f.get("sha256") for f in facts.values() if "sha256" in f), None)
    for node, fact in facts.items():
        if "error" in fact:
            remedy = f"ray-mae ingest --output {folder}, on storage that every node mounts"
            yield Finding("shards", "problem", f"{node}: {fact['error']}", remedy)
        elif fact["sha256"] != first:
            text = f"{node} has other shards in {folder} than the first node"
            yield Finding("shards", "problem", text, "mount the same storage on every node")
        elif fact["wrong"]:
            text = f"{node}: {len(fact['wrong'])} shards are damaged, such as {fact['wrong'][0]}"
            yield Finding("shards", "problem", text, "run the same `ray-mae ingest` again")
        else:
            text = f"{node}: {fact['files']} shards, reads {fact['read']:.0f} MB/s"
            yield Finding("shards", "ok", text)


def worst(findings: list[Finding]) -> str:
    """Returns the worst level of all: problem, warning or ok."""
    levels = {finding.level for finding in findings}
    order: Callable[[str], int] = ("ok", "warning", "problem").index
    return max(levels, key=order, default="ok")


def _size(number: float) -> str:
    return f"{number / 1e9:.0f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
