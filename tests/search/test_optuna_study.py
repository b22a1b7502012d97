"""The Optuna studies of a search: created, continued, and what Tune's searcher writes into them."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ray_mae import cli
from ray_mae.config import TuneConfig, TuneReportConfig
from ray_mae.methods.registry import search_of
from ray_mae.search.database import open_storage, storage_url
from ray_mae.search.files import REPEATS, SEARCH
from ray_mae.search.optuna_searcher import HOPELESS, OptunaSearcher
from ray_mae.search.optuna_study import enqueue, enqueue_repeats, open_study
from ray_mae.search.results import read_search
from ray_mae.search.space import read_space
from tests.shards import write_volume_shards

SEARCH_JOB = Path(__file__).parents[2] / "jobs/search_mdae_tiny.yaml"
GRID = {"optim.lr": {"grid": [1e-3, 1e-4]}, "seed": {"grid": [0, 1]}}
FREE = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_volume_shards(folder, train=4, held_out=2)
    return folder


def settings(shards: Path, output: Path, space: dict[str, Any], **changes: Any) -> TuneConfig:
    paths = {"shards": str(shards), "output": str(output)}
    return search_of({**paths, "space": space, "run": {"method": {"name": "mdae"}}, **changes})


def searcher(
    config: TuneConfig, study: optuna.Study, objectives: tuple[str, ...] = ("auroc",)
) -> OptunaSearcher:
    return OptunaSearcher(study, read_space(config.space), [*objectives], config.output / SEARCH)


def result(auroc: float, percent: int) -> dict[str, Any]:
    interval = {"auroc_low": auroc - 0.1, "auroc_high": auroc + 0.1}
    return {"auroc": auroc, **interval, "step": percent, "percent": percent, "hours": 1.0}


def test_a_grid_is_put_in_once_and_what_is_missing_later(shards: Path, tmp_path: Path) -> None:
    config = settings(shards, tmp_path, GRID)
    study, parameters = open_study(config, SEARCH), read_space(GRID)
    study.enqueue_trial({"optim.lr": 1e-3, "seed": 0}, user_attrs={"point": "another"})
    assert enqueue(config, study, parameters) == 4
    assert enqueue(config, study, parameters) == 4
    fixed = [t.system_attrs["fixed_params"] for t in study.trials[1:]]
    assert fixed == [{"optim.lr": lr, "seed": s} for lr in (1e-3, 1e-4) for s in (0, 1)]


def test_a_search_goes_on_only_when_told_and_with_the_same_settings(
    shards: Path, tmp_path: Path
) -> None:
    open_study(settings(shards, tmp_path, FREE), SEARCH)
    with pytest.raises(ValueError, match="add --resume true"):
        open_study(settings(shards, tmp_path, FREE), SEARCH)
    with pytest.raises(ValueError, match=r"other settings \(sampler\)"):
        open_study(settings(shards, tmp_path, FREE, sampler="random", resume=True), SEARCH)
    again = settings(shards, tmp_path, FREE, resume=True, trials=99, at_once=3)
    study = open_study(again, SEARCH)
    assert study.trials == []
    older = dict(study.user_attrs["search"])
    older["run"]["optim"].pop("max_skipped")  # as of a version that did not know it
    study.set_user_attr("search", older)
    open_study(again, SEARCH)


def test_folders_of_one_name_are_two_searches_in_one_database(shards: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'all.db'}"
    for folder in ("a", "b"):
        config = settings(shards, tmp_path / folder / "tune", FREE, storage=storage)
        open_study(config, SEARCH)
    assert len(optuna.get_all_study_names(storage)) == 2


PASSWORDS = [
    *("postgresql+psycopg://me:s3cret@host/name", "postgresql://me:s3/c#r@et@host/name"),
    *("postgresql://host/name?password=s3cret", "postgresql://host/name?sslpassword=s3cret"),
    *("mysql+pymysql://host/name?passwd=s3cret", "mssql+pyodbc:///?odbc_connect=PWD%3Ds3cret"),
]


@pytest.mark.parametrize("url", [*PASSWORDS, "s3cret", "postgresql://me@host:s3cret/name"])
def test_a_database_with_a_password_in_its_url_is_refused(tmp_path: Path, url: str) -> None:
    for words in (["tune", "--shards", "/s", "--config", str(SEARCH_JOB)], ["tune", "report"]):
        with pytest.raises(ValueError, match="storage") as error:
            cli.parsed([*words, "--output", str(tmp_path), "--storage", url])
        assert "s3" not in str(error.value)
        if url in PASSWORDS:
            assert re.search("pgpass.*PGPASSFILE.*PGPASSWORD", str(error.value))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "postgresql+psycopg://me@host/name?passfile=/home/me/.pgpass",
            "sqlite:////a:b@c/study.db",
        ),
        "mysql+pymysql://me@host/name?read_default_file=~/.my.cnf",
    ],
)
def test_a_database_whose_password_is_elsewhere_is_taken(tmp_path: Path, url: str) -> None:
    TuneReportConfig(output=tmp_path, storage=url)


def test_a_password_is_neither_stored_nor_told(shards: Path, tmp_path: Path) -> None:
    config = settings(shards, tmp_path, FREE)
    study = open_study(config, SEARCH)
    assert "storage" not in study.user_attrs["search"]
    with pytest.raises(ValueError, match="storage") as error:
        open_storage("postgresql+psycopg://me:secret@127.0.0.1:9/none")
    assert "secret" not in str(error.value)
    with pytest.raises(ValueError, match="storage must be the URL") as error:
        open_storage("me:secret")
    assert "secret" not in str(error.value)


def test_trials_of_a_dead_driver_are_given_out_again_first(shards: Path, tmp_path: Path) -> None:
    config = settings(shards, tmp_path, FREE)
    study = open_study(config, SEARCH)
    first = searcher(config, study)
    values = [first.suggest(name) for name in "ab"]
    first.on_trial_result("a", result(0.6, 100))
    first.on_trial_complete("a", result(0.6, 100))
    second = searcher(config, study)
    assert second.suggest("c") == values[1]
    third = second.suggest("d")
    assert third["trial"] == 2
    assert third["optim.lr"] not in {v["optim.lr"] for v in values}
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] + [TrialState.RUNNING] * 2


def test_failed_trials_are_tried_again_when_told(shards: Path, tmp_path: Path) -> None:
    study = open_study(settings(shards, tmp_path, FREE), SEARCH)
    config = settings(shards, tmp_path, FREE, trials=1, resume=True)
    one = searcher(config, study)
    values = one.suggest("a")
    one.failed("a", "the node died")
    assert enqueue(config, study, read_space(FREE)) == 1
    config = settings(shards, tmp_path, FREE, trials=1, resume=True, retry_failed=True)
    assert enqueue(config, study, read_space(FREE)) == 2
    assert enqueue(config, study, read_space(FREE)) == 2
    two = searcher(config, study)
    assert two.suggest("b")["optim.lr"] == values["optim.lr"]
    two.failed("b", "again")
    assert enqueue(config, study, read_space(FREE)) == 3  # the second try failed as well


def test_stopped_trials_are_no_results(shards: Path, tmp_path: Path) -> None:
    config = settings(shards, tmp_path, FREE)
    study = open_study(config, SEARCH)
    one = searcher(config, study)
    for name, auroc, percent in (("a", 0.9, 50), ("b", 0.6, 100)):
        one.suggest(name)
        one.on_trial_complete(name, result(auroc, percent))
    assert [t.state for t in study.trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    repeats = open_study(config, REPEATS)
    assert enqueue_repeats(config, study, repeats) == config.repeat.seeds
    assert {t.user_attrs["of"] for t in repeats.trials} == {1}
    record = read_search(tmp_path, storage_url(tmp_path, None))
    assert [t.number for t in record.whole] == [1]


def test_a_search_whose_first_trials_all_fail_is_hopeless(shards: Path, tmp_path: Path) -> None:
    config = settings(shards, tmp_path, FREE)
    one = searcher(config, open_study(config, SEARCH))
    for k in range(HOPELESS):
        assert not one.hopeless
        one.suggest(str(k))
        one.failed(str(k), "no such file")
    assert one.hopeless


def test_a_search_with_one_good_trial_among_the_first_is_not(shards: Path, tmp_path: Path) -> None:
    config = settings(shards, tmp_path, FREE)
    one = searcher(config, open_study(config, SEARCH))
    one.suggest("good")
    for k in range(2 * HOPELESS):
        one.suggest(str(k))
        one.failed(str(k), "diverged")
    assert not one.hopeless
