"""Frozen features of studies, by Ray Data batch inference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from ray_mae.data.loading import FileOrder, Packing, from_block
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.result import PIXELS, RANDOM, TRAINED
from ray_mae.runtime import gpus_wanted
from ray_mae.train.checkpoint import find_checkpoint

EXPORTED = "encoder.json"
PIXEL_SIDE = 32


class Embedder:
    """Lives in an actor: blocks of images in, one row per study with its features out.

    A study's vector is the mean over its views (late fusion: for a linear head the mean of the
    views' logits is the logit of their mean).
    """

    def __init__(self, checkpoint: Path, pool: str, kinds: Sequence[str], seed: int) -> None:
        import torch

        from ray_mae.encoder import load_encoder, random_encoder

        trained, _ = load_encoder(checkpoint, pool)
        made = {TRAINED: trained, RANDOM: random_encoder(trained.config, seed, pool)}
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._encoders = {k: made[k].to(self._device) for k in kinds if k in made}
        self._pixels = PIXELS in kinds
        self._size = trained.config.image_size

    def __call__(self, block: pa.Table) -> pa.Table:
        import torch

        from ray_mae.data.loading import to_study_batch
        from ray_mae.methods.augment import whole

        batch = to_study_batch(from_block(block)).to(self._device)
        found: dict[str, Any] = {}
        with torch.inference_mode():
            images = whole(batch, self._size)
            for kind, encoder in self._encoders.items():
                found[kind] = encoder(images, batch.view)
            if self._pixels:
                found[PIXELS] = whole(batch, PIXEL_SIDE).flatten(1)
            rows = {
                kind: _study_means(per_view, batch.study, batch.samples)
                for kind, per_view in found.items()
            }
        names = ("study_id", "patient_id", "split", "labels", "views")
        columns = {name: block[name][0].as_py() for name in names}
        for kind, values in rows.items():
            flat = pa.array(values.float().cpu().numpy().ravel(), pa.float32())
            columns[kind] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return pa.table(columns)


def _study_means(per_view: Any, study: Any, studies: int) -> Any:
    """[S, D] means of the rows [N, D] of each study."""
    total = per_view.new_zeros(studies, per_view.shape[1]).index_add(0, study, per_view)
    return total / study.bincount(minlength=studies)[:, None]


def features(
    checkpoint: Path,
    shards: Path,
    *,
    splits: list[str],
    pool: str,
    kinds: Sequence[str],
    batch_size: int,
    workers: int,
    gpu: str,
    seed: int = 0,
    max_views: int = 16,
) -> Dataset:
    """A lazy dataset of study_id, patient_id, split, labels, views and one column per kind."""
    manifest = Manifest.read(shards)
    if not (checkpoint / EXPORTED).is_file():
        find_checkpoint(checkpoint)  # raises here and not in an actor
    reader = FileOrder(shards.resolve(), Packing(max_views=max_views, seed=seed), batch_size)
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


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size list column as [rows, D] float32."""
    array = column.combine_chunks()
    return array.flatten().to_numpy().reshape(len(array), -1)
