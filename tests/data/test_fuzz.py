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


def test_a_decoder_that_wants_the_memory_of_the_node_does_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for a decoder that does not keep to the size that its stream declares.
    (tmp_path / "sitecustomize.py").write_text(
        "import ray_mae.data.dicom as dicom\ndicom.pixel_array = lambda ds: bytearray(4 << 30)\n"
    )
    monkeypatch.setattr(guard, "_child", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    from dicom_files import write_dicom
    from pydicom import dcmread
    from pydicom.uid import RLELossless

    path = write_dicom(tmp_path / "a.dcm")
    ds = dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)
    with pytest.raises(guard.Unusable, match="MemoryError"):
        guard.read_dicom_guarded(path, 10_000)
    assert guard._child
    guard._child.stop()
    guard._child = None
