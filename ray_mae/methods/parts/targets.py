"""What is predicted of hidden patches beside pixels: histograms of gradients, or tokens of a teacher."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ray_mae.encoders.base import Encoder, MapEncoder, TokenEncoder
from ray_mae.encoders.patches import gather, patchify
from ray_mae.encoders.vit import initialise
from ray_mae.methods.base import Context, Method, Pictures
from ray_mae.methods.parts.hog import BINS, hog
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.losses import countable, region_mean
from ray_mae.methods.parts.pictures import errors_of_patches
from ray_mae.methods.parts.target_settings import TargetSettings
from ray_mae.methods.parts.teacher import Teacher, momentum_at


class Target(nn.Module):
    """What is predicted of each patch, without gradient.

    `forward` makes of N inputs the values [N, L, T] float32, and [N, L, T] bool which of them count.
    """

    width: int
    """T."""

    def head(self, width: int) -> nn.Module:
        """Returns what predicts it from tokens of a width, with fresh weights."""
        return nn.Linear(width, self.width)

    def error(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Of each value, of any shape."""
        return (found - wanted).square()

    def follow(self, encoder: Encoder, step: int, taken: Tensor) -> None:
        """As `Method.after_step`, with the encoder that is trained."""

    def flops(self) -> float:
        """Forward of one input."""
        return 0.0


class Hog(Target):
    """Histograms of oriented gradients of the cells of each patch, as MaskFeat has them (Wei et al. 2022).

    T is cells of a patch × 9 bins, the cells with the last axis fastest; of a volume × 3 planes × 9 bins.
    Cells without any gradient, as black around an image, do not count, and neither do those that are not
    wholly valid.

    Args:
        patch: side of a patch.
        cell: side of a cell, which divides that of a patch.
        axes: 2 or 3.
    """

    def __init__(self, patch: int, cell: int, axes: int) -> None:
        super().__init__()
        self.cell, self.cells = cell, patch // cell
        planes = axes * (axes - 1) // 2
        self.width = self.cells**axes * planes * BINS

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        values = hog(inputs.x, self.cell)  # [N, planes, 9, *cells]
        counted = (values > 0).any(2, keepdim=True)
        if inputs.valid is not None:
            whole = F.max_pool3d if inputs.x.ndim == 5 else F.max_pool2d
            counted = counted & (whole((~inputs.valid).float(), self.cell) == 0)[:, :, None]
        return self._patches(values), self._patches(counted.expand_as(values))

    def _patches(self, x: Tensor) -> Tensor:
        """[N, planes, 9, *cells] → [N, L, T]."""
        N, grid = len(x), x.shape[3:]
        patches = patchify(x.reshape(-1, 1, *grid), self.cells)  # [N · planes · 9, L, cells]
        L, K = patches.shape[1:]
        return patches.view(N, -1, L, K).permute(0, 2, 3, 1).reshape(N, L, -1)


