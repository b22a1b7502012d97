"""Parts of an archive by patient, as shards of their own: a smaller part lies within a larger one."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_mae.data.parquet import footer_sha256, open_parquet
from ray_mae.data.paths import is_remote, local_file, sha256_of
from ray_mae.data.schema import Manifest, Shard
from ray_mae.files import replacing


def write_subset(source: Path, patients: set[str], target: Path) -> Manifest:
    """Writes the training samples of some patients; validation and test files are those of the source.

    Args:
        source: folder of shards.
        patients: whose training samples are taken.
        target: folder for the part; a whole one of before is kept.

    Returns:
        Its manifest.

    Raises:
        OSError: a file of the source cannot be read.
    """
    if (target / Manifest.FILE).is_file():
        return Manifest.read(target)
    shutil.rmtree(target, ignore_errors=True)  # what a kill left
    target.mkdir(parents=True)
    manifest = Manifest.read(source)
    shards = []
    for shard in manifest.shards:
        if shard.split == "train":
            if part := _part(source / shard.file, target / shard.file, shard, patients):
                shards.append(part)
        else:
            (target / shard.file).parent.mkdir(parents=True, exist_ok=True)
            _lend(source / shard.file, target / shard.file)
            shards.append(shard)
    subset = replace(manifest, shards=shards)
    subset.write(target)
    return subset


def _lend(source: Path, target: Path) -> None:
    """A file under another name: by a link, or of one in a store as a copy."""
    if is_remote(source):
        with local_file(source) as file:
            shutil.copyfile(file, target)
    else:
        os.symlink(source.resolve(), target)


def _part(source: Path, target: Path, shard: Shard, patients: set[str]) -> Shard | None:
    """Copies a file's rows of the patients, row group by row group; None where there are none."""
    groups, images = [], 0
    wanted = pa.array(sorted(patients))
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        open_parquet(source, shard) as file,
        replacing(target) as temporary,
        pq.ParquetWriter(
            temporary, file.schema_arrow, compression="zstd", write_page_checksum=True
        ) as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            table = table.filter(pc.is_in(table["patient_id"], value_set=wanted))
            if len(table):
                writer.write_table(table, row_group_size=len(table))
                groups.append(len(table))
                images += _images(table)
    if not groups:
        target.unlink()
        return None
    return replace(
        shard,
        rows=sum(groups),
        row_groups=groups,
        images=images,
        bytes=target.stat().st_size,
        sha256=sha256_of(target),
        footer=footer_sha256(target),
    )


def _images(table: pa.Table) -> int:
    """Views of studies, or volumes."""
    if "views" not in table.column_names:
        return len(table)
    return int(pc.sum(pc.list_value_length(table["views"])).as_py())
