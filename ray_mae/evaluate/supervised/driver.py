"""A training under supervision, from every initialisation with every seed, compared on test patients."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ray_mae.checkpoint.compatibility import cautions
from ray_mae.config import SupervisedConfig
from ray_mae.config.base import to_dict
from ray_mae.data.schema import NOUNS, SPLITS, Manifest
from ray_mae.evaluate.cohort import Cohort, SplitCount
from ray_mae.evaluate.intervals import LEAST_RUNS
from ray_mae.evaluate.metrics import patient_resamples
from ray_mae.evaluate.scores import FEW, TOO_FEW, Evidence
from ray_mae.evaluate.supervised.comparison import MetricValues, compare
from ray_mae.evaluate.supervised.fit import Fit
from ray_mae.evaluate.supervised.report import ComparisonReport, write_comparison
from ray_mae.evaluate.supervised.runs import Run, run_all, runs_of
from ray_mae.lock import hold
from ray_mae.store import require_store
from ray_mae.terminal import warn


class Task(Protocol):
    """What all runs share. It goes to each of them, so that nothing is read twice."""

    @property
    def manifest(self) -> Manifest:
        """Of the shards."""

    @property
    def cohort(self) -> Cohort:
        """Who is in them."""

    def rows(self, split: str) -> NDArray[np.intp]:
        """The cohort's rows of a split that take part."""


class Result(Protocol):
    """What a run leaves for the driver: its training, and what it says of the test patients."""

    @property
    def fit(self) -> Fit:
        """The training."""


C = TypeVar("C", bound=SupervisedConfig)
T = TypeVar("T", bound=Task)
R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Preparation(Generic[T]):
    """A task, and what is said of it on the page."""

    task: T
    left_out: dict[str, str]
    """Labels, classes or samples without a number, and why."""
    counts: dict[str, SplitCount] = field(default_factory=dict)
    """By split, of a task of labels."""
    policy: dict[str, str] = field(default_factory=dict)
    """What label states count as, by setting."""


class Evaluation(ABC, Generic[C, T, R]):
    """What fine-tuning and segmentation have of their own: prepare, run, report."""

    command: ClassVar[str]
    """Its name and that of its files."""
    metrics: ClassVar[Mapping[str, str]]
    """Keys and printed names; the page and the summary begin with the first."""
    chance: ClassVar[float | None]
    """Of the first metric, to be marked in the figure."""
    score: ClassVar[str]
    """Printed name of what decides on validation patients."""
    limits: ClassVar[Sequence[str]]
    """What the numbers do not show."""

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def prepare(self) -> AbstractContextManager[Preparation[T]]:
        """The task, with Ray for its runs until the block is left.

        Raises:
            FileNotFoundError, ValueError: with what to do.
        """

    @property
    @abstractmethod
    def train(self) -> Callable[[Run, C, T], R]:
        """What trains from one initialisation with one seed, as a task of Ray."""

    @abstractmethod
    def measure(self, task: T, result: R, weights: NDArray) -> dict[str, MetricValues]:
        """Returns all metrics of one run.

        Args:
            task: of all runs.
            result: of the run.
            weights: [T, R] how often each test row is in each resample of the patients.
        """

    def evidence(self, task: T, weights: NDArray) -> list[Evidence]:
        """What the test patients can tell of each label, by the resamples' weights [T, R]; empty where a row
        is no label."""
        return []

    @abstractmethod
    def rows(self, task: T) -> list[str]:
        """Names of what is scored by itself: labels or classes."""

    @abstractmethod
    def title(self, task: T) -> str:
        """Of the page."""

    @abstractmethod
    def lead(self, task: T) -> str:
        """First sentence of the page, beneath the title."""

    @abstractmethod
    def protocol(self, task: T) -> dict[str, str]:
        """How the numbers come about, but for their intervals, which all have alike."""

    def write_more(self, task: T, results: Sequence[tuple[Run, R]]) -> list[tuple[str, bytes]]:
        """Writes what no other evaluation leaves; returns titles and PNGs for the page."""
        return []


