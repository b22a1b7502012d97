"""What training, evaluation and export count on, of every method that can be chosen."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ray_mae import cli, load_encoder
from ray_mae.config import ExportConfig, MethodSettings, PretrainConfig
from ray_mae.data.kinds import KINDS
from ray_mae.encoders.base import Encoder
from ray_mae.exports.command import export
from ray_mae.inference.load import AnyEncoder, random_encoder
from ray_mae.methods.base import Losses, Method
from ray_mae.train.optim import parameter_groups
from tests import batches, volume_batches
from tests.records import write_state
from tests.settings import CASES, build_of, small
from tests.shards import write_shards, write_volume_shards
from tests.waits import Waits, on_device

JOBS = Path(__file__).parents[2] / "jobs"
STEP = 100
"""At which every term of a loss has its weight: the last of the run of `build_of`."""
SAMPLES = 4
HALVES = [0, 1], [2, 3]

pytestmark = pytest.mark.parametrize("name", CASES, scope="module")


def model_of(name: str, seed: int = 0, **more: Any) -> Method:
    return build_of(small(name), seed=seed, vocabulary=batches.VOCABULARY, **more)


def settings_of(name: str) -> MethodSettings:
    return small(name)["method"]


def batch_of(name: str, seed: int = 0) -> Any:
    """Four samples of the method's kind."""
    run = small(name)
    if run["encoder"].kind == "study":
        return batches.study_batch([2, 1, 3, 2], seed)
    return volume_batches.volume_batch(SAMPLES, seed, run["encoder"].input_size)


def some(name: str, batch: Any, samples: list[int]) -> Any:
    take: Any = batches.part if small(name)["encoder"].kind == "study" else volume_batches.some
    return take(batch, samples)


