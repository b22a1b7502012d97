"""The sections of a run that are chosen by name: what every method's, encoder's and kind's settings have.

They are plain dataclasses and import no PyTorch, since every driver and every trial reads them. A
subclass has its own settings with bounds, and names the module that it makes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from ray_mae.config.base import setting


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
    final_weight_decay: float | None = setting(None, ge=0)
    """Decay at the last step, to which `weight_decay` goes by half a cosine (DINO); null: it stays."""
    clip: float = setting(1.0, ge=0)
    """Largest gradient norm; 0 switches clipping off."""
    layer_decay: float = setting(1.0, gt=0, le=1)
    """Learning rate of each block or stage of the encoder over that of the next one; 1 is the same for all.
    What is outside the encoder has the whole rate."""
    freeze: int = setting(0, ge=0)
    """Blocks or stages of the encoder, from its input on, that stay as they are, with all that is before
    them; 0 trains everything."""
    max_skipped: int = setting(5, ge=1)
    """A step whose loss or gradient is not finite is skipped by all workers and its samples are written
    down; the run ends after so many in a row."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read from the shards, of every kind of sample."""

    shuffle_window: int = setting(2048, ge=1)
    """Samples read together and shuffled among themselves; shards are shuffled as well."""
    corrupt: Literal["stop", "skip"] = "stop"
    """Rows of a damaged shard: end the run, or draw other samples in their place and count them."""
    cache: Path | None = None
    """Of shards in an object store: a folder on a disk of each node for what it has read, so that it is
    fetched once and not in every epoch."""
    cache_gib: float = setting(100.0, gt=0)
    """Size of that cache on each node, at most. What does not fit is fetched in every epoch."""
    repeat_below: float = setting(0.0, ge=0, le=1)
    """Repeat factor sampling (LVIS): samples whose rarest finding c is in a share f_c of the train split that
    is less than this are drawn √(repeat_below/f_c) times in an epoch, on average; others once. 0 reads no
    label. `optim.epochs` makes as many steps as without."""
    repeat_most: float = setting(10.0, ge=1)
    """Limit of that number."""

    @property
    def label_uses(self) -> tuple[str, ...]:
        """What labels of training samples are read for, in words."""
        if not self.repeat_below:
            return ()
        return (f"how often a sample is drawn (data.repeat_below {self.repeat_below:g})",)


@dataclass(frozen=True, kw_only=True)
class StudyDataConfig(DataConfig):
    """What is read from shards of studies and how a sample is drawn."""

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
    window_jitter: float | None = setting(None, ge=0, le=0.5)
    """How far the window of each view, from black to white, is chosen anew: its width within 1 ± this, its
    centre moved by up to half of this, in widths of the image's own window. Null: 0.3 for views stored with
    more than 8 bits (ingest's bits), 0 for others, of which nothing is kept beyond the window."""


@dataclass(frozen=True, kw_only=True)
class VolumeDataConfig(DataConfig):
    """What is read from shards of volumes and how a crop is changed."""

    shuffle_window: int = setting(32, ge=1)
    """Volumes read together and shuffled among themselves, kept in memory; shards are shuffled as
    well."""
    mirror: bool = True
    """Mirror each axis of half of the crops, as nnU-Net does; False keeps left and right apart."""
    rotate_share: float = setting(0.2, ge=0, le=1)
    """Share of the crops rotated by up to 30 degrees about each axis."""
    scale_share: float = setting(0.2, ge=0, le=1)
    """Share of the crops scaled."""
    scale_range: tuple[float, float] = setting((0.7, 1.4), gt=0, rising=True)
    """Smallest and largest scale."""


DATA: dict[str, type[DataConfig]] = {"study": StudyDataConfig, "volume": VolumeDataConfig}
"""The section `data` by kind of sample."""


