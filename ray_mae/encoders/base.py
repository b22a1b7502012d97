"""What methods, evaluation and export know of an encoder."""

from torch import nn

from ray_mae.config.sections import EncoderSettings


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

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, within the encoder, that are no matrices and are not decayed.

        Norms and biases (one dimension) and `nn.Embedding` are exempt without being named.
        """
        return set()
