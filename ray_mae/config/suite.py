"""Settings of a benchmark: encoders, data sets, tasks, heads, and what is compared."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal

from ray_mae.config.base import ValidatedConfig, setting
from ray_mae.config.pretrain import as_list

Pool = Literal["cls", "mean", "cls+mean"]
Views = Literal[
    "all",
    "frontal",
    "lateral",
    "both_logits",
    "both_features",
    "both_attention",
    "first1",
    "first2",
]
HEADS = ("linear", "knn", "attentive", "few_shot", "ridge", "cox", "retrieval", "finetune")


@dataclass(frozen=True, kw_only=True)
class EncoderEntry:
    """One encoder of the table, or a baseline that stands in its place."""

    kind: Literal[
        "weights", "random", "scratch", "pixels", "histogram", "metadata", "prevalence"
    ] = "weights"
    """weights: runs, checkpoints, exported encoders or weights of others, with their own preprocessing.
    Baselines: random (the network of `like`, untrained), scratch (the same, trained on the labels, tuned as
    the others are), pixels (principal components of small images), histogram (of intensities), metadata
    (what is known without the image), prevalence (nothing at all)."""
    paths: list[Path] | Path = field(default_factory=list)
    """Of weights: one path, or one for each seed of the pretraining; only with several are its seeds part of
    the interval, and the page speaks of the method and not of one checkpoint."""
    like: str | None = None
    """Of random and scratch: name of the encoder whose network and preprocessing they take."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"ge": 0, "some": True})
    """Of random: seeds of the weights."""
    pools: list[Pool] | None = field(default=None, metadata={"some": True})
    """Vectors of a view that validation chooses from; default: all that the encoder has."""
    side: int = setting(32, ge=2, le=256)
    """Of pixels: side of the small images; of volumes a quarter of it."""
    components: int = setting(128, ge=1)
    """Of pixels: principal components, of the training patients."""
    columns: list[str] = field(default_factory=list)
    """Of metadata: attributes that are taken; default: all that the data set has."""
    trained_on: list[str] = field(default_factory=list)
    """Names of data sets, of this suite or of public archives, that its makers trained on. Of our runs it is
    known from the shards."""
    trained_on_labels: list[str] = field(default_factory=list)
    """The same where the labels, or the reports that they come from, were trained on."""
    crop_size: int | None = setting(None, ge=16, le=1024)
    """Volumes: side of the crops, in voxels; default: that of the pretraining."""
    sees: Literal["middle", "windows"] = "middle"
    """Volumes: the middle crop, or windows over the foreground."""

    @property
    def sources(self) -> list[Path]:
        """Paths, one for each seed of the pretraining."""
        return as_list(self.paths)


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """Shards that heads are fitted on and tested on."""

    shards: Path
    """Folder that `ingest` wrote."""
    archive: str | None = None
    """Name of the public archive that it is of, for what is known of archives that hold each other; default:
    the data set's own name."""
    role: Literal["internal", "external"] = "internal"
    """internal: heads are fitted, chosen and tested on its splits. external: it is tested on alone, all of
    its patients."""


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """What is to be told from a sample."""

    kind: Literal["labels", "number", "survival", "retrieval", "segmentation"] = "labels"
    """segmentation: of volumes with label maps, by `heads.segment`."""
    dataset: str
    """Name of the data set whose training and validation patients fit and choose."""
    test: list[str] = field(default_factory=list)
    """Names of data sets that are tested on; default: `dataset`. Another one is given the head unchanged."""
    labels: list[str] = field(default_factory=list)
    """Of labels and retrieval: names; default: all that have patients enough. Of number: one label or
    attribute, such as age. Of survival: the label with the time, then that with 1 where the event came."""
    regions: dict[str, list[int]] = field(default_factory=dict)
    """Of segmentation: what is scored, by name, as values of the label maps, such as whole: [1, 2, 3]; a
    value may be in several. Default: each value of the training volumes by itself."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    unmentioned: Literal["zeros", "ignore"] = "zeros"
    """As of `evaluate probe`."""
    least_patients: int = setting(10, ge=2)
    """Labels with fewer patients of a class in a split are left out of all averages, and named."""
    leave_out: str | None = None
    """Name of an attribute, such as site: each of its values is tested by heads that never saw it."""
    heads: list[str] | None = field(default=None, metadata={"some": True})
    """Names of heads; default: all of the suite that suit it. Segmentation has one of its own."""
    views: list[Views] | None = field(default=None, metadata={"some": True})
    """Default: those of the suite."""
    macro: list[str] = field(default_factory=list)
    """Labels that the mean is over; default: all that are left."""
    cohort: str | None = None
    """Tasks of one name share patients and count as one in averages over tasks; default: the data set."""

    @property
    def tested_on(self) -> list[str]:
        return self.test or [self.dataset]


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Points of the label-efficiency curves."""

    studies: list[int] = field(default_factory=list, metadata={"ge": 2})
    """Labelled studies; patients are drawn until there are so many. All of them are always a point."""
    draws: int = setting(5, ge=1)
    """Draws of the patients, each within the next larger one; of all there is one."""
    validation: list[Literal["full", "spent"]] = field(default_factory=lambda: ["full"])
    """full: settings are chosen on the whole validation split, as papers do. spent: the studies count for
    fit and choice together, four patients to one."""


