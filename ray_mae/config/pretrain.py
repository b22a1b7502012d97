"""Settings of a pretraining run, and of its forecast."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ray_mae.config.base import ValidatedConfig, setting
from ray_mae.config.migrate import FIRST
from ray_mae.config.registry import load
from ray_mae.config.sections import (
    DATA,
    DataConfig,
    EncoderSettings,
    MethodSettings,
    OptimConfig,
)
from ray_mae.config.values import convert_fields, section


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How workers train together."""

    name: Literal["auto", "ddp", "deepspeed"] = "auto"
    """ddp: PyTorch's DistributedDataParallel, all on every worker, the faster of the two; deepspeed: ZeRO,
    which partitions, for networks that do not fit otherwise (see `plan`). auto: deepspeed where zero_stage is
    given, else ddp; a run that goes on keeps its own."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """deepspeed only, what is partitioned over workers: 1 optimiser states (default), 2 gradients too, 3
    parameters too."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where a GPU supports it, else fp32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more work."""
    compile: bool = False
    """torch.compile the networks (GPU; the first steps are slow)."""

    @property
    def chosen(self) -> "EngineConfig":
        """With the engine's own name, and a stage where it has one."""
        if self.name == "ddp" or (self.name == "auto" and self.zero_stage is None):
            return replace(self, name="ddp", zero_stage=None)
        stage = 1 if self.zero_stage is None else self.zero_stage
        return replace(self, name="deepspeed", zero_stage=stage)

    @property
    def described(self) -> str:
        """In words."""
        chosen = self.chosen
        return "DDP" if chosen.name == "ddp" else f"DeepSpeed ZeRO {chosen.zero_stage}"


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Ray workers."""

    workers: int | tuple[int, int] = setting(2, ge=1, rising=True)
    """Training workers (GPUs, where they are used). Fewest and most, [2, 8]: the run starts with what the
    cluster has, and grows and shrinks with it; the batch stays, gradient accumulation adapts."""
    resize_every: float = setting(60.0, ge=0)
    """Seconds between looks at whether the cluster has room for more workers, where they may grow."""
    gpu: Literal["auto"] | bool = "auto"
    """One GPU per worker; auto: if the cluster has any."""
    cpus_per_worker: float = setting(1.0, ge=0)
    """CPUs reserved per training worker; leave some of the cluster's for reading data."""
    threads_per_worker: int | None = setting(None, ge=1)
    """Threads of PyTorch in each worker; default: cpus_per_worker, at least 1."""
    max_failures: int = setting(5, ge=-1)
    """Failures of workers in a row, with no checkpoint between them, that are answered by a restart; -1:
    any number. An error of a program before the first step ends the run at once."""
    storage_patience: float = setting(600.0, ge=0)
    """Seconds that storage of the run or the shards may be away before the run ends."""
    stop_patience: float = setting(300.0, ge=0)
    """Seconds that the command waits for a last checkpoint when a signal ends it (Ctrl-C, SIGTERM, SIGHUP,
    SIGUSR1)."""

    @property
    def least(self) -> int:
        """Workers that the run needs to go on."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """Workers that the run takes where the cluster has them."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def threads(self) -> int:
        """Of PyTorch in each worker."""
        return self.threads_per_worker or max(1, int(self.cpus_per_worker))

    @property
    def described(self) -> str:
        """ "8" or "2 to 8"."""
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints."""

    every: int = setting(500, ge=1)
    """Steps between checkpoints; the last step always leaves one."""
    keep: int | None = setting(2, ge=1)
    """Latest checkpoints kept; null keeps all."""
    upload: Literal["async", "wait"] = "async"
    """A checkpoint is written to the temporary folder of its node and then copied to the run's: while
    training goes on, or waiting for it."""
    keep_best: bool = False
    """Keep the weights of the checkpoint with the best online probe, too, in the run's folder `best`."""


