"""Frozen features of studies or volumes, by Ray Data batch inference."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from ray_mae.checkpoint.format import encoder_facts
from ray_mae.cluster.runtime import gpus_wanted
from ray_mae.data.kinds import of_encoder, require_kind
from ray_mae.data.loading.integrity import check_sizes
from ray_mae.data.loading.stream import FileOrder, from_block
from ray_mae.data.paths import real_path
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.baselines import PIXELS, RANDOM, TRAINED
from ray_mae.terminal import ProgressLine, console


class Embedder:
    """Lives in an actor: blocks of one batch in, one row per study or volume with features out."""

    def __init__(self, checkpoint: Path, pool: str | None, kinds: Sequence[str], seed: int) -> None:
        import torch

        from ray_mae.inference.load import load_encoder, random_encoder

        trained, _ = load_encoder(checkpoint, pool)
        encoders = {TRAINED: trained, RANDOM: random_encoder(trained.settings, seed, pool)}
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._encoders = {k: encoders[k].to(self._device) for k in kinds if k in encoders}
        self._kind = of_encoder(trained.settings)
        self._raw = trained.raw if PIXELS in kinds else None

    def __call__(self, block: pa.Table) -> pa.Table:
        import torch

        arrays = from_block(block)
        batch = self._kind.to_batch(arrays).to(self._device)
        features: dict[str, Any] = {}
        with torch.inference_mode():
            for kind, encoder in self._encoders.items():
                features[kind] = encoder.embed(batch)
            if self._raw is not None:
                features[PIXELS] = self._raw(batch)
        names = [name for name in block.column_names if name not in {"header", *arrays}]
        columns = {name: block[name].combine_chunks().flatten() for name in names}
        for kind, values in features.items():
            flat = pa.array(values.float().cpu().numpy().ravel(), pa.float32())
            columns[kind] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return pa.table(columns)


def features(
    checkpoint: Path,
    shards: Path,
    *,
    splits: list[str],
    pool: str | None,
    kinds: Sequence[str],
    batch_size: int,
    workers: int,
    gpu: bool | str,
    seed: int = 0,
    max_views: int = 16,
    crop_size: int | None = None,
    sees: str = "middle",
) -> Dataset:
    """A lazy dataset of what the collator describes and one column of features per kind.

    Studies have study_id, patient_id, split, labels and views; volumes have volume_id, patient_id,
    session_id, site, split, modality and labels. The first column is the identifier.

    sees: of volumes, the middle crop, or windows over the foreground, whose features are pooled.
    """
    manifest = Manifest.read(shards)
    settings = encoder_facts(checkpoint).settings  # raises here and not in an actor
    kind = of_encoder(settings)
    require_kind(manifest.kind, kind.name, shards, f"the encoder of {checkpoint}")
    size = settings.resized(crop_size).input_size
    collator = (
        kind.whole_collator(size)
        if sees == "windows"
        else kind.evaluation_collator(size, seed, max_views)
    )
    check_sizes(real_path(shards), manifest)
    reader = FileOrder(real_path(shards), collator, batch_size)
    batches = reader.dataset(manifest, splits)
    return batches.map_batches(
        Embedder,
        fn_constructor_args=(checkpoint.resolve(), pool, tuple(kinds), seed),
        batch_size=1,  # a row is a batch already
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers),
        num_gpus=1 if gpus_wanted(gpu) else 0,
        num_cpus=1,
    )


def what_is_seen(checkpoint: Path, crop_size: int | None, sees: str) -> str:
    """Returns what `features` sees of a sample, in words."""
    settings = encoder_facts(checkpoint).settings.resized(crop_size)
    if settings.dimensions == 2:
        return settings.sight.described
    side = f"{settings.input_size}³ voxels"
    if sees == "windows":
        return f"windows of {side} over the foreground, their features weighted by it"
    return f"the middle {side} of each volume"


def blocks(rows: Dataset, total: int, noun: str, rows_per_block: int = 4096) -> Iterator[pa.Table]:
    """The dataset's rows as tables of at least so many; a line every few seconds says how far it is.

    Args:
        rows: of `features`.
        total: how many there are.
        noun: plural of a row.
        rows_per_block: the last table may have fewer.
    """
    console.print(f"embedding {total:,} {noun}: loading the encoder …")
    progress, done = ProgressLine("embedded", noun), 0
    waiting: list[pa.Table] = []
    for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
        waiting.append(batch)
        done += len(batch)
        progress.show(done, total)
        if sum(map(len, waiting)) >= rows_per_block:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size list column as [rows, D] float32."""
    array = column.combine_chunks()
    return array.flatten().to_numpy().reshape(len(array), -1)
