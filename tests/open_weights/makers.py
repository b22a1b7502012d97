"""Small encoders as others publish them, made by their libraries, with no parameter left at 0 or 1."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SIZE, PATCH, WIDTH = 32, 8, 64
_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": PATCH,
}

Features = Callable[[Tensor], Tensor]
"""Grey images [N, 1, H, W] in [0, 1] → the maker's tokens [N, 1 + L, D], the class or pooled one first."""


def perturbed(module: Any, seed: int = 0) -> Any:
    """The module with noise on every parameter: biases of 0 and norms of 1 would hide mistakes."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.1)
    return module.eval()


def normalised(grey: Tensor, mean_and_std: tuple[list[float], list[float]] = IMAGENET) -> Tensor:
    """Three channels of grey images as a maker takes them."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in mean_and_std)
    return (grey - mean) / std


# --------------------------------------------------------------------------------------- transformers


def _hf(name: str) -> tuple[Any, tuple[list[float], list[float]], int]:
    """The network, what its input is normalised by, and its registers."""
    import transformers as t

    t.logging.disable_progress_bar()
    half = [0.5] * 3, [0.5] * 3
    inner = {"intermediate_size": 2 * WIDTH}
    if name == "vit":
        return t.ViTModel(t.ViTConfig(**_SIZES, **inner)), half, 0
    if name == "vit_mae":
        decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
        decoder |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
        return t.ViTMAEForPreTraining(t.ViTMAEConfig(**_SIZES, **inner, **decoder)), IMAGENET, 0
    if name == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**_SIZES, mlp_ratio=2)), IMAGENET, 0
    if name == "dinov2_swiglu":
        config = t.Dinov2Config(**_SIZES, mlp_ratio=4, use_swiglu_ffn=True)
        return t.Dinov2Model(config), IMAGENET, 0
    if name == "dinov2_registers":
        config = t.Dinov2WithRegistersConfig(**_SIZES, mlp_ratio=2, num_register_tokens=3)
        return t.Dinov2WithRegistersModel(config), IMAGENET, 3
    if name == "siglip":
        return t.SiglipVisionModel(t.SiglipVisionConfig(**_SIZES, **inner)), half, 0
    gated = {"use_gated_mlp": True, "hidden_act": "silu"} if name == "dinov3_gated" else {}
    config = t.DINOv3ViTConfig(**_SIZES, **inner, **gated, num_register_tokens=4)
    return t.DINOv3ViTModel(config), IMAGENET, 4


HF = (
    "vit",
    "vit_mae",
    "dinov2",
    "dinov2_registers",
    "dinov2_swiglu",
    "dinov3",
    "dinov3_gated",
    "siglip",
)


def hf(folder: Path, name: str, seen: dict[str, Any] | None = None, **save: Any) -> Features:
    """Writes a folder of Hugging Face's layout; returns the maker's features."""
    torch.manual_seed(0)
    model, mean_and_std, registers = _hf(name)
    perturbed(model).save_pretrained(folder, **save)
    if seen is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(seen))

    def features(grey: Tensor) -> Tensor:
        x = normalised(grey, mean_and_std)
        if name == "vit_mae":  # everything seen, in its place
            model.config.mask_ratio = 0.0
            noise = torch.arange((grey.shape[-1] // PATCH) ** 2).float().expand(len(grey), -1)
            return model.vit(x, noise=noise).last_hidden_state
        out = model(pixel_values=x)
        if name == "siglip":
            return torch.cat([out.pooler_output[:, None], out.last_hidden_state], dim=1)
        tokens = out.last_hidden_state
        return torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], dim=1)

    return features


# ----------------------------------------------------------------------------------------------- timm

TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("vit_base_patch16_224", {}),
    "grey": ("vit_base_patch16_224", {"in_chans": 1}),
    "dinov2": ("vit_base_patch14_dinov2", {}),
    "registers with a position": ("vit_base_patch16_224", {"reg_tokens": 2}),
    "registers": ("vit_base_patch14_reg4_dinov2", {}),
    "qk_norm": ("vit_base_patch16_224", {"qk_norm": True}),
}


def timm_model(name: str, heads: int = 2) -> Any:
    """One of TIMM, small."""
    architecture, more = TIMM[name]
    torch.manual_seed(0)
    model = timm.create_model(
        architecture, img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=2, num_heads=heads,
        num_classes=0, **more,
    )  # fmt: skip
    return perturbed(model)