def evaluate(evaluation: Evaluation[Any, Any, Any]) -> dict[str, Any]:
    """Trains from every initialisation with every seed, and compares them on test patients.

    Writes what `write_comparison` does, and the weights of each run below models/.

    Returns:
        The summary.

    Raises:
        FileNotFoundError, ValueError: with what to do, before any run starts.
        RuntimeError: with the name of a run that failed.
        InUseError: another evaluation writes into the same folder.
    """
    began = time.time()
    config = evaluation.config
    require_store(config.output)
    config.output.mkdir(parents=True, exist_ok=True)
    with hold(config.output, f"ray-mae evaluate {evaluation.command}"):
        return _evaluate(evaluation, began)


def _evaluate(evaluation: Evaluation[Any, Any, Any], began: float) -> dict[str, Any]:
    """The same, in a folder that nobody else writes to."""
    config = evaluation.config
    notes = cautions(config.checkpoint, config.shards, config.mismatch)
    warn(notes)
    with evaluation.prepare() as preparation:
        task = preparation.task
        runs = runs_of(config)
        results = run_all(evaluation.train, runs, config, task, score=evaluation.score)
    of_runs = list(zip(runs, results, strict=True))
    patient = task.cohort.patient[task.rows("test")]
    weights = patient_resamples(patient, config.bootstrap, config.seeds[0])
    values: dict[str, list[dict[str, MetricValues]]] = {name: [] for name in config.compare}
    for run, result in of_runs:
        values[run.initialisation].append(evaluation.measure(task, result, weights))
    counts = preparation.counts
    comparison = compare(
        values,
        config.seeds,
        evaluation.rows(task),
        evaluation.metrics,
        len(np.unique(patient)),
        evaluation.evidence(task, weights),
    )
    report = ComparisonReport(
        command=evaluation.command,
        title=evaluation.title(task),
        lead=evaluation.lead(task),
        chance=evaluation.chance,
        comparison=comparison,
        runs=[(run, result.fit) for run, result in of_runs],
        samples_per_batch=config.batch_size,
        noun=NOUNS[task.manifest.kind],
        protocol={
            **evaluation.protocol(task),
            "Intervals": _intervals(config, comparison.evidence),
        },
        limits=evaluation.limits,
        cautions=notes,
        settings={"dataset": task.manifest.dataset, **to_dict(config)},
        counts=counts,
        policy=preparation.policy,
        samples={
            split: counts[split].studies if counts else len(task.rows(split)) for split in SPLITS
        },
        left_out=preparation.left_out,
        pictures=evaluation.write_more(task, of_runs),
    )
    return write_comparison(config.output, report, began)


def _intervals(config: SupervisedConfig, evidence: Mapping[str, Evidence]) -> str:
    resamples = (
        f"{config.bootstrap:,} resamples of the test patients, the same for all runs, so that differences "
        "are paired"
    )
    few = (
        f" Where the rarer class of a label has fewer than {FEW} test patients, its AUROC's interval is made "
        "on the logit, of one seed from the error of DeLong by patients (Obuchowski); with fewer than "
        f"{TOO_FEW} there is none: too few to tell. A difference of a label's AUROC is told apart where its "
        "p holds beside those of all labels (Holm, 5 %)."
        if evidence
        else ""
    )
    if len(config.seeds) == 1:
        return f"percentiles 2.5 to 97.5 of {resamples}. They say nothing of another seed.{few}"
    if len(config.seeds) < LEAST_RUNS:
        return f"none over two seeds, whose spread says too little; {LEAST_RUNS} or more have one."
    return (
        f"over test patients and over seeds: the variance of the mean in {resamples}, and that between "
        "seeds divided by their number, with Student's t (Welch and Satterthwaite). ± is the standard "
        f"deviation over seeds.{few}"
    )


OTHER_HOSPITAL = (
    "Another hospital: training, validation and test patients come from the same archive."
)
OTHER_TRAINING_SET = (
    "Another training set: the intervals cover the choice of test patients, the spread covers the "
    "seeds; both starts saw the same training patients."
)
OTHER_BUDGET = (
    "That random could not do better with a longer training or other settings: both starts had the "
    "same ones."
)
FITNESS_FOR_CARE = "Fitness for use in care. This is a figure of research."
"""What the numbers of no evaluation show."""
