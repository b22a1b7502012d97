"""nnU-Net's residual encoders as nnssl and OpenMind publish them: names, axes, and their adaptation plan."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ray_mae.encoders.resenc_settings import PRESETS, ResEncSettings, Stages
from ray_mae.open_weights.files import require_sound
from ray_mae.open_weights.names import Renamed
from ray_mae.open_weights.primus import is_primus, read_primus
from ray_mae.open_weights.source import OpenEncoder, complete

_ALIAS = re.compile(r"(.*)\.all_modules\.([01])\.(weight|bias)")
_TARGET = {"0": "conv", "1": "norm"}


def read_nnssl(path: Path, content: Mapping[str, Any]) -> OpenEncoder:
    """Returns the encoder of a checkpoint of nnssl or nnU-Net: a residual one, or a Primus.

    Args:
        path: the file.
        content: of it.

    Raises:
        ValueError: it is no encoder of a size that is known, or is not whole.
    """
    plan = content.get("nnssl_adaptation_plan") or {}
    tensors = {n.removeprefix("module."): t for n, t in content["network_weights"].items()}
    if is_primus(tensors):
        return read_primus(path, content, tensors, _spacing(plan))
    renamed = _rename(tensors)
    preset = _preset(path, renamed.weights, plan)
    notes = _add_aliases(renamed)
    crop, spacing = _trained_on(plan, PRESETS[preset].stride)
    settings = ResEncSettings(preset=preset, crop_size=crop, film=False)  # type: ignore[arg-type]
    decoder = {n: w for n, w in renamed.weights.items() if n.startswith("decoder.")}
    for name in decoder:
        del renamed.weights[name]
    kernel = renamed.weights.get("encoder.stem.convs.0.conv.weight")
    if kernel is not None and kernel.shape[1] != 1:
        raise ValueError(f"{path} reads {kernel.shape[1]} channels: volumes here have one")
    renamed.weights = {n.removeprefix("encoder."): w for n, w in renamed.weights.items()}
    of_decoder = {n: of for n, of in renamed.origins.items() if n in decoder}
    renamed.origins = {
        n.removeprefix("encoder."): of for n, of in renamed.origins.items() if n not in decoder
    }
    renamed.rewritten = {n.removeprefix("encoder."): how for n, how in renamed.rewritten.items()}
    weights = complete(path, settings, renamed, prefix="")
    return OpenEncoder(
        path,
        f"a residual encoder of nnssl ({content.get('trainer_name', 'trainer unknown')})",
        content.get("license"),
        [path],
        settings,
        weights,
        renamed.origins | of_decoder,
        renamed.rewritten,
        renamed.left_out,
        decoder={name: require_sound(path, name, w) for name, w in decoder.items()},
        spacing_mm=spacing,
        notes=notes,
    )


def _rename(tensors: dict[str, Tensor]) -> Renamed:
    """Kernels with axes as ours, [x, y, z]; where `all_modules` and its alias differ, the former counts."""
    renamed = Renamed()
    for name, tensor in tensors.items():
        turned = tensor.permute(0, 1, 4, 3, 2).contiguous() if tensor.ndim == 5 else tensor
        how = "axes turned to x, y, z" if tensor.ndim == 5 else ""
        plain = name
        if match := _ALIAS.fullmatch(name):
            plain = f"{match[1]}.{_TARGET[match[2]]}.{match[3]}"
        if name.startswith("decoder.encoder."):
            renamed.left_out[name] = "the encoder once more"
        elif not name.startswith(("encoder.", "decoder.")):
            renamed.left_out[name] = "a part that no encoder here has"
        elif plain != name and plain in tensors:
            if tensors[plain].shape == tensor.shape and not bool((tensors[plain] == tensor).all()):
                renamed.put(plain, turned, [name], how)
                renamed.left_out[plain] = (
                    "stale: all_modules holds other values, which were trained"
                )
            else:
                renamed.left_out[name] = "another name of the same weight"
        elif plain not in renamed.weights:
            renamed.put(plain, turned, [name], how)
    return renamed


def _add_aliases(renamed: Renamed) -> list[str]:
    """The names under which our network lists its weights once more; a sentence if values differed."""
    for name in list(renamed.weights):
        for number, target in _TARGET.items():
            alias = re.sub(rf"\.{target}\.(weight|bias)$", rf".all_modules.{number}.\1", name)
            if alias != name:
                renamed.weights[alias] = renamed.weights[name]
                renamed.origins[alias] = renamed.origins[name]
                if name in renamed.rewritten:
                    renamed.rewritten[alias] = renamed.rewritten[name]
    stale = [name for name, why in renamed.left_out.items() if why.startswith("stale")]
    if not stale:
        return []
    return [
        f"{len(stale)} weights, such as {stale[0]}, are stale in the file: those of all_modules are taken."
    ]


def _preset(path: Path, weights: Mapping[str, Tensor], plan: Mapping[str, Any]) -> str:
    """The name of the size that the shapes of the weights, and the plan's strides, are of."""
    features: dict[int, int] = {}
    blocks: dict[int, int] = {}
    for name, tensor in weights.items():
        if match := re.match(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv1\.conv\.weight", name):
            stage, block = int(match[1]), int(match[2])
            features[stage] = tensor.shape[0]
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    if not features:
        raise ValueError(
            f"{path} holds no residual encoder (encoder.stages.…) and no Primus (eva.…), which ray-mae reads"
        )
    found = tuple(features[i] for i in sorted(features)), tuple(blocks[i] for i in sorted(blocks))
    arguments = (plan.get("architecture_plans") or {}).get("arch_kwargs") or {}
    strides = tuple(_one(s) for s in arguments.get("strides") or ())
    for name, stages in PRESETS.items():
        if found == (stages.features, stages.blocks) and strides in ((), stages.strides):
            _require_plain(path, arguments, stages)
            return name
    raise ValueError(
        f"{path} has stages of {list(found[0])} channels with {list(found[1])} blocks"
        + (f" and strides {list(strides)}" if strides else "")
        + f": ray-mae knows {', '.join(f'{n} ({list(s.features)})' for n, s in PRESETS.items())}"
    )


def _require_plain(path: Path, arguments: Mapping[str, Any], stages: Stages) -> None:
    """Raise where the plan names kernels or norms that our network has not."""
    kernels = {_one(kernel) for kernel in arguments.get("kernel_sizes") or [3]}
    norm = str(arguments.get("norm_op", "InstanceNorm3d"))
    if kernels != {3} or not norm.endswith("InstanceNorm3d"):
        raise ValueError(
            f"{path} has kernels {kernels} and norms {norm}: ray-mae has 3³ and InstanceNorm3d"
        )


def _one(values: Any) -> int:
    """The number that stands in a list of equal ones; 0 where they differ."""
    numbers = {*values} if isinstance(values, (list, tuple)) else {values}
    return int(numbers.pop()) if len(numbers) == 1 else 0


def _trained_on(plan: Mapping[str, Any], stride: int) -> tuple[int, float | None]:
    """Side of the crops and spacing, of the plan's first configuration; what is not said is the default."""
    first = _first(plan)
    size = _one(plan.get("pretrain_patch_size") or first.get("patch_size") or 0)
    crop = (
        size if size and size % stride == 0 and size >= 2 * stride else ResEncSettings().crop_size
    )
    return crop, _spacing(plan)


def _first(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan's first configuration, which is the one that is taken."""
    configurations = (plan.get("pretrain_plan") or {}).get("configurations") or {}
    first: Mapping[str, Any] = next(iter(configurations.values()), {})
    return first


def _spacing(plan: Mapping[str, Any]) -> float | None:
    """Between the voxels trained on; None where it is not said, or not the same along each axis."""
    spacing = _first(plan).get("spacing")
    return float(spacing[0]) if spacing and len({*spacing}) == 1 else None
