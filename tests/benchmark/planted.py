"""A suite whose truth is planted: binormal logits of known d′, so that AUROC = Φ(d′/√2) is known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from ray_mae.benchmarking.records import ALL, Cell, Fit, FitKey, Predictions, SampleTable, Trial
from ray_mae.benchmarking.store import Store
from ray_mae.config.base import from_dict, to_dict
from ray_mae.config.suite import SuiteConfig


def auroc_of(d: float) -> float:
    """Of two normals whose means differ by d standard deviations."""
    return float(norm.cdf(d / np.sqrt(2)))


def d_of(auroc: float) -> float:
    return float(norm.ppf(auroc) * np.sqrt(2))


@dataclass(frozen=True)
class Truth:
    """What an encoder is worth."""

    auroc: float = 0.75
    """With all labelled studies."""
    pretrainings: int = 1
    pretraining_sd: float = 0.0
    """Of d′."""
    draw_sd: float = 0.0
    loss: float = 0.0
    """Of AUROC, by each halving of the labelled studies."""
    kind: str = "weights"


@dataclass(frozen=True)
class Suite:
    """What is planted."""

    encoders: Mapping[str, Truth]
    patients: int = 200
    per_patient: int = 1
    prevalence: Mapping[str, float] = field(default_factory=lambda: {"Edema": 0.4, "Nodule": 0.3})
    studies: Sequence[int] = ()
    draws: int = 1
    heads: Sequence[str] = ("linear",)
    views: Sequence[str] = ("all",)
    datasets: Sequence[str] = ("home",)
    external: Sequence[str] = ()
    contrasts: Sequence[Sequence[str]] = ()
    resamples: int = 200
    shared: float = 0.5
    """Share of the noise's variance that all encoders have in common: of the patients, not of the encoder."""
    exposure: Mapping[str, Any] = field(default_factory=dict)
    subgroups: Sequence[str] = ()


def plant(folder: Path, suite: Suite, seed: int = 0) -> SuiteConfig:
    """Writes the rows of a suite that was fitted and opened, and returns its settings."""
    draw = np.random.default_rng(seed)
    store = Store(folder)
    labels = list(suite.prevalence)
    tasks = {
        f"findings-{name}": {
            "dataset": name,
            "test": [name, *suite.external],
            "labels": labels,
        }
        for name in suite.datasets
    }
    names = [*suite.datasets, *suite.external]
    trained = next((name for name, t in suite.encoders.items() if t.kind == "weights"), "")
    values = {
        "output": folder,
        "title": "Planted truths",
        "encoders": {
            name: {
                "kind": t.kind,
                **({"paths": [f"{name}-{i}" for i in range(t.pretrainings)]} if t.kind == "weights" else {}),
                **({"like": trained} if t.kind in ("random", "scratch") else {}),
            }
            for name, t in suite.encoders.items()
        },
        "datasets": {
            name: {"shards": f"/shards/{name}", "role": "external" if name in suite.external else "internal"}
            for name in names
        },
        "tasks": tasks,
        "heads": {"use": list(suite.heads)},
        "views": list(suite.views),
        "contrasts": [list(pair) for pair in suite.contrasts],
        "label_counts": {"studies": list(suite.studies), "draws": suite.draws},
        "trust": {"subgroups": list(suite.subgroups)},
        "statistics": {"resamples": suite.resamples},
    }  # fmt: skip
    config = from_dict(SuiteConfig, values)
    tables = {name: _table(name, suite, tasks, draw) for name in names}
    for name, table in tables.items():
        store.write_samples(name, table)
    keys = []
    common = {name: _noise(table, len(labels), draw) for name, table in tables.items()}
    for task, entry in tasks.items():
        for encoder, truth in suite.encoders.items():
            shift = (
                draw.normal(0, truth.pretraining_sd, truth.pretrainings)
                if truth.pretraining_sd
                else [0.0] * truth.pretrainings
            )
            for cell in _cells(task, suite):
                halvings = np.log2(suite.patients / cell.studies) if cell.studies else 0.0
                d = d_of(max(truth.auroc - truth.loss * halvings, 0.5))
                for p in range(truth.pretrainings):
                    for i in range(suite.draws if cell.studies else 1):
                        key = FitKey(cell, encoder, pretraining=p, draw=i)
                        this = d + shift[p] + draw.normal(0, truth.draw_sd)
                        keys.append(key)
                        seen = _fit(store, key, labels, suite, auroc_of(this))
                        for name in entry["test"]:
                            _say(
                                store,
                                seen,
                                name,
                                tables[name],
                                task,
                                this,
                                common[name],
                                suite,
                                draw,
                            )
    plan = {
        "suite": to_dict(config),
        "sha256": "0" * 64,
        "fits": [asdict(key) for key in keys],
        "label_sets": {task: {"labels": labels, "left_out": {}} for task in tasks},
        "exposure": dict(suite.exposure),
        "encoders": {
            name: {
                "described": f"planted, AUROC {t.auroc}", "dimensions": 8, "parameters": 10**6,
                "sources": [], "preprocessing": "none", "pretraining_gpu_hours": None,
            }
            for name, t in suite.encoders.items()
        },
        "datasets": {
            name: {"counts": {s: int((t.split == s).sum()) for s in ("train", "val", "test")}}
            for name, t in tables.items()
        },
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan, default=str))
    (folder / "opened.jsonl").write_text(
        json.dumps({"plan": "0" * 64, "time": "2026-01-02T03:04:05"}) + "\n"
    )
    return config


