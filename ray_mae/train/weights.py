"""A new run that begins with the weights of another."""

from pathlib import Path

import torch
from torch import nn

from ray_mae.checkpoint.format import all_weights


def begin_with(module: nn.Module, checkpoint: Path) -> str:
    """Load what fits into the module; returns in words how much that was.

    Raises ValueError where the encoder is another one.
    """
    given = all_weights(checkpoint)
    wanted = module.state_dict()
    fits = {
        name: torch.from_numpy(given[name])
        for name, tensor in wanted.items()
        if name in given and given[name].shape == tuple(tensor.shape)
    }
    rest = [name for name in wanted if name not in fits]
    if strange := [name for name in rest if name.startswith("encoder.")]:
        raise ValueError(
            f"{checkpoint} holds another encoder: {len(strange)} weights are missing or of another shape, "
            f"such as {strange[0]}; take its settings of the method, or no --weights"
        )
    module.load_state_dict(fits, strict=False)
    fresh = f", {len(rest)} of other parts are new" if rest else ""
    return f"weights of {checkpoint}: {len(fits)} taken{fresh}"
