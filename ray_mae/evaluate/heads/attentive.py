"""An attentive probe: each label asks the tokens of all views of a sample by a query of its own.

All settings are trained in one pass over the batches, to the last step; validation chooses among them.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_mae.config.suite import Heads
from ray_mae.data.schema import VIEWS
from ray_mae.evaluate.heads.base import Data, FloatArray, HeadFit, Tokens, Trial
from ray_mae.evaluate.heads.choice import (
    aurocs,
    best,
    mean_absolute_errors,
    mean_known,
    one_class,
    prevalence_logits,
)

BATCH = 64
EPOCHS = 20
"""Passes over the training samples, where these are more than `attentive_steps`."""
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; then it falls as a cosine does."""
HEAD_WIDTH = 64


class AttentiveProbe(nn.Module):
    """LayerNorm, a query for each of L outputs, one cross-attention, LayerNorm, a linear layer for each.

    The keys' projection is applied to the queries and the values' to what attention has averaged, which gives
    the same: there are fewer of these than tokens. A bias of the keys would change nothing.

    Args:
        width: D of the tokens.
        outputs: L
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        most = max(1, width // HEAD_WIDTH)
        self.heads = max(h for h in range(1, most + 1) if width % h == 0)
        self.norm = nn.LayerNorm(width)
        self.view = nn.Parameter(torch.randn(len(VIEWS), width) * 0.02)
        self.query = nn.Parameter(torch.randn(outputs, width) * 0.02)
        self.to_query, self.to_key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.to_value, self.project = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.randn(outputs, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, tokens: Tensor, view: Tensor) -> Tensor:
        """Returns [B, L] of tokens [B, V, T, D] and view [B, V], index of VIEWS, −1 where there is none."""
        (L, D), h = self.query.shape, self.heads
        x = self.norm(tokens) + self.view[view.clamp(min=0)][:, :, None]
        x = x.flatten(1, 2)  # [B, N, D]
        absent = (view < 0).repeat_interleave(tokens.shape[2], dim=1)  # [B, N]
        query = self.to_query(self.query).view(L, h, D // h)
        query = torch.einsum("lhd,hdD->lhD", query, self.to_key.weight.view(h, D // h, D))
        score = x @ query.flatten(0, 1).T * (D // h) ** -0.5  # [B, N, L·h]
        share = score.masked_fill(absent[:, :, None], -torch.inf).softmax(dim=1)
        found = (share.mT @ x).view(-1, L, h, D)
        value = torch.einsum("blhD,hdD->blhd", found, self.to_value.weight.view(h, D // h, D))
        value = self.project(value.flatten(2) + self.to_value.bias)  # [B, L, D]
        return (self.norm_out(value) * self.weight).sum(-1) + self.bias


def fit(train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
    """See `base.Head`. Labels are fitted by cross-entropy, numbers by L1 of what has deviation 1.

    Raises:
        ValueError: where the data have no tokens.
    """
    numbers = train.kind == "number"
    constant = np.zeros(len(labels), bool) if numbers else one_class(train.targets)
    centre, unit = _scale(train.targets) if numbers else _no_scale(len(labels))
    target = (train.targets - centre) / unit
    target[:, constant] = np.nan
    device = "cuda" if torch.cuda.is_available() else "cpu"
    width = _tokens(train).values.shape[-1]
    grid = [(lr, decay) for lr in settings.lr for decay in settings.weight_decay]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = AttentiveProbe(width, len(labels))
        if not numbers:
            first.bias.data = torch.from_numpy(prevalence_logits(train.targets)).float()
        probes = [AttentiveProbe(width, len(labels)).to(device) for _ in grid]
    for probe in probes:  # all begin as one
        probe.load_state_dict(first.state_dict())
    steps = max(settings.attentive_steps, EPOCHS * -(-len(train) // BATCH))
    seen = _train(probes, grid, _Sequences(train), target, numbers, steps, seed, device)
    trials, scores = [], []
    for probe, (lr, decay) in zip(probes, grid, strict=True):
        said = (_said(probe, val, device) * unit + centre)[:, :, None]
        if numbers:
            score = -mean_known(mean_absolute_errors(val.targets, said))[0]
        else:
            score = mean_known(aurocs(val.targets, said)[~constant])[0]
        scores.append(score)
        trials.append(Trial({"lr": lr, "weight_decay": decay}, float(score)))
    taken = best(np.array(scores)) or 0
    state = {name: t.cpu().numpy() for name, t in probes[taken].state_dict().items()}
    chosen_lr = grid[taken][0]
    return HeadFit(
        chosen=dict(trials[taken].settings),
        arrays={**state, "centre": centre, "unit": unit, "constant": constant},
        trials=trials,
        at_edge=["lr"]
        if len(settings.lr) > 1 and chosen_lr in (min(settings.lr), max(settings.lr))
        else [],
        constant=[labels[i] for i in np.flatnonzero(constant)],
        converged=bool(all(np.isfinite(values).all() for values in state.values())),
        parameters=sum(p.numel() for p in first.parameters()),
        samples_seen=seen * len(grid),
    )


def predict(
    chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
) -> NDArray[np.float32]:
    """See `base.Head`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    probe = AttentiveProbe(arrays["query"].shape[1], arrays["query"].shape[0])
    probe.load_state_dict({name: torch.from_numpy(arrays[name]) for name in probe.state_dict()})
    said = _said(probe.to(device), data, device)
    said[:, arrays["constant"]] = arrays["bias"][arrays["constant"]]
    return (said * arrays["unit"] + arrays["centre"]).astype(np.float32)


