"""The encoder as a graph that needs neither this package nor its source: encoder.pt2 and encoder.onnx.

The batch is free. Of images the view is a second input, so that one file serves mixed batches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.convnextv2 import ConvNextV2
from ray_mae.encoders.resenc import ResEnc, fold_film
from ray_mae.encoders.vit import VisionTransformer
from ray_mae.inference.load import AnyEncoder
from ray_mae.inference.studies import FrozenStudyEncoder
from ray_mae.transforms.images import normalise

PT2, ONNX = "encoder.pt2", "encoder.onnx"
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MOST = 1024
"""Samples of a batch."""
_LARGEST_MESSAGE = 2_000_000_000
"""Bytes of weights above which ONNX wants them in a file of their own."""


class ImageGraph(nn.Module):
    """image [B, 3, S, S], grey / 255 in each channel, and view [B] → features [B, D]."""

    inputs = ("image", "view")

    def __init__(self, encoder: VisionTransformer | ConvNextV2, pool: str) -> None:
        super().__init__()
        self.encoder, self.pool = encoder, pool

    def forward(self, image: Tensor, view: Tensor) -> Tensor:
        tokens = self.encoder(normalise(image.mean(1, keepdim=True)), view=view)
        return tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(1)


class VolumeGraph(nn.Module):
    """volume [B, 1, S, S, S], z-scores → features [B, C]."""

    inputs = ("volume",)

    def __init__(self, encoder: ResEnc) -> None:
        """encoder: without FiLM."""
        super().__init__()
        self.stem, self.stages = encoder.stem, encoder.stages

    def forward(self, volume: Tensor) -> Tensor:
        h = self.stem(volume)
        for stage in self.stages:
            h = stage(h)
        return h.mean(dim=(2, 3, 4))


class TokenGraph(nn.Module):
    """The same of an encoder with tokens: [B, D]."""

    inputs = ("volume",)

    def __init__(self, encoder: TokenEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, volume: Tensor) -> Tensor:
        return self.encoder(volume)[:, self.encoder.prefix :].mean(1)


Graph = ImageGraph | VolumeGraph | TokenGraph


def graph_of(encoder: AnyEncoder) -> Graph:
    """Returns the network to be traced, in evaluation mode. A volume's loses its FiLM, and its own norms.

    Args:
        encoder: a copy of its own, since it is changed.
    """
    if isinstance(encoder, FrozenStudyEncoder):
        assert isinstance(encoder.encoder, (VisionTransformer, ConvNextV2))
        return ImageGraph(encoder.encoder, encoder.pool).eval()
    network = encoder.encoder
    if isinstance(network, TokenEncoder):
        return TokenGraph(network).eval()
    assert isinstance(network, ResEnc)
    fold_film(network)
    graph = VolumeGraph(network)
    for module in list(graph.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm3d):  # ours chooses the layout by the device
                setattr(module, name, _plain_norm(child))
            elif isinstance(child, nn.AvgPool3d):
                setattr(module, name, nn.AvgPool3d(child.kernel_size, child.stride))
    return graph.eval()


def _plain_norm(norm: nn.InstanceNorm3d) -> nn.InstanceNorm3d:
    plain = nn.InstanceNorm3d(norm.num_features, eps=norm.eps, affine=True)
    plain.load_state_dict(norm.state_dict())
    return plain


def write_graphs(
    encoder: AnyEncoder, inputs: Sequence[Tensor], output: Path, *, onnx: bool
) -> None:
    """Writes encoder.pt2, and encoder.onnx where that is asked for.

    Args:
        encoder: a copy of its own, since it is changed.
        inputs: of the graph, of two samples or more.
        output: folder, which is there.
        onnx: whether the packages of ONNX are there.
    """
    graph = graph_of(encoder)
    batch = torch.export.Dim("batch", min=1, max=MOST)
    program = torch.export.export(
        graph, tuple(inputs), dynamic_shapes={name: {0: batch} for name in graph.inputs}
    )
    for node in program.graph.nodes:
        for key in ("stack_trace", "source_fn_stack"):
            node.meta.pop(key, None)  # names files of this machine
    torch.export.save(program, output / PT2)  # of another suffix it is warned
    if onnx:
        _write_onnx(program, graph, output / ONNX)


def _write_onnx(program: Any, graph: Graph, target: Path) -> None:
    converted = torch.onnx.export(
        program, input_names=graph.inputs, output_names=["features"], dynamo=True, verbose=False
    )
    assert converted is not None
    for node in converted.model.graph.all_nodes():
        node.metadata_props.clear()  # names files of this machine
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    converted.save(target, external_data=size > _LARGEST_MESSAGE)
