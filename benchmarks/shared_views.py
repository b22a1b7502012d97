"""What the two views of a study share in each encoder's vectors: the disease, the person, or nothing.

    python -m benchmarks.shared_views SUITE.yaml [DATASET]

Reads the vectors that `ray-mae benchmark` kept of studies with a frontal and a lateral view. An alignment
that works lifts three columns: vectors of one study are nearer than those of others (rank), a head that saw
frontal views tells lateral ones (F→L, L→F), and both views err alike. Mean over the seeds of an encoder.

cos own, cos other   cosine of the two views of a study, and of views of two patients
rank                 own lateral among all of the test, 0 nearest, 0.5 chance; mean of each view taken off
mapped               rank after a ridge regression from frontal to lateral vectors, fitted on training
                     patients: what could be shared, whether or not an alignment has made it so
visit                mapped, for the lateral of the same patient's other visit: the build, and little disease
F, L, F→L, L→F       macro AUROC on test patients, head fitted on one view and tested on the same or the other
err alike            correlation of both heads' logits among studies of one class
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from ray_mae.benchmarking.features import Features, cache_of
from ray_mae.benchmarking.records import SampleTable
from ray_mae.benchmarking.samples import read_samples, read_targets
from ray_mae.benchmarking.sources import sources_of
from ray_mae.config.base import from_dict
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.schema import VIEWS

SPLITS = ["train", "val", "test"]
STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Inverse penalties that are tried; the best on validation patients is taken."""
PENALTIES = tuple(float(10.0**k) for k in range(-3, 5))
FEWEST = 10
"""Positive and negative test studies of a label that counts."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("suite", type=Path)
    parser.add_argument("dataset", nargs="?", help="default: the first of the suite")
    wanted = parser.parse_args()
    config = from_dict(SuiteConfig, yaml.safe_load(wanted.suite.read_text()))
    dataset = wanted.dataset or next(iter(config.datasets))
    entry = config.datasets[dataset]
    table = read_samples(entry)
    task = next(task for task in config.tasks.values() if task.dataset == dataset)
    targets, _, _ = read_targets(entry, table, task, SPLITS, None)
    rows = []
    for name, encoder in config.encoders.items():
        if encoder.kind not in ("weights", "random", "pixels"):
            continue
        found = [
            shared(cache_of(config, dataset, source).read(table.sample, SPLITS), table, targets)
            for source in sources_of(config, name, "study")
        ]
        rows.append({"encoder": name, "seeds": len(found), **pd.DataFrame(found).mean().round(3)})
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)


def shared(features: Features, table: SampleTable, targets: NDArray[np.float64]) -> dict[str, Any]:
    """What stands in one row of the table, of one seed."""
    vectors = features.vectors.get("mean", next(iter(features.vectors.values())))
    first = [_first(features, VIEWS.index(view), len(table.sample)) for view in VIEWS[:2]]
    both = (first[0] >= 0) & (first[1] >= 0)
    split, patient, y = table.split[both], table.patient[both], targets[both]
    x = [vectors[rows[both]].astype(np.float64) for rows in first]  # 2 × [S, D]
    test = split == "test"
    raw = _cosines(*(v[test] for v in x))
    other = patient[test][:, None] != patient[test][None, :]
    centred = [v - v[split == "train"].mean(0) for v in x]
    mapped = _mapped(*centred, split)
    itself = np.eye(test.sum(), dtype=bool)
    found = {
        "cos own": raw.diagonal().mean(),
        "cos other": raw[other].mean(),
        "rank": _rank(_cosines(*(v[test] for v in centred)), itself, other),
        "mapped": _rank(_cosines(mapped, centred[1][test]), itself, other),
        "visit": _rank(_cosines(mapped, centred[1][test]), ~other & ~itself, other),
    }
    return {**found, **_transfer(x, split, y)}


def _mapped(
    frontal: NDArray[np.float64], lateral: NDArray[np.float64], split: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Lateral vectors of test studies as frontal ones tell them; the penalty is chosen on validation."""
    train, val, test = (split == name for name in SPLITS)
    fitted = [Ridge(alpha=a).fit(frontal[train], lateral[train]) for a in PENALTIES]
    return max(fitted, key=lambda fit: fit.score(frontal[val], lateral[val])).predict(frontal[test])


def _rank(near: NDArray[np.float64], wanted: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Mean share of other patients' views that are nearer than a wanted one, all [S, S]."""
    return float(np.mean([(near[i, other[i]] > near[i, j]).mean() for i, j in np.argwhere(wanted)]))


def _first(features: Features, view: int, samples: int) -> NDArray[np.intp]:
    """[S] row of each sample's first such view, −1 where it has none."""
    found = np.full(samples, -1)
    rows = np.flatnonzero(features.view == view)[::-1]
    found[features.sample[rows]] = rows
    return found


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """[S, S]"""
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return a @ b.T


def _transfer(
    x: list[NDArray[np.float64]], split: NDArray[np.str_], y: NDArray[np.float64]
) -> dict[str, float]:
    """Heads of each view on each view, macro over the labels that test has enough of."""
    train, val, test = (split == name for name in SPLITS)
    z = [(v - v[train].mean(0)) / (v[train].std(0) + 1e-6) for v in x]
    found: dict[str, list[float]] = {name: [] for name in ("F", "L", "F→L", "L→F", "err alike")}
    for label in range(y.shape[1]):
        t = y[:, label]
        if min((t[test] == 1).sum(), (t[test] == 0).sum()) < FEWEST:
            continue
        seen = test & ~np.isnan(t)
        heads = [_head(v, t, train, val) for v in z]
        for a, name in enumerate("FL"):
            other = "LF"[a]
            found[name].append(roc_auc_score(t[seen], heads[a].decision_function(z[a][seen])))
            moved = heads[a].decision_function(z[1 - a][seen])
            found[f"{name}→{other}"].append(roc_auc_score(t[seen], moved))
        for value in (0, 1):
            rows = seen & (t == value)
            said = [head.decision_function(v[rows]) for head, v in zip(heads, z, strict=True)]
            found["err alike"].append(float(np.corrcoef(said[0], said[1])[0, 1]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _head(v: NDArray[np.float64], t: NDArray[np.float64], train: Any, val: Any) -> Any:
    """The logistic regression whose penalty validation patients prefer."""
    known = ~np.isnan(t)
    fitted = []
    for strength in STRENGTHS:
        head = LogisticRegression(C=strength, max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            head.fit(v[train & known], t[train & known])
        rows = val & known
        both = len(set(t[rows].tolist())) == 2
        score = roc_auc_score(t[rows], head.decision_function(v[rows])) if both else 0.5
        fitted.append((score, head))
    return max(fitted, key=lambda pair: pair[0])[1]


if __name__ == "__main__":
    main()
