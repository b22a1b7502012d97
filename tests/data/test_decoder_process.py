import gzip
import os
import random
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SHARED, needs_shared, write_dicom
from pydicom import dcmread
from pydicom.uid import RLELossless
from volume_files import ball, write_nifti

from ray_mae.config import VolumeSettings
from ray_mae.config.ingest import NameSettings
from ray_mae.data.decoding import decoder_process
from ray_mae.data.decoding.decoder_process import (
    prepare_file,
    prepare_image_isolated,
    prepare_volume_isolated,
    read_frames_isolated,
    read_headers_isolated,
)
from ray_mae.data.decoding.dicom import Header, read_dicom, read_header
from ray_mae.data.decoding.image_preprocessing import ImagePreparation, PreparedImage
from ray_mae.data.decoding.preprocessing import Preparation
from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.decoding.voxels import decode_labels, decode_valid, decode_voxels
from ray_mae.data.ingest import studies as study_shards
from ray_mae.data.ingest.grouping import ImageEntry, StudyEntry
from ray_mae.data.ingest.reports import ReportReader
from ray_mae.data.ingest.shards import earlier_result, write_shard
from ray_mae.data.ingest.studies import StudyShardPlan
from ray_mae.data.labels import CHEXPERT_LABELS
from ray_mae.data.paths import is_transient, retry_transient
from ray_mae.data.quarantine import QuarantineError

LIMIT = 10_000_000
AS_IT_IS = ImagePreparation(
    max_pixels=LIMIT, image_size=4096, encoding="png", jpeg_quality=95, max_aspect=100.0,
    burned_in="keep", secondary_captures="keep", body_parts=None,
)  # fmt: skip


def read_isolated(path: Path, max_pixels: int = LIMIT) -> tuple[np.ndarray, Header | None]:
    """The image as it is stored, and its header."""
    prepared = prepare_image_isolated(path, replace(AS_IT_IS, max_pixels=max_pixels))
    return decode(prepared.image), prepared.header


def one(results: Iterator[object]) -> object:
    """The only result; an error is raised."""
    (result,) = results
    if isinstance(result, QuarantineError):
        raise result
    return result


def view_of(path: Path) -> str | None:
    header = read_isolated(path)[1]
    return header and header.view


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    path = write_dicom(tmp_path / "a.dcm", ViewPosition="PA")
    ds = dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)
    return path


def test_the_child_gives_what_the_reader_gives(compressed: Path, tmp_path: Path) -> None:
    for path in (compressed, compressed, write_dicom(tmp_path / "plain.dcm")):
        image, header = read_isolated(path)
        expected, expected_header = read_dicom(path, LIMIT)
        np.testing.assert_array_equal(image, expected)
        assert header == expected_header


def test_the_child_gives_headers_and_volumes_as_their_readers_do(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", ViewPosition="PA", StudyDate="20120301")
    nowhere = tmp_path / "nowhere.dcm"
    read = list(read_headers_isolated([path, nowhere, path] * 20, LIMIT, year=True))
    assert read[::3] == read[2::3] == 20 * [read_header(path, LIMIT, year=True)]
    assert {str(problem) for problem in read[1::3]} == {"missing"}
    volume = write_nifti(tmp_path / "a.nii.gz", ball())
    label = write_nifti(tmp_path / "label.nii.gz", (ball() > 300).astype(np.uint8))
    preparation = Preparation.of(VolumeSettings(spacing_mm=3.0))
    masks = {"segmentation": label, "valid": label}
    expected = preparation.prepare([volume], masks)
    row = prepare_volume_isolated([volume], masks, asdict(preparation), "float32", 3)
    np.testing.assert_array_equal(decode_voxels(row), expected.image.values)
    np.testing.assert_array_equal(decode_labels(row), expected.segmentation)
    np.testing.assert_array_equal(decode_valid(row), expected.valid)
    assert row["mean"] == expected.mean
    np.testing.assert_allclose(np.reshape(row["affine"], (4, 4)), expected.image.affine)
    np.testing.assert_array_equal(prepare_file(volume, 3.0), expected.image.values)


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.nii.gz"])
def test_a_pipe_or_a_device_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"device-{name}").symlink_to("/dev/zero")
    preparation = asdict(Preparation.of(VolumeSettings()))
    for path in (tmp_path / name, tmp_path / f"device-{name}"):
        for read in (
            lambda path: one(read_headers_isolated([path], LIMIT)),
            lambda path: one(read_frames_isolated([path], LIMIT)),
            read_isolated,
            lambda path: prepare_volume_isolated([path], {}, preparation, "float16", 3),
        ):
            with pytest.raises(QuarantineError, match="unreadable: no regular file"):
                read(path)


