"""What Prometheus would read of the Ray that this process is connected to."""

import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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


@contextmanager
def names_scraped() -> Iterator[set[str]]:
    """Every name that a Prometheus would have met, looking each second.

    Ray's nodes hear of a process' gauges every ten seconds and forget those that it has let go.
    """
    met: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(1):
            with suppress(OSError):  # a busy node may miss a look
                met.update(scraped())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield met
    finally:
        ended.set()
        looking.join()
