"""`embed`: a checkpoint over a whole set of shards → Parquet."""

import json
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.checkpoint.compatibility import require_compatible
from ray_mae.cluster.runtime import cluster
from ray_mae.config import EmbedConfig
from ray_mae.data.labels import STATE_NAMES
from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.baselines import TRAINED
from ray_mae.evaluate.features import blocks, features, what_is_seen
from ray_mae.store import writes_to_stores
from ray_mae.summary import write_summary
from ray_mae.terminal import warn

FILE = "embeddings.parquet"


@writes_to_stores()
def embed(config: EmbedConfig) -> dict[str, Any]:
    """Writes embeddings.parquet: the columns of `features` for each study or volume, and embedding [D].

    The legend of the label states of studies stands in the metadata of the file: `labels`, their names in
    order, and `label_states`, what each number means; the names in summary.json, too.

    Args:
        config: settings of the command.

    Returns:
        The summary, which summary.json holds, too.

    Raises:
        FileNotFoundError: where there is no checkpoint or there are no shards.
        ValueError: where these are of different kinds.
    """
    began = time.time()
    manifest = Manifest.read(config.shards)
    cautions = require_compatible(config.checkpoint, ShardSet.read(config.shards), config.mismatch)
    warn(cautions)
    config.output.mkdir(parents=True, exist_ok=True)
    rows_written, width = 0, 0
    names = list(manifest.label_names) if manifest.kind == "study" else []
    with cluster(cpus=config.workers + 1):
        rows = features(
            config.checkpoint,
            config.shards,
            splits=list(config.splits),
            pool=config.pool,
            kinds=[TRAINED],
            max_views=config.max_views,
            batch_size=config.batch_size,
            workers=config.workers,
            gpu=config.gpu,
            crop_size=config.crop_size,
            sees=config.sees,
        )
        path = config.output / FILE
        partial = path.with_suffix(".partial")
        writer: pq.ParquetWriter | None = None
        total = sum(shard.rows for shard in manifest.shards if shard.split in config.splits)
        for block in blocks(rows, total, NOUNS[manifest.kind]):
            table: pa.Table = block.rename_columns(
                ["embedding" if name == TRAINED else name for name in block.column_names]
            ).replace_schema_metadata(_legend(names))
            if writer is None:
                writer = pq.ParquetWriter(partial, table.schema)
                width = table.schema.field("embedding").type.list_size
            writer.write_table(table)
            rows_written += len(table)
        assert writer is not None
        writer.close()
        partial.replace(path)
    seconds = time.time() - began
    summary = {
        "command": "embed",
        "checkpoint": str(config.checkpoint),
        "sees": what_is_seen(config.checkpoint, config.crop_size, config.sees),
        NOUNS[manifest.kind]: rows_written,
        "width": width,
        **({"labels": names} if names else {}),
        "cautions": cautions,
        "seconds": round(seconds, 1),
        "file": str(path),
    }
    return write_summary(config.output, summary)


def _legend(names: list[str]) -> dict[str, str]:
    """Of the column `labels` of studies, as JSON; of volumes the labels have names of their own."""
    if not names:
        return {}
    return {"labels": json.dumps(names), "label_states": json.dumps(STATE_NAMES)}
