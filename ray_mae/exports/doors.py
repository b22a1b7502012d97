"""Each way into a published folder, tried with the tool that others use, and how far its features are."""

import io
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ray_mae.encoders.primus_settings import PrimusSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.exports import bundle, graphs, nnunet, timm
from ray_mae.exports.example import Example
from ray_mae.inference.load import load_encoder

BOUND, OWN_BOUND = 1e-5, 1e-6
"""Largest difference of a feature, in float32: of other tools, and of our own reader."""
OTHER_EPS_BOUND = 1e-3
"""The same of timm's network where the norms of the encoder add another number to the variance."""
FIRST_WITH_PRIMUS = (0, 4, 4)
"""Release of dynamic-network-architectures that builds a Primus with the order of tokens that is written."""
CHANNELS_OF_OTHERS = 2
"""Input channels that a fine-tuning has, in the check of several."""


@dataclass(frozen=True)
class Door:
    """How one tool opens the folder, and what came of it here."""

    name: str
    reader: str
    """The tool, with its version."""
    call: str
    difference: float | None = None
    """The largest one to our features; None where it was not tried."""
    bound: float = BOUND
    why_not: str = ""
    """Why it was not tried."""
    note: str = ""
    """Why it is further away than others, if it must be."""

    @property
    def missed(self) -> bool:
        """Whether it was tried, and is further away than it may be, or gave no number."""
        return self.difference is not None and not self.difference <= self.bound

    @property
    def verdict(self) -> str:
        """What a table says: verified, or why not."""
        if self.difference is None:
            return f"not verified here: {self.why_not}"
        return f"verified; {self.note}" if self.note else "verified"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for summary.json."""
        tried: dict[str, Any] = {"largest_difference": self.difference, "bound": self.bound}
        if self.note:
            tried["note"] = self.note
        why = {"why_not": self.why_not}
        verified = self.difference is not None
        return {"reader": self.reader, "verified": verified, **(tried if verified else why)}


def try_doors(folder: Path, example: Example) -> Iterator[Door]:
    """Opens a published folder by every tool that is installed, and compares features.

    Args:
        folder: what was written; its name is that of the published encoder.
        example: inputs, and the features of the checkpoint.

    Yields:
        A door each.
    """
    images = len(example.inputs) == 2
    name, pool = folder.name, example.encoder.pool
    own = f'ray_mae.load_encoder("{name}", pool="{pool}")'
    yield _tried("ray_mae", ("ray-mae",), own, lambda: _own(folder, example), OWN_BOUND)
    if images:
        settings = example.encoder.settings
        eps = settings.norm_eps if isinstance(settings, VitSettings) else timm.NORM_EPS
        bound = BOUND if eps == timm.NORM_EPS else OTHER_EPS_BOUND
        note = f"norms add {timm.NORM_EPS:g} there and {eps:g} here" * (bound != BOUND)
        call = f'timm.create_model("local-dir:{name}", pretrained=True)'
        door = _tried("timm", ("timm",), call, lambda: _timm(folder, example), bound)
        yield replace(door, note=note)
        call = f'transformers.AutoModel.from_pretrained("{name}").pooler_output'
        door = _tried(
            "transformers", ("transformers",), call, lambda: _transformers(folder, example), bound
        )
        yield replace(door, note=note)
    elif isinstance(example.encoder.settings, PrimusSettings):
        yield _of_primus(folder, example)
    else:
        network, call = "dynamic-network-architectures", f"{nnunet.CHECKPOINT}: network_weights"
        yield _tried("nnU-Net's network", (network,), call, lambda: _nnunet(folder, example, 1))
        yield _tried(
            f"the same, {CHANNELS_OF_OTHERS} channels",
            (network,),
            "kernels of the stem repeated and divided, as nnU-Net's PretrainedTrainer does",
            lambda: _nnunet(folder, example, CHANNELS_OF_OTHERS),
        )
        call = f"nnUNetv2_train … -pretrained_weights {nnunet.CHECKPOINT}"
        yield _tried("nnU-Net", ("nnunetv2",), call, lambda: _nnunetv2(folder, example))
        call = f'monai.bundle.load("{name}", bundle_dir=".")'
        yield _tried("MONAI bundle", ("monai", network), call, lambda: _monai(folder, example))
    call = f'torch.export.load("{graphs.PT2}").module()(…)'
    yield _tried("torch.export", ("torch",), call, lambda: _pt2(folder, example))
    call = f'onnxruntime.InferenceSession("{graphs.ONNX}")'
    yield _tried("ONNX", graphs.ONNX_PACKAGES[::-1], call, lambda: _onnx(folder, example))
    if not images:
        yield from _never_here(example)


def _of_primus(folder: Path, example: Example) -> Door:
    """By the class of its makers, which some releases cannot build."""
    name, call = "nnU-Net's network", f"{nnunet.CHECKPOINT}: network_weights, without up_projection"
    package = "dynamic-network-architectures"
    if not_installed((package,)) or _release(version(package)) >= FIRST_WITH_PRIMUS:
        return _tried(name, (package,), call, lambda: _primus(folder, example))
    why = f"{version(package)} builds none with this timm; 0.4.4 does, with timm before 1.0.23"
    return Door(name, f"{package} {version(package)}", call, why_not=why)


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _primus(folder: Path, example: Example) -> float:
    from dynamic_network_architectures.architectures.primus import Primus

    content = torch.load(folder / nnunet.CHECKPOINT, weights_only=True)
    kwargs = content["nnssl_adaptation_plan"]["architecture_plans"]["arch_kwargs"]
    network: Any = Primus(1, num_classes=3, **kwargs).eval()
    given = content["network_weights"]
    kept = {name: w for name, w in given.items() if not name.startswith("up_projection.")}
    missing, unexpected = network.load_state_dict(kept, strict=False)
    if unexpected or any(not name.startswith("up_projection.") for name in missing):
        return float("inf")
    x = network.down_projection(example.inputs[0].permute(0, 1, 4, 3, 2))
    return _largest(network.eva(x.flatten(2).mT)[0].mean(1), example.features)


def _never_here(example: Example) -> Iterator[Door]:
    """Programs that take the files, and are to be had as source alone."""
    file = nnunet.CHECKPOINT
    tools = {"nnU-Net as from nnssl, and its fork": f"nnUNetv2_preprocess_like_nnssl … -pc {file}"}
    if nnunet.is_resenc_l(example.encoder.settings):
        tools["SSL3D_classification"] = f"model=resenc model.chpt_path={file}"
    for name, call in tools.items():
        yield Door(name, "–", call, why_not="it is not among Python's packages to be installed")


def not_installed(packages: tuple[str, ...]) -> list[str]:
    """Returns those of the packages that are not there."""
    missing = []
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            missing.append(package)
    return missing


def _tried(
    name: str,
    packages: tuple[str, ...],
    call: str,
    compare: Callable[[], float],
    bound: float = BOUND,
) -> Door:
    """packages: that it takes, the reader first."""
    if missing := not_installed(packages):
        why = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        return Door(name, packages[0], call, bound=bound, why_not=why)
    reader = f"{packages[0]} {version(packages[0])}"
    try:
        with _quiet(), torch.inference_mode():
            difference = compare()
    except Exception as error:  # whatever a tool raises, its name comes first
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(
            f"nothing was published: {name} ({reader}) does not open the folder: {lines[0]}"
        ) from error
    return Door(name, reader, call, difference, bound)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tools' own progress bars and notes, and without their asking a hub for anything."""
    before = {k: os.environ.get(k) for k in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS")}
    os.environ.update(dict.fromkeys(before, "1"))
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _largest(found: Any, ours: Tensor) -> float:
    """The largest difference; infinite where shapes differ or a number is missing."""
    theirs = torch.as_tensor(np.asarray(found))
    if theirs.shape != ours.shape or not theirs.isfinite().all():
        return float("inf")
    return float((theirs - ours).abs().max())


def _own(folder: Path, example: Example) -> float:
    encoder, _ = load_encoder(folder, example.encoder.pool)
    return _largest(Example(encoder, example.inputs).features, example.features)


def _timm(folder: Path, example: Example) -> float:
    """Of each view, by its bias; and of one image alone."""
    from timm import create_model

    model = create_model(f"local-dir:{folder}", pretrained=True).eval()
    image = example.inputs[0]
    if not (folder / timm.VIEW_BIASES).is_file():  # it knows no views
        alone = _largest(model(image[:1]), example.features[:1])
        return max(_largest(model(image), example.features), alone)
    bias: Tensor = model.patch_embed.proj.bias
    ours = example.of_view(_view_of(bias, folder))
    worst = max(_largest(model(image), ours), _largest(model(image[:1]), ours[:1]))
    for view, other in load_file(folder / timm.VIEW_BIASES).items():
        bias.data.copy_(other)
        worst = max(worst, _largest(model(image), example.of_view(view)))
    return worst


def _view_of(bias: Tensor, folder: Path) -> str:
    """The view whose bias a model has. Raises ValueError where it has none of them."""
    for view, one in load_file(folder / timm.VIEW_BIASES).items():
        if torch.equal(bias, one):
            return view
    raise ValueError(f"the first layer has none of the biases of {timm.VIEW_BIASES}")


def _transformers(folder: Path, example: Example) -> float:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    if not (folder / timm.VIEW_BIASES).is_file():
        return _largest(model(example.inputs[0]).pooler_output, example.features)
    view = _view_of(model.timm_model.patch_embed.proj.bias, folder)
    return _largest(model(example.inputs[0]).pooler_output, example.of_view(view))


def _nnunet(folder: Path, example: Example, channels: int) -> float:
    from importlib import import_module

    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    content = torch.load(folder / nnunet.CHECKPOINT, weights_only=True)
    plan = content["nnssl_adaptation_plan"]
    architecture = plan["architecture_plans"]
    kwargs = dict(architecture["arch_kwargs"])
    for name in architecture["arch_kwargs_requiring_import"]:
        module, _, kind = kwargs[name].rpartition(".")
        kwargs[name] = getattr(import_module(module), kind)
    network = ResidualEncoderUNet(channels, num_classes=1, deep_supervision=True, **kwargs).eval()
    given = dict(content["network_weights"])
    if channels > 1:
        stems = [key for key in given if any(s in key for s in plan["keys_to_in_proj"])]
        for key in (key for key in stems if given[key].ndim == 5):
            given[key] = given[key].repeat(1, channels, 1, 1, 1) / channels
    missing, unexpected = network.load_state_dict(given, strict=False)
    if unexpected or any(".seg_layers." not in key for key in missing):
        return float("inf")
    volume = example.inputs[0].permute(0, 1, 4, 3, 2)  # nnU-Net's readers give [z, y, x]
    features = network.encoder(volume.repeat(1, channels, 1, 1, 1))[-1].mean(dim=(2, 3, 4))
    return _largest(features, example.features)


def _nnunetv2(folder: Path, example: Example) -> float:
    """By nnU-Net's own functions, from the configuration that is published."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        plans = json.loads((folder / nnunet.PLANS).read_text())
        architecture = plans[nnunet.CONFIGURATION]["architecture"]
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            2,
            deep_supervision=True,
        )
        load_pretrained_weights(network, folder / nnunet.CHECKPOINT)
    volume = example.inputs[0].permute(0, 1, 4, 3, 2)
    return _largest(network.eval().encoder(volume)[-1].mean(dim=(2, 3, 4)), example.features)


def _monai(folder: Path, example: Example) -> float:
    from monai.bundle.scripts import load, verify_net_in_out

    network: Any = load(folder.name, bundle_dir=str(folder.parent), source="local")
    if isinstance(network, dict):  # weights, and no network
        return float("inf")
    verify_net_in_out(
        "network_def",
        meta_file=str(folder / bundle.METADATA),
        config_file=str(folder / bundle.TRAIN),
        device="cpu",
        n=2,  # the smallest volume that the network takes
        p=1,
    )
    features = network.eval().encoder(example.inputs[0])[-1].mean(dim=(2, 3, 4))
    return _largest(features, example.features)


def _pt2(folder: Path, example: Example) -> float:
    model = torch.export.load(folder / graphs.PT2).module()
    one = tuple(x[:1] for x in example.inputs)
    alone = _largest(model(*one), example.features[:1])
    return max(alone, _largest(model(*example.inputs), example.features))


def _onnx(folder: Path, example: Example) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        folder / graphs.ONNX, options, providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    worst = 0.0
    for samples in (1, len(example.features)):
        inputs = {n: x[:samples].numpy() for n, x in zip(names, example.inputs, strict=True)}
        (found,) = session.run(None, inputs)
        worst = max(worst, _largest(found, example.features[:samples]))
    return worst


def describe_missed(doors: list[Door]) -> str:
    """Returns one line on the doors that are further away than they may be; empty where none is."""
    return "; ".join(
        f"the features of {door.name} ({door.reader}) differ from ours by {door.difference:.2g}, and may by "
        f"{door.bound:g}"
        for door in doors
        if door.missed
    )


def preprocessing_distance(folder: Path, example: Example, films: list[np.ndarray]) -> float:
    """Returns 1 − cosine, the largest, of features by timm's own transform of the films as pictures.

    It pads and resizes 8-bit pixels, so that no bound of rounding holds.
    """
    from PIL import Image
    from timm import create_model
    from timm.data import create_transform, resolve_data_config

    model = create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model=model))
    pictures = torch.stack([transform(Image.fromarray(film).convert("RGB")) for film in films])
    with torch.inference_mode():
        theirs, ours = model(pictures), model(example.inputs[0])
    return float((1 - torch.cosine_similarity(theirs, ours)).max())
