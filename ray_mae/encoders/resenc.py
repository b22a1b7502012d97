"""nnU-Net's residual-encoder U-Net: its encoder and its decoder, conditioned on a noise level by FiLM."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.residual import StackedResidualBlocks
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ray_mae.encoders.base import MapEncoder
from ray_mae.encoders.resenc_settings import ResEncSettings, Stages
from ray_mae.encoders.sparse import (
    Active,
    mask_operations,
    masked,
    masked_instance_norm,
    seen,
    sites,
)

EMBEDDING = 256
"""Width of the time embedding (section 3)."""
LAST_LAYER = "seg_layers."
"""How names of the decoder's last layer begin, which has an output for each class."""


class InstanceNorm(nn.InstanceNorm3d):
    """nnU-Net's norm, with statistics in float32, whatever the precision of the weights.

    Voxels come out channels last, which the convolutions after it then keep: on a CPU core a step
    of the tiny network takes two thirds of the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        # Of voxels in a row: PyTorch's gradient of a single volume laid out channels last is wrong.
        # With float32 weights the statistics of bf16 values are float32, without a copy of them.
        row = x.contiguous().flatten(2)  # [B, C, D · H · W]
        weight, bias = self.weight.float(), self.bias.float()
        if (active := sites(x)) is None:
            y = F.instance_norm(row, weight=weight, bias=bias, eps=self.eps)
        else:
            y = masked_instance_norm(row, active.flatten(2), weight, bias, self.eps)
        return y.view(x.shape).contiguous(memory_format=torch.channels_last_3d)


class AveragePool(nn.AvgPool3d):
    """nnU-Net's pool beside strided convolutions; PyTorch has none of bf16 values on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.device.type == "cpu" else x
        return super().forward(wide).to(x.dtype)


def architecture(stages: Stages) -> dict[str, Any]:
    """What nnU-Net's plans say of a residual-encoder network, as its keyword arguments."""
    return {
        "n_stages": len(stages.features),
        "features_per_stage": list(stages.features),
        "conv_op": nn.Conv3d,
        "kernel_sizes": [[3, 3, 3] for _ in stages.features],
        "strides": [[stride] * 3 for stride in stages.strides],
        "n_blocks_per_stage": list(stages.blocks),
        "n_conv_per_stage_decoder": [1] * (len(stages.features) - 1),
        "conv_bias": True,
        "norm_op": InstanceNorm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def residual_unet(stages: Stages, classes: int = 1) -> ResidualEncoderUNet:
    """nnU-Net's network with fresh weights: one input channel, `classes` output channels."""
    net = ResidualEncoderUNet(1, num_classes=classes, **architecture(stages))
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AvgPool3d):
                setattr(module, name, AveragePool(child.kernel_size, child.stride))
    return net.apply(net.initialize)


class TimeEmbedding(nn.Module):
    """t [B] in [0, 1] → [B, 256]: sines and cosines, then a small network (section 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU()
        )

    def forward(self, t: Tensor) -> Tensor:
        half = EMBEDDING // 2
        octave = torch.arange(half, device=t.device, dtype=torch.float32) / half
        # the usual frequencies are for a thousand steps (Ho et al. 2020)
        angle = 1000 * t.float()[:, None] * torch.exp(-math.log(10000) * octave)  # [B, 128]
        wave = torch.cat([angle.sin(), angle.cos()], dim=1)
        return self.mlp(wave.to(next(self.mlp.parameters()).dtype))


class Film(nn.Module):
    """h·(γ(t) + 1) + β(t), per channel (Perez et al. 2018); the identity until it is trained.

    The paper puts one at each stage and leaves open where. Here h is what the last norm of the stage
    gives, before the sum with the skip and the nonlinearity, as in the scale-shift norms of diffusion
    models (Dhariwal and Nichol 2021). Of one noise level it is then part of the norm's own scale and
    shift, so that nnU-Net's plain network can compute exactly what this one does: `fold_film`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(EMBEDDING, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """h: [B, C, D, H, W]; e: [B, 256]."""
        gamma, beta = self.project(e)[..., None, None, None].chunk(2, dim=1)  # [B, C, 1, 1, 1]
        return torch.addcmul(beta, h, gamma + 1)


Conditioned = Callable[[Tensor], Tensor]
"""FiLM of one stage at the noise levels of a batch."""


def _conditioned(film: nn.ModuleList | None, i: int, e: Tensor | None) -> Conditioned:
    """FiLM of stage i, or the identity."""
    return nn.Identity() if film is None or e is None else partial(film[i], e=e)


