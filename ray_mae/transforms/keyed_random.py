"""Random numbers that belong to a sample: functions of its key, equal on any worker and device.

A sample's `draw` key comes from (seed, epoch, sample); each use has a stream of its own, so that
adding one does not change the others.
"""

import math

import torch
from torch import Tensor

from ray_mae.random_streams import Stream

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


def _bits(draw: Tensor, n: int, stream: int) -> Tensor:
    """[B, n] int64, random in all 64 bits."""
    counter = torch.arange(n, device=draw.device) + (stream << 40)
    return _mix(_mix(draw)[:, None] ^ _mix(counter)[None, :])


def uniforms(draw: Tensor, n: int, stream: int) -> Tensor:
    """[B, n] float32, uniform in [0, 1); draw: [B] int64."""
    return _shift(_bits(draw, n, stream), 40).to(torch.float32) * 2.0**-24


_CHUNK = 2**22
"""Numbers made at a time, so that their 64-bit integers fit beside a batch of volumes."""


def normals(draw: Tensor, n: int, stream: int) -> Tensor:
    """[B, n] float32, standard normal; draw: [B] int64.

    Box and Muller 1958: each 64 bits give a radius, an angle, and so two numbers. Devices may differ
    in the last bit of a logarithm or cosine.
    """
    half = (n + 1) // 2
    parts = []
    for some in draw.split(max(1, _CHUNK // half)):
        bits = _bits(some, half, stream)
        u = (_shift(bits, 32).to(torch.float32) + 0.5) * 2.0**-32  # in (0, 1]
        angle = (bits & 0xFFFFFFFF).to(torch.float32) * (2 * math.pi * 2.0**-32)
        radius = (-2 * u.log()).sqrt()
        parts.append(torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n])
    return torch.cat(parts)


def repeated(draw: Tensor, times: int) -> Tensor:
    """[B · times] keys: each of draw [B] itself, then others made of it."""
    other = _bits(draw, times, Stream.REPEAT)  # [B, times]
    other[:, 0] = draw
    return other.flatten()
