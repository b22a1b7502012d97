"""Shards that are stored otherwise than those of a pretraining are refused or told, by every reader."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_mae.checkpoint.compatibility import cautions, require_compatible
from ray_mae.checkpoint.format import encoder_facts, write_exported
from ray_mae.config import (
    EmbedConfig,
    ExportConfig,
    FinetuneConfig,
    PlanConfig,
    PretrainConfig,
    ProbeConfig,
    SegmentConfig,
    TuneConfig,
)
from ray_mae.config.pretrain import RunConfig
from ray_mae.data.shard_set import ShardSet
from ray_mae.data.stored_form import join_forms
from ray_mae.evaluate.embed import embed
from ray_mae.evaluate.finetune.command import evaluate_finetune
from ray_mae.evaluate.probe.command import evaluate_probe
from ray_mae.evaluate.segment.command import evaluate_segment
from ray_mae.exports.command import export
from ray_mae.search.tune import tune
from ray_mae.train.forecast.command import plan
from ray_mae.train.pretrain import pretrain
from tests.checkpoints import write_checkpoint
from tests.settings import small
from tests.shards import write_shards, write_volume_shards

VOLUMES = {
    "normalisation": "z-scores over the foreground",
    "orientation": "RAS",
    "contrasts": {"train": {"T1w": 20, "T2w": 4}, "val": {"T1w": 8}},
}
STUDIES = {
    "normalisation": "grey values of 8 bit",
    "image_size": 256,
    "encoding": "png",
    "views": {"train": {"frontal": 20, "unknown": 3}, "val": {"frontal": 8}},
}


def volumes(folder: Path, spacing_mm: float | None = 2.0, **form: Any) -> Path:
    manifest = write_volume_shards(folder, train=8, held_out=4)
    replace(manifest, spacing_mm=spacing_mm, form=VOLUMES | form).write(folder)
    return folder


def studies(folder: Path, **form: Any) -> Path:
    manifest = write_shards(folder, train=8, held_out=4)
    replace(manifest, form=STUDIES | form).write(folder)
    return folder


@pytest.fixture(scope="module")
def of_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    return write_checkpoint(folder / "checkpoint", volumes(folder / "shards"), "mdae")


@pytest.fixture(scope="module")
def of_studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    values = {"image_size": 224, "patch_size": 16, "depth": 1}
    return write_checkpoint(folder / "checkpoint", studies(folder / "shards"), "mvmae", **values)


def told(checkpoint: Path, shards: Path) -> list[str]:
    return require_compatible(checkpoint, ShardSet.read(shards), "tell")


def is_refused(checkpoint: Path, shards: Path) -> bool:
    said = ""
    try:
        require_compatible(checkpoint, ShardSet.read(shards), "refuse")
    except ValueError as error:
        said = str(error)
    assert not said or (str(checkpoint) in said and "--mismatch tell" in said)
    return bool(said)


@pytest.mark.parametrize(
    ("stored", "refused", "text"),
    [
        ({}, False, None),
        ({"spacing_mm": 2.03}, False, None),
        ({"spacing_mm": 1.0}, True, "pretrained on volumes of 2 mm, these are stored at 1 mm: ingest them "
         "with --volumes.spacing_mm 2."),
        ({"spacing_mm": None}, False, "on volumes of 2 mm, these are of their own spacing."),
        ({"orientation": "LPS"}, True, "The orientation of the pretraining was 'RAS', here it is 'LPS'."),
        ({"normalisation": "0 to 1"}, True, "normalisation of the pretraining"),
        ({"contrasts": {"val": {"T1w": 2, "FLAIR": 3}, "test": {"FLAIR": 5}}}, False,
         "Contrasts that the pretraining never saw: FLAIR (8 of 10 volumes); it saw T1w, T2w."),
        ({"contrasts": {"test": {"T1w": 2, "unknown": 3}}}, False, None),
    ],
)  # fmt: skip
def test_volumes_are_compared_with_those_of_the_pretraining(
    of_volumes: Path, tmp_path: Path, stored: dict, refused: bool, text: str | None
) -> None:
    shards = volumes(tmp_path / "other", **stored)
    assert is_refused(of_volumes, shards) == refused
    sentences = told(of_volumes, shards)
    assert len(sentences) == (text is not None)
    assert text is None or text in sentences[0]


@pytest.mark.parametrize(
    ("stored", "refused", "text"),
    [
        ({}, False, None),
        ({"image_size": 512}, False, "256 px, these with 512 px: ingest them with --image_size 256"),
        ({"image_size": 240}, False, "256 px, these with 240 px:"),
        ({"image_size": 64}, True, "64 px, of which the encoder, which sees 224 px, has to invent the rest"),
        ({"encoding": "jpeg"}, False, "stored as png, these as jpeg"),
        ({"encoding": "zstd"}, False, None),  # exact, too
        ({"normalisation": "16 bit"}, True, "The normalisation"),
        ({"views": {"train": {"lateral": 5, "frontal": 5}}}, False,
         "Views that the pretraining never saw: lateral (5 of 10 images); it saw frontal, unknown."),
    ],
)  # fmt: skip
def test_studies_are_compared_with_those_of_the_pretraining(
    of_studies: Path, tmp_path: Path, stored: dict, refused: bool, text: str | None
) -> None:
    shards = studies(tmp_path / "other", **stored)
    assert is_refused(of_studies, shards) == refused
    sentences = told(of_studies, shards)
    assert len(sentences) == (text is not None)
    assert text is None or text in sentences[0]


def test_what_earlier_versions_did_not_write_down_is_not_compared(
    of_volumes: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "earlier"
    write_volume_shards(shards, train=8, held_out=4)  # no form, of 4 mm
    assert (
        told(write_checkpoint(tmp_path / "c", shards, "mdae"), volumes(tmp_path / "now", 4.0)) == []
    )
    (sentence,) = told(of_volumes, shards)  # the spacing is known of both
    assert "2 mm" in sentence


def test_an_exported_encoder_remembers_how_its_samples_were_stored(
    of_volumes: Path, tmp_path: Path
) -> None:
    export(ExportConfig(checkpoint=of_volumes, output=tmp_path / "encoder", format="monai"))
    assert encoder_facts(tmp_path / "encoder") == encoder_facts(of_volumes)
    assert is_refused(tmp_path / "encoder", volumes(tmp_path / "other", 1.0))
    own = volumes(tmp_path / "own", None)
    facts = encoder_facts(write_checkpoint(tmp_path / "c", own, "mdae"))
    write_exported(tmp_path / "c", facts)
    (sentence,) = told(tmp_path / "c", volumes(tmp_path / "two", 2.0))
    assert sentence.endswith("on volumes of their own spacing, these are of 2 mm.")


Command = Callable[[Path, Path, Path], Any]
COMMANDS: dict[str, Command] = {
    "probe": lambda c, s, o: evaluate_probe(ProbeConfig(checkpoint=c, shards=s, output=o)),
    "finetune": lambda c, s, o: evaluate_finetune(FinetuneConfig(checkpoint=c, shards=s, output=o)),
    "segment": lambda c, s, o: evaluate_segment(SegmentConfig(checkpoint=c, shards=s, output=o)),
    "embed": lambda c, s, o: embed(EmbedConfig(checkpoint=c, shards=s, output=o)),
    "pretrain": lambda c, s, o: pretrain(
        PretrainConfig(shards=s, output=o, weights=c, **_fitting())
    ),
    "plan": lambda c, s, o: plan(PlanConfig(shards=s, weights=c, **_fitting())),
    "tune": lambda c, s, o: tune(
        TuneConfig(
            shards=s,
            output=o,
            run=RunConfig(weights=c, **_fitting()),
            space={"seed": {"grid": [0, 1]}},
        )
    ),
}


def _fitting() -> dict[str, Any]:
    run = small("mdae")
    return run | {
        "optim": replace(run["method"].default_optim(run["encoder"]), batch_size=4, steps=2)
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_reader_refuses_another_spacing_before_it_starts(
    command: str, of_volumes: Path, tmp_path: Path
) -> None:
    shards = volumes(tmp_path / "shards", 1.0)
    with pytest.raises(ValueError, match=r"2 mm, these are stored at 1 mm.*--mismatch tell"):
        COMMANDS[command](of_volumes, shards, tmp_path / "out")


def test_several_folders_are_of_the_form_that_all_of_them_have(tmp_path: Path) -> None:
    other = VOLUMES | {"orientation": "LPS", "contrasts": {"train": {"T1w": 1, "SWI": 2}}}
    assert join_forms([VOLUMES, other]) == {
        "normalisation": VOLUMES["normalisation"],
        "contrasts": {"train": {"T1w": 21, "T2w": 4, "SWI": 2}, "val": {"T1w": 8}},
    }
    assert join_forms([VOLUMES, {}]) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_what_is_told_is_in_the_terminal_and_the_summary(
    of_volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = volumes(tmp_path / "shards", 1.0, contrasts={"train": {"SWI": 8}})
    config = EmbedConfig(checkpoint=of_volumes, shards=shards, output=tmp_path, mismatch="tell")
    embed(config)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["cautions"]) == 2
    printed = capsys.readouterr().out
    assert all(f"warning: {caution}" in printed for caution in summary["cautions"])


def test_an_exported_encoder_knows_the_shards_that_it_was_trained_on(
    of_volumes: Path, tmp_path: Path
) -> None:
    """Their splits kept test patients apart; of all others that cannot be told."""
    export(ExportConfig(checkpoint=of_volumes, output=tmp_path / "encoder"))
    config = json.loads((of_volumes / "state.json").read_text())["config"]
    assert cautions(tmp_path / "encoder", Path(config["shards"]), "refuse") == []
    (sentence,) = cautions(
        tmp_path / "encoder", volumes(tmp_path / "other", 2.0, note="others"), "tell"
    )
    assert "on other shards than these" in sentence
    described = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    del described["trained_on"]  # as 0.1 wrote it
    (tmp_path / "encoder" / "encoder.json").write_text(json.dumps(described))
    (sentence,) = cautions(tmp_path / "encoder", Path(config["shards"]), "refuse")
    assert "on shards that it does not name" in sentence
    (tmp_path / "encoder" / "encoder.json").write_text(
        json.dumps(described | {"read": ["reports", "labels"]})
    )
    first, _ = cautions(tmp_path / "encoder", Path(config["shards"]), "refuse")
    assert "read labels of its training patients: where a head is fitted to few" in first