def residual_stage(stage: StackedResidualBlocks, x: Tensor, film: Conditioned) -> Tensor:
    """nnU-Net's residual blocks, with FiLM after the last norm."""
    for block in stage.blocks[:-1]:
        x = block(x)
    last = stage.blocks[-1]
    return last.nonlin2(film(last.conv2(last.conv1(x))) + last.skip(x))


def plain_stage(stage: StackedConvBlocks, x: Tensor, film: Conditioned) -> Tensor:
    """nnU-Net's convolutions, with FiLM after the last norm."""
    for block in stage.convs[:-1]:
        x = block(x)
    last = stage.convs[-1]
    return last.nonlin(film(last.norm(last.conv(x))))


def _run(call: Callable[..., Tensor], recompute: bool, *inputs: Tensor) -> Tensor:
    """call(*inputs); with `recompute` its activations are made again in the backward pass."""
    return checkpoint(call, *inputs, use_reentrant=False) if recompute else call(*inputs)


class ResEnc(MapEncoder):
    """nnU-Net's residual encoder, with FiLM in each stage where the settings say so.

    Its weights have nnU-Net's names, `stem.…` and `stages.…`; those of `time.…` and `film.…` are
    not nnU-Net's.
    """

    def __init__(
        self,
        settings: ResEncSettings,
        *,
        recompute: bool = False,
        net: ResidualEncoder | None = None,
    ) -> None:
        """net: with weights of its own; by default a fresh one."""
        super().__init__()
        self.settings: ResEncSettings = settings
        net = net or residual_unet(settings.stages).encoder
        self.stem, self.stages = net.stem, net.stages
        self.channels: list[int] = net.output_channels
        self.time = TimeEmbedding() if settings.film else None
        self.film = nn.ModuleList(Film(C) for C in self.channels) if settings.film else None
        self.recompute = recompute
        mask_operations(self)

    @property
    def width(self) -> int:
        return self.channels[-1]

    @property
    def depth(self) -> int:
        return len(self.channels)

    @property
    def stride(self) -> int:
        return self.settings.stages.stride

    def layer_of(self, name: str) -> int:
        if stage := re.match(r"(?:stages|film)\.(\d+)\.", name):
            return int(stage[1]) + 1
        return 0 if name.startswith(("stem.", "time.")) else self.depth + 1

    @property
    def dtype(self) -> torch.dtype:
        return self.stem.convs[0].conv.weight.dtype

    def embed(self, t: Tensor) -> Tensor | None:
        """[B, 256] of noise levels t [B]; None in a network without FiLM."""
        return None if self.time is None else self.time(t)

    def skips(
        self, x: Tensor, e: Tensor | None = None, active: Active | None = None
    ) -> list[Tensor]:
        """x [B, 1, D, H, W] → the output of each stage [B, C, D/s, H/s, W/s], the finest first.

        e: `embed(t)`; None leaves FiLM out. active: what is seen; None: all.
        """
        h = x.to(self.dtype)
        with seen(active):
            h = masked(h)
        out = []
        for i in range(len(self.stages)):
            h = _run(partial(self._stage, i, e, active), self.recompute and self.training, h)
            out.append(h)
        return out

    def _stage(self, i: int, e: Tensor | None, active: Active | None, h: Tensor) -> Tensor:
        with seen(active):
            h = self.stem(h) if i == 0 else h
            return masked(residual_stage(self.stages[i], h, _conditioned(self.film, i, e)))

    def forward(self, volumes: Tensor, t: float | None = 0.0) -> Tensor:
        """Feature vectors [B, C] float32 of clean volumes [B, 1, D, H, W]: the mean of `last_map`."""
        return self.last_map(volumes, t).mean(dim=(2, 3, 4))

    def last_map(self, volumes: Tensor, t: float | None = 0.0) -> Tensor:
        """The last stage's map [B, C, D/s, H/s, W/s] float32 of clean volumes [B, 1, D, H, W].

        D, H and W are multiples of `stride`, at least twice that. t: the noise level the network is
        told; None leaves FiLM out. Raises ValueError for sides that do not fit.
        """
        if any(side % self.stride or side < 2 * self.stride for side in volumes.shape[2:]):
            raise ValueError(
                f"the sides of a volume must be multiples of {self.stride}, and at least "
                f"{2 * self.stride} voxels, got {list(volumes.shape[2:])}: pad or crop it"
            )
        e = None
        if t is not None:
            e = self.embed(torch.full(volumes.shape[:1], t, device=volumes.device))
        return self.skips(volumes, e)[-1].float()

    def flops(self, side: int) -> float:
        """Forward of one volume of side³ voxels, convolutions only.

        Every convolution of a stage, strided or not, gives voxels of the stage's resolution.
        """
        voxels = _voxels(side, self.settings.stages)
        parts = [(self.stem, voxels[0]), *zip(self.stages, voxels, strict=True)]
        return sum(2 * n * _kernels(part) for part, n in parts)


