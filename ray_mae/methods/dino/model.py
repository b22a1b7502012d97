"""DINO (Caron et al. 2021, arXiv 2104.14294), with iBOT, KoLeo and Sinkhorn as in DINOv2."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import enlarge, gather, patchify
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures
from ray_mae.methods.dino.crops import MultiCrop, crops_of
from ray_mae.methods.dino.head import Head
from ray_mae.methods.dino.losses import crop_pairs, entropy, hidden_patches, partners, sinkhorn
from ray_mae.methods.dino.settings import GLOBALS, DinoSettings
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.losses import FEWEST_VALID
from ray_mae.methods.parts.masking import blocks, uniform
from ray_mae.methods.parts.pictures import volume_rows
from ray_mae.methods.parts.running_mean import RunningMean
from ray_mae.methods.parts.spread import koleo, sample_of
from ray_mae.methods.parts.teacher import Teacher, momentum_at
from ray_mae.random_streams import Stream
from ray_mae.transforms.images import denormalise
from ray_mae.transforms.keyed_random import uniforms

TITLE = "whole, first global crop, second with what is hidden, local crops"


class Dino(Method):
    """The whole pretraining model: encoder and head, and a teacher of each."""

    encoder: TokenEncoder

    def __init__(
        self, settings: DinoSettings, encoder: TokenEncoder, crops: MultiCrop, steps: int
    ) -> None:
        super().__init__()
        self.settings, self.crops, self.steps = settings, crops, steps
        self.encoder = encoder
        self.head = Head(
            encoder.width, settings.head_width, settings.bottleneck, settings.prototypes
        )
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        centred = settings.centring == "centre"
        self.centre = self._centre() if centred else None
        self.mask: nn.Parameter | None = None
        self.patch_centre: RunningMean | None = None
        if settings.ibot:
            self.mask = nn.Parameter(torch.randn(encoder.width) * 0.02)
            self.patch_centre = self._centre() if centred else None  # patches have another mean
        self.slots = max(1, int(encoder.patches * settings.hidden_ratio[1]))  # M

    def _centre(self) -> RunningMean:
        return RunningMean(self.settings.prototypes, self.settings.centre_momentum)

    @classmethod
    def build(cls, settings: DinoSettings, encoder: EncoderSettings, context: Context) -> "Dino":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, TokenEncoder)
        return cls(settings, network, crops_of(context, settings, encoder), context.steps)

    def no_weight_decay(self) -> set[str]:
        return {"mask"} if self.mask is not None else set()

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """The loss of N views or volumes, a mean over their samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        wide, narrow = self.crops(batch)
        first, frozen = wide[0], step < self.settings.frozen_last * self.steps
        every = _joined(wide)  # 2N inputs
        seen = self.teacher(every.x, view=every.view)  # [2N, prefix + L, D]
        t = self.teacher_head(self.pooled(seen)).float()  # [2N, K]
        targets = self.targets(t, step, self.centre)
        if self.settings.pairs == "views":
            u = uniforms(first.draw, 1, Stream.PARTNER)[:, 0]
            other = partners(u, sample_of(first), first.samples)
            targets = targets.unflatten(0, (GLOBALS, -1))[:, other].flatten(0, 1)

        hiding = self.hiding(every) if self.mask is not None else None
        tokens = self.encode(every, None if hiding is None else hiding[0])  # [2N, prefix + L, D]
        z = self.pooled(tokens)
        logs = [*self.logs(self.head(z, frozen)).chunk(GLOBALS)]  # [N, K] each
        if narrow:
            local = self.encode(_joined(narrow), None)
            logs += self.logs(self.head(self.pooled(local), frozen)).chunk(len(narrow))

        pairs = crop_pairs(targets.chunk(GLOBALS), logs)  # [N]
        dino = first.per_sample(pairs)  # [S]
        each, parts = dino, {"dino": dino}
        if hiding is not None:
            values = self.patches(seen, tokens, hiding, step, frozen)  # [2N]
            parts["ibot"] = first.per_sample(torch.stack(values.chunk(GLOBALS)).mean(0))
            each = each + self.settings.ibot * parts["ibot"]
        ratios = {}
        if self.settings.koleo:
            key = first.key[sample_of(first)]
            apart = torch.stack([koleo(half, key) for half in z.chunk(GLOBALS)]).mean(0)
            spread = first.per_sample(apart)
            each = each + self.settings.koleo * spread
            ratios["koleo"] = torch.stack([spread.sum(), torch.ones_like(spread).sum()]).detach()
        if watch:
            ratios |= self.signs(targets, pairs.detach())
            ratios |= signs_of_collapse(z.chunk(GLOBALS)[0], first)
        means = {name: value.mean().detach() for name, value in parts.items()}
        return Losses(each.mean(), means, ratios, each.detach())

    def encode(self, inputs: Inputs, hidden: Tensor | None) -> Tensor:
        """The student's tokens of inputs, of which it does not see the hidden patches [N, L] bool."""
        masked = None if hidden is None or self.mask is None else (hidden, self.mask)
        return self.encoder(inputs.x, view=inputs.view, masked=masked, draw=inputs.draw)

    def pooled(self, tokens: Tensor) -> Tensor:
        """One vector of each input [N, D]: its class token, or the mean where there is none."""
        return tokens[:, 0] if self.encoder.prefix else tokens.mean(1)

    def targets(
        self,
        logits: Tensor,
        step: int,
        centre: RunningMean | None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """The teacher's distributions [N, K] of its logits; counted: [N] bool, of Sinkhorn's."""
        sharp = self.temperature(step)
        if centre is None:
            return sinkhorn(logits / sharp, counted)
        return (centre(logits) / sharp).softmax(-1)

    def logs(self, logits: Tensor) -> Tensor:
        """Logarithms of the student's distributions, […, K] float32."""
        return (logits.float() / self.settings.student_temperature).log_softmax(-1)

    def hiding(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """What is hidden from the student, of N inputs with L patches, by their keys.

        Returns:
            [N, L] bool, hidden; [N, M] indices of patches, of which the first are hidden; and [N, M] bool,
            which of them count in the loss: the hidden ones with anything to be seen.
        """
        L = self.encoder.patches
        u = uniforms(inputs.draw, 2, Stream.HIDDEN)
        low, high = self.settings.hidden_ratio
        number = ((low + (high - low) * u[:, 1]) * L).long().clamp(min=1)  # [N]
        number = torch.where(u[:, 0] < self.settings.hidden_share, number, 0)
        rank = blocks if self.settings.mask == "block" else uniform
        order = rank(self.encoder.grid, inputs.draw).flip(1)[
            :, : self.slots
        ]  # first what is hidden first
        is_hidden = torch.arange(self.slots, device=order.device) < number[:, None]  # [N, M]
        hidden = torch.zeros(len(order), L, dtype=torch.bool, device=order.device)
        hidden = hidden.scatter(1, order, is_hidden)
        if inputs.valid is None:
            return hidden, order, is_hidden
        valid = patchify(inputs.valid, self.encoder.stride).float().mean(-1) >= FEWEST_VALID
        return hidden, order, is_hidden & valid.gather(1, order)

    def patches(
        self,
        seen: Tensor,
        tokens: Tensor,
        hiding: tuple[Tensor, Tensor, Tensor],
        step: int,
        frozen: bool,
    ) -> Tensor:
        """iBOT's loss [N] of the teacher's tokens and the student's, [N, prefix + L, D] each."""
        _, order, counted = hiding
        prefix = self.encoder.prefix
        with torch.no_grad():
            t = self.teacher_head(gather(seen[:, prefix:], order).flatten(0, 1)).float()  # [N·M, K]
            targets = self.targets(t, step, self.patch_centre, counted.flatten())
        s = self.head(gather(tokens[:, prefix:], order).flatten(0, 1), frozen)
        rows = targets.unflatten(0, order.shape), self.logs(s).unflatten(0, order.shape)
        return hidden_patches(*rows, counted)

    def temperature(self, step: int) -> float:
        """The teacher's, which rises in its warm-up."""
        first, last = self.settings.teacher_temperature
        warmup = self.settings.temperature_warmup * self.steps
        return last if step >= warmup else first + (last - first) * step / warmup

    @torch.no_grad()
    def signs(self, targets: Tensor, loss: Tensor) -> dict[str, Tensor]:
        """Signs of collapse of the teacher, as of `Losses.ratios`.

        Of an even distribution for every input the entropy is log K and the divergence 0; of one prototype
        for every input, 1 is used. They are of this worker's micro-batch, which bounds how many are used.

        Args:
            targets: [2N, K].
            loss: [N] of crops.
        """
        h = entropy(targets)
        divergence = loss - torch.stack(h.chunk(GLOBALS)).mean(0)
        one = torch.ones((), device=h.device)
        found = {
            "teacher_entropy": torch.stack([h.sum(), one * len(h)]),
            "teacher_kl": torch.stack([divergence.sum(), one * len(divergence)]),
            "prototypes_used": torch.stack([entropy(targets.mean(0)).exp(), one]),
        }
        if self.centre is not None:
            found["centre_norm"] = torch.stack([self.centre.value.norm(), one])
        return found

    def after_step(self, step: int, taken: Tensor) -> None:
        """The teacher follows the student, and the centres what it gave."""
        momentum = momentum_at(step, self.steps, self.settings.momentum)
        self.teacher.follow(self.encoder, momentum, taken)
        self.teacher_head.follow(self.head, momentum, taken)
        for centre in (self.centre, self.patch_centre):
            if centre is not None:
                centre.follow(taken)

    def begin(self) -> None:
        taken = torch.ones((), dtype=torch.bool, device=self.head.prototypes.weight.device)
        self.teacher.follow(self.encoder, 0.0, taken)
        self.teacher_head.follow(self.head, 0.0, taken)

    def metrics(self, step: int) -> dict[str, float]:
        return {
            "teacher_momentum": momentum_at(step + 1, self.steps, self.settings.momentum),
            "teacher_temperature": self.temperature(step),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """What is cropped, what is hidden of it: a row per input."""
        whole = self.crops.plain.plain(batch)
        wide, narrow = self.crops.lettered()(batch)
        second = wide[1].x
        if self.mask is not None:
            hidden = self.hiding(wide[1])[0].view(-1, *self.encoder.grid)
            second = second.masked_fill(enlarge(hidden, self.encoder.stride)[:, None], 0.0)
        row = [whole.x, wide[0].x, second, *(crop.x for crop in narrow[:2])]
        row = [F.interpolate(x, whole.x.shape[2:]) for x in row]
        if whole.x.ndim == 5:
            return Pictures({TITLE: volume_rows(*row)})
        return Pictures({TITLE: torch.cat([denormalise(x) for x in row], -1)[:, 0].flatten(0, 1)})

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward) of the student, forward of the teacher; matrices only."""
        s, encoder = self.settings, self.encoder
        local = s.local_side(encoder.settings) // encoder.stride
        wide = encoder.flops(encoder.prefix + encoder.patches)
        narrow = encoder.flops(encoder.prefix + local ** len(encoder.grid))
        head = 2.0 * sum(p.numel() for p in self.head.parameters() if p.ndim == 2)
        heads = 1 + (self.slots if s.ibot else 0)  # of a global crop
        seen = GLOBALS * (wide + heads * head)
        return images * (4 * seen + 3 * s.locals * (narrow + head))


def _joined(crops: list[Inputs]) -> Inputs:
    """Crops of the same inputs one after the other, as inputs without samples."""
    first = crops[0]
    valid = (
        None if first.valid is None else torch.cat([c.valid for c in crops if c.valid is not None])
    )
    view = None if first.view is None else first.view.repeat(len(crops))
    draw = torch.cat([c.draw for c in crops])
    return Inputs(torch.cat([c.x for c in crops]), draw, draw, valid=valid, view=view)
