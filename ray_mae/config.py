"""Every setting of every command: typed, documented, bounded, in one place.

The classes are the schema of the YAML files in `jobs/`, of the command line and of the Python
API alike. A setting is known everywhere by its dotted name, such as `method.mask_ratio`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray_mae.settings import check, from_dict, setting


class _Checked:
    """A command's settings: their bounds are checked when they are made."""

    def __post_init__(self) -> None:
        check(self)


# ---------------------------------------------------------------------------------------- ingest


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Names of the columns of a table archive."""

    study: str = "study"
    """Column with the study identifier."""
    patient: str = "patient"
    """Column with the patient identifier; splits are by patient."""
    path: str = "path"
    """Column with the image path, relative to the table's folder or absolute."""
    view: str = "view"
    """Column with the view: frontal, lateral, PA, AP, LL …; anything else is unknown."""
    text: str = "text"
    """Column with the report text; Findings and Impression sections are found in it."""
    split: str | None = "split"
    """Column with train, val or test; null, or without it, patients are split by hash."""
    labels: str | None = None
    """One column with positive label names separated by | or ;. Without it, one column per label
    name, holding 1, 0, -1 (uncertain) or nothing (not mentioned)."""


@dataclass(frozen=True, kw_only=True)
class VolumeColumns:
    """Names of the columns of a table of volumes. Columns that are not there are left out."""

    path: str = "path"
    """Column with the file's path, relative to the table's folder or absolute."""
    patient: str = "patient"
    """Column with the patient identifier; splits are by patient."""
    volume: str | None = "volume"
    """Column with the volume identifier; null, or without it, the path."""
    session: str | None = "session"
    """Column with the session (visit) identifier."""
    modality: str | None = "modality"
    """Column with the contrast: T1w, T1c, T2w, FLAIR …"""
    split: str | None = "split"
    """Column with train, val or test; null, or without it, patients are split by hash."""
    site: str | None = "site"
    """Column with the site."""
    valid: str | None = "mask"
    """Column with the path of a mask that is not 0 where voxels are valid."""
    anonymised: str | None = "anonymised"
    """Column with the path of a mask that is not 0 where a face was removed: not valid."""
    anatomy: str | None = "anatomy"
    """Column with the path of a mask of the anatomy; without it the foreground is found."""
    segmentation: str | None = "segmentation"
    """Column with the path of a label map."""


@dataclass(frozen=True, kw_only=True)
class VolumeSettings:
    """How volumes are read, checked and stored."""

    columns: VolumeColumns = field(default_factory=VolumeColumns)
    """Names of the columns, for `volume-table` and `table`."""
    table: Path | None = None
    """For `dicom-series`: table (CSV or Parquet) with one row per series, found by volume (its
    SeriesInstanceUID) or by path (its folder below the source), or per patient. It gives labels, split
    and site, of a series also modality and session; its patient replaces the PatientID of the files."""
    labels: list[str] = field(default_factory=list)
    """Columns with numbers that become labels: of a table, of participants.tsv (`bids`), or of what
    the manifest says of a subject (`openmind`). No other column is taken, as it may be a record number
    or a date of birth; columns_of_numbers in summary.json names those that `bids` and `openmind`
    have."""
    label_prefix: str = "label_"
    """Columns of the table whose names start with this become labels too, under the rest of it."""
    patient_pattern: str | None = None
    """For `nifti`: regular expression that is searched in a file's path below the source, with a
    group (?P<patient>…) and perhaps (?P<session>…). Default: the first folder that is no split,
    contrast or collection (imagesTr, train, T1 …), else the file name; both up to the word that names
    a session or a contrast. What came out is in the notes of summary.json."""
    spacing_mm: float | None = setting(1.0, gt=0)
    """Stored distance between voxels along each axis, in mm; null keeps each volume's own."""
    margin_mm: float = setting(4.0, ge=0)
    """Room around the anatomy that is kept when a volume is cropped to it."""
    modalities: list[str] | None = None
    """Keep only these, such as [T1w, FLAIR]; the others go to quarantine. Null keeps all."""
    max_voxels: int = setting(512**3, ge=1)
    """Volumes with more voxels, as they are or at `spacing_mm`, are quarantined before memory is
    taken for them."""
    min_slices: int = setting(4, ge=2)
    """Volumes with fewer slices along an axis are quarantined."""
    max_spacing_mm: float = setting(10.0, gt=0)
    """Volumes whose slices lie further apart are quarantined."""
    max_extent_mm: float = setting(600.0, gt=0)
    """Volumes that are longer than this along an axis are quarantined."""
    min_solid: float = setting(0.4, ge=0, le=1)
    """Least share of the foreground that lies 4 mm or more below its surface; heads and brains have
    0.6 and more. 0 switches the check off."""
    max_deviation: float = setting(100.0, gt=1)
    """Volumes with a voxel further than this from the mean, in standard deviations of the
    foreground, are quarantined."""
    dtype: Literal["int16", "float16", "float32"] = "float16"
    """How z-scores are stored; int16 in steps of 1/512, up to 64 standard deviations."""
    compression: int = setting(3, ge=1, le=19)
    """Level of zstd."""
    volumes_per_shard: int = setting(64, ge=1)
    """Volumes per Parquet file."""
    volumes_per_row_group: int = setting(4, ge=1)
    """Volumes per Parquet row group: the unit in which shards are read."""


