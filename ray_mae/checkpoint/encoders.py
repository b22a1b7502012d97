"""The network of a pretrained encoder with its weights, wherever they are from."""

from pathlib import Path

import torch

from ray_mae.checkpoint import format as ckpt
from ray_mae.encoders.base import Encoder
from ray_mae.encoders.registry import build_encoder


def read_encoder(path: Path) -> tuple[Encoder, ckpt.EncoderFacts]:
    """Returns an encoder on the CPU, and what is known of it. Only tensors and JSON are read: no code runs.

    Args:
        path: a run, a checkpoint, an exported folder, or weights of others.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: weights of others that cannot be read, with what would do.
    """
    if (found := ckpt.open_encoder(path)) is not None:
        facts, weights = ckpt.facts_of_open(found), found.weights
    else:
        facts = ckpt.encoder_facts(path)
        weights = {name: torch.from_numpy(w) for name, w in ckpt.encoder_weights(path).items()}
    with torch.device("cpu"):  # also where a method is only measured, without weights of its own
        encoder = build_encoder(facts.settings)
    encoder.load_state_dict(weights)
    return encoder.eval(), facts
