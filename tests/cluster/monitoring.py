"""What dashboard and alerts ask Prometheus."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"


def needs(program: str) -> pytest.MarkDecorator:
    """For a test that runs `prometheus` or `promtool`."""
    return pytest.mark.skipif(
        not shutil.which(program),
        reason=f"no {program} on PATH: Debian's and Ubuntu's package prometheus has it",
    )


def panels() -> list[dict[str, Any]]:
    """Of the dashboard."""
    values: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return values


def queries() -> list[tuple[str, str]]:
    """Of the dashboard, each with its legend."""
    targets = [target for panel in panels() for target in panel.get("targets", [])]
    return [(t["expr"].replace("$run", ".*"), t["legendFormat"]) for t in targets]


def of_gpus(query: str) -> bool:
    """Whether a query asks for what nodes with GPUs alone have."""
    return "ray_node_gpus_" in query or "ray_node_gram_" in query


def rules() -> dict[str, str]:
    """Expressions of the alerts by name."""
    return {rule["alert"]: rule["expr"] for rule in _rules()}


def labels_of(alert: str) -> list[str]:
    """What the text of an alert names of what it is about."""
    text = next(r["annotations"]["summary"] for r in _rules() if r["alert"] == alert)
    return re.findall(r"\$labels\.(\w+)", text)


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