@dataclass(frozen=True, kw_only=True)
class FinetuneHead:
    """Fine-tuning: six trials for each start, then fresh seeds of the one that validation chose."""

    encoders: list[str] = field(default_factory=list)
    """Names of those that are fine-tuned; scratch always is."""
    lr: float = setting(1e-4, gt=0)
    """Centre of the learning rates: a third of it, itself and three times it are tried."""
    scratch_lr: float = setting(3e-4, gt=0)
    """The same of scratch."""
    studies: list[int] = field(default_factory=list, metadata={"ge": 2})
    """Label counts at which it is fine-tuned, too: a draw for each seed. All of them are always taken."""
    layer_decay: list[float] = field(
        default_factory=lambda: [0.65, 1.0], metadata={"gt": 0, "le": 1}
    )
    epochs: float = setting(50.0, gt=0)
    longer: float = setting(3.0, ge=1)
    """Scratch tries up to so many times the epochs, in place of layer decay: it needs longer."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"ge": 0, "some": True})
    trial_seeds: int = setting(2, ge=1)
    """Seeds of each trial, whose mean chooses, where validation has fewer than 50 patients of the rarer
    class; elsewhere the first seed alone."""
    batch_size: int = setting(16, ge=1)


@dataclass(frozen=True, kw_only=True)
class SegmentHead:
    """Segmentation: a U-Net from the encoder, its decoder fresh. Every start, scratch as well, tries the same
    learning rates; then fresh seeds of the one that validation chose."""

    encoders: list[str] = field(default_factory=list)
    """Names of those that are trained, and scratch; default: all that can be."""
    lr: list[float] = field(
        default_factory=lambda: [1e-2, 3e-3, 1e-3], metadata={"gt": 0, "some": True}
    )
    """Largest learning rates."""
    optimizer: Literal["adamw", "sgd"] = "sgd"
    decay: Literal["cosine", "poly"] = "poly"
    warmup: float = setting(0.04, ge=0, lt=1)
    clip: float = setting(12.0, ge=0)
    weight_decay: float = setting(3e-5, ge=0)
    steps: int = setting(25_000, ge=1)
    """Of the optimiser, for every trial and fit."""
    validate_every: int = setting(250, ge=1)
    batch_size: int = setting(2, ge=1)
    """Crops."""
    foreground_share: float = setting(0.33, ge=0, le=1)
    overlap: float = setting(0.5, ge=0, lt=1)
    """As of `evaluate segment`."""
    tolerance_mm: float = setting(1.0, gt=0)
    """Surfaces no further apart than this count as equal in NSD; in a second one twice as far apart."""
    studies: list[int] = field(default_factory=list, metadata={"ge": 2})
    """Numbers of labelled volumes at which it is trained, too: a draw for each seed."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"ge": 0, "some": True})
    trial_seeds: int = setting(2, ge=1)
    """Seeds of each trial, whose mean chooses, where validation has fewer than 50 patients of the rarer
    class; elsewhere the first seed alone."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What is put on an encoder, and the settings that validation chooses from: the same for all encoders."""

    use: list[str] = field(default_factory=lambda: ["linear"], metadata={"some": True})
    """Of linear, knn, attentive, few_shot, ridge, cox, retrieval and finetune. A task takes those that suit
    its kind."""
    C: list[float] = field(
        default_factory=lambda: [10 ** (k / 2) for k in range(-10, 9)],
        metadata={"gt": 0, "some": True},
    )
    """linear: inverse strengths of the regularisation."""
    k: list[int] = field(
        default_factory=lambda: [10, 20, 100, 200], metadata={"ge": 1, "some": True}
    )
    """knn: neighbours."""
    alpha: list[float] = field(
        default_factory=lambda: [10 ** (k / 2) for k in range(-6, 13)],
        metadata={"gt": 0, "some": True},
    )
    """ridge and cox: strengths of the regularisation."""
    lr: list[float] = field(
        default_factory=lambda: [1e-4, 3e-4, 1e-3, 3e-3], metadata={"gt": 0, "some": True}
    )
    """attentive: learning rates."""
    weight_decay: list[float] = field(
        default_factory=lambda: [0.01, 0.1], metadata={"ge": 0, "some": True}
    )
    """attentive."""
    attentive_steps: int = setting(2000, ge=1)
    """attentive: steps of each trial, or 20 epochs where these are more."""
    grid: int = setting(7, ge=1, le=32)
    """attentive: tokens are pooled to so many along each side."""
    shots: list[int] = field(
        default_factory=lambda: [1, 2, 4, 8, 16, 32], metadata={"ge": 1, "some": True}
    )
    """few_shot: patients of each class."""
    tries: int = setting(20, ge=1)
    """few_shot: draws of them."""
    finetune: FinetuneHead = field(default_factory=FinetuneHead)
    segment: SegmentHead = field(default_factory=SegmentHead)
    """Of tasks of segmentation; `use` need not name it."""


