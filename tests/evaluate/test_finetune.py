"""`evaluate finetune`: what is learnt, what decides, what may be seen, what is left."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from ray_mae import cli
from ray_mae.checkpoint.format import ENCODER
from ray_mae.config import FinetuneConfig
from ray_mae.data.decoding.voxels import encode_voxels
from ray_mae.data.kinds import KINDS
from ray_mae.data.labels import CHEXPERT_LABELS, NEGATIVE, POSITIVE, UNCERTAIN
from ray_mae.data.loading.order import Order, key_of
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.finetune.classifier import Classifier, LayerDecay, bce, load_classifier
from ray_mae.evaluate.finetune.command import prepare_labels
from ray_mae.evaluate.finetune.training import classifier_of, finetune
from ray_mae.evaluate.samples import Samples
from ray_mae.evaluate.supervised.runs import HISTORY, Run, runs_of
from ray_mae.inference.load import load_encoder
from ray_mae.train.optim import scaled_groups
from tests.checkpoints import write_checkpoint
from tests.shards import rewrite, write_shards, write_volume_shards
from tests.volume_batches import PLAIN

EDEMA = CHEXPERT_LABELS.index("Edema")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes lie when there is Edema and stand when there is none; other labels are chance."""
    folder = tmp_path_factory.mktemp("studies")
    write_shards(folder, train=48, held_out=24)
    rewrite(folder, with_stripes)
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    write_volume_shards(folder, train=24, held_out=16)
    rewrite(folder, with_layers)
    return folder


@pytest.fixture(scope="module")
def study_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("checkpoint"), "mvmae")


@pytest.fixture(scope="module")
def volume_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("checkpoint"), "mdae", **PLAIN)


def checkpoint_of(folder: Path, method: str, **values: Any) -> Path:
    """Weights of no training on other shards, kept as those of one."""
    Manifest("study", "generated", 1, []).write(folder)
    return write_checkpoint(folder, folder, method, **values)


