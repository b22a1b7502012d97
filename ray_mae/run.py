"""`pretrain` with all that belongs to a run: training, and the online probe of its checkpoints."""

from typing import Any

from ray_mae.config.pretrain import PretrainConfig
from ray_mae.config.stages import StagesConfig
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.probe.online import probe_checkpoint, probed_samples
from ray_mae.train import pretrain as training
from ray_mae.train.stages import pretrain_stages


def pretrain(config: PretrainConfig | StagesConfig) -> dict[str, Any]:
    """`ray_mae.train.pretrain.pretrain`, with the online probe where `probe.every` asks for it.

    Of several stages see `ray_mae.train.stages.pretrain_stages`.
    """
    if isinstance(config, StagesConfig):
        for stage in config.runs:
            _require_probed(stage.run)
        return pretrain_stages(config, pretrain)
    _require_probed(config)
    return training.pretrain(config, probe_checkpoint if config.probe.every else None)


def _require_probed(config: PretrainConfig) -> None:
    """Raise ValueError, before any worker starts, where there is a probe that cannot be."""
    if config.probe.every:
        probed_samples(ShardSet.read(config.folders, config.shares), config.probe)
