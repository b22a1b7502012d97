"""Signs of collapse, on vectors of which they are known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ray_mae.methods.parts.collapse import FEWEST, collapse_signs, effective_rank


def mean(pair: Tensor) -> float:
    total, count = pair.tolist()
    return total / count


@given(st.integers(FEWEST, 12), st.integers(0, 2**31))
def test_the_rank_is_that_of_directions_of_equal_weight(n: int, seed: int) -> None:
    """Corners of a simplex span n - 1 directions equally, wherever it lies and however large it is."""
    g = torch.Generator().manual_seed(seed)
    z = 5 * torch.eye(n) + torch.randn(n, generator=g)
    assert mean(effective_rank(z)) == pytest.approx(n - 1, rel=1e-3)
    line = torch.arange(n)[:, None] * torch.randn(1, 8, generator=g)
    assert mean(effective_rank(line)) == pytest.approx(1, abs=0.01)


def test_too_few_vectors_or_broken_ones_have_no_rank() -> None:
    assert effective_rank(torch.randn(FEWEST - 1, 8))[1] == 0
    for broken in (torch.nan, torch.inf):
        z = torch.randn(8, 8)
        z[3, 5] = broken
        assert effective_rank(z).tolist() == [0, 0]


def test_cosines_are_of_pairs_of_one_study_and_of_other_studies() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    signs = collapse_signs(z, torch.tensor([0, 0, 1, 2]))
    assert mean(signs["cosine_same_study"]) == 1
    assert mean(signs["cosine_other_study"]) == pytest.approx(
        -1 / 5
    )  # of five pairs one is opposite
    alone = collapse_signs(z, torch.arange(4))
    assert alone["cosine_same_study"][1] == 0
