"""Settings of R-MAE."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import DataConfig, EncoderSettings, Paper, multiple, require_form
from ray_mae.encoders.vit_settings import Shape
from ray_mae.methods.mae.settings import MaeSettings

HEADS = 8
"""Attention heads of the branch of regions, as in the paper."""
COARSER = 2
"""Pixels along each axis for one of the image that superpixels are made of, in a quarter of the time."""


@dataclass(frozen=True, kw_only=True)
class RmaeSettings(MaeSettings):
    """R-MAE (arXiv 2306.05411): MAE, and maps of regions from the same visible patches."""

    name: Literal["rmae"] = "rmae"  # type: ignore[assignment]
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    region_weight: float = setting(1.0, ge=0)
    """Weight of the loss of regions; 0 is `mae`, to the bit."""
    regions: int | None = setting(None, ge=1, le=64)
    """K, regions of each input, drawn anew each time; default 8, of volumes 4."""
    region_source: Literal["superpixels", "stored"] = "superpixels"
    """What the regions are. stored, of volumes: the label map that ingest kept (an atlas, organs, a tumour),
    and superpixels of a volume that has none. Maps that people drew are labels, and a run says so."""
    region_cells: int | None = setting(None, ge=2, le=64)
    """Superpixels along each axis, about; it divides the side of an input. Default 8, of volumes 4."""
    region_compactness: float = setting(0.4, gt=0)
    """How round superpixels are: what a distance of one of them counts, in deviations of grey values (0.1 of
    values in [0, 1])."""
    region_width: int = setting(128, ge=16)
    """Width of the branch of regions, a multiple of 8."""
    region_depth: int = setting(8, ge=1)
    """Blocks of that branch between the encoder and the regions."""

    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Nguyen et al.",
            2024,
            "R-MAE: Regions Meet Masked Autoencoders",
            "ICLR, arXiv:2306.05411",
        ),
        *MaeSettings.papers,
        Paper(
            "Achanta et al.",
            2012,
            "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods",
            "IEEE TPAMI 34(11)",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.rmae.model:Rmae"
    losses: ClassVar[dict[str, str]] = {**MaeSettings.losses, "regions": "Maps of regions"}

    @property
    def described(self) -> str:
        return f"{super().described}, regions × {self.region_weight:g}"

    @property
    def reads_segmentations(self) -> bool:
        return bool(self.region_weight) and self.region_source == "stored"

    @property
    def label_uses(self) -> tuple[str, ...]:
        if not self.reads_segmentations:
            return super().label_uses
        of_maps = "maps of regions, the stored segmentations (method.region_source stored)"
        return (*super().label_uses, of_maps)

    def model_of(self, encoder: EncoderSettings) -> str:
        return self.model

    def regions_of(self, encoder: EncoderSettings) -> int:
        """K."""
        return self.regions or (8 if encoder.kind == "study" else 4)

    def cells_of(self, encoder: EncoderSettings) -> int:
        """Superpixels along each axis."""
        return self.region_cells or (8 if encoder.kind == "study" else 4)

    def coarser(self, encoder: EncoderSettings) -> int:
        """Pixels or voxels along each axis for one of a map: volumes have maps of half their resolution."""
        return 1 if encoder.kind == "study" else COARSER

    @property
    def shape(self) -> Shape:
        """Of the branch between the encoder and the regions."""
        return Shape(self.region_width, self.region_depth, HEADS)

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "tokens")
        super().check(encoder, data)
        if self.region_source == "stored" and encoder.kind == "study":
            raise ValueError(
                "method.region_source stored is for volumes: studies have no label maps"
            )
        multiple("method.region_width", self.region_width, "8 (attention heads)", HEADS)
        side = encoder.size_name
        finest = COARSER * self.cells_of(encoder)
        of = f"{finest} ({COARSER} × method.region_cells)"
        multiple(side, encoder.input_size, of, finest)