@dataclass(frozen=True, kw_only=True)
class IngestConfig(_Checked):
    """Turn an archive of studies or volumes into shards: decode, check, pseudonymise, write."""

    archive: Literal[
        "dicom", "table",
        "chestxray14", "chexpert", "mimic-cxr", "openi", "padchest",
        "bids", "brats", "dicom-series", "nifti", "openmind", "volume-table",
    ]  # fmt: skip
    """Layout of the archive. Studies: a folder of DICOM images, a table of image files, or a public
    archive as it is published: ChestX-ray14, CheXpert (also CheXpert Plus), MIMIC-CXR (DICOM or JPG),
    Open-i (IU X-ray) or PadChest. Volumes: a BIDS or BraTS folder, a folder of DICOM series, of
    NIfTI files, an OpenMind (nnssl) manifest, or a table of volume files."""
    source: Path
    """Folder of the archive; for `table` and `volume-table` the CSV or Parquet table, for
    `openmind` the pretrain_data.json."""
    output: Path
    """Folder for the shards, the manifest, the quarantine table and summary.json."""
    reports: Path | None = None
    """For `dicom`: table (CSV or Parquet) with report text, labels and split by study, or a folder
    of text files named STUDY.txt. Default: reports.csv in the source folder, if there. A patient
    column, if there, replaces the PatientID of the files. For `dicom-series` see volumes.table. For
    `mimic-cxr` mimic-cxr-reports.zip or a folder with the report files, for `openi` NLMCXR_reports.tgz
    or a folder with the XML files; default: what of these is in the source folder."""
    tables: Path | None = None
    """For public archives: folder with the tables that are published beside the images (metadata,
    split, labels), if they are not in the source folder."""
    official_split: bool = True
    """For public archives: keep the split that is published with the archive; where it has no
    validation patients, validation_share of its training patients are taken. False splits all
    patients by hash."""
    labeler: Literal["chexpert", "negbio"] = "chexpert"
    """For `mimic-cxr`: which of its two label tables is read."""
    columns: TableColumns = field(default_factory=TableColumns)
    """Names of the table's columns (the reports table uses the same names)."""
    dataset: str = "archive"
    """Name of the data set, written into every row."""
    image_size: int = setting(256, ge=16, le=4096)
    """Stored size of the short side of an image, in pixels; images are never enlarged."""
    # Measured on X-rays at 256 px (tests/benchmarks/encodings.py): png 35 kB, exact; jpeg 95 21 kB
    # and decoded three times as fast, but wrong by 0.9 grey levels. Neither feeds a GPU too slowly.
    encoding: Literal["png", "jpeg"] = "png"
    """How stored images are encoded (8 bit, one channel)."""
    jpeg_quality: int = setting(95, ge=50, le=100)
    """Quality of the jpeg encoding."""
    studies_per_shard: int = setting(512, ge=1)
    """Studies per Parquet file."""
    studies_per_row_group: int = setting(32, ge=1)
    """Studies per Parquet row group: the unit in which shards are read."""
    validation_share: float = setting(0.1, ge=0, lt=1)
    """Share of the patients in the validation split, where the archive brings no split."""
    test_share: float = setting(0.1, ge=0, lt=1)
    """Share of the patients in the test split, where the archive brings no split."""
    pseudonym_key: Path | None = None
    """File with the secret key of the pseudonyms. Default: environment RAY_MAE_PSEUDONYM_KEY."""
    insecure_pseudonyms: bool = False
    """Use a publicly known key instead: only for generated or public data."""
    max_pixels: int = setting(100_000_000, ge=1)
    """Images with more pixels than this are quarantined before memory is taken for them."""
    burned_in: Literal["quarantine", "keep"] = "quarantine"
    """What becomes of DICOM images whose header says that text is burned into the pixels: a name or a
    date there cannot be taken out by rule. Kept ones are counted in the summary."""
    max_aspect: float = setting(4.0, ge=1)
    """Images whose long side is more than this times the short one are quarantined: images are padded
    to squares, and one strip would make every image of its batch as large."""
    max_views: int = setting(16, ge=1)
    """Studies with more images than this are quarantined as implausible."""
    volumes: VolumeSettings = field(default_factory=VolumeSettings)
    """For archives of volumes."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig(_Checked):
    """The card of a data set: counts, leaks between splits, pictures, as JSON and one page."""

    shards: Path
    """Folder that `ingest` wrote."""
    output: Path | None = None
    """Folder for card.json and card.html; default: the shards' own."""
    sample: int = setting(128, ge=1, le=100_000)
    """Studies or volumes read for intensities and pictures, dealt over views, contrasts and sites."""
    pictures: int = setting(12, ge=0, le=200)
    """Images per view, or volumes per contrast, that are shown."""
    duplicates: bool = True
    """Read every image or volume once, to find the same one in two splits."""
    seed: int = setting(0, ge=0)
    """Seed of the sample."""


