"""MLflow and Weights & Biases, where `tracking.trackers` asks for them.

The driver tells them what it reads from the run's files, so they outlive the workers, and a server that is
slow or down costs no step. Servers, projects and keys come from their own environment variables.
"""

import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ray_mae.config.base import flatten
from ray_mae.data.paths import is_remote
from ray_mae.files import write_whole

IDS = "trackers.json"
"""File in the run's folder with the id of its run at each tracker; checkpoints keep a copy."""
PROJECT = "ray_mae"
"""Experiment (MLflow) and project (W&B), unless their environment names one."""


class Listener(Protocol):
    """Records are those of events.jsonl, metrics.jsonl and probes.jsonl.

    A step may come twice, where workers started again from a checkpoint.
    """

    def event(self, record: dict[str, Any]) -> None:
        """Something happened."""
        ...

    def metrics(self, record: dict[str, Any]) -> None:
        """A line of metrics."""
        ...

    def probe(self, record: dict[str, Any]) -> None:
        """What the online probe found, or its error."""
        ...

    def close(self, ended_well: bool) -> None:
        """This start of the run is over."""
        ...


class Listeners:
    """Several as one. A failure of one is reported once, and stops neither the run nor the others."""

    def __init__(self, each: Sequence[Listener], warn: Callable[[str], None]) -> None:
        self._each, self._warn = each, warn
        self._failing: set[Listener] = set()

    def event(self, record: dict[str, Any]) -> None:
        """See Listener."""
        self._notify(lambda listener: listener.event(record))

    def metrics(self, record: dict[str, Any]) -> None:
        """See Listener."""
        self._notify(lambda listener: listener.metrics(record))

    def probe(self, record: dict[str, Any]) -> None:
        """See Listener."""
        self._notify(lambda listener: listener.probe(record))

    def close(self, ended_well: bool) -> None:
        """See Listener."""
        self._notify(lambda listener: listener.close(ended_well))

    def _notify(self, call: Callable[[Listener], None]) -> None:
        for listener in self._each:
            try:
                call(listener)
                self._failing.discard(listener)
            except Exception as error:  # of other people's packages and servers, whatever it is
                if listener not in self._failing:
                    name, first = type(listener).__name__, str(error).strip().split("\n")[0]
                    self._warn(f"warning: {name} was not told: {first[:300]}")
                self._failing.add(listener)


# ------------------------------------------------------------------------------------------ opening


def check_trackers(
    names: Sequence[str], setting: str = "tracking.trackers", output: Path | None = None
) -> None:
    """Raises ValueError where a package is missing, or W&B has no key: it would ask for one and wait.

    Neither can keep files of its own in an object store.

    Args:
        names: of the trackers.
        setting: dotted name of what chose them, for the text of the error.
        output: folder of the run or the search.
    """
    in_store = output is not None and is_remote(output)
    if in_store and "mlflow" in names and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ValueError(
            f"{setting}: MLflow's own file cannot lie in an object store ({output}): set "
            "MLFLOW_TRACKING_URI to a server, or leave mlflow out"
        )
    if in_store and "wandb" in names and os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        raise ValueError(
            f"{setting}: what W&B keeps offline cannot lie in an object store ({output}): unset "
            "WANDB_MODE, or leave wandb out"
        )
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder `wandb` is no package
            raise ValueError(
                f"{setting}: {name} is not installed: pip install 'ray-mae[{name}]', or leave it out"
            )
    if "wandb" in names and os.environ.get("WANDB_MODE") not in ("offline", "dryrun", "disabled"):
        import wandb

        if not wandb.login(prompt=False, verify=False):
            raise ValueError(
                f"{setting}: W&B has no key here: `wandb login`, or set WANDB_API_KEY, or "
                "WANDB_MODE=offline to sync later"
            )


def read_ids(run: Path) -> dict[str, str]:
    """Returns the run's id by tracker, as far as it has any."""
    file = run / IDS
    return json.loads(file.read_text()) if file.is_file() else {}


def open_trackers(
    folder: Path, names: Sequence[str], settings: dict[str, Any], ids: dict[str, str]
) -> Sequence[Listener]:
    """Opens the run at each tracker. One that has an id there goes on as the same run.

    Args:
        folder: of the run, which gives it its name.
        names: of the trackers, as `tracking.trackers` has them.
        settings: of the run as plain values, shown with a run that is new there.
        ids: by tracker, as the last checkpoint knows them; those in the run's folder come first.

    Raises:
        ValueError: where a tracker cannot be had.
    """
    check_trackers(names, output=folder)
    ids = ids | read_ids(folder)
    trackers = [TRACKERS[name](folder, settings, ids.get(name)) for name in names]
    if trackers:
        ids |= {name: tracker.id for name, tracker in zip(names, trackers, strict=True)}
        write_whole(folder / IDS, json.dumps(ids) + "\n")
    return trackers


