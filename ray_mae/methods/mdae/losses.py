"""The weight of MDAE's loss on visible voxels."""

import torch
from torch import Tensor

_SMALLEST = 0.1

"""σ below which 1/σ² grows no further, or t near 0 would be all that counts."""


def noise_weight(sigma: Tensor, form: str = "dsm_clipped") -> Tensor:
    """w(σ) [B] of the visible loss, float32, before it is divided by its mean over t.

    sigma: [B] of x + σ z. With x₀ predicted, the score is (x̂ − x_t)/σ² (Tweedie), and denoising score
    matching weighted by σ² (Song and Ermon 2019) is 1/σ². dsm_clipped: 1/max(σ, 0.1)²; edm: that plus
    1 (Karras et al. 2022, equation 5 with σ_data 1); bounded: 1/(σ² + 1); none: 1.
    """
    sigma = sigma.float()
    if form == "none":
        return torch.ones_like(sigma)
    if form == "bounded":
        return 1 / (sigma.square() + 1)
    return 1 / sigma.clamp(min=_SMALLEST).square() + (1.0 if form == "edm" else 0.0)
