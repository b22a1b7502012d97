"""Runs that were never trained, as their folders would be."""

import json
from pathlib import Path
from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.integrity import SNAPSHOT
from ray_mae.config import PretrainConfig
from ray_mae.config.base import to_dict
from ray_mae.data.shard_set import ShardSet


def write_record(run: Path, step: int) -> Path:
    """Ray Train's record of one checkpoint; returns the folder that it names."""
    folder = run / f"checkpoint_{step}"
    folder.mkdir(exist_ok=True)
    result = {"checkpoint_dir_name": folder.name, "metrics": {"step": step}}
    record = {"checkpoint_results": [result], "latest_checkpoint_result": result}
    (run / SNAPSHOT).write_text(json.dumps(record))
    return folder


def write_state(
    folder: Path,
    config: PretrainConfig,
    *,
    step: int,
    workers: int,
    precision: str = "fp32",
    of_shards: dict[str, Any] | None = None,
) -> None:
    """state.json of a checkpoint, as workers of a run with these settings would write it.

    of_shards: by `facts_of`; by default as the shards of the settings are now.
    """
    ckpt.write_state(
        folder,
        to_dict(config),
        step=step,
        workers=workers,
        engine=config.engine.chosen.name,
        zero_stage=config.engine.chosen.zero_stage or 0,
        precision=precision,
        shards=of_shards or ckpt.facts_of(ShardSet.read(config.folders, config.shares)),
        trackers={},
    )
