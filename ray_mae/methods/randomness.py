"""Random numbers that belong to a sample: functions of its key, equal on any worker and device.

A sample's `draw` key comes from (seed, epoch, sample); each use has a stream of its own, so that
adding one does not change the others.
"""

import torch
from torch import Tensor

MASK, CROP, JITTER, FLIP, PARALLEL = range(1, 6)
"""Streams."""

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical, on signed integers


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 (products wrap)."""
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def uniforms(draw: Tensor, n: int, stream: int) -> Tensor:
    """[B, n] float32, uniform in [0, 1); draw: [B] int64."""
    counter = torch.arange(n, device=draw.device) + (stream << 40)
    bits = _mix(_mix(draw)[:, None] ^ _mix(counter)[None, :])  # [B, n]
    return _shift(bits, 40).to(torch.float32) * 2.0**-24
