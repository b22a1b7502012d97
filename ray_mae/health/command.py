"""`doctor`: asks every node of the cluster for its facts, and prints what to do."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray_mae.cluster.runtime import cluster
from ray_mae.config import DoctorConfig
from ray_mae.data.paths import resolve_path
from ray_mae.health import checks
from ray_mae.health.finding import Finding
from ray_mae.health.node import Node
from ray_mae.summary import write_summary
from ray_mae.terminal import console

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(config: DoctorConfig) -> dict[str, Any]:
    """Checks every node of the cluster, and prints a line for each finding.

    Args:
        config: where the cluster is, and the folders that its nodes should see.

    Returns:
        The summary: `state` is the worst of the findings, ok, warning or problem. It is also written to
        summary.json of `config.output`, where that can be written.

    Raises:
        ConnectionError: No cluster answers at the address.
    """
    if config.address:
        os.environ["RAY_ADDRESS"] = config.address
    with cluster():
        findings = list(_print(_findings(config)))
    state = checks.worst(findings)
    summary = {"command": "doctor", "state": state, "findings": [asdict(f) for f in findings]}
    if config.output:
        with suppress(OSError):  # one of the findings
            write_summary(resolve_path(config.output), summary)
    return summary


def _print(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Prints each finding and passes it on."""
    for finding in findings:
        text = f"{finding.check}: {finding.text}" + (finding.remedy and f" → {finding.remedy}")
        console.print(f"{finding.level:<8}", style=_COLOURS[finding.level], end="")
        console.print(text)
        yield finding


def _findings(config: DoctorConfig) -> Iterator[Finding]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _by_name([node for node in ray.nodes() if node["Alive"]])
    actors = {
        name: ray.remote(Node)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote()
        for name, node in nodes.items()
    }

    def ask(question: str, *arguments: Any, **own: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Returns by node what a method of `Node` answers; each: more arguments, by node."""
        each = own.get("each", {})
        calls = {
            name: getattr(actor, question).remote(*arguments, *each.get(name, ()))
            for name, actor in actors.items()
        }
        return {name: _answer(call, config.timeout + 30) for name, call in calls.items()}

    facts = ask("facts")
    for name in [name for name, fact in facts.items() if set(fact) == {"error"}]:
        text = f"{name} does not answer: {facts.pop(name)['error']}"
        yield Finding("nodes", "problem", text, "see `ray status` and the logs of its raylet")
        del actors[name], nodes[name]
    if not facts:
        return
    yield from checks.versions(facts)
    stores = {n: node["Resources"].get("object_store_memory", 0) for n, node in nodes.items()}
    yield from checks.shared_memory(facts, stores)
    yield from checks.limits(facts)
    yield from checks.dashboard(facts, _metrics(nodes, ask))
    yield from checks.clocks({name: _skew(actor) for name, actor in actors.items()})
    if config.output:
        with _marker_file(config.output) as marker:
            answers = ask("write", config.output, config.file_mb, marker)
        yield from checks.output(answers, str(config.output))
    if config.shards:
        answers = ask("shards", config.shards, config.file_mb)
        yield from checks.shards(answers, str(config.shards))
    gpus = {name: node["Resources"].get("GPU", 0) for name, node in nodes.items()}
    accelerators = ask("accelerators", config.timeout)
    yield from checks.accelerators(accelerators, gpus)
    gpu_nodes = [name for name, fact in accelerators.items() if fact.get("gpus")]
    backend, peers = ("nccl", gpu_nodes) if gpu_nodes else ("gloo", list(accelerators))
    if len(peers) > 1:
        port = ray.get(actors[peers[0]].free_port.remote(), timeout=60)
        rendezvous = (backend, nodes[peers[0]]["NodeManagerAddress"], port)
        calls = {
            name: actors[name].network.remote(config.timeout, *rendezvous, rank, len(peers))
            for rank, name in enumerate(peers)
        }
        answers = {name: _answer(call, config.timeout + 30) for name, call in calls.items()}
        yield from checks.network(answers, backend)


def _by_name(nodes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns nodes by address; of several on one machine also by the port of their raylet."""
    addresses = [node["NodeManagerAddress"] for node in nodes]
    return {
        address if addresses.count(address) == 1 else f"{address}:{node['NodeManagerPort']}": node
        for address, node in zip(addresses, nodes, strict=True)
    }


def _answer(call: Any, timeout: float) -> dict[str, Any]:
    """Returns what a node answered, or `error` with why it did not. timeout: seconds."""
    import ray

    try:
        answer: dict[str, Any] = ray.get(call, timeout=timeout)
    except (ray.exceptions.RayError, TimeoutError) as error:
        return {"error": str(error).strip().splitlines()[-1] if str(error) else "no answer"}
    return answer


def _metrics(nodes: dict[str, dict[str, Any]], ask: Any) -> dict[str, Any]:
    """Returns what went wrong with metrics, by node; a Ray of this machine's own has no dashboard."""
    if not os.environ.get("RAY_ADDRESS"):
        return {}
    each = {
        name: (node["NodeManagerAddress"], node["MetricsExportPort"])
        for name, node in nodes.items()
    }
    answers: dict[str, Any] = ask("metrics", each=each)
    return answers


def _skew(actor: Any) -> tuple[float, float]:
    """Returns seconds that the node's clock is ahead of ours, and ± of that: by the fastest of some calls."""
    import ray

    best = (0.0, float("inf"))
    for _ in range(5):
        before = time.time()
        theirs = ray.get(actor.now.remote(), timeout=60)
        after = time.time()
        error = (after - before) / 2
        if error < best[1]:
            best = (theirs - (before + after) / 2, error)
    return best


@contextmanager
def _marker_file(folder: Path) -> Iterator[str]:
    """Writes a file, by which a node knows that it sees the same folder, during a block; yields its name."""
    name = f".doctor-{uuid.uuid4().hex}"
    file = resolve_path(folder) / name
    with suppress(OSError):  # one of the findings
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    try:
        yield name
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
