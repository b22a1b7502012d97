"""Real DICOM files, damaged in every way that a disk, a network or a person damages them.

    python -m tests.fuzzing --files 5000 [--seed 0]

reads so many damaged files as ingest does and prints how often which end was met, how long the slowest
took, and how much memory the readers had at most.
"""

import argparse
import random
import resource
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom import Dataset, dcmread

from ray_mae.data import guard
from ray_mae.data.dicom import quiet
from ray_mae.data.guard import read_dicom_guarded
from ray_mae.data.quarantine import Unusable

LIMIT = 10_000_000
LARGEST = 800_000  # bytes of a file that is worth damaging thousands of times
CASES = Path(__file__).parents[2] / "shared" / "data" / "dicom_cases"
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
NUMBERS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
           "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration"]  # fmt: skip


def originals() -> Iterator[tuple[str, bytes]]:
    """Real files, called radiographs so that their pixels are decoded, and a few as they are."""
    for path in sorted([*CASES.glob("*.dcm"), *SHIPPED.glob("*.dcm")]):
        content = path.read_bytes()
        if len(content) > LARGEST or b"\xe0\x7f\x10\x00" not in content:  # no pixel data
            continue
        if "dicom_cases" not in path.parts:
            yield path.name, content
        try:
            with quiet():
                ds = dcmread(path)
            ds.Modality, ds.BurnedInAnnotation = "DX", None
            if int(ds.get("NumberOfFrames") or 1) > 1:
                continue
            with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
                ds.save_as(file.name)
                yield f"{path.name} as DX", Path(file.name).read_bytes()
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


KINDS: list[Callable[[random.Random, bytearray], None]] = [
    header, pixels, lengths, truncation, blocks, lies
]  # fmt: skip
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
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of damage, and `read` or the reason of the quarantine."""
    details: Counter[str] = field(default_factory=Counter)
    """Of crashes and of decoders that took too long."""
    slowest_s: float = 0.0
    slowest: str = ""


def fuzz(files: int, folder: Path, seed: int = 0) -> Outcome:
    """Read so many damaged files as ingest does. What is no Unusable is raised, with its file left."""
    known = list(originals())
    found = Outcome(len(known))
    for number in range(files):
        draw = random.Random(f"{seed} {number}")
        name, content = known[number % len(known)]
        kind = draw.choice(KINDS)
        damaged = bytearray(content)
        kind(draw, damaged)
        path = folder / "damaged.dcm"
        path.write_bytes(damaged)
        began = time.monotonic()
        try:
            read_dicom_guarded(path, LIMIT)
            end = "read"
        except Unusable as why:
            end = why.reason
            if why.detail.startswith("the decoder"):
                found.details[why.detail] += 1
        except BaseException as error:
            raise AssertionError(f"{name}, {kind.__name__}, file {number}, seed {seed}") from error
        took = time.monotonic() - began
        found.ends[kind.__name__, end] += 1
        found.files += 1
        if took > found.slowest_s:
            found.slowest_s, found.slowest = took, f"{name}, {kind.__name__}, file {number}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(args.files, Path(folder), args.seed)
    child = guard._child
    peak = child and Path(f"/proc/{child.process.pid}/status").read_text().split("VmHWM:")[1]
    print(f"{found.files:,} files of {found.originals} originals, seed {args.seed}, in "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    ends = Counter[str]()
    for (_, end), times in found.ends.items():
        ends[end] += times
    print("ends:", ", ".join(f"{end} {times:,}" for end, times in ends.most_common()))
    for kind in KINDS:
        of = {end: n for (k, end), n in found.ends.items() if k == kind.__name__}
        print(f"  {kind.__name__:11}", ", ".join(f"{e} {n:,}" for e, n in sorted(of.items())))
    print("decoders:", dict(found.details) or "none crashed or took too long")
    print(f"slowest: {found.slowest_s:.2f} s ({found.slowest})")
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory at most: {mine:,.0f} MB here, {(peak or '0').split()[0]} kB in the last decoder")


if __name__ == "__main__":
    main()
