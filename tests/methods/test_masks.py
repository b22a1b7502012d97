"""Masks: exact counts, equal on any split, what each one is."""

from math import prod
from typing import Any, get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.mdae.corruption import Corruption
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.methods.parts.curves import places
from ray_mae.methods.parts.mask_settings import CURVED, GUIDED, MaskSettings
from ray_mae.methods.parts.masking import RANKINGS, Masks, rank, uniform, visible_count
from ray_mae.methods.simmim.settings import SimmimSettings
from tests.batches import VOCABULARY, study_batch
from tests.settings import CASES, SMALL, build, build_of, sections, small
from tests.volume_batches import volume_batch
from tests.waits import Waits

PATTERNS: list[dict[str, Any]] = [
    *({"mask": name} for name in RANKINGS if name not in CURVED),
    *({"mask": name, "mask_pattern": p} for name in CURVED for p in ("runs", "stride")),
    {"mask": "spiral", "mask_pattern": "centre"},
]
DRAW = torch.arange(1000) * 7919 - 100
GRIDS = st.one_of(
    st.tuples(st.integers(1, 15), st.integers(2, 15)),
    st.tuples(st.integers(1, 6), st.integers(2, 6), st.integers(1, 6)),
)

each = pytest.mark.parametrize("values", PATTERNS, ids=lambda v: "-".join(v.values()))


def of(values: dict[str, Any]) -> MaskSettings:
    return SimmimSettings(**values)


def neighbours(hidden: torch.Tensor) -> float:
    """Of pairs of neighbours along the axes [N, *grid], the share in which both are hidden or both seen."""
    same = [hidden.diff(dim=axis).logical_not().flatten() for axis in range(1, hidden.ndim)]
    return torch.cat(same).float().mean().item()


def test_every_name_is_a_ranking() -> None:
    names = get_args(get_type_hints(MaskSettings)["mask"])
    assert {*names} == {*RANKINGS, *GUIDED}


@each
@given(grid=GRIDS, ratio=st.floats(0.01, 0.99), key=st.integers(-(2**62), 2**62))
@settings(max_examples=8, deadline=None)
def test_every_cell_is_hidden_or_visible_and_the_count_is_exact(
    values: dict[str, Any], grid: tuple[int, ...], ratio: float, key: int
) -> None:
    masks = Masks(of(values), grid, ratio)
    visible, hidden = masks(torch.tensor([key, key + 1]))
    assert visible.shape == (2, visible_count(prod(grid), ratio))
    for v, h in zip(visible.tolist(), hidden.tolist(), strict=True):
        assert sorted(v + h) == list(range(prod(grid)))
        assert v == sorted(v)
        assert h == sorted(h)
    cells = masks.hidden(torch.tensor([key, key + 1]))
    assert cells.shape == (2, *grid)
    assert torch.equal(cells.flatten(1).nonzero()[:, 1].view(2, -1), hidden)


@each
def test_a_mask_belongs_to_its_key_not_to_its_place_in_the_batch(values: dict[str, Any]) -> None:
    for grid in ((14, 14), (5, 6, 7)):
        order = rank(of(values), grid, DRAW[:40])
        assert torch.equal(rank(of(values), grid, DRAW[13:20]), order[13:20])
        assert torch.equal(rank(of(values), grid, DRAW[39:40]), order[39:])
        # of strides there are as many as ways to lay the curve, times cells
        assert len({tuple(row.tolist()) for row in order}) >= 34