# -------------------------------------------------------------------------------------- pretrain


@dataclass(frozen=True, kw_only=True)
class MvmaeConfig:
    """MVMAE-V2T (arXiv 2511.22294). gamma 0: MVMAE; beta 0 as well: independent MAE."""

    name: Literal["mvmae"] = "mvmae"
    """The method; mdae has settings of its own: see `pretrain --method.name mdae --help`."""
    preset: Literal["tiny", "small", "base", "large", "huge"] = "base"
    """Width, depth and heads of the encoder and the pixel decoder."""
    image_size: int = setting(224, ge=16, le=2048)
    """Side of the square crop the encoder sees, in pixels; a multiple of patch_size."""
    patch_size: int = setting(16, ge=2, le=64)
    """Side of a patch, in pixels."""
    width: int | None = setting(None, ge=16)
    """Encoder width; default from the preset."""
    depth: int | None = setting(None, ge=1)
    """Encoder blocks; default from the preset."""
    heads: int | None = setting(None, ge=1)
    """Encoder attention heads; default from the preset."""
    qk_norm: bool = True
    """Normalise queries and keys in every attention of encoder and decoder."""
    positions: Literal["learned", "sincos"] = "sincos"
    """Position embedding of patches: fixed sine-cosine (MAE), or a learned table (the authors'
    code), which needs a longer training to tell the patches apart."""
    mask_ratio: float = setting(0.9, gt=0, lt=1)
    """Share of the patches hidden in each view, independently per view."""
    norm_pix: bool = False
    """Reconstruct patches normalised to mean 0 and variance 1 each."""
    decoder_width: int | None = setting(None, ge=16)
    """Pixel decoder width; default from the preset."""
    decoder_depth: int | None = setting(None, ge=1)
    """Pixel decoder blocks; default from the preset."""
    decoder_heads: int | None = setting(None, ge=1)
    """Pixel decoder attention heads; default from the preset."""
    alignment: Literal["mse", "cosine", "infonce", "vicreg"] = "mse"
    """Form of the alignment of a study's views; mse is the paper's."""
    alignment_tokens: Literal["visible", "cls", "patches"] = "visible"
    """Tokens pooled into a view's vector: visible patches and CLS, CLS alone, or patches alone."""
    alignment_reduction: Literal["mean", "sum"] = "mean"
    """mse only: mean over the vector's dimensions, as the paper, or their sum (2 - 2 cos)."""
    alignment_temperature: float = setting(0.07, gt=0)
    """infonce only: temperature of the softmax."""
    beta: float = setting(2.0, ge=0)
    """Final weight of the alignment: 0 until warm-up ends, then a half cosine up to beta."""
    gamma: float = setting(1.0, ge=0)
    """Weight of the report captioner; 0 builds none."""
    caption_depth: int = setting(4, ge=1)
    """Captioner blocks."""
    caption_heads: int = setting(8, ge=1)
    """Captioner attention heads."""
    caption_mlp_ratio: float = setting(1.0, gt=0)
    """Captioner feed-forward width over its model width."""
    caption_memory: Literal["view", "study"] = "view"
    """What a caption attends to: the tokens of one view (one caption loss per view), or those of
    all views of the study (one per study, cheaper)."""
    caption_parallel_share: float = setting(0.0, ge=0, le=1)
    """Share of the studies decoded in parallel, from mask tokens alone (CapPa), not causally."""

    @property
    def in_words(self) -> str:
        """For the table that opens a run."""
        return (
            f"{self.image_size} px, patches of {self.patch_size}, {self.mask_ratio:.0%} masked, "
            f"β {self.beta:g} ({self.alignment}), γ {self.gamma:g}"
        )


