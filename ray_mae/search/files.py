"""Names of the files, folders and Optuna studies of a search."""

import shlex
import uuid
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import TrialState

from ray_mae.data.paths import is_remote
from ray_mae.files import write_whole
from ray_mae.search.database import without_password
from ray_mae.train.metrics.trackers import mlflow_uri

STATES = {
    TrialState.COMPLETE: "ended",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""Optuna's states in our words."""
SEARCH, REPEATS = "search", "repeats"
"""The two Optuna studies of a search, and the folders of their trials."""
REPORT, BEST = "report.html", "best.yaml"
_NAME = "study.txt"


def name_studies(output: Path) -> None:
    """Gives the Optuna studies of a new search a name: the database may hold other searches, too."""
    file = output / _NAME
    if not file.is_file():
        write_whole(file, f"{output.name} {uuid.uuid4().hex[:8]}\n")


def study_name(output: Path, kind: str) -> str:
    """Returns the name of an Optuna study of the search in a folder.

    Args:
        output: folder of the search.
        kind: SEARCH or REPEATS.

    Raises:
        ValueError: The folder holds no search.
    """
    file = output / _NAME
    if not file.is_file():
        raise ValueError(f"{output} holds no search: give the --output of `ray-mae tune`")
    return f"{file.read_text().strip()} {kind}"


def _database(output: Path, storage: str) -> str:
    """As a shell's word. Of a search in a store its database is to be copied first."""
    if is_remote(output) and storage.startswith("sqlite"):
        return f"sqlite:///study.db, a copy of {output / 'study.db'}"
    return shlex.quote(without_password(storage))


def dashboards(output: Path, storage: str, trackers: Sequence[str]) -> dict[str, str]:
    """Returns how to open each; a password in the URL of the database is not repeated."""
    commands = {
        "report": str(output / REPORT),
        "TensorBoard": f"tensorboard --logdir {shlex.quote(str(output))}",
        "Optuna": f"optuna-dashboard --host 127.0.0.1 {_database(output, storage)}",
        "Ray": "while it runs, http://127.0.0.1:8265 of the head node (token: ray get-auth-token)",
    }
    if "mlflow" in trackers:
        commands["MLflow"] = f"mlflow ui --backend-store-uri {shlex.quote(mlflow_uri(output))}"
    if "wandb" in trackers:
        commands["W&B"] = "wandb.ai, or wandb sync where it was offline"
    return commands
