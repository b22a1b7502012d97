"""Encoders of others as ours, to begin a pretraining with: exact, resampled, or refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import nn

from ray_mae.checkpoint.begin import begin, encoder_of
from ray_mae.checkpoint.format import all_weights
from ray_mae.config import PlanConfig, PretrainConfig
from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.resenc_settings import PRESETS, ResEncSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.evaluate.segment.model import Segmenter
from ray_mae.open_weights.fit import fit_to
from ray_mae.open_weights.fold import fold_channels
from ray_mae.open_weights.ours import OurEncoder, as_ours
from ray_mae.open_weights.read import read_open
from ray_mae.open_weights.table import LEFT_OUT, RESAMPLED, fates
from ray_mae.train.checkpointing import begin_with
from ray_mae.transforms.images import normalise
from tests.checkpoints import write_checkpoint
from tests.open_weights import makers
from tests.open_weights.makers import IMAGENET, PATCH, SIZE, WIDTH
from tests.open_weights.test_reading import SOURCES, tensors_of, written
from tests.settings import build_of, small
from tests.shards import write_shards

GREY = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
CLOSE = {"atol": 1e-4, "rtol": 0.0}
REFUSED = {
    "transformers: dinov2_swiglu": "a gated MLP (SwiGLU)",
    "transformers: dinov3": "rotary positions (RoPE)",
    "transformers: dinov3_gated": "rotary positions (RoPE) and a gated MLP (SwiGLU)",
    "transformers: siglip": "another activation than the exact GELU and no class token",
}


def network(ours: OurEncoder) -> Any:
    encoder = build_encoder(ours.settings)
    encoder.load_state_dict(ours.weights)
    return encoder.eval()


@pytest.mark.parametrize("source", [name for name in SOURCES if name not in REFUSED])
@torch.inference_mode()
def test_tokens_are_the_makers_and_every_tensor_has_a_fate(source: str, tmp_path: Path) -> None:
    path, features = written(tmp_path, source)
    found = read_open(path, own_size=True)
    ours = as_ours(found)
    for view in (None, torch.tensor([0, 1])):  # a view is new, and nothing at first
        tokens = network(ours)(normalise(GREY), view=view)
        torch.testing.assert_close(tokens, features(GREY), **CLOSE)
    every = fates(found, ours)
    assert {*every} == tensors_of(path)
    assert not any(fate == RESAMPLED for fate, _ in every.values())
    assert {n for n, (fate, _) in every.items() if fate == LEFT_OUT} == {*found.left_out}
    assert ours.fresh == ["view"]


@pytest.mark.parametrize("source", REFUSED)
def test_what_ours_has_not_is_refused_by_name_and_can_be_evaluated(
    source: str, tmp_path: Path
) -> None:
    path, _ = written(tmp_path, source)
    with pytest.raises(ValueError) as error:
        encoder_of(path, None)
    assert f"{path} has {REFUSED[source]}, which the encoder vit of ray-mae has not" in str(
        error.value
    )
    assert f"ray-mae evaluate probe --checkpoint {path}" in str(error.value)


def test_three_channels_with_imagenets_statistics_are_one_of_grey_exactly() -> None:
    conv = makers.perturbed(nn.Conv2d(3, 8, PATCH, stride=PATCH)).double()
    kernel, bias = fold_channels(conv.weight.data, conv.bias.data, *IMAGENET)
    grey = GREY.double()
    theirs = conv(makers.normalised(grey)).flatten(2).transpose(1, 2)
    patches = nn.functional.unfold(normalise(grey), PATCH, stride=PATCH).transpose(1, 2)
    assert (
        float((patches @ kernel.double().T + bias - theirs.detach()).abs().max()) < 2e-6
    )  # float32 kernels


def test_another_size_of_image_or_patch_is_resampled_as_timm_does(tmp_path: Path) -> None:
    makers.timm_folder(tmp_path, "grey")
    found = read_open(tmp_path, own_size=True)
    ours = as_ours(found)
    larger = fit_to(ours, replace(ours.settings, image_size=48), tmp_path)
    table = found.weights["body.pos_embed"]
    expected = resample_abs_pos_embed(table, new_size=[6, 6], num_prefix_tokens=1)[0, 1:]
    torch.testing.assert_close(larger.weights["position"], expected)
    assert larger.resampled == {"position": "from 4 × 4 to 6 × 6 patches (bicubic, antialiased)"}
    assert network(larger)(torch.zeros(1, 1, 48, 48)).shape == (1, 37, WIDTH)

    finer = fit_to(ours, replace(ours.settings, patch_size=4), tmp_path)
    kernel = resample_patch_embed(ours.weights["patch.weight"].view(WIDTH, 1, PATCH, PATCH), [4, 4])
    torch.testing.assert_close(finer.weights["patch.weight"], kernel.flatten(1))
    assert {*finer.resampled} == {"patch.weight", "position"}
    assert fates(found, finer)["patch_embed.proj.weight"] == (
        RESAMPLED,
        "from patches of 8 to 4 px",
    )
    assert fates(found, finer)["pos_embed"][0] == RESAMPLED


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"width": 128},
            "width 64, depth 2, heads 2, mlp_ratio 4: set encoder.preset tiny, encoder.width 64",
        ),
        (
            {"depth": 3},
            "set encoder.preset tiny, encoder.width 64, encoder.depth 2, encoder.heads 2",
        ),
        ({"heads": 4}, "or leave them out"),
        ({"mlp_ratio": 2.0}, "mlp_ratio 4"),
        ({"qk_norm": True}, "was made without qk_norm: set encoder.qk_norm false"),
        ({"registers": 4}, "has no registers: set encoder.registers 0"),
        (
            {"positions": "sincos"},
            "has a learned table of positions: set encoder.positions learned",
        ),
    ],
)
def test_settings_of_another_network_are_refused_with_those_that_would_do(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    makers.timm_folder(tmp_path / "w", "plain")
    config = PretrainConfig(
        method={"name": "mvmae", "gamma": 0.0},
        encoder=settings,
        weights=tmp_path / "w",
        shards="s",
        output=tmp_path / "run",
    )  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        begin(tmp_path / "w", config.encoder, tmp_path / "run", list)


def test_a_run_takes_the_shape_of_its_weights_but_for_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "w"
    makers.timm_folder(path, "registers")
    config = PlanConfig(method="mvmae", weights=path, samples=10)  # type: ignore[arg-type]
    vit = config.encoder
    assert isinstance(vit, VitSettings)
    assert (vit.shape.width, vit.shape.depth, vit.shape.heads, vit.registers) == (WIDTH, 2, 2, 4)
    assert (vit.image_size, vit.patch_size, vit.qk_norm, vit.positions) == (
        SIZE,
        PATCH,
        False,
        "learned",
    )
    said = PlanConfig(method="mvmae", encoder={"image_size": 64}, weights=path, samples=10)  # type: ignore[arg-type]
    assert said.encoder == replace(vit, image_size=64)
    whole = replace(said, encoder=VitSettings(preset="small"))
    assert whole.encoder == VitSettings(preset="small")  # settings as a whole are what they say


def test_a_run_cannot_freeze_more_layers_than_its_encoder_has(tmp_path: Path) -> None:
    makers.timm_folder(tmp_path, "plain")

    def run(freeze: int) -> PlanConfig:
        return PlanConfig(
            method={"name": "mvmae", "gamma": 0.0},  # type: ignore[arg-type]
            weights=tmp_path,
            samples=10,
            optim={"freeze": freeze},  # type: ignore[arg-type]
        )

    run(2).check_sizes()
    with pytest.raises(ValueError, match=r"optim\.freeze \(3\) must be at most 2"):
        run(3).check_sizes()


def test_plan_shows_what_would_be_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ray_mae.train.forecast.command import plan

    makers.timm_folder(tmp_path, "dinov2")
    plan(
        PlanConfig(
            method={"name": "mvmae", "gamma": 0.0},  # type: ignore[arg-type]
            weights=tmp_path,
            samples=100,
            optim={"batch_size": 8, "micro_batch_size": 4},  # type: ignore[arg-type]
        )
    )
    told = " ".join(capsys.readouterr().out.split())
    assert "layer scale folded: 12" in told
    assert "licence apache-2.0" in told


def test_the_command_line_and_its_yaml_take_the_shape_too(tmp_path: Path) -> None:
    from ray_mae.cli import parsed

    path = tmp_path / "w"
    makers.timm_folder(path, "plain")
    (tmp_path / "run.yaml").write_text(
        f"method: {{name: mvmae, gamma: 0}}\nencoder: {{image_size: 64}}\nweights: {path}\n"
    )
    common = ["--shards", "s", "--output", str(tmp_path / "o")]
    for words in (
        ["--weights", str(path), "--encoder.image_size", "64"],
        ["--config", str(tmp_path / "run.yaml")],
        [f"--weights={path}", "--encoder.image_size=64", "--encoder.name", "vit"],
    ):
        _, config = parsed(["pretrain", *common, *words])
        assert config.encoder.image_size == 64
        assert config.encoder.shape.width == WIDTH
        assert not config.encoder.qk_norm
    _, search = parsed(
        ["tune", *common, "--run.weights", str(path), "--space", '{"seed": {"grid": [0, 1]}}']
    )
    assert search.run.encoder.shape.width == WIDTH


def begun(tmp_path: Path, path: Path, wanted: EncoderSettings) -> tuple[Any, dict[str, Any], str]:
    """The method that workers begin with, the table, and their sentence."""
    run = small("mvmae", gamma=0.0) | {"encoder": wanted}
    method = build_of(run)
    beginning = begin(path, wanted, tmp_path / "run", lambda: list(method.state_dict()))
    return method, beginning.table, begin_with(method, beginning.weights)


@torch.inference_mode()
def test_workers_begin_with_what_lies_in_the_runs_folder(tmp_path: Path) -> None:
    path = tmp_path / "mae.pth"
    features = makers.mae_file(path)
    wanted = encoder_of(path, None)
    assert wanted is not None
    method, table, told = begun(tmp_path, path, wanted)
    tokens = method.encoder.eval()(normalise(GREY))
    torch.testing.assert_close(tokens, features(GREY), **CLOSE)
    assert "taken" in told
    assert "are new" in told
    assert table["tensors"] == len(tensors_of(path))
    assert table["left_out"] == {
        "the decoder of its pretraining": 4,
        "the mask token of its pretraining": 1,
    }
    assert table["licence"] == "unknown"
    assert len(table["sha256"]) == 64
    assert table["largest_difference_of_tokens"] < 1e-4
    path.unlink()  # a start that came to no checkpoint begins again without the source
    again = begin(path, wanted, tmp_path / "run", list)
    assert again.table == table
    assert encoder_of(path, tmp_path / "run") == wanted


def test_own_weights_of_another_size_are_resampled_and_of_another_shape_refused(
    tmp_path: Path,
) -> None:
    shards = tmp_path / "s"
    write_shards(shards, train=2, held_out=2)
    own = write_checkpoint(tmp_path / "own", shards, "mvmae", positions="learned", gamma=0.0)
    wanted = encoder_of(own, None)
    assert isinstance(wanted, VitSettings)
    assert wanted.image_size == 32
    same = begin(own, wanted, tmp_path / "a", list)
    assert same.weights == own
    assert "read" not in same.table
    assert not (tmp_path / "a").exists()
    labelled = write_checkpoint(
        tmp_path / "labelled", shards, "mvmae", positions="learned", gamma=0.0, repeat_below=0.5
    )
    assert begin(labelled, wanted, tmp_path / "c", list).table["read"] == ["labels"]
    larger = replace(wanted, image_size=64)
    method, table, _ = begun(tmp_path, own, larger)
    assert table["resampled"] == {"position": "from 4 × 4 to 8 × 8 patches (bicubic, antialiased)"}
    kept = all_weights(own)["encoder.body.blocks.0.attn.qkv.weight"]
    assert torch.equal(method.encoder.body.blocks[0].attn.qkv.weight.data, torch.from_numpy(kept))
    with pytest.raises(ValueError, match=r"was made with width 32, depth 2, heads 2"):
        begin(own, replace(wanted, depth=4), tmp_path / "b", list)
    fixed = write_checkpoint(tmp_path / "fixed", shards, "mvmae", gamma=0.0)
    settings = encoder_of(fixed, None)
    assert isinstance(settings, VitSettings)
    method, table, _ = begun(tmp_path / "c", fixed, replace(settings, image_size=64))
    assert table["resampled"] == {}  # sines and cosines of the new grid
    assert method.encoder.position.shape == (64, 32)


# ------------------------------------------------------------------------------------------- volumes

TINY = PRESETS["tiny"]


def test_features_of_a_residual_encoder_are_the_makers_of_turned_volumes(tmp_path: Path) -> None:
    from ray_mae.inference.load import load_encoder

    net = makers.nnssl_file(tmp_path / "checkpoint_final.pth", TINY)
    volume = torch.randn(1, 1, 24, 16, 32, generator=torch.Generator().manual_seed(0))  # z, y, x
    with torch.inference_mode():
        theirs = net.encoder(volume)[-1].mean((2, 3, 4))
    for path in (tmp_path, tmp_path / "checkpoint_final.pth"):
        encoder, preprocessing = load_encoder(path)
        with torch.inference_mode():
            ours = encoder(volume.permute(0, 1, 4, 3, 2))
        torch.testing.assert_close(ours, theirs, **CLOSE)
        assert preprocessing.spacing_mm == 1.0
        assert preprocessing.crop_size == 32


def test_every_tensor_of_a_volumes_checkpoint_has_a_fate_and_the_decoder_is_taken(
    tmp_path: Path,
) -> None:
    file = tmp_path / "checkpoint_final.pth"
    net = makers.nnssl_file(file, TINY)
    run = small("mdae")
    wanted = replace(run["encoder"], film=True)
    method = build_of(run | {"encoder": wanted})
    beginning = begin(file, wanted, tmp_path / "run", lambda: list(method.state_dict()))
    begin_with(method, beginning.weights)
    volume = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        e = method.encoder.embed(torch.zeros(1))
        ours = method.decoder.eval()(method.encoder.eval().skips(volume, e), e)
        theirs = net(volume.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(ours, theirs, **CLOSE)  # FiLM is the identity at first
    table = beginning.table
    total = table["taken"] + sum(
        sum(table[name].values()) for name in ("rewritten", "resampled", "left_out")
    )
    assert total == table["tensors"] == len(net.state_dict())
    assert table["fresh"] == ["film.", "time."]


@pytest.mark.parametrize("decoder", [False, True])
def test_a_segmenter_begins_with_the_makers_encoder_and_decoder(
    decoder: bool, tmp_path: Path
) -> None:
    net = makers.nnssl_file(tmp_path / "checkpoint_final.pth", TINY)
    theirs = net.state_dict()
    model = Segmenter(read_open(tmp_path).settings, [0, 1, 2])  # type: ignore[arg-type]
    model.initialise_from(tmp_path, decoder=decoder)
    ours = model.state_dict()
    for name, taken in (
        ("encoder.stages.1.blocks.0.conv1.conv.weight", True),
        ("decoder.stages.0.convs.0.conv.weight", decoder),
    ):
        same = torch.equal(ours[name], theirs[name].permute(0, 1, 4, 3, 2))
        assert same == taken


@pytest.mark.parametrize(("method", "film"), [("mdae", True), ("simmim", False)])
def test_weights_that_know_no_film_leave_it_to_the_method(
    method: str, film: bool, tmp_path: Path
) -> None:
    makers.nnssl_file(tmp_path / "checkpoint_final.pth", TINY)
    config = PlanConfig(method=method, weights=tmp_path, samples=10)  # type: ignore[arg-type]
    assert config.encoder == ResEncSettings(preset="tiny", crop_size=32, film=film)


def test_where_names_of_one_weight_differ_the_trained_one_counts(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    net = makers.nnssl_file(file, TINY)
    content = torch.load(file, weights_only=True)
    stem = "encoder.stem.convs.0.conv.weight"
    content["network_weights"] = {n: w.clone() for n, w in content["network_weights"].items()}
    content["network_weights"][stem] = torch.zeros_like(content["network_weights"][stem])
    torch.save(content, file)
    found = read_open(file)
    torch.testing.assert_close(
        found.weights["stem.convs.0.conv.weight"],
        net.state_dict()[stem].permute(0, 1, 4, 3, 2),
    )
    assert found.left_out[stem].startswith("stale")
    assert "all_modules are taken" in found.notes[0]
    assert {*fates(found, None)} == {*content["network_weights"]}


def test_other_volume_networks_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    primus = {"network_weights": {"eva.blocks.0.norm1.weight": torch.ones(3)}}
    torch.save(primus, file)
    with pytest.raises(ValueError, match="holds a Primus with parts missing"):
        read_open(tmp_path)
    other = replace(TINY, features=(8, 16, 32, 48))
    makers.nnssl_file(file, other)
    with pytest.raises(
        ValueError, match=r"stages of \[8, 16, 32, 48\] channels.*ray-mae knows tiny"
    ):
        read_open(tmp_path)
    torch.save({"network_weights": {"encoder.conv.weight": torch.ones(3)}}, file)
    with pytest.raises(ValueError, match="holds no residual encoder"):
        read_open(tmp_path)
    makers.nnssl_file(file, TINY)
    content = torch.load(file, weights_only=True)
    strides = content["nnssl_adaptation_plan"]["architecture_plans"]["arch_kwargs"]["strides"]
    strides[1] = [1, 2, 2]
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"strides \[1, 0, 2, 2\]"):
        read_open(tmp_path)


def test_film_that_a_run_has_not_is_folded_into_the_norms(tmp_path: Path) -> None:
    shards = tmp_path / "s"
    write_shards(shards, train=2, held_out=2)
    own = write_checkpoint(tmp_path / "own", shards, "mdae", film=True)
    wanted = encoder_of(own, None)
    before = build_encoder(wanted)
    with torch.no_grad():
        for p in before.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    from safetensors.torch import save_file

    weights = {f"encoder.{n}": w.clone() for n, w in before.state_dict().items()}
    save_file(weights, own / "model.safetensors")
    plain = replace(wanted, film=False)
    beginning = begin(own, plain, tmp_path / "run", list)
    after = build_encoder(plain)
    after.load_state_dict(
        {
            n.removeprefix("encoder."): torch.from_numpy(w)
            for n, w in all_weights(beginning.weights).items()
        }
    )
    volume = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(after(volume), before(volume), **CLOSE)
    assert beginning.table["rewritten"] == ["FiLM at noise level 0 folded into the norms"]


def test_a_file_of_settings_of_an_encoder_of_images_is_no_encoder_of_volumes(
    tmp_path: Path,
) -> None:
    makers.timm_folder(tmp_path / "w", "plain")
    with pytest.raises(ValueError, match=r"encoder\.name vit does not fit method\.name mdae"):
        PretrainConfig(
            method="mdae",
            weights=tmp_path / "w",
            shards="s",
            output="o",  # type: ignore[arg-type]
        ).check_sizes()
    assert json.loads((tmp_path / "w" / "config.json").read_text())["architecture"]
