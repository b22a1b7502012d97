"""What methods, evaluation and export know of an encoder."""

from typing import Any

from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.sparse import Active


class Encoder(nn.Module):
    """The network that is kept after pretraining.

    A subclass is made as `Class(settings, recompute=…)`: whether activations are computed again in the
    backward pass, which those of its parts that can do so keep as an attribute `recompute`. Of tokens,
    `forward` gives those of the visible patches; of maps, `skips` gives one of each resolution. Weights
    are found again by their names, in checkpoints of every method and in exported files.
    """

    settings: EncoderSettings

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Layers between input and output: blocks of a transformer, stages of a U-Net's encoder."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Pixels or voxels per side of a token, or of a point of the last map."""
        raise NotImplementedError

    def layer_of(self, name: str) -> int:
        """The layer of a parameter, for learning rates that fall towards the input (Clark et al. 2020).

        Args:
            name: of the parameter within the encoder.

        Returns:
            0 before the first layer, 1 to `depth`, depth + 1 after the last one.
        """
        raise NotImplementedError

    def rate_of(self, name: str, decay: float) -> float:
        """The share of the learning rate that a parameter has, where it falls towards the input.

        Args:
            name: of the parameter within the encoder.
            decay: rate of a layer over that of the next one.

        Returns:
            decay^(layers between it and the output).
        """
        return float(decay ** (self.depth + 1 - self.layer_of(name)))

    def freeze(self, layers: int) -> None:
        """Leaves the first layers as they are, with all that is before them; none for 0."""
        for name, parameter in self.named_parameters():
            if layers and self.layer_of(name) <= layers:
                parameter.requires_grad_(False)

    def resize(self, settings: Any) -> None:
        """Take inputs of another size: settings that `EncoderSettings.resized` gave."""
        self.settings = settings

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, within the encoder, that are no matrices and are not decayed.

        Norms and biases (one dimension) and `nn.Embedding` are exempt without being named.
        """
        return set()


class TokenEncoder(Encoder):
    """An encoder that gives tokens: of each patch that it sees one, and before them perhaps a class token.

    Patches are counted with the last axis fastest. Methods that hide patches work with each such encoder.
    """

    prefix: int
    """Tokens before those of patches: 1 with a class token, else 0."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Patches along each axis of an input."""
        raise NotImplementedError

    @property
    def patches(self) -> int:
        """L, the patches of an input."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        view: Tensor | None = None,
        masked: tuple[Tensor, Tensor] | None = None,
        blocks: int | None = None,
        draw: Tensor | None = None,
    ) -> Tensor:
        """Tokens of images or volumes.

        Args:
            x: [N, 1, *sides] normalised.
            visible: [N, V] indices of the patches that the network sees; None shows all L.
            view: [N] kind of view, of images; None is unknown.
            masked: [N, V] bool, and a vector [D] that stands in the place of those patches (SimMIM).
            blocks: how many of the blocks they go through, without the last norm; None: all. For those whose
                settings say that they attend.
            draw: [N] keys of what is random in a pretraining, such as paths that are dropped; None: nothing.

        Returns:
            [N, prefix + V, D].
        """
        raise NotImplementedError

    def attention(self, x: Tensor, queries: Tensor, view: Tensor | None = None) -> Tensor:
        """What patches attend to in the first block, among all patches of an input (guided masks).

        Args:
            x: [N, 1, *sides] normalised.
            queries: [N, Q] indices of the patches that are asked.
            view: [N] kind of view, of images; None is unknown.

        Returns:
            [N, heads, Q, L] float32, which sums to 1 over the last axis.
        """
        raise NotImplementedError

    def last_map(self, x: Tensor) -> Tensor:
        """The tokens of patches where these lie, [N, D, *grid] float32, of x [N, 1, *sides]."""
        tokens = self(x)[:, self.prefix :].float()
        return tokens.transpose(1, 2).unflatten(2, self.grid)

    def flops(self, tokens: int) -> float:
        """Forward of one sequence of so many tokens, products of matrices only."""
        raise NotImplementedError


class MapEncoder(Encoder):
    """An encoder that gives maps: one of each resolution, of its input or of the part that it is shown.

    `forward` is for frozen use: of volumes the vector [N, C]; of images that and the points of the last map,
    [N, 1 + L, C], as a transformer has tokens.
    """

    channels: list[int]
    """Of each map, the finest first."""

    def skips(
        self, x: Tensor, e: Tensor | None = None, active: Active | None = None
    ) -> list[Tensor]:
        """[N, 1, *sides] → maps [N, C, *sides / s], the finest first.

        e: [N, …] of what else the network is told, such as a noise level; None: nothing.
        active: what is seen; the maps are 0 elsewhere, and depend on nothing there. None: all.
        """
        raise NotImplementedError

    def last_map(self, x: Tensor) -> Tensor:
        """The coarsest map [N, C, *sides / s] float32, of x [N, 1, *sides]."""
        return self.skips(x)[-1].float()

    def flops(self, side: int) -> float:
        """Forward of one input with sides of `side` pixels or voxels, convolutions only."""
        raise NotImplementedError
