"""Masks that follow an encoder."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.config import PlanConfig
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.vit import VisionTransformer
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.methods.parts.attention_masks import Guide, cut, guide_flops, pooled
from ray_mae.methods.parts.masking import Masks
from ray_mae.methods.simmim.settings import SimmimSettings
from tests.batches import part, study_batch
from tests.settings import SMALL, build, small
from tests.waits import Waits, on_device

N, SIDE = 400, 6
DRAW = torch.arange(N) * 7919
METHODS = ["mae", "mvmae", "simmim"]


@dataclass
class Planted(TokenEncoder):
    """An encoder of 6 × 6 patches with given attention [L, L] and tokens [L, D]."""

    table: Tensor
    tokens: Tensor
    prefix = 0
    stride = 1

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    @property
    def grid(self) -> tuple[int, ...]:
        return (SIDE, SIDE)

    @property
    def patches(self) -> int:
        return SIDE**2

    @property
    def width(self) -> int:
        return self.tokens.shape[1]

    @property
    def depth(self) -> int:
        return 2

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.tokens.expand(len(x), -1, -1)

    def attention(self, x: Tensor, queries: Tensor, view: Tensor | None = None) -> Tensor:
        return self.table[queries][:, None]


def guide(
    table: Tensor | None = None, tokens: Tensor | None = None, step: int | None = None
) -> Guide:
    table = torch.full((36, 36), 1 / 36) if table is None else table
    tokens = torch.zeros(36, 8) if tokens is None else tokens
    return Guide(Planted(table, tokens), torch.zeros(N, 1, SIDE, SIDE), step=step)


def shares(guide: Guide, ratio: float = 0.75, grid: int = SIDE, **values: Any) -> Tensor:
    """How often each cell is hidden, [grid²]; counts are exact."""
    masks = Masks(SimmimSettings(**values), (grid, grid), ratio, steps=100)
    hidden = masks.hidden(DRAW, guide).flatten(1)
    assert (hidden.sum(1) == grid**2 - masks.visible).all()
    return hidden.float().mean(0)


def uniform(share: Tensor) -> bool:
    p = share.mean()
    return bool((share - p).abs().max() < 4.5 * (p * (1 - p) / N) ** 0.5)


def clusters() -> Tensor:
    """Tokens of which those of a square of 3 × 3 are of another kind than the rest."""
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 16, generator=g)
    kind = torch.zeros(SIDE, SIDE, dtype=torch.long)
    kind[1:4, 2:5] = 1
    return tokens[kind.flatten()] + 0.1 * torch.randn(36, 16, generator=g)


SQUARE = F.pad(torch.ones(3, 3, dtype=torch.bool), (2, 1, 1, 2)).flatten()


def test_sma_hides_what_is_attended_to() -> None:
    table = torch.full((36, 36), 0.1)
    table[:, [3, 17]] = 5.0
    share = shares(guide(table), mask="sma")
    assert (share[[3, 17]] == 1).all()
    rest = share[[n for n in range(36) if n not in (3, 17)]]
    assert uniform(rest)


def test_equal_attention_hides_every_patch_equally_often() -> None:
    assert uniform(shares(guide(), mask="sma"))


def test_sma_begins_with_random_masks_and_ends_with_guided_ones() -> None:
    table = torch.full((36, 36), 0.1)
    table[:, :27] = 1.0  # as many as are hidden
    seen = [shares(guide(table, step=s), mask="sma", mask_warmup=0.5) for s in (0, 20, 35, 50, 90)]
    assert uniform(seen[0])
    favoured = [share[:27].mean().item() for share in seen]
    assert favoured == sorted(favoured)
    assert favoured[1] < favoured[2] < 1
    assert favoured[3:] == [1, 1]
    assert shares(guide(table, step=0), mask="sma", mask_warmup=0)[:27].min() == 1


def test_only_some_patches_are_asked_others_by_each_key() -> None:
    table = torch.eye(36)  # each patch attends to itself: the queries are hidden
    share = shares(guide(table), ratio=0.05, mask="sma", mask_queries=2)
    assert uniform(share)
    assert share.sum() == pytest.approx(2, abs=1e-4)  # 34 of 36 visible: both queries and no other


def test_sgmae_hides_the_cluster() -> None:
    share = shares(guide(tokens=clusters()), mask="sgmae", mask_hints=0)
    assert (share[SQUARE] == 1).all()
    assert uniform(share[~SQUARE])
    few = shares(guide(tokens=clusters()), ratio=0.1, mask="sgmae", mask_hints=0)
    assert (few[~SQUARE] == 0).all()  # the four most like it, whoever they are


def test_sgmae_begins_with_random_masks_and_hints_become_fewer() -> None:
    def at(step: int) -> Tensor:
        tokens = clusters()
        return shares(guide(tokens=tokens, step=step), mask="sgmae", mask_warmup=0.2, mask_hints=0)

    assert uniform(at(0))
    assert torch.equal(at(19), shares(guide(step=0), mask="random"))
    assert uniform(at(20))  # hints only
    rising = [at(step)[SQUARE].mean().item() for step in (20, 40, 70, 100)]
    assert rising == sorted(rising)
    assert rising[-1] == 1
    half = shares(guide(tokens=clusters()), mask="sgmae", mask_hints=0.4)[SQUARE].mean().item()
    assert half == pytest.approx(1 - 0.4 * (1 - 18.6 / 27.6), abs=0.03)


def test_a_cut_does_not_depend_on_where_its_search_begins() -> None:
    f = clusters()
    f = F.normalize(f - f.mean(0), dim=-1).expand(50, -1, -1)
    there = torch.ones(50, 36, dtype=torch.bool)
    start = torch.randn(50, 36, generator=torch.Generator().manual_seed(3))
    found = cut(f, there, start)
    assert (found == found[0]).all()
    assert torch.equal(cut(f, there, -start), found)
    assert torch.equal(found[0], SQUARE) or torch.equal(found[0], ~SQUARE)


def test_nothing_is_cut_out_of_what_is_all_alike_or_not_there() -> None:
    assert uniform(shares(guide(tokens=torch.ones(36, 8)), mask="sgmae"))
    f, there = torch.zeros(2, 36, 16), torch.ones(2, 36, dtype=torch.bool)
    f[0], there[0, 20:] = F.normalize(clusters(), dim=-1), False
    f[0, 20:] = 0
    start = torch.randn(2, 36, generator=torch.Generator().manual_seed(3))
    found = cut(f, there, start)
    assert found[0].any()
    assert not found[0, 20:].any()
    assert not found[1].any()


def test_padding_is_never_in_the_cluster() -> None:
    valid = torch.ones(N, 1, SIDE, SIDE, dtype=torch.bool)
    valid[:, :, 3:] = False  # the last row of the square, too
    masks = Masks(SimmimSettings(mask="sgmae", mask_hints=0), (SIDE, SIDE), 0.3, 100)
    share = masks.hidden(DRAW, replace(guide(tokens=clusters()), valid=valid)).float().mean(0)
    inside = SQUARE.view(SIDE, SIDE)[:3]
    assert (share[:3][inside] == 1).all()
    assert share[3:].max() < 0.4


def test_units_have_the_mean_of_their_patches() -> None:
    values = torch.arange(36.0)[None, :, None]
    expected = values.view(2, 3, 2, 3).mean((1, 3)).flatten()
    assert torch.equal(pooled(values, (6, 6), (2, 2))[0, :, 0], expected)
    volume = torch.randn(2, 64, 3)
    expected = volume.view(2, 2, 2, 2, 2, 2, 2, 3).mean((2, 4, 6)).flatten(1, 3)
    torch.testing.assert_close(pooled(volume, (4, 4, 4), (2, 2, 2)), expected)
    table = torch.full((36, 36), 0.01)
    table[:, 0] = 1.0
    assert shares(guide(table), grid=3, mask="sma")[0] == 1


def encoder(**values: Any) -> VisionTransformer:
    return VisionTransformer(VitSettings(**(SMALL["vit"] | values)))


@pytest.mark.parametrize("registers", [0, 2])
def test_attention_is_that_of_the_first_block(registers: int) -> None:
    vit = encoder(registers=registers)
    x, queries = torch.randn(3, 1, 32, 32), torch.tensor([[0, 5], [3, 3], [15, 1]])
    found = vit.attention(x, queries)
    assert found.shape == (3, 2, 2, 16)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 2, 2))
    block: Any = vit.body.blocks[0]
    kept: list[Tensor] = []
    block.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    vit(x)
    q, k, _ = block.attn.project(block.norm1(kept[0])[:, 1 + registers :])
    whole = (q @ k.transpose(2, 3) / 4).softmax(-1)  # heads of 16
    torch.testing.assert_close(found[0], whole[0][:, [0, 5]])
    torch.testing.assert_close(found[2], whole[2][:, [15, 1]])


def test_tokens_may_leave_after_some_blocks() -> None:
    vit, x = encoder(), torch.randn(2, 1, 32, 32)
    blocks: Any = vit.body.blocks
    assert torch.equal(blocks[1](blocks[0](vit(x, blocks=0))), vit(x, blocks=2))
    assert torch.equal(vit.body.norm(vit(x, blocks=2)), vit(x))


@pytest.mark.parametrize("mask", ["sma", "sgmae"])
@pytest.mark.parametrize("name", METHODS)
def test_choosing_has_no_gradient_and_no_wait_and_minds_no_neighbour(name: str, mask: str) -> None:
    model = build(name, **{**small_values(name), "mask": mask})
    batch = on_device(study_batch([2, 1, 3]))
    model.train()
    with Waits(model, batch) as waits:
        model(batch, 99).total.backward()
    assert waits.found == []
    guided = torch.cat([p.grad.flatten() for p in model.encoder.parameters() if p.grad is not None])

    order = model.masks.order  # type: ignore[operator, union-attr]
    fixed: list[Tensor] = []
    model.masks.order = lambda *args: fixed.append(order(*args)) or fixed[-1]  # type: ignore
    model.zero_grad()
    model(batch, 99).total.backward()
    again = torch.cat([p.grad.flatten() for p in model.encoder.parameters() if p.grad is not None])
    assert torch.equal(guided, again)  # the same mask, given
    assert not fixed[0].requires_grad

    whole, first = fixed.pop(), model(part(batch, [0]), 99)
    assert torch.equal(fixed.pop(), whole[:2])
    losses = model(batch, 99)
    torch.testing.assert_close(first.each, losses.each[:1])  # type: ignore[index]


def small_values(name: str) -> dict[str, Any]:
    """Settings of a tiny run without reports."""
    values: dict[str, Any] = dict(SMALL["vit"])
    return values | (
        {"gamma": 0.0, "beta": 0.0}
        if name == "mvmae"
        else {"mask_size": 16}
        if name == "simmim"
        else {}
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_guided_mask_changes_with_the_weights_and_the_step(name: str) -> None:
    model, batch = build(name, **{**small_values(name), "mask": "sma"}).eval(), study_batch([3] * 4)
    losses = [model(batch, step).total for step in (0, 50)]
    plain = build(name, **small_values(name)).eval()
    assert losses[0] == model(batch, 0).total
    assert losses[1] != losses[0]
    assert plain(batch, 0).total == plain(batch, 50).total


@pytest.mark.parametrize("mask", ["sma", "sgmae"])
def test_what_guiding_costs_is_counted(mask: str) -> None:
    for name in METHODS:
        plain = build(name, **small_values(name))
        guided = build(name, **{**small_values(name), "mask": mask})
        more = guided.flops(5, 2) - plain.flops(5, 2)
        assert more == pytest.approx(5 * guided.masks.flops(guided.encoder))  # type: ignore
        assert more > 0
    vit = VisionTransformer(VitSettings())  # base, of 196 patches
    share = guide_flops(SimmimSettings(mask=mask), vit.grid, vit) / vit.flops(197)
    assert share == pytest.approx(0.02 if mask == "sma" else 0.45, abs=0.01)


@pytest.mark.parametrize("mask", ["sma", "sgmae"])
def test_an_encoder_without_attention_is_refused(mask: Any) -> None:
    for method in (MdaeSettings(mask=mask), SimmimSettings(mask=mask)):
        encoder = ResEncSettings(film=isinstance(method, MdaeSettings))
        with pytest.raises(
            ValueError, match=rf"method\.mask {mask} .* encoder\.name resenc has none: take"
        ):
            PlanConfig(samples=9, method=method, encoder=encoder).check_sizes()


def test_settings_of_a_run_say_the_mask() -> None:
    assert "masks by sgmae" in small("mae", mask="sgmae")["method"].described
    assert "runs of the hilbert curve" in small("mdae", mask="hilbert")["method"].described


def test_attention_of_volumes_is_that_of_the_first_block_with_its_positions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = small("mae primus")["encoder"]
    primus = build_encoder(settings).eval()
    x, queries = torch.randn(2, 1, *[settings.input_size] * 3), torch.tensor([[0, 3], [5, 1]])
    product, kept = F.scaled_dot_product_attention, []

    def watched(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        kept.append((q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(-1))
        return product(q, k, v, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    with torch.no_grad():
        primus(x)
        found = primus.attention(x, queries)  # type: ignore[operator]
    torch.testing.assert_close(found[0], kept[0][0][:, [0, 3]])
    torch.testing.assert_close(found[1], kept[0][1][:, [5, 1]])