class _Tokens(nn.Module):
    """Tokens of the patches of an encoder that sees everything: [N, 1, *sides] → [N, L, D]."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, view: Tensor | None, patches: int) -> Tensor:
        if isinstance(self.encoder, MapEncoder):
            return self.encoder.skips(x)[-1].flatten(2).transpose(1, 2)
        return self.encoder(x, view=view)[:, -patches:]


class Latent(Target):
    """Tokens of a network that sees the whole input, each normalised without weights.

    Args:
        encoder: the network, which is copied.
        patches: L.
        size: side of what it sees, to which inputs of another are resized.
    """

    network: Teacher

    def __init__(self, encoder: Encoder, patches: int, size: int) -> None:
        super().__init__()
        self.width, self.patches, self.size = encoder.width, patches, size
        self._flops = forward_flops(encoder, patches)
        self._hold(Teacher(_Tokens(encoder)))

    def _hold(self, network: Teacher) -> None:
        self.network = network

    def head(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, self.width))

    def error(self, found: Tensor, wanted: Tensor) -> Tensor:
        return F.smooth_l1_loss(found, wanted, reduction="none")

    @torch.no_grad()
    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        x = inputs.x
        if x.shape[-1] != self.size:
            mode = "trilinear" if x.ndim == 5 else "bilinear"
            sides = (self.size,) * (x.ndim - 2)
            x = F.interpolate(x, size=sides, mode=mode, antialias=x.ndim == 4)
        tokens = self.network(x, inputs.view, self.patches).float()  # [N, L, D]
        values = F.layer_norm(tokens, (self.width,))
        counted = torch.ones_like(values, dtype=torch.bool)
        if inputs.valid is not None:
            stride = round((inputs.x[0].numel() / self.patches) ** (1 / (inputs.x.ndim - 2)))
            counted &= countable(patchify(inputs.valid, stride)).any(2, keepdim=True)
        return values, counted

    def flops(self) -> float:
        return self._flops


class Following(Latent):
    """The same of a teacher that follows the encoder that is trained, whose weights are in the checkpoint.

    Args:
        encoder: that is trained.
        momentum: share of its weights that the first step keeps.
        steps: of the whole run, at whose end that is 1.
    """

    def __init__(self, encoder: TokenEncoder, momentum: float, steps: int) -> None:
        super().__init__(encoder, encoder.patches, encoder.settings.input_size)
        self.momentum, self.steps = momentum, steps

    def follow(self, encoder: Encoder, step: int, taken: Tensor) -> None:
        momentum = momentum_at(step, self.steps, self.momentum) if step else 0.0
        self.network.follow(_Tokens(encoder), momentum, taken)


class Frozen(Latent):
    """The same of an encoder that stays as it is: neither its weights nor its buffers are the method's.

    Args:
        frozen: that is read from elsewhere.
        encoder: that is trained.

    Raises:
        ValueError: they do not see the same patches.
    """

    def __init__(self, frozen: Encoder, encoder: TokenEncoder) -> None:
        other, own = frozen.settings, encoder.settings
        if other.dimensions != own.dimensions:
            raise ValueError(
                f"method.features holds an encoder of {other.dimensions}D input, and that of the run has "
                f"{own.dimensions}D: give another one"
            )
        size = own.input_size if isinstance(frozen, MapEncoder) else other.input_size
        grid = (size // frozen.stride,) * other.dimensions
        if grid != encoder.grid:
            side = own.size_name
            fitting = grid[0] * encoder.stride
            advice = f"{side} {fitting}"
            if isinstance(frozen, MapEncoder):
                advice = f"encoder.patch_size {frozen.stride}"
            theirs, ours = (" × ".join(map(str, g)) for g in (grid, encoder.grid))
            raise ValueError(
                f"method.features holds an encoder of {theirs} patches (of {frozen.stride} in {size}), and "
                f"that of the run has {ours} (of {encoder.stride} in {own.input_size}): take {advice}"
            )
        super().__init__(frozen, encoder.patches, size)

    def _hold(self, network: Teacher) -> None:
        self._held = (network,)  # in a tuple, so that it is no part of this module's state

    @property
    def network(self) -> Teacher:  # type: ignore[override]
        """The frozen encoder."""
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.network._apply(fn)  # it lies where the others do
        return self


def forward_flops(encoder: Encoder, patches: int) -> float:
    """Forward of an encoder over one whole input."""
    if isinstance(encoder, MapEncoder):
        return encoder.flops(encoder.settings.input_size)
    if isinstance(encoder, TokenEncoder):
        return encoder.flops(encoder.prefix + patches)
    weights = sum(p.numel() for p in encoder.parameters() if p.ndim == 2)
    return 2.0 * patches * weights + 4.0 * patches**2 * encoder.width * encoder.depth


class Prediction(nn.Module):
    """A target, and the head that predicts it from tokens.

    Args:
        target: what is predicted.
        width: of the tokens.
    """

    def __init__(self, target: Target, width: int) -> None:
        super().__init__()
        self.target = target
        self.head = target.head(width)
        initialise(self.head)

    def errors(
        self, x: Tensor, inputs: Inputs, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """[N, M, T] of each value, and [N, M, T] bool which of them count.

        Args:
            x: [N, M, W] tokens.
            inputs: what they are of.
            index: [N, M] their patches; None: all of them.
        """
        wanted, counted = self.target(inputs)
        if index is not None:
            wanted, counted = gather(wanted, index), gather(counted, index)
        return self.target.error(self.head(x).float(), wanted), counted

    def forward(
        self, x: Tensor, inputs: Inputs, index: Tensor | None = None, among: Tensor | None = None
    ) -> Tensor:
        """[N] the mean error of each input over what counts, and among [N, M] bool where that is given."""
        error, counted = self.errors(x, inputs, index)
        return region_mean(error, counted if among is None else counted & among[..., None])


class Errors(NamedTuple):
    """Of N inputs."""

    total: Tensor
    """[N] what is minimised."""
    shown: Tensor
    """[N] what is recorded as the reconstruction: that of the target."""
    ratios: dict[str, Tensor]
    """The pixels' for the record, beside another target."""