def timm_folder(folder: Path, name: str, **cfg: Any) -> Features:
    """Writes a folder that timm opens as local-dir:FOLDER; returns the maker's features."""
    model = timm_model(name)
    architecture, more = TIMM[name]
    channels = more.get("in_chans", 3)
    mean, std = [0.4, 0.5, 0.6][:channels], [0.2, 0.25, 0.3][:channels]
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "img_size": SIZE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": 2,
        "num_heads": 2,
    }
    config = {
        "architecture": architecture,
        "num_classes": 0,
        "model_args": arguments | more,
        "pretrained_cfg": {"mean": mean, "std": std, "license": "apache-2.0", **cfg},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")

    def features(grey: Tensor) -> Tensor:
        tokens = model.forward_features(normalised(grey, (mean, std)))
        return torch.cat([tokens[:, :1], tokens[:, model.num_prefix_tokens :]], dim=1)

    return features


def mae_file(file: Path, *, legacy: bool = False) -> Features:
    """Writes a checkpoint as the authors of MAE, MVMAE and medical_mae do; returns the maker's features."""
    model = timm_model("plain", heads=1)  # 64 wide each, as theirs are
    decoder = {
        "mask_token": torch.randn(1, 1, 16),
        "decoder_embed.weight": torch.randn(16, WIDTH),
        "decoder_pos_embed": torch.randn(1, 17, 16),
        "decoder_blocks.0.norm1.weight": torch.randn(16),
        "decoder_pred.bias": torch.randn(PATCH**2),
    }
    content = {
        "model": model.state_dict() | decoder,
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 800,
        "scaler": {},
        "args": argparse.Namespace(model="small", mask_ratio=0.9),
    }
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return lambda grey: model.forward_features(normalised(grey))


def dinov2_file(file: Path) -> Features:
    """Writes weights as the authors of DINOv2 do, with registers."""
    model = timm_model("registers", heads=1)
    weights = dict(model.state_dict())
    row = torch.randn(1, 1, WIDTH)  # theirs has a position of the class token
    weights["pos_embed"] = torch.cat([row, weights["pos_embed"]], dim=1)
    weights["cls_token"] = weights["cls_token"] - row
    weights["register_tokens"] = weights.pop("reg_token")
    weights["mask_token"] = torch.randn(1, WIDTH)
    torch.save(weights, file)

    def features(grey: Tensor) -> Tensor:
        tokens = model.forward_features(normalised(grey))
        return torch.cat([tokens[:, :1], tokens[:, model.num_prefix_tokens :]], dim=1)

    return features


# -------------------------------------------------------------------------------------------- volumes


def plan(stages: Any, **first: Any) -> dict[str, Any]:
    """The adaptation plan of a residual encoder."""
    n = len(stages.features)
    return {
        "architecture_plans": {
            "arch_class_name": "ResidualEncoderUNet",
            "arch_kwargs": {
                "n_stages": n,
                "features_per_stage": list(stages.features),
                "kernel_sizes": [[3, 3, 3]] * n,
                "strides": [[s] * 3 for s in stages.strides],
                "n_blocks_per_stage": list(stages.blocks),
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            },
        },
        "pretrain_plan": {
            "configurations": {
                "onemmiso": {"spacing": [1.0, 1.0, 1.0], "patch_size": [32, 32, 32]} | first
            }
        },
        "key_to_encoder": "encoder.stages",
    }


def nnssl_network(stages: Any) -> Any:
    """nnU-Net's own network, of its own package alone."""
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    n = len(stages.features)
    torch.manual_seed(0)
    net = ResidualEncoderUNet(
        1,
        num_classes=1,
        n_stages=n,
        features_per_stage=list(stages.features),
        conv_op=nn.Conv3d,
        kernel_sizes=[[3, 3, 3]] * n,
        strides=[[s] * 3 for s in stages.strides],
        n_blocks_per_stage=list(stages.blocks),
        n_conv_per_stage_decoder=[1] * (n - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return perturbed(net)


def nnssl_file(file: Path, stages: Any, **first: Any) -> Any:
    """Writes a checkpoint as nnssl and OpenMind do; returns the maker's network, of volumes [z, y, x]."""
    net = nnssl_network(stages)
    content = {
        "network_weights": net.state_dict(),
        "nnssl_adaptation_plan": plan(stages, **first),
        "citations": [],
        "trainer_name": "BaseMAETrainer",
    }
    torch.save(content, file)
    return net
