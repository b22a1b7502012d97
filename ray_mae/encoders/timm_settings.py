"""Settings of a Vision Transformer of others, which timm builds. Needs no PyTorch."""

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings, Sight, multiple

ARGUMENTS = frozenset(
    "img_size patch_size in_chans global_pool embed_dim depth num_heads mlp_ratio qkv_bias qk_norm "
    "qkv_fused init_values class_token pos_embed no_embed_class reg_tokens pre_norm final_norm fc_norm "
    "pool_include_prefix dynamic_img_size dynamic_img_pad act_layer norm_layer swiglu_mlp scale_mlp "
    "scale_norm scale_attn_inner use_rot_pos_emb rope_type rope_temperature rope_rotate_half "
    "rope_grid_offset rope_grid_indexing ref_feat_shape num_reg_tokens use_abs_pos_emb use_fc_norm "
    "use_pre_transformer_norm use_post_transformer_norm".split()
)
"""Of timm's models: what a file may say. None of them names a file or another model."""


@dataclass(frozen=True, kw_only=True)
class TimmSettings(EncoderSettings):
    """A Vision Transformer of others with its own preprocessing, to be evaluated; it is not pretrained."""

    name: Literal["timm"] = "timm"
    """The encoder; others have settings of their own: see `pretrain --encoder.name NAME --help`."""
    architecture: str = "vit_base_patch16_224"
    """timm's name."""
    arguments: str = "{}"
    """Further arguments of `timm.create_model`, a JSON object."""
    image_size: int = setting(224, ge=16, le=2048)
    """Side of the square that it sees, in pixels."""
    patch_size: int = setting(16, ge=2, le=64)
    """Side of a patch, in pixels."""
    norm_eps: float | None = setting(None, gt=0)
    """Added to the variance in each layer norm; default: timm's."""
    mean: list[float] = field(default_factory=lambda: [0.5], metadata={"some": True})
    """Of grey values in [0, 1], one for each input channel."""
    std: list[float] = field(default_factory=lambda: [0.5], metadata={"some": True, "gt": 0})
    """The same: what they are divided by."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How an image is brought to its size."""
    fit: Literal["letterbox", "middle", "squash"] = "letterbox"
    """What is seen of an image: all, with black beside it; the middle square; all, squashed to a square."""
    middle: float = setting(1.0, gt=0, le=1)
    """Side of the middle square over the shorter side of the image, where `fit` is middle."""
    pool: Literal["cls", "mean"] = "mean"
    """Which vector its makers take: the class token, or that of its pooling; or the mean over the patches."""

    dimensions: ClassVar[int] = 2
    hides: ClassVar[bool] = False
    form: ClassVar[str] = "features"
    network: ClassVar[str] = "ray_mae.encoders.timm_vit:TimmVit"

    @property
    def keywords(self) -> dict[str, Any]:
        """`arguments` as Python has them."""
        values: dict[str, Any] = json.loads(self.arguments)
        return values

    @property
    def input_size(self) -> int:
        return self.image_size

    @property
    def sight(self) -> Sight:
        return Sight(self.fit, self.interpolation, self.middle)

    @property
    def default_pool(self) -> str:
        return self.pool

    @property
    def described(self) -> str:
        return f"timm {self.architecture}, {self.image_size} px, patches of {self.patch_size}"

    def check(self) -> None:
        multiple("encoder.image_size", self.image_size, "encoder.patch_size", self.patch_size)
        if strange := sorted(set(self.keywords) - ARGUMENTS):
            raise ValueError(
                f"encoder.arguments has {', '.join(strange)}: of timm's arguments a network's are taken"
            )