@dataclass(frozen=True)
class Sight:
    """How an image of any shape becomes the square that an encoder sees."""

    fit: str = "letterbox"
    """letterbox: all of it, with black beside it; middle: the middle square; squash: all, squashed."""
    interpolation: str = "bilinear"
    """bilinear or bicubic, antialiased."""
    middle: float = 1.0
    """Side of the middle square over the shorter side of the image."""

    @property
    def described(self) -> str:
        """What is seen, for the summary of an evaluation."""
        share = "" if self.middle == 1 else f" ({self.middle:.1%} of its shorter side)"
        return {
            "letterbox": "every view as a whole",
            "middle": f"the middle square of every view{share}",
            "squash": "every view as a whole, squashed to a square",
        }[self.fit]


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What the settings of every encoder have; see `ray_mae.encoders.base` for the network.

    `network` is "module:Class", a `ray_mae.encoders.base.Encoder` that is made of these settings.
    """

    name: str
    """The encoder."""

    dimensions: ClassVar[int]
    """Of its input: 2 of images, 3 of volumes."""
    form: ClassVar[str]
    """What it gives: tokens, or maps (one of each resolution)."""
    network: ClassVar[str]
    hides: ClassVar[bool] = True
    """Whether a method can hide a part of its input."""
    attends: ClassVar[bool] = False
    """Whether masks can follow its attention and its features, by `TokenEncoder.attention`."""
    changeable: ClassVar[tuple[str, ...]] = ()
    """Settings that a run may have otherwise than the weights it begins with: `checkpoint.begin` takes these
    over, resampled or folded where that is needed."""
    exports: ClassVar[tuple[str, ...]] = ()
    """Formats of `export --format` that it has."""
    segmentation: ClassVar[str | None] = None
    """Of volumes, "module:function": (settings, classes=K) → the encoder and a decoder of K classes of
    voxels, both with fresh weights; None: it has no decoder."""

    @property
    def kind(self) -> str:
        """Of the samples that it sees: study or volume."""
        return "study" if self.dimensions == 2 else "volume"

    @property
    def input_size(self) -> int:
        """Side of the square or cube that it sees, in pixels or voxels."""
        raise NotImplementedError

    @property
    def size_name(self) -> str:
        """Dotted name of the setting that says `input_size`."""
        return "encoder.image_size" if self.kind == "study" else "encoder.crop_size"

    @property
    def described(self) -> str:
        """For the table that opens a run."""
        raise NotImplementedError

    @property
    def layers(self) -> int | None:
        """Its `depth`, where that follows from the settings alone."""
        return None

    @property
    def why_not_pretrained(self) -> str:
        """Why no method can train all of it, with what would do; empty: one can."""
        return ""

    @property
    def sight(self) -> Sight:
        """How it is shown an image that is evaluated."""
        return Sight()

    @property
    def default_pool(self) -> str:
        """The vector of an image, where nobody chooses one: cls or mean."""
        return "mean"

    def check(self) -> None:
        """Raise ValueError, naming settings, where sizes do not fit together."""

    def resized(self, size: int | None) -> Self:
        """The same with another `input_size`, where weights allow that; None changes nothing.

        Raises ValueError where they do not, or the size does not fit.
        """
        if size is None:
            return self
        raise ValueError("crop_size is for volumes: images have the size of their pretraining")

    def without_film(self) -> Self:
        """The same without conditioning on a noise level, which most encoders have none of."""
        return self


@dataclass(frozen=True)
class Paper:
    """What is cited with a method."""

    authors: str
    year: int
    title: str
    where: str

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. {self.where}."


@dataclass(frozen=True)
class LabelTargets:
    """Labels of training samples that a batch brings along as targets."""

    names: tuple[str, ...]
    """Of the L labels; of volumes also NAME=VALUE, that value against all others."""
    uncertain: Literal["zeros", "ones", "ignore"]
    """What an uncertain label of a study counts as."""
    unmentioned: Literal["zeros", "ignore"]
    """What a label counts as that is not mentioned in a study."""
    positive_most: float
    """Limit of the weight of positives, which is negatives over positives."""
    named: bool = True
    """Whether somebody named them: then each must be there, with both classes."""


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What the settings of every method have; see `ray_mae.methods.base` for the model.

    `model` is "module:Class", a `ray_mae.methods.base.Method` that is built of these settings. Of a method of
    several kinds of samples the encoder decides which it is.
    """

    name: str
    """The method."""

    kinds: ClassVar[tuple[str, ...]]
    """Of samples that it can learn from: study, volume."""
    model: ClassVar[str]
    losses: ClassVar[Mapping[str, str]]
    """The parts of its loss in the order in which they are shown, and their titles."""
    shown: ClassVar[tuple[str, ...]] = ()
    """What else of its metrics a line in the terminal shows."""
    papers: ClassVar[tuple[Paper, ...]] = ()
    """To be cited by whoever uses an encoder that it trained, its own first."""

    @property
    def described(self) -> str:
        """For the table that opens a run."""
        raise NotImplementedError

    @property
    def reads_reports(self) -> bool:
        """Whether a tokenizer is needed."""
        return False

    @property
    def frozen_encoder(self) -> Path | None:
        """Of an encoder that teaches and stays as it is (`Context.frozen`); None: there is none."""
        return None

    def resolved(self) -> Self:
        """The same with whole paths, as the workers of a run need them."""
        return self

    @property
    def study_weights(self) -> tuple[float, float] | None:
        """Power and limit of the weights of a batch's studies, by `Findings.weights`; None: it has none."""
        return None

    @property
    def targets(self) -> LabelTargets | None:
        """Labels that a batch brings along; None: it brings none."""
        return None

    @property
    def label_uses(self) -> tuple[str, ...]:
        """What labels of training samples are read for, in words."""
        return ()

    @property
    def reads_segmentations(self) -> bool:
        """Whether a batch of volumes brings along the label maps that shards hold of them."""
        return False

    @property
    def coupled(self) -> bool:
        """Whether the loss of a sample depends on who else is in the batch, as contrastive terms do.

        Of all others it is the same in every batch, so that how a step is cut for workers and micro-batches
        changes nothing.
        """
        return False

    @property
    def kept(self) -> str:
        """The module that is the encoder for whoever uses a checkpoint: evaluation, export, runs that begin
        with it. A method with a teacher may keep that one's."""
        return "encoder"

    def default_encoder(self) -> EncoderSettings:
        """The encoder that it trains by default."""
        raise NotImplementedError

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """The optimiser that it is trained by, by default, with such an encoder."""
        return OptimConfig()

    def papers_of(self, encoder: EncoderSettings) -> tuple[Paper, ...]:
        """What is to be cited with such an encoder."""
        return self.papers

    def model_of(self, encoder: EncoderSettings) -> str:
        """ "module:Class" of the model that trains such an encoder."""
        return self.model

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        """Raise ValueError, naming settings, where method, encoder and data do not fit together."""


