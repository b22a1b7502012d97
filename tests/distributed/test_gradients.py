"""One global batch gives one gradient, on one, two or four workers."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.batches import gradients, method, part, study_batch
from tests.settings import build_of, small
from tests.volume_batches import some, volume_batch
from tests.waits import Waits, on_device

FORMS: dict[str, dict] = {
    "mse": {"alignment": "mse"},
    "cosine": {"alignment": "cosine"},
    "infonce": {"alignment": "infonce"},
    "vicreg": {"alignment": "vicreg"},
    "uniformity": {"beta": 0.0, "uniformity": 20.0},
    "sigreg": {"beta": 0.0, "sigreg": 1.0},
    "koleo": {"beta": 0.0, "koleo": 1.0},
    "dino": {"dino": {"koleo": 1.0}},
    "dino by sinkhorn": {"dino": {"koleo": 0.0, "centring": "sinkhorn"}},
    "simclr of views": {"simclr": {"positives": "views"}},
    "simclr of volumes": {"simclr primus": {}},
    "captions of studies": {"caption_memory": "study"},
    "parallel captions": {"caption_parallel_share": 0.5},
}
VIEWS = [2, 1, 3, 2, 1, 2, 1, 3]  # of the eight studies: uneven over workers


def _module(settings: dict) -> Any:
    """A method with some settings: MVMAE's, or those of the method that they name."""
    for name in ("dino", "simclr", "simclr primus"):
        if name in settings:
            return build_of(small(name, **settings[name]))
    return method(**{"beta": 20.0} | settings)


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    batch = study_batch(VIEWS)
    batch.has_report[:3] = False  # one worker of four has no report at all
    for study, length in enumerate(
        [12, 12, 12, 5, 7, 12, 4, 9]
    ):  # of a part the longest may be short
        batch.tokens[study, length - 1] = 3
        batch.tokens[study, length:] = 0
    volumes = volume_batch(len(VIEWS))
    for world in (4, 2):
        if rank >= world:
            continue
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world
        )
        share = len(VIEWS) // world
        samples = list(range(rank * share, (rank + 1) * share))
        studies, crops = on_device(part(batch, samples)), on_device(some(volumes, samples))
        for form, settings in FORMS.items():
            module = _module(settings)
            mine = crops if form.endswith("volumes") else studies
            with Waits(module, mine) as waits:
                module(mine, 100).total.backward()
            Path(f"{folder}/{form}-{world}-{rank}.waits").write_text("\n".join(waits.found))
            gradient = gradients(module, mine)
            dist.all_reduce(gradient)
            if rank == 0:
                torch.save(gradient / world, f"{folder}/{form}-{world}.pt")
            if form == "dino":
                module.zero_grad()  # of two passes: as with accumulation
                module.after_step(1, torch.tensor(True))
                torch.save(module.centre.value, f"{folder}/centre-{world}-{rank}.pt")
        dist.destroy_process_group()
    if rank == 0:
        for form, settings in FORMS.items():
            whole = volumes if form.endswith("volumes") else batch
            gradient = gradients(_module(settings), whole)
            torch.save(gradient, f"{folder}/{form}-1.pt")
        module = _module(FORMS["dino"])
        module(batch, 100)
        module.after_step(1, torch.tensor(True))
        torch.save(module.centre.value, f"{folder}/centre-1.pt")


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


@pytest.mark.parametrize("world", [2, 4])
def test_a_teachers_centre_is_that_of_all_workers_on_each(folder: Path, world: int) -> None:
    one = torch.load(folder / "centre-1.pt")
    each = [torch.load(folder / f"centre-{world}-{rank}.pt") for rank in range(world)]
    assert one.norm() > 0.1
    assert all(torch.equal(centre, each[0]) for centre in each)
    torch.testing.assert_close(each[0], one)


@pytest.mark.parametrize("form", FORMS)
def test_nobody_waits_for_a_device_where_workers_meet(folder: Path, form: str) -> None:
    told = [file.read_text() for file in sorted(folder.glob(f"{form}-*.waits"))]
    assert told == [""] * 6  # of four workers and of two