def test_a_small_file_that_inflates_to_gigabytes_takes_no_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_nifti(tmp_path / "a.nii", ball()).read_bytes()
    header = bytearray(plain[:348]) + b"\1\0\0\0"
    header[108:112] = struct.pack("<f", float(1 << 31))
    extension = struct.pack("<ii", (1 << 31) - 16, 4)
    packed = gzip.compress(bytes(header) + extension, 1)
    zeros = gzip.compress(bytes(16 << 20), 9)
    (tmp_path / "bomb.nii.gz").write_bytes(packed + 127 * zeros)
    assert (tmp_path / "bomb.nii.gz").stat().st_size < 3 << 20
    monkeypatch.setattr(decoder_process, "ROOM", 300 << 20)
    preparation = asdict(Preparation.of(VolumeSettings(max_voxels=10**6)))
    with pytest.raises(QuarantineError) as caught:
        prepare_volume_isolated([tmp_path / "bomb.nii.gz"], {}, preparation, "float16", 3)
    assert caught.value.reason in ("decoder-ended", "undecodable", "too-large", "not-a-volume-file")
    monkeypatch.undo()
    good = write_nifti(tmp_path / "b.nii.gz", ball())
    assert prepare_volume_isolated([good], {}, preparation, "float16", 3)["mean"] > 0


@pytest.mark.parametrize("kind", ["native", "png", "header", "volume"])
def test_every_reader_is_ended_when_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_decoder: None, kind: str
) -> None:
    for name in ("SECONDS", "VOLUME_SECONDS"):
        monkeypatch.setattr(decoder_process, name, 1.0)
    readers: dict[str, Callable[[], object]] = {
        "native": lambda: read_isolated(write_dicom(tmp_path / "a.dcm")),
        "png": lambda: read_isolated(tmp_path / "a.png"),
        "header": lambda: one(read_headers_isolated([tmp_path / "a.dcm"], LIMIT)),
        "volume": lambda: prepare_file(tmp_path / "a.nii", None),
    }
    with pytest.raises((QuarantineError, ValueError), match="decoder-ended: the decoder took more"):
        readers[kind]()


def test_a_header_at_which_decoders_end_costs_itself_and_not_those_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(
        "import os\nimport ray_mae.data.decoding.dicom as dicom\nread = dicom.read_dataset\n"
        "def read_dataset(path, *a, **k):\n    'bad' in path.name and os.kill(os.getpid(), 11)\n"
        "    return read(path, *a, **k)\ndicom.read_dataset = read_dataset\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "python"))
    monkeypatch.setattr(decoder_process, "_decoder", None)
    paths = [write_dicom(tmp_path / f"{name}.dcm") for name in ("good", "bad", "good too")]
    good, bad, good_too = read_headers_isolated(paths, LIMIT)
    assert isinstance(good, Header)
    assert isinstance(good_too, Header)
    assert str(bad) == "decoder-ended: the decoder crashed (exit status -11)"
    assert decoder_process._decoder
    decoder_process._decoder.stop()


@pytest.fixture
def slow_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Children that never answer."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(
        "import signal, time\nsignal.alarm = lambda seconds: time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "python"))
    monkeypatch.setattr(decoder_process, "_decoder", None)
    yield
    if decoder_process._decoder:
        decoder_process._decoder.stop()


def test_a_child_whose_parent_is_gone_ends_by_itself() -> None:
    child = decoder_process.DecoderProcess()
    child.requests.close()
    assert child.process.wait(20) == 0
    child.stop()


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes the children decode in another way: by the body of a function of ds."""

    def changed(body: str) -> None:
        (tmp_path / "python").mkdir()
        (tmp_path / "python" / "sitecustomize.py").write_text(
            "import errno, os, pathlib\nimport ray_mae.data.decoding.dicom as dicom\n"
            f"plain, done = dicom.pixel_array, pathlib.Path({str(tmp_path / 'done')!r})\n"
            f"def decode(ds, **how):\n    {body}\n    return plain(ds, **how)\ndicom.pixel_array = decode\n"
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
        read_isolated(compressed)
        assert decoder_process._decoder
        os.kill(decoder_process._decoder.process.pid, harm)
        decoder_process._decoder.process.wait()
        assert view_of(compressed) == "frontal"


def test_a_decoder_that_once_does_not_end_is_ended_and_another_asked(
    compressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_isolated(compressed)
    assert decoder_process._decoder
    first = decoder_process._decoder.process
    os.kill(first.pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder_process, "SECONDS", 2.0)
    assert view_of(compressed) == "frontal"
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
        read_isolated(compressed, 10_000)
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
        read_isolated(compressed)
    assert is_transient(caught.value, remote=False)
    assert retry_transient(lambda: view_of(compressed)) == "frontal"


def test_a_shard_with_a_file_at_which_decoders_end_is_made_anew_at_two_more_starts(
    compressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(path: Path, preparation: ImagePreparation) -> PreparedImage:
        raise QuarantineError("decoder-ended", "the decoder crashed")

    output = compressed.parent / "out"
    image = ImageEntry(compressed.name, "frontal", None)
    plan = StudyShardPlan(
        file="train-00000.parquet", dataset="d", split="train", rows_per_row_group=1,
        studies=[StudyEntry("s", "p", "train", [image], None, [0] * 14, [], None)],
        preparation=AS_IT_IS, reports=ReportReader.of(NameSettings()), for_processing="alone",
        label_names=list(CHEXPERT_LABELS), attributes=[],
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(study_shards, "prepare_image_isolated", ended)
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
            image, _ = read_isolated(tmp_path / "damaged.dcm")
            outcomes.add(image.shape)
        except QuarantineError as why:
            outcomes.add(why.reason)
    assert outcomes <= {(384, 384), "undecodable", "decoder-ended", "no-pixels", "constant"}
