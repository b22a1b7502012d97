"""Settings of the Vision Transformer, and the sizes that follow. Needs no PyTorch."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings, multiple


@dataclass(frozen=True)
class Shape:
    """Width, depth and heads of a transformer."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0

    def override(
        self,
        width: int | None,
        depth: int | None,
        heads: int | None,
        mlp_ratio: float | None = None,
    ) -> "Shape":
        """The same with single values in the place of its own."""
        overrides: dict[str, Any] = {
            "width": width,
            "depth": depth,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
        }
        return replace(self, **{k: v for k, v in overrides.items() if v is not None})

    def check(self, section: str, prefix: str = "", *, sincos: bool) -> None:
        """Raises ValueError where width and heads do not fit together.

        Args:
            section: of the settings, such as "encoder".
            prefix: of their names, such as "decoder_".
            sincos: whether positions are sines and cosines of two axes.
        """
        width = f"{section}.{prefix}width"
        multiple(width, self.width, f"{section}.{prefix}heads", self.heads)
        if sincos:
            multiple(width, self.width, "4 (positions: sincos)", 4)


PRESETS: dict[str, Shape] = {
    "tiny": Shape(192, 12, 3),
    "small": Shape(384, 12, 6),
    "base": Shape(768, 12, 12),
    "large": Shape(1024, 24, 16),
    "huge": Shape(1280, 32, 16),
}


@dataclass(frozen=True, kw_only=True)
class VitSettings(EncoderSettings):
    """Vision Transformer (Dosovitskiy et al. 2021) of grey images, with an embedding of the view."""

    name: Literal["vit"] = "vit"
    """The encoder; others have settings of their own: see `pretrain --encoder.name NAME --help`."""
    preset: Literal["tiny", "small", "base", "large", "huge"] = "base"
    """Width, depth and heads."""
    image_size: int = setting(224, ge=16, le=2048)
    """Side of the square crop the encoder sees, in pixels; a multiple of patch_size."""
    patch_size: int = setting(16, ge=2, le=64)
    """Side of a patch, in pixels."""
    width: int | None = setting(None, ge=16)
    """Width of a token; default from the preset."""
    depth: int | None = setting(None, ge=1)
    """Blocks; default from the preset."""
    heads: int | None = setting(None, ge=1)
    """Attention heads; default from the preset."""
    mlp_ratio: float | None = setting(None, gt=0)
    """Width of a block's MLP over that of a token; default from the preset."""
    registers: int = setting(0, ge=0, le=64)
    """Further tokens beside the class token that no loss and no feature reads (Darcet et al. 2024)."""
    norm_eps: float = setting(1e-6, gt=0)
    """Added to the variance in each layer norm; weights of others may have been trained with another."""
    qk_norm: bool = True
    """Normalise queries and keys in every attention."""
    positions: Literal["learned", "sincos"] = "sincos"
    """Position embedding of patches: fixed sine-cosine (MAE), or a learned table (MVMAE's authors'
    code), which needs a longer training to tell the patches apart."""

    dimensions: ClassVar[int] = 2
    form: ClassVar[str] = "tokens"
    network: ClassVar[str] = "ray_mae.encoders.vit:VisionTransformer"
    attends: ClassVar[bool] = True
    changeable: ClassVar[tuple[str, ...]] = ("image_size", "patch_size", "norm_eps")
    exports: ClassVar[tuple[str, ...]] = ("timm",)

    @property
    def shape(self) -> Shape:
        """The preset's, with single values overridden."""
        return PRESETS[self.preset].override(self.width, self.depth, self.heads, self.mlp_ratio)

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def input_size(self) -> int:
        return self.image_size

    @property
    def layers(self) -> int:
        return self.shape.depth

    @property
    def described(self) -> str:
        shape = self.shape
        size: str = self.preset
        if shape != PRESETS[size]:
            size = f"of width {shape.width}, depth {shape.depth}, heads {shape.heads}"
        registers = f", {self.registers} registers" if self.registers else ""
        return f"vit {size}, {self.image_size} px, patches of {self.patch_size}{registers}"

    def check(self) -> None:
        multiple("encoder.image_size", self.image_size, "encoder.patch_size", self.patch_size)
        self.shape.check("encoder", sincos=self.positions == "sincos")
