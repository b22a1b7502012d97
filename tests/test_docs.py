"""Commands of the pages in docs are such that the program understands, and links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from ray_mae import cli
from ray_mae.config import IngestConfig
from ray_mae.config.parser import parser_for

DOCS = Path(__file__).parents[1] / "docs"
PAGES = "".join((DOCS / page).read_text() for page in ("archives.md", "labels.md"))
INGESTS = re.findall(r"^ +ray-mae ingest (.*)$", PAGES, re.MULTILINE)
PUBLIC = {"mimic-cxr", "chexpert", "padchest", "chestxray14", "openi"}


@pytest.mark.parametrize("command", INGESTS)
def test_an_ingest_of_the_pages_is_understood(command: str) -> None:
    parser = parser_for(IngestConfig)
    made = parser.instantiate(parser.parse_args(shlex.split(command))).as_dict()
    made.pop("config")
    assert IngestConfig(**made).dataset != "archive"


def test_every_public_archive_has_a_command() -> None:
    with_command = {shlex.split(command)[1] for command in INGESTS}
    assert with_command >= PUBLIC


COMMANDS = [
    shlex.split(command)
    for page in ("volumes.md", "publish.md", "object_stores.md")
    for command in re.findall(r"^    ray-mae (.*)$", (DOCS / page).read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_these_pages_is_understood(words: list[str]) -> None:
    name, config = cli.parsed(words)
    assert type(config) is cli.COMMANDS[name][0]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


OF_OTHERS = [
    shlex.split(command)
    for command in re.findall(
        r"^    ray-mae (.*[^…\n])$", (DOCS / "weights.md").read_text(), re.MULTILINE
    )
]


@pytest.mark.parametrize("words", OF_OTHERS, ids=" ".join)
def test_a_command_of_the_page_on_weights_of_others_is_understood(words: list[str]) -> None:
    assert cli.parsed(words)[0] == " ".join(
        words[: words.index(next(w for w in words if "--" in w))]
    )


def test_the_page_on_weights_of_others_has_commands() -> None:
    assert len(OF_OTHERS) >= 4
