"""`pretrain` with all that belongs to a run: training, and the online probe of its checkpoints."""

from typing import Any

from ray_mae.config import AnyPretrainConfig
from ray_mae.evaluate.probe.online import probe_checkpoint, probed_samples
from ray_mae.train import pretrain as launch


def pretrain(config: AnyPretrainConfig) -> dict[str, Any]:
    """`ray_mae.train.pretrain.pretrain`, with the online probe where `probe.every` asks for it."""
    if not config.probe.every:
        return launch.pretrain(config)
    probed_samples(
        config.shards, config.probe
    )  # what cannot be probed is told before any worker starts
    return launch.pretrain(config, probe=probe_checkpoint)
