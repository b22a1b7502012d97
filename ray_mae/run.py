"""`pretrain` with all that belongs to a run: training, and the online probe of its checkpoints."""

from typing import Any

from ray_mae.config import AnyPretrainConfig
from ray_mae.evaluate.online import probe_checkpoint
from ray_mae.train import launch


def pretrain(config: AnyPretrainConfig) -> dict[str, Any]:
    """`ray_mae.train.launch.pretrain`, with the online probe where `probe.every` asks for it."""
    return launch.pretrain(config, probe=probe_checkpoint if config.probe.every else None)
