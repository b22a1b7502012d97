"""Settings of what an encoder is used for once it is pretrained."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ray_mae.config.base import REPEATED, ValidatedConfig, setting
from ray_mae.config.ingest import TableColumns


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ValidatedConfig):
    """Run a frozen encoder over shards and write one embedding per study to Parquet."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint), one checkpoint, or an exported encoder."""
    shards: Path
    """Folder that `ingest` wrote."""
    mismatch: Literal["refuse", "tell"] = "refuse"
    """What becomes of shards that are stored otherwise than those of the pretraining where nobody can mean
    it (spacing, orientation, grey values, small images): they are refused, or the difference is told. New
    contrasts and views are always told."""
    output: Path
    """Folder for embeddings.parquet and summary.json."""
    splits: list[Literal["train", "val", "test"]] = field(
        default_factory=lambda: ["train", "val", "test"]
    )
    """Splits to embed."""
    pool: Literal["cls", "mean"] | None = None
    """A view's vector: the CLS token, or the mean over the patch tokens. Default: mean; of an encoder of
    others what its makers take."""
    crop_size: int | None = setting(None, ge=16, le=1024)
    """Volumes: side of the crops that are seen, in voxels, a multiple of the network's stride;
    default: that of the pretraining. Larger sees more of the volume."""
    sees: Literal["middle", "windows"] = "middle"
    """Volumes: one crop in the middle of each, or as many as cover it, evenly spaced, but for those with
    hardly any foreground; their features are averaged, each by its share of the foreground."""
    max_views: int = setting(16, ge=1)
    """Views per study at most; of a larger study a fixed choice is taken."""
    batch_size: int = setting(64, ge=1)
    """Studies per forward pass."""
    workers: int = setting(1, ge=1)
    """Encoder replicas."""
    gpu: Literal["auto"] | bool = "auto"
    """One GPU per replica; auto: if the cluster has any."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How frozen features are probed."""

    pool: Literal["cls", "mean"] | None = None
    """A view's vector: the CLS token, or the mean over the patch tokens. Default: mean; of an encoder of
    others what its makers take."""
    crop_size: int | None = setting(None, ge=16, le=1024)
    """Volumes: side of the crops that are seen, in voxels, a multiple of the network's stride;
    default: that of the pretraining. Larger sees more of the volume."""
    sees: Literal["middle", "windows"] = "middle"
    """Volumes: one crop in the middle of each, or as many as cover it, evenly spaced, but for those with
    hardly any foreground; their features are averaged, each by its share of the foreground."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What an uncertain label counts as."""
    unmentioned: Literal["zeros", "ignore"] = "zeros"
    """What a label counts as that is not mentioned in a study (an empty cell): negative, as CheXpert has
    it, or it is ignored. A study that was never labelled for a finding is left out of it in any case."""
    labels: list[str] | None = field(default=None, metadata={"some": True})
    """Names of the labels that take part, of studies also names in other_labels; default: all."""
    strengths: list[float] = field(
        default_factory=lambda: [10 ** (k / 2) for k in range(-8, 3)],
        metadata={"gt": 0, "some": True},
    )
    """Inverse regularisation strengths C to choose from, on validation patients. Where the best of several
    is at an end of them, two more beyond it are tried; a choice at an end of these is told."""
    bootstrap: int = setting(1000, ge=10)
    """Patient resamples behind each 95 % interval."""
    min_positive: int = setting(5, ge=1)
    """Labels with fewer patients of a class in a split, positive or negative, are left out, and named: of
    the whole split, whatever train_studies says, so that all points of a curve are of the same labels."""
    train_studies: int | None = setting(None, ge=2)
    """Use only this many training studies (label efficiency): patients are drawn until there are so many;
    default all. With one seed fewer lie within more."""
    draws: int = setting(3, ge=1)
    """Draws of the patients behind train_studies. The numbers are the mean over them; of three or more the
    intervals cover the draw as well."""
    validation: Literal["full", "spent"] = "full"
    """What chooses C beside train_studies. full: the whole validation split, as papers do, which is labelled,
    too. spent: one of five drawn patients; the other four fit, and the validation split is not looked at."""
    cross_validate: int | None = setting(None, ge=2, le=100)
    """Choose C by so many folds of the training and validation patients together, and fit on all of them:
    for a small archive, whose validation split alone has too few patients of many labels. Test patients are
    as untouched as without."""
    pca: int = setting(128, ge=1)
    """Components of the raw-pixel baseline."""
    seed: int = setting(0, ge=0)
    """Seed of the random encoder, the bootstrap and the choice of training studies."""
    batch_size: int = setting(64, ge=1)
    """Studies per forward pass."""
    workers: int = setting(1, ge=1)
    """Encoder replicas."""
    gpu: Literal["auto"] | bool = "auto"
    """One GPU per replica; auto: if the cluster has any."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(ProbeSettings, ValidatedConfig):
    """Logistic regression on frozen features, beside a random encoder and raw pixels."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint), one checkpoint, or an exported encoder."""
    shards: Path
    """Folder that `ingest` wrote."""
    mismatch: Literal["refuse", "tell"] = "refuse"
    """What becomes of shards that are stored otherwise than those of the pretraining where nobody can mean
    it (spacing, orientation, grey values, small images): they are refused, or the difference is told. New
    contrasts and views are always told."""
    output: Path
    """Folder for probe.json, probe.csv, report.html and summary.json."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation == "spent" and (self.train_studies is None or self.cross_validate):
            raise ValueError(
                "validation spent is for train_studies without cross_validate: give train_studies, or leave "
                "it at full"
            )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ValidatedConfig):
    """What a fine-tuned classifier says of new files: probabilities per label, view and study."""

    checkpoint: Path
    """models/START-seedN in the output folder of `evaluate finetune`."""
    source: Path
    """A folder of DICOM, image or NIfTI files, one such file, a table that lists them as for `ingest`, or a
    folder of shards."""
    output: Path
    """Folder for predictions.parquet, predictions.csv, quarantine.parquet and summary.json. They name files,
    and with these perhaps patients."""
    format: Literal["auto", "dicom", "images", "nifti", "table", "shards"] = "auto"
    """How the source is read. dicom: files are grouped into studies, or of volumes into series; images: each
    PNG, JPEG or DICOM file is a study of its own; nifti: each file is a volume. auto looks at the names."""
    columns: TableColumns = field(default_factory=TableColumns)
    """Names of a table's columns: study, patient, path and view are read."""
    splits: list[Literal["train", "val", "test"]] = field(
        default_factory=lambda: ["train", "val", "test"]
    )
    """Of shards: splits to predict."""
    mismatch: Literal["refuse", "tell"] = "refuse"
    """What becomes of shards that are stored otherwise than those of the training; as of `evaluate`."""
    image_size: int | None = setting(None, ge=16, le=4096)
    """Short side to which an image is shrunk, in pixels. By default that of the training's shards, which the
    classifier knows; one of an earlier version does not, and takes 256."""
    burned_in: Literal["quarantine", "keep"] = "keep"
    """What becomes of DICOM images whose header says of burned-in text anything but NO. None is stored."""
    secondary_captures: Literal["quarantine", "keep"] = "quarantine"
    """What becomes of scanned forms, drawings and screenshots among DICOM images; as of `ingest`."""
    for_processing: Literal["alone", "quarantine", "keep"] = "alone"
    """What becomes of a detector's raw values among DICOM images; as of `ingest`."""
    max_views: int = setting(16, ge=1)
    """Studies with more images than this are kept aside."""
    batch_size: int = setting(16, ge=1)
    """Studies or volumes per forward pass."""
    workers: int = setting(1, ge=1)
    """Replicas of the classifier."""
    gpu: Literal["auto"] | bool = "auto"
    """One GPU per replica; auto: if the cluster has any."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ValidatedConfig):
    """Write the encoder of a checkpoint as files that other libraries load; `publish` adds card and proof."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint) or one checkpoint."""
    output: Path
    """Folder for the exported files."""
    format: Literal["timm", "nnunet", "monai"] | None = None
    """Default: for timm and transformers, or of volumes for nnU-Net and MONAI, as `publish` does. timm,
    nnunet and monai: the files of version 0.1, for programs that read these."""


