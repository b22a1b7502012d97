"""`ray-mae benchmark report`: everything from the stored rows, without shards, models or test images.

scores.csv, scores.parquet  a row for each cell, encoder, label and metric
contrasts.csv               a row for each pair and cell, and of planned pairs for each label
report.html                 the page
tables.tex                  the main tables for papers
index.json                  what the files hold, for machines
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ray_mae.benchmarking.fixed import require_fixed
from ray_mae.benchmarking.report.findings import Findings, find
from ray_mae.benchmarking.report.page import page
from ray_mae.benchmarking.report.tables import latex, rounded, write_parquet, write_rows
from ray_mae.benchmarking.report.words import cautions, sentence, where
from ray_mae.benchmarking.statistics.contrasts import headline
from ray_mae.benchmarking.statistics.results import Results
from ray_mae.benchmarking.store import PLAN, Store
from ray_mae.config.base import to_dict
from ray_mae.config.suite import SuiteConfig
from ray_mae.evaluate.pages.page import plain
from ray_mae.files import write_whole

SCORES, PARQUET, CONTRASTS = "scores.csv", "scores.parquet", "contrasts.csv"
PAGE, LATEX, INDEX = "report.html", "tables.tex", "index.json"
FILES = (SCORES, PARQUET, CONTRASTS, PAGE, LATEX)


def report(config: SuiteConfig) -> dict[str, Any]:
    """Writes the tables and the page of a suite into its folder.

    Args:
        config: of the suite; what its plan fixed (encoders, tasks, planned contrasts) is taken from the plan.

    Returns:
        What was found, and the files.

    Raises:
        FileNotFoundError: nothing was fitted yet, or no test was opened.
        ValueError: a setting that the plan fixed is another one now.
    """
    store = Store(config.output)
    if planned := store.plan.get("suite"):
        require_fixed(to_dict(config), planned, config.output / PLAN, moved=True)
    results = Results(store, config)
    if not results.places:
        raise FileNotFoundError(
            f"{config.output} holds no predictions of test samples: run `ray-mae benchmark open` first"
        )
    found = find(results)
    told = cautions(results, found.unequal)
    write_files(config.output, found, told)
    index = {
        "title": config.title,
        "plan": results.plan.get("sha256"),
        "opened": len(results.store.opened()),
        "fits": dict(sorted(results.statuses().items())),
        "cautions": told,
        "verdicts": [f"{where(c)}: {sentence(c)}" for c in headline(found.contrasts, results)],
        "scores": len(found.rows),
        "contrasts": len(found.contrasts),
        "files": {
            name: hashlib.sha256((config.output / name).read_bytes()).hexdigest() for name in FILES
        },
    }
    write_whole(config.output / INDEX, json.dumps(plain(index), indent=1, sort_keys=True) + "\n")
    return {**index, "files": [*FILES, INDEX], "page": str(config.output / PAGE)}


def write_files(folder: Path, found: Findings, told: list[str]) -> None:
    """Writes all but the index."""
    columns = list(dict.fromkeys(c for row in found.rows for c in row))
    write_rows(folder / SCORES, found.rows, columns)
    write_parquet(folder / PARQUET, found.rows, columns)
    rows = [{k: rounded(v) for k, v in c.row().items()} for c in found.contrasts]
    write_rows(folder / CONTRASTS, rows, list(rows[0]) if rows else ["a", "b"])
    write_whole(folder / PAGE, page(found, told))
    write_whole(folder / LATEX, latex(found))
