"""What training knows of a method: this, and nothing of images or volumes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self, cast

from torch import Tensor, device, nn

from ray_mae.config.sections import DataConfig, StudyDataConfig, VolumeDataConfig
from ray_mae.encoders.base import Encoder


class Losses(NamedTuple):
    """What a method's forward returns."""

    total: Tensor
    """Scalar: what is minimised."""
    parts: dict[str, Tensor]
    """Scalars by name, unweighted, for the record; without gradient. Names are of `MethodSettings.losses`."""
    ratios: Mapping[str, Tensor] = MappingProxyType({})
    """[2] each: a sum over some of the samples and how many they were, for the record of their mean.

    To be added up over steps and workers before dividing; there is no mean where the count is 0.
    """
    each: Tensor | None = None
    """[S] the loss of each sample, without gradient, for the record by data set."""


@dataclass(frozen=True)
class Pictures:
    """What a person wants to see of a batch."""

    images: dict[str, Tensor] = field(default_factory=dict)
    """[H, W] grey values in [0, 1] by name."""
    texts: list[dict[str, str]] = field(default_factory=list)
    """Rows of named texts."""


class Batch(Protocol):
    """What training knows of a batch."""

    @property
    def key(self) -> Tensor:
        """[S] int64, stable keys of its samples."""
        ...

    @property
    def samples(self) -> int: ...

    @property
    def inputs(self) -> int:
        """How many images or crops the encoder sees; `flops` takes their number."""
        ...

    def to(self, device: device | str) -> "Batch": ...


@dataclass(frozen=True)
class Vocabulary:
    """Of the tokenizer of reports, for methods that read them."""

    size: int = 0
    """Tokens; 0 where the method reads no report."""
    pad: int = 0
    first: int = 2
    last: int = 3
    mask: int = 4


@dataclass(frozen=True)
class Context:
    """What a method is built for, beside its settings and its encoder's."""

    seed: int
    """Of the weights: the same seed gives the same."""
    steps: int
    """Optimiser steps of the whole run."""
    warmup_steps: int
    data: DataConfig
    """How samples are drawn and changed."""
    vocabulary: Vocabulary = Vocabulary()
    recompute: bool = False
    """Whether activations are computed again in the backward pass."""
    frozen: Encoder | None = None
    """That of `MethodSettings.frozen_encoder`, with its weights."""

    @property
    def studies(self) -> StudyDataConfig:
        """`data` of a method of studies."""
        return cast(StudyDataConfig, self.data)

    @property
    def volumes(self) -> VolumeDataConfig:
        """`data` of a method of volumes."""
        return cast(VolumeDataConfig, self.data)


class Method(nn.Module):
    """A pretraining method: a folder with its settings and its model, and a line in `registry.py`.

    `forward` is called by DeepSpeed's engine, so the parameters of all submodules are there in it. Random
    numbers come from the keys of samples alone (`ray_mae.transforms.keyed_random`), so that a step is
    the same on any number of workers and after a restart.
    """

    encoder: Encoder
    """What is kept. Its weights are named `encoder.…` in every checkpoint."""
    follows: bool = True
    """Whether its `after_step` has anything to do, where it has one of its own."""

    @classmethod
    def build(cls, settings: Any, encoder: Any, context: Context) -> Self:
        """Returns the method with fresh weights.

        Args:
            settings: the method's, a `MethodSettings` of its own class.
            encoder: the settings of the encoder that it trains; `MethodSettings.check` has taken them.
            context: what else it depends on.
        """
        raise NotImplementedError

    def forward(self, batch: Any, step: int, watch: bool = False) -> Losses:
        """Corrupts, encodes, decodes: the loss, a mean over the batch's samples.

        Args:
            batch: of the method's kind, a StudyBatch or a VolumeBatch.
            step: optimiser steps done before this one.
            watch: also record metrics that are too costly for every step, as signs of collapse.
        """
        raise NotImplementedError

    def after_step(self, step: int, taken: Tensor) -> None:
        """Called when `step` optimiser steps have been done: teachers, queues.

        What it changes must be buffers: they are part of the checkpoint, and no ZeRO stage divides them.

        Args:
            step: optimiser steps done, this one among them.
            taken: scalar bool on the device, false where the step was skipped since its gradient was not
                finite on some worker. Then no buffer may change; nobody waits to hear of it.
        """

    def begin(self) -> None:
        """Called when a new run has taken weights of others: teachers begin as what they follow."""

    def no_weight_decay(self) -> set[str]:
        """Names of its own parameters that are no matrices and are not decayed, as of `Encoder`."""
        return set()

    def pictures(self, batch: Any, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """Originals beside reconstructions, true texts beside generated ones.

        Args:
            batch: a few held-out samples.
            decode: token ids of a report → its text; None where no report is read.
        """
        return Pictures()

    def metrics(self, step: int) -> dict[str, float]:
        """What else belongs beside the losses of a step: weights that change, such as β."""
        return {}

    def flops(self, images: int, samples: int) -> float:
        """Floating point operations of forward and backward for so many images and samples."""
        raise NotImplementedError