@dataclass(frozen=True, kw_only=True)
class PublishConfig(ValidatedConfig):
    """One folder with the encoder of a checkpoint that timm, transformers, nnU-Net, MONAI, PyTorch and ONNX
    open, with a model card; each tool's features are compared with ours."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint), one checkpoint, or an exported encoder."""
    output: Path
    """Folder to publish: new, empty, or an earlier publication, which it replaces."""
    name: str | None = None
    """Of the encoder; default: that of the output folder. It is published."""
    pool: Literal["mean", "cls"] = "mean"
    """Images: what the published model gives, the mean over the patch tokens or the class token."""
    view: Literal["frontal", "lateral", "unknown"] = "frontal"
    """Images: the view that the model is for; views.safetensors has the others."""
    license: str = "unknown"
    """Of the weights, by its SPDX name, such as apache-2.0. The data may forbid some: nothing is assumed."""
    license_file: Path | None = None
    """Text for LICENSE; default: that of apache-2.0, or a line with the name."""
    authors: list[str] = field(default_factory=list, metadata=REPEATED)
    """Who made the encoder, for CITATION.cff: `--authors NAME`, as often as needed. They are published."""
    figures: list[Path] = field(default_factory=list, metadata=REPEATED)
    """Outputs of `evaluate probe|finetune|segment`, whose results stand in the card: `--figures FOLDER`, as
    often as needed."""
    cards: list[Path] = field(default_factory=list, metadata=REPEATED)
    """Outputs of `inspect` on the data trained on, of which counts are published, no names: `--cards FOLDER`,
    as often as needed. Default: what lies in the shards' folders."""


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(ValidatedConfig):
    """What fine-tuning and segmentation have in common."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint), one checkpoint, or an exported encoder."""
    shards: Path
    """Folder that `ingest` wrote."""
    mismatch: Literal["refuse", "tell"] = "refuse"
    """What becomes of shards that are stored otherwise than those of the pretraining where nobody can mean
    it (spacing, orientation, grey values, small images): they are refused, or the difference is told. New
    contrasts and views are always told."""
    output: Path
    """Folder for the numbers, report.html, summary.json and the weights kept."""
    compare: list[Literal["trained", "random"]] = field(
        default_factory=lambda: ["trained", "random"]
    )
    """Where the weights start: at the checkpoint's, or fresh, under the same budget."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"ge": 0})
    """One run per seed and start. A seed decides fresh weights, order, augmentation and dropout."""
    crop_size: int | None = setting(None, ge=16, le=512)
    """Volumes only: side of the crops, in voxels, a multiple of the network's stride. Default: as
    in pretraining."""
    film_at_finetune: Literal["zero", "drop"] = "zero"
    """Volumes only: keep FiLM and tell it noise level 0, or fold it at level 0 into the norms."""
    accumulate: int = setting(1, ge=1)
    """Batches whose gradients are added up for one optimiser step."""
    warmup: float = setting(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    decay: Literal["cosine", "poly"] = "cosine"
    """Fall of the learning rate after warm-up: half a cosine, or (1 - share)^0.9 (nnU-Net)."""
    clip: float = setting(1.0, ge=0)
    """Largest gradient norm; 0 switches clipping off."""
    augment: bool = True
    """Crop and change images, turn and mirror volumes at random, as in pretraining."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the network's operations; auto: bf16 where a GPU supports it, else fp32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more work."""
    bootstrap: int = setting(1000, ge=10)
    """Patient resamples behind each 95 % interval."""
    cpus_per_run: int = setting(1, ge=1)
    """CPUs reserved for each run and threads of its PyTorch. As many runs go on at a time as the
    cluster has room for."""
    gpu: Literal["auto"] | bool = "auto"
    """One GPU per run; auto: if the cluster has any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("compare", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must hold one or more values, each once, got {values}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(SupervisedConfig):
    """Train the encoder and a linear head on labels, beside the same network from scratch."""

    pool: Literal["cls", "mean"] | None = None
    """Studies only: a view's vector is the CLS token, or the mean over the patch tokens. Default: mean; of an
    encoder of others what its makers take."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What an uncertain label of a study counts as."""
    unmentioned: Literal["zeros", "ignore"] = "zeros"
    """What a label counts as that is not mentioned in a study (an empty cell): negative, as CheXpert has
    it, or it is ignored. A study that was never labelled for a finding is left out of it in any case."""
    labels: list[str] | None = field(default=None, metadata={"some": True})
    """Names of the labels that take part, of studies also names in other_labels; default: all."""
    min_positive: int = setting(5, ge=1)
    """Labels with fewer patients of a class in a split, positive or negative, are left out, and named."""
    epochs: float = setting(50.0, gt=0)
    """Passes over the labelled training samples, unless `steps` is given."""
    steps: int | None = setting(None, ge=1)
    """Optimiser steps, instead of `epochs`. Validated after each pass and at the end."""
    batch_size: int = setting(16, ge=1)
    """Studies or volumes per forward pass."""
    lr: float = setting(1e-4, gt=0)
    """Largest learning rate of AdamW."""
    weight_decay: float = setting(0.01, ge=0)
    """Decay of weights; norms, biases and positions are exempt."""
    layer_decay: float = setting(1.0, gt=0, le=1)
    """Learning rate of each block or stage over that of the next one; 1 is the same for all."""
    freeze: bool = False
    """Train the head alone."""
    dropout: float = setting(0.2, ge=0, lt=1)
    """Share of the features that the head does not see while it learns."""
    label_smoothing: float = setting(0.0, ge=0, lt=1)
    """Targets are drawn to 0.5 by this share. MDAE's authors take 0.2; probabilities suffer."""
    max_views: int = setting(3, ge=1, le=16)
    """Views per training study at most; for validation and test all are taken, up to 16."""
    shuffle_window: int = setting(64, ge=1)
    """Samples read together and shuffled among themselves, kept in memory; shards are shuffled as
    well."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(SupervisedConfig):
    """Train the encoder with a decoder on label maps, beside the same network from scratch."""

    init: Literal["encoder", "all"] = "encoder"
    """What the trained start takes from the checkpoint: the encoder, or the decoder as well (all
    but its last layer)."""
    steps: int = setting(25_000, ge=1)
    """Optimiser steps."""
    validate_every: int = setting(250, ge=1)
    """Steps between validations, whose best weights are kept; the last step has one, too."""
    batch_size: int = setting(2, ge=1)
    """Crops per forward pass."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd: with Nesterov momentum 0.99; nnU-Net takes it with lr 0.01 and decay poly."""
    lr: float = setting(3e-4, gt=0)
    """Largest learning rate."""
    weight_decay: float = setting(3e-5, ge=0)
    """Decay of weights; norms and biases are exempt."""
    foreground_share: float = setting(0.33, ge=0, le=1)
    """Share of the crops around a voxel of a random class; the others lie anywhere."""
    overlap: float = setting(0.5, ge=0, lt=1)
    """Overlap of neighbouring windows when a whole volume is segmented."""
    tolerance_mm: float = setting(1.0, ge=0)
    """Surfaces no further apart than this count as equal in the surface Dice (NSD)."""
    pictures: int = setting(4, ge=0, le=64)
    """Test volumes whose outlines are drawn."""
    shuffle_window: int = setting(32, ge=1)
    """Volumes read together and shuffled among themselves, kept in memory; shards are shuffled as
    well."""