@dataclass(frozen=True, kw_only=True)
class SmallSets:
    """Folds over all labelled patients of a small data set, besides its own test split, which tells little.

    They are fitted when the test labels are opened, with heads on vectors, all studies and the first views.
    """

    folds: int = setting(5, ge=3)
    """One is tested, one chooses the settings, the others fit."""
    repeats: int = setting(5, ge=0)
    """How often all patients are dealt out anew; 0: no folds."""
    patients: int = setting(500, ge=0)
    """A data set with fewer is small."""
    rarer: int = setting(50, ge=0)
    """So is a task no label of which is to be expected to have so many test patients of its rarer class."""


@dataclass(frozen=True, kw_only=True)
class StatisticsSettings:
    """How intervals come about."""

    resamples: int = setting(2000, ge=10)
    """Of the test patients, the same for all encoders."""
    seed: int = setting(0, ge=0)
    margin: float = setting(0.01, gt=0)
    """Of equivalence, set beforehand."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What is looked at besides."""

    subgroups: list[str] = field(default_factory=list)
    """Attributes whose values are scored apart: sex, age, site, manufacturer, model, views, view."""
    knows: list[str] = field(default_factory=list)
    """Attributes that a linear head is to tell from the features."""
    corruptions: list[
        Literal[
            "noise", "blur", "gamma", "jpeg", "rotation", "crop",
            "bias_field", "slices", "low_resolution",
        ]
    ] = field(default_factory=list)  # fmt: skip
    """Changes of the test images, at three strengths each; those that suit their kind."""
    repeats: str | None = None
    """Name of a data set in which people were scanned several times: how well features agree."""
    leaks: bool = True
    """Look for test patients and test images in the shards that our encoders were pretrained on."""


