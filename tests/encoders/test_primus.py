"""Primus: the network of its makers, its tokens in order, and what methods may hide from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures import primus as theirs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ray_mae.batch import VolumeBatch
from ray_mae.config import PlanConfig
from ray_mae.encoders.patches import patchify, unpatchify
from ray_mae.encoders.primus import Primus, UpProjection, coordinates, resample_grid, rotary
from ray_mae.encoders.primus_settings import PrimusSettings
from ray_mae.evaluate.probe.tokens import of_volumes
from ray_mae.inference.load import random_encoder
from ray_mae.methods.mae.tokens import MaeTokens
from ray_mae.methods.simmim.tokens import SimmimTokens
from tests.encoders.primus_values import CLASSES, EVERY, fill, volume
from tests.settings import build_of, small
from tests.volume_batches import volume_batch

GOLDEN = Path(__file__).parent / "primus_s.npz"
"""Of dynamic-network-architectures 0.4.4; primus_values.py says how it is made."""
SMALL = small("mae primus")["encoder"]


def primus(**values: Any) -> Primus:
    """Perturbed, in evaluation mode."""
    network = Primus(replace(SMALL, **values))
    fill(network)
    return network.eval()


def crops(n: int = 2, side: int = 16) -> Tensor:
    return torch.randn(n, 1, side, side, side, generator=torch.Generator().manual_seed(0))


def still_run(name: str, **values: Any) -> Any:
    """A method that changes no crop."""
    plain = {"mirror": False, "rotate_share": 0.0, "scale_share": 0.0}
    return build_of(small(name, **plain, **values)).eval()


# -------------------------------------------------------------------------------------- the network


@torch.no_grad()
def test_it_is_the_network_of_its_makers() -> None:
    class Whole(nn.Module):  # under the names that it has there
        def __init__(self) -> None:
            super().__init__()
            self.down_projection, self.eva = encoder.down_projection, encoder.eva
            self.up_projection = UpProjection(encoder.settings, CLASSES)

    encoder = Primus(PrimusSettings(preset="S", crop_size=32)).eval()
    network, golden = Whole(), np.load(GOLDEN)
    fill(network)
    tokens = encoder(volume())
    torch.testing.assert_close(tokens, torch.from_numpy(golden["tokens"]), rtol=0, atol=1e-5)
    decoded = network.up_projection(tokens)[..., ::EVERY, ::EVERY, ::EVERY]
    torch.testing.assert_close(decoded, torch.from_numpy(golden["decoded"]), rtol=0, atol=1e-5)
    ours = {f"{name} {list(w.shape)}" for name, w in network.state_dict().items()}
    assert {*golden["names"]} - ours == {"mask_token [1, 1, 396]"}  # a buffer of zeros
    assert all(".blocks." in name for name in ours - {*golden["names"]})  # of which one is listed


def test_the_class_that_is_installed_takes_its_weights_without_rotary_positions() -> None:
    encoder = primus()
    shape = encoder.settings.shape
    network = theirs.Primus(
        1, shape.width, (4,) * 3, 2, shape.depth, shape.heads, (16,) * 3,
        use_rot_pos_emb=False, init_values=0.1, scale_attn_inner=True,
    )  # fmt: skip
    missing, unexpected = network.load_state_dict(encoder.state_dict(), strict=False)
    assert unexpected == []
    assert {name.partition(".")[0] for name in missing} == {"up_projection", "mask_token"}


@pytest.mark.parametrize(
    ("preset", "millions"), [("S", 23.4), ("B", 92.2), ("M", 145.6), ("L", 324.3)]
)
def test_sizes_are_the_published_ones(preset: Any, millions: float) -> None:
    with torch.device("meta"):
        settings = PrimusSettings(preset=preset, crop_size=64)
        parts = [Primus(settings), UpProjection(settings, 1)]
    found = sum(p.numel() for part in parts for p in part.parameters())
    assert found / 1e6 == pytest.approx(millions, abs=0.5)  # positions: of the crop


def test_a_plain_vit_has_none_of_its_extras() -> None:
    network = primus(plain=True)
    names = {name.rpartition("blocks.0.")[2] for name in network.state_dict()}
    assert not {"gamma_1", "attn.norm.weight", "mlp.fc1_g.weight", "mlp.norm.weight"} & names
    assert network(crops()).shape == (2, 64, 24)
    assert not torch.allclose(network(crops()), primus()(crops()))


# -------------------------------------------------------------------------------- tokens and their order


def test_tokens_are_in_the_order_of_patches() -> None:
    side = 4
    index = torch.arange(side**3)
    expected = torch.tensor(np.array(np.unravel_index(index.numpy(), (side,) * 3)).T)
    assert torch.equal(coordinates(index, side), expected)
    tokens = primus()(crops())
    mapped = primus().last_map(crops())
    assert torch.equal(mapped[:, :, 1, 2, 3], tokens[:, 1 * 16 + 2 * 4 + 3])


@torch.no_grad()
def test_heads_and_features_see_its_tokens_where_they_lie() -> None:
    frozen = random_encoder(SMALL, seed=0)
    batch = volume_batch(2, 0, 16)
    tokens = frozen.encoder(batch.voxels)
    torch.testing.assert_close(frozen(batch.voxels), tokens.mean(1))
    torch.testing.assert_close(
        of_volumes(frozen, batch), tokens
    )  # 4³ of them, as many as there may be
    coarse = random_encoder(SMALL.resized(32), seed=0)
    large = volume_batch(1, 0, 32)
    found = of_volumes(coarse, large)
    cube = coarse.encoder.last_map(large.voxels)[0, :, :2, 2:4, 4:6]
    torch.testing.assert_close(found[0, 1 * 4 + 2], cube.mean((1, 2, 3)))


def test_rotary_products_depend_on_differences_of_positions() -> None:
    from timm.layers import apply_rot_embed_cat

    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 12, generator=g)
    a, b = torch.tensor([[[[0, 3, 1]]]]), torch.tensor([[[[2, 1, 5]]]])

    def product(shift: int) -> Tensor:
        turned = (apply_rot_embed_cat(x, rotary(p + shift, 12)) for x, p in ((q, a), (k, b)))
        return torch.mul(*turned).sum()

    torch.testing.assert_close(product(7), product(0))
    assert not torch.isclose(
        torch.mul(*(apply_rot_embed_cat(x, rotary(a, 12)) for x in (q, k))).sum(), product(0)
    )


@torch.no_grad()
def test_tokens_of_visible_patches_are_those_of_attention_that_sees_no_other() -> None:
    network, x = primus(), crops(1)
    visible = torch.tensor([[3, 60, 17, 40]])
    eva = network.eva
    tokens = network.down_projection(patchify(x, 4)) + eva.pos_embed
    rope = rotary(coordinates(torch.arange(64), 4), eva.head)
    mask = torch.zeros(64, dtype=torch.bool).index_fill(0, visible[0], True).expand(1, 1, 64, 64)
    for block in eva.blocks:
        tokens = tokens + block.gamma_1 * block.attn(block.norm1(tokens), rope, mask)
        tokens = tokens + block.gamma_2 * block.mlp(block.norm2(tokens))
    expected = eva.norm(tokens)[:, visible[0]]
    torch.testing.assert_close(network(x, visible), expected, rtol=0, atol=1e-5)


def test_it_sees_no_hidden_voxel() -> None:
    network, x = primus(), crops()
    visible = torch.tensor([[0, 63, 21], [9, 2, 33]])
    hidden = torch.ones(2, 64, dtype=torch.bool).scatter(1, visible, False)
    spoilt = unpatchify(patchify(x, 4).masked_fill(hidden[..., None], torch.nan), 4, (4,) * 3)
    assert torch.equal(network(spoilt, visible), network(x, visible))


def test_a_mask_token_stands_in_the_place_of_voxels_and_keeps_the_position() -> None:
    network, x, token = primus(), crops(), torch.randn(24)
    hidden = torch.zeros(2, 64, dtype=torch.bool)
    hidden[:, 5] = True
    spoilt = unpatchify(patchify(x, 4).masked_fill(hidden[..., None], 9.0), 4, (4,) * 3)
    found = network(x, masked=(hidden, token))
    assert torch.equal(network(spoilt, masked=(hidden, token)), found)
    other = hidden.roll(1, dims=1)
    assert not torch.allclose(network(x, masked=(other, token))[:, 6], found[:, 5])


def test_weights_fit_another_size_of_crop_with_positions_between_theirs() -> None:
    network = primus()
    other = Primus(replace(SMALL, crop_size=24)).eval()
    other.load_state_dict(network.state_dict())
    network.resize(network.settings.resized(24))
    assert torch.equal(network(crops(side=24)), other(crops(side=24)))
    line = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(1, 4, 4, 4, 1).flatten(1, 3)
    finer = resample_grid(line, 8).unflatten(1, (8, 8, 8))[0, :, 0, 0, 0]
    torch.testing.assert_close(finer, (torch.arange(8) / 2 - 0.25).clamp(0, 3))
    assert torch.equal(resample_grid(line, 4), line)


# ------------------------------------------------------------------------------------ dropped paths


def test_paths_are_dropped_by_keys_in_training_alone() -> None:
    network, x, draw = primus(drop_path=0.9), crops(8), torch.arange(8)
    network.train()
    plain = network(x)
    dropped = network(x, draw=draw)
    assert not torch.allclose(dropped, plain)
    torch.testing.assert_close(network(x[3:5], draw=draw[3:5]), dropped[3:5])
    assert torch.equal(network.eval()(x, draw=draw), plain)


def test_factors_of_paths_have_a_mean_of_1_and_rise_with_depth() -> None:
    network = primus(drop_path=0.4, depth=3).train()
    kept = network.eva._kept(torch.arange(20_000))
    assert kept is not None
    torch.testing.assert_close(kept.mean(0), torch.ones(3, 2), rtol=0, atol=0.03)
    share = (kept == 0).float().mean(0)
    torch.testing.assert_close(share[:, 0], torch.tensor([0.0, 0.2, 0.4]), rtol=0, atol=0.02)
    assert primus(drop_path=0.0).train().eva._kept(torch.arange(3)) is None


# ------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_size": 18}, r"encoder\.crop_size \(18\) must be a multiple of encoder\.patch_size"),
        ({"crop_size": 16, "patch_size": 16}, "at least twice encoder.patch_size"),
        ({"crop_size": 24, "patch_size": 12}, "must be a power of two"),
        ({"heads": 5}, r"encoder\.width \(24\) must be a multiple of encoder\.heads"),
        ({"heads": 3}, "must be a multiple of 6"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused_by_name(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **values).check()
    if "heads" in values and values["heads"] == 3:
        replace(SMALL, plain=True, **values).check()


def test_units_of_simmim_are_whole_patches() -> None:
    with pytest.raises(ValueError, match=r"method\.mask_size \(6\) must be a multiple of encoder"):
        PlanConfig(samples=9, **small("simmim primus", mask_size=6)).check_sizes()


def test_work_is_that_of_its_products() -> None:
    network = primus()
    with FlopCounterMode(display=False) as counter:
        network(crops(1), torch.arange(20)[None])
    assert network.flops(20) == counter.get_total_flops()


# ------------------------------------------------------------------------------------------- methods


@torch.no_grad()
def test_the_loss_of_mae_sees_hidden_blocks_alone() -> None:
    """In code of others the mask of the loss is transposed, and a quarter of it lies on visible voxels."""
    model: MaeTokens = still_run("mae primus", norm_pix=False, mask_ratio=0.75)
    batch: VolumeBatch = volume_batch(3, 0, 16)
    batch = replace(batch, valid=torch.ones_like(batch.valid))
    _, hidden = model.masks(batch.draw)
    assert hidden.shape == (3, 48)
    shown = torch.zeros(3, 64).scatter(1, hidden, 1.0)[..., None].expand(-1, -1, 64)
    voxels = unpatchify(shown, 4, (4,) * 3)
    nn.init.zeros_(model.decoder.pixels.weight)
    nn.init.zeros_(model.decoder.pixels.bias)
    for scale, expected in ((1.0, 1.0), (3.0, 9.0)):  # of nothing else than hidden voxels
        given = replace(batch, voxels=(scale * voxels).to(batch.voxels.dtype))
        assert model(given, 0).each.tolist() == [expected] * 3  # type: ignore[union-attr]


@torch.no_grad()
def test_simmim_does_not_count_tokens_with_hardly_a_valid_voxel() -> None:
    model: SimmimTokens = still_run("simmim primus", patch_size=8)
    batch: VolumeBatch = volume_batch(1, 0, 16)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    hidden = model.hidden(batch.draw)[0].nonzero()[:, 0]
    voxels = torch.zeros(1, 8, 512)
    voxels[0, hidden[0]], voxels[0, hidden[1:]] = 5.0, 1.0
    for valid_voxels, loss in (
        (5, 1.0),
        (6, (6 * 5 + 512 * (len(hidden) - 1)) / (6 + 512 * (len(hidden) - 1))),
    ):
        valid = torch.ones(1, 8, 512, dtype=torch.bool)
        valid[0, hidden[0], valid_voxels:] = False
        given = replace(
            batch,
            voxels=unpatchify(voxels, 8, (2,) * 3).to(batch.voxels.dtype),
            valid=unpatchify(valid, 8, (2,) * 3),
        )
        assert float(model(given, 0).total) == pytest.approx(loss, rel=1e-5)
