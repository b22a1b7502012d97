"""The kinds of samples: what differs between studies of images and volumes, everywhere but in networks.

Nothing of PyTorch is imported before a batch is made: drivers and readers of data do without.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

import numpy as np

from ray_mae.config.sections import DataConfig, EncoderSettings, StudyDataConfig
from ray_mae.data.letterbox import letterbox, unflatten
from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.study_collator import StudyCollator
from ray_mae.data.loading.view_windows import WindowJitter
from ray_mae.data.loading.volume_collator import VolumeCollator
from ray_mae.data.loading.volume_windows import VolumeWindowCollator
from ray_mae.data.schema import NOUNS

MOST_VIEWS = 16
"""Views of a study that is evaluated, unless a setting says otherwise."""


class Kind(ABC):
    """A kind of sample: its batches, and its numbers where no data is there yet."""

    name: ClassVar[str]
    """In manifests: study or volume."""
    inputs: ClassVar[str]
    """What an encoder sees of a sample."""
    stored_bytes: ClassVar[float]
    """Of an input in the shards, where nothing better is known."""
    utilisation: ClassVar[float]
    """Share of a GPU's peak that training uses, where nothing better is known."""
    unlabelled: ClassVar[str]
    """What an evaluation does with samples without a label, in words; "" where the settings say it."""

    seen: ClassVar[str]
    """What a training under supervision sees of a sample, in words."""

    @property
    def noun(self) -> str:
        """Its plural."""
        return NOUNS[self.name]

    @abstractmethod
    def training_collator(
        self, size: int, data: DataConfig, *, seed: int, tokenizer: str | None = None
    ) -> Collator:
        """Returns how rows become the batches of a pretraining.

        Args:
            size: side of what the encoder sees, in pixels or voxels.
            data: how samples are drawn, of this kind.
            seed: of what is drawn.
            tokenizer: JSON document; None gives batches without text.
        """

    @abstractmethod
    def supervised_collator(self, size: int, seed: int, max_views: int = MOST_VIEWS) -> Collator:
        """Returns how rows become the batches of a training under supervision.

        Args:
            size: side of what the encoder sees, in pixels or voxels.
            seed: of what is drawn.
            max_views: of a study, at most.
        """

    @abstractmethod
    def evaluation_collator(
        self, size: int, seed: int = 0, max_views: int = MOST_VIEWS
    ) -> Collator:
        """The same where every sample is seen alike each time: the middle of a volume, all views."""

    def whole_collator(self, size: int) -> Collator:
        """Returns how rows become batches of windows over the whole of each sample, of side `size`.

        Raises:
            ValueError: for samples that are seen whole anyway.
        """
        raise ValueError(
            f"sees windows is for volumes: the {self.inputs} of {self.noun} are seen whole"
        )

    @abstractmethod
    def read_per_core(self, size: int) -> float:
        """Returns inputs that a core reads and packs in a second, by benchmarks/reading.py.

        Args:
            size: side of what the encoder sees, in pixels or voxels.
        """

    @abstractmethod
    def inputs_per_sample(self, stored: float, data: DataConfig) -> float:
        """How many inputs a training sample has, of so many that are stored of it on average."""

    @abstractmethod
    def most_inputs(self, data: DataConfig) -> int:
        """The most inputs of one training sample."""

    @abstractmethod
    def to_batch(self, arrays: dict[str, np.ndarray], *, pin: bool = False) -> Any:
        """Returns the arrays of a collator as a batch on the CPU (copied: Ray's are read-only).

        Args:
            arrays: by name.
            pin: into memory that a GPU reads while the host goes on.
        """

    @abstractmethod
    def empty_batch(
        self, size: int, samples: int, inputs: int, *, most: int = 1, tokens: int | None = None
    ) -> Any:
        """Returns a batch without content, on PyTorch's meta device.

        Args:
            size: side of what the encoder sees, in pixels or voxels.
            samples: in the batch.
            inputs: of all of them together.
            most: inputs of one sample.
            tokens: length of a report; None where none is read.
        """


