"""What Prometheus would read of the Ray that this process is connected to."""

import urllib.request
from collections import defaultdict

import ray
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def scraped() -> dict[str, list[Sample]]:
    """Samples by name, of all nodes."""
    found = defaultdict(list)
    for node in ray.nodes():
        if node["Alive"]:
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                for family in text_string_to_metric_families(answer.read().decode()):
                    for sample in family.samples:
                        found[sample.name].append(sample)
    return dict(found)
