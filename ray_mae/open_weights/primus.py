"""Primus as nnssl, OpenMind and nnU-Net publish it: names, axes, and the order of its tokens."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ray_mae.encoders.primus_settings import AXES, PRESETS, PrimusSettings
from ray_mae.encoders.vit_settings import Shape
from ray_mae.open_weights.names import Renamed
from ray_mae.open_weights.source import OpenEncoder, complete

ORDER = "token_order"
"""Key of a checkpoint that says its order: ours and whoever knows it may write it."""
ORDERS = {"w h d": (2, 1, 0), "h w d": (2, 0, 1)}
"""Axes of tokens, of a volume [z, y, x] that its makers call [w, h, d], that become ours: x, y and z.

The class of dynamic-network-architectures has w h d since 0.4.3, and nnssl in SimMIM; the class before, and
nnssl in MAE, have h w d. The weights of a cubic crop do not show it."""
REVERSED = (2, 1, 0)
_PARTS = ("eva.", "down_projection.", "up_projection.")


def is_primus(tensors: Mapping[str, Any]) -> bool:
    """Whether weights are of a Primus."""
    return any(name.startswith(_PARTS) for name in tensors)


def read_primus(
    path: Path, content: Mapping[str, Any], tensors: dict[str, Tensor], spacing_mm: float | None
) -> OpenEncoder:
    """Returns the encoder of a checkpoint of nnssl or nnU-Net.

    Args:
        path: the file.
        content: of it.
        tensors: its weights.
        spacing_mm: of the volumes that it was trained on, as its plan says.

    Raises:
        ValueError: it is another Primus than the published first one, or is not whole.
    """
    settings = _settings(path, content, tensors)
    order, told = _order(path, content)
    # imported here: timm takes seconds, and whoever reads other weights has no use for it
    from ray_mae.encoders.primus import turned

    kept, renamed = {}, Renamed()
    for name, w in tensors.items():
        if name.startswith("up_projection."):
            renamed.left_out[name] = "a decoder, whose shapes depend on the number of classes"
        elif name.startswith(_PARTS):
            kept[name] = w
        else:
            renamed.left_out[name] = "a part that no encoder here has"
    for name, w in turned(kept, settings.shape.heads, REVERSED, ORDERS[order]).items():
        same = w.shape == kept[name].shape and bool((w == kept[name]).all())
        renamed.put(name, w, [name], "" if same else "axes turned to x, y, z")
    weights = complete(path, settings, renamed, prefix="")
    return OpenEncoder(
        path,
        f"a Primus of nnssl or nnU-Net ({content.get('trainer_name', 'trainer unknown')})",
        content.get("license"),
        [path],
        settings,
        weights,
        renamed.origins,
        renamed.rewritten,
        renamed.left_out,
        spacing_mm=spacing_mm,
        notes=[] if told else [
            f"Its tokens are taken in the order {order}, as its trainer says or, where it does not, as the "
            f'present class has it; a key "{ORDER}" in the file would say so.'
        ],
    )  # fmt: skip


def _settings(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    kernel, table = tensors.get("down_projection.proj.weight"), tensors.get("eva.pos_embed")
    if kernel is None or table is None:
        version = any(name.startswith("down_projection.") for name in tensors)
        raise ValueError(
            f"{path} holds a Primus with "
            + ("a convolutional stem (V2 or V3)" if version and kernel is None else "parts missing")
            + ": ray-mae reads the first Primus, which has one layer from patches to tokens and a table of "
            "positions"
        )
    if "register_tokens" in tensors:
        raise ValueError(f"{path} holds a Primus with registers, which ray-mae's has not")
    if kernel.shape[1] != 1:
        raise ValueError(f"{path} reads {kernel.shape[1]} channels: volumes here have one")
    patch, side = kernel.shape[2], round(table.shape[1] ** (1 / AXES))
    if {*kernel.shape[2:]} != {patch} or side**AXES != table.shape[1]:
        raise ValueError(
            f"{path} has patches of {list(kernel.shape[2:])} voxels and {table.shape[1]} of them in a crop: "
            "ray-mae reads cubes of cubes"
        )
    settings = PrimusSettings(
        **_shape(path, content, tensors), crop_size=patch * side, patch_size=patch
    )
    settings.check()
    return settings


def _shape(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of width, depth and heads; the last do not show in weights."""
    width = tensors["eva.pos_embed"].shape[2]
    blocks = {int(m[1]) for name in tensors if (m := re.match(r"eva\.blocks\.(\d+)\.", name))}
    plan = (content.get("nnssl_adaptation_plan") or {}).get("architecture_plans") or {}
    heads = (plan.get("arch_kwargs") or {}).get("eva_numheads")
    for preset, shape in PRESETS.items():
        same = (shape.width, shape.depth) == (width, len(blocks))
        if same and heads in (None, shape.heads):
            return {"preset": preset}
    if not heads:
        raise ValueError(
            f"{path} holds a Primus of width {width} with {len(blocks)} blocks, and does not say how many "
            "attention heads it has (eva_numheads in the arch_kwargs of its adaptation plan)"
        )
    return shape_settings(Shape(width, len(blocks), int(heads)))


def shape_settings(shape: Shape) -> dict[str, Any]:
    """Settings that give this width, depth and heads: a preset's name, or what differs from it."""
    sizes = {"width": shape.width, "depth": shape.depth, "heads": shape.heads}
    for preset, known in PRESETS.items():
        if all(getattr(known, name) == value for name, value in sizes.items()):
            return {"preset": preset}
    return {"preset": "tiny", **sizes}


def _order(path: Path, content: Mapping[str, Any]) -> tuple[str, bool]:
    """The order of tokens, and whether the file says it."""
    if (told := content.get(ORDER)) is not None:
        if told not in ORDERS:
            raise ValueError(f"{path}: {ORDER} is {told!r}, and may be {' or '.join(ORDERS)}")
        return str(told), True
    trainer = str(content.get("trainer_name", "")).lower()
    of_mae = "mae" in trainer and "simmim" not in trainer
    return ("h w d" if of_mae else "w h d"), False
