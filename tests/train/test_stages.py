"""Pretraining in stages: what each begins with, what is skipped, and what is refused."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ray_mae import cli
from ray_mae.checkpoint.begin import begin
from ray_mae.checkpoint.format import WEIGHTS
from ray_mae.config import PlanStagesConfig, PretrainConfig, StagesConfig
from ray_mae.config.base import to_dict
from ray_mae.config.stages import merged
from ray_mae.data.shard_set import ShardSet
from ray_mae.submit.paths import check_paths, output_of
from ray_mae.summary import write_summary
from ray_mae.train.checkpointing import begin_with
from ray_mae.train.engine import engine_of
from ray_mae.train.forecast.command import plan
from ray_mae.train.metrics.jsonl import append_jsonl
from ray_mae.train.run_folder import METRICS, PROBES
from ray_mae.train.setup import make_plan, method_of, names_of_method
from ray_mae.train.stages import REPORT, pretrain_stages
from tests.records import write_record, write_state
from tests.settings import SMALL
from tests.shards import write_shards

JOBS = Path(__file__).parents[2] / "jobs"
LABELS = {"name": "supervised", "labels": ["Edema", "Fracture"]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


def values_of(shards: Path, output: Path) -> dict[str, Any]:
    """As YAML has them."""
    return {
        "shards": str(shards),
        "output": str(output),
        "encoder": SMALL["vit"],
        "optim": {"batch_size": 4, "micro_batch_size": 2, "steps": 8},
        "scaling": {"workers": 1},
        "stages": [
            {"name": "masked", "method": {"name": "mae", "mask_ratio": 0.5}},
            {"method": LABELS, "optim": {"steps": 4, "lr": 1e-4, "layer_decay": 0.75}},
        ],
    }


def config_of(values: dict[str, Any]) -> StagesConfig:
    shared = {name: value for name, value in values.items() if name != "stages"}
    return StagesConfig(settings=shared, stages=values["stages"])


@pytest.fixture
def config(shards: Path, tmp_path: Path) -> StagesConfig:
    return config_of(values_of(shards, tmp_path / "out"))


def trained(run: PretrainConfig, seed: int = 0, steps: int | None = None) -> dict[str, Any]:
    """Stands for a run that has taken its steps: a checkpoint of other weights, metrics and a summary."""
    run.output.mkdir(parents=True, exist_ok=True)
    numbers = make_plan(run, ShardSet.read(run.folders))
    folder = write_record(run.output, steps or numbers.steps)
    torch.manual_seed(seed)
    state = method_of(run, numbers, None).state_dict()
    save_file({name: w + torch.rand_like(w) for name, w in state.items()}, folder / WEIGHTS)
    write_state(folder, run, step=steps or numbers.steps, workers=1)
    for step, loss in ((1, 3.0), (numbers.steps, 2.5)):
        append_jsonl(run.output / METRICS, {"step": step, "loss": loss, "held_out/loss": loss + 1})
    probe = {"probe_auroc": 0.6, "probe_auroc_low": 0.5, "probe_auroc_high": 0.7}
    append_jsonl(run.output / PROBES, {"step": 4, **probe, "labels": {"Edema": 0.6}})
    read = {"for": [*run.label_uses]}
    summary = {"steps": numbers.steps, "samples": numbers.samples, "checkpoint": str(folder)}
    if run.label_uses:
        summary["labels_read"] = read
    return write_summary(run.output, summary)


def test_a_stage_is_the_settings_with_its_changes(config: StagesConfig) -> None:
    first, second = config.runs
    assert (first.folder, second.folder) == ("stage-1-masked", "stage-2-supervised")
    assert first.run.method.mask_ratio == 0.5
    assert first.run.optim.steps == 8
    assert first.run.weights is None
    assert second.run.method.labels == ["Edema", "Fracture"]
    assert second.run.weights == first.run.output
    assert second.run.optim.batch_size == 4
    assert (second.run.optim.steps, second.run.optim.lr) == (4, 1e-4)
    assert second.run.optim.warmup == 0.05  # the default of its own method
    assert second.run.encoder == first.run.encoder


def test_settings_of_another_method_are_not_mixed_with_those_of_the_first() -> None:
    shared = {"method": {"name": "mae", "mask_ratio": 0.5}, "seed": 1}
    assert merged(shared, {"method": "simmim"})["method"] == {"name": "simmim"}
    assert merged(shared, {"method": {"norm_pix": False}})["method"] == {
        **shared["method"],
        "norm_pix": False,
    }
    assert shared["method"] == {"name": "mae", "mask_ratio": 0.5}


def test_a_stage_begins_with_the_last_weights_of_the_one_before_and_a_fresh_optimiser(
    config: StagesConfig,
) -> None:
    first, second = (stage.run for stage in config.runs)
    trained(first)
    numbers = make_plan(second, ShardSet.read(second.folders))
    method = method_of(second, numbers, None)
    beginning = begin(
        second.weights, second.encoder, second.output, lambda: names_of_method(second, numbers)
    )
    last = load_file(first.output / "checkpoint_8" / WEIGHTS)
    fresh = {n: w.clone() for n, w in method.state_dict().items() if n.startswith("encoder.")}
    assert not any(torch.equal(w, last[name]) for name, w in fresh.items())
    begin_with(method, beginning.weights)
    own = method.state_dict()
    assert [name for name in fresh if not torch.equal(own[name], last[name])] == []
    engine = engine_of(method, second.engine, second.optim, micro_batch_size=2, accumulation=2)
    assert not engine._optimizer.state  # type: ignore[attr-defined]


def test_finished_stages_are_skipped_and_the_report_has_all(config: StagesConfig) -> None:
    made: list[str] = []

    def pretrain(run: PretrainConfig) -> dict[str, Any]:
        made.append(run.output.name)
        if run.method.name == "supervised" and len(made) == 2:
            raise RuntimeError("the power went")
        return trained(run)

    with pytest.raises(RuntimeError, match="the power went"):
        pretrain_stages(config, pretrain)
    assert config.output is not None
    assert "1, masked" in (config.output / REPORT).read_text()
    summary = pretrain_stages(config, pretrain)
    assert made == ["stage-1-masked", "stage-2-supervised", "stage-2-supervised"]
    assert [r["trained_now"] for r in summary["stages"].values()] == [False, True]
    assert summary["checkpoint"].endswith("stage-2-supervised/checkpoint_4")
    assert json.loads((config.output / "summary.json").read_text()) == summary
    record = summary["stages"]["stage-2-supervised"]
    assert record["losses"] == {"loss": [3.0, 2.5]}
    assert record["held_out_losses"] == {"loss": [4.0, 3.5]}
    assert record["probe"]["labels"] == {"Edema": 0.6}
    assert "labels_read" not in summary["stages"]["stage-1-masked"]
    text = (config.output / REPORT).read_text()
    assert "| 1, masked | mae | 8 | 3 → 2.5 | 4 → 3.5 | 0.600 [0.500, 0.700] | not read |" in text
    assert "From stage 2 on the encoder has learnt from labels" in text
    assert (
        "- stage-2-supervised: the loss itself, of Edema, Fracture (method.name supervised)" in text
    )
    assert "| Edema | 0.600 | 0.600 |" in text
    pretrain_stages(config, pretrain)
    assert len(made) == 3


def test_a_stage_may_be_added_at_the_end(
    config: StagesConfig, shards: Path, tmp_path: Path
) -> None:
    pretrain_stages(config, trained)
    values = values_of(shards, tmp_path / "out")
    more = {"method": {"name": "simmim", "mask_size": 16}, "optim": {"steps": 2}}
    values["stages"].append(more)
    summary = pretrain_stages(config_of(values), trained)
    assert [r["trained_now"] for r in summary["stages"].values()] == [False, False, True]


def test_a_finished_stage_with_other_settings_is_refused_with_their_names(
    config: StagesConfig, shards: Path, tmp_path: Path
) -> None:
    pretrain_stages(config, trained)
    values = values_of(shards, tmp_path / "out")
    values["stages"][0]["method"]["mask_ratio"] = 0.75
    with pytest.raises(
        ValueError, match=r"stage 1, masked: .*other settings \(method\.mask_ratio\)"
    ):
        pretrain_stages(config_of(values), trained)
    values = values_of(shards, tmp_path / "out")
    values["stages"][0]["name"] = "other"
    with pytest.raises(ValueError, match="holds stage-1-masked, and the stages are stage-1-other"):
        pretrain_stages(config_of(values), trained)


def test_a_stage_does_not_go_on_without_the_one_that_it_began_with(config: StagesConfig) -> None:
    pretrain_stages(config, trained)
    first = config.runs[0].run.output
    first.rename(first.with_name("elsewhere"))
    with pytest.raises(ValueError, match="begun with the weights of stage-1-masked, which is not"):
        pretrain_stages(config, trained)


def test_a_stage_that_is_half_way_goes_on(config: StagesConfig) -> None:
    trained(config.runs[0].run)
    trained(config.runs[1].run, steps=2)
    made = []

    def pretrain(run: PretrainConfig) -> dict[str, Any]:
        made.append(run.output.name)
        return trained(run)

    pretrain_stages(config, pretrain)
    assert made == ["stage-2-supervised"]


def test_what_a_later_stage_cannot_be_is_refused_before_the_first_one_begins(
    shards: Path, tmp_path: Path
) -> None:
    def never(run: PretrainConfig) -> dict[str, Any]:
        raise AssertionError(run.output)

    for changes, message in (
        ({"encoder": {"depth": 3}}, r"stages\[1\]: encoder\.depth cannot be 3.* depth is 2"),
        ({"encoder": "timm"}, r"stages\[1\]: encoder\.name cannot be timm"),
        ({"output": "x"}, r"stages\[1\]: output is for all stages"),
        ({"weights": "x"}, r"stages\[1\]: weights is for all stages"),
        ({"optm": {}}, r"stages\[1\]: optm is no setting; did you mean optim"),
        (
            {"optim": {"step": 3}},
            r"stages\[1\]: optim\.step is no setting; did you mean optim\.steps",
        ),
        ({"method": "maee"}, r"stages\[1\]: method\.name must be one of .*did you mean mae"),
        ({"name": "a/b"}, r"name must be letters"),
        ({"optim": {"batch_size": 5}}, r"optim\.batch_size \(5\) must be a multiple"),
        ({"method": {"labels": ["Edeema"]}}, "Edeema"),
    ):
        values = values_of(shards, tmp_path / "out")
        values["stages"][1] = merged(values["stages"][1], changes)
        with pytest.raises(ValueError, match=message):
            pretrain_stages(config_of(values), never)
    for wrong in ([], "mae", ["mae"]):
        with pytest.raises(ValueError, match="stages must"):
            StagesConfig(settings={"shards": "s", "output": "o"}, stages=wrong)  # type: ignore[arg-type]


def test_a_later_stage_may_have_larger_images(shards: Path, tmp_path: Path) -> None:
    values = values_of(shards, tmp_path / "out")
    values["stages"][1]["encoder"] = {"image_size": 40}
    config = config_of(values)
    assert [s.run.encoder.image_size for s in config.runs] == [32, 40]
    assert config.runs[1].run.encoder.width == 32


def test_what_may_change_of_an_encoder_is_what_its_weights_allow(
    shards: Path, tmp_path: Path
) -> None:
    """Of vit a patch is resampled, of primus not: what its weights refuse is refused before."""
    values = values_of(shards, tmp_path / "out") | {
        "encoder": {"name": "primus", **SMALL["primus"]}
    }
    values["stages"][1]["encoder"] = {"crop_size": 32, "drop_path": 0.3}
    assert config_of(values).runs[1].run.encoder.drop_path == 0.3
    values["stages"][1]["encoder"] = {"patch_size": 8}
    with pytest.raises(
        ValueError, match=r"encoder\.patch_size cannot be 8: .* crop_size, drop_path may"
    ):
        config_of(values)


def test_the_command_line_reads_a_file_with_stages_and_flags_count_in_all(
    shards: Path, tmp_path: Path
) -> None:
    values = values_of(shards, tmp_path / "out")
    del values["shards"], values["output"]
    file = tmp_path / "stages.yaml"
    file.write_text(yaml.safe_dump(values))
    words = [f"--config={file}", "--shards", str(shards), f"--output={tmp_path / 'out'}"]
    files: list[Path] = []
    name, config = cli.parsed(["pretrain", *words, "--optim.steps", "2"], files)
    assert name == "pretrain"
    assert isinstance(config, StagesConfig)
    assert files == [file]
    assert [stage.run.optim.steps for stage in config.runs] == [2, 2]
    expected = config_of(values_of(shards, tmp_path / "out") | {"optim": values["optim"]}).runs
    assert to_dict(config.runs[0].run) | {"optim": 0} == to_dict(expected[0].run) | {"optim": 0}
    with pytest.raises(ValueError, match="shards is missing"):
        cli.parsed(["pretrain", f"--config={file}", "--output=x"])
    with pytest.raises(ValueError, match="no --SETTING VALUE"):
        cli.parsed(["pretrain", *words, "--seed"])


def test_the_commands_of_the_page_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(JOBS.parent)
    page = (JOBS.parent / "docs/stages.md").read_text()
    commands = re.findall(r"^    ray-mae (.*)$", page, re.MULTILINE)
    made = [cli.parsed(shlex.split(command))[1] for command in commands]
    assert [type(config) for config in made] == [PlanStagesConfig, StagesConfig]


def test_a_plan_has_a_row_of_each_stage(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = values_of(shards, tmp_path / "out")
    shared = {name: value for name, value in values.items() if name != "stages"}
    summary = plan(PlanStagesConfig(settings=shared, stages=values["stages"]))
    assert [s["plan"]["steps"] for s in summary["stages"].values()] == [8, 4]
    assert "2, supervised" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["stages"].keys() == {"stage-1-masked", "stage-2-supervised"}


def test_a_job_on_a_cluster_has_one_output_and_the_shards_of_every_stage(tmp_path: Path) -> None:
    values = values_of(Path("/data/a"), Path("/data/out"))
    values["stages"][1]["shards"] = "/data/b"
    config = config_of(values)
    (warning,) = check_paths(config, [], image=False, local=False)
    assert warning.count("--output") == 1
    assert all(text in warning for text in ("--output /data/out,", "/data/a", "/data/b"))
    assert output_of(config) == "/data/out"
    values["output"] = "out"
    with pytest.raises(ValueError, match="--output out is relative"):
        check_paths(config_of(values), [], image=False, local=False)


def test_stages_may_lie_in_a_store() -> None:
    config = config_of(values_of(Path("s"), Path("x")) | {"output": "memory://runs/two"})
    assert [str(s.run.output) for s in config.runs] == [
        "memory://runs/two/stage-1-masked",
        "memory://runs/two/stage-2-supervised",
    ]
    assert str(config.runs[1].run.weights) == "memory://runs/two/stage-1-masked"
