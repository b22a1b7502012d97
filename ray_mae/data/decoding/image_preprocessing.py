"""Preprocessing of one radiograph: from its file to what is stored of it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ray_mae.config import BodyPart, IngestConfig
from ray_mae.data.decoding.deep import Grey
from ray_mae.data.decoding.dicom import Header, is_dicom, read_dicom
from ray_mae.data.decoding.images import read_image, shrink
from ray_mae.data.decoding.stored_images import Encoding, encode
from ray_mae.data.quarantine import QuarantineError

Rule = Literal["quarantine", "keep"]


@dataclass(frozen=True)
class PreparedImage:
    """An image as it is stored."""

    image: bytes
    height: int
    width: int
    header: Header | None
    """Of DICOM files."""


@dataclass(frozen=True)
class ImagePreparation:
    """Which radiographs are taken, and how they are stored; see IngestConfig."""

    max_pixels: int
    image_size: int
    encoding: Encoding
    jpeg_quality: int
    max_aspect: float
    burned_in: Rule
    secondary_captures: Rule
    body_parts: list[BodyPart] | None
    bits: int = 8

    @classmethod
    def of(cls, config: IngestConfig) -> "ImagePreparation":
        """As the settings of an ingest have it."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def prepare(self, path: Path) -> PreparedImage:
        """Read, check, shrink and encode one image.

        Args:
            path: of a DICOM, PNG or JPEG file, on this machine.

        Raises:
            QuarantineError: for everything that can be wrong with the file or the image.
        """
        image, header = self._read(path)
        long, short = max(image.shape), min(image.shape)
        if long > self.max_aspect * short:
            raise QuarantineError("elongated", f"{image.shape[0]} x {image.shape[1]} pixels")
        image = shrink(image, self.image_size)
        stored = encode(image, self.encoding, self.jpeg_quality, self.bits)
        return PreparedImage(stored, image.shape[0], image.shape[1], header)

    def _read(self, path: Path) -> tuple[Grey, Header | None]:
        try:
            dicom = path.suffix.lower() == ".dcm" or is_dicom(path)
        except (OSError, ValueError):
            dicom = False  # the reader of images says what is wrong with it
        if dicom:
            return read_dicom(path, self.max_pixels, self.check, deep=self.bits > 8)
        return read_image(path, self.max_pixels, deep=self.bits > 8), None

    def check(self, header: Header) -> None:
        """Raise QuarantineError if the header says that the image is none of those wanted."""
        if header.capture and self.secondary_captures == "quarantine":
            raise QuarantineError("secondary-capture", header.capture)
        if header.burned_in and self.burned_in == "quarantine":
            raise QuarantineError("burned-in", "BurnedInAnnotation is neither NO nor absent")
        part, wanted = header.body_part, self.body_parts
        if part == "phantom" if wanted is None else part not in wanted:
            of = "every part but phantom" if wanted is None else ", ".join(wanted)
            raise QuarantineError("body-part", f"{part}; body_parts keeps {of}")