def stirred(model: Method) -> Method:
    """With weights as after some training: layers that begin with zeros have none."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=g))
    return model


def gradients(model: Method, batch: Any) -> Tensor:
    """All gradients of the loss in one vector."""
    model.zero_grad()
    model(batch, STEP).total.backward()
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


def require_close(a: Tensor, b: Tensor) -> None:
    """Rounding in another order; where it puts a value on the other side of a kink, 6e-4 was seen."""
    assert b.norm() > 0
    assert (a - b).norm() < 2e-3 * b.norm()


def require_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_its_settings_say_what_it_is(name: str) -> None:
    run = small(name)
    settings, encoder = run["method"], run["encoder"]
    assert settings.name == name.partition(" ")[0]
    assert set(settings.kinds) <= set(KINDS)
    assert encoder.kind in settings.kinds
    assert settings.losses
    assert all(settings.losses.values())
    assert settings.described
    assert encoder.described


def test_it_is_a_method_with_an_encoder(name: str) -> None:
    run, model = small(name), model_of(name)
    assert isinstance(model, Method)
    assert isinstance(model.encoder, Encoder)
    assert model.encoder.settings == run["encoder"]
    assert "encoder" in dict(model.named_children())
    layers = {model.encoder.layer_of(key) for key, _ in model.encoder.named_parameters()}
    assert layers <= set(range(model.encoder.depth + 2))
    assert set(range(1, model.encoder.depth + 1)) <= layers


def test_the_loss_is_finite_and_its_parts_have_the_names_that_are_shown(name: str) -> None:
    settings, model, batch = settings_of(name), model_of(name), batch_of(name)
    losses = model(batch, STEP, True)
    assert isinstance(losses, Losses)
    assert losses.total.shape == ()
    assert losses.total.dtype == torch.float32
    assert losses.total.isfinite()
    assert losses.parts.keys() <= settings.losses.keys()
    assert settings.losses.keys() <= losses.parts.keys() | losses.ratios.keys()
    for value in losses.parts.values():
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad
    for pair in losses.ratios.values():
        assert pair.shape == (2,)
        assert pair.isfinite().all()
        assert not pair.requires_grad
    metrics = model.metrics(STEP)
    assert set(settings.shown) <= metrics.keys() | losses.ratios.keys()
    names = [*losses.parts, *losses.ratios, *metrics, "loss", "lr"]
    assert len(names) == len(set(names))  # one would write over the other


def test_the_loss_of_a_batch_is_the_mean_of_its_samples(name: str) -> None:
    losses = model_of(name)(batch_of(name), STEP)
    if losses.each is not None:
        assert losses.each.shape == (SAMPLES,)
        assert not losses.each.requires_grad
        torch.testing.assert_close(losses.each.mean(), losses.total.detach())


def test_every_trained_parameter_has_a_gradient(name: str) -> None:
    model = stirred(model_of(name))
    model(batch_of(name), STEP).total.backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert [key for key, p in trained.items() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad is None or p.grad.isfinite().all() for p in trained.values())


def test_the_same_draw_gives_the_same_loss_and_another_one_another(name: str) -> None:
    model, batch = model_of(name), batch_of(name)
    torch.manual_seed(1)
    first = model(batch, STEP).total
    torch.manual_seed(2)
    assert torch.equal(model(batch, STEP).total, first)
    others = {
        f.name: getattr(batch, f.name) + 1
        for f in dataclasses.fields(batch)
        if f.name in ("draw", "view_draw")
    }
    assert not torch.equal(model(dataclasses.replace(batch, **others), STEP).total, first)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(name: str) -> None:
    first = model_of(name, seed=3).state_dict()
    require_same(model_of(name, seed=3).state_dict(), first)
    other = model_of(name, seed=4).state_dict()
    assert any(not torch.equal(other[key], weight) for key, weight in first.items())


def test_a_batch_may_be_split_over_workers(name: str) -> None:
    if settings_of(name).coupled:
        pytest.skip("its samples are coupled: see tests/distributed/test_gradients.py")
    model, batch = stirred(model_of(name)), batch_of(name)
    for shares in (HALVES, ([0], [1, 2, 3])):
        parts = [some(name, batch, samples) for samples in shares]
        weights = torch.tensor([part.samples / SAMPLES for part in parts])
        whole = model(batch, STEP).total
        each = torch.stack([model(part, STEP).total for part in parts])
        torch.testing.assert_close((weights * each).sum(), whole, rtol=1e-4, atol=1e-5)
        vectors = torch.stack([gradients(model, part) for part in parts])
        require_close((weights[:, None] * vectors).sum(0), gradients(model, batch))


def test_a_sample_does_not_depend_on_who_else_is_in_the_batch(name: str) -> None:
    if settings_of(name).coupled:
        pytest.skip("its samples are coupled")
    model, batch = stirred(model_of(name)), batch_of(name)
    losses = model(batch, STEP)
    for samples in HALVES:
        alone = model(some(name, batch, samples), STEP)
        if losses.each is not None and alone.each is not None:
            torch.testing.assert_close(alone.each, losses.each[samples], rtol=1e-4, atol=1e-5)


def test_what_is_saved_goes_on_as_if_nothing_had_happened(name: str) -> None:
    """Also what `after_step` changes, which must be buffers."""
    model, batch = model_of(name), batch_of(name)

    def advance(model: Method, step: int) -> Tensor:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        optimizer.zero_grad()
        loss = model(batch, step).total
        loss.backward()
        optimizer.step()
        before = {key: p.clone() for key, p in model.named_parameters()}
        with torch.no_grad():
            model.after_step(step + 1, torch.tensor(True))
        require_same(dict(model.named_parameters()), before)
        return loss.detach()

    advance(model, STEP)
    saved = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    again = model_of(name, seed=9)
    again.load_state_dict(saved)
    for step in (STEP + 1, STEP + 2):
        assert torch.equal(advance(again, step), advance(model, step))
    require_same(again.state_dict(), model.state_dict())


def test_a_step_that_was_skipped_leaves_no_trace(name: str) -> None:
    """Not even where the forward pass met values that are not finite."""
    model, twin, batch = model_of(name), model_of(name), batch_of(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    bad = {
        f.name: torch.full_like(getattr(batch, f.name), torch.nan)
        for f in dataclasses.fields(batch)
        if f.name == "voxels"
    }
    model(dataclasses.replace(batch, **bad), STEP)
    model.after_step(STEP + 1, torch.tensor(False))
    require_same(model.state_dict(), before)
    for one in (model, twin):
        one(batch, STEP)
        one.after_step(STEP + 1, torch.tensor(True))
    require_same(model.state_dict(), twin.state_dict())


def test_activation_checkpointing_changes_no_gradient(name: str) -> None:
    plain, again, batch = model_of(name), model_of(name, recompute=True), batch_of(name)
    assert any(getattr(part, "recompute", False) for part in again.encoder.modules())
    assert not any(getattr(part, "recompute", False) for part in plain.modules())
    torch.testing.assert_close(gradients(again, batch), gradients(plain, batch))


def test_bf16_weights_give_a_float32_loss_close_to_that_of_float32(name: str) -> None:
    model, batch = model_of(name), batch_of(name)
    exact = model(batch, STEP).total
    rounded = model.bfloat16()(batch, STEP).total
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)


def test_no_step_waits_for_the_device(name: str) -> None:
    """Of a batch as a run has it: what the host knows of it lies beside the device."""
    model, batch = model_of(name), on_device(batch_of(name))
    model.train()
    with Waits(model, batch) as waits:
        model(batch, STEP).total.backward()
    assert waits.found == []


def test_pictures_are_grey_values(name: str) -> None:
    model, batch = model_of(name).eval(), batch_of(name)
    pictures = model.pictures(batch, lambda ids: " ".join(map(str, ids)))
    assert pictures.images
    for image in pictures.images.values():
        assert image.ndim == 2
        assert image.isfinite().all()
        assert 0 <= image.min() < image.max() <= 1
    assert bool(pictures.texts) == settings_of(name).reads_reports
    assert all(isinstance(text, str) for row in pictures.texts for text in row.values())
    assert model.pictures(batch).texts == []


def test_work_is_counted_by_inputs_and_samples(name: str) -> None:
    """The forecast takes both apart."""
    model = model_of(name)
    one = model.flops(images=1, samples=1)
    assert one > 0
    assert model.flops(1, 0) + model.flops(0, 1) == pytest.approx(one)
    assert model.flops(6, 4) == pytest.approx(6 * model.flops(1, 0) + 4 * model.flops(0, 1))


def test_no_table_is_decayed_unnoticed(name: str) -> None:
    """What decays is a matrix or a kernel of a layer; a table of one's own is named as exempt."""
    model = model_of(name)
    decayed = {id(p) for p in parameter_groups(model, 0.1)[0]["params"]}
    layers = (nn.Linear, nn.Bilinear, _ConvNd, nn.MultiheadAttention)
    silent = [
        f"{path}.{key}"
        for path, part in model.named_modules()
        for key, p in part.named_parameters(recurse=False)
        if id(p) in decayed and not isinstance(part, layers)
    ]
    assert silent == []
    for part in (model, model.encoder):
        known = {key for key, _ in (*part.named_parameters(), *part.named_buffers())}
        assert part.no_weight_decay() <= known


