"""Settings: refused with the nearest right name and the bound, from every door."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from ray_mae import cli
from ray_mae.config import (
    DemoConfig,
    MvmaeConfig,
    PretrainConfig,
    PretrainMdaeConfig,
    pretrain_config,
)
from ray_mae.config.base import from_dict, to_dict
from ray_mae.search.space import read_space
from ray_mae.search.trial import Runs
from ray_mae.train.setup import check_sizes
from tests.shards import write_shards, write_volume_shards

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.yaml"))


def parse(*arguments: str) -> PretrainConfig:
    parser = cli.parser_of("pretrain")
    values = parser.instantiate(parser.parse_args(list(arguments))).as_dict()
    values.pop("config")
    return PretrainConfig(**values)


def test_defaults_are_the_papers() -> None:
    config = PretrainConfig(shards=Path("s"), output=Path("o"))
    assert (config.method.preset, config.method.image_size) == ("base", 224)
    assert (config.method.mask_ratio, config.method.beta, config.method.gamma) == (0.9, 2.0, 1.0)


def test_a_value_out_of_bounds_is_refused_by_its_dotted_name() -> None:
    with pytest.raises(ValueError, match=r"method\.mask_ratio must be more than 0 and less than 1"):
        PretrainConfig(shards=Path("s"), output=Path("o"), method=MvmaeConfig(mask_ratio=1.0))
    with pytest.raises(ValueError, match=r"patients must be at least 20, got 3"):
        DemoConfig(patients=3)
    with pytest.raises(ValueError, match=r"optim\.micro_batch_size must be at least 1, got 0"):
        parse("--shards", "s", "--output", "o", "--optim.micro_batch_size", "0")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--method.mask_ration", "method.mask_ratio"),
        ("--optim.warmpu", "optim.warmup"),
        ("--mask_ratio", "method.mask_ratio"),
        ("--shard", "shards"),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_name(wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=rf"did you mean {right}\?"):
        parse("--shards", "s", "--output", "o", wrong, "0.5")


def test_an_unknown_setting_in_a_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"shards": "s", "output": "o", "method": {"mask_rato": 0.5}}))
    with pytest.raises(ValueError, match=r"mask_rato.*did you mean method\.mask_ratio\?"):
        parse("--config", str(file))


def test_flags_override_the_file_that_comes_before(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        yaml.safe_dump({"shards": "s", "output": "o", "method": {"beta": 20, "gamma": 0}})
    )
    config = parse("--config", str(file), "--method.beta", "0")
    assert (config.method.beta, config.method.gamma) == (0, 0)
    assert config.shards == Path("s")


def test_settings_survive_json() -> None:
    config = parse("--shards", "s", "--output", "o", "--data.crop_scale", "[0.3, 0.9]")
    assert from_dict(PretrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_help_documents_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    for command in cli.COMMANDS:
        text = " ".join(cli.parser_of(command).format_help().split())
        cls, _ = cli.COMMANDS[command]
        for name in to_dict_names(cls):
            assert f"--{name}" in text, (command, name)
    assert "Share of the patches hidden in each view" in " ".join(
        cli.parser_of("pretrain").format_help().split()
    )


def to_dict_names(cls: type) -> list[str]:
    from typing import get_type_hints

    names = []
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            names += [f"{name}.{inner}" for inner in to_dict_names(kind)]  # type: ignore[arg-type]
        else:
            names.append(name)
    return names


@pytest.mark.parametrize("job", JOBS, ids=lambda p: p.name)
def test_every_job_is_valid(job: Path, tmp_path: Path) -> None:
    command = {"search": "tune"}.get(kind := job.stem.split("_")[0], kind)
    command = f"evaluate {command}" if f"evaluate {command}" in cli.COMMANDS else command
    cls = cli.COMMANDS[command][0]
    if command in cli.BY_METHOD:
        classes, path = cli.BY_METHOD[command]
        cls = classes[cli._method(["--config", str(job)], path)]
    parser = cli.parser_of(command, cls)
    missing = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory}
    own = [f"--{name}=x" for name in missing - set(yaml.safe_load(job.read_text()))]
    values = parser.instantiate(parser.parse_args(["--config", str(job), *own])).as_dict()
    values.pop("config")
    config = cls(**values)
    if command == "pretrain":
        check_sizes(config.method)
    if command == "tune":
        write = write_shards if config.run.method.name == "mvmae" else write_volume_shards
        write(tmp_path)
        search = dataclasses.replace(config, shards=tmp_path)
        Runs(search).check(read_space(search.space), tmp_path)


@pytest.mark.parametrize(
    ("words", "insecure"),
    [
        ("--insecure-pseudonyms --source a", True),
        ("--source a --insecure_pseudonyms", True),
        ("--insecure-pseudonyms=true --source a", True),
        ("--insecure_pseudonyms false --source a", False),
        ("--source a", False),
    ],
)
def test_a_switch_is_told_by_its_name_alone(words: str, insecure: bool) -> None:
    _, config = cli.parsed(["ingest", "--archive", "table", "--output", "b", *words.split()])
    assert config.insecure_pseudonyms is insecure


@pytest.mark.parametrize("words", ["demo", "demo mdae", "doctor", "submit -- doctor"])
def test_a_command_may_stand_alone(words: str) -> None:
    name, config = cli.parsed(words.split())
    assert words.startswith(name)
    assert type(config) is cli.COMMANDS[name][0]


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean pretrain"):
        cli.run(["pretrian"])


@pytest.mark.parametrize(
    "arguments", [["--method.name", "mdae"], ["--method.name=mdae"], ["--config", "FILE"]]
)
def test_the_method_decides_which_settings_there_are(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method:\n  name: mdae\n  sigma_max: 0.5\n")
    seen = []
    monkeypatch.setitem(cli.COMMANDS, "pretrain", (PretrainConfig, seen.append))
    arguments = [str(file) if word == "FILE" else word for word in arguments]
    cli.run(["pretrain", "--shards", "s", "--output", "o", *arguments, "--method.crop_size", "96"])
    assert isinstance(seen[0], PretrainMdaeConfig)
    assert seen[0].method.crop_size == 96
    assert pretrain_config(json.loads(json.dumps(to_dict(seen[0])))) == seen[0]
    with pytest.raises(ValueError, match=r"mask_ratio must be smallest, then largest"):
        cli.run(
            ["pretrain", "--shards=s", "--output=o", *arguments, "--method.mask_ratio=[0.9,0.1]"]
        )
    with pytest.raises(ValueError, match="did you mean mdae"):
        cli.run(["pretrain", "--method.name", "mdea"])