# ----------------------------------------------------------------------------------------- trackers

_NOT_OF_MLFLOW = re.compile(r"[^\w.\- :]")
"""Not for names of metrics: brackets are refused, and where MLflow keeps files `loss` is no folder."""


def mlflow_uri(output: Path) -> str:
    """Returns where MLflow logs to unless MLFLOW_TRACKING_URI says otherwise."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    import sqlalchemy  # it knows how a path with ? or % is written

    return sqlalchemy.URL.create("sqlite", database=str(output / "mlflow.db")).render_as_string()


class Mlflow:
    """A run at an MLflow server, or in an SQLite file of the run's folder."""

    def __init__(self, folder: Path, settings: dict[str, Any], run_id: str | None) -> None:
        # by default a server that is not there is asked for four minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._client = MlflowClient(mlflow_uri(folder))
            self.id = run_id or self._create(folder.name, settings)
            self._client.update_run(self.id, status="RUNNING")
        except (MlflowException, SQLAlchemyError) as error:
            raise ValueError(
                f"tracking.trackers: MLflow cannot be used ({_first_line(error)}): see "
                "MLFLOW_TRACKING_URI, or leave mlflow out"
            ) from error
        self._unsent: list[Any] = []

    def _create(self, run_name: str, settings: dict[str, Any]) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        run = self._client.create_run(experiment, run_name=run_name)
        params = [Param(k, str(v)[:500]) for k, v in flatten(settings).items()]
        for first in range(0, len(params), 100):  # the most that MLflow takes at once
            self._client.log_batch(run.info.run_id, params=params[first : first + 100])
        return run.info.run_id

    def event(self, record: dict[str, Any]) -> None:
        """Nothing of it."""

    def metrics(self, record: dict[str, Any]) -> None:
        """What a server that is down did not take is sent with the next metrics."""
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), record["step"]
        self._unsent += [
            Metric(_NOT_OF_MLFLOW.sub("_", name), float(value), now, step)
            for name, value in record.items()
            if name != "step"
        ]
        while self._unsent:
            self._client.log_batch(self.id, metrics=self._unsent[:1000])
            self._unsent = self._unsent[1000:]

    def probe(self, record: dict[str, Any]) -> None:
        """As metrics of the step whose checkpoint was probed."""
        self.metrics(probe_metrics(record))

    def close(self, ended_well: bool) -> None:
        """FINISHED, or FAILED until it goes on."""
        self._client.set_terminated(self.id, "FINISHED" if ended_well else "FAILED")


class Wandb:
    """A run at Weights & Biases; with WANDB_MODE=offline in the run's folder, for `wandb sync`."""

    def __init__(self, folder: Path, settings: dict[str, Any], run_id: str | None) -> None:
        import wandb

        self.id = run_id or uuid.uuid4().hex[:8]
        try:
            self._run = wandb.init(
                id=self.id,
                resume="allow",
                reinit="create_new",
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=folder.name,
                config=settings,
                dir=tempfile.gettempdir() if is_remote(folder) else folder,
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
            )
        except wandb.Error as error:
            raise ValueError(
                f"tracking.trackers: W&B cannot be used ({_first_line(error)}): set WANDB_MODE=offline "
                "to sync later, or leave wandb out"
            ) from error
        # W&B's own counter never goes back; the steps after a checkpoint come twice
        self._run.define_metric("*", step_metric="step")

    def event(self, record: dict[str, Any]) -> None:
        """Nothing of it."""

    def metrics(self, record: dict[str, Any]) -> None:
        """W&B sends in a process of its own, and again where it was not heard."""
        self._run.log(record)

    def probe(self, record: dict[str, Any]) -> None:
        """As metrics of the step whose checkpoint was probed."""
        self.metrics(probe_metrics(record))

    def close(self, ended_well: bool) -> None:
        """Finished, or failed until it goes on."""
        self._run.finish(0 if ended_well else 1)


TRACKERS: dict[str, type[Mlflow] | type[Wandb]] = {"mlflow": Mlflow, "wandb": Wandb}
"""Trackers by their name in the settings."""


def probe_metrics(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the scalars of a probe that did not fail, with its step; the step alone otherwise."""
    names = ("step", "probe_auroc", "probe_auroc_low", "probe_auroc_high")
    return {name: record[name] for name in names if name in record}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
