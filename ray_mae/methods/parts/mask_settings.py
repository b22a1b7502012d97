"""Settings of masks, which every method that hides parts of its input has."""

from dataclasses import dataclass
from typing import Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings, MethodSettings

CURVED = ("zigzag", "hilbert", "peano", "spiral", "snake")
"""Masks along a curve."""
GUIDED = ("sma", "sgmae")
"""Masks that follow what the encoder makes of an input."""


@dataclass(frozen=True, kw_only=True)
class MaskSettings(MethodSettings):
    """Which patches, units or blocks of an input are hidden; how many is the method's mask_ratio."""

    mask: Literal[
        "random",
        "block",
        "zigzag",
        "hilbert",
        "peano",
        "spiral",
        "snake",
        "green",
        "sma",
        "sgmae",
    ] = "random"
    """What is hidden. random: any; block: rectangles or boxes (BEiT, arXiv 2106.08254); zigzag, hilbert,
    peano, spiral, snake: all but pieces of a curve; green: what lies low in band-passed noise (ColorMAE,
    arXiv 2407.13036); sma: what a few patches attend to most in the first block (arXiv 2402.14789); sgmae:
    the cluster of patches that the encoder sets apart (arXiv 2507.19773)."""
    mask_pattern: Literal["runs", "stride", "centre"] = "runs"
    """Curves only. runs: pieces of mask_run are visible; stride: visible patches are spread evenly along it;
    centre, of spirals: mostly those near the middle are visible, so that patches are not hidden alike."""
    mask_run: int | None = setting(None, ge=1)
    """Curves in runs only: length of a visible piece. Default: 4 in images, 8 in volumes."""
    mask_queries: int = setting(3, ge=1)
    """sma only: how many patches are asked what they attend to, drawn anew for each input."""
    mask_warmup: float = setting(0.1, ge=0, le=1)
    """Share of the steps. sma: in which masks go from random ones to guided ones, along half a cosine;
    sgmae: of random masks before the first guided one."""
    mask_hints: float = setting(0.1, ge=0, le=1)
    """sgmae only: share of the cluster whose patches are no likelier hidden than others, at the last step;
    it falls to this from 1 after mask_warmup."""

    @property
    def mask_described(self) -> str:
        """What is hidden in words, "" for random masks."""
        if self.mask in CURVED:
            return f", {self.mask_pattern} of the {self.mask} curve"
        return "" if self.mask == "random" else f", masks by {self.mask}"

    def check_mask(self, encoder: EncoderSettings) -> None:
        """Raise ValueError, naming settings, where the mask does not fit the encoder."""
        if self.mask in GUIDED and not encoder.attends:
            raise ValueError(
                f"method.mask {self.mask} follows the attention of an encoder of patches, and encoder.name "
                f"{encoder.name} has none: take method.mask random, block, green or a curve "
                f"({', '.join(CURVED)})"
            )
        if self.mask in CURVED and self.mask_pattern == "centre" and self.mask != "spiral":
            raise ValueError(
                f"method.mask_pattern centre is for method.mask spiral, not {self.mask}: take runs or stride"
            )
