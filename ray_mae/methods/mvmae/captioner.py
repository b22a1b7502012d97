"""The report decoder of MVMAE-V2T (section 4.2): text from the tokens of visible patches."""

import torch
from torch import Tensor, nn

from ray_mae.encoders.vit import VIEWS
from ray_mae.methods.parts.cross_attention import pad_groups


class Captioner(nn.Module):
    """Causal transformer decoder that cross-attends to one view, or to all views of a study.

    Memory tokens get a view and a position embedding of their own, by the *kept* indices; report
    tokens have learned positions. Pre-norm, which trains without a warm-up of its own (the
    authors' code is post-norm).
    """

    def __init__(
        self,
        *,
        encoder_width: int,
        patches: int,
        vocabulary: int,
        max_tokens: int,
        depth: int = 4,
        heads: int = 8,
        mlp_ratio: float = 1.0,
        mask_id: int,
    ) -> None:
        super().__init__()
        width = encoder_width
        self.mask_id, self.heads = mask_id, heads
        self.memory_position = nn.Embedding(1 + patches, width)
        self.memory_view = nn.Embedding(VIEWS, width)
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(max_tokens, width)
        layer = nn.TransformerDecoderLayer(
            width,
            heads,
            dim_feedforward=int(width * mlp_ratio),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            bias=False,
        )
        self.decoder = nn.TransformerDecoder(layer, depth, norm=nn.LayerNorm(width))
        self.logits = nn.Linear(width, vocabulary, bias=False)
        # the decoder copies one layer: without this all would start the same
        for weight in (*self.decoder.parameters(), self.logits.weight):
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)
        for table in (self.memory_position, self.memory_view, self.word, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(
        self,
        text: Tensor,
        tokens: Tensor,
        index: Tensor,
        view: Tensor,
        group: Tensor | None = None,
        parallel: Tensor | None = None,
        *,
        most: int = 1,
    ) -> Tensor:
        """Logits [K, L, vocabulary] of the token that follows each of text [K, L].

        tokens: [N, 1 + V, D] of views [N], patch indices index [N, V]. Without group, K = N and
        text k reads view k; with group [N], text k reads all views n with group[n] == k, `most` at most.
        parallel: [K] bool, texts that see only mask tokens, in both directions (CapPa): all L of them,
        so L must not depend on how long this or another report is.
        """
        slot = torch.cat([torch.zeros_like(index[:, :1]), 1 + index], dim=1)
        memory = tokens + self.memory_position(slot) + self.memory_view(view)[:, None]
        absent = None
        if group is not None:
            memory, absent = pad_groups(memory, group, text.shape[0], most)

        length = text.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=text.device).triu(1)  # hidden
        if parallel is not None:
            text = torch.where(parallel[:, None], self.mask_id, text)
            causal = causal & ~parallel[:, None, None]  # [K, L, L]
            causal = causal.repeat_interleave(self.heads, dim=0)
        x = self.word(text) + self.position(torch.arange(length, device=text.device))
        x = self.decoder(
            x,
            memory,
            tgt_mask=causal,
            memory_key_padding_mask=absent,
            tgt_is_causal=parallel is None,
        )
        return self.logits(x)
