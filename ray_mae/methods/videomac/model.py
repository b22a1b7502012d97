"""VideoMAC (Pei et al. 2024, arXiv 2402.19082) of volumes: SparK, and agreement with a neighbouring slab.

L = L_MAE + γ·L_c. The paper adds the teacher's own error, which has no gradient; it is left out.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import MapEncoder
from ray_mae.encoders.sparse import Active
from ray_mae.methods.base import Batch, Context, Losses, Pictures
from ray_mae.methods.mae.maps import MaeMaps, MapDecoder, halves
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Reader, reader_of
from ray_mae.methods.parts.losses import reconstruction
from ray_mae.methods.parts.pictures import volume_rows
from ray_mae.methods.parts.spread import spread
from ray_mae.methods.parts.teacher import Teacher, momentum_at
from ray_mae.methods.videomac.settings import VideomacSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import uniforms

TITLE = "slab, its neighbour, the neighbour masked, as the teacher fills it"


class Halves(nn.Module):
    """An encoder and its decoder as one network, which a teacher can follow."""

    def __init__(self, encoder: MapEncoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor, active: Active) -> Tensor:
        """What is made [N, 1, *sides] of what is seen of x, of the same shape."""
        made: Tensor = self.decoder(self.encoder.skips(x, active=active), active)
        return made


class Videomac(MaeMaps):
    """The whole pretraining model: that of MAE, and a teacher of both its halves."""

    settings: VideomacSettings

    def __init__(
        self,
        settings: VideomacSettings,
        encoder: MapEncoder,
        decoder: MapDecoder,
        reader: Reader,
        steps: int,
    ) -> None:
        super().__init__(settings, encoder, decoder, reader)
        self.steps = steps
        self.teacher = Teacher(Halves(encoder, self.decoder)) if settings.gamma else None

    @classmethod
    def build(  # type: ignore[override]
        cls, settings: VideomacSettings, encoder: EncoderSettings, context: Context
    ) -> "Videomac":
        torch.manual_seed(context.seed)
        network, decoder = halves(settings, encoder, recompute=context.recompute)
        return cls(settings, network, decoder, reader_of(context, encoder), context.steps)

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """The error of hidden units, and their distance to what the teacher makes of the neighbour.

        A mean over samples. watch: record signs of collapse as well.
        """
        if self.teacher is None:
            return super().forward(batch, step, watch)
        inputs = self.reader(batch)
        assert inputs.valid is not None
        active, hidden = self.masks(inputs.draw)
        pair = (inputs.x, inputs.valid), self.neighbour(inputs.x, inputs.valid, inputs.draw)
        both = (pair, pair[::-1]) if self.settings.symmetric else (pair,)
        errors, distances, z = [], [], []
        for (x, valid), (other, counted) in both:
            maps = self.encoder.skips(x, active=active)
            made = self.decoder(maps, active)
            errors.append(self.error(made, x, valid, hidden))
            target = self.units_of(self.teacher(other, active), hidden)
            where = self.units_of(valid & counted, hidden)
            distances.append(reconstruction(self.units_of(made, hidden), target, valid=where))
            z.append(maps[-1].flatten(2).mean(2))  # [N, C]
        rec, gap = torch.stack(errors).mean(0), torch.stack(distances).mean(0)  # [N]
        each = rec + self.settings.gamma * gap
        parts = {"reconstruction": rec.mean().detach(), "consistency": gap.mean().detach()}
        ratios = signs_of_collapse(z[0], inputs) if watch else {}
        losses = Losses(each.mean(), parts, ratios, each.detach())
        return spread(losses, self.settings, z[0], inputs, step)

    def neighbour(self, x: Tensor, valid: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """The same crops, some slices further towards the head, by the keys draw [N].

        Slices that lie beyond a crop are repeats of its last one, and not valid.

        Args:
            x: [N, 1, X, Y, Z].
            valid: the same, bool.
            draw: [N].
        """
        slices = x.shape[-1]
        u = uniforms(draw, 1, Stream.SLICE)  # [N, 1]
        away = 1 + (u * self.settings.most_slices).long()
        place = torch.arange(slices, device=x.device) + away  # [N, Z]
        inside = (place < slices)[:, None, None, None]
        index = place.clamp(max=slices - 1)[:, None, None, None].expand_as(x)
        return x.gather(-1, index), valid.gather(-1, index) & inside

    def after_step(self, step: int, taken: Tensor) -> None:
        """The teacher follows."""
        self._follow(momentum_at(step, self.steps, self.settings.momentum), taken)

    def begin(self) -> None:
        device = next(self.encoder.parameters()).device
        self._follow(0.0, torch.ones((), dtype=torch.bool, device=device))

    def _follow(self, momentum: float, taken: Tensor) -> None:
        if self.teacher is not None:
            self.teacher.follow(Halves(self.encoder, self.decoder), momentum, taken)

    def metrics(self, step: int) -> dict[str, float]:
        if self.teacher is None:
            return {}
        return {"teacher_momentum": momentum_at(step + 1, self.steps, self.settings.momentum)}

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """As of MAE; and the neighbour, and what the teacher makes of it."""
        shown = super().pictures(batch, decode)
        if self.teacher is None:
            return shown
        inputs = self.reader.plain(batch)
        assert inputs.valid is not None
        active, _ = self.masks(inputs.draw)
        other, _ = self.neighbour(inputs.x, inputs.valid, inputs.draw)
        masked, filled = self.filled(other, self.teacher(other, active), active)
        return Pictures({**shown.images, TITLE: volume_rows(inputs.x, other, masked, filled)})

    def flops(self, images: int, samples: int) -> float:
        """That of MAE, and a forward of the teacher; twice if both slabs are reconstructed."""
        forward = super().flops(images, samples) / 3
        if self.teacher is None:
            return 3 * forward
        return 4 * forward * (2 if self.settings.symmetric else 1)
