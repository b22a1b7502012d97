import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SHARED, needs_shared, write_dicom
from pydicom import dcmread
from pydicom.uid import RLELossless

from ray_mae.data.decoding import decoder_process
from ray_mae.data.decoding.decoder_process import read_dicom_isolated
from ray_mae.data.decoding.dicom import read_dicom
from ray_mae.data.ingest import studies as study_shards
from ray_mae.data.ingest.shards import earlier_result, write_shard
from ray_mae.data.ingest.studies import ImageEntry, StudyEntry, StudyShardPlan
from ray_mae.data.paths import is_transient, retry_transient
from ray_mae.data.quarantine import QuarantineError

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
        image, header = read_dicom_isolated(path, LIMIT)
        expected, expected_header = read_dicom(path, LIMIT)
        np.testing.assert_array_equal(image, expected)
        assert header == expected_header


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes the children decode in another way: by the body of a function of ds."""

    def changed(body: str) -> None:
        (tmp_path / "python").mkdir()
        (tmp_path / "python" / "sitecustomize.py").write_text(
            "import errno, os, pathlib\nimport ray_mae.data.decoding.dicom as dicom\n"
            f"plain, done = dicom.pixel_array, pathlib.Path({str(tmp_path / 'done')!r})\n"
            f"def decode(ds):\n    {body}\n    return plain(ds)\ndicom.pixel_array = decode\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path / "python"))

    if decoder_process._decoder:
        decoder_process._decoder.stop()
    monkeypatch.setattr(decoder_process, "_decoder", None)
    yield changed
    if decoder_process._decoder:
        decoder_process._decoder.stop()


def test_a_child_that_came_to_harm_is_replaced_and_the_file_read_by_another(
    compressed: Path,
) -> None:
    for harm in (signal.SIGSEGV, signal.SIGKILL):  # by a damaged file, and by a node out of memory
        read_dicom_isolated(compressed, LIMIT)
        assert decoder_process._decoder
        os.kill(decoder_process._decoder.process.pid, harm)
        decoder_process._decoder.process.wait()
        assert read_dicom_isolated(compressed, LIMIT)[1].view == "frontal"


def test_a_decoder_that_once_does_not_end_is_ended_and_another_asked(
    compressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_dicom_isolated(compressed, LIMIT)
    assert decoder_process._decoder
    first = decoder_process._decoder.process
    os.kill(first.pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder_process, "SECONDS", 2.0)
    assert read_dicom_isolated(compressed, LIMIT)[1].view == "frontal"
    assert first.poll() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("os.kill(os.getpid(), 11)", r"the decoder crashed \(exit status -11\)"),
        ("import time; time.sleep(9)", "the decoder took more than 1 s"),
        ("bytearray(4 << 30)", "MemoryError"),  # one that does not keep to the size it declares
    ],
)
def test_a_file_at_which_every_decoder_ends_costs_that_file(
    compressed: Path,
    decoder: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    detail: str,
) -> None:
    monkeypatch.setattr(decoder_process, "SECONDS", 1.0)
    decoder(f"(done / str(os.getpid())).mkdir(parents=True); {body}")
    with pytest.raises(QuarantineError, match=f"decoder-ended: {detail}"):
        read_dicom_isolated(compressed, 10_000)
    assert decoder_process._decoder is None
    assert len(list((compressed.parent / "done").iterdir())) == 2


def test_a_disk_that_was_away_from_the_child_is_read_again(
    compressed: Path, decoder: Callable[[str], None]
) -> None:
    decoder(
        "if not done.exists(): done.mkdir(); "
        "raise dicom.QuarantineError('unreadable') from OSError(errno.ESTALE, '')"
    )
    with pytest.raises(QuarantineError, match="unreadable") as caught:
        read_dicom_isolated(compressed, LIMIT)
    assert is_transient(caught.value, remote=False)
    assert retry_transient(lambda: read_dicom_isolated(compressed, LIMIT))[1].view == "frontal"


def test_a_shard_with_a_file_at_which_decoders_end_is_made_anew_at_two_more_starts(
    compressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(path: Path, max_pixels: int) -> None:
        raise QuarantineError("decoder-ended", "the decoder crashed")

    output = compressed.parent / "out"
    image = ImageEntry(compressed.name, "frontal", None)
    plan = StudyShardPlan(
        file="train-00000.parquet", dataset="d", split="train", rows_per_row_group=1,
        studies=[StudyEntry("s", "p", "train", [image], None, None, [0] * 14, [], None)], image_size=32,
        encoding="png", jpeg_quality=95, max_pixels=LIMIT, max_aspect=4.0, burned_in="keep",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(study_shards, "read_dicom_isolated", ended)
        for start in range(3):
            assert earlier_result(plan, compressed.parent, output) is None, start
            write_shard(plan, compressed.parent, output)
    given_up = earlier_result(plan, compressed.parent, output)
    assert given_up
    assert [r["reason"] for r in given_up["quarantined"]] == ["decoder-ended", "no-usable-image"]

    os.utime(compressed, (0, 0))  # another file may be another matter
    assert earlier_result(plan, compressed.parent, output) is None
    assert write_shard(plan, compressed.parent, output)["rows"] == 1
    assert earlier_result(plan, compressed.parent, output)


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
            image, _ = read_dicom_isolated(tmp_path / "damaged.dcm", LIMIT)
            outcomes.add(image.shape)
        except QuarantineError as why:
            outcomes.add(why.reason)
    assert outcomes <= {(384, 384), "undecodable", "decoder-ended", "no-pixels", "constant"}
