"""One global batch gives one gradient, on one, two or four workers."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.batches import gradients, method, part, study_batch

FORMS = ("mse", "cosine", "infonce", "vicreg")
VIEWS = [2, 1, 3, 2, 1, 2, 1, 3]  # of the eight studies: uneven over workers


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    batch = study_batch(VIEWS)
    batch.has_report[:3] = False  # one worker of four has no report at all
    for world in (4, 2):
        if rank >= world:
            continue
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world
        )
        share = len(VIEWS) // world
        mine = part(batch, list(range(rank * share, (rank + 1) * share)))
        for form in FORMS:
            gradient = gradients(method(alignment=form, beta=20.0), mine)
            dist.all_reduce(gradient)
            if rank == 0:
                torch.save(gradient / world, f"{folder}/{form}-{world}.pt")
        dist.destroy_process_group()
    if rank == 0:
        for form in FORMS:
            gradient = gradients(method(alignment=form, beta=20.0), batch)
            torch.save(gradient, f"{folder}/{form}-1.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["OMP_NUM_THREADS"] = "1"
    where = tmp_path_factory.mktemp("gradients")
    mp.spawn(_worker, (str(where),), nprocs=4)
    return where


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("world", [2, 4])
def test_the_gradient_does_not_depend_on_the_number_of_workers(
    folder: Path, form: str, world: int
) -> None:
    one = torch.load(folder / f"{form}-1.pt")
    many = torch.load(folder / f"{form}-{world}.pt")
    assert one.norm() > 0.1
    assert (one - many).norm() / one.norm() < 1e-5
