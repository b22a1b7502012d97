"""Small study batches for tests."""

from dataclasses import replace

import torch

from ray_mae.batch import StudyBatch
from ray_mae.methods.mvmae.model import Mvmae
from tests.settings import build

VOCABULARY = 40
LABELS = 3


def study_batch(views: list[int], seed: int = 0, canvas: int = 40) -> StudyBatch:
    """A random batch; views: how many views each study has."""
    g = torch.Generator().manual_seed(seed)
    S, N = len(views), sum(views)

    def keys(n: int) -> torch.Tensor:
        return torch.randint(-(2**62), 2**62, (n,), generator=g)

    tokens = torch.randint(5, VOCABULARY, (S, 12), generator=g)
    tokens[:, 0], tokens[:, -1] = 2, 3
    batch = StudyBatch(
        images=torch.randint(0, 256, (N, 1, canvas, canvas), generator=g, dtype=torch.uint8),
        side=torch.full((N,), canvas),
        study=torch.arange(S).repeat_interleave(torch.tensor(views)),
        view=torch.randint(0, 3, (N,), generator=g),
        key=keys(S),
        draw=keys(S),
        view_draw=keys(N),
        tokens=tokens,
        has_report=torch.ones(S, dtype=torch.bool),
    )
    return replace(batch, **targets(S, g))


def targets(samples: int, g: torch.Generator) -> dict[str, torch.Tensor]:
    """Random labels, of which some are not known, as fields of a batch."""
    target = torch.randint(0, 2, (samples, LABELS), generator=g).float()
    weight = torch.randint(0, 4, (samples, LABELS), generator=g).float()
    return {"target": target, "target_weight": weight}


def part(batch: StudyBatch, studies: list[int]) -> StudyBatch:
    """Some of the batch's studies, renumbered from 0."""
    rows = torch.cat([(batch.study == s).nonzero()[:, 0] for s in studies])
    of_study = torch.tensor(studies)
    tokens = batch.tokens[of_study]
    return replace(
        batch,
        images=batch.images[rows],
        side=batch.side[rows],
        study=torch.searchsorted(of_study, batch.study[rows]),
        view=batch.view[rows],
        view_draw=batch.view_draw[rows],
        key=batch.key[of_study],
        draw=batch.draw[of_study],
        tokens=tokens[:, : int((tokens != 0).sum(1).max())],  # as a packing would
        has_report=batch.has_report[of_study],
        target=None if batch.target is None else batch.target[of_study],
        target_weight=None if batch.target_weight is None else batch.target_weight[of_study],
        study_weight=None if batch.study_weight is None else batch.study_weight[of_study],
    )


def method(seed: int = 0, max_tokens: int = 16, **settings: object) -> Mvmae:
    """A tiny method whose β is at its final value at step 100."""
    small: dict = {
        "preset": "tiny",
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "depth": 2,
        "heads": 2,
        "decoder_width": 32,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "mask_ratio": 0.5,
        "caption_depth": 1,
        "caption_heads": 2,
    }
    values = small | settings
    model = build("mvmae", seed=seed, vocabulary=VOCABULARY, max_tokens=max_tokens, **values)
    assert isinstance(model, Mvmae)
    return model


def gradients(model: Mvmae, batch: StudyBatch, step: int = 100) -> torch.Tensor:
    """All gradients of the loss in one vector; a parameter without one counts as 0."""
    model.zero_grad()
    model(batch, step).total.backward()
    return torch.cat(
        [
            (p.grad if p.grad is not None else torch.zeros_like(p)).flatten()
            for p in model.parameters()
        ]
    )
