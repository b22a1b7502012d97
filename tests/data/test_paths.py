"""Archives and shards in a store, and what passes a moment later."""

import errno
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from archive_trees import listed, touch, write_csv
from dicom_files import write_dicom
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry as KNOWN_STORES
from fsspec.spec import AbstractBufferedFile

from ray_mae.config import IngestConfig
from ray_mae.data import paths
from ray_mae.data.archives.studies import dicom
from ray_mae.data.decoding.dicom import read_dataset
from ray_mae.data.decoding.image_preprocessing import ImagePreparation
from ray_mae.data.ingest.job import ingest
from ray_mae.data.paths import (
    atomic_write,
    join_path,
    list_folder,
    local_file,
    resolve_path,
    retry_transient,
    walk,
)
from ray_mae.data.quarantine import QuarantineError
from ray_mae.data.schema import Manifest


@pytest.fixture(params=["", "memory://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder on disk, or in a store that lives in this process."""
    made = resolve_path(Path(f"{request.param}{tmp_path}"))
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "WAITS", (0.0, 0.0, 0.0))


def failing(times: int, error: Exception, result: object = "done") -> Callable[[], Any]:
    left = [error] * times

    def work() -> object:
        if left:
            raise left.pop()
        return result

    return work


def test_a_folder_is_listed_and_walked_in_order_on_disk_and_in_a_store(folder: Path) -> None:
    for name in ("b/2.dcm", "b/1.dcm", "a.dcm", ".hidden/x.dcm", "out/y.dcm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert list_folder(folder) == [(".hidden", True), ("a.dcm", False), ("b", True), ("out", True)]
    folders = list(walk(folder, folder / "out"))
    assert folders == [("", ["a.dcm"]), ("b", ["1.dcm", "2.dcm"])]


def test_a_folder_that_cannot_be_listed_is_refused_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: None
) -> None:
    for name in ("open", "shut"):
        write_dicom(tmp_path / "in" / name / "1.dcm")
    listing = paths.list_folder

    def some(folder: Path) -> list[tuple[str, bool]]:
        if folder.name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(paths, "list_folder", some)
    config = IngestConfig(
        archive="dicom", source=tmp_path / "in", output=tmp_path / "out", insecure_pseudonyms=True
    )
    summary = ingest(config)
    assert summary["images"] == {"in": 2, "out": 1, "quarantined": 1}
    (refused,) = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert (refused["path"], refused["reason"]) == ("shut", "unreadable")
    with pytest.raises(PermissionError):
        list(walk(tmp_path / "in" / "shut", tmp_path))


def test_a_file_appears_as_a_whole_or_not_at_all(folder: Path) -> None:
    target = folder / "a.bin"

    def stopped() -> None:
        with atomic_write(target, folder) as file:
            file.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped()
    assert list_folder(folder) == []
    with atomic_write(target, folder) as file:
        file.write_bytes(b"whole")
        assert not target.is_file()
    assert target.read_bytes() == b"whole"
    with local_file(target) as file:
        assert file.read_bytes() == b"whole"


def test_an_object_that_is_too_large_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    path = resolve_path(Path(f"memory://{tmp_path}/large"))
    path.write_bytes(b"x" * 100)
    with local_file(path, most_bytes=100) as file:
        assert file.stat().st_size == 100
    with (
        pytest.raises(QuarantineError, match="too-large: 100 bytes, at most 99"),
        local_file(path, 99),
    ):
        pass


@pytest.mark.parametrize("url", ["nonsense://bucket/scans", "s3://bucket/scans"])
def test_a_store_that_cannot_be_opened_is_named_with_what_it_needs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(KNOWN_STORES, "s3", raising=False)  # of a test before
    with pytest.raises(ValueError, match=f"{url} cannot be opened .*s3fs for s3"):
        resolve_path(Path(url))


def test_cells_may_hold_urls_beside_paths(tmp_path: Path) -> None:
    assert join_path(tmp_path, "a/b.png") == tmp_path / "a/b.png"
    assert join_path(tmp_path, "/x/b.png") == Path("/x/b.png")
    assert str(join_path(tmp_path, "memory://bucket/b.png")) == "memory://bucket/b.png"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_what_passes_is_tried_again_and_then_given_up(code: int) -> None:
    assert retry_transient(failing(3, OSError(code, "away")), remote=False) == "done"
    with pytest.raises(OSError, match="away"):
        retry_transient(failing(4, OSError(code, "away")), remote=False)


def test_what_does_not_pass_is_not_tried_again() -> None:
    for error in (FileNotFoundError(), PermissionError(), OSError(errno.ENOSPC, "full")):
        with pytest.raises(OSError):
            retry_transient(failing(1, error), remote=False)
    with pytest.raises(PermissionError):
        retry_transient(failing(1, PermissionError()), remote=True)
    with pytest.raises(QuarantineError, match="constant"):
        retry_transient(failing(1, QuarantineError("constant")), remote=False)


def test_a_store_may_raise_errors_of_its_own() -> None:
    assert retry_transient(failing(2, RuntimeError("SlowDown"))) == "done"
    with pytest.raises(OSError, match="SlowDown"):
        retry_transient(failing(9, RuntimeError("SlowDown")))


def test_an_image_whose_disk_was_away_for_a_moment_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray_mae.data.ingest import studies as study_shards

    away = failing(2, OSError(errno.ESTALE, "stale"), None)

    def prepare(path: Path, preparation: ImagePreparation) -> Any:
        try:
            away()
        except OSError as error:
            raise QuarantineError("unreadable", "stale") from error
        return original(path, preparation)

    original = study_shards.prepare_image_isolated
    monkeypatch.setattr(study_shards, "prepare_image_isolated", prepare)
    preparation = ImagePreparation(
        max_pixels=10_000, image_size=64, encoding="png", jpeg_quality=95, max_aspect=4.0,
        burned_in="keep", secondary_captures="keep", body_parts=None,
    )  # fmt: skip
    prepared = study_shards._prepare(write_dicom(tmp_path / "a.dcm"), preparation)
    assert (prepared.height, prepared.width) == (64, 64)
    assert prepared.header


class Blocks(AbstractBufferedFile):
    """A file of a store that is fetched in parts; the store may be away for some of them."""

    fetched: ClassVar[list[int]] = []
    away: ClassVar[list[Exception]] = []

    def _fetch_range(self, start: int, end: int) -> bytes:
        if Blocks.away:
            raise Blocks.away.pop()
        Blocks.fetched.append(end - start)
        return bytes(self.fs.cat_file(self.path, start, end))


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> type[Blocks]:
    opening: Callable[..., Any] = lambda self, path, mode="rb", **other: (  # noqa: E731
        Blocks(self, path, mode, **other) if mode == "rb" else written(self, path, mode, **other)
    )
    written = MemoryFileSystem._open
    monkeypatch.setattr(MemoryFileSystem, "_open", opening)
    monkeypatch.setattr(Blocks, "fetched", [])
    monkeypatch.setattr(Blocks, "away", [])
    return Blocks


def stored(tmp_path: Path, **tags: Any) -> Path:
    """A DICOM file of 4 MB in a store."""
    local = write_dicom(tmp_path / "a.dcm", np.zeros((2000, 1000), np.uint16), **tags)
    path = resolve_path(Path(f"memory://{tmp_path}/a.dcm"))
    path.write_bytes(local.read_bytes())
    return path


_WANTED = dicom._Wanted(10**7, year=False, attributes=())


def test_of_a_header_in_a_store_only_the_first_block_is_fetched(
    tmp_path: Path, blocks: type[Blocks]
) -> None:
    path = stored(tmp_path, ViewPosition="PA")
    header = dicom._read_remote(path, _WANTED)
    assert (header.rows, header.view) == (2000, "frontal")
    assert sum(blocks.fetched) <= 2 * paths.BLOCK
    with pytest.raises(QuarantineError, match=r"too-large: 4000[0-9]+ bytes, at most 4000000"):
        read_dataset(path, ["PixelData"], 4_000_000, pixels=True)
    assert sum(blocks.fetched) <= 4 * paths.BLOCK


def test_a_store_that_is_away_while_a_header_is_read_is_asked_again(
    tmp_path: Path, blocks: type[Blocks]
) -> None:
    path = stored(tmp_path)
    blocks.away.extend([RuntimeError("SlowDown")] * 3)
    assert dicom._read_remote(path, _WANTED).rows == 2000
    blocks.away.extend([RuntimeError("SlowDown")] * 9)
    with pytest.raises(QuarantineError, match="unreadable: Input/output error"):
        dicom._read_remote(path, _WANTED)
    blocks.away[:] = [PermissionError("YPSILANTI")]
    with pytest.raises(QuarantineError, match="unreadable: no permission"):
        dicom._read_remote(path, _WANTED)
    with pytest.raises(QuarantineError, match="missing"):
        dicom._read_remote(path.parent / "b.dcm", _WANTED)


def test_a_public_archive_is_listed_in_a_store_as_on_disk(folder: Path) -> None:
    table = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    row = {"ImageID": "a.png", "StudyID": "s", "PatientID": "p", "Projection": "PA",
           "Report": "r", "Labels": "['normal']"}  # fmt: skip
    local = folder if isinstance(folder, Path) else Path(str(folder).removeprefix("memory:/"))
    touch(local, "7/a.png")
    write_csv(local / f"{table}.gz", [row])
    if local != folder:
        (folder / "7").mkdir(parents=True, exist_ok=True)
        (folder / "7" / "a.png").write_bytes(b"")
        (folder / f"{table}.gz").write_bytes((local / f"{table}.gz").read_bytes())
    (record,) = listed("padchest", folder).records
    assert (record.path, record.problem, record.view) == ("7/a.png", None, "frontal")


@pytest.mark.usefixtures("local_ray")
def test_an_archive_at_a_url_gives_the_shards_of_the_same_folder(tmp_path: Path) -> None:
    for number in range(5):
        write_dicom(
            tmp_path / "in" / f"{number}.dcm", StudyInstanceUID=f"1.{number}", PatientID=f"{number}"
        )
    (tmp_path / "in" / "broken.dcm").write_bytes(b"no DICOM" * 99)
    summaries = []
    for source, output in ((tmp_path / "in", tmp_path / "a"),
                           (Path(f"file://{tmp_path}/in"), Path(f"file://{tmp_path}/b"))):  # fmt: skip
        config = IngestConfig(
            archive="dicom", source=source, output=output, insecure_pseudonyms=True,
            studies_per_shard=2, dataset="d",
        )  # fmt: skip
        summary = ingest(config)
        assert summary["images"] == {"in": 6, "out": 5, "quarantined": 1}
        shards = Manifest.read(output).shards
        summaries.append({shard.file: shard.sha256 for shard in shards})
        assert ingest(config)["shards"] == {"written": 0, "kept": len(shards)}
    assert summaries[0] == summaries[1]
    for file, digest in summaries[1].items():
        assert hashlib.sha256((tmp_path / "b" / file).read_bytes()).hexdigest() == digest
    left = {p.name for p in (tmp_path / "b" / ".ingest").iterdir()}
    assert left == {"layout.parquet", "settings.json", *(f"{file}.json" for file in summaries[1])}
