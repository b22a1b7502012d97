"""A cluster without nodes gets those that its jobs want, and is without nodes again; what is shown of them.

Real raylets on this machine, started and ended by Ray's autoscaler (`benchmarks.autoscaling` also
takes one away), and a real Prometheus where it is installed.
"""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.autoscaling import POOLS, Pool, command, start_ingest
from ray_mae.checkpoint.format import find_checkpoint, read_state
from ray_mae.data.schema import Manifest
from tests.cluster.head import free_ports, head
from tests.cluster.monitoring import MONITORING, labels_of, needs, of_gpus, queries, rules
from tests.shards import write_volume_shards

pytestmark = pytest.mark.slow

DISCOVERY = "prom_metrics_service_discovery.json"
needs_prometheus = needs("prometheus")

# a run with an online probe, and the metrics of a search as its driver sets them
PROGRAM = """
import sys, time
from pathlib import Path
import optuna
from ray_mae import cli
from ray_mae.cluster.runtime import connect
from ray_mae.search.prometheus import SearchMetrics
connect()
study = optuna.create_study()
study.optimize(lambda trial: 0.5, 2)
search = SearchMetrics(Path("/runs/search"), 3)
search.show(study.trials)
cli.run(sys.argv[1:])
time.sleep(4)  # long enough to be scraped
"""


@dataclass(frozen=True)
class Observations:
    """What was there to see while the jobs ran."""

    folder: Path
    """With `shards` of the ingest, and `run`."""
    output: list[str]
    """Printed by ingest and by the run."""
    nodes: list[dict[str, int]]
    """By type, whenever they changed."""
    names: set[str]
    """Of metrics, as Ray's nodes gave them."""
    prometheus: str | None
    began: float
    ended: float

    def ask(self, path: str, **parameters: Any) -> Any:
        """Data of Prometheus' API."""
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observations]:
    folder = tmp_path_factory.mktemp("pool")
    write_volume_shards(folder / "volumes", held_out=16)
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    words = f"pretrain --config {folder}/run.yaml --shards {folder}/volumes --output {folder}/run"
    with (
        head(cpus=0, pools=POOLS, idle_s=6) as cluster,
        Pool(cluster).watched() as pool,
        _prometheus(folder, cluster.temporary / DISCOVERY) as url,
    ):
        output = [_communicate(start_ingest(cluster, folder, studies=48, side=300))]
        began, names = time.time(), set[str]()
        run = command(cluster, ["-c", PROGRAM, *words.split()])
        while run.poll() is None:
            names |= _names(cluster.temporary / DISCOVERY)
            time.sleep(0.5)
        output.append(_communicate(run))
        ended, until = time.time(), time.monotonic() + 120
        while pool.look() and time.monotonic() < until:
            time.sleep(0.5)
        nodes = [nodes for _, nodes in pool.trace]
        yield Observations(folder, output, nodes, names, url, began, ended)


def _communicate(job: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    output, _ = job.communicate()
    assert job.returncode == 0, output
    return output


SETTINGS = {
    "method": {"name": "mdae", "block_size": 4},
    "encoder": {"name": "resenc", "preset": "tiny", "crop_size": 16},
    "data": {"corrupt": "skip"},
    "optim": {"optimizer": "adamw", "lr": 0.001, "steps": 8, "batch_size": 4, "micro_batch_size": 2},
    "engine": {"precision": "fp32"},
    "scaling": {"workers": 2, "gpu": False, "cpus_per_worker": 2, "threads_per_worker": 1},
    "checkpoint": {"every": 4},
    "probe": {"every": 1, "bootstrap": 20, "min_positive": 3},
    "tracking": {"every": 1, "pictures": 0, "peak_tflops": 0.01},
}  # fmt: skip


@contextmanager
def _prometheus(folder: Path, discovery: Path) -> Iterator[str | None]:
    """Ours, with our configuration but for the place of Ray's file and the pace; None where it is not had."""
    program = shutil.which("prometheus")
    if not program:
        yield None
        return
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / "alerts.yaml")]
    config["scrape_configs"][0]["file_sd_configs"][0]["files"] = [str(discovery)]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    process = subprocess.Popen(
        [program, f"--config.file={folder}/prometheus.yaml", f"--web.listen-address={address}",
         f"--storage.tsdb.path={folder}/tsdb", "--log.level=error"]
    )  # fmt: skip
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def _names(discovery: Path) -> set[str]:
    """Of what each target has, that Ray's head has written down."""
    names: set[str] = set()
    with suppress(OSError, json.JSONDecodeError):
        for target in json.loads(discovery.read_text())[0]["targets"]:
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer,
            ):
                for family in text_string_to_metric_families(answer.read().decode()):
                    names |= {sample.name for sample in family.samples}
    return names


def test_jobs_get_their_nodes_from_none_and_give_them_back(observed: Observations) -> None:
    ingest, run = observed.output
    assert "no CPUs now: the work waits until it has grown" in ingest
    assert Manifest.read(observed.folder / "shards").rows("train") > 20
    assert "the run waits until the cluster has grown" in run
    assert "waiting for nodes: 2 × (2 CPU) are asked for" in run
    assert read_state(find_checkpoint(observed.folder / "run"))["workers"] == 2
    assert any(nodes.get("cpu") for nodes in observed.nodes)
    assert max(nodes.get("train", 0) for nodes in observed.nodes) >= 2
    assert observed.nodes[0] == observed.nodes[-1] == {}


def test_dashboard_and_alerts_name_metrics_that_there_are(observed: Observations) -> None:
    text = " ".join([*rules().values(), *(expr for expr, _ in queries() if not of_gpus(expr))])
    named = set(re.findall(r"\bray_\w+", text))
    assert len(named) > 25
    assert named <= observed.names


@needs_prometheus
def test_every_query_of_the_dashboard_is_answered_with_data(observed: Observations) -> None:
    expressions = [each for each in queries() if not of_gpus(each[0])]
    for alert, expr in rules().items():  # without their limits
        if simple := re.fullmatch(r"([^<>]+) > [0-9.]+", expr):
            expressions.append((simple[1], "".join(f"{{{{{n}}}}}" for n in labels_of(alert))))
    assert len(expressions) > len(queries()) + 4
    for expr, shown in expressions:
        answer = observed.ask(
            "query_range", query=expr, start=observed.began, end=observed.ended, step=1
        )
        assert answer["result"], expr
        for series in answer["result"]:
            assert {*re.findall(r"{{(\w+)}}", shown)} <= series["metric"].keys(), expr
    for name, last in (("step", "8"), ("running", "0"), ("failed", "0")):
        query = f'ray_mae_{name}{{run="run"}}'
        answer = observed.ask(
            "query_range", query=query, start=observed.began, end=observed.ended, step=1
        )
        assert answer["result"][0]["values"][-1][1] == last


@needs_prometheus
def test_every_alert_can_be_evaluated_and_a_good_run_raises_none(observed: Observations) -> None:
    (group,) = observed.ask("rules")["groups"]
    assert {rule["name"] for rule in group["rules"]} == rules().keys()
    assert all(rule["health"] == "ok" for rule in group["rules"]), group
    firing = [a["labels"]["alertname"] for a in observed.ask("alerts")["alerts"]]
    assert not {*firing} - {"DiskFull", "MemoryFull"}  # of this machine, not the run