def with_stripes(row: dict) -> None:
    number = int(row["study_id"].split("-")[1])
    positive = number % 3 == 0 or number % 7 == 1
    bars = np.zeros((40, 40), np.uint8)
    bars[(np.arange(40) // 4) % 2 == 0] = 200
    file = io.BytesIO()
    Image.fromarray(bars if positive else bars.T).save(file, "PNG")
    for view in row["views"]:
        view["image"] = file.getvalue()
    row["labels"][EDEMA] = POSITIVE if positive else NEGATIVE


def with_layers(row: dict) -> None:
    """Rough volumes have layers along another axis than the others."""
    shape = tuple(row["shape"])
    axis = 0 if dict(row["labels"])["rough"] else 2
    along = np.sin(np.arange(shape[axis]) * 1.5).reshape([-1 if i == axis else 1 for i in range(3)])
    noise = np.random.default_rng(key_of(row["volume_id"]) % 2**32).normal(size=shape)
    row["voxels"] = encode_voxels(along + 0.3 * noise, "float16", 1)


def config_of(checkpoint: Path, shards: Path, output: Path, **settings: Any) -> FinetuneConfig:
    small: dict[str, Any] = {"steps": 30, "batch_size": 8, "lr": 3e-3, "bootstrap": 50}
    return FinetuneConfig(checkpoint=checkpoint, shards=shards, output=output, **(small | settings))


def run_of(config: FinetuneConfig, initialisation: str = "trained") -> Run:
    return next(run for run in runs_of(config) if run.initialisation == initialisation)


@pytest.mark.slow
def test_a_visible_label_of_studies_is_learnt_and_everything_is_left_behind(
    studies: Path,
    study_checkpoint: Path,
    tmp_path: Path,
    local_ray: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.run(
        f"evaluate finetune --checkpoint {study_checkpoint} --shards {studies} --output {tmp_path} "
        "--epochs 8 --batch_size 8 --accumulate 2 --lr 0.003 --seeds [0,3] --bootstrap 50".split()
    )
    printed = capsys.readouterr().out
    assert "trained-seed3: step 24/24" in printed
    assert "macro_auroc" in printed
    found = json.loads((tmp_path / "finetune.json").read_text())
    for start in ("trained", "random"):
        edema = found["starts"][start]["Edema"]["auroc"]
        assert edema["value"] > 0.9, start
        assert edema["low"] is edema["high"] is None  # of two seeds
        assert len(edema["seeds"]) == 2
        assert edema["value"] == pytest.approx(np.mean([s["value"] for s in edema["seeds"]]))
    others = [row for row in found["starts"]["trained"] if row not in ("Edema", "macro")]
    chance = np.mean([found["starts"]["trained"][row]["auroc"]["value"] for row in others])
    assert chance < 0.75

    assert found["budget"]["trained"] == found["budget"]["random"]
    assert found["budget"]["trained"] == {"steps": 24, "samples": 24 * 16, "validations": 8}
    assert all(run["steps"] == 24 and run["batches"] == 48 for run in found["runs"])
    difference = found["differences"]["macro"]["auroc"]["value"]
    values = [found["starts"][s]["macro"]["auroc"]["value"] for s in ("trained", "random")]
    assert difference == pytest.approx(values[0] - values[1])

    rows = list(csv.DictReader((tmp_path / "finetune.csv").open()))
    assert {row["seed"] for row in rows if row["row"] == "Edema"} == {"mean", "0", "3"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["studies"] == {"train": 48, "val": 24, "test": 24}
    assert set(summary["kept_step"]) == {
        f"{s}-seed{n}" for s in ("trained", "random") for n in (0, 3)
    }
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page
    assert "Edema" in page

    said = pq.read_table(tmp_path / "predictions.parquet").to_pandas()
    assert said.columns.tolist() == (
        "study_id patient_id split start seed label probability logit target".split()
    )
    one = said[(said.start == "trained") & (said.seed == 3) & (said.label == "Edema")]
    assert one.split.value_counts().to_dict() == {"val": 24, "test": 24}
    of_test = one[one.split == "test"]
    assert of_test.study_id.is_unique
    seeds = found["starts"]["trained"]["Edema"]["auroc"]["seeds"]
    assert seeds[1]["value"] == pytest.approx(roc_auc_score(of_test.target, of_test.logit))
    np.testing.assert_allclose(expit(of_test.logit), of_test.probability, rtol=1e-6)
    evidence = found["evidence"]["Edema"]  # 24 studies of fewer patients
    assert evidence["positive_patients"] == of_test[of_test.target == 1].patient_id.nunique() < 10
    assert evidence["interval"] == "none"
    assert "Edema" in summary["too_few_to_tell"]
    assert {"slope", "log_loss_tempered"} <= found["starts"]["trained"]["Edema"].keys()

    kept = load_classifier(tmp_path / "models" / "trained-seed0")
    assert "Edema" in kept.labels
    encoder, _ = load_encoder(tmp_path / "models" / "trained-seed0")
    assert torch.equal(encoder.encoder.cls, kept.model.encoder.encoder.cls)
    kept_again = json.loads(
        (tmp_path / "models/trained-seed0" / HISTORY).read_text().splitlines()[0]
    )
    assert kept_again["steps"] == 24


def test_a_visible_label_of_volumes_is_learnt(
    volumes: Path, volume_checkpoint: Path, tmp_path: Path
) -> None:
    config = config_of(
        volume_checkpoint, volumes, tmp_path, steps=20, film_at_finetune="drop", seeds=[0]
    )
    preparation = prepare_labels(config)
    task, counts = preparation.task, preparation.counts
    assert task.labels == ["rough"]
    assert preparation.left_out["age"].endswith("a number, no class")
    assert counts["train"].labels["rough"].positive == 12
    done = finetune(run_of(config), config, task)
    rough = task.targets[task.rows("test"), 0] == 1
    assert done.logits[rough].min() > done.logits[~rough].max()
    kept = load_classifier(tmp_path / "models" / "trained-seed0")
    assert kept.model.encoder.encoder.film is None
    read = Samples(ShardSet.single(task.shards, task.manifest), task.cohort.location, 8, 4)
    kind = KINDS["volume"]
    whole = kind.evaluation_collator(kept.model.encoder.settings.input_size, 0)
    with torch.no_grad():
        again = [
            kept.model(kind.to_batch(arrays)) for arrays, _ in read.each(task.rows("test"), whole)
        ]
    np.testing.assert_allclose(torch.cat(again).numpy(), done.logits, atol=1e-5)


def test_test_labels_decide_nothing(studies: Path, study_checkpoint: Path, tmp_path: Path) -> None:
    config = config_of(study_checkpoint, studies, tmp_path, seeds=[0])
    task = prepare_labels(config).task
    shuffled = task.targets.copy()
    test = task.rows("test")
    shuffled[test] = 1 - shuffled[test]
    first = finetune(run_of(config), config, task)
    second = finetune(run_of(config), config, replace(task, targets=shuffled))
    assert first.fit.history == second.fit.history
    assert first.fit.step == second.fit.step
    np.testing.assert_array_equal(first.logits, second.logits)
    assert (
        first.fit.step
        == max(first.fit.history, key=lambda r: (r["validation_score"], -r["validation_loss"]))[
            "step"
        ]
    )


def test_validation_labels_decide(studies: Path, study_checkpoint: Path, tmp_path: Path) -> None:
    config = config_of(study_checkpoint, studies, tmp_path, seeds=[0])
    task = prepare_labels(config).task
    turned = task.targets.copy()
    turned[task.rows("val")] = 1 - turned[task.rows("val")]
    first = finetune(run_of(config), config, task)
    second = finetune(run_of(config), config, replace(task, targets=turned))
    assert [r["loss"] for r in first.fit.history] == [r["loss"] for r in second.fit.history]
    assert first.fit.step != second.fit.step


def test_the_head_ranks_in_float32_also_where_the_encoder_runs_in_bf16() -> None:
    """In bf16 a thousand samples would share some dozens of logits."""

    class Encoder(torch.nn.Module):
        width = 16

        def embed(self, batch: torch.Tensor, augment: object) -> torch.Tensor:
            return torch.nn.functional.linear(batch, torch.eye(16))

    torch.manual_seed(0)
    model = Classifier(Encoder(), ["one"]).eval()  # type: ignore[arg-type]
    model.head.bias.data.fill_(-4.0)  # a rare label
    x = torch.randn(1000, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.features(x).dtype == torch.bfloat16  # type: ignore[arg-type]
        logits = model(x)  # type: ignore[arg-type]
        in_bf16 = model.head(model.features(x))  # type: ignore[arg-type]
    assert logits.dtype == torch.float32
    assert len(logits.unique()) > 900 > 2 * len(in_bf16.unique())


def test_an_unknown_target_gives_no_gradient_and_a_sample_without_any_no_loss() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    target = torch.tensor([[1.0, torch.nan], [0.0, 1.0], [torch.nan, torch.nan]])
    loss = bce(logits, target)
    np.testing.assert_allclose(loss.detach().numpy(), [np.log(2), np.log(2), 0], atol=1e-6)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.5, 0.0], [0.25, -0.25], [0.0, 0.0]]


def test_uncertain_studies_are_neither_read_nor_counted_where_they_are_ignored(
    study_checkpoint: Path, tmp_path: Path
) -> None:
    write_shards(tmp_path / "shards", train=16, held_out=16)

    def only_edema(row: dict) -> None:
        number = int(row["study_id"].split("-")[1])
        row["labels"] = [UNCERTAIN] * 14
        if number % 4:
            row["labels"][EDEMA] = number % 2

    rewrite(tmp_path / "shards", only_edema)
    settings = {"min_positive": 2, "uncertain": "ignore", "seeds": [0]}
    config = config_of(study_checkpoint, tmp_path / "shards", tmp_path, **settings)
    preparation = prepare_labels(config)
    task, counts = preparation.task, preparation.counts
    assert task.labels == ["Edema"]
    assert len(preparation.left_out) == 13
    assert (counts["train"].labels["Edema"].ignored, len(task.rows("train"))) == (4, 12)
    read = Samples(ShardSet.single(task.shards, task.manifest), task.cohort.location, 6, 8)
    order = Order.of(task.manifest, "train", 0, 8)
    collator = KINDS["study"].supervised_collator(32, 0, config.max_views)
    drawn = read.draw(order, task.rows("train"), collator)
    epochs = [np.concatenate([next(drawn)[1], next(drawn)[1]]) for _ in range(2)]
    for rows in epochs:
        assert sorted(rows) == sorted(task.rows("train"))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_frozen_encoder_keeps_its_weights(
    studies: Path, study_checkpoint: Path, tmp_path: Path
) -> None:
    config = config_of(
        study_checkpoint, studies, tmp_path, steps=3, freeze=True, seeds=[0], weight_decay=0.1
    )
    finetune(run_of(config), config, prepare_labels(config).task)
    before, _ = load_encoder(study_checkpoint)
    after = load_classifier(tmp_path / "models" / "trained-seed0")
    for name, weight in before.encoder.state_dict().items():
        assert torch.equal(weight, after.model.encoder.encoder.state_dict()[name]), name
    assert after.model.head.weight.abs().sum() > 0
    assert (tmp_path / "models" / "trained-seed0" / ENCODER).is_file()


def test_both_initialisations_of_a_seed_have_the_same_head_and_different_encoders(
    volumes: Path, volume_checkpoint: Path, tmp_path: Path
) -> None:
    config = config_of(volume_checkpoint, volumes, tmp_path, seeds=[5])
    trained, fresh = (
        classifier_of(run_of(config, name), config, ["a", "b"]) for name in config.compare
    )
    assert torch.equal(trained.head.weight, fresh.head.weight)
    w = "encoder.encoder.stages.1.blocks.0.conv1.conv.weight"
    assert not torch.equal(trained.state_dict()[w], fresh.state_dict()[w])


def test_the_learning_rate_falls_from_the_head_to_the_input(
    volumes: Path, volume_checkpoint: Path, study_checkpoint: Path, tmp_path: Path
) -> None:
    for checkpoint, last, first in (
        (study_checkpoint, "encoder.encoder.body.norm.weight", "encoder.encoder.patch.weight"),
        (
            volume_checkpoint,
            "encoder.encoder.film.3.project.bias",
            "encoder.encoder.stem.convs.0.conv.weight",
        ),
    ):
        config = config_of(checkpoint, volumes, tmp_path, layer_decay=0.5)
        model = classifier_of(run_of(config), config, ["a"])
        scale = LayerDecay(0.5, model.encoder.encoder)
        depth = scale.encoder.depth
        assert scale("head.weight") == 1.0
        assert scale(first) == 0.5 ** (depth + 1)
        assert scale(last) == (1.0 if "norm" in last else 0.5)
        groups = scaled_groups(model, 0.1, scale)
        counted = sum(p.numel() for group in groups for p in group["params"])
        assert counted == sum(p.numel() for p in model.parameters())
        assert len({group["scale"] for group in groups}) == depth + 2


def test_shards_of_the_other_kind_are_refused(
    studies: Path, volume_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds shards of kind 'study'.* reads 'volume'"):
        prepare_labels(config_of(volume_checkpoint, studies, tmp_path))


def test_settings_that_do_not_fit_are_refused(
    volumes: Path, volume_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"seeds must hold one or more values, each once"):
        config_of(volume_checkpoint, volumes, tmp_path, seeds=[1, 1])
    with pytest.raises(ValueError, match=r"crop_size \(20\) must be a multiple of 8"):
        prepare_labels(config_of(volume_checkpoint, volumes, tmp_path, crop_size=20))