@dataclass(frozen=True, kw_only=True)
class MdaeConfig:
    """MDAE, masked-diffusion autoencoder of volumes (CVPR 2026).

    sigma_max 0 with lambda_visible 0: MAE-3D; mask_ratio (0, 0): denoising score matching.
    """

    name: Literal["mdae"] = "mdae"
    """The method."""
    preset: Literal["tiny", "base", "large"] = "large"
    """Stages of the ResEnc U-Net; large is nnU-Net's ResEnc-L."""
    crop_size: int = setting(160, ge=16, le=512)
    """Side of the random crop, in voxels; a multiple of block_size and of the network's stride."""
    block_size: int = setting(16, ge=1, le=64)
    """Side of a masked block, in voxels."""
    mask_ratio: tuple[float, float] = setting((0.01, 0.99), ge=0, le=1, rising=True)
    """The share p of hidden blocks is drawn per sample between these; equal values fix it. At least
    one block is hidden and one visible, unless the ratio is exactly 0 or 1."""
    masking: Literal["exact", "bernoulli"] = "exact"
    """exact: a share p of the blocks, rounded down; bernoulli: each block with probability p."""
    noise: Literal["ve", "vp", "flow"] = "ve"
    """Added before masking: ve x + σ z, vp √(1-a) x + √a z, flow (1-a) x + a z."""
    sigma_max: float = setting(1.0, ge=0)
    """Noise level at t = 1, in units of the volume's standard deviation; for vp and flow the
    largest a (at most 1)."""
    weighting: Literal["dsm_clipped", "none", "edm", "bounded"] = "dsm_clipped"
    """Weight w(σ) of the visible loss, with mean 1 over t: 1/max(σ, 0.1)², 1, 1/σ² + 1 (clipped
    alike), or 1/(σ² + 1)."""
    lambda_masked: float = setting(1.0, ge=0)
    """Weight of the loss on hidden voxels."""
    lambda_visible: float = setting(1.0, ge=0)
    """Weight of the loss on visible, noisy voxels."""
    mask_repeats: int = setting(1, ge=1, le=64)
    """Corruptions drawn of each volume that is read: reading is the cost."""
    film: bool = True
    """Tell the network the noise level by FiLM; False leaves it to guess."""
    mirror: bool = True
    """Mirror each axis of half of the crops, as nnU-Net does; False keeps left and right apart."""
    rotate_share: float = setting(0.2, ge=0, le=1)
    """Share of the crops rotated by up to 30 degrees about each axis."""
    scale_share: float = setting(0.2, ge=0, le=1)
    """Share of the crops scaled."""
    scale_range: tuple[float, float] = setting((0.7, 1.4), gt=0, rising=True)
    """Smallest and largest scale."""

    @property
    def in_words(self) -> str:
        """For the table that opens a run."""
        low, high = self.mask_ratio
        return (
            f"crops of {self.crop_size}³, blocks of {self.block_size}³, {low:.0%} to {high:.0%} "
            f"masked, noise {self.noise} up to {self.sigma_max:g}, λ {self.lambda_masked:g} masked "
            f"and {self.lambda_visible:g} visible ({self.weighting})"
        )


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


