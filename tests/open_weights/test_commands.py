"""Weights of others through the commands: two steps of pretraining, a frozen first part, evaluation."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ray_mae.checkpoint.compatibility import cautions
from ray_mae.checkpoint.format import find_checkpoint, read_state
from ray_mae.cli import run
from ray_mae.encoders.resenc_settings import PRESETS
from ray_mae.inference.load import load_encoder
from ray_mae.open_weights.ours import as_ours
from ray_mae.open_weights.read import read_open
from tests.distributed.test_pretrain import rewind
from tests.open_weights import makers
from tests.shards import write_shards, write_volume_shards

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write_shards(folder, train=48, held_out=40)
    return folder


def words(shards: Path, output: Path, weights: Path, **settings: Any) -> list[str]:
    values = {
        "shards": shards,
        "output": output,
        "weights": weights,
        "optim.batch_size": 4,
        "optim.micro_batch_size": 2,
        "optim.steps": 2,
        "scaling.workers": 2,
        "checkpoint.every": 1,
        "tracking.pictures": 0,
        "tracking.held_out": 0,
    } | settings
    return ["pretrain", *(w for name, value in values.items() for w in (f"--{name}", str(value)))]


def test_a_run_begins_with_weights_of_others_and_goes_on_without_them(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "dinov2", tmp_path / "run"
    makers.hf(source, "dinov2_registers")
    theirs = as_ours(read_open(source, own_size=True))
    command = words(
        studies, output, source, **{"method.gamma": 0, "optim.freeze": 1, "optim.layer_decay": 0.7}
    )
    run(command)
    told = " ".join(capsys.readouterr().out.split())
    assert "begins with" in told
    assert "layer scale folded" in told
    table = json.loads((output / "summary.json").read_text())["begun_with"]
    assert table["family"] == "a DINOv2 with registers of transformers"
    assert read_state(find_checkpoint(output))["begun_with"] == table
    assert not (output / "begun_with" / "model.safetensors").exists()  # it has one of its own

    def frozen_and_trained() -> None:
        weights = load_file(find_checkpoint(output) / "model.safetensors")
        for name in ("cls", "register", "patch.weight", "body.blocks.0.attn.qkv.weight"):
            assert torch.equal(weights[f"encoder.{name}"], theirs.weights[name])
        for name in ("body.blocks.1.attn.qkv.weight", "body.norm.weight"):
            assert not torch.equal(weights[f"encoder.{name}"], theirs.weights[name])

    frozen_and_trained()
    shutil.rmtree(source)
    assert rewind(output) == 1
    run(command)
    assert json.loads((output / "summary.json").read_text())["continued_from_step"] == 1
    assert json.loads((output / "summary.json").read_text())["begun_with"] == table
    frozen_and_trained()
    assert any("began with" in sentence for sentence in cautions(output, studies, "refuse"))
    assert load_encoder(output)[0].settings.registers == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("command", ["evaluate probe", "embed"])
def test_an_encoder_that_cannot_be_pretrained_is_evaluated(
    command: str, studies: Path, tmp_path: Path
) -> None:
    source = tmp_path / "dinov3"
    makers.hf(source, "dinov3", {"size": {"height": 32, "width": 32}, "resample": 3})
    run(
        [
            *command.split(),
            "--checkpoint",
            str(source),
            "--shards",
            str(studies),
            "--output",
            str(tmp_path / "o"),
        ]
    )
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert summary["sees"] == "every view as a whole, squashed to a square"
    if command == "embed":
        assert summary["width"] == makers.WIDTH
        return
    assert {*summary["macro_auroc"]} == {"trained", "random", "pixels"}
    assert "data of its makers" in " ".join(summary["cautions"])


def test_a_fine_tuned_encoder_of_others_predicts_with_its_own_preprocessing(
    studies: Path, tmp_path: Path
) -> None:
    source = tmp_path / "dinov3"
    makers.hf(source, "dinov3", {"size": {"height": 32, "width": 32}, "resample": 3})
    run([
        *("evaluate", "finetune", "--checkpoint", str(source), "--shards", str(studies)),
        *("--output", str(tmp_path / "o"), "--steps", "2", "--seeds", "[0]", "--layer_decay", "0.5"),
        *("--activation_checkpointing", "true"),
    ])  # fmt: skip
    encoder, prepare = load_encoder(tmp_path / "o" / "models" / "trained-seed0")
    assert encoder.settings == load_encoder(source)[0].settings
    assert prepare == load_encoder(source)[1]


def test_volumes_begin_with_a_checkpoint_of_nnssl(tmp_path: Path) -> None:
    shards, source = tmp_path / "shards", tmp_path / "checkpoint_final.pth"
    write_volume_shards(shards, train=8, held_out=4)
    net = makers.nnssl_file(source, PRESETS["tiny"], patch_size=[16, 16, 16], spacing=None)
    output = tmp_path / "run"
    run(words(shards, output, source, **{"method.name": "mdae", "method.block_size": 4}))
    table = json.loads((output / "summary.json").read_text())["begun_with"]
    kernels = [
        name
        for name, w in net.state_dict().items()
        if w.ndim == 5 and not re.search(r"all_modules|decoder\.encoder|seg_layers\.[01]\.", name)
    ]
    assert table["rewritten"] == {"axes turned to x, y, z": len(kernels)}
    assert table["left_out"]["a part that the run has not"] == 4  # heads of deep supervision
    weights = load_file(find_checkpoint(output) / "model.safetensors")
    theirs = read_open(source).weights["stages.0.blocks.0.conv1.conv.weight"]
    ours = weights["encoder.stages.0.blocks.0.conv1.conv.weight"]
    assert 0 < float((ours - theirs).abs().max()) < 0.01
