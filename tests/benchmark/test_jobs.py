"""Suites of the papers in jobs/: they parse, and name nothing that is not there."""

import re
from pathlib import Path

import pytest

from ray_mae import cli
from ray_mae.benchmarking.archives_table import canonical, sources_of
from ray_mae.benchmarking.corruptions import IMAGES, VOLUMES
from ray_mae.config import IngestConfig
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.labels import CHEXPERT_LABELS

FOLDER = Path(__file__).parents[2] / "jobs"
SUITES = sorted(FOLDER.glob("benchmark_*.yaml"))
PAPERS = {
    "mvmae_tables", "mdae", "openmind", "fomo26", "cxr_lt", "alignment", "beta", "v2t_by_labels",
    "mdae_contrasts", "rare",
}  # fmt: skip


def read(path: Path) -> SuiteConfig:
    _, config = cli.parsed(["benchmark", "--config", str(path), "--output", "o"])
    return config


def test_the_papers_have_their_suites() -> None:
    assert {path.stem.removeprefix("benchmark_") for path in SUITES} >= PAPERS


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_parses_and_compares_what_it_names(path: Path) -> None:
    suite = read(path)
    compared = {name for pair in suite.contrasts for name in pair}
    assert compared <= set(suite.encoders)
    assert any(e.kind == "random" for e in suite.encoders.values()), "what must be beaten"
    kinds = IMAGES if any(t.labels and "Edema" in t.labels for t in suite.tasks.values()) else {}
    assert set(suite.trust.corruptions) <= set(kinds or (IMAGES | VOLUMES))
    tested = {name for task in suite.tasks.values() for name in task.tested_on}
    assert tested | {suite.trust.repeats} >= set(suite.datasets), "a data set that nothing tests"
    several = [e for e in suite.encoders.values() if len(e.sources) > 1]
    assert all(len(e.sources) == 3 for e in several), "three seeds, or one checkpoint of others"


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_what_a_suite_says_of_archives_is_in_the_table(path: Path) -> None:
    suite = read(path)
    for entry in suite.datasets.values():
        if entry.archive is not None:
            assert canonical(entry.archive) == entry.archive
            assert sources_of(entry.archive)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_commands_in_a_suites_comments_can_be_given(path: Path) -> None:
    for line in path.read_text().splitlines():
        command = re.match(r"#   ray-mae ((?:ingest|pretrain|tune) .*)", line)
        if command is None:
            continue
        words = command[1].split("     #")[0].replace("CHOSEN", "2").split()
        verb, config = cli.parsed([w.replace("/data/", "/tmp/") for w in words])
        if verb == "ingest":
            assert isinstance(config, IngestConfig)


def test_mvmaes_tables_are_of_the_fourteen_labels_on_three_archives() -> None:
    suite = read(FOLDER / "benchmark_mvmae_tables.yaml")
    assert all(tuple(task.labels) == CHEXPERT_LABELS for task in suite.tasks.values())
    assert {task.dataset for task in suite.tasks.values()} == {"mimic", "chexpert", "padchest"}
    assert {"first1", "first2"} <= set(suite.views)
    assert "<<" in (FOLDER / "benchmark_mvmae_tables.yaml").read_text()


def test_suites_of_volumes_segment_and_say_what_of_the_papers_is_not_possible() -> None:
    for name in ("mdae", "openmind"):
        suite = read(FOLDER / f"benchmark_{name}.yaml")
        segmented = [t for t in suite.tasks.values() if t.kind == "segmentation"]
        assert segmented
        assert all(task.regions for task in segmented), "regions have names"
        starts = {*suite.heads.segment.encoders}
        planned = {
            n for pair in suite.contrasts for n in pair if n in suite.heads.finetune.encoders
        }
        assert planned <= starts, "a contrast that no segmentation would have"
    for name in ("mdae", "openmind", "fomo26"):
        notes = read(FOLDER / f"benchmark_{name}.yaml").notes
        assert any("several contrasts as channels are not possible" in note for note in notes)
