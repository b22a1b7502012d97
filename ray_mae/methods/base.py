"""What training and evaluation know of a method: this, and nothing of images or volumes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, device


class Losses(NamedTuple):
    """What a method's forward returns."""

    total: Tensor
    """Scalar: what is minimised."""
    parts: dict[str, Tensor]
    """Scalars by name, unweighted, for the record; without gradient."""
    counted: Mapping[str, Tensor] = MappingProxyType({})
    """[2] each: a sum over some of the samples and how many they were, for the record of their mean.

    To be added up over steps and workers before dividing; there is no mean where the count is 0.
    """


@dataclass(frozen=True)
class Pictures:
    """What a person wants to see of a batch."""

    images: dict[str, Tensor] = field(default_factory=dict)
    """[H, W] grey values in [0, 1] by name."""
    texts: list[dict[str, str]] = field(default_factory=list)
    """Rows of named texts."""


class Batch(Protocol):
    """What training knows of a batch."""

    key: Tensor
    """[S] int64, stable keys of its samples."""

    @property
    def samples(self) -> int: ...

    @property
    def inputs(self) -> int:
        """How many images or crops the encoder sees; `flops` takes their number."""
        ...

    def to(self, device: device | str) -> "Batch": ...


@runtime_checkable
class Method(Protocol):
    """A pretraining method. One file in `methods/`, one YAML in `jobs/`."""

    def forward(self, batch: Any, step: int, watch: bool = False) -> Losses:
        """Corrupt, encode, decode: the loss, a mean over the batch's samples.

        watch: also record figures that are too costly for every step, as signs of collapse.
        """
        ...

    def pictures(self, batch: Any, decode: Callable[[list[int]], str] | None) -> Pictures:
        """Originals beside reconstructions, true texts beside generated ones."""
        ...

    def figures(self, step: int) -> dict[str, float]:
        """What else belongs beside the losses of a step: weights that change, such as β."""
        ...

    def flops(self, images: int, samples: int) -> float:
        """Floating point operations of forward and backward for so many images and samples."""
        ...
