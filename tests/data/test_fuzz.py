"""A damaged file is read or refused with a reason: never a crash, never a hang.

RAY_MAE_FUZZ says how many files are tried; thousands are a matter of minutes (tests/fuzzing.py).
"""

import os
from pathlib import Path

import pytest

from ray_mae.data import guard
from ray_mae.data.quarantine import REASONS
from tests.fuzzing import KINDS, fuzz

FILES = int(os.environ.get("RAY_MAE_FUZZ", "300"))


@pytest.mark.timeout(60 + FILES)
def test_every_damaged_file_has_one_of_the_known_ends(tmp_path: Path) -> None:
    found = fuzz(FILES, tmp_path)
    ends = {end for _, end in found.ends}
    assert sum(found.ends.values()) == FILES
    assert {kind for kind, _ in found.ends} == {kind.__name__ for kind in KINDS}
    assert ends <= {"read", *REASONS}
    assert {"read", "undecodable", "not-dicom"} <= ends, "the damage is too small, or too large"
    assert found.slowest_s < guard.SECONDS + 5
