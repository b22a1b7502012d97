"""Real DICOM files, images and volumes, damaged in every way that a disk, a network or a person damages them.

    python -m tests.fuzzing --files 5000 [--seed 0]

reads so many damaged files as ingest does, in the decoder process under its limits of memory and time (a
DICOM file as a radiograph, by its header, and as a slice of a series), and prints how often which end was
met, how long the slowest took, and how much memory the readers took at most.
"""

import argparse
import gzip
import io
import random
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset, dcmread

from ray_mae.config import VolumeSettings
from ray_mae.data.decoding import decoder_process
from ray_mae.data.decoding.decoder_process import (
    prepare_image_isolated,
    prepare_volume_isolated,
    read_frames_isolated,
    read_headers_isolated,
)
from ray_mae.data.decoding.dicom import quiet
from ray_mae.data.decoding.image_preprocessing import ImagePreparation
from ray_mae.data.decoding.preprocessing import Preparation
from ray_mae.data.quarantine import QuarantineError

T = TypeVar("T")
LIMIT = 10_000_000
LARGEST = 800_000  # bytes of a file that is worth damaging thousands of times
CASES = Path(__file__).parents[2] / "shared" / "data" / "dicom_cases"
NIFTI = Path(nibabel.__file__).parent / "tests" / "data"
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
NUMBERS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
           "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration"]  # fmt: skip


_PILLOW = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF", ".bmp": "BMP", ".webp": "WEBP"}


def pictures() -> Iterator[tuple[str, bytes]]:
    """Files of every kind of picture, of the pixels of real ones."""
    with quiet():
        values = dcmread(SHIPPED / "CT_small.dcm").pixel_array
    grey = Image.fromarray((values >> 4).clip(0, 255).astype(np.uint8))
    deep = Image.fromarray(values.clip(0).astype(np.uint16))
    shown = {"grey.png": grey, "deep.png": deep, "palette.png": grey.convert("P"),
             "colour.png": grey.convert("RGBA"), "grey.jpg": grey, "colour.jpg": grey.convert("RGB"),
             "progressive.jpg": grey, "grey.tif": grey, "deep.tif": deep, "lzw.tif": grey,
             "tiled.tif": grey, "grey.bmp": grey, "palette.bmp": grey.convert("P"), "grey.webp": grey,
             "lossless.webp": grey.convert("RGBA")}  # fmt: skip
    for name, image in shown.items():
        file = io.BytesIO()
        options: dict[str, object] = {
            "progressive.jpg": {"progressive": True},
            "lzw.tif": {"compression": "tiff_lzw"},
            "tiled.tif": {"compression": "tiff_adobe_deflate", "tiffinfo": {322: 64, 323: 64}},
            "lossless.webp": {"lossless": True},
        }.get(name, {})
        image.save(file, _PILLOW[Path(name).suffix], **options)
        yield name, file.getvalue()


def volumes() -> Iterator[tuple[str, bytes]]:
    """Real NIfTI and MGH files, and a ball of each kind, so that some are good."""
    for name in ("anatomical.nii", "functional.nii", "example_nifti2.nii.gz", "test.mgz"):
        path = NIFTI / name
        if path.is_file() and path.stat().st_size < LARGEST:
            yield name, path.read_bytes()
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"))
    shown = ((at**2).sum(0) < 0.7) * (300 + 100 * at[0] + 60 * at[1] + 30 * at[2])
    for kind, suffix in (
        (nibabel.Nifti1Image, ".nii"), (nibabel.Nifti1Image, ".nii.gz"),
        (nibabel.Nifti2Image, ".nii.gz"), (nibabel.MGHImage, ".mgz"),
    ):  # fmt: skip
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            kind(shown.astype(np.float32), np.diag([4.0, 4, 4, 1])).to_filename(file.name)
            yield f"{kind.__name__}{suffix}", Path(file.name).read_bytes()