@dataclass(frozen=True, kw_only=True)
class OnlineProbeConfig:
    """A probe of checkpoints while the run goes on: validation patients, off the training workers."""

    every: int = setting(0, ge=0)
    """Checkpoints from one probe to the next, the last one included; 0 probes none."""
    train_samples: int = setting(2000, ge=10)
    """Training studies or volumes that it is fitted to, at most, drawn by seed."""
    val_samples: int = setting(2000, ge=10)
    """Validation studies or volumes that it is scored on, at most, drawn by seed."""
    labels: list[str] | None = field(default=None, metadata={"some": True})
    """Names of the labels whose mean AUROC it gives, and by which a search chooses; default: all that have
    samples enough. Of studies also names in other_labels."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What an uncertain label of a study counts as."""
    unmentioned: Literal["zeros", "ignore"] = "zeros"
    """What a label counts as that is not mentioned in a study; as of `evaluate probe`."""
    head: Literal["linear", "knn", "attentive"] = "linear"
    """What reads the labels: a logistic regression or nearest neighbours on one vector of a sample, or
    attention over the tokens of its views, which is trained and takes minutes where the others take seconds.
    On linear heads masked autoencoders look worst."""
    min_positive: int = setting(5, ge=1)
    """Labels with fewer patients of a class in either, positive or negative, are left out; of `labels` none
    may be."""
    bootstrap: int = setting(200, ge=10)
    """Patient resamples behind the 95 % interval."""
    label_counts: list[int] = field(default_factory=list, metadata={"ge": 2})
    """Also probe with only so many labelled training samples, each: patients are drawn until there are so
    many."""
    draws: int = setting(5, ge=1)
    """Draws of the labelled patients behind each of label_counts; of three or more the intervals cover the
    draw as well."""
    batch_size: int = setting(32, ge=1)
    """Studies or volumes per forward pass."""
    cpus: int = setting(1, ge=1)
    """CPUs of the task that probes; the cluster needs them beside the training workers'."""
    seed: int = setting(0, ge=0)
    """Seed of the samples and the resamples."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """What is written down while training."""

    trackers: list[Literal["mlflow", "wandb"]] = field(default_factory=list)
    """Also show the metrics there (the extras mlflow and wandb bring them), as their environment
    variables say; a run that continues is the same run there."""
    every: int = setting(20, ge=1)
    """Steps between lines of metrics."""
    pictures_every: int = setting(500, ge=1)
    """Steps between pictures and generated reports in TensorBoard, and between losses of validation
    patients."""
    pictures: int = setting(4, ge=0, le=64)
    """Studies in a picture."""
    held_out: int = setting(64, ge=0, le=4096)
    """Samples of validation patients whose losses are told, always the same and masked alike; 0: none."""
    peak_tflops: float | None = setting(None, gt=0)
    """Peak of one worker's device in TFLOP/s, over which utilisation is shown; default: that of the GPU,
    where it is known."""


def as_list(paths: list[Path] | Path) -> list[Path]:
    """Returns one path or several as a list."""
    return list(paths) if isinstance(paths, list) else [paths]


def choose_section(name: str, values: str | Mapping[str, Any], default: Any) -> Any:
    """Returns a section whose settings are chosen by name: from the name alone, or from settings by name.

    Args:
        name: of the section, method or encoder.
        values: what is given of it.
        default: what counts where nothing is given, of its own name; None: the defaults of that name.
    """
    values = {"name": values} if isinstance(values, str) else values
    if default is None or values.get("name", default.name) != default.name:
        # by its name, since methods know settings and not the other way round
        default = load(_REGISTRIES[name])[values.get("name", FIRST)]()
    return _changed(name, values, default)


def _changed(name: str, values: Mapping[str, Any], default: Any) -> Any:
    """A section with some settings in the place of its defaults."""
    given = section(type(default), values, name)
    return replace(default, **{key: getattr(given, key) for key in values})


def default_encoder(method: MethodSettings, weights: Any, output: Any) -> EncoderSettings:
    """Returns the encoder of a run that does not say which: that of its weights, or else the method's.

    Args:
        method: that trains it.
        weights: path of those that the run begins with, or None.
        output: path of the run, or None: where it was begun, its own encoder counts.

    Raises:
        ValueError: weights of others that cannot be read, or hold what no encoder here has.
    """
    own = method.default_encoder()
    if not weights:
        return own
    # by its name, since checkpoints know settings and not the other way round
    of_weights: EncoderSettings | None = load("ray_mae.checkpoint.begin:encoder_of")(
        Path(str(weights)), Path(str(output)) if output else None, own
    )
    return of_weights or own


_REGISTRIES = {
    "method": "ray_mae.methods.registry:METHODS",
    "encoder": "ray_mae.encoders.registry:ENCODERS",
}
_BY_METHOD: Any = None
"""Default of a section that follows from the method."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a pretraining, whatever its method, its encoder and its data.

    Sections that are not given follow from the method; from Python the name of a method or encoder does,
    and dictionaries of settings. The command line and YAML files know the chosen
    method's and encoder's own settings: see `ray_mae.methods.registry.config_class`.
    """

    COMPLETES: ClassVar[tuple[str, ...]] = ("method", "encoder", "data", "optim")
    """Sections that are made of plain values here, since one follows from another."""

    method: MethodSettings
    """The method."""
    encoder: EncoderSettings = _BY_METHOD
    """The encoder; default: the method's, or that of `weights`."""
    data: DataConfig = _BY_METHOD
    """Samples."""
    optim: OptimConfig = _BY_METHOD
    """Optimiser, batch and length; default: the method's."""
    seed: int = setting(0, ge=0)
    """Seed of weights, order of the data, masks and augmentation."""
    weights: Path | None = None
    """What a new run begins with, by a fresh optimiser: a run or a checkpoint, an exported encoder, or
    weights of others (docs/weights.md). The encoder takes their shape; where it is given another size of
    image or patch, they are resampled. Of decoders what fits is taken, and the tokenizer."""
    mismatch: Literal["refuse", "tell"] = "refuse"
    """What becomes of shards that are stored otherwise than those behind `weights` where nobody can mean it
    (spacing, orientation, grey values, small images): they are refused, or the difference is told."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """DDP or DeepSpeed."""
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    """Workers."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Metrics and pictures."""
    probe: OnlineProbeConfig = field(default_factory=OnlineProbeConfig)
    """Online probe."""

    def __post_init__(self) -> None:
        complete: dict[str, Callable[[Any], Any]] = {
            "method": lambda values: choose_section("method", values, None),
            "encoder": lambda values: choose_section("encoder", values, self._default_encoder()),
            "data": lambda values: section(DATA[self.kind], values, "data"),
            "optim": lambda values: _changed(
                "optim", values, self.method.default_optim(self.encoder)
            ),
        }
        for name, make in complete.items():
            value = getattr(self, name)
            if value is None or isinstance(value, (str, Mapping)):
                object.__setattr__(self, name, make(value or {}))
            convert_fields(self, only=name)
        convert_fields(self)

    @property
    def kind(self) -> str:
        """What a sample is: study or volume, as the encoder has it."""
        return self.encoder.kind

    @property
    def logical_cpus(self) -> int:
        """CPUs that the run may hold at one time: training workers, a reader of data, a probe."""
        scaling = self.scaling
        return math.ceil(scaling.most * scaling.cpus_per_worker) + 1 + self.probe.cpus

    @property
    def label_uses(self) -> tuple[str, ...]:
        """What labels of training samples are read for, in words; empty where no label is read."""
        return (*self.method.label_uses, *self.data.label_uses)

    def _default_encoder(self) -> EncoderSettings:
        """That of the weights that the run begins with, or else the method's."""
        return default_encoder(self.method, self.weights, getattr(self, "output", None))

    def check_sizes(self) -> None:
        """Raises ValueError, naming settings, where method, encoder and data do not fit together."""
        self.encoder.check()
        self.method.check(self.encoder, self.data)
        if self.engine.name == "ddp" and self.engine.zero_stage:
            raise ValueError(
                f"engine.zero_stage {self.engine.zero_stage} is DeepSpeed's: leave it out, or engine.name ddp"
            )
        if self.optim.final_weight_decay is not None and not self.optim.weight_decay:
            raise ValueError(
                "optim.final_weight_decay wants an optim.weight_decay of more than 0 to begin with"
            )
        layers = self.encoder.layers
        if layers is not None and self.optim.freeze > layers:
            raise ValueError(
                f"optim.freeze ({self.optim.freeze}) must be at most {layers}, the blocks or stages of the "
                "encoder"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig, ValidatedConfig):
    """Pretrain an encoder from shards, on Ray Train; in several stages with `stages:` (docs/stages.md)."""

    shards: list[Path] | Path
    """Folder that `ingest` wrote, or several of one kind: [A, B]."""
    shares: list[float] | None = field(default=None, metadata={"gt": 0})
    """Of several folders: the share of the samples drawn from each, in any unit. Default: by their size."""
    output: Path
    """Folder of the run: checkpoints, metrics, summary.json. Started again, it continues. It holds
    pictures and reports of patients: to pass on the encoder alone, `publish` it."""

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        ValidatedConfig.__post_init__(self)
        if self.checkpoint.keep_best and not self.probe.every:
            raise ValueError("checkpoint.keep_best wants the online probe: set probe.every to 1")

    @property
    def folders(self) -> list[Path]:
        """Of shards."""
        return as_list(self.shards)


