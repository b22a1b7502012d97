"""Which settings take a URL of a store, by the one table, and that all others refuse one at once."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from ray_mae import cli
from ray_mae.config.suite import SuiteConfig
from ray_mae.config.urls import TAKES_URL, is_url
from ray_mae.methods.registry import config_class

ROOT = Path(__file__).parents[2]
SUITE = ["--config", str(ROOT / "jobs/benchmark_phantoms.yaml")]
CONFIG = {
    "tune": ["--config", str(ROOT / "jobs/search_mvmae_tiny.yaml")],
    "plan": ["--samples", "10"],
    **{f"benchmark{phase}": SUITE for phase in ("", " fit", " open", " report")},
}
GIVEN = {"archive": "dicom", "to": "weights", "format": "timm"}


def paths(cls: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every setting of a class that holds a path, and whether it must be given."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        options = {kind, *get_args(kind)} | {i for o in get_args(kind) for i in get_args(o)}
        if dataclasses.is_dataclass(kind):
            yield from paths(kind, f"{prefix}{field.name}.")
        elif Path in options:
            needed = field.default is field.default_factory is dataclasses.MISSING
            yield f"{prefix}{field.name}", needed


def settings_of(command: str) -> type:
    cls = cli.COMMANDS[command][0]
    return config_class(cls, "mvmae") if command in cli.CHOSEN else cls


EVERY = [(command, name) for command in cli.COMMANDS for name, _ in paths(settings_of(command))]


def words(command: str, **paths_given: str) -> list[str]:
    """A command with all that it needs."""
    cls = settings_of(command)
    needed = {name: "/data/x" for name, must in paths(cls) if must} | paths_given
    names = {field.name for field in dataclasses.fields(cls)}
    chosen = {name: value for name, value in GIVEN.items() if name in names}
    if command == "predict":
        chosen["format"] = "auto"
    if command == "submit":
        needed["command"] = "x"
    flags = [word for name, value in (chosen | needed).items() for word in (f"--{name}", value)]
    return [*command.split(), *CONFIG.get(command, []), *flags]


def test_the_table_names_settings_that_there_are() -> None:
    classes = {settings_of(command).__name__: settings_of(command) for command in cli.COMMANDS}
    assert TAKES_URL.keys() <= classes.keys()
    for name, settings in TAKES_URL.items():
        there = {path for path, _ in paths(classes[name])}
        assert {one for one in settings if "*" not in one} <= there
    assert len(EVERY) > 40


def test_shards_may_lie_in_a_store_wherever_they_are_read() -> None:
    for command, name in EVERY:
        if name in ("shards", "against"):
            assert name in TAKES_URL[settings_of(command).__name__], command
    suite = yaml.safe_load((ROOT / "jobs/benchmark_phantoms.yaml").read_text())
    for entry in suite["datasets"].values():
        entry["shards"] = "s3://b/x"
    SuiteConfig(**suite, output=Path("/x"))
    with pytest.raises(ValueError, match=r"--encoders\.own\.paths s3://b/x is a URL"):
        SuiteConfig(**suite | {"encoders": {"own": {"paths": "s3://b/x"}}}, output=Path("/x"))


@pytest.mark.parametrize(("command", "name"), [e for e in EVERY if e[0] != "submit"])
def test_a_command_refuses_a_url_that_it_cannot_use_and_takes_the_others(
    command: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # weights are looked at, without a key
    takes = name in TAKES_URL.get(settings_of(command).__name__, ())
    value = "[s3://b/x]" if name == "against" else "s3://b/x"
    if takes:
        cli.parsed(words(command, **{name: value}))
        return
    with pytest.raises(ValueError, match=rf"^--{name} s3://b/x is a URL that cannot be used here"):
        cli.parsed(words(command, **{name: value}))
    with pytest.raises(ValueError, match=rf"^--{name} s3://b/x is a URL"):
        cli.run(["submit", "--dry-run", "--", *words(command, **{name: value})])


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("simplecache::s3://b/x", "give (a path|the URL of the store itself)"),
        ("nas:/export/x", "give a path, on a cluster"),
    ],
)
def test_every_spelling_of_a_url_is_seen(value: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        cli.parsed(words("pretrain", output=value))
    with pytest.raises(ValueError, match=remedy):
        cli.parsed(words("pretrain", weights=value))
    with pytest.raises(ValueError, match=remedy):
        cli.parsed(words("doctor", output=value))
    with pytest.raises(ValueError, match="URL"):  # as in Python, where a path may be a string
        config_class(cli.COMMANDS["pretrain"][0], "mvmae")(shards=Path("/x"), output=value)


@pytest.mark.parametrize("value", ["runs/a:b", "/s3://b/x", "a b/c", "12:30/x", "C:/x"])
def test_paths_with_colons_are_paths(value: str) -> None:
    assert not is_url(value)
    cli.parsed(words("pretrain", output=value))


@pytest.mark.parametrize("command", ["pretrain", "ingest"])
def test_a_url_with_a_password_is_refused_and_not_repeated(command: str) -> None:
    with pytest.raises(ValueError, match="is a URL with a password") as refused:
        cli.parsed(words(command, output="s3://KEY:YPSILANTI@b/x"))
    assert "YPSILANTI" not in str(refused.value)


def test_a_chain_of_stores_is_refused_where_a_url_is_taken() -> None:
    with pytest.raises(ValueError, match="give the URL of the store itself"):
        cli.parsed(words("ingest", source="simplecache::s3://b/x"))
    with pytest.raises(ValueError, match="give the URL of the store itself"):
        cli.parsed(words("pretrain", shards="[/data/a,simplecache::s3://b/x]"))


def test_file_urls_are_paths() -> None:
    values: Any = cli.parsed(words("pretrain", shards="file:///data/x", output="file:/data/y"))[1]
    assert values.folders == [Path("/data/x")]
    assert values.output == Path("/data/y")


def test_what_can_only_be_read_is_no_output() -> None:
    with pytest.raises(ValueError, match=r"--output http://h/x .*can only be read"):
        cli.parsed(words("pretrain", output="http://h/x"))


def test_a_job_that_reads_and_writes_in_a_bucket_needs_no_shared_disk(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = words("pretrain", shards="s3://b/shards", output="s3://b/run")
    with pytest.raises(SystemExit, match="0"):
        cli.run(["submit", "--dry-run", "--", *job])
    said = capsys.readouterr().out
    assert "--output s3://b/run" in said
    assert "must mount" not in said
    with pytest.raises(SystemExit, match="0"):
        cli.run(["submit", "--dry-run", "--", *words("pretrain", output="s3://b/run")])
    assert "must mount --shards /data/x as a shared disk" in capsys.readouterr().out
