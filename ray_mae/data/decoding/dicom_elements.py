"""The elements of a DICOM file, as pydicom parses them, within bounds of memory and time."""

import io
import os
import zlib
from collections.abc import Iterable
from typing import BinaryIO, cast

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ray_mae.data.quarantine import QuarantineError


class CountedFile:
    """A file of which pydicom parses no more than a header has.

    It parses sequences of unknown length even where nobody asks for them: 650 bytes of memory and 25 µs
    for each empty item of 8 bytes in the file. What it skips counts for nothing, however long.
    """

    def __init__(self, file: BinaryIO, most: int, *, pixels: bool) -> None:
        """most: bytes to be read, and 16 times the elements; pixels: whether those are read too."""
        self.most, self.pixels = most, pixels
        self.failure: OSError | None = None
        """Of the file: pydicom may turn it into another error."""
        self.replace(file)
        # Bytes, elements, and reads of pixel data: those come in as many fragments as they like.
        self.left = [most, most // 16, 1 << 22]
        self.counts = True

    def replace(self, file: BinaryIO) -> None:
        """Go on at the beginning of another file."""
        self.file = file
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def tell(self) -> int:
        """As of a file."""
        return self.file.tell()

    def seek(self, *to: int) -> int:
        """As of a file."""
        return self.file.seek(*to)

    def read(self, size: int = -1) -> bytes:
        """As of a file. QuarantineError once it was too much; pydicom turns it into others at times."""
        if size < 0:  # to inflate what comes, however large it gets
            raise QuarantineError("undecodable", "deflated, but not as its own header says")
        if not self.counts:
            self.left[2] -= 1
            self.check_budget()
            # Python takes memory for what is asked for, and a length may lie.
            return self._read(max(0, min(size, self.size - self.file.tell())))
        data = self._read(min(size, self.left[0] + 1))
        self.left[0] -= len(data)
        self.left[1] -= 1
        if (
            size > 8
        ):  # parsed when it is asked for: sequences of known length, and texts of many values
            items = data.count(_ITEM) + data.count(_ITEM_BIG_ENDIAN)
            self.left[1] -= 4 * items + data.count(b"\\")  # an item takes some four reads
        self.check_budget()
        return data

    def _read(self, size: int) -> bytes:
        try:
            return self.file.read(size)
        except OSError as error:
            self.failure = error
            raise

    def check_budget(self) -> None:
        """Raise QuarantineError if more was parsed than a header has."""
        if min(self.left) < 0:
            raise QuarantineError("too-large", f"more in the header than {self.most} bytes can be")

    def stop_when(self, tag: BaseTag, _: str | None, length: int) -> bool:
        """Whether pydicom is to stop here: called before the value of each element of the file itself."""
        at_pixels = tag in _PIXEL_DATA
        self.counts = not at_pixels
        return at_pixels and not self.pixels


_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_ITEM, _ITEM_BIG_ENDIAN = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"
_PIXEL_DATA = {Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData")}
MOST_BYTES = 4 << 20
"""Bytes of a header that are parsed at most: real ones have some kilobytes, and 128 kB for each look-up
table. Those of 8 bytes would take 45 MB."""


def read_elements(
    counted: CountedFile, tags: Iterable[BaseTag], max_bytes: int, *, bare: bool
) -> Dataset:
    """The wanted elements of a file at its beginning, with the transfer syntax in its file_meta.

    max_bytes: of a deflated file, inflated; bare: whether there is no preamble.
    """
    file, wanted = cast(BinaryIO, counted), list[BaseTag | int](tags)
    if _DEFLATED in counted.file.read(4096):
        counted.seek(0 if bare else 132)
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            counted.replace(_inflate(counted.file, max_bytes))
            ds = read_dataset(file, False, True, stop_when=counted.stop_when, specific_tags=wanted)
            ds.file_meta = FileMetaDataset(meta)
            return ds
    counted.seek(0)
    ds = read_partial(file, counted.stop_when, force=bare, specific_tags=wanted)
    if "TransferSyntaxUID" not in ds.file_meta:  # pydicom found out how it is encoded
        implicit, _ = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    return ds


def _inflate(file: BinaryIO, limit: int) -> BinaryIO:
    """The rest of a deflated file, which pydicom would inflate however large it gets."""
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO()
    while not inflater.eof and (data := inflater.unconsumed_tail or file.read(1 << 20)):
        inflated.write(inflater.decompress(data, 1 << 20))
        if inflated.tell() > limit:
            raise QuarantineError("too-large", f"inflates to more than {limit} bytes")
    if not inflater.eof:
        raise QuarantineError("undecodable", "the deflated data set is cut off")
    return inflated
