"""Epochs of X-rays from disk and from an object store, beside MosaicML streaming and litData.

    python -m benchmarks.object_store --source FOLDER [--rounds 3] [--others /tmp/others/bin/python]

The store is moto's S3 server on this machine: what a network adds is not measured, what reading costs is. An
epoch is all images in random order, decoded to arrays; ours are read a row group at a time, as training does.
Each epoch is a process of its own, in turn. Bytes and requests are those of images and footers.

The two others bring versions of packages that do not go with ours, so they have an environment of their own,
and are left out without one:

    uv venv /tmp/others --python 3.11
    uv pip install --python /tmp/others/bin/python mosaicml-streaming litdata \\
        zstandard pillow lazy-loader rich
    uv pip install --python /tmp/others/bin/python --no-deps -e .
"""

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from benchmarks import record
from ray_mae.data.decoding.images import read_image, shrink
from ray_mae.data.decoding.stored_images import decode, encode
from ray_mae.data.loading.node_cache import CacheSettings
from ray_mae.data.loading.order import Mixture
from ray_mae.data.loading.sampler import WindowReader
from ray_mae.data.parquet import footer_sha256
from ray_mae.data.paths import sha256_of
from ray_mae.data.quarantine import QuarantineError
from ray_mae.data.schema import SCHEMA_VERSION, STUDY_SCHEMA, Manifest, Shard
from ray_mae.data.shard_set import ShardSet
from tests.object_store import s3_server

STUDIES_PER_GROUP, STUDIES_PER_SHARD = 32, 512  # ingest's own
WINDOW = 256
COLUMNS = ("study_id", "views")
LARGE = 1 << 30


def main() -> None:
    parser = record.parser_of(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of images")
    parser.add_argument("--limit", type=int, default=1000, help="images at most")
    parser.add_argument("--times", type=int, default=3, help="how often each of them is there")
    parser.add_argument("--side", type=int, default=256, help="of an image, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", type=Path, help="Python that has the two others")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, s3_server() as bucket:
        folder = Path(name)
        images = [encode(image, "zstd") for image in _images(given.source, given.limit, given.side)]
        images *= given.times
        write(folder / "shards", images)
        store = UPath(f"{bucket}/shards")
        store.fs.put(f"{folder / 'shards'}/", store.path, recursive=True)
        if given.others:
            (folder / "images").mkdir()
            for number, image in enumerate(images):
                (folder / "images" / f"{number:06}").write_bytes(image)
            _other(given.others, "write", folder / "images", bucket)
        measured: dict[str, list[dict[str, float]]] = {}
        for number in range(given.rounds):
            cache = folder / f"cache {number}"
            ours: list[tuple[str, Path, Path | None]] = [
                ("disk", folder / "shards", None),
                ("store", store, None),
                ("store, cold cache", store, cache),
                ("store, warm cache", store, cache),
            ]
            for title, shards, kept in ours:
                measured.setdefault(title, []).append(_in_a_process(shards, kept, number))
            for other in ("streaming", "litdata") if given.others else ():
                for what in ("cold", "warm"):
                    title = f"{TITLES[other]}, {what}"
                    result = _other(given.others, other, folder / f"{other} {number}", bucket)
                    measured.setdefault(title, []).append(result)
        size = sum(map(len, images))
    if not given.others:
        print("without --others: see the first lines of this file for how to compare with others")
    record.finish(
        given,
        [_row(title, results) for title, results in measured.items()],
        f"{len(images)} X-rays of {given.side} pixels, {size / 1e6:.1f} MB; medians of {given.rounds} "
        "epochs, each in a fresh process. CPU is of the reading process alone, without the store's. The "
        "others fetch whole files before they read them.",
    )


TITLES = {"streaming": "MosaicML streaming", "litdata": "litData"}


def _images(source: Path, limit: int, side: int) -> list[Any]:
    images = []
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        if len(images) == limit:
            break
        try:
            images.append(shrink(read_image(path, 10**8), side))
        except QuarantineError:
            continue
    return images


def write(folder: Path, images: list[bytes]) -> None:
    """Shards of studies of one view, as ingest lays them out."""
    folder.mkdir()
    shards = []
    for first in range(0, len(images), STUDIES_PER_SHARD):
        part = images[first : first + STUDIES_PER_SHARD]
        file = folder / f"train-{first // STUDIES_PER_SHARD:05}.parquet"
        rows = [_row_of(first + i, image) for i, image in enumerate(part)]
        pq.write_table(
            pa.Table.from_pylist(rows, STUDY_SCHEMA),
            file,
            row_group_size=STUDIES_PER_GROUP,
            write_page_checksum=True,
            compression={"views.list.element.image": "none"},
            use_dictionary=False,
        )
        groups = [
            len(part[i : i + STUDIES_PER_GROUP]) for i in range(0, len(part), STUDIES_PER_GROUP)
        ]
        size, checksum = file.stat().st_size, sha256_of(file)
        shards.append(
            Shard(
                file.name,
                "train",
                len(part),
                groups,
                len(part),
                size,
                checksum,
                footer_sha256(file),
            )
        )
    Manifest("study", "x-rays", SCHEMA_VERSION, shards).write(folder)


def _row_of(number: int, image: bytes) -> dict[str, Any]:
    view = {"image": image, "encoding": "zstd", "height": 0, "width": 0, "view": "frontal"}
    return {
        "study_id": f"s{number}",
        "patient_id": f"p{number}",
        "dataset": "x-rays",
        "split": "train",
        "views": [view],
        "labels": [0] * 14,
    }


def _in_a_process(shards: Path, cache: Path | None, seed: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_epoch, args=(there, str(shards), cache, seed))
    process.start()
    there.close()
    result: dict[str, float] = here.recv()
    process.join()
    return result


def _epoch(out: Any, shards: str, cache: Path | None, seed: int) -> None:
    """Reads all images once and sends what that took."""
    from s3fs import S3FileSystem

    fetched, get = [], S3FileSystem._cat_file

    async def counted(
        self: Any, path: str, _: Any = None, start: Any = None, end: Any = None
    ) -> Any:
        content = await get(self, path, start=start, end=end)
        fetched.append(len(content))
        return content

    S3FileSystem._cat_file = counted
    of = ShardSet.read(Path(shards))  # the manifest, and the packages of a store
    fetched.clear()
    order = Mixture.of(of, "train", seed, WINDOW)
    total = order.samples_per_epoch
    began, cpu, images = time.perf_counter(), time.process_time(), 0
    kept = CacheSettings(cache, LARGE).open(of.paths, COLUMNS) if cache else None
    reader = WindowReader(of, COLUMNS, order.shuffle_window, 10.0, cache=kept)
    reader.look_ahead(order.locations(0, total))
    for location in order.locations(0, total):
        images += sum(decode(view["image"]).size > 0 for view in reader.row(location)["views"])
    reader.close()
    out.send(
        {
            "images": images,
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "bytes": sum(fetched),
            "requests": len(fetched),
        }
    )


def _other(python: Path, *words: object) -> dict[str, float]:
    command = [str(python), "-m", "benchmarks.streamers", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _row(title: str, results: list[dict[str, float]]) -> dict[str, record.Cell]:
    def median(value: str) -> float:
        return statistics.median(result[value] for result in results)

    images = median("images")
    return {
        "read from": title,
        "images/s": round(images / median("seconds")),
        "CPU s per 1,000 images": 1000 * median("cpu") / images,
        "MB fetched": median("bytes") / 1e6,
        "requests": round(median("requests")) if "requests" in results[0] else "",
    }


if __name__ == "__main__":
    main()
