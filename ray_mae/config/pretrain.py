"""Settings of a pretraining run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray_mae.config.base import Checked, from_dict, setting
from ray_mae.methods.mdae.settings import MdaeConfig
from ray_mae.methods.mvmae.settings import MvmaeConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read from the shards and how a sample is drawn."""

    max_views: int = setting(3, ge=1, le=16)
    """Views per study at most; a larger study gives a random choice each epoch."""
    text: Literal["impression", "findings", "both"] = "impression"
    """Report section to caption; impression falls back to findings where it is missing."""
    max_tokens: int = setting(128, ge=4, le=4096)
    """Length of a report in tokens, first and last token included; longer ones are cut."""
    tokenizer: Path | None = None
    """A tokenizers JSON file. Default: WordPiece trained on the training split's reports."""
    vocabulary: int = setting(8192, ge=64)
    """Size of the vocabulary trained, at most."""
    crop_scale: tuple[float, float] = setting((0.5, 1.0), gt=0, le=1, rising=True)
    """Area of the random square crop over the largest square, smallest and largest."""
    brightness: float = setting(0.4, ge=0, lt=1)
    """Random brightness factor within 1 ± this."""
    contrast: float = setting(0.4, ge=0, lt=1)
    """Random contrast factor within 1 ± this."""
    jitter_share: float = setting(0.8, ge=0, le=1)
    """Share of the views whose brightness and contrast are changed."""
    flip: bool = False
    """Mirror half of the views. Off: left and right carry meaning in medicine."""
    shuffle_window: int = setting(2048, ge=1)
    """Studies read together and shuffled among themselves; shards are shuffled as well."""
    corrupt: Literal["stop", "skip"] = "stop"
    """Rows of a damaged shard: end the run, or draw other samples in their place and count them."""