@each
@pytest.mark.parametrize("grid", [(14, 14), (4, 6, 5)], ids=str)
def test_every_cell_is_hidden_equally_often(values: dict[str, Any], grid: tuple[int, ...]) -> None:
    share = Masks(of(values), grid, 0.75).hidden(DRAW).float().mean(0)
    error = (0.75 * 0.25 / len(DRAW)) ** 0.5
    if "centre" in values.values():  # on purpose not
        middle = share[tuple(slice(n // 2 - 1, n // 2 + 1) for n in grid)]
        assert middle.max() < 0.65
        assert share.max() > 0.85
    elif (
        values["mask"] == "block"
    ):  # a corner is a little less often under a block, not ever as BEiT's
        assert (share - 0.75).abs().max() < 0.07
    else:
        uneven = 0.01 if "stride" in values.values() else 0.0  # gaps are of three lengths
        assert (share - share.mean()).abs().max() < 4.5 * error + uneven


def test_the_default_is_the_mask_of_runs_before() -> None:
    assert SimmimSettings().mask == "random"
    order = torch.tensor(
        [[8, 3, 4, 6, 0, 5, 9, 11, 10, 7, 2, 1], [9, 3, 11, 8, 10, 4, 5, 1, 7, 6, 0, 2]]
    )
    found = rank(SimmimSettings(), (3, 4), torch.tensor([1, 2]))
    assert torch.equal(found, uniform((3, 4), torch.tensor([1, 2])))
    assert torch.equal(found, order)


def test_masks_are_as_coherent_as_they_are_meant_to_be() -> None:
    of_random = 0.25**2 + 0.75**2
    found = {
        "-".join(v.values()): neighbours(Masks(of(v), (14, 14), 0.75).hidden(DRAW[:300]))
        for v in PATTERNS
    }
    assert found["random"] == pytest.approx(of_random, abs=0.01)
    for curve in CURVED:
        assert found[f"{curve}-stride"] < of_random - 0.005  # spread more evenly than chance
    for curve in ("hilbert", "peano", "spiral", "snake"):
        assert found[f"{curve}-runs"] > of_random + 0.05
    assert found["green"] > of_random + 0.05
    assert found["block"] > of_random + 0.15
    assert found["spiral-centre"] > of_random + 0.005


@pytest.mark.parametrize("curve", CURVED)
def test_runs_are_pieces_of_the_curve(curve: str) -> None:
    grid, length = (6, 8), 4
    hidden = Masks(of({"mask": curve, "mask_run": length}), grid, 0.75).hidden(DRAW[:50]).flatten(1)
    for row in hidden:
        whole = []
        for place in places(curve, grid):  # which way the curve is laid is the key's to say
            along = torch.empty_like(row)
            along[torch.from_numpy(place).long()] = row
            starts = (along & ~along.roll(-1)).sum()  # visible pieces, along the closed curve
            whole.append(int(starts))
        assert min(whole) <= 3  # 12 visible in pieces of 4


@pytest.mark.parametrize("grid", [(14, 14), (5, 6, 7)], ids=str)
def test_strides_leave_gaps_of_few_lengths(grid: tuple[int, ...]) -> None:
    found = Masks(of({"mask": "hilbert", "mask_pattern": "stride"}), grid, 0.8).hidden(DRAW[:20])
    for row in found.flatten(1):
        kinds = []
        for place in places("hilbert", grid):
            along = torch.empty_like(row)
            along[torch.from_numpy(place).long()] = row
            kinds.append(len(along.logical_not().nonzero()[:, 0].diff().unique()))
        assert min(kinds) <= 4


def test_blocks_grow_with_the_grid() -> None:
    for side in (14, 28):
        hidden = Masks(of({"mask": "block"}), (side, side), 0.2).hidden(DRAW[:100])
        assert 0.3 < hidden.any(2).float().mean() < 0.7  # a fifth, in one to a few blocks


@each
def test_no_mask_waits_for_the_device(values: dict[str, Any]) -> None:
    draw = DRAW[:4].clone()
    with Waits([draw]) as waits:
        Masks(of(values), (4, 4, 4), 0.75)(draw)
    assert waits.found == []


def test_a_centre_is_for_spirals() -> None:
    settings = SimmimSettings(mask="hilbert", mask_pattern="centre")
    with pytest.raises(
        ValueError, match=r"mask_pattern centre is for method\.mask spiral, not hilbert"
    ):
        settings.check_mask(VitSettings())


@pytest.mark.parametrize("mask", ["block", "hilbert", "green"])
def test_units_and_blocks_of_volumes_are_hidden_by_every_mask(mask: Any) -> None:
    model: Any = build("simmim resenc", **SMALL["resenc"], mask_size=4, mask=mask)
    hidden = model.hidden(DRAW[:20])
    assert (hidden.flatten(1).sum(1) == 39 * 4**3).all()
    cubes = hidden.view(20, 4, 4, 4, 4, 4, 4).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    assert (cubes.all(-1) == cubes.any(-1)).all()
    assert neighbours(cubes.any(-1)) > neighbours(random_cubes(39)) + 0.04

    x = torch.randn(20, 1, 16, 16, 16)
    made = corruption(mask)(x, DRAW[:20])
    blocks = made.hidden[:, 0, ::4, ::4, ::4]
    count = corruption("random")(x, DRAW[:20]).hidden[:, 0, ::4, ::4, ::4].flatten(1).sum(1)
    assert torch.equal(blocks.flatten(1).sum(1), count)  # the share is the sample's, not the mask's
    assert torch.equal(corruption(mask)(x[7:9], DRAW[7:9]).hidden, made.hidden[7:9])
    for p in (0.0, 1.0):
        assert (corruption(mask)(x, DRAW[:20], p=p).hidden == bool(p)).all()


def random_cubes(hidden: int) -> torch.Tensor:
    return Masks(SimmimSettings(), (4, 4, 4), hidden / 64).hidden(DRAW[:20])


def corruption(mask: Any) -> Corruption:
    ratio = (0.2, 0.8)
    return Corruption("ve", 0.0, ratio, "exact", 4, masks=MdaeSettings(mask=mask))


@pytest.mark.parametrize("mask", ["block", "peano"])
def test_what_is_seen_of_a_larger_share_contains_what_is_seen_of_a_smaller_one(mask: str) -> None:
    order = rank(of({"mask": mask}), (8, 8), DRAW[:5])
    few, many = (Masks(of({"mask": mask}), (8, 8), r)(DRAW[:5])[0] for r in (0.9, 0.5))
    assert torch.equal(order[:, : few.shape[1]].sort(1).values, few)
    assert all({*f} < {*m} for f, m in zip(few.tolist(), many.tolist(), strict=True))


HIDING = [name for name in CASES if isinstance(sections(name)["method"], MaskSettings)]


@pytest.mark.parametrize("name", HIDING)
@torch.no_grad()
def test_every_method_that_has_the_setting_goes_by_it(name: str) -> None:
    """A mask that is chosen is never left out silently: it changes the loss, or is refused."""
    run = small(name)
    study = run["encoder"].kind == "study"
    batch: Any = study_batch([3, 3]) if study else volume_batch(2, 0, run["encoder"].input_size)
    plain = build_of(run, vocabulary=VOCABULARY)(batch, 100).total
    assert "block" in small(name, mask="block")["method"].described
    for mask in ("block", "sma"):
        chosen = small(name, mask=mask)
        if mask in GUIDED and not run["encoder"].attends:
            with pytest.raises(ValueError, match=rf"method\.mask {mask} follows the attention"):
                chosen["method"].check(chosen["encoder"], chosen["data"])
            continue
        assert build_of(chosen, vocabulary=VOCABULARY)(batch, 100).total != plain
