"""What a person sees of a run in the terminal."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ray_mae.cluster.interruption import Interrupted
from ray_mae.config.pretrain import RunConfig
from ray_mae.data.schema import NOUNS
from ray_mae.number_text import ENDS, significant, with_interval
from ray_mae.terminal import console
from ray_mae.train.forecast.tables import StartTables
from ray_mae.train.metrics.jsonl import Tail
from ray_mae.train.metrics.trackers import Listeners
from ray_mae.train.recovery.pulse import Silence
from ray_mae.train.run_folder import EVENTS, METRICS, PROBES, STOPPED, RunFolder
from ray_mae.train.run_storage import require


class Progress:
    """Prints events and metrics of a run while it goes on, from its files, and hands them on.

    Args:
        folder: of the run.
        began: Unix time of the command's start.
        config: of the run, whose method has the metrics that a line shows.
        tables: printed when the workers are up.
        listeners: that get each record, too.
    """

    def __init__(
        self,
        folder: RunFolder,
        began: float,
        config: RunConfig,
        tables: StartTables,
        listeners: Listeners,
    ) -> None:
        self._folder, self._began = folder, began
        self._tables, self._listeners = tables, listeners
        self._noun = NOUNS[config.kind]
        self._columns = ("loss", *config.method.losses, *config.method.shown, "lr")
        run = folder.path
        self._events, self._metrics = Tail(run / EVENTS), Tail(run / METRICS)
        self._probes = Tail(run / PROBES)
        self._probes.news()  # of earlier starts
        self._step: int | None = None
        self._workers = 0
        self._away = False
        self._silence = Silence(folder.attempt)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Progress":
        console.print("starting workers …")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._listeners.close(error is None or isinstance(error, Interrupted))

    def _follow(self) -> None:
        while not self._ended.wait(self._metrics.every):
            self._look()
        self._look()

    def _look(self) -> None:
        """Print what is new, or once that the run's storage is away."""
        try:
            require(self._folder.path)
            self._print_news()
        except OSError as error:
            if not self._away:
                console.print(f"{self._folder.path} cannot be reached ({error}): waiting for it")
            self._away = True
            return
        if self._away:
            console.print(f"{self._folder.path} is back")
        self._away = False

    def _print_news(self) -> None:
        now = time.monotonic()
        for event in self._events.news():
            if event.get("attempt") == self._folder.attempt:
                self._print_event(event)
                self._listeners.event(event)
                self._step = event.get("first_step", self._step)
                if event["event"] == "first step":
                    self._silence.heard(now)
                elif event["event"] in ("worker ready", "done", STOPPED):
                    self._silence.rest()
        if self._step is None:  # what stands there is of an earlier start
            return
        for record in self._metrics.news():
            if record["step"] > self._step:
                self._step = record["step"]
                if text := self._silence.heard(now):
                    console.print(text)
                console.print(metrics_line(record, self._columns, self._noun))
                if text := self._tables.measured(record):
                    console.print(text)
                self._listeners.metrics(record)
        for record in self._probes.news():
            console.print(probe_line(record, self._noun))
            self._listeners.probe(record)
        if text := self._silence.look(now):
            console.print(text)

    def _print_event(self, event: dict[str, Any]) -> None:
        text = event["event"]
        if text == "worker ready" and event["workers"] != self._workers:
            if self._workers:
                text += f": now {event['workers']} workers, {self._workers} before"
            self._workers = event["workers"]
        if "precision" in event:
            text += (
                f": {event['precision']} on {event['device']}, {event['parameters'] / 1e6:.1f} M "
                f"parameters (encoder {event['encoder'] / 1e6:.1f} M)"
            )
        console.print(f"[{event['time'] - self._began:5.1f} s] {text}")
        if "precision" in event:
            for table in self._tables.started(event):
                console.print(table)


def probe_line(record: dict[str, Any], noun: str) -> str:
    """Returns a record of the online probe as one line."""
    lead = f"step {record['step']:>6}  probe "
    if "error" in record:
        return f"{lead}failed: {record['error']}"
    auroc = with_interval(*(record[f"probe_auroc{end}"] for end in ENDS))
    return f"{lead}macro AUROC {auroc} of {record['samples']['val']} validation {noun}"


def metrics_line(record: dict[str, Any], columns: Sequence[str], noun: str) -> str:
    """Returns metrics as one line.

    Args:
        record: of metrics.jsonl.
        columns: names of the metrics that it begins with, where they are there.
        noun: plural of a sample.
    """
    parts = [f"step {record['step']:>6}"]
    for name in columns:
        if name in record:
            parts.append(f"{name} {significant(record[name], small=0.01)}")
    if "held_out/loss" in record:
        parts.append(f"held-out loss {significant(record['held_out/loss'], small=0.01)}")
    if record.get("skipped_steps"):
        parts.append(f"skipped {record['skipped_steps']}")
    parts.append(f"{record['samples_per_s']:.3g} {noun}/s")
    parts.append(f"waiting for data {record['data_wait']:.0%}")
    if "mfu" in record:
        parts.append(f"{record['mfu']:.0%} of peak")
    minutes, seconds = divmod(round(record["eta_s"]), 60)
    parts.append(f"ETA {minutes // 60}:{minutes % 60:02d}:{seconds:02d}")
    return "  ".join(parts)