def originals() -> Iterator[tuple[str, bytes]]:
    """Real files, called radiographs so that their pixels are decoded, and a few as they are."""
    for path in sorted([*CASES.glob("*.dcm"), *SHIPPED.glob("*.dcm")]):
        content = path.read_bytes()
        if len(content) > LARGEST or b"\xe0\x7f\x10\x00" not in content:  # no pixel data
            continue
        if "dicom_cases" not in path.parts:
            yield path.name, content
        try:
            with quiet(), tempfile.NamedTemporaryFile(suffix=".dcm") as file:
                ds = dcmread(path)
                ds.Modality, ds.BurnedInAnnotation = "DX", None
                if int(ds.get("NumberOfFrames") or 1) > 1:
                    continue
                ds.save_as(file.name)
                content = Path(file.name).read_bytes()
            yield f"{path.name} as DX", content
        except Exception:  # some that pydicom ships are broken: they stay as they are
            continue


def header(draw: random.Random, content: bytearray) -> None:
    """Other bytes in the first two kilobytes."""
    _bytes(draw, content, 0, 2000)


def pixels(draw: random.Random, content: bytearray) -> None:
    """Other bytes in what follows the tag of the pixel data: lengths of fragments, a codec's stream."""
    start = max(0, content.find(b"\xe0\x7f\x10\x00"))
    _bytes(draw, content, start, draw.choice([start + 600, len(content)]))


