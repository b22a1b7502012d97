import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SHARED, needs_shared, write_dicom
from pydicom import dcmread
from pydicom.uid import RLELossless

from ray_mae.data import guard
from ray_mae.data.dicom import read_dicom
from ray_mae.data.guard import read_dicom_guarded
from ray_mae.data.quarantine import Unusable

LIMIT = 10_000_000


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    path = write_dicom(tmp_path / "a.dcm", ViewPosition="PA")
    ds = dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)
    return path


def test_the_child_gives_what_the_reader_gives(compressed: Path, tmp_path: Path) -> None:
    for path in (compressed, compressed, write_dicom(tmp_path / "plain.dcm")):
        image, header = read_dicom_guarded(path, LIMIT)
        expected, expected_header = read_dicom(path, LIMIT)
        np.testing.assert_array_equal(image, expected)
        assert header == expected_header


def test_a_crash_costs_one_image_and_the_next_is_read(compressed: Path) -> None:
    read_dicom_guarded(compressed, LIMIT)
    assert guard._child
    os.kill(guard._child.process.pid, signal.SIGSEGV)
    guard._child.process.wait()
    with pytest.raises(Unusable, match=r"the decoder crashed \(exit status -11\)"):
        read_dicom_guarded(compressed, LIMIT)
    assert read_dicom_guarded(compressed, LIMIT)[1].view == "frontal"


def test_a_decoder_that_does_not_end_is_ended(
    compressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_dicom_guarded(compressed, LIMIT)
    assert guard._child
    os.kill(guard._child.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(guard, "SECONDS", 0.2)
    with pytest.raises(Unusable, match="the decoder took more than"):
        read_dicom_guarded(compressed, LIMIT)
    assert guard._child is None


@needs_shared
@pytest.mark.parametrize("name", ["mr_ts_4", "mr_ts_5", "mr_ts_7", "mr_ts_9"])
def test_damaged_streams_of_real_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    ds = dcmread(SHARED / "dicom_cases" / f"{name}.dcm")
    ds.Modality = "DX"
    ds.save_as(tmp_path / "good.dcm")
    good = (tmp_path / "good.dcm").read_bytes()
    stream = good.find(b"\xe0\x7f\x10\x00") + 20
    outcomes = set()
    for seed in range(40):
        draw, damaged = random.Random(seed), bytearray(good)
        for _ in range(draw.choice([1, 2, 8, 40])):
            damaged[draw.randrange(stream, draw.choice([stream + 600, len(good)]))] = (
                draw.randrange(256)
            )
        (tmp_path / "damaged.dcm").write_bytes(damaged)
        try:
            image, _ = read_dicom_guarded(tmp_path / "damaged.dcm", LIMIT)
            outcomes.add(image.shape)
        except Unusable as why:
            outcomes.add(why.reason)
    assert outcomes <= {(384, 384), "undecodable", "no-pixels", "constant"}