def require_form(
    method: MethodSettings,
    encoder: EncoderSettings,
    form: str | None = None,
    *,
    hides: bool = True,
) -> None:
    """Raise ValueError where the encoder is of no kind of the method's, or gives another form.

    Args:
        method: whose kinds of samples decide the dimensions.
        encoder: what was chosen.
        form: tokens or maps; None takes both.
        hides: whether the method hides a part of the input, which not every encoder allows.
    """
    wrong = []
    if encoder.kind not in method.kinds:
        wanted = " or ".join("2D" if kind == "study" else "3D" for kind in method.kinds)
        wrong.append(f"{wanted} input, not {encoder.dimensions}D")
    if form and encoder.form != form:
        wrong.append(f"{form}, not {encoder.form}")
    if hides and not encoder.hides:
        wrong.append("one that takes patches away")
    if wrong:
        raise ValueError(
            f"encoder.name {encoder.name} does not fit method.name {method.name}, which wants "
            f"{' and '.join(wrong)}: take {method.default_encoder().name}"
        )
    if encoder.why_not_pretrained:
        raise ValueError(encoder.why_not_pretrained)


def multiple(name: str, value: int, of: str, divisor: int) -> None:
    """Raise ValueError unless a setting is a multiple.

    Args:
        name: dotted name of the setting.
        value: what it is.
        of: dotted name of the other one, or words that start with a digit.
        divisor: value of that.
    """
    if value % divisor:
        what = of if of[0].isdigit() else f"{of}, {divisor}"
        raise ValueError(f"{name} ({value}) must be a multiple of {what}")
