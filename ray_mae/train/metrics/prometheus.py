"""The run's metrics as Ray's own, which Prometheus scrapes from Ray's nodes as `ray_mae_…`.

The driver sets them, so that they are there while workers start, wait for nodes or fail.
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ray_mae.cluster.ray_private import metrics_interval

GAUGES = {
    "mae_running": "1 while a driver of the run is there; 0 for some seconds after its end",
    "mae_failed": "1 for some seconds after an end with an error, else 0",
    "mae_step": "Optimiser steps done",
    "mae_steps": "Optimiser steps of the whole run",
    "mae_last_step_time_seconds": "When the run last told metrics, or began: Unix time",
    "mae_starts": "Starts of the workers by this driver",
    "mae_failures": "Times that workers were lost or failed and all started again, by this driver",
    "mae_workers": "Training workers",
    "mae_samples_per_second": "Samples trained on, over all workers",
    "mae_data_wait_ratio": "Share of the time in which workers wait for data",
    "mae_utilisation_ratio": "Model FLOPs over the devices' peak, where that is known",
    "mae_checkpoint_ratio": "Share of the time that checkpoints take",
    "mae_checkpoint_seconds": "Time that the last checkpoint took from training",
    "mae_loss": "Loss and its parts",
    "mae_loss_spikes": "Losses far above those before them, since the workers' start",
    "mae_gradient_norm": "Before clipping",
    "mae_learning_rate": "As of the last step",
    "mae_skipped_steps": "Steps that no worker took, since a loss or gradient was not finite",
    "mae_eta_seconds": "Time left at the present pace",
    "mae_probe_auroc": "Macro AUROC of the online probe",
    "mae_probe_failures": "Online probes that failed, of this driver",
    "mae_figure": "What else the method tells, by name",
}
"""Every gauge of a run and what it holds."""
_BY_METRIC = {
    "samples_per_s": "mae_samples_per_second",
    "data_wait": "mae_data_wait_ratio",
    "mfu": "mae_utilisation_ratio",
    "saving": "mae_checkpoint_ratio",
    "saving_s": "mae_checkpoint_seconds",
    "workers": "mae_workers",
    "loss_spikes": "mae_loss_spikes",
    "gradient_norm": "mae_gradient_norm",
    "lr": "mae_learning_rate",
    "skipped_steps": "mae_skipped_steps",
    "eta_s": "mae_eta_seconds",
}
_MORE_TAGS = {"mae_loss": ("part",), "mae_figure": ("name",)}


class RunMetrics:
    """A listener that shows records as gauges, until the run ends.

    Args:
        folder: of the run.
        steps: of the whole run.
        losses: names of the parts of its loss.
    """

    def __init__(self, folder: Path, steps: int, losses: Iterable[str]) -> None:
        self._gauges = Gauges(folder, GAUGES, _MORE_TAGS)
        self._losses = {"loss", *losses}
        self._starts, self._failures, self._failed_probes = 0, 0, 0
        self._set("mae_running", 1)
        self._set("mae_failed", 0)
        self._set("mae_steps", steps)
        self._set("mae_last_step_time_seconds", time.time())
        self._set("mae_starts", 0)
        self._set("mae_failures", 0)
        self._set("mae_probe_failures", 0)

    def event(self, record: dict[str, Any]) -> None:
        """Counts starts of the workers, and failures of theirs."""
        if record.get("restart"):
            self._failures += 1
            self._set("mae_failures", self._failures)
        if record["event"] == "worker ready":
            self._starts += 1
            self._set("mae_starts", self._starts)
        if "workers" in record:
            self._set("mae_workers", record["workers"])

    def metrics(self, record: dict[str, Any]) -> None:
        """Each metric under its name."""
        self._set("mae_last_step_time_seconds", time.time())
        for name, value in record.items():
            if name == "step":
                self._set("mae_step", value)
            elif name in _BY_METRIC:
                self._set(_BY_METRIC[name], value)
            elif name in self._losses or name.startswith(("loss/", "held_out/")):
                self._set("mae_loss", value, part=name)
            else:
                self._set("mae_figure", value, name=name)

    def probe(self, record: dict[str, Any]) -> None:
        """The last AUROC, and how many probes failed."""
        if "probe_auroc" in record:
            self._set("mae_probe_auroc", record["probe_auroc"])
        else:
            self._failed_probes += 1
            self._set("mae_probe_failures", self._failed_probes)

    def close(self, ended_well: bool) -> None:
        """Nobody waits for its next step."""
        self._gauges.close()
        self._set("mae_running", 0)
        self._set("mae_failed", int(not ended_well))
        if os.environ.get("RAY_ADDRESS") and in_driver():
            time.sleep(
                report_s() + 1
            )  # or nobody would hear of it, and the driver seem to have died

    def _set(self, gauge: str, value: float, **tags: str) -> None:
        self._gauges.set(gauge, value, **tags)


class Gauges:
    """Ray gauges that stay until `close`, and vanish with the process. Made while Ray is connected.

    Args:
        folder: of the run or the search; every gauge has the tags `run`, its name, and `folder`, its path.
        texts: by gauge, what it holds.
        more: by gauge, further tags.
    """

    def __init__(
        self, folder: Path, texts: dict[str, str], more: Mapping[str, tuple[str, ...]]
    ) -> None:
        from ray.util.metrics import Gauge

        self._tags: dict[str, str | None] = {
            "run": as_tag(folder.name),
            "folder": as_tag(str(folder)),
        }
        self._gauges = {
            name: Gauge(name, text, ("run", "folder", *more.get(name, ())))
            for name, text in texts.items()
        }
        self._values: dict[tuple[str, tuple[tuple[str, str | None], ...]], float] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def set(self, gauge: str, value: float, **tags: str) -> None:
        """Shows a value from now on."""
        every = self._tags | {k: as_tag(tag) for k, tag in tags.items()}
        self._values[gauge, tuple(every.items())] = value
        self._gauges[gauge].set(value, every)

    def close(self) -> None:
        """Lets all vanish but what is set once more."""
        self._ended.set()

    def _keep(self) -> None:
        again = report_s() / 2
        while not self._ended.wait(again):
            for (gauge, tags), value in [*self._values.items()]:
                self._gauges[gauge].set(value, dict(tags))


def as_tag(text: str) -> str:
    """Returns a name as Ray takes it for a tag, whose characters are ASCII: Müller as M%C3%BCller."""
    return "".join(
        c if c.isascii() and c.isprintable() else quote(c, errors="surrogateescape") for c in text
    )


def report_s() -> float:
    """Returns the seconds from one time to the next that Ray's nodes learn of a process' gauges.

    They forget what was not set for twice as long.
    """
    return max(metrics_interval(), 1.0)


def in_driver() -> bool:
    """Returns whether this is a job's own process, and not a trial of a search."""
    import ray

    return ray.get_runtime_context().get_actor_id() is None
