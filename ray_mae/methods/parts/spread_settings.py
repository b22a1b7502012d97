"""Settings of the terms that keep the vectors of an encoder apart, for methods that have them."""

from dataclasses import dataclass

from ray_mae.config.base import setting
from ray_mae.config.sections import MethodSettings


@dataclass(frozen=True, kw_only=True)
class SpreadSettings(MethodSettings):
    """Weights of terms on one vector of each input, against collapse; 0 leaves one out, to the bit."""

    uniformity: float = setting(0.0, ge=0)
    """Weight of the mean squared cosine of all pairs of vectors of the batch (U-MAE, arXiv 2210.08344). The
    paper says 0.01; its code divides that by the number of GPUs, so 0.00125 is what its eight had."""
    sigreg: float = setting(0.0, ge=0)
    """Weight of a test of whether the vectors have a standard normal distribution, in random directions
    (SIGReg of LeJEPA, arXiv 2511.08544: 0.02 beside an invariance with 0.98)."""
    koleo: float = setting(0.0, ge=0)
    """Weight of minus the mean log distance of each vector to the nearest one (DINOv2, arXiv 2304.07193:
    0.1)."""

    @property
    def spreads(self) -> dict[str, float]:
        """Weights of those terms that have one, by name."""
        weights = {"uniformity": self.uniformity, "sigreg": self.sigreg, "koleo": self.koleo}
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def spread_described(self) -> str:
        """The terms for `described`, with a comma before each; "" where there is none."""
        return "".join(f", {name} {weight:g}" for name, weight in self.spreads.items())

    @property
    def coupled(self) -> bool:
        return bool(self.spreads)
