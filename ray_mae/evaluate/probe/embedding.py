"""Frozen features of an encoder over the samples of a cohort, as a probe takes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ray_mae.config import ProbeSettings
from ray_mae.data.schema import NOUNS
from ray_mae.evaluate.cohort import Cohort
from ray_mae.evaluate.features import blocks, features
from ray_mae.evaluate.probe.labelled import ProbeData


def embed_cohort(
    checkpoint: Path,
    shards: Path,
    splits: list[str],
    cohort: Cohort,
    settings: ProbeSettings,
    kinds: Sequence[str],
) -> pa.Table:
    """Embeds all samples of a cohort; Ray must be there.

    Args:
        checkpoint: of the encoder.
        shards: that the cohort was read from.
        splits: of the cohort.
        cohort: S samples.
        settings: pool, crops, batches and workers.
        kinds: of features, as of `features`.

    Returns:
        The columns of `features`, sorted by the identifier, whatever order the shards came in.
    """
    rows = features(
        checkpoint,
        shards,
        splits=splits,
        pool=settings.pool,
        kinds=kinds,
        batch_size=settings.batch_size,
        workers=settings.workers,
        gpu=settings.gpu,
        crop_size=settings.crop_size,
        sees=settings.sees,
        seed=settings.seed,
    )
    table = pa.concat_tables(blocks(rows, len(cohort.name), NOUNS[cohort.kind]))
    return table.sort_by(table.column_names[0])


def in_order_of(table: pa.Table, cohort: Cohort, data: ProbeData) -> ProbeData:
    """The cohort's data in the order of the rows of features.

    Args:
        table: of `embed_cohort`.
        cohort: that was embedded.
        data: of the cohort, in its order.
    """
    row_of = {name: row for row, name in enumerate(cohort.name.tolist())}
    rows = [row_of[name] for name in table.column(0).to_pylist()]
    return replace(
        data, targets=data.targets[rows], patient=data.patient[rows], split=data.split[rows]
    )