@dataclass(frozen=True, kw_only=True)
class VolumeDataConfig:
    """What is read from shards of volumes."""

    shuffle_window: int = setting(32, ge=1)
    """Volumes read together and shuffled among themselves, kept in memory; shards are shuffled as
    well."""


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
    """torch.compile the method (GPU; the first steps are slow)."""


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Ray workers."""

    workers: int = setting(2, ge=1)
    """Training workers (GPUs, where they are used)."""
    gpu: Literal["auto"] | bool = "auto"
    """One GPU per worker; auto: if the cluster has any."""
    cpus_per_worker: float = setting(1.0, ge=0)
    """CPUs reserved per training worker; leave some of the cluster's for reading data."""
    threads_per_worker: int | None = setting(None, ge=1)
    """Threads of PyTorch in each worker; default: cpus_per_worker, at least 1."""
    max_failures: int = setting(0, ge=-1)
    """Restarts of the workers after a failure; -1 without limit."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints."""

    every: int = setting(500, ge=1)
    """Steps between checkpoints; the last step always leaves one."""
    keep: int | None = setting(2, ge=1)
    """Latest checkpoints kept; null keeps all."""
    keep_best: bool = False
    """Keep those with the best online probe instead; the latest always stays."""


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

    every: int = setting(20, ge=1)
    """Steps between lines of figures."""
    pictures_every: int = setting(500, ge=1)
    """Steps between pictures and generated reports in TensorBoard."""
    pictures: int = setting(4, ge=0, le=64)
    """Studies in a picture."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every pretraining has in common, whatever its method and its data."""

    seed: int = setting(0, ge=0)
    """Seed of weights, order of the data, masks and augmentation."""
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


@dataclass(frozen=True, kw_only=True)
class _Placed(_Checked):
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


# ------------------------------------------------------------------------------------------ tune


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
    seeds: int = setting(2, ge=1)
    """New seeds for each."""


@dataclass(frozen=True, kw_only=True)
class Search(_Checked):
    """What every search has in common, whatever the method."""

    shards: Path
    """Folder that `ingest` wrote. Its test patients are never read."""
    output: Path
    """Folder of the search: trials, study.db, report.html, best.yaml, summary.json."""
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
    brings its driver); default: study.db in the output folder."""
    trackers: list[Literal["mlflow", "wandb"]] = field(default_factory=list)
    """Also log trials there (the extras mlflow and wandb bring them), as their environment
    variables say."""
    seed: int = setting(0, ge=0)
    """Seed of the sampler. Of the runs see run.seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "auroc_and_hours" and self.asha.stop:
            raise ValueError(
                "asha.stop must be off with objective auroc_and_hours: it stops trials by AUROC alone, "
                "the cheap ones first"
            )


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Search):
    """Search settings over whole pretrainings, by what a probe finds on validation patients."""

    run: MvmaeRun = field(default_factory=MvmaeRun)
    """Settings of every run, as of `pretrain`; those of the space come on top."""


@dataclass(frozen=True, kw_only=True)
class TuneMdaeConfig(Search):
    """Search settings over whole pretrainings, by what a probe finds on validation patients."""

    run: MdaeRun = field(default_factory=MdaeRun)
    """Settings of every run, as of `pretrain`; those of the space come on top."""


AnyTuneConfig = TuneConfig | TuneMdaeConfig
TUNE: dict[str, type[TuneConfig] | type[TuneMdaeConfig]] = {
    "mvmae": TuneConfig,
    "mdae": TuneMdaeConfig,
}
"""The settings of `tune` by `run.method.name`."""


@dataclass(frozen=True, kw_only=True)
class TuneReportConfig(_Checked):
    """Write the report of a search as far as it is, and say how to open the dashboards."""

    output: Path
    """Folder of the search."""
    storage: str | None = None
    """Database URL of the Optuna study, where the search had one."""


# ----------------------------------------------------------------------------- after pretraining


@dataclass(frozen=True, kw_only=True)
class CheckpointListConfig(_Checked):
    """Checkpoints that a run keeps: step, size, who wrote them, the online probe's AUROC."""

    run: Path
    """Folder of the run."""