def weighed(settings: TargetSettings, target: Tensor | None, pixels: Tensor | None) -> Errors:
    """Puts the error [N] of a target and that of pixels [N] together; one of them is there."""
    if target is None or pixels is None:
        only = pixels if target is None else target
        assert only is not None
        return Errors(only, only, {})
    ratio = torch.stack([pixels.sum(), torch.ones_like(pixels).sum()]).detach()
    return Errors(target + settings.pixel_weight * pixels, target, {"pixels": ratio})


class PredictingMethod(Method):
    """A method that predicts a target of hidden patches, or pixels as it would without this."""

    encoder: TokenEncoder
    prediction: Prediction | None
    """Made after all else, so that the rest begins alike whatever is predicted; None: pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.prediction = None

    @property
    def follows(self) -> bool:  # type: ignore[override]
        """Whether there is a teacher that follows the encoder."""
        return self.prediction is not None and isinstance(self.prediction.target, Following)

    def begin(self) -> None:
        """A teacher begins as the encoder."""
        if self.prediction is not None:
            self.prediction.target.follow(self.encoder, 0, torch.ones((), dtype=torch.bool))

    def after_step(self, step: int, taken: Tensor) -> None:
        """A teacher follows the encoder."""
        if self.prediction is not None:
            self.prediction.target.follow(self.encoder, step, taken)

    def errors_shown(
        self, x: Tensor, inputs: Inputs, hidden: Tensor, index: Tensor | None = None
    ) -> Pictures:
        """What was shown, how large the error of each hidden patch is, the original.

        Args:
            x: [N, M, W] tokens.
            inputs: what they are of.
            hidden: [N, L] bool.
            index: [N, M] the patches of the tokens; None: all of them.
        """
        assert self.prediction is not None
        error, counted = self.prediction.errors(x, inputs, index)
        errors = torch.where(counted, error, 0).mean(2)
        if index is not None:
            errors = torch.zeros_like(hidden, dtype=torch.float32).scatter(1, index, errors)
        return errors_of_patches(inputs.x, hidden, errors * hidden, self.encoder)

    def flops_taught(self) -> float:
        """Of what the target of one input takes."""
        return 0.0 if self.prediction is None else self.prediction.target.flops()


def prediction_of(
    settings: TargetSettings, encoder: TokenEncoder, width: int, context: Context
) -> Prediction | None:
    """Returns what predicts the target of the settings from tokens of a width; None of pixels.

    Raises:
        ValueError: a frozen encoder does not see the same patches.
    """
    target: Target
    if settings.target == "pixels":
        return None
    if settings.target == "hog":
        target = Hog(encoder.stride, settings.hog_cell, len(encoder.grid))
    elif settings.target == "teacher":
        target = Following(encoder, settings.teacher_momentum, context.steps)
    else:
        assert context.frozen is not None
        target = Frozen(context.frozen, encoder)
    return Prediction(target, width)