def test_it_has_a_job(name: str) -> None:
    run, found = small(name), []
    for job in sorted(JOBS.glob(f"pretrain_{run['method'].name}_*.yaml")):
        _, config = cli.parsed(["pretrain", "--config", str(job), "--shards=s", "--output=o"])
        assert config.method.name == run["method"].name
        config.check_sizes()
        found.append(config.encoder.name)
    assert run["encoder"].name in found


@pytest.fixture(scope="module")
def checkpoint(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Tensor]]:
    """A folder as a worker of a run writes it, and the encoder's weights."""
    folder, run = tmp_path_factory.mktemp(name), small(name)
    write = write_shards if run["encoder"].kind == "study" else write_volume_shards
    write(folder / "shards", train=2, held_out=1)
    config = PretrainConfig(shards=folder / "shards", output=folder, **run)
    model = stirred(model_of(name))
    model.begin()  # a teacher is now something else than at first
    stirred(model)  # and than what it follows
    weights = {key: w.contiguous().clone() for key, w in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    write_state(folder, config, step=1, workers=1)
    return folder, model.get_submodule(run["method"].kept).state_dict()


@torch.no_grad()
def embedding(encoder: AnyEncoder, batch: Any) -> Tensor:
    return encoder.embed(batch)


def test_its_encoder_embeds(name: str, checkpoint: tuple[Path, dict[str, Tensor]]) -> None:
    (folder, weights), batch = checkpoint, batch_of(name)
    encoder, _ = load_encoder(folder)
    assert encoder.settings == small(name)["encoder"]
    require_same(encoder.encoder.state_dict(), weights)
    features = embedding(encoder, batch)
    assert features.shape == (SAMPLES, encoder.width)
    assert features.isfinite().all()
    assert features.unique(dim=0).shape[0] == SAMPLES
    alone = embedding(encoder, some(name, batch, HALVES[1]))
    torch.testing.assert_close(alone, features[HALVES[1]], rtol=1e-3, atol=1e-4)
    untrained = embedding(random_encoder(encoder.settings, seed=0), batch)
    assert untrained.shape == features.shape
    assert not torch.allclose(untrained, features)


def test_its_encoder_is_exported_in_every_format_that_it_has(
    name: str, checkpoint: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    (folder, _), batch = checkpoint, batch_of(name)
    expected = embedding(load_encoder(folder)[0], batch)
    for form in (None, *small(name)["encoder"].exports):
        output = tmp_path / str(form)
        summary = export(ExportConfig(checkpoint=folder, output=output, format=form))
        assert summary["load"]
        assert len(summary["files"]) > 2  # more than what we load ourselves
        torch.testing.assert_close(embedding(load_encoder(output)[0], batch), expected)
