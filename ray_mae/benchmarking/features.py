"""One pass of an encoder over a data set: a row per view, kept by content, gone on with shard by shard."""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from ray_mae.benchmarking.readers import CorruptedCollator, HistogramRows, Packer, ShardBatches
from ray_mae.benchmarking.sources import Source
from ray_mae.checkpoint.format import fingerprint
from ray_mae.cluster.runtime import gpus_wanted
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.integrity import check_sizes
from ray_mae.data.loading.stream import dataset_of, from_block
from ray_mae.data.paths import real_path
from ray_mae.data.schema import NOUNS, Manifest, Shard
from ray_mae.files import replacing
from ray_mae.terminal import ProgressLine, console

VECTOR, TOKENS = "vector:", "tokens"
"""What stands before the names of vectors in a cache, and the column of tokens."""


@dataclass(frozen=True)
class Features:
    """What an encoder says of N views of S samples. A volume is one view."""

    sample: NDArray[np.intp]
    """[N] index of the view's sample in the table of samples, rising; views in their stored order."""
    view: NDArray[np.int8]
    """[N] index in VIEWS; 0 of a volume."""
    vectors: dict[str, NDArray[np.float32]]
    """[N, D] by pool: cls, mean; or pixels, histogram."""
    tokens: NDArray[np.float16] | None = None
    """[N, T, D]"""


class ViewEmbedder:
    """Lives in an actor: a batch in, a row per view out, of several encoders that share the images."""

    def __init__(self, sources: Sequence[Source]) -> None:
        import torch

        self._sources, self._kind = sources, KINDS[sources[0].sample]
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._encoders = [_network(source, self._device) for source in sources]

    def __call__(self, block: pa.Table) -> pa.Table:
        import torch

        batch = self._kind.to_batch(from_block(block)).to(self._device)
        names = np.array(json.loads(block["samples"][0].as_py()))
        study = self._sources[0].sample == "study"
        of = batch.study.cpu().numpy() if study else np.arange(len(names))
        view = batch.view.cpu().numpy() if study else 0 * of
        columns: dict[str, Any] = {
            "file": [block["file"][0].as_py()] * len(of),
            "sample": names[of].tolist(),
            "view": pa.array(view.tolist(), pa.int8()),
        }
        for i, (source, encoder) in enumerate(zip(self._sources, self._encoders, strict=True)):
            with torch.inference_mode():
                found = (
                    _small_images(source, batch)
                    if encoder is None
                    else _of_network(encoder, batch, source)
                )
            for name, values in found.items():
                kind = pa.float16() if name == TOKENS else pa.float32()
                rows = values.reshape(len(of), -1).astype(kind.to_pandas_dtype())
                flat = pa.array(rows.ravel(), kind)
                columns[f"{i}/{name}"] = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
        return pa.table(columns)


def _network(source: Source, device: str) -> Any:
    """The encoder of a source, on a device; None where there is none."""
    from ray_mae.inference.load import load_encoder, random_encoder

    if source.path is None:
        return None
    encoder: Any = load_encoder(source.path)[0]
    if source.kind == "random":
        data, spacing = encoder.data, encoder.spacing_mm
        encoder = random_encoder(encoder.settings, source.seed, data=data, spacing_mm=spacing)
    encoder.resize(source.crop_size)
    return encoder.to(device)


