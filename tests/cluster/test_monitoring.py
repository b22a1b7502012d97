"""cluster/monitoring without a cluster (test_pool.py has one)."""

import json
import re
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from tests.cluster.monitoring import MONITORING, labels_of, needs, panels, queries, rules

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