def _cells(task: str, suite: Suite) -> list[Cell]:
    return [
        Cell(task, head, views, n)
        for head in suite.heads
        for views in suite.views
        for n in [*suite.studies, ALL]
    ]


def _table(
    name: str, suite: Suite, tasks: Mapping[str, Any], draw: np.random.Generator
) -> SampleTable:
    """Patients of a test and a validation split; a patient's studies mostly show the same."""
    half = suite.patients // 2
    count = suite.patients + half
    patients = np.repeat(np.arange(count), suite.per_patient)
    n = len(patients)
    ill = np.stack([draw.random(count) < p for p in suite.prevalence.values()], axis=1)
    differs = draw.random((n, len(suite.prevalence))) < 0.1 * (suite.per_patient > 1)
    target = (ill[patients] ^ differs).astype(float)
    two = draw.random(n) < 0.6
    split = np.where(patients < suite.patients, "test", "val")
    return SampleTable(
        np.array([f"{name}-{p}-{i}" for i, p in enumerate(patients)]),
        np.array([f"{name}-{p}" for p in patients]),
        split,
        {
            "sex": np.array(["F" if p % 2 else "M" for p in patients], dtype=object),
            "age": np.array([20 + int(p * 37 % 70) for p in patients], dtype=object),
            "views": np.array([2 if t else 1 for t in two], dtype=object),
            "view": np.array(["frontal+lateral" if t else "frontal" for t in two], dtype=object),
        },
        {task: target for task, e in tasks.items() if name in e["test"]},
        {task: list(suite.prevalence) for task, e in tasks.items() if name in e["test"]},
    )


def _noise(table: SampleTable, labels: int, draw: np.random.Generator) -> np.ndarray:
    """[S, L] noise of the samples, half of its variance the patient's."""
    _, patient = np.unique(table.patient, return_inverse=True)
    of_patient = draw.normal(size=(patient.max() + 1, labels))[patient]
    return np.sqrt(0.5) * (of_patient + draw.normal(size=of_patient.shape))


def _fit(store: Store, key: FitKey, labels: list[str], suite: Suite, auroc: float) -> Fit:
    fit = Fit(
        key, labels,
        trials=[Trial({"C": c}, auroc - 0.01 * i) for i, c in enumerate((1.0, 0.1))],
        chosen={"C": [1.0] * len(labels)},
        train_studies=key.cell.studies or 2 * suite.patients * suite.per_patient,
        train_patients=key.cell.studies or 2 * suite.patients,
        val_studies=suite.patients * suite.per_patient // 2,
        dimensions=8, parameters=9 * len(labels), samples_seen=1000, seconds=1.5,
    )  # fmt: skip
    store.write_fit(fit)
    return fit


def _say(
    store: Store, fit: Fit, name: str, table: SampleTable, task: str, d: float,
    common: np.ndarray, suite: Suite, draw: np.random.Generator,
) -> None:  # fmt: skip
    """Logits with the planted d′, of all samples that the views of the cell allow."""
    own = draw.normal(size=common.shape)
    noise = np.sqrt(suite.shared) * common + np.sqrt(1 - suite.shared) * own
    base = np.log(
        np.array(list(suite.prevalence.values())) / (1 - np.array(list(suite.prevalence.values())))
    )
    # The log odds of two normals: what makes these logits calibrated.
    logit = d * (d * table.targets[task] + noise) - d * d / 2 + base
    seen = np.ones(len(table.sample), bool)
    if fit.key.cell.views in ("lateral", "both_logits", "both_features"):
        seen = table.attributes["views"] == 2
    for split in ("val", "test"):
        rows = np.flatnonzero((table.split == split) & seen)
        store.write_predictions(
            fit.key,
            name,
            split,
            fit.labels,
            Predictions(table.sample[rows], logit[rows].astype(np.float32)),
        )
