"""From a vector of the encoder to cosines with prototypes."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Prototypes(nn.Module):
    """Cosines of vectors with learnt directions: a layer with weights normalised, and no scale to learn.

    Args:
        width: of a vector.
        number: K.
    """

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """[…, width] → [… , K] float32 in [−1, 1]; frozen: without gradient for the weights."""
        # a zero and no missing gradient: engines want one of each parameter
        weight = self.weight.detach() + 0 * self.weight if frozen else self.weight
        n, w = F.normalize(x.float(), dim=-1), F.normalize(weight.float(), dim=-1)
        return F.linear(n.to(self.weight.dtype), w.to(self.weight.dtype)).float()

    def no_weight_decay(self) -> set[str]:
        return {"weight"}  # their lengths mean nothing


class Head(nn.Module):
    """DINO's: three layers with GELU, and prototypes.

    Args:
        width: of the encoder.
        hidden: of the hidden layers.
        bottleneck: of what is compared with the prototypes.
        prototypes: how many.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        widths = width, hidden, hidden, bottleneck
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layer = nn.Linear(before, after)
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.prototypes = Prototypes(bottleneck, prototypes)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """[…, width] → […, K] float32 cosines; frozen: prototypes without gradient."""
        return self.prototypes(self.layers(x), frozen)