class _Sequences:
    """The views of each sample, side by side."""

    def __init__(self, data: Data) -> None:
        self.tokens = _tokens(data)
        count = np.bincount(self.tokens.sample, minlength=len(data))
        if not count.all():
            raise ValueError(f"{int((count == 0).sum())} samples have no view with tokens")
        self.rows = np.argsort(self.tokens.sample, kind="stable")  # of tokens, by sample
        self.first, self.count = np.cumsum(count) - count, count

    def batch(self, samples: NDArray[np.intp], device: str) -> tuple[Tensor, Tensor]:
        """Tokens [B, V, T, D] float32 and views [B, V] of samples [B], −1 where there is none."""
        place = np.arange(self.count[samples].max())
        there = place < self.count[samples, None]  # [B, V]
        rows = self.rows[np.where(there, self.first[samples, None] + place, 0)]
        view = np.where(there, self.tokens.view[rows], -1)
        values = torch.from_numpy(self.tokens.values[rows]).to(device)
        return values.float(), torch.from_numpy(view).to(device)


def _train(
    probes: list[AttentiveProbe],
    grid: list[tuple[float, float]],
    sequences: _Sequences,
    target: FloatArray,
    numbers: bool,
    steps: int,
    seed: int,
    device: str,
) -> int:
    """Trains all probes on the same batches; returns how many samples each has seen."""
    optimisers = [
        torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=decay)
        for probe, (lr, decay) in zip(probes, grid, strict=True)
    ]
    known = torch.from_numpy(~np.isnan(target)).to(device)
    y = torch.from_numpy(np.nan_to_num(target)).float().to(device)
    warm_up, seen = max(1, round(WARM_UP * steps)), 0
    for step, rows in enumerate(islice(_batches(len(target), seed), steps)):
        tokens, view = sequences.batch(rows, device)
        share = min((step + 1) / warm_up, 1.0)
        if step >= warm_up:
            share = 0.5 * (1 + np.cos(np.pi * (step - warm_up) / max(1, steps - warm_up)))
        for probe, optimiser, (lr, _) in zip(probes, optimisers, grid, strict=True):
            optimiser.param_groups[0]["lr"] = share * lr
            out = probe(tokens, view)
            if numbers:
                loss = (out - y[rows]).abs()
            else:
                loss = F.binary_cross_entropy_with_logits(out, y[rows], reduction="none")
            mean = (loss * known[rows]).sum() / known[rows].sum().clamp(min=1)
            optimiser.zero_grad()
            mean.backward()
            optimiser.step()
        seen += len(rows)
    return seen


def _batches(n: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Rows of n, in another order each time, for ever."""
    draw = np.random.default_rng(seed)
    while True:
        order = draw.permutation(n)
        for start in range(0, n, BATCH):
            yield order[start : start + BATCH]


def _said(probe: AttentiveProbe, data: Data, device: str) -> NDArray[np.float64]:
    """Outputs [m, L] in the unit of training."""
    if not len(data):
        return np.zeros((0, len(probe.query)))
    sequences = _Sequences(data)
    parts = np.array_split(np.arange(len(data)), -(-len(data) // BATCH))
    probe.eval()
    with torch.inference_mode():
        found = [probe(*sequences.batch(rows, device)).cpu().numpy() for rows in parts]
    return np.concatenate(found).astype(np.float64)


def _tokens(data: Data) -> Tokens:
    if data.tokens is None:
        raise ValueError("an attentive probe looks at tokens, and there are none")
    return data.tokens


def _scale(targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation [L] of targets [n, L]."""
    deviation = np.nanstd(targets, axis=0)
    return np.nanmean(targets, axis=0), np.where(deviation > 0, deviation, 1)


def _no_scale(outputs: int) -> tuple[FloatArray, FloatArray]:
    return np.zeros(outputs), np.ones(outputs)
