"""A damaged file is read or refused with a reason: never a crash, never a hang, never a node's memory.

RAY_MAE_FUZZ says how many files are tried; thousands are a matter of minutes (tests/fuzzing.py).
"""

import os
from pathlib import Path

import pytest

from ray_mae.data.decoding import decoder_process
from tests.fuzzing import KINDS, OF_DICOM, OF_PICTURES, fuzz

FILES = int(os.environ.get("RAY_MAE_FUZZ", "300"))
# What damage can end as, by reader, and what some of it must.
PLAIN = {"read", "undecodable", "not-dicom", "too-large"}
PIXELS = PLAIN | {"modality", "no-pixels", "multi-frame", "decoder-ended"}
ENDS = {
    "radiograph": PIXELS | {"constant"},
    "header": PLAIN,
    "slices": (PIXELS | {"four-dimensional", "no-geometry"}) - {"multi-frame"},
    "picture": {"read", "undecodable", "not-an-image", "constant", "too-large", "multi-frame"},
}
SOME = {
    "radiograph": {"read", "undecodable", "not-dicom"},
    "header": {"read", "undecodable", "not-dicom"},
    "slices": {"read", "undecodable", "not-dicom"},
    "picture": {"read", "undecodable"},
}


@pytest.mark.timeout(60 + FILES)
def test_every_damaged_file_has_one_of_the_known_ends(tmp_path: Path) -> None:
    results = fuzz(FILES, tmp_path)
    pictures = sum(results.of("picture").values())
    assert pictures == FILES // 5
    for reader in OF_DICOM:
        assert sum(results.of(reader).values()) == FILES - pictures, reader
    assert {kind for _, kind, _ in results.ends} == {k.__name__ for k in [*KINDS, *OF_PICTURES]}
    for reader, known in ENDS.items():
        ends = set(results.of(reader))
        assert ends <= known, reader
        assert ends >= SOME[reader], f"{reader}: the damage is too small, or too large"
    assert results.slowest_s < decoder_process.SECONDS + 5
    # Of files below a megabyte; what one may take at most is 6 bytes a pixel and 64 MiB.
    assert results.memory_mb < 250
    assert results.decoder_mb < 500
