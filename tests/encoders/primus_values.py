"""What the class of its makers gives for weights and a volume that follow from a seed: primus_s.npz.

Made by a Python of its own, since the class needs an older timm than ours:

    pip install dynamic-network-architectures==0.4.4
    python tests/encoders/primus_values.py tests/encoders/primus_s.npz
"""

import sys
import zlib

import numpy as np
import torch
from torch import Tensor, nn

SIDE, PATCH, CLASSES, EVERY = 32, 8, 2, 4
WIDTH, DEPTH, HEADS = 396, 12, 6
"""Of Primus-S."""


def fill(module: nn.Module) -> None:
    """Gives every parameter values that follow from its name."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(p.shape, "f4")
            scale = 0.05 if p.ndim > 1 else 0.1
            ones = 1.0 if p.ndim == 1 and name.endswith("weight") else 0.0
            p.copy_(torch.from_numpy(ones + scale * drawn))


def volume() -> Tensor:
    """[1, 1, 32, 32, 32] which no exchange of axes leaves as it is."""
    drawn = np.random.default_rng(0).standard_normal((1, 1, SIDE, SIDE, SIDE), "f4")
    return torch.from_numpy(drawn)


@torch.no_grad()
def main(file: str) -> None:
    """Writes tokens [1, 64, 396] and a part of the decoder's output."""
    from dynamic_network_architectures.architectures.primus import Primus

    network = Primus(
        1, WIDTH, (PATCH,) * 3, CLASSES, DEPTH, HEADS, (SIDE,) * 3,
        init_values=0.1, scale_attn_inner=True, drop_path_rate=0.2,
    ).eval()  # fmt: skip
    fill(network)
    x = network.down_projection(volume())
    tokens, _ = network.eva(x.flatten(2).transpose(1, 2))
    decoded = network(volume())[..., ::EVERY, ::EVERY, ::EVERY]
    shapes = {n: list(w.shape) for n, w in network.state_dict().items()}
    names = np.array([f"{n} {s}" for n, s in shapes.items() if ".blocks." not in n or ".0." in n])
    np.savez_compressed(file, tokens=tokens.numpy(), decoded=decoded.numpy(), names=names)


if __name__ == "__main__":
    main(sys.argv[1])