@dataclass(frozen=True, kw_only=True)
class PlanConfig(RunConfig, ValidatedConfig):
    """Before a run: batch, steps, memory per GPU under ZeRO, storage, hours. Nothing is trained."""

    shards: list[Path] | Path | None = None
    """Folder that `ingest` wrote, or several: [A, B]; or say how many samples there will be."""
    shares: list[float] | None = field(default=None, metadata={"gt": 0})
    """Of several folders: the share of the samples drawn from each, in any unit. Default: by their size."""
    samples: int | None = setting(None, ge=1)
    """Training studies or volumes, where there are no shards yet."""
    views_per_sample: float = setting(1.6, ge=1)
    """Views of a study where there are no shards yet; MIMIC-CXR has 1.7, PadChest 1.5."""
    bytes_per_view: float | None = setting(None, gt=0)
    """Stored size of a view, or of a volume, where there are no shards yet; default: 39 kB and 5 MB. Views of
    12 and 16 bits take 70 and 120 kB."""
    gpu: str | None = None
    """Name of the GPU, such as H100, "A100 40GB" or "RTX 4090"."""
    gpus: int | None = setting(None, ge=1)
    """How many; default: scaling.workers."""
    peak_tflops: float | None = setting(None, gt=0)
    """Of a GPU that has no name here, or instead of the named one's: dense peak in the run's precision."""
    gpu_memory: float | None = setting(None, gt=0)
    """The same: its memory in GiB."""
    mfu: float | None = setting(None, gt=0, le=1)
    """Share of the peak that a run uses; default: 0.3 for studies, 0.15 for volumes, which is a guess."""
    gpus_per_node: int = setting(8, ge=1)
    """Of the nodes that a run on more GPUs would have."""
    node_gbps: float = setting(200.0, gt=0)
    """Gbit/s between nodes: 25 to 100 of usual cloud nodes, 400 to 3200 of those made for training."""
    price_per_gpu_hour: float | None = setting(None, ge=0)
    """In any currency: what the run costs is shown in the same."""
    output: Path | None = None
    """Folder for summary.json; default: none is written."""

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        ValidatedConfig.__post_init__(self)
        if self.shards is None and self.samples is None:
            raise ValueError("how much data? Give --shards, or --samples where there are none yet")
