"""Preprocessing of one volume: from its files to what is stored of it.

A volume is turned to RAS, cropped to its anatomy, z-scored over its foreground and resampled, in
this order: the statistics are those of measured voxels, and only what is kept is resampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ray_mae.config import VolumeSettings
from ray_mae.data.decoding.background import fill_background, flat_share
from ray_mae.data.decoding.dicom_series import is_series, read_series
from ray_mae.data.decoding.faces import FaceRule, find_head, take_out
from ray_mae.data.decoding.foreground import extent, foreground
from ray_mae.data.decoding.geometry import Volume, crop, on_grid_of, resample, to_ras
from ray_mae.data.decoding.nifti import Bounds, LabelsOutOfRange, read_mask, read_nifti
from ray_mae.data.quarantine import QuarantineError

# Fewer different values than this are those of a mask or a label map.
LEAST_VALUES = 16
# More than the regions of any atlas of a head: then no label map is looked for.
MOST_LABELS = 2000
FLAT = 0.5
MASKS = ("valid", "anonymised", "anatomy", "segmentation", "face")


@dataclass(frozen=True)
class Prepared:
    """A volume as it is stored, before it becomes bytes."""

    image: Volume
    """z-scores, float32"""
    mean: float
    std: float
    """Of the foreground, before z-scoring."""
    valid: NDArray[np.bool_] | None
    """On the image's grid; None where every voxel is valid."""
    segmentation: NDArray[np.uint8] | None
    """None as well where the label map has labels above 255."""
    face: str
    """head, brain, unknown (see `find_head`), or defaced, of what is stored."""
    mended: tuple[str, ...] = ()
    """What was wrong with the file and is mended, in words to count."""


@dataclass(frozen=True)
class Preparation:
    """How a volume is checked and brought into shape; see VolumeSettings."""

    bounds: Bounds
    margin_mm: float
    min_solid: float
    max_deviation: float
    faces: FaceRule = "keep"

    @classmethod
    def of(
        cls, settings: VolumeSettings, burned_in: Literal["quarantine", "keep"] = "quarantine"
    ) -> "Preparation":
        """What the settings say."""
        bounds = Bounds(
            spacing_mm=settings.spacing_mm,
            max_voxels=settings.max_voxels,
            min_slices=settings.min_slices,
            max_spacing_mm=settings.max_spacing_mm,
            max_extent_mm=settings.max_extent_mm,
            burned_in=burned_in,
            four_dimensional=settings.four_dimensional,
            orientation=settings.orientation,
        )
        return cls(
            bounds, settings.margin_mm, settings.min_solid, settings.max_deviation, settings.faces
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Preparation":
        """The inverse of `asdict`."""
        return cls(**{**fields, "bounds": Bounds(**fields["bounds"])})

    def prepare(self, paths: Sequence[Path], masks: Mapping[str, Path]) -> Prepared:
        """Read and preprocess one volume.

        Args:
            paths: of its files: one, or the slices of a DICOM series.
            masks: paths by name, of MASKS.

        Raises:
            QuarantineError: for everything that can be wrong with the files or the values.
        """
        image, mended = self._read(paths)
        read = {}
        for name, path in masks.items():
            try:
                mask = read_mask(path, self.bounds, name)
            except LabelsOutOfRange:
                if name != "segmentation":
                    raise
                continue  # the image is as good without; the summary counts those left out
            read[name] = on_grid_of(to_ras(mask), image).values
        face: str | None = None
        if "face" in read:
            image, taken, face = take_out(image, read.pop("face") != 0, self.faces)
            if face == "defaced":
                read["anonymised"] = read.get("anonymised", np.uint8(0)) | taken
        elif "anonymised" in read and read["anonymised"].any():
            face = "defaced"
        face = face or find_head(image.values, image.spacing)
        anatomy = read["anatomy"] != 0 if "anatomy" in read else foreground(image.values)
        box, solid = extent(anatomy, image.spacing, self.margin_mm)
        if not anatomy[box].any() or ("anatomy" not in read and solid < self.min_solid):
            raise QuarantineError("no-anatomy", f"{solid:.0%} of the foreground is solid")
        image = crop(image, box)
        scores, mean, std = self._z_scores(image, anatomy[box])

        def carried(values: NDArray[Any] | None) -> NDArray[Any] | None:
            if values is None:
                return None
            part = Volume(values[box], image.affine)
            return resample(part, self.bounds.spacing_mm, nearest=True).values

        return Prepared(
            image=resample(scores, self.bounds.spacing_mm),
            mean=mean,
            std=std,
            valid=carried(_valid(read)),
            segmentation=carried(read.get("segmentation")),
            face=face,
            mended=tuple(mended),
        )

    def _read(self, paths: Sequence[Path]) -> tuple[Volume, list[str]]:
        """The volume in RAS order, its values checked, and what was mended. Raises QuarantineError."""
        mended: list[str] = []
        if is_series(paths):
            volume = read_series(paths, self.bounds)
        else:
            volume, mended = read_nifti(paths[0], self.bounds)
        values, filled = fill_background(volume.values)
        if filled:
            mended = [*mended, "background"]
        if values.min() == values.max():
            raise QuarantineError("constant", f"every voxel is {values.flat[0]:g}")
        step = max(1, values.size // 1_000_000)
        different = np.unique(values.ravel()[::step])
        if len(different) < LEAST_VALUES:
            raise QuarantineError("wrong-range", f"only {len(different)} different values")
        if len(different) <= MOST_LABELS and (different == np.rint(different)).all():
            _check_flat(values)
        return to_ras(Volume(values, volume.affine)), mended

    def _z_scores(self, image: Volume, inside: NDArray[np.bool_]) -> tuple[Volume, float, float]:
        """The volume less its foreground's mean, over its standard deviation; and the two."""
        part = image.values[inside].astype(np.float64)
        mean, std = float(part.mean()), float(part.std())
        if std == 0:
            raise QuarantineError("constant", f"every voxel of the foreground is {mean:g}")
        values = ((image.values - mean) / std).astype(np.float32)
        if (worst := float(np.abs(values).max())) > self.max_deviation:
            raise QuarantineError(
                "wrong-range", f"a voxel {worst:.0f} standard deviations from the mean"
            )
        return Volume(values, image.affine), mean, std


def _check_flat(values: NDArray[np.float32]) -> None:
    """Raise QuarantineError if whole numbers fill regions, as the labels of a label map do."""
    if (share := flat_share(values)) > FLAT:
        raise QuarantineError(
            "label-map", f"whole numbers, {share:.0%} of neighbours alike: regions, no grey values"
        )


def _valid(masks: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.bool_] | None:
    """Where voxels are valid, None if nothing says that some are not."""
    valid = masks["valid"] != 0 if "valid" in masks else None
    if "anonymised" in masks:
        unchanged = masks["anonymised"] == 0
        valid = unchanged if valid is None else valid & unchanged
    return valid