class Studies(Kind):
    """Studies of one to several X-ray views, with a report or without."""

    name = "study"
    inputs = "views"
    stored_bytes = 39e3  # zstd of 256 px, measured by benchmarks/encodings.py
    utilisation = 0.3
    unlabelled = ""
    seen = "views as a whole, in training cropped at random."

    def training_collator(
        self, size: int, data: DataConfig, *, seed: int, tokenizer: str | None = None
    ) -> Collator:
        studies = cast(StudyDataConfig, data)
        return StudyCollator(
            studies.max_views,
            studies.text,
            tokenizer,
            studies.max_tokens,
            seed,
            windows=WindowJitter(studies.window_jitter),
        )

    def supervised_collator(self, size: int, seed: int, max_views: int = MOST_VIEWS) -> Collator:
        return StudyCollator(max_views=max_views, seed=seed, windows=WindowJitter())

    def evaluation_collator(
        self, size: int, seed: int = 0, max_views: int = MOST_VIEWS
    ) -> Collator:
        return StudyCollator(max_views=max_views, seed=seed)

    def read_per_core(self, size: int) -> float:
        return 3_000.0  # of 256 px, whatever is cut from them

    def inputs_per_sample(self, stored: float, data: DataConfig) -> float:
        return min(stored, self.most_inputs(data))

    def most_inputs(self, data: DataConfig) -> int:
        return cast(StudyDataConfig, data).max_views

    def to_batch(self, arrays: dict[str, np.ndarray], *, pin: bool = False) -> Any:
        from ray_mae.batch import StudyBatch

        others = {name: array for name, array in arrays.items() if name != "pixels"}
        canvas, side = letterbox(unflatten(arrays["pixels"], arrays["shape"]))
        most = int(np.bincount(arrays["study"]).max())
        images = _tensors({"images": canvas, "side": side}, pin, copy=False)
        return StudyBatch(**images, **_tensors(others, pin), known_most=most)

    _CANVAS = 1.4
    """Side of the canvas of stored images over the encoder's: 224 px are cut from 256 × 313 or so."""

    def empty_batch(
        self, size: int, samples: int, inputs: int, *, most: int = 1, tokens: int | None = None
    ) -> Any:
        import torch

        from ray_mae.batch import StudyBatch

        side = round(self._CANVAS * size)
        return StudyBatch(
            _empty(inputs, 1, side, side, dtype=torch.uint8),
            side=_empty(inputs),
            study=_empty(inputs),
            view=_empty(inputs),
            key=_empty(samples),
            draw=_empty(samples),
            view_draw=_empty(inputs),
            tokens=_empty(samples, tokens or 1),
            has_report=_empty(samples, dtype=torch.bool),
            known_most=most,
        )


class Volumes(Kind):
    """Volumes of one channel, of which a crop is seen."""

    name = "volume"
    inputs = "crops"
    stored_bytes = 5e6  # of a brain at 1 mm
    utilisation = 0.15  # convolutions of few channels and norms wait for memory
    unlabelled = (
        "a volume without a label is left out of it; of a label with more than two values each is "
        "learnt against the rest."
    )
    seen = "one crop of each volume: at a random place in training, the middle for validation and test."

    def training_collator(
        self, size: int, data: DataConfig, *, seed: int, tokenizer: str | None = None
    ) -> Collator:
        return VolumeCollator(size, seed)

    def supervised_collator(self, size: int, seed: int, max_views: int = MOST_VIEWS) -> Collator:
        return VolumeCollator(size, seed)

    def evaluation_collator(
        self, size: int, seed: int = 0, max_views: int = MOST_VIEWS
    ) -> Collator:
        return VolumeCollator(size, seed, centre=True)

    def whole_collator(self, size: int) -> Collator:
        return VolumeWindowCollator(size)

    def read_per_core(self, size: int) -> float:
        return 180e6 / size**3  # voxels; larger crops are faster

    def inputs_per_sample(self, stored: float, data: DataConfig) -> float:
        return 1.0

    def most_inputs(self, data: DataConfig) -> int:
        return 1

    def to_batch(self, arrays: dict[str, np.ndarray], *, pin: bool = False) -> Any:
        from ray_mae.batch import VolumeBatch, WindowBatch

        return (WindowBatch if "weight" in arrays else VolumeBatch)(**_tensors(arrays, pin))

    def empty_batch(
        self, size: int, samples: int, inputs: int, *, most: int = 1, tokens: int | None = None
    ) -> Any:
        import torch

        from ray_mae.batch import VolumeBatch

        shape = (samples, 1, *[size] * 3)
        return VolumeBatch(
            _empty(*shape, dtype=torch.half),
            valid=_empty(*shape, dtype=torch.bool),
            key=_empty(samples),
            draw=_empty(samples),
            known_draw=torch.arange(samples, device="cpu"),
        )


KINDS: dict[str, Kind] = {kind.name: kind for kind in (Studies(), Volumes())}
"""By the name that manifests and methods give."""


def require_kind(kind: str, expected: str, shards: Any, reader: str) -> None:
    """Raises ValueError where shards hold another kind than their reader reads.

    Args:
        kind: of the shards.
        expected: kind of the reader.
        shards: where they lie.
        reader: who is to read them, in words.
    """
    if kind != expected:
        raise ValueError(f"{shards} holds shards of kind {kind!r}, {reader} reads {expected!r}")


def of_encoder(settings: EncoderSettings) -> Kind:
    """Returns the kind of sample that an encoder reads."""
    return KINDS["study" if settings.dimensions == 2 else "volume"]


def _tensors(arrays: dict[str, np.ndarray], pin: bool, *, copy: bool = True) -> dict[str, Any]:
    import torch

    tensors = {
        name: torch.from_numpy(array.copy() if copy else array) for name, array in arrays.items()
    }
    return {name: t.pin_memory() for name, t in tensors.items()} if pin else tensors


def _empty(*shape: int, dtype: Any = None) -> Any:
    import torch

    return torch.empty(shape, dtype=dtype or torch.long, device="meta")
