"""Uniformity and SIGReg: the values that their papers imply, and what a weight does in a method."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.spread import sigreg, uniformity
from ray_mae.methods.registry import METHODS
from tests.batches import VOCABULARY, study_batch
from tests.settings import build_of, small

NAMES = ["mae", "mvmae", "simmim"]
TERMS = ["uniformity", "sigreg", "koleo"]


def inputs_of(vectors: int, views: list[int] | None = None) -> Inputs:
    """Of samples with one input each, or with so many."""
    sample = None if views is None else torch.arange(len(views)).repeat_interleave(_t(views))
    samples = vectors if views is None else len(views)
    x = torch.zeros(vectors, 1, 1, 1)
    key = torch.arange(samples) + 7
    return Inputs(x, torch.arange(vectors), key, sample=sample, most=max(views or [1]))


def _t(values: list[int]) -> Tensor:
    return torch.tensor(values)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniformity_of(z: Tensor, views: list[int] | None = None) -> float:
    return uniformity(z, inputs_of(len(z), views)).item()


def test_uniformity_is_1_of_equal_vectors_and_as_small_as_can_be_of_orthonormal_ones() -> None:
    z = normals(1, 12).expand(8, -1)
    assert uniformity_of(z) == pytest.approx(1)
    assert uniformity_of(torch.eye(12)) == pytest.approx(1 / 12)


def test_uniformity_of_random_directions_is_that_of_theory() -> None:
    M, D = 512, 32
    assert uniformity_of(normals(M, D)) == pytest.approx(1 / M + (1 - 1 / M) / D, rel=0.03)


def test_uniformity_does_not_depend_on_lengths() -> None:
    z = normals(10, 6).requires_grad_()
    loss = uniformity(z, inputs_of(10))
    (slope,) = torch.autograd.grad(loss, z)
    assert uniformity_of(z.detach() * torch.rand(10, 1).add(0.5)) == pytest.approx(loss.item())
    assert slope.norm() > 1e-3
    assert ((slope * z).sum(1)).abs().max() < 1e-7  # a step along a vector changes nothing


def test_uniformity_is_the_mean_over_all_pairs_but_those_of_one_study() -> None:
    """Against the sum over pairs itself, values and gradients."""
    views = [2, 1, 3, 1]
    z = normals(sum(views), 5).requires_grad_()
    inputs = inputs_of(len(z), views)
    n = torch.nn.functional.normalize(z, dim=-1)
    assert inputs.sample is not None
    same = inputs.sample[:, None] == inputs.sample[None, :]
    counted = ~same | torch.eye(len(z), dtype=torch.bool)
    pairs = ((n @ n.T).square() * counted).sum() / len(z) ** 2
    fast = uniformity(z, inputs)
    torch.testing.assert_close(fast, pairs, atol=1e-6, rtol=1e-6)
    a, b = (torch.autograd.grad(loss, z)[0] for loss in (fast, pairs))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("samples", [128, 1024])
def test_sigreg_knows_a_standard_normal_distribution(samples: int) -> None:
    """The statistic does not grow with the number of samples (analytic: 1.053)."""
    values = [
        sigreg(normals(samples, 64, seed=s), inputs_of(samples), s, 64).item() for s in range(8)
    ]
    assert sum(values) / 8 == pytest.approx(1.053, rel=0.1)


def test_sigreg_grows_with_the_samples_where_the_distribution_is_another() -> None:
    B = 256
    inputs = inputs_of(B)
    line = normals(B, 1) * torch.eye(64)[:1] * 1.0
    assert sigreg(torch.zeros(B, 64), inputs, 0).item() / B == pytest.approx(0.402, abs=2e-3)
    assert sigreg(2 * normals(B, 64), inputs, 0).item() / B == pytest.approx(0.23, rel=0.1)
    assert sigreg(line * 8, inputs, 0).item() / B > 0.1


def test_sigreg_looks_in_other_directions_at_each_step_and_turns_with_the_vectors() -> None:
    z = normals(64, 8).cumsum(1)
    inputs = inputs_of(64)
    assert sigreg(z, inputs, 3).item() == sigreg(z, inputs, 3).item()
    assert sigreg(z, inputs, 3).item() != sigreg(z, inputs, 4).item()
    turn = torch.linalg.qr(normals(8, 8, seed=1)).Q
    one, other = (
        torch.stack([sigreg(v, inputs, s) for s in range(20)]).mean() for v in (z, z @ turn)
    )
    torch.testing.assert_close(one, other, rtol=0.03, atol=0)


def test_a_study_counts_once_in_sigreg_however_many_views_it_has() -> None:
    z = normals(4, 6)
    views = [3, 1, 1, 2]
    again = z.repeat_interleave(_t(views), dim=0)
    one, other = sigreg(z, inputs_of(4), 0), sigreg(again, inputs_of(7, views), 0)
    torch.testing.assert_close(one, other)


def test_sigreg_keeps_apart_what_an_invariance_alone_makes_equal() -> None:
    """Pairs of vectors are pulled to their mean; with the test they keep a deviation of about 1 (LeJEPA)."""

    def trained(weight: float) -> Tensor:
        net = torch.nn.Linear(8, 4)
        torch.nn.init.normal_(net.weight, std=0.5, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(net.parameters(), 0.03)
        x = normals(128, 8)
        noisy = [x + 0.3 * normals(128, 8, seed=s) for s in (1, 2)]
        for step in range(120):
            z = torch.stack([net(v) for v in noisy])  # [2, B, d]
            invariance = (z - z.mean(0)).square().mean()
            tests = (
                [sigreg(one, inputs_of(128), step, 16) for one in z] if weight else [z.sum() * 0]
            )
            loss = (1 - weight) * invariance + weight * torch.stack(tests).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net(x).std(0).detach()

    assert trained(0.0).max() < 0.3
    kept = trained(0.2)
    assert kept.min() > 0.8
    assert kept.max() < 1.2


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_of_0_changes_nothing_and_costs_nothing(name: str) -> None:
    batch = study_batch([2, 1, 3, 2])
    plain, weighed = (
        build_of(small(name, **values), vocabulary=VOCABULARY)
        for values in ({}, dict.fromkeys(TERMS, 0.01))
    )
    assert not METHODS[name]().coupled  # type: ignore[call-arg]
    assert weighed.settings.coupled
    assert dict(plain.state_dict()).keys() == dict(weighed.state_dict()).keys()
    a, b = plain(batch, 100), weighed(batch, 100)
    assert not a.ratios.keys() & set(TERMS)
    assert set(TERMS) <= b.ratios.keys()
    extra = sum(0.01 * b.ratios[t][0] / b.ratios[t][1] for t in TERMS)
    torch.testing.assert_close(b.total, a.total + extra)
    torch.testing.assert_close(b.each.mean(), b.total.detach())
    assert all(term in weighed.settings.described for term in TERMS)
    assert not any(term in plain.settings.described for term in TERMS)


def test_the_vector_is_the_mean_of_what_the_encoder_gives_normed_once() -> None:
    """U-MAE's code passes CLS through the last norm a second time."""
    model: Any = build_of(small("mae", uniformity=0.01))
    batch = study_batch([2, 1, 3, 2])
    inputs = model.reader(batch)
    found = model.decode(inputs)
    assert torch.equal(found.tokens, model.encoder(inputs.x, found.visible, inputs.view))
    total, count = model(batch, 0).ratios["uniformity"]
    torch.testing.assert_close(total / count, uniformity(found.tokens[:, 1:].mean(1), inputs))


@pytest.mark.parametrize("term", TERMS)
def test_the_gradient_of_a_term_is_its_weight_times_that_of_the_term(term: str) -> None:
    """U-MAE's code divides its weight by the number of GPUs; here it is what is set."""
    batch = study_batch([2, 1, 3, 2])

    def slope(weight: float) -> Tensor:
        model = build_of(small("mae", **{term: weight}))
        model(batch, 100).total.backward()
        return torch.cat([p.grad.flatten() for p in model.encoder.parameters()])

    none, one, ten = (slope(w) for w in (0.0, 0.1, 1.0))
    assert (ten - none).norm() > 1e-4
    assert (10 * (one - none) - (ten - none)).norm() < 1e-3 * (ten - none).norm()