@dataclass(frozen=True, kw_only=True)
class CheckpointVerifyConfig(_Checked):
    """Read checkpoints in full and compare them with the checksums that their workers wrote."""

    path: Path
    """Folder of a run, whose committed checkpoints are all read, or one checkpoint."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(_Checked):
    """Run a frozen encoder over shards and write one embedding per study to Parquet."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint), one checkpoint, or an exported encoder."""
    shards: Path
    """Folder that `ingest` wrote."""
    output: Path
    """Folder for embeddings.parquet and summary.json."""
    splits: list[Literal["train", "val", "test"]] = field(
        default_factory=lambda: ["train", "val", "test"]
    )
    """Splits to embed."""
    pool: Literal["cls", "mean"] = "mean"
    """A view's vector: the CLS token, or the mean over the patch tokens."""
    crop_size: int | None = setting(None, ge=16, le=1024)
    """Volumes: side of the middle that is seen, in voxels, a multiple of the network's stride;
    default: that of the pretraining. Larger sees more of the volume."""
    max_views: int = setting(16, ge=1)
    """Views per study at most; of a larger study a fixed choice is taken."""
    batch_size: int = setting(64, ge=1)
    """Studies per forward pass."""
    workers: int = setting(1, ge=1)
    """Encoder replicas."""
    gpu: Literal["auto"] | bool = "auto"
    """One GPU per replica; auto: if the cluster has any."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(_Checked):
    """Logistic regression on frozen features, beside a random encoder and raw pixels."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint), one checkpoint, or an exported encoder."""
    shards: Path
    """Folder that `ingest` wrote."""
    output: Path
    """Folder for probe.json, probe.csv, report.html and summary.json."""
    pool: Literal["cls", "mean"] = "mean"
    """A view's vector: the CLS token, or the mean over the patch tokens."""
    crop_size: int | None = setting(None, ge=16, le=1024)
    """Volumes: side of the middle that is seen, in voxels, a multiple of the network's stride;
    default: that of the pretraining. Larger sees more of the volume."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What an uncertain label counts as; not mentioned is always negative."""
    strengths: list[float] = field(
        default_factory=lambda: [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0],
        metadata={"gt": 0, "some": True},
    )
    """Inverse regularisation strengths C to choose from, on validation patients."""
    bootstrap: int = setting(1000, ge=10)
    """Patient resamples behind each 95 % interval."""
    min_positive: int = setting(5, ge=1)
    """Labels with fewer positive or negative studies in a split are left out, and named."""
    train_studies: int | None = setting(None, ge=2)
    """Use only this many training studies (label efficiency); default all."""
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
class ExportConfig(_Checked):
    """Write the encoder of a checkpoint as a file that other libraries load."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint) or one checkpoint."""
    output: Path
    """Folder for the exported files."""
    format: Literal["timm", "nnunet", "monai"] = "timm"
    """timm (images): safetensors for `timm.create_model(…, checkpoint_path=…)`; nnunet (volumes):
    weights for `nnUNetv2_train -pretrained_weights` and the configuration they need; monai
    (volumes): a state dict, and a module that loads it for MONAI or plain PyTorch."""


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(_Checked):
    """What fine-tuning and segmentation have in common."""

    checkpoint: Path
    """A run's folder (its last committed checkpoint), one checkpoint, or an exported encoder."""
    shards: Path
    """Folder that `ingest` wrote."""
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

    pool: Literal["cls", "mean"] = "mean"
    """Studies only: a view's vector is the CLS token, or the mean over the patch tokens."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What an uncertain label of a study counts as; not mentioned is always negative."""
    min_positive: int = setting(5, ge=1)
    """Labels with fewer positive or negative samples in a split are left out, and named."""
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
    """Train a U-Net from the encoder on label maps, beside the same network from scratch."""

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


@dataclass(frozen=True, kw_only=True)
class DemoConfig(_Checked):
    """The whole way on a generated cohort, on this machine, in minutes."""

    output: Path = Path("demo")
    """Folder for everything the demo makes."""
    seed: int = setting(0, ge=0)
    """Seed of the cohort and of the training."""
    patients: int = setting(450, ge=20)
    """Patients in the cohort."""
    disease: Literal["caricature", "subtle"] = "caricature"
    """How disease shows: as textures that a small network learns in minutes, or as subtle as on real
    films, for which it takes a larger cohort and a longer training."""
    steps: int = setting(500, ge=1)
    """Optimiser steps of the pretraining."""


@dataclass(frozen=True, kw_only=True)
class DemoMdaeConfig(_Checked):
    """The whole way on generated brain volumes, on this machine, in minutes."""

    output: Path = Path("demo-mdae")
    """Folder for everything the demo makes."""
    seed: int = setting(0, ge=0)
    """Seed of the cohort and of the training."""
    patients: int = setting(300, ge=20)
    """Patients in the cohort, each in four contrasts."""
    steps: int = setting(300, ge=1)
    """Optimiser steps of the pretraining."""