def lengths(draw: random.Random, content: bytearray) -> None:
    """Lengths of elements that are none of theirs."""
    places = [
        i for i in range(132, min(len(content) - 8, 4000)) if bytes(content[i : i + 2]) in _VRS
    ]
    for at in draw.sample(places, min(len(places), draw.choice([1, 2, 5]))):
        long = bytes(content[at : at + 2]) in _LONG
        value = draw.choice([0, 1, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
        if long:
            content[at + 4 : at + 8] = struct.pack("<I", value)
        else:
            content[at + 2 : at + 4] = struct.pack("<H", value & 0xFFFF)


def truncation(draw: random.Random, content: bytearray) -> None:
    """The end is missing, as after an upload that broke off."""
    del content[draw.randrange(len(content)) :]


def blocks(draw: random.Random, content: bytearray) -> None:
    """A block is missing, there twice, or zero."""
    at, size = draw.randrange(len(content)), draw.choice([1, 16, 512, 4096])
    block = content[at : at + size]
    content[at : at + size] = draw.choice([b"", block + block, bytes(len(block))])


def lies(draw: random.Random, content: bytearray) -> None:
    """Tags about the pixels that say something else, in a file that is otherwise whole."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        Path(file.name).write_bytes(content)
        try:
            with quiet():
                ds: Dataset = dcmread(file.name)
            for name in draw.sample(NUMBERS, draw.choice([1, 2])):
                value = draw.choice([0, 1, 2, 3, 8, 12, 16, 17, 32, 255, 4096, 65535])
                setattr(ds, name, value)
            ds.save_as(file.name)
        except Exception:  # broken already, or no DICOM at all: it stays as it is
            return
        content[:] = Path(file.name).read_bytes()


def sequences(draw: random.Random, content: bytearray) -> None:
    """A sequence before the pixels that nobody wrote: long, deep, or without an end."""
    start = max(132, content.find(b"\xe0\x7f\x10\x00"))
    few = [(1, 1), (100, 1), (1000, 1), (1, 50), (1, 3000)]
    items, depth = draw.choice(3 * few + [(100_000, 1)])
    tag = draw.choice([b"\x09\x00\x10\x10", b"\x54\x00\x20\x02", b"\x00\x52\x30\x92"])
    inside = b"\xfe\xff\x00\xe0" + draw.choice([b"\0\0\0\0", b"\xff\xff\xff\xff"])
    made = (tag + b"SQ\0\0\xff\xff\xff\xff" + inside * items) * depth
    content[start:start] = made + b"\xfe\xff\xdd\xe0\0\0\0\0" * draw.choice([0, depth])


def sums(draw: random.Random, content: bytearray) -> None:
    """Other bytes in the chunks of a PNG whose checksums hold, so that its decoder looks at them."""
    at, chunks = 8, []
    while at + 12 <= len(content):
        length = struct.unpack(">I", content[at : at + 4])[0]
        chunks.append((at + 4, at + 8 + length))
        at += 12 + length
    if not chunks:
        return
    for start, stop in draw.sample(chunks, min(len(chunks), 2)):
        _bytes(draw, content, start + 4, stop)
        content[stop : stop + 4] = struct.pack(">I", zlib.crc32(content[start:stop]))


def directory(draw: random.Random, content: bytearray) -> None:
    """Entries of a TIFF's directory that say something else: sizes, counts, offsets, compression."""
    if content[:4] != b"II*\0":
        header(draw, content)
        return
    at = struct.unpack("<I", content[4:8])[0]
    if len(content) < at + 2:
        return
    entries = struct.unpack("<H", content[at : at + 2])[0]
    for _ in range(draw.choice([1, 1, 2])):
        entry = at + 2 + 12 * draw.randrange(entries)
        field = draw.choice([0, 2, 4, 8, 8, 8])
        size, form = (2, "<H") if field < 4 else (4, "<I")
        value = draw.choice([0, 1, 2, 3, 5, 7, 8, 16, 64, 4096, 65535, 0x7FFFFFFF, 0xFFFFFFFF])
        if len(content) >= entry + 12:
            content[entry + field : entry + field + size] = struct.pack(
                form, value & (256**size - 1)
            )


def inside(draw: random.Random, content: bytearray) -> None:
    """Damage below the compression, whose checksum holds; of a plain file as it is."""
    packed = content[:2] == b"\x1f\x8b"
    plain = bytearray(gzip.decompress(content)) if packed else content
    draw.choice([fields, fields, header, blocks])(draw, plain)
    content[:] = gzip.compress(plain, 1) if packed else plain


def fields(draw: random.Random, content: bytearray) -> None:
    """Numbers of a volume's header that are none of its own: sizes, offsets, types, scales."""
    form, at = draw.choice([("h", 40), ("h", 42), ("h", 46), ("h", 48), ("h", 70), ("h", 72), ("f", 80),
                            ("f", 108), ("f", 112), ("f", 116), ("h", 252), ("f", 280), ("i", 348),
                            ("i", 352), ("i", 356)])  # fmt: skip
    size = struct.calcsize(form)
    if len(content) >= at + size:
        value = draw.choice([0, 1, 3, 7, 16, 352, 4096, 32767, -1])
        if form != "h":
            value = draw.choice([value, 1 << 20, 1 << 30])
        content[at : at + size] = struct.pack("<" + form, value)


KINDS: list[Callable[[random.Random, bytearray], None]] = [
    header, pixels, lengths, truncation, blocks, lies, sequences
]  # fmt: skip
OF_PICTURES = [header, truncation, blocks, sums, directory]
OF_VOLUMES = [header, truncation, blocks, inside]
_LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
_VRS = _LONG | {b"US", b"UI", b"CS", b"DS", b"IS", b"LO", b"PN", b"SH", b"DA", b"TM", b"UL", b"AE"}


def _bytes(draw: random.Random, content: bytearray, start: int, stop: int) -> None:
    stop = max(start + 1, min(stop, len(content)))
    for _ in range(draw.choice([1, 2, 8, 40])):
        at = draw.randrange(start, stop)
        if at < len(content):
            content[at] = draw.randrange(256)


@dataclass
class Outcome:
    """What became of the damaged files."""

    originals: int = 0
    files: int = 0
    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By reader, kind of damage, and `read` or the reason of the quarantine."""
    details: Counter[str] = field(default_factory=Counter)
    """Of crashes and of decoders that took too long."""
    slowest_s: float = 0.0
    slowest: str = ""
    memory_mb: float = 0.0
    """That this process took at most, more than it had before."""
    decoder_mb: float = 0.0
    """That the last decoder took at most."""

    def of(self, reader: str) -> Counter[str]:
        """How often a reader came to each end."""
        found = Counter[str]()
        for (of, _, end), times in self.ends.items():
            found[end] += times if of == reader else 0
        return +found


IMAGE = ImagePreparation(
    max_pixels=LIMIT, image_size=256, encoding="png", jpeg_quality=95, max_aspect=1e6,
    burned_in="keep", secondary_captures="keep", body_parts=None,
)  # fmt: skip
VOLUME = asdict(Preparation.of(VolumeSettings(max_voxels=LIMIT, spacing_mm=None, min_slices=2)))


def _one(results: Iterator[T | QuarantineError]) -> T:
    """The only result; an error is raised."""
    (result,) = results
    if isinstance(result, QuarantineError):
        raise result
    return result


def _slice(path: Path) -> None:
    """As one of a series, beside a copy of what its header says one step further along."""
    file = _one(read_frames_isolated([path], LIMIT))
    beside = path.with_name("beside.dcm")
    try:
        with quiet():
            ds = dcmread(path)
            frame = file.frames[0]
            normal = np.cross(frame.along[:3], frame.along[3:])
            ds.ImagePositionPatient = list(np.array(frame.position) + 5 * normal)
            ds.save_as(beside)
    except Exception:  # what pydicom cannot write stands beside itself
        beside.write_bytes(path.read_bytes())
    prepare_volume_isolated([path, beside], {}, VOLUME, "float16", 1)


OF_DICOM: dict[str, Callable[[Path], object]] = {
    "radiograph": lambda path: prepare_image_isolated(path, IMAGE),
    "header": lambda path: _one(read_headers_isolated([path], LIMIT, year=True)),
    "slices": _slice,
}
READERS = {
    **OF_DICOM,
    "picture": lambda path: prepare_image_isolated(path, IMAGE),
    "volume": lambda path: prepare_volume_isolated([path], {}, VOLUME, "float16", 1),
}


def fuzz(files: int, folder: Path, seed: int = 0) -> Outcome:
    """Read so many damaged files as ingest does. What is no QuarantineError is raised, with its file left."""
    sets = {
        "dicom": (list(originals()), KINDS, list(OF_DICOM)),
        "picture": (list(pictures()), OF_PICTURES, ["picture"]),
        "volume": (list(volumes()), OF_VOLUMES, ["volume"]),
    }
    found = Outcome(sum(len(originals) for originals, _, _ in sets.values()))
    before = _memory_mb("self")
    for number in range(files):
        draw = random.Random(f"{seed} {number}")
        of = {3: "volume", 4: "picture"}.get(number % 5, "dicom")
        contents, kinds, readers = sets[of]
        name, content = contents[
            number // 5 % len(contents) if of != "dicom" else number % len(contents)
        ]
        kind = draw.choice(kinds)
        damaged = bytearray(content)
        kind(draw, damaged)
        suffix = ".dcm" if of == "dicom" else "".join(Path(name).suffixes[-2:])
        path = folder / f"damaged{suffix}"
        path.write_bytes(damaged)
        for reader in readers:
            began = time.monotonic()
            try:
                READERS[reader](path)
                end = "read"
            except QuarantineError as why:
                end = why.reason
                if end == "decoder-ended":
                    found.details[why.detail] += 1
            except BaseException as error:
                said = f"{name}, {kind.__name__}, file {number}, seed {seed}, as {reader}"
                raise AssertionError(said) from error
            took = time.monotonic() - began
            found.ends[reader, kind.__name__, end] += 1
            if took > found.slowest_s:
                found.slowest_s = took
                found.slowest = f"{name}, {kind.__name__}, file {number}, as {reader}"
        found.files += 1
    found.memory_mb = _memory_mb("self") - before
    if decoder_process._decoder:
        found.decoder_mb = _memory_mb(str(decoder_process._decoder.process.pid))
    return found


def _memory_mb(process: str) -> float:
    """What a process had at most."""
    return int(Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(args.files, Path(folder), args.seed)
    print(f"{found.files:,} files of {found.originals} originals, seed {args.seed}, in "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    for reader in READERS:
        ends = found.of(reader).most_common()
        print(f"{reader}, {sum(n for _, n in ends):,}:", ", ".join(f"{e} {n:,}" for e, n in ends))
        for kind in dict.fromkeys([*KINDS, *OF_PICTURES, *OF_VOLUMES]):
            of = {e: n for (r, k, e), n in found.ends.items() if (r, k) == (reader, kind.__name__)}
            if of:
                print(
                    f"  {kind.__name__:11}", ", ".join(f"{e} {n:,}" for e, n in sorted(of.items()))
                )
    print("decoders:", dict(found.details) or "none crashed or took too long")
    print(f"slowest: {found.slowest_s:.2f} s ({found.slowest})")
    print(f"memory at most: {found.memory_mb:,.0f} MB more here, {found.decoder_mb:,.0f} MB in the last "
          "decoder")  # fmt: skip


if __name__ == "__main__":
    main()