class VolumeDecoder(nn.Module):
    """nnU-Net's U-Net decoder with FiLM in each stage; its weights have nnU-Net's names.

    Args:
        net: nnU-Net's decoder, whose weights it takes over.
        film: whether each stage is conditioned on a noise level.
        recompute: activations again in the backward pass, stage by stage.
    """

    def __init__(self, net: UNetDecoder, *, film: bool = True, recompute: bool = False) -> None:
        super().__init__()
        self.stages, self.transpconvs, self.seg_layers = net.stages, net.transpconvs, net.seg_layers
        channels = [up.out_channels for up in self.transpconvs]
        for i in range(len(channels) - 1):
            self.seg_layers[i] = nn.Identity()  # deep supervision would use them
        self.film = nn.ModuleList(Film(C) for C in channels) if film else None
        self.recompute = recompute

    def forward(self, skips: list[Tensor], e: Tensor | None) -> Tensor:
        """[B, classes, D, H, W] from the encoder's skips and embedding."""
        h = skips[-1]
        for i, skip in enumerate(skips[-2::-1]):
            h = _run(partial(self._stage, i, e), self.recompute and self.training, h, skip)
        return self.seg_layers[-1](h)

    def flops(self, side: int) -> float:
        """Forward of one volume of side³ voxels, convolutions only."""
        voxels = [float(side**3)]  # of the finest stage first
        for up in self.transpconvs[::-1]:
            voxels.append(voxels[-1] / up.stride[0] ** 3)
        parts = [(self.seg_layers, voxels[0])]
        parts += zip(self.stages, voxels[-2::-1], strict=True)
        parts += zip(self.transpconvs, voxels[:0:-1], strict=True)  # one product per voxel below
        return sum(2 * n * _kernels(part) for part, n in parts)

    def _stage(self, i: int, e: Tensor | None, below: Tensor, skip: Tensor) -> Tensor:
        both = torch.cat([self.transpconvs[i](below), skip], dim=1)
        return plain_stage(self.stages[i], both, _conditioned(self.film, i, e))


def encoder_and_decoder(
    settings: ResEncSettings, *, classes: int = 1, recompute: bool = False
) -> tuple[ResEnc, VolumeDecoder]:
    """Returns both halves of a U-Net with fresh weights, by PyTorch's global seed.

    Args:
        settings: of the encoder; the decoder mirrors it.
        classes: output channels.
        recompute: activations again in the backward pass, stage by stage.

    Raises:
        ValueError: where sizes do not fit together.
    """
    settings.check()
    net = residual_unet(settings.stages, classes)
    return (
        ResEnc(settings, recompute=recompute, net=net.encoder),
        VolumeDecoder(net.decoder, film=settings.film, recompute=recompute),
    )


@torch.no_grad()
def fold_film(encoder: ResEnc, decoder: VolumeDecoder | None = None) -> None:
    """Makes FiLM at noise level 0 part of the norms before it, and leaves the networks without FiLM.

    What they compute at level 0 stays the same, and is then what nnU-Net's network computes.

    Args:
        encoder: changed in place.
        decoder: the same, of the same network.
    """
    e = encoder.embed(torch.zeros(1, device=encoder.stem.convs[0].conv.weight.device))
    if e is None:
        return
    norms: list[Any] = [stage.blocks[-1].conv2.norm for stage in encoder.stages]
    films: list[Any] = [*(encoder.film or ())]
    if decoder is not None:
        norms += [stage.convs[-1].norm for stage in decoder.stages]
        films += [*(decoder.film or ())]
        decoder.film = None
    for norm, film in zip(norms, films, strict=True):
        gamma, beta = film.project(e)[0].chunk(2)
        norm.weight.mul_(gamma + 1)
        norm.bias.mul_(gamma + 1).add_(beta)
    encoder.time = encoder.film = None
    encoder.settings = encoder.settings.without_film()


def _voxels(side: int, stages: Stages) -> list[float]:
    """Voxels of each stage's maps, of a volume of side³ voxels, the finest first."""
    voxels = [float(side**3)]
    for stride in stages.strides[1:]:
        voxels.append(voxels[-1] / stride**3)
    return voxels


def _kernels(module: nn.Module) -> int:
    """Weights of a part's convolutions."""
    kinds = (nn.Conv3d, nn.ConvTranspose3d)
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, kinds))
