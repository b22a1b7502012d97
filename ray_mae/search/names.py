"""What the parts of a search are called, and where they are."""

from pathlib import Path

from optuna.trial import TrialState

STATES = {
    TrialState.COMPLETE: "ended",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""Optuna's states in our words."""
SEARCH, REPEATS = "search", "repeats"
"""The two studies of a search, and the folders of their trials."""
DATABASE = "study.db"
REPORT, BEST, SUMMARY = "report.html", "best.yaml", "summary.json"


def study_name(output: Path, kind: str) -> str:
    """In the database, which may hold the studies of other searches, too."""
    return f"{output.name} {kind}"


def storage_url(output: Path, storage: str | None) -> str:
    """The database of the studies."""
    return storage or f"sqlite:///{output / DATABASE}"


def dashboards(output: Path, storage: str) -> dict[str, str]:
    """The command that opens each."""
    return {
        "report": str(output / REPORT),
        "TensorBoard": f"tensorboard --logdir {output / SEARCH}",
        "Optuna": f"optuna-dashboard --host 127.0.0.1 {storage}",
    }
