"""`pretrain` with all that belongs to a run: training, and the online probe of its checkpoints."""

from typing import Any

from ray_mae.config.pretrain import PretrainConfig
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.probe.online import probe_checkpoint, probed_samples
from ray_mae.train import pretrain as training


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """`ray_mae.train.pretrain.pretrain`, with the online probe where `probe.every` asks for it."""
    if not config.probe.every:
        return training.pretrain(config)
    # what cannot be probed is told before any worker starts
    probed_samples(ShardSet.read(config.folders, config.shares), config.probe)
    return training.pretrain(config, probe=probe_checkpoint)
