"""cluster/monitoring without a cluster (test_pool.py has one)."""

import json
import re
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml
from ray.dashboard.consts import GPU_TAG_KEYS
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from tests.cluster.monitoring import MONITORING, labels_of, needs, of_gpus, panels, queries, rules

ROOT = MONITORING.parents[1]
GUIDE = (ROOT / "docs/cluster.md").read_text()


@pytest.mark.parametrize("query", [*(expr for expr, _ in queries()), *rules().values()])
def test_every_query_is_one_to_prometheus(query: str) -> None:
    promql_parser.parse(query)


@pytest.mark.parametrize("mistake", ["max by (run (x)", "avg_over_tim(x[1m])", "avg_over_time(x)"])
def test_a_mistake_in_a_query_is_caught(mistake: str) -> None:
    with pytest.raises(ValueError):
        promql_parser.parse(mistake)


@pytest.mark.parametrize("alert", rules())
def test_an_alert_keeps_the_labels_that_its_text_names(alert: str) -> None:
    groupings = re.findall(r"\bby \((.*?)\)", rules()[alert])
    assert groupings
    assert all({*labels_of(alert)} <= {*re.split(r",\s*", names)} for names in groupings)


@pytest.mark.parametrize(("query", "legend"), queries())
def test_a_query_keeps_the_labels_that_its_legend_names(query: str, legend: str) -> None:
    groupings = re.findall(r"\bby \((.*?)\)", query)
    named = {*re.findall(r"{{(\w+)}}", legend)}
    assert all(named <= {*re.split(r",\s*", names)} for names in groupings)


def test_the_dashboard_shows_any_grafanas_prometheus() -> None:
    board = json.loads((MONITORING / "dashboard.json").read_text())
    source, *others = board["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    assert source["query"] == "prometheus"
    asking = [*others, *(panel for panel in panels() if panel["type"] != "row")]
    assert {each["datasource"]["uid"] for each in asking} == {"${datasource}"}


def test_kubernetes_scrapes_as_often_as_the_head_does() -> None:
    monitor = yaml.safe_load((ROOT / "cluster/kubernetes/metrics.yaml").read_text())
    ours = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["interval"] == ours["global"]["scrape_interval"]
    assert endpoint["metricRelabelings"] == ours["scrape_configs"][0]["metric_relabel_configs"]


def test_the_guides_command_makes_the_alerts_an_object_of_kubernetes() -> None:
    (command,) = re.findall(r"(?s)    (\(printf .*?) \| kubectl apply -f -\n", GUIDE)
    resource = yaml.safe_load(subprocess.check_output(["bash", "-c", command], cwd=ROOT, text=True))
    assert (resource["kind"], resource["metadata"]["name"]) == ("PrometheusRule", "ray-mae")
    assert resource["spec"] == yaml.safe_load((MONITORING / "alerts.yaml").read_text())


def test_what_is_started_on_the_head_listens_on_loopback() -> None:
    started = re.findall(r"(?m)^    (prometheus --.*|.*grafana server.*)$", GUIDE)
    assert len(started) == 2
    for command in started:
        assert re.search(r"(listen-address |HTTP_ADDR=)127\.0\.0\.1", command)


def test_gpus_are_asked_for_by_names_that_ray_gives_them() -> None:
    asked = [query for query, _ in queries() if of_gpus(query)]
    assert len(asked) == 2
    for query in asked:
        assert {*re.findall(r"\bray_(node_\w+)", query)} <= METRICS_GAUGES.keys()
        assert "by (ip, GpuIndex)" in query
    assert "GpuIndex" in GPU_TAG_KEYS


def test_figures_are_red_only_where_something_is_wrong() -> None:
    """Grafana's own limit is red from 80 on, whatever the unit: seconds left, per cent done."""
    limits = {
        panel["title"]: {
            step["color"]: step["value"]
            for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        }
        for panel in panels()
        if panel["type"] == "stat"
    }
    assert limits["Time left"] == limits["Done"] == limits["Workers"] == {"green": None}
    assert limits["Trials done"] == {"green": None}
    (stalls,) = map(int, re.findall(r"> (\d+)", rules()["RunTakesNoStep"]))
    assert limits["Since the last figures"]["red"] == stalls
    assert limits["Failed probes"]["red"] == 1
    assert limits["Starts of the workers"]["red"] == 4


def test_two_runs_of_one_name_are_two_and_nodes_have_a_name() -> None:
    for query, legend in queries():
        if "ray_mae_" in query:
            assert "folder" in re.findall(r"\bby \((.*?)\)", query)[0]
            assert "{{folder}}" in legend
        if "ray_node_cpu" in query or "ray_node_mem" in query or "ray_node_disk" in query:
            assert "{{RayNodeType}} {{ip}}" in legend


@needs("promtool")
def test_alerts_tell_of_what_they_should_and_of_nothing_else(tmp_path: Path) -> None:
    text = (Path(__file__).parent / "alerts_test.yaml").read_text()
    (tmp_path / "test.yaml").write_text(text.replace("ALERTS", str(MONITORING / "alerts.yaml")))
    for words in (
        ["check", "config", MONITORING / "prometheus.yaml"],
        ["test", "rules", tmp_path / "test.yaml"],
    ):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