def _of_network(encoder: Any, batch: Any, source: Source) -> dict[str, NDArray[Any]]:
    """Vectors [N, D] by pool, and tokens [N, T, D] if they are wanted."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

    from ray_mae.transforms.images import whole
    from ray_mae.transforms.volumes import clean

    found: dict[str, torch.Tensor] = {}
    if source.sample == "study":
        images = whole(batch, encoder.settings.image_size, encoder.settings.sight)
        tokens = encoder.tokens(images, batch.view)
        patches = tokens[:, 1:]
        found = {f"{VECTOR}cls": tokens[:, 0], f"{VECTOR}mean": patches.mean(1)}
        if source.grid:
            side = round(patches.shape[1] ** 0.5)
            maps = patches.transpose(1, 2).unflatten(2, (side, side))
            pooled = adaptive_avg_pool2d(maps.float(), min(source.grid, side))
            found[TOKENS] = pooled.flatten(2).transpose(1, 2)
    else:
        found = {f"{VECTOR}mean": encoder.embed(batch)}
        if source.grid:
            maps = encoder.encoder.last_map(clean(batch)[0])
            pooled = adaptive_avg_pool3d(maps, min(source.grid, maps.shape[-1]))
            found[TOKENS] = pooled.flatten(2).transpose(1, 2)
    return {name: values.float().cpu().numpy() for name, values in found.items()}


def _small_images(source: Source, batch: Any) -> dict[str, NDArray[Any]]:
    """Small images or volumes as they are, [N, P]."""
    from torch.nn.functional import adaptive_avg_pool3d

    from ray_mae.transforms.images import whole
    from ray_mae.transforms.volumes import clean

    if source.sample == "study":
        small = whole(batch, source.side).flatten(1)
    else:
        small = adaptive_avg_pool3d(clean(batch)[0], source.side).flatten(1)
        small = batch.pool(small) if source.sees == "windows" else small
    return {f"{VECTOR}pixels": small.cpu().numpy()}


# ------------------------------------------------------------------------------------------- cache


@dataclass(frozen=True)
class Cache:
    """The features of one source and one data set."""

    folder: Path
    source: Source
    shards: Path

    def missing(self, splits: Sequence[str]) -> list[Shard]:
        """Shards of some splits that are not embedded yet."""
        shards = _of_splits(Manifest.read(self.shards), splits)
        return [shard for shard in shards if not self._file(shard).is_file()]

    def write(self, shard: str, table: pa.Table) -> None:
        """Keeps the rows of one shard.

        Raises:
            ValueError: features are not finite.
        """
        for column in table.column_names:
            if column.startswith(VECTOR):
                values = _matrix(table[column])
                if broken := int((~np.isfinite(values)).any(axis=1).sum()):
                    raise ValueError(
                        f"{self.source.path or self.source.kind}: the features of {broken} of {len(values)} "
                        "views are not finite: the weights are broken, or the training diverged"
                    )
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / Path(shard).name) as unfinished:
            pq.write_table(table, unfinished, compression="zstd")

    def _file(self, shard: Shard) -> Path:
        return self.folder / Path(shard.file).name

    def read(
        self,
        sample: NDArray[np.str_],
        splits: Sequence[str],
        tokens: bool = False,
        pool: str | None = None,
    ) -> Features:
        """Returns what is kept of some samples.

        Args:
            sample: [S] identifiers, in the order that indices refer to.
            splits: whose files are read.
            tokens: whether they are read, too, where they are kept: they are much larger than vectors.
            pool: the one vector that is read, where it is kept; default: all.
        """
        files = [self._file(s) for s in _of_splits(Manifest.read(self.shards), splits)]
        columns = [name for name in pq.read_schema(files[0]).names if tokens or name != TOKENS]
        if f"{VECTOR}{pool}" in columns:
            columns = [c for c in columns if not c.startswith(VECTOR) or c == f"{VECTOR}{pool}"]
        table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
        place = {name: i for i, name in enumerate(sample.tolist())}
        of = np.array([place.get(name, -1) for name in table["sample"].to_pylist()])
        order = np.argsort(of, kind="stable")  # views of a sample stay in their order
        order = order[of[order] >= 0]
        vectors = {
            column.removeprefix(VECTOR): _matrix(table[column])[order]
            for column in table.column_names
            if column.startswith(VECTOR)
        }
        grid = None
        if TOKENS in table.column_names:
            width = next(iter(vectors.values())).shape[1]
            grid = _matrix(table[TOKENS])[order].reshape(len(order), -1, width)
        view = table["view"].to_numpy()[order]
        return Features(of[order], view, vectors, grid)


TOGETHER = 8
"""Encoders that share an actor."""


def fill(
    config: SuiteConfig, caches: Sequence[Cache], splits: Sequence[str], title: str
) -> dict[Path, float]:
    """Embeds what is not there yet: each image is decoded once for encoders that see it alike.

    Args:
        config: batch size, workers, GPU.
        caches: of one data set.
        splits: whose samples.
        title: for a person.

    Returns:
        Seconds by the folder of the cache; a share of those of a common pass.

    Raises:
        ValueError: features are not finite.
    """
    alike: dict[tuple, list[Cache]] = {}
    for cache in caches:
        if missing := cache.missing(splits):
            names = tuple(shard.file for shard in missing)
            alike.setdefault((cache.source.sight(), names), []).append(cache)
    seconds: dict[Path, float] = {}
    for some in alike.values():
        for first in range(0, len(some), TOGETHER):
            part = some[first : first + TOGETHER]
            began = time.time()
            _fill_alike(config, part, part[0].missing(splits), f"{title}, {len(part)} encoders")
            share = (time.time() - began) / len(part)
            seconds |= {cache.folder: round(share, 2) for cache in part}
    return seconds


def _fill_alike(
    config: SuiteConfig, caches: Sequence[Cache], shards: Sequence[Shard], title: str
) -> None:
    folder, source = real_path(caches[0].shards), caches[0].source
    manifest = Manifest.read(folder)
    check_sizes(folder, manifest)
    noun, total = NOUNS[manifest.kind], sum(shard.rows for shard in shards)
    console.print(f"{title}: {total:,} {noun}")
    progress, done = ProgressLine("embedded", noun), 0
    calls = [(shard,) for shard in shards]
    if source.kind == "histogram":
        histograms = HistogramRows(folder, manifest.kind, config.max_views, source.corruption)
        rows = dataset_of(histograms, calls, 8)
    else:
        collator = collator_of(source, config.max_views)
        reader = ShardBatches(folder, collator, config.batch_size, f"{manifest.kind}_id")
        rows = dataset_of(reader, calls, 8).map_batches(
            ViewEmbedder,
            fn_constructor_args=([cache.source for cache in caches],),
            batch_size=1,  # a row is a batch already
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=config.workers),
            num_gpus=1 if gpus_wanted(config.gpu) else 0,
            num_cpus=1,
        )
    pending: list[pa.Table] = []
    for table in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
        for part in _by_file(table):
            if pending and pending[0]["file"][0] != part["file"][0]:
                _write(caches, pending)
                pending = []
            pending.append(part)
            done += len(part["sample"].unique())
            progress.show(done, total)
    _write(caches, pending)


def _write(caches: Sequence[Cache], parts: list[pa.Table]) -> None:
    """The rows of one shard, to the caches of its encoders."""
    table = pa.concat_tables(parts)
    common = table.select(["sample", "view"])
    for i, cache in enumerate(caches):
        own = common
        for column in table.column_names:
            number, slash, name = column.partition("/")
            if slash and number == str(i):
                own = own.append_column(name, table[column])
        cache.write(table["file"][0].as_py(), own)


def cache_of(config: SuiteConfig, dataset: str, source: Source) -> Cache:
    """Returns where the features of a source and a data set are kept."""
    shards = config.datasets[dataset].shards
    key = source.key(fingerprint(shards), config.max_views)
    return Cache(config.output / "cache" / "features" / key, source, shards)


def collator_of(source: Source, max_views: int) -> Packer:
    """Returns how rows become what a source looks at."""
    kind, size = KINDS[source.sample], source.input_size
    collator: Packer
    if source.sees == "windows":
        collator = kind.whole_collator(size)
    else:
        collator = kind.evaluation_collator(size, 0, max_views)
    return CorruptedCollator(collator, source.corruption) if source.corruption else collator


def _of_splits(manifest: Manifest, splits: Sequence[str]) -> list[Shard]:
    return [shard for split in splits for shard in manifest.of_split(split)]


def _by_file(table: pa.Table) -> Iterator[pa.Table]:
    """Parts of a table of one file each, in order."""
    files = np.array(table["file"].to_pylist())
    edges = [0, *(np.flatnonzero(files[1:] != files[:-1]) + 1).tolist(), len(files)]
    for first, last in itertools.pairwise(edges):
        if last > first:
            yield table.slice(first, last - first)


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """A fixed-size list column as [rows, D]."""
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)


def mean_of_views(
    features: Features, rows: NDArray[np.bool_], samples: int
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_]]:
    """Returns the mean over some views of each sample, by pool [S, D], and which samples [S] have any.

    Args:
        features: of N views.
        rows: [N] the views that count.
        samples: S.
    """
    whole = bool(rows.all())  # then nothing is copied
    of = features.sample if whole else features.sample[rows]
    count = np.bincount(of, minlength=samples)
    if whole and len(of) == samples and (count == 1).all():
        return dict(features.vectors), count > 0
    there = np.flatnonzero(count)
    first = np.searchsorted(of, there)  # samples rise
    means = {}
    for pool, values in features.vectors.items():
        means[pool] = np.zeros((samples, values.shape[1]), np.float32)
        if len(there):
            total = np.add.reduceat(values if whole else values[rows], first, axis=0)
            means[pool][there] = np.divide(
                total, count[there, None], out=total, casting="same_kind"
            )
    return means, count > 0


def replaced_vectors(features: Features, vectors: dict[str, NDArray[np.float32]]) -> Features:
    """The same views with other vectors."""
    return replace(features, vectors=vectors)
