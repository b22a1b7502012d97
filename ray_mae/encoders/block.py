"""One block of a Vision Transformer, by timm's names.

timm's own block computes the same. Importing it takes all of timm's models, seconds and 300 MB, which
whoever only loads an encoder does not have to wait for.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


class Attention(nn.Module):
    """Multi-head self-attention, with queries and keys normalised where that is wanted."""

    def __init__(self, width: int, heads: int, qk_norm: bool, norm: Norm) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = norm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = norm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] → [B, N, D]."""
        y = F.scaled_dot_product_attention(*self.project(x))
        return self.proj(y.transpose(1, 2).reshape(x.shape))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] → queries, keys and values [B, heads, N, D / heads] each."""
        B, N, D = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.q_norm(q), self.k_norm(k), v


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = (
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] → [B, N, D]."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: attention and a small network, each added to its input.

    Args:
        width: of a token.
        heads: of the attention.
        mlp_ratio: width of the hidden layer over that of a token.
        qk_norm: whether queries and keys are normalised.
        norm: makes a norm of so many values.
    """

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: float, qk_norm: bool, norm: Norm
    ) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = Attention(width, heads, qk_norm, norm)
        self.norm2 = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] → [B, N, D]."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
