"""`doctor`: ask every node of the cluster, and say what to do."""

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ray_mae.cluster.runtime import cluster
from ray_mae.config import DoctorConfig
from ray_mae.data.paths import resolve_path
from ray_mae.doctor import checks
from ray_mae.doctor.finding import Finding
from ray_mae.doctor.node import Node

console = Console(highlight=False, soft_wrap=True)
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(config: DoctorConfig) -> dict[str, Any]:
    """Print a line for each finding; returns the summary, `state` ok, warning or problem.

    The summary goes to summary.json of `output`, where that can be written.
    """
    if config.address:
        os.environ["RAY_ADDRESS"] = config.address
    with cluster():
        findings = list(_shown(_examine(config)))
    state = checks.worst(findings)
    summary = {"command": "doctor", "state": state, "findings": [asdict(f) for f in findings]}
    if config.output:
        with suppress(OSError):  # one of the findings
            (resolve_path(config.output) / "summary.json").write_text(
                json.dumps(summary, indent=1) + "\n"
            )
    return summary


def _shown(findings: Iterator[Finding]) -> Iterator[Finding]:
    for finding in findings:
        text = f"{finding.check}: {finding.text}" + (finding.remedy and f" → {finding.remedy}")
        console.print(f"{finding.level:<8}", style=_COLOURS[finding.level], end="")
        console.print(text, markup=False)
        yield finding


def _examine(config: DoctorConfig) -> Iterator[Finding]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _named([node for node in ray.nodes() if node["Alive"]])
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
        each = own.get("each", {})
        asked = {
            name: getattr(actor, question).remote(*arguments, *each.get(name, ()))
            for name, actor in actors.items()
        }
        return {name: _answer(answer, config.timeout + 30) for name, answer in asked.items()}

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
        with _marked(config.output) as mark:
            found = ask("written", config.output, config.file_mb, mark)
        yield from checks.output(found, str(config.output))
    if config.shards:
        found = ask("shards", config.shards, config.file_mb)
        yield from checks.shards(found, str(config.shards))
    gpus = {name: node["Resources"].get("GPU", 0) for name, node in nodes.items()}
    accelerators = ask("accelerators", config.timeout)
    yield from checks.accelerators(accelerators, gpus)
    having = [name for name, fact in accelerators.items() if fact.get("gpus")]
    backend, beside = ("nccl", having) if having else ("gloo", list(accelerators))
    if len(beside) > 1:
        port = ray.get(actors[beside[0]].free_port.remote(), timeout=60)
        meet = (backend, nodes[beside[0]]["NodeManagerAddress"], port)
        asked = {
            name: actors[name].link.remote(config.timeout, *meet, rank, len(beside))
            for rank, name in enumerate(beside)
        }
        found = {name: _answer(answer, config.timeout + 30) for name, answer in asked.items()}
        yield from checks.network(found, backend)


def _named(nodes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By address; of several on one machine also by the port of their raylet."""
    addresses = [node["NodeManagerAddress"] for node in nodes]
    return {
        address if addresses.count(address) == 1 else f"{address}:{node['NodeManagerPort']}": node
        for address, node in zip(addresses, nodes, strict=True)
    }


def _answer(asked: Any, timeout: float) -> dict[str, Any]:
    """What a node answered; its error in words, where it has none."""
    import ray

    try:
        answer: dict[str, Any] = ray.get(asked, timeout=timeout)
    except (ray.exceptions.RayError, TimeoutError) as error:
        return {"error": str(error).strip().splitlines()[-1] if str(error) else "no answer"}
    return answer


def _metrics(nodes: dict[str, dict[str, Any]], ask: Any) -> dict[str, Any]:
    """Of a cluster that was joined; a Ray of our own has no dashboard."""
    if not os.environ.get("RAY_ADDRESS"):
        return {}
    each = {
        name: (node["NodeManagerAddress"], node["MetricsExportPort"])
        for name, node in nodes.items()
    }
    found: dict[str, Any] = ask("metrics", each=each)
    return found


def _skew(actor: Any) -> tuple[float, float]:
    """Seconds that the node's clock is ahead of ours, and how sure that is: the fastest of some calls."""
    import ray

    best = (0.0, float("inf"))
    for _ in range(5):
        before = time.time()
        there = ray.get(actor.now.remote(), timeout=60)
        after = time.time()
        unsure = (after - before) / 2
        if unsure < best[1]:
            best = (there - (before + after) / 2, unsure)
    return best


@contextmanager
def _marked(folder: Path) -> Iterator[str]:
    """A file in the folder, by which a node knows that it sees the same one; none where none can be."""
    name = f".doctor-{uuid.uuid4().hex}"
    file = resolve_path(folder) / name
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    try:
        yield name
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
