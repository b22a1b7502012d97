"""The stored rows of a suite, as the statistics take them: who is scored, and what each fit said of them."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import ALL, Cases, Cell, Fit, SampleTable
from ray_mae.benchmarking.statistics.metrics import OUTLINES, resample_weights
from ray_mae.benchmarking.statistics.uncertainty import LEAST
from ray_mae.benchmarking.store import Store, key_of
from ray_mae.config.base import from_dict
from ray_mae.config.suite import EncoderEntry, SuiteConfig, TaskEntry

Array = NDArray[np.float64]
RETRIEVAL = ("mAP@R",)
"""The score of queries that encoders are compared by: of frequent labels recall is near 1 for all."""
SCORED = ("done", "constant")
"""Statuses of fits that have predictions."""


@dataclass(frozen=True, order=True)
class Place:
    """Where fits are compared: what is asked of which samples, whatever the head and the labelled studies."""

    task: str
    dataset: str
    views: str
    held_out: str = ""

    def of(self, head: str, studies: int = ALL, validation: str = "full") -> Cell:
        return Cell(self.task, head, self.views, studies, validation, self.held_out)


@dataclass(frozen=True)
class Count:
    """Of a label among the samples of a place."""

    positive_patients: int
    negative_patients: int
    positive: int
    negative: int

    @property
    def rarer(self) -> int:
        """Patients of the rarer class."""
        return min(self.positive_patients, self.negative_patients)


@dataclass(frozen=True)
class Cohort:
    """The samples that every fit of a place is scored on: those that all have said something of."""

    place: Place
    kind: str
    rows: NDArray[np.intp]
    """[S] in the data set's table."""
    patient: NDArray[np.str_]
    """[S]"""
    target: Array
    """[S, L] NaN where unknown; of survival [S, 2]. Where each sample has scores of its own (retrieval,
    segmentation) 0, and NaN where a fit has none for it."""
    names: list[str]
    """[L] scored labels, or the number's name."""
    counts: dict[str, Count]
    macro: list[int]
    """Columns of the mean over labels: fixed before a score is looked at, the same at every number of labels
    and for every encoder."""
    left_out: dict[str, str]
    """Labels that are not in the mean, and why."""
    missed: int
    """Samples that some fit said nothing of."""

    def rarer(self, name: str) -> int:
        """Patients of the rarer class; of numbers and of regions all of whom it is known."""
        if name in self.counts:
            return self.counts[name].rarer
        return len(np.unique(self.patient[self.known(self.names.index(name))]))

    def known(self, column: int) -> NDArray[np.bool_]:
        """[S] whether the target is known."""
        if self.kind == "survival":
            return np.asarray(~np.isnan(self.target).any(1))
        return np.asarray(~np.isnan(self.target[:, column]))

    def truth(self, column: int) -> Array:
        """[S], of survival [S, 2]."""
        if self.kind == "survival":
            return self.target
        return self.target[:, column]

    @property
    def label_set(self) -> str:
        """Hash of the labels of the mean."""
        text = "\n".join(self.names[i] for i in self.macro)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class Results:
    """Everything that was stored of a suite.

    Args:
        store: of its folder.
        config: of the report; what the plan fixed (encoders, tasks, planned contrasts) is the plan's.
    """

    def __init__(self, store: Store, config: SuiteConfig) -> None:
        self.store, self.config = store, config
        self.plan: dict[str, Any] = store.plan
        planned = self.plan.get("suite")
        self.suite = from_dict(SuiteConfig, planned) if planned else config
        self.statistics = config.statistics
        planned_fits = {key.id for key in list(store.keys())} if "fits" in self.plan else None
        self.fits = [  # those of an earlier plan are none of this table
            fit for fit in store.fits() if planned_fits is None or fit.key.id in planned_fits
        ]
        self.tables: dict[str, SampleTable] = {}
        self._cases: dict[tuple[str, str], Cases] = {}
        self._said: dict[tuple[str, str, str], tuple[dict[str, int], Array]] = {}
        self._weights: dict[str, tuple[dict[str, int], NDArray[np.uint16]]] = {}
        for dataset in self.suite.datasets:
            if (store.folder / "samples" / f"{dataset}.parquet").is_file():
                self.tables[dataset] = store.samples(dataset)

    def encoder(self, name: str) -> EncoderEntry:
        return self.suite.encoders[name]

    def task(self, name: str) -> TaskEntry:
        return self.suite.tasks[name]

    @property
    def baselines(self) -> list[str]:
        """Encoders that stand in the place of one."""
        return [n for n, e in self.suite.encoders.items() if e.kind != "weights"]

    def exposure(self, encoder: str, dataset: str) -> dict[str, Any]:
        """What its pretraining saw of the test patients: a record with state and why."""
        told = self.plan.get("exposure", {}).get(encoder, {}).get(dataset)
        if told is not None:
            return dict(told)
        state = "unknown" if self.encoder(encoder).kind == "weights" else "none"
        return {"state": state, "why": "not told by the plan" if state == "unknown" else ""}

    def exposure_over_folds(self, encoder: str, dataset: str) -> dict[str, Any]:
        """The same of all patients of a small data set, whom folds test."""
        told = self.plan.get("exposure_of_folds", {}).get(encoder, {}).get(dataset)
        return self.exposure(encoder, dataset) if told is None else dict(told)

    def fitted_elsewhere(self, place: Place) -> dict[str, Any]:
        """Test samples of patients whom heads were fitted to or chosen by on another data set: a record with
        the number of patients and the samples; empty where there are none."""
        found: dict[str, Any] = (
            self.plan.get("fitted_elsewhere", {}).get(place.task, {}).get(place.dataset, {})
        )
        return found

    def unseen(self, encoder: str, dataset: str) -> bool:
        return bool(self.exposure(encoder, dataset)["state"] == "none")

    # --------------------------------------------------------------------------------- what was said

    def said(self, fit: Fit, dataset: str, split: str) -> tuple[dict[str, int], Array] | None:
        """Rows by sample and values [T, L] of one fit; None where there are none."""
        address = (fit.key.id, dataset, split)
        if address not in self._said:
            if not self.store.has_predictions(fit.key, dataset, split):
                return None
            if self.task(fit.key.cell.task).kind == "segmentation":
                cases = self.cases(fit, dataset)
                rows = {sample: i for i, sample in enumerate(cases.sample.tolist())}
                self._said[address] = rows, cases.values[OUTLINES[0]]
                return self._said[address]
            found = self.store.predictions(fit.key, dataset, split)
            rows = {sample: i for i, sample in enumerate(found.sample.tolist())}
            self._said[address] = rows, found.values.astype(np.float64)
        return self._said[address]

    def cases(self, fit: Fit, dataset: str) -> Cases:
        """What a fit of a task of segmentation outlined in the test volumes of a data set."""
        address = (fit.key.id, dataset)
        if address not in self._cases:
            self._cases[address] = self.store.cases(fit.key, dataset)
        return self._cases[address]

    def scored(self, dataset: str) -> dict[Cell, dict[str, list[Fit]]]:
        """Fits with predictions of a data set's test samples, by cell and encoder in the suite's order."""
        found: dict[Cell, dict[str, list[Fit]]] = {}
        for fit in self.fits:
            if fit.status in SCORED and self.said(fit, dataset, "test") is not None:
                found.setdefault(fit.key.cell, {}).setdefault(fit.key.encoder, []).append(fit)
        order = list(self.suite.encoders)
        return {
            cell: {name: by[name] for name in order if name in by}
            for cell, by in sorted(found.items())
        }

    @cached_property
    def places(self) -> dict[Place, dict[Cell, dict[str, list[Fit]]]]:
        """The cells of each place, in the order of tasks, tests and views of the suite."""
        found: dict[Place, dict[Cell, dict[str, list[Fit]]]] = {}
        scored = {dataset: self.scored(dataset) for dataset in self.tables}
        for task, entry in self.suite.tasks.items():
            for dataset in entry.tested_on:
                cells = {c: by for c, by in scored.get(dataset, {}).items() if c.task == task}
                views = list(dict.fromkeys([*self.suite.views, *sorted({c.views for c in cells})]))
                for held_out in sorted({c.held_out for c in cells}):
                    for view in views:
                        here = {
                            c: by
                            for c, by in cells.items()
                            if c.views == view and c.held_out == held_out
                        }
                        if here:
                            found[Place(task, dataset, view, held_out)] = here
        return found

    # ------------------------------------------------------------------------------------ who is scored

    @cached_property
    def cohorts(self) -> dict[Place, Cohort]:
        return {place: self._cohort(place, cells) for place, cells in self.places.items()}

    def _cohort(self, place: Place, cells: Mapping[Cell, Mapping[str, list[Fit]]]) -> Cohort:
        table, entry = self.tables[place.dataset], self.task(place.task)
        fits = [fit for by in cells.values() for of in by.values() for fit in of]
        said: list[set[str]] = []
        for fit in fits:
            found = self.said(fit, place.dataset, "test")
            assert found is not None  # `scored` has looked
            said.append(set(found[0]))
        everybody, common = set.union(*said), set.intersection(*said)
        rows = np.flatnonzero(np.isin(table.sample, sorted(common)))
        if place.held_out:
            values = table.attributes.get(entry.leave_out or "")
            if values is not None:
                rows = rows[[str(values[i]) == place.held_out for i in rows]]
        if entry.kind in ("labels", "number", "survival"):
            target, names = table.targets[place.task][rows], list(table.names[place.task])
        else:
            names = list(fits[0].labels)
            samples = table.sample[rows].tolist()
            target = np.zeros((len(rows), len(names)))
            for fit in fits:
                index, values = self.said(fit, place.dataset, "test") or ({}, target)
                target[np.isnan(values[[index[s] for s in samples]])] = np.nan
        if entry.kind == "survival":
            names = names[:1]
        return self._limited(
            Cohort(
                place, entry.kind, rows, table.patient[rows], target, names, {}, [], {},
                len(everybody) - len(common),
            )
        )  # fmt: skip

    def _limited(self, cohort: Cohort) -> Cohort:
        """With the labels that its samples have patients enough of, by the rule that the plan fixed."""
        task, names = cohort.place.task, cohort.names
        entry = self.task(task)
        counts: dict[str, Count] = {}
        left_out = self._planned_left_out(task)
        if entry.kind == "labels":
            least = max(LEAST, entry.least_patients)
            for i, name in enumerate(names):
                counts[name] = count = _count(cohort.target[:, i], cohort.patient)
                if count.rarer < least:
                    left_out.setdefault(
                        name,
                        f"{count.positive_patients} patients with it and {count.negative_patients} without "
                        f"it in the test; {least} of each are needed",
                    )
        chosen = entry.macro or self._planned_labels(task) or names
        if entry.kind == "segmentation":
            for i, name in enumerate(names):
                have = len(np.unique(cohort.patient[cohort.known(i)]))
                if have < max(LEAST, entry.least_patients):
                    left_out.setdefault(
                        name,
                        f"{have} patients have it in the test; "
                        f"{max(LEAST, entry.least_patients)} are needed",
                    )
        if entry.kind == "retrieval":
            chosen = [name for name in RETRIEVAL if name in names] or names
        for name in names:
            if name not in chosen:
                left_out.setdefault(name, "not among the labels that the plan takes the mean over")
        macro = [i for i, name in enumerate(names) if name not in left_out]
        return replace(cohort, counts=counts, macro=macro, left_out=left_out)

    def restricted(self, cohort: Cohort, keep: NDArray[np.bool_]) -> Cohort:
        """The cohort with some of its samples alone [S]; its labels are decided upon anew."""
        return self._limited(
            replace(
                cohort,
                rows=cohort.rows[keep],
                patient=cohort.patient[keep],
                target=cohort.target[keep],
            )
        )

    def labels_of_mean(self, task: str) -> list[str]:
        """Of a task of labels, those that the plan takes the mean over, whoever is tested."""
        left_out = self._planned_left_out(task)
        chosen = self.task(task).macro or self._planned_labels(task)
        return [name for name in chosen if name not in left_out]

    def _planned_labels(self, task: str) -> list[str]:
        """Labels that training and validation have patients enough of."""
        told = self.plan.get("label_sets", {}).get(task, [])
        return list(told.get("labels", [])) if isinstance(told, Mapping) else list(told)

    def _planned_left_out(self, task: str) -> dict[str, str]:
        told = self.plan.get("label_sets", {}).get(task, [])
        return dict(told.get("left_out", {})) if isinstance(told, Mapping) else {}

    def values(self, fit: Fit, cohort: Cohort) -> Array:
        """[S, L] what a fit said, in the cohort's order of samples and labels.

        A label without a value for anybody is a constant: it cannot tell one class from the other. Single
        samples without one have the mean of the others.
        """
        found = self.said(fit, cohort.place.dataset, "test")
        assert found is not None
        return self.aligned(
            fit, found, self.tables[cohort.place.dataset].sample[cohort.rows], cohort
        )

    def validation(self, fit: Fit, cohort: Cohort, column: int) -> tuple[Array, Array] | None:
        """Targets and logits [V] of one label of the validation patients of the data set that the head was
        fitted on; None without its predictions of them."""
        task = cohort.place.task
        dataset = self.task(task).dataset
        said, table = self.said(fit, dataset, "val"), self.tables.get(dataset)
        if said is None or table is None or task not in table.targets:
            return None
        index = {sample: row for row, sample in enumerate(table.sample.tolist())}
        samples = np.array([s for s in said[0] if s in index])
        rows = np.array([index[s] for s in samples], dtype=np.intp)
        target = table.targets[task][rows, table.names[task].index(cohort.names[column])]
        logit = self.aligned(fit, said, samples, cohort)[:, column]
        known = ~np.isnan(target)
        return target[known], logit[known]

    def outlined(self, fit: Fit, cohort: Cohort) -> Array:
        """[S, L, M] what is measured of a segmentation, by OUTLINES."""
        cases = self.cases(fit, cohort.place.dataset)
        index = {sample: i for i, sample in enumerate(cases.sample.tolist())}
        samples = self.tables[cohort.place.dataset].sample[cohort.rows].tolist()
        columns = [cases.labels.index(name) for name in cohort.names]
        rows = np.ix_([index[sample] for sample in samples], columns)
        return np.stack([cases.values[name][rows] for name in OUTLINES], axis=2)

    @staticmethod
    def aligned(
        fit: Fit, found: tuple[dict[str, int], Array], samples: NDArray[np.str_], cohort: Cohort
    ) -> Array:
        """[S, L] of the samples and the cohort's labels."""
        index, said = found
        taken = said[[index[sample] for sample in samples.tolist()]]
        if cohort.kind == "survival":
            columns = taken[:, :1]
        else:
            at = {label: i for i, label in enumerate(fit.labels)}
            nothing = np.full(len(taken), np.nan)
            columns = np.stack(
                [taken[:, at[name]] if name in at else nothing for name in cohort.names], axis=1
            )
        missing = np.isnan(columns)
        if missing.any():
            some = ~missing.all(0)
            means = np.zeros(columns.shape[1])
            means[some] = np.nanmean(columns[:, some], axis=0)
            columns = np.where(missing, means, columns)
        return columns

    # ---------------------------------------------------------------------------------------- resamples

    def weights(self, dataset: str, patient: NDArray[np.str_]) -> NDArray[np.uint16]:
        """Weights [S, 1 + R] of samples by their patients: the same for all encoders, tasks and views."""
        if dataset not in self._weights:
            places = [c for p, c in self.cohorts.items() if p.dataset == dataset]
            patients = np.unique(np.concatenate([cohort.patient for cohort in places]))
            # Data sets are independent of each other, their resamples likewise.
            digest = hashlib.sha256(dataset.encode()).digest()
            seed = int.from_bytes(digest[:4], "big") + self.statistics.seed
            table = resample_weights(patients, self.statistics.resamples, seed)
            self._weights[dataset] = {p: i for i, p in enumerate(patients.tolist())}, table
        index, table = self._weights[dataset]
        return table[[index[p] for p in patient.tolist()]]

    def statuses(self) -> Counter[str]:
        """How many fits ended how; those of the plan without a row are missing."""
        found = Counter(fit.status for fit in self.fits)
        there = {fit.key.id for fit in self.fits}
        missing = (
            sum(key_of(values).id not in there for values in self.plan["fits"])
            if "fits" in self.plan
            else 0
        )
        if missing:
            found["missing"] = missing
        return found


def _count(target: Array, patient: NDArray[np.str_]) -> Count:
    return Count(
        *(len(np.unique(patient[target == one])) for one in (1, 0)),
        *(int(np.sum(target == one)) for one in (1, 0)),
    )