@dataclass(frozen=True, kw_only=True)
class VolumeDataConfig:
    """What is read from shards of volumes."""

    shuffle_window: int = setting(32, ge=1)
    """Volumes read together and shuffled among themselves, kept in memory; shards are shuffled as
    well."""
    corrupt: Literal["stop", "skip"] = "stop"
    """Rows of a damaged shard: end the run, or draw other samples in their place and count them."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Linear warm-up and decay, by optimiser steps."""

    batch_size: int = setting(1024, ge=1)
    """Samples (studies or volumes) per optimiser step over all workers."""
    micro_batch_size: int = setting(64, ge=1)
    """Samples per worker and forward pass; the rest is gradient accumulation."""
    epochs: float = setting(500.0, gt=0)
    """Passes over the training samples, unless `steps` is given."""
    steps: int | None = setting(None, ge=1)
    """Optimiser steps, instead of `epochs`."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd: with Nesterov momentum, as nnU-Net trains its networks."""
    base_lr: float = setting(1.5e-4, gt=0)
    """Learning rate per 256 samples of batch_size; the absolute rate is printed at the start."""
    lr: float | None = setting(None, gt=0)
    """Absolute learning rate, instead of `base_lr`."""
    min_lr: float = setting(0.0, ge=0)
    """Absolute learning rate at the last step."""
    decay: Literal["cosine", "poly"] = "cosine"
    """Fall of the learning rate after warm-up: half a cosine, or (1 - share)^0.9 (nnU-Net)."""
    warmup: float = setting(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    betas: tuple[float, float] = setting((0.9, 0.95), ge=0, lt=1)
    """AdamW moments."""
    momentum: float = setting(0.99, gt=0, lt=1)
    """sgd only: Nesterov momentum."""
    weight_decay: float = setting(0.05, ge=0)
    """Decay of weights; norms, biases, embeddings and positions are exempt."""
    clip: float = setting(1.0, ge=0)
    """Largest gradient norm; 0 switches clipping off."""
    max_skipped: int = setting(5, ge=1)
    """A step whose loss or gradient is not finite is skipped by all workers and its samples are written
    down; the run ends after so many in a row."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """DeepSpeed."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """What is partitioned over workers: 1 optimiser states, 2 gradients too, 3 parameters too."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where a GPU supports it, else fp32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more work."""
    compile: bool = False
    """torch.compile the networks (GPU; the first steps are slow)."""


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

    @property
    def least(self) -> int:
        """Workers that the run needs to go on."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """Workers that the run takes where the cluster has them."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def in_words(self) -> str:
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
    min_positive: int = setting(5, ge=1)
    """Labels with fewer positive or negative samples in either are left out."""
    bootstrap: int = setting(200, ge=10)
    """Patient resamples behind the 95 % interval."""
    label_counts: list[int] = field(default_factory=list, metadata={"ge": 2})
    """Also probe with only so many labelled training samples, each."""
    draws: int = setting(5, ge=1)
    """Draws of the labelled samples behind each of label_counts."""
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
    """Also show the figures there (the extras mlflow and wandb bring them), as their environment
    variables say; a run that continues is the same run there."""
    every: int = setting(20, ge=1)
    """Steps between lines of figures."""
    pictures_every: int = setting(500, ge=1)
    """Steps between pictures and generated reports in TensorBoard."""
    pictures: int = setting(4, ge=0, le=64)
    """Studies in a picture."""
    peak_tflops: float | None = setting(None, gt=0)
    """Peak of one worker's device in TFLOP/s, over which utilisation is shown; default: that of the GPU,
    where it is known."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every pretraining has in common, whatever its method and its data."""

    seed: int = setting(0, ge=0)
    """Seed of weights, order of the data, masks and augmentation."""
    weights: Path | None = None
    """A run or a checkpoint whose weights a new run begins with, by a fresh optimiser: for another ZeRO
    stage, other data, or a second stage of training. Its encoder must be the same; of decoders what fits
    is taken, and its tokenizer."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser, batch and length."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """DeepSpeed."""
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    """Workers."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Figures and pictures."""
    probe: OnlineProbeConfig = field(default_factory=OnlineProbeConfig)
    """Online probe."""


@dataclass(frozen=True, kw_only=True)
class MvmaeRun(RunSettings):
    """Settings of a pretraining by MVMAE."""

    method: MvmaeConfig = field(default_factory=MvmaeConfig)
    """The method and its network."""
    data: DataConfig = field(default_factory=DataConfig)
    """Samples."""


@dataclass(frozen=True, kw_only=True)
class MdaeRun(RunSettings):
    """Settings of a pretraining by MDAE."""

    method: MdaeConfig = field(default_factory=MdaeConfig)
    """The method and its network."""
    data: VolumeDataConfig = field(default_factory=VolumeDataConfig)
    """Samples."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            optimizer="sgd",
            lr=0.01,
            decay="poly",
            weight_decay=3e-5,
            clip=12.0,
            warmup=0.0,
            batch_size=32,
            micro_batch_size=2,
            steps=250_000,
        )
    )
    """Optimiser, batch and length: by default nnssl's."""


AnyRun = MvmaeRun | MdaeRun


@dataclass(frozen=True, kw_only=True)
class _Placed(Checked):
    shards: Path
    """Folder that `ingest` wrote."""
    output: Path
    """Folder of the run: checkpoints, figures, summary.json. Started again, it continues."""

    def __post_init__(self) -> None:
        super().__post_init__()
        run: Any = self
        if run.checkpoint.keep_best and not run.probe.every:
            raise ValueError("checkpoint.keep_best wants the online probe: set probe.every to 1")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(MvmaeRun, _Placed):
    """Pretrain an encoder from shards, on Ray Train and DeepSpeed: MVMAE of studies."""


@dataclass(frozen=True, kw_only=True)
class PretrainMdaeConfig(MdaeRun, _Placed):
    """Pretrain an encoder from shards, on Ray Train and DeepSpeed: MDAE of volumes."""


AnyPretrainConfig = PretrainConfig | PretrainMdaeConfig
PRETRAIN: dict[str, type[PretrainConfig] | type[PretrainMdaeConfig]] = {
    "mvmae": PretrainConfig,
    "mdae": PretrainMdaeConfig,
}
"""The settings of `pretrain` by `method.name`."""


def pretrain_config(values: dict[str, Any]) -> AnyPretrainConfig:
    """The settings of a run from what `to_dict` wrote of them."""
    return from_dict(PRETRAIN[values["method"].get("name", "mvmae")], values)


@dataclass(frozen=True, kw_only=True)
class _Planned(Checked):
    shards: Path | None = None
    """Folder that `ingest` wrote; or say how many samples there will be."""
    samples: int | None = setting(None, ge=1)
    """Training studies or volumes, where there are no shards yet."""
    views_per_sample: float = setting(1.6, ge=1)
    """Views of a study where there are no shards yet; MIMIC-CXR has 1.7, PadChest 1.5."""
    bytes_per_view: float | None = setting(None, gt=0)
    """Stored size of a view, or of a volume, where there are no shards yet; default: 35 kB and 5 MB."""
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
    price_per_gpu_hour: float | None = setting(None, ge=0)
    """In any currency: what the run costs is shown in the same."""
    output: Path | None = None
    """Folder for summary.json; default: none is written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shards is None and self.samples is None:
            raise ValueError("how much data? Give --shards, or --samples where there are none yet")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(MvmaeRun, _Planned):
    """Before a run: batch, steps, memory per GPU under ZeRO, storage, hours. Nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class PlanMdaeConfig(MdaeRun, _Planned):
    """Before a run of MDAE: batch, steps, memory per GPU under ZeRO, storage, hours."""


AnyPlanConfig = PlanConfig | PlanMdaeConfig
PLAN: dict[str, type[PlanConfig] | type[PlanMdaeConfig]] = {
    "mvmae": PlanConfig,
    "mdae": PlanMdaeConfig,
}
"""The settings of `plan` by `method.name`: those of `pretrain`, and more."""
