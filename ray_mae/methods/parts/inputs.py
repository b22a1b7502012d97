"""What an encoder sees of a batch, whatever its kind: views of studies, or crops of volumes."""

from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor

from ray_mae.batch import StudyBatch, VolumeBatch, mean_per_study
from ray_mae.config.sections import EncoderSettings
from ray_mae.methods.base import Batch, Context
from ray_mae.transforms.images import Augmentation, whole
from ray_mae.transforms.volumes import VolumeAugmentation, clean


@dataclass(frozen=True)
class Inputs:
    """N inputs of S samples: views of studies, or one crop of each volume."""

    x: Tensor
    """[N, 1, *sides] float32, normalised: of 2 axes for images, of 3 for volumes."""
    draw: Tensor
    """[N] int64, key of each input's random draws in this epoch."""
    key: Tensor
    """[S] int64, stable keys of the samples."""
    valid: Tensor | None = None
    """[N, 1, *sides] bool, False where there is nothing to learn; None: there is everywhere."""
    sample: Tensor | None = None
    """[N] int64, index of the input's sample, non-decreasing; None: each sample has one input."""
    view: Tensor | None = None
    """[N] int64, kind of view; None: there are none."""
    regions: Tensor | None = None
    """[N, 1, *sides] uint8, stored label maps, 0 where there is none; None: nobody asked for them."""
    most: int = 1
    """Inputs of the sample that has most."""

    @property
    def samples(self) -> int:
        """S."""
        return self.key.shape[0]

    def per_sample(self, values: Tensor) -> Tensor:
        """[S, …]: the mean of values [N, …] over each sample's inputs."""
        return values if self.sample is None else mean_per_study(values, self.sample, self.samples)

    def counted(self, region: Tensor) -> Tensor:
        """A region [N, 1, *sides] bool without what is not valid."""
        return region if self.valid is None else region & self.valid


class Reader(Protocol):
    """Makes `Inputs` of batches of one kind."""

    def __call__(self, batch: Batch) -> Inputs:
        """As training sees them: cropped and changed at random, by their draws."""
        ...

    def plain(self, batch: Batch) -> Inputs:
        """As a person or a probe sees them: unchanged."""
        ...


class Views:
    """Views of studies.

    Args:
        augment: changes of training.
        size: side of the square that an encoder sees, in pixels.
    """

    def __init__(self, augment: Augmentation, size: int) -> None:
        self.augment, self.size = augment, size

    def __call__(self, batch: Batch) -> Inputs:
        studies = cast(StudyBatch, batch)
        return self._of(studies, self.augment(studies, self.size))

    def plain(self, batch: Batch) -> Inputs:
        studies = cast(StudyBatch, batch)
        return self._of(studies, whole(studies, self.size))

    def _of(self, batch: StudyBatch, x: Tensor) -> Inputs:
        return Inputs(
            x,
            batch.view_draw,
            batch.key,
            sample=batch.study,
            view=batch.view,
            most=batch.most_views,
        )


class Crops:
    """Crops of volumes.

    Args:
        augment: changes of training.
    """

    def __init__(self, augment: VolumeAugmentation) -> None:
        self.augment = augment

    def __call__(self, batch: Batch) -> Inputs:
        volumes = cast(VolumeBatch, batch)
        x, valid = self.augment(volumes)
        regions = volumes.regions
        if regions is not None:
            regions = self.augment.labels(regions, volumes.draw, volumes.known_draw)
        return Inputs(x, volumes.draw, volumes.key, valid=valid, regions=regions)

    def plain(self, batch: Batch) -> Inputs:
        volumes = cast(VolumeBatch, batch)
        x, valid = clean(volumes)
        return Inputs(x, volumes.draw, volumes.key, valid=valid, regions=volumes.regions)


def reader_of(context: Context, encoder: EncoderSettings) -> Reader:
    """Returns what makes the inputs of an encoder.

    Args:
        context: of the run, whose data say how inputs are changed.
        encoder: its settings, whose kind decides.
    """
    if encoder.kind == "study":
        return Views(Augmentation.of(context.studies), encoder.input_size)
    return Crops(VolumeAugmentation.of(context.volumes))
