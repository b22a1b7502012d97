"""MVMAE and MVMAE-V2T ("Structure is Supervision", arXiv 2511.22294).

L = L_rec + β·L_align + γ·L_caption. γ = 0 is MVMAE, β = 0 as well the independent MAE, and a
data set of single views the plain MAE: one code.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ray_mae.batch import StudyBatch, mean_per_study
from ray_mae.encoders.patches import gather, patchify
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.vit import VisionTransformer
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures, Vocabulary
from ray_mae.methods.mvmae.captioner import Captioner
from ray_mae.methods.mvmae.losses import alignment, caption, weighted
from ray_mae.methods.mvmae.settings import MvmaeSettings
from ray_mae.methods.parts.attention_masks import Guide
from ray_mae.methods.parts.collapse import collapse_signs
from ray_mae.methods.parts.cross_attention import Together
from ray_mae.methods.parts.inputs import Views
from ray_mae.methods.parts.losses import reconstruction, unnormalised
from ray_mae.methods.parts.masking import Masks, some_of
from ray_mae.methods.parts.pictures import reconstruction_of_patches
from ray_mae.methods.parts.pixel_decoder import PixelDecoder
from ray_mae.methods.parts.running_mean import RunningMean
from ray_mae.methods.parts.spread import spread
from ray_mae.random_streams import Stream
from ray_mae.transforms.images import Augmentation, whole
from ray_mae.transforms.keyed_random import uniforms


class Mvmae(Method):
    """The whole pretraining model: encoder, pixel decoder and, for V2T, captioner."""

    encoder: VisionTransformer

    def __init__(
        self,
        settings: MvmaeSettings,
        encoder: VisionTransformer,
        decoder: PixelDecoder,
        captioner: Captioner | None,
        *,
        augment: Augmentation,
        beta: Callable[[int], float],
        steps: int = 1,
        vocabulary: Vocabulary | None = None,
        most_views: int = 1,
    ) -> None:
        """beta: the weight of the alignment by step; steps: of the run; most_views: of a study."""
        super().__init__()
        self.settings = settings
        self.encoder, self.decoder, self.captioner = encoder, decoder, captioner
        self.image_size, self.patch_size = encoder.settings.image_size, encoder.stride
        self.masks = Masks(settings, encoder.grid, settings.mask_ratio, steps)
        hidden = encoder.patches - self.masks.visible
        self.decoded = max(1, round(settings.decode_share * hidden))
        self.reader = Views(augment, self.image_size)
        self.beta, self.gamma = beta, settings.gamma
        self.vocabulary = vocabulary or Vocabulary()
        self.most_views = most_views
        if settings.cross_view:
            decoder.add_other_views()
        self.centre = None
        if settings.alignment == "centred":
            self.centre = RunningMean(encoder.width, settings.alignment_momentum)
        self.follows = self.centre is not None

    @classmethod
    def build(cls, settings: MvmaeSettings, encoder: VitSettings, context: Context) -> "Mvmae":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, VisionTransformer)
        decoder = PixelDecoder(
            settings.decoder_shape(encoder), network, recompute=context.recompute
        )
        captioner = None
        if settings.gamma > 0:
            captioner = Captioner(
                encoder_width=network.width,
                patches=network.patches,
                vocabulary=context.vocabulary.size,
                max_tokens=context.studies.max_tokens,
                depth=settings.caption_depth,
                heads=settings.caption_heads,
                mlp_ratio=settings.caption_mlp_ratio,
                mask_id=context.vocabulary.mask,
            )
        return cls(
            settings,
            network,
            decoder,
            captioner,
            augment=Augmentation.of(context.studies),
            beta=ramp(settings.beta, context.warmup_steps, context.steps),
            steps=context.steps,
            vocabulary=context.vocabulary,
            most_views=context.studies.max_views,
        )

    def forward(self, batch: StudyBatch, step: int, watch: bool = False) -> Losses:
        """The loss of S studies with N views, a mean over the studies.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(cast(Batch, batch))
        images = inputs.x  # [N, 1, H, W]
        patches = patchify(images, self.patch_size)  # [N, L, patch²]
        guide = Guide(self.encoder, images, batch.view, step=step)
        visible, hidden = self.masks(batch.view_draw, guide)
        if self.training and self.decoded < hidden.shape[1]:
            hidden = some_of(batch.view_draw, hidden, self.decoded)

        tokens = self.encoder(images, visible, batch.view)  # [N, 1 + V, D]
        S, target = batch.samples, gather(patches, hidden)
        together = Together(batch.study, S, batch.most_views)

        def reconstructed(together: Together | None) -> Tensor:  # [S]
            pixels = self.decoder(tokens, visible, hidden, batch.view, together)  # [N, M, patch²]
            error = reconstruction(pixels, target, self.settings.norm_pix)  # [N]
            return mean_per_study(error, batch.study, S)

        plain = reconstructed(together)
        rec = weighted(plain, self.weights(batch, "reconstruction"))
        z = self.pooled(tokens)  # [N, D]
        align = alignment(
            z if self.centre is None else self.centre(z),
            batch.study,
            S,
            self.settings.alignment,
            reduction=self.settings.alignment_reduction,
            temperature=self.settings.alignment_temperature,
            key=batch.key[batch.study],
            most=batch.most_views,
            weight=self.weights(batch, "alignment"),
        )
        beta = self.beta(step)
        total = rec.mean() + (beta * align.mean() if beta else 0.0)
        each = (rec + beta * align).detach()  # [S]
        parts = {"reconstruction": rec.mean(), "alignment": align.mean()}
        ratios = {}
        if self.settings.cross_view and not self.training:
            gain = self.several(batch) * (reconstructed(None) - plain).detach()
            ratios["cross_view_gain"] = torch.stack([gain.sum(), self.several(batch).sum()])
        if self.captioner is not None:
            caption = self.caption(tokens, visible, batch)  # [S], 0 without a report
            total = total + self.gamma * caption.mean()
            each += self.gamma * caption.detach()
            # for the record per report, so that it reads as nats per token
            ratios["caption"] = torch.stack([caption.sum(), batch.has_report.sum()]).detach()
        if watch:
            ratios |= collapse_signs(z.detach().float(), batch.study)
        parts = {name: value.detach() for name, value in parts.items()}
        return spread(Losses(total, parts, ratios, each), self.settings, z, inputs, step)

    def several(self, batch: StudyBatch) -> Tensor:
        """[S] 1 of a study with several views, else 0."""
        one = torch.ones_like(batch.study, dtype=torch.float32)
        count = torch.zeros_like(batch.key, dtype=torch.float32).index_add(0, batch.study, one)
        return (count > 1).float()

    def weights(self, batch: StudyBatch, term: str) -> Tensor | None:
        """[S] factors of a term of the loss by the studies' findings; None: all 1."""
        return batch.study_weight if self.settings.rare_terms in (term, "both") else None

    def after_step(self, step: int, taken: Tensor) -> None:
        """The mean of the views' vectors follows the weights."""
        if self.centre is not None:
            self.centre.follow(taken)

    def pooled(self, tokens: Tensor) -> Tensor:
        """One vector per view [N, D] for the alignment, from tokens [N, 1 + V, D]."""
        if self.settings.alignment_tokens == "cls":
            return tokens[:, 0]
        return (
            tokens[:, 1:].mean(1) if self.settings.alignment_tokens == "patches" else tokens.mean(1)
        )

    def caption(self, tokens: Tensor, visible: Tensor, batch: StudyBatch) -> Tensor:
        """L_caption per study [S]; 0, and no gradient, for a study without a report."""
        assert self.captioner is not None
        parallel, words = None, batch.tokens
        if self.settings.caption_parallel_share > 0:
            parallel = (
                uniforms(batch.draw, 1, Stream.PARALLEL)[:, 0]
                < self.settings.caption_parallel_share
            )
            # always the full length: the number of mask tokens would give a report's length away, and
            # with a batch's longest report the loss would depend on who else is in the batch
            full = self.captioner.position.num_embeddings
            words = nn.functional.pad(words, (0, full - words.shape[1]), value=self.vocabulary.pad)
        read, target = words[:, :-1], words[:, 1:]
        if self.settings.caption_memory == "study":
            logits = self.captioner(
                read, tokens, visible, batch.view, batch.study, parallel, most=batch.most_views
            )
            loss = caption(logits, target, self.vocabulary.pad)  # [S]
        else:
            of = batch.study  # each view tells its study's report
            parallel = None if parallel is None else parallel[of]
            logits = self.captioner(read[of], tokens, visible, batch.view, parallel=parallel)
            loss = caption(logits, target[of], self.vocabulary.pad)  # [N]
            loss = mean_per_study(loss, of, batch.samples)
        return loss * batch.has_report

    @torch.no_grad()
    def pictures(
        self, batch: StudyBatch, decode: Callable[[list[int]], str] | None = None
    ) -> Pictures:
        """Per view: what was shown, what was reconstructed, the original; and the reports."""
        images = whole(batch, self.image_size)
        patches = patchify(images, self.patch_size)
        guide = Guide(self.encoder, images, batch.view)
        visible, hidden = self.masks(batch.view_draw, guide)
        tokens = self.encoder(images, visible, batch.view)
        together = Together(batch.study, batch.samples, batch.most_views)
        pixels = self.decoder(tokens, visible, hidden, batch.view, together).float()
        if self.settings.norm_pix:  # back to grey values, or a viewer sees noise
            pixels = unnormalised(pixels, gather(patches, hidden))
        where = hidden[..., None].expand(-1, -1, patches.shape[-1])
        is_hidden = torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
        is_hidden = is_hidden.scatter(1, hidden, True)
        filled = patches.scatter(1, where, pixels)
        shown = reconstruction_of_patches(images, is_hidden, filled, self.encoder)
        texts = []
        if decode is not None and self.captioner is not None:
            generated = self.generate(batch, tokens, visible)
            for study in batch.has_report.nonzero()[:, 0].tolist():
                texts.append(
                    {
                        "true": decode(batch.tokens[study].tolist()),
                        "generated": decode(generated[study].tolist()),
                    }
                )
        return replace(shown, texts=texts)

    @torch.no_grad()
    def generate(
        self, batch: StudyBatch, tokens: Tensor, index: Tensor, max_tokens: int = 64
    ) -> Tensor:
        """Greedy reports [S, ≤ max_tokens]; with `view` memory, from each study's first view."""
        assert self.captioner is not None
        group = batch.study if self.settings.caption_memory == "study" else None
        view = batch.view
        if group is None:
            of = torch.searchsorted(batch.study, torch.arange(batch.samples, device=view.device))
            tokens, index, view = tokens[of], index[of], view[of]
        text = torch.full((batch.samples, 1), self.vocabulary.first, device=view.device)
        ended = torch.zeros(batch.samples, dtype=torch.bool, device=view.device)
        longest = min(max_tokens, self.captioner.position.num_embeddings)
        while text.shape[1] < longest and not ended.all():
            logits = self.captioner(text, tokens, index, view, group, most=batch.most_views)
            logits = logits[:, -1]
            following = torch.where(ended, self.vocabulary.pad, logits.argmax(-1))
            ended |= following == self.vocabulary.last
            text = torch.cat([text, following[:, None]], dim=1)
        return text

    def metrics(self, step: int) -> dict[str, float]:
        """β of this step."""
        return {"beta": self.beta(step)}

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), products of matrices only."""
        tokens = 1 + self.masks.visible
        total = images * self.encoder.flops(tokens)
        total += images * self.decoder.flops(tokens, self.decoded, self.most_views)
        if self.captioner is not None:
            c = self.captioner
            D, L, V = c.word.embedding_dim, c.position.num_embeddings, c.word.num_embeddings
            weights = sum(p.numel() for p in c.decoder.parameters())
            one = 2 * L * (weights + D * V) + 4 * L * D * (L + tokens) * len(c.decoder.layers)
            total += one * (samples if self.settings.caption_memory == "study" else images)
        return 3.0 * total + images * self.masks.flops(self.encoder)


def ramp(final: float, start: int, end: int) -> Callable[[int], float]:
    """β by step: exactly 0 up to `start`, then half a cosine up to `final` at `end`."""

    def beta(step: int) -> float:
        if step <= start or final == 0:
            return 0.0
        share = min(1.0, (step - start) / max(1, end - start))
        return final * 0.5 * (1 - math.cos(math.pi * share))

    return beta
