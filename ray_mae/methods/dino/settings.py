"""Settings of DINO."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from ray_mae.config.base import setting
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    MethodSettings,
    OptimConfig,
    Paper,
    StudyDataConfig,
    multiple,
    require_form,
)
from ray_mae.encoders.vit_settings import VitSettings

GLOBALS = 2
"""Global crops of an input, as in all the papers."""
_LOCAL = 3 / 7
"""Side of a local crop over that of a global one: 96 of 224 pixels."""


@dataclass(frozen=True, kw_only=True)
class DinoSettings(MethodSettings):
    """DINO (arXiv 2104.14294): crops agree with a teacher, with iBOT, KoLeo and Sinkhorn of DINOv2."""

    name: Literal["dino"] = "dino"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    pairs: Literal["crops", "views"] = "crops"
    """What agrees: crops of one view or volume; or a view with the teacher's crops of another view of its
    study, drawn each time (of a study with one view, of that)."""
    locals: int = setting(8, ge=0, le=32)
    """Local crops of each view or volume, beside two global ones. The teacher sees the global ones alone."""
    global_scale: tuple[float, float] = setting((0.4, 1.0), gt=0, le=1, rising=True)
    """Area or volume of a global crop over the largest one; of images in the place of data.crop_scale."""
    local_scale: tuple[float, float] = setting((0.1, 0.4), gt=0, le=1, rising=True)
    """The same of a local crop. The paper has 0.05 at least, where a lesion is easily cut away."""
    local_size: int | None = setting(None, ge=4, le=1024)
    """Side of a local crop as the encoder sees it, in pixels or voxels, a multiple of the side of a patch.
    Default: 3/7 of the encoder's, 96 of 224."""
    blur: tuple[float, float, float] = setting((1.0, 0.1, 0.5), ge=0, le=1)
    """Images: share of the first and the second global crops and of the local ones that are blurred."""
    blur_sigma: tuple[float, float] = setting((0.1, 2.0), gt=0, rising=True)
    """Images: deviation of the blur, in pixels."""
    prototypes: int = setting(8192, ge=2)
    """K, outputs of the head. DINO has 65,536 for a million photographs."""
    head_width: int = setting(2048, ge=8)
    """Of the two hidden layers of the head."""
    bottleneck: int = setting(256, ge=4)
    """Length of the vector that is compared with the prototypes."""
    centring: Literal["centre", "sinkhorn"] = "centre"
    """What keeps the teacher from giving every input one prototype: a running mean of its outputs is taken
    off (DINO), or three steps of Sinkhorn and Knopp's over all workers' inputs (SwAV, DINOv2)."""
    centre_momentum: float = setting(0.9, ge=0, lt=1)
    """Share of the running mean that a step keeps."""
    student_temperature: float = setting(0.1, ge=0.01)
    """Of the student's softmax."""
    teacher_temperature: tuple[float, float] = setting((0.04, 0.07), ge=0.01, rising=True)
    """Of the teacher's, at first and after its warm-up: the higher, the less sharp."""
    temperature_warmup: float = setting(0.1, ge=0, le=1)
    """Share of the steps in which the teacher's temperature rises (DINO: 30 of 300 epochs)."""
    momentum: float = setting(0.996, ge=0, le=1)
    """Of the teacher at first; it rises to 1 by half a cosine. With small batches nearer to 1: DINO's code
    names 0.9995 for 256."""
    frozen_last: float = setting(0.01, ge=0, lt=1)
    """Share of the steps in which the last layer of the head stays as it is (DINO: the first epoch)."""
    ibot: float = setting(1.0, ge=0)
    """Weight of iBOT's loss (arXiv 2111.07832): the student tells the teacher's outputs at patches that are
    hidden from it; 0 hides none."""
    hidden_share: float = setting(0.5, gt=0, le=1)
    """iBOT: share of the global crops of which patches are hidden."""
    hidden_ratio: tuple[float, float] = setting((0.1, 0.5), gt=0, lt=1, rising=True)
    """iBOT: share of their patches that is hidden, drawn for each."""
    mask: Literal["block", "random"] = "block"
    """iBOT: which patches are hidden: those of random rectangles or boxes, or any."""
    koleo: float = setting(0.1, ge=0)
    """Weight of minus the mean log distance of a vector of a global crop to the nearest of another sample
    (DINOv2)."""
    keep: Literal["teacher", "student"] = "teacher"
    """Whose encoder is evaluated, exported and begun with."""

    kinds: ClassVar[tuple[str, ...]] = ("study", "volume")
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Caron et al.",
            2021,
            "Emerging Properties in Self-Supervised Vision Transformers",
            "ICCV, arXiv:2104.14294",
        ),
        Paper(
            "Zhou et al.",
            2022,
            "iBOT: Image BERT Pre-Training with Online Tokenizer",
            "ICLR, arXiv:2111.07832",
        ),
        Paper(
            "Oquab et al.",
            2024,
            "DINOv2: Learning Robust Visual Features without Supervision",
            "TMLR, arXiv:2304.07193",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.dino.model:Dino"
    losses: ClassVar[Mapping[str, str]] = {"dino": "Crops", "ibot": "Hidden patches"}
    shown: ClassVar[tuple[str, ...]] = ("prototypes_used",)

    @property
    def described(self) -> str:
        terms = f"{GLOBALS} + {self.locals} crops, {self.prototypes:,} prototypes, {self.centring}"
        ibot = f", ibot {self.ibot:g}" if self.ibot else ""
        koleo = f", koleo {self.koleo:g}" if self.koleo else ""
        views = ", pairs of views" if self.pairs == "views" else ""
        return f"{terms}{ibot}{koleo}{views}"

    @property
    def coupled(self) -> bool:
        """By KoLeo and Sinkhorn; the centre is of the steps before."""
        return self.koleo > 0 or self.centring == "sinkhorn"

    @property
    def kept(self) -> str:
        return "teacher.network" if self.keep == "teacher" else "encoder"

    def local_side(self, encoder: EncoderSettings) -> int:
        """Side of a local crop as the encoder sees it, in pixels or voxels."""
        if self.local_size is not None:
            return self.local_size
        patch = cast(VitSettings, encoder).patch_size
        return max(1, round(encoder.input_size / patch * _LOCAL)) * patch

    def default_encoder(self) -> VitSettings:
        return VitSettings()

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """DINO's; of volumes the rate of its √ rule for a batch of 32, and a narrower clip."""
        if encoder.kind == "study":
            return OptimConfig(
                base_lr=5e-4,
                min_lr=1e-6,
                betas=(0.9, 0.999),
                weight_decay=0.04,
                final_weight_decay=0.4,
                clip=3.0,
                batch_size=512,
                micro_batch_size=32,
                epochs=300,
                warmup=1 / 30,
            )
        return OptimConfig(
            lr=3.5e-4,
            min_lr=1e-6,
            betas=(0.9, 0.999),
            weight_decay=0.04,
            final_weight_decay=0.4,
            batch_size=32,
            micro_batch_size=4,
            steps=125_000,
        )

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "tokens")
        side, size = self.local_side(encoder), encoder.input_size
        patch = cast(VitSettings, encoder).patch_size
        if self.local_size is not None:
            multiple("method.local_size", side, "encoder.patch_size", patch)
        if side > size:
            name = encoder.size_name
            raise ValueError(f"method.local_size ({side}) must be at most {name}, {size}")
        if self.pairs == "views":
            if encoder.kind != "study":
                raise ValueError(
                    "method.pairs views is for studies: a volume has no other view; set it to crops"
                )
            if cast(StudyDataConfig, data).max_views < 2:
                raise ValueError("method.pairs views wants a data.max_views of 2 or more")
