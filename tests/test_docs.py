"""Commands of the pages in docs are such that the program understands."""

import re
import shlex
from pathlib import Path

import pytest

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