@dataclass(frozen=True, kw_only=True)
class SuiteConfig(ValidatedConfig):
    """Compare encoders on tasks: fitted and chosen without a test label, then opened, then reported."""

    output: Path
    """Folder of the suite: plan.json, cache, results and report."""
    encoders: dict[str, EncoderEntry]
    """By the name that the page gives them, in its order."""
    datasets: dict[str, DatasetEntry]
    tasks: dict[str, TaskEntry]
    heads: Heads = field(default_factory=Heads)
    label_counts: LabelCounts = field(default_factory=LabelCounts)
    views: list[Views] = field(default_factory=lambda: ["all"], metadata={"some": True})
    """Of studies: which of their views a score is of."""
    contrasts: list[list[str]] = field(default_factory=list)
    """Pairs of encoders, named before the test labels are opened: is the first better than the second?"""
    small: SmallSets = field(default_factory=SmallSets)
    trust: Trust = field(default_factory=Trust)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    title: str = "Benchmark"
    notes: list[str] = field(default_factory=list)
    """Sentences for the page: what is known to differ from a published protocol."""
    batch_size: int = setting(32, ge=1)
    """Samples per forward pass."""
    workers: int = setting(1, ge=1)
    """Replicas of an encoder; tasks of fits are as many as the cluster has CPUs."""
    max_views: int = setting(16, ge=1)
    gpu: Literal["auto"] | bool = "auto"
    dry_run: bool = False
    """Say how many fits, hours and bytes it takes, and stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_each_once(self)
        for section in ("encoders", "datasets", "tasks"):
            if not getattr(self, section):
                raise ValueError(f"{section} names nothing")
            for name in getattr(self, section):
                if not _NAME.fullmatch(name):
                    raise ValueError(
                        f"{section}.{name}: a name has letters, digits, _, - and . alone, since files are "
                        "called after it"
                    )
        for name, encoder in self.encoders.items():
            self._check_encoder(name, encoder)
        for name, task in self.tasks.items():
            self._check_task(name, task)
        for name in self.heads.use:
            _known(f"heads.use names {name!r}", name, HEADS)
        for head, tuned in (("finetune", self.heads.finetune), ("segment", self.heads.segment)):
            for name in tuned.encoders:
                _known(f"heads.{head}.encoders", name, self.encoders)
        for pair in self.contrasts:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ValueError(f"contrasts are pairs of two encoders, got {pair}")
            for name in pair:
                _known("contrasts", name, self.encoders)
        if self.trust.repeats is not None:
            _known("trust.repeats", self.trust.repeats, self.datasets)

    def _check_encoder(self, name: str, encoder: EncoderEntry) -> None:
        if (encoder.kind == "weights") != bool(encoder.sources):
            what = "names no paths" if encoder.kind == "weights" else "takes no paths"
            raise ValueError(f"encoders.{name} of kind {encoder.kind} {what}")
        if encoder.kind in ("random", "scratch"):
            _known(f"encoders.{name}.like", encoder.like or "", self.encoders)
            if self.encoders[encoder.like or ""].kind != "weights":
                raise ValueError(f"encoders.{name}.like must name one of kind weights")

    def _check_task(self, name: str, task: TaskEntry) -> None:
        for dataset in (task.dataset, *task.test):
            _known(f"tasks.{name}", dataset, self.datasets)
        if self.datasets[task.dataset].role == "external":
            raise ValueError(
                f"tasks.{name}.dataset: {task.dataset} is external, so nothing is fitted on it"
            )
        for head in task.heads or ():
            _known(f"tasks.{name}.heads", head, HEADS)
        self._check_segmentation(name, task)
        if task.kind == "number" and len(task.labels) != 1:
            raise ValueError(f"tasks.{name}.labels must name the one number, such as [age]")
        if task.kind == "survival" and len(task.labels) != 2:
            raise ValueError(f"tasks.{name}.labels must name the time, then the event")

    def _check_segmentation(self, name: str, task: TaskEntry) -> None:
        if task.kind != "segmentation":
            if task.regions:
                raise ValueError(f"tasks.{name}.regions is of kind segmentation, not {task.kind}")
            return
        for unused in ("labels", "heads", "views", "leave_out"):
            if getattr(task, unused):
                raise ValueError(
                    f"tasks.{name}.{unused} is not of kind segmentation: what is scored are its regions, by "
                    "the one head that it has (heads.segment)"
                )
        for region, values in task.regions.items():
            if not values or not all(1 <= value <= 255 for value in values):
                raise ValueError(
                    f"tasks.{name}.regions.{region} must hold values of label maps, 1 to 255, got {values}"
                )


def _check_each_once(settings: Any, prefix: str = "") -> None:
    """Raises ValueError where a list names the same thing twice: it would count as two."""
    values = settings.items() if isinstance(settings, dict) else vars(settings).items()
    for name, value in values:
        path = f"{prefix}{name}"
        if isinstance(value, dict) or is_dataclass(value):
            _check_each_once(value, f"{path}.")
        elif isinstance(value, list) and name != "notes":
            twice = [str(one) for i, one in enumerate(value) if one in value[:i]]
            if twice:
                raise ValueError(f"{path} names {twice[0]} twice")


_NAME = re.compile(r"[\w.-]+")


def _known(where: str, name: str, there: Iterable[str]) -> None:
    """Raises ValueError, with the nearest right name, where a name is none of those there are."""
    if name in there:
        return
    close = difflib.get_close_matches(name, list(there), 1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(there)}"
    raise ValueError(f"{where}: there is no {name!r}{hint}")
