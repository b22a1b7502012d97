"""A damaged file is read or refused with a reason: never a crash, never a hang, never a node's memory.

RAY_MAE_FUZZ says how many files are tried; thousands are a matter of minutes (tests/fuzzing.py).
"""

import os
from pathlib import Path

import pytest

from ray_mae.data.decoding import decoder_process
from tests.fuzzing import KINDS, OF_DICOM, OF_PICTURES, OF_VOLUMES, fuzz

FILES = int(os.environ.get("RAY_MAE_FUZZ", "300"))
# What damage can end as, by reader, and what some of it must.
PLAIN = {"read", "undecodable", "not-dicom", "too-large"}
PIXELS = PLAIN | {"modality", "no-pixels", "multi-frame", "decoder-ended"}
GRID = {
    "four-dimensional", "no-geometry", "too-few-slices", "implausible-size", "no-anatomy", "constant",
    "non-finite", "wrong-range", "sheared", "label-map", "decoder-ended",
}  # fmt: skip
SERIES = {
    "mixed-sizes", "mixed-orientations", "repeated-positions", "missing-slices", "gantry-tilt",
    "localizer", "burned-in",
}  # fmt: skip
ENDS = {
    "radiograph": PIXELS | {"constant", "body-part"},
    "header": PLAIN,
    "slices": (PIXELS | GRID | SERIES) - {"multi-frame"},
    "picture": {"read", "undecodable", "not-an-image", "constant", "too-large", "multi-frame"},
    "volume": {"read", "undecodable", "not-a-volume-file", "too-large"} | GRID,
}
SOME = {
    "radiograph": {"read", "undecodable", "not-dicom"},
    "header": {"read", "undecodable", "not-dicom"},
    "slices": {"undecodable", "not-dicom"},
    "picture": {"read", "undecodable"},
    "volume": {"read", "undecodable"},
}


@pytest.mark.timeout(60 + FILES)
def test_every_damaged_file_has_one_of_the_known_ends(tmp_path: Path) -> None:
    results = fuzz(FILES, tmp_path)
    assert sum(results.of("picture").values()) == sum(results.of("volume").values()) == FILES // 5
    for reader in OF_DICOM:
        assert sum(results.of(reader).values()) == FILES - 2 * (FILES // 5), reader
    kinds = {kind.__name__ for kind in [*KINDS, *OF_PICTURES, *OF_VOLUMES]}
    assert {kind for _, kind, _ in results.ends} == kinds
    for reader, known in ENDS.items():
        ends = set(results.of(reader))
        assert ends <= known, reader
        assert ends >= SOME[reader], f"{reader}: the damage is too small, or too large"
    assert results.slowest_s < decoder_process.SECONDS + 5
    # All is read in the decoder process, and of files below a megabyte.
    assert results.memory_mb < 50
    assert results.decoder_mb < 700
