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

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, within the encoder, that are no matrices and are not decayed.

        Norms and biases (one dimension) and `nn.Embedding` are exempt without being named.
        """
        return set()
