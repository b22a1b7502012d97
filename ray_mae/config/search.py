"""Settings of a search over whole runs."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray_mae.config.base import ValidatedConfig, setting
from ray_mae.config.pretrain import RunConfig, as_list


@dataclass(frozen=True, kw_only=True)
class AshaConfig:
    """Trials that do worse than others at the same share of their steps are stopped (ASHA)."""

    stop: bool = True
    """Whether to stop any."""
    grace: float = setting(0.25, gt=0, le=1)
    """Share of its steps that every trial is given."""
    reduction: float = setting(2.0, gt=1)
    """One in this many goes on, first at `grace`, then at `reduction` times that share, and so on. More
    stops more trials, on the word of earlier and noisier probes."""


@dataclass(frozen=True, kw_only=True)
class RepeatConfig:
    """The best settings once more with new seeds, which tells a difference from luck."""

    best: int = setting(3, ge=0)
    """Settings to repeat; 0 repeats none."""
    seeds: int = setting(3, ge=1)
    """New seeds for each; an interval over seeds takes three or more."""


def check_storage(storage: str | None) -> None:
    """Raises ValueError for what is no URL of a database, and for one with a password; repeats neither.

    A password would lie in Tune's files, which others can read, and as a job in the cluster's list of jobs.

    Args:
        storage: URL of the database, if any.
    """
    if storage is None:
        return
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise ValueError(
            "storage must be the URL of a database, such as postgresql+psycopg://user@host/name"
        ) from error
    if url.password or any(_SECRET.search(name) for name in url.query):
        raise ValueError(
            "storage holds a password, which would be written to files that others can read: leave it "
            "out, and give PostgreSQL's by a password file (~/.pgpass, or the one that PGPASSFILE names) "
            "or PGPASSWORD in the environment, MySQL's by ?read_default_file=~/.my.cnf"
        )


_SECRET = re.compile(r"(?i)pass(wd|word|phrase)|pwd|secret|token|odbc_connect")
"""Names of parameters of a database URL that hold secrets."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(ValidatedConfig):
    """Search settings over whole pretrainings, by what a probe finds on validation patients."""

    shards: list[Path] | Path
    """Folder that `ingest` wrote, or several of one kind: [A, B]. Their test patients are never read."""
    shares: list[float] | None = field(default=None, metadata={"gt": 0})
    """Of several folders: the share of the samples drawn from each, in any unit. Default: by their size."""
    output: Path
    """Folder of the search: trials, study.db, report.html, best.yaml, summary.json."""
    run: RunConfig
    """Settings of every run, as of `pretrain`; those of the space come on top."""
    space: dict[str, Any]
    """Settings of the run by dotted name, each with a distribution: uniform, loguniform, int or logint
    [low, high], choice [values], grid [values]; `step` for uniform and int; `when: {other: values}`
    where it depends on another one. `method.mask_ratio[0]` is the first value of a pair."""
    trials: int = setting(20, ge=1)
    """Settings to try. With grids: for each point of the grid, where something else is searched as well,
    else once."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are chosen: Optuna's tree-structured Parzen estimator, or at random."""
    startup_trials: int = setting(8, ge=1)
    """tpe only: trials at random before it models anything."""
    objective: Literal["auroc", "auroc_and_hours"] = "auroc"
    """auroc: macro AUROC of the online probe on validation patients, as high as it gets; with hours, also
    as few hours of training as possible: the report then shows what no other trial beats in both. That
    wants asha.stop off, which looks at AUROC alone."""
    probes: int = setting(4, ge=1)
    """Probes of each run, evenly over its steps; the last one counts."""
    asha: AshaConfig = field(default_factory=AshaConfig)
    """Early stopping."""
    repeat: RepeatConfig = field(default_factory=RepeatConfig)
    """Repeats of the best."""
    at_once: int | None = setting(None, ge=1)
    """Trials at a time; default: as many as there is room for. Give it where a pool grows on demand."""
    retries: int = setting(1, ge=0)
    """Times that a failed trial is started again, from its last checkpoint, before it is given up."""
    resume: bool = False
    """Go on with the search that the output folder holds, if any."""
    retry_failed: bool = False
    """With resume: give the settings of failed trials another try, as trials of their own."""
    storage: str | None = None
    """Database URL of the Optuna study, such as postgresql+psycopg://user@host/name (the extra postgres
    brings its driver); default: study.db in the output folder. Without a password: libpq's ~/.pgpass,
    PGPASSFILE or PGPASSWORD hold it, on the node where the command runs."""
    trackers: list[Literal["mlflow", "wandb"]] = field(default_factory=list)
    """Also log trials there (the extras mlflow and wandb bring them), as their environment
    variables say."""
    seed: int = setting(0, ge=0)
    """Seed of the sampler. Of the runs see run.seed."""

    @property
    def folders(self) -> list[Path]:
        """Of shards."""
        return as_list(self.shards)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_storage(self.storage)
        if self.objective == "auroc_and_hours" and self.asha.stop:
            raise ValueError(
                "asha.stop must be off with objective auroc_and_hours: it stops trials by AUROC alone, "
                "the cheap ones first"
            )


@dataclass(frozen=True, kw_only=True)
class TuneReportConfig(ValidatedConfig):
    """Write the report of a search as far as it is, and say how to open the dashboards."""

    output: Path
    """Folder of the search."""
    storage: str | None = None
    """Database URL of the Optuna study, where the search had one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_storage(self.storage)
