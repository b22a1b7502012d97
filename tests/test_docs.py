"""Commands of the pages in docs are such that the program understands."""

import re
import shlex
from pathlib import Path

import pytest

from ray_mae.config import IngestConfig
from ray_mae.config.parser import parser_for

DOCS = Path(__file__).parents[1] / "docs"
INGESTS = re.findall(r"^ +ray-mae ingest (.*)$", (DOCS / "archives.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", INGESTS)
def test_an_ingest_of_the_page_of_archives_is_understood(command: str) -> None:
    parser = parser_for(IngestConfig)
    made = parser.instantiate(parser.parse_args(shlex.split(command))).as_dict()
    made.pop("config")
    assert IngestConfig(**made).dataset != "archive"


def test_every_public_archive_has_a_command() -> None:
    assert len(INGESTS) == 6
