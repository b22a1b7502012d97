"""The files of a benchmark: plan, fits, samples and predictions, each written whole or not at all.

plan.json               what was fixed before the test labels were opened, and its hash
opened.jsonl            when which plan was opened
fitting/DATASET.parquet who is in a data set, with targets of training and validation patients alone
samples/DATASET.parquet the same with those of test patients, once it was opened
trust.json              what was measured besides when it was opened
fits/ID.json            a row for each fit
heads/ID.npz            what it learnt
predictions/ID/DATASET-SPLIT.parquet
                        what it said: a row for each sample; of segmentation one for each volume and region
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_mae.benchmarking.records import (
    Cases,
    Cell,
    Fit,
    FitKey,
    Predictions,
    SampleTable,
    Trial,
)
from ray_mae.files import replacing, write_whole
from ray_mae.train.metrics.jsonl import read_jsonl

PLAN, OPENED, TRUST = "plan.json", "opened.jsonl", "trust.json"
ATTRIBUTE, TARGET = "attribute:", "target:"
"""What stands before the names of columns of samples."""
SHARDS = "shards"
"""In the metadata of predictions: the fingerprint of the data set."""


class Store:
    """The results in the folder of a suite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ------------------------------------------------------------------------------------- fits

    def write_fit(self, fit: Fit) -> None:
        path = self.folder / "fits" / f"{fit.key.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(fit), indent=1) + "\n")

    def has_fit(self, key: FitKey) -> bool:
        """Whether it is finished: whatever is there is whole."""
        return (self.folder / "fits" / f"{key.id}.json").is_file()

    def forget(self, key: FitKey) -> None:
        """Removes a fit and all that it said: what is fitted anew must not be scored by old predictions."""
        (self.folder / "fits" / f"{key.id}.json").unlink(
            missing_ok=True
        )  # first: it says "finished"
        shutil.rmtree(self.folder / "predictions" / key.id, ignore_errors=True)

    def read_fit(self, key: FitKey) -> Fit:
        return _fit((self.folder / "fits" / f"{key.id}.json").read_text())

    def fits(self) -> list[Fit]:
        """All that are there, by key."""
        found = [_fit(p.read_text()) for p in sorted((self.folder / "fits").glob("*.json"))]
        return sorted(found, key=lambda fit: fit.key)

    # -------------------------------------------------------------------------------------- heads

    def write_head(self, key: FitKey, arrays: dict[str, NDArray[Any]]) -> None:
        path = self.folder / "heads" / f"{key.id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def read_head(self, key: FitKey) -> dict[str, NDArray[Any]]:
        with np.load(self.folder / "heads" / f"{key.id}.npz") as file:
            return dict(file)

    # -------------------------------------------------------------------------------- predictions

    def write_predictions(
        self,
        key: FitKey,
        dataset: str,
        split: str,
        labels: list[str],
        found: Predictions,
        shards: str = "",
    ) -> None:
        """shards: fingerprint of those that the samples are of."""
        columns = {f"{i}": pa.array(found.values[:, i]) for i in range(len(labels))}
        table = pa.table({"sample": pa.array(found.sample.tolist()), **columns})
        table = table.replace_schema_metadata({SHARDS: shards})
        path = self._predictions(key, dataset, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            pq.write_table(table, partial, compression="zstd")

    def has_predictions(
        self, key: FitKey, dataset: str, split: str, shards: str | None = None
    ) -> bool:
        """Whether they are there; with a fingerprint, whether they are of these very shards."""
        path = self._predictions(key, dataset, split)
        if shards is None or not path.is_file():
            return path.is_file()
        return (pq.read_schema(path).metadata or {}).get(SHARDS.encode()) == shards.encode()

    def predictions(self, key: FitKey, dataset: str, split: str) -> Predictions:
        table = pq.read_table(self._predictions(key, dataset, split))
        values = [table[name].to_numpy() for name in table.column_names[1:]]
        return Predictions(
            np.array(table["sample"].to_pylist(), dtype=np.str_),
            np.stack(values, axis=1).astype(np.float32),
        )

    def write_cases(self, key: FitKey, dataset: str, found: Cases, shards: str) -> None:
        """Of a segmentation, in place of predictions of the test split. shards: see `write_predictions`."""
        volumes, regions = len(found.sample), len(found.labels)
        columns = {
            "sample": np.repeat(found.sample, regions).tolist(),
            "patient": np.repeat(found.patient, regions).tolist(),
            "label": found.labels * volumes,
            **{name: values.ravel() for name, values in found.values.items()},
        }
        table = pa.table(columns).replace_schema_metadata({SHARDS: shards})
        path = self._predictions(key, dataset, "test")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            pq.write_table(table, partial, compression="zstd")

    def cases(self, key: FitKey, dataset: str) -> Cases:
        table = pq.read_table(self._predictions(key, dataset, "test"))
        sample, patient, label = (table[name].to_pylist() for name in table.column_names[:3])
        labels = list(dict.fromkeys(label))
        every = len(labels)
        values = {
            name: table[name].to_numpy().reshape(-1, every) for name in table.column_names[3:]
        }
        return Cases(np.array(sample[::every]), np.array(patient[::every]), labels, values)

    def _predictions(self, key: FitKey, dataset: str, split: str) -> Path:
        return self.folder / "predictions" / key.id / f"{dataset}-{split}.parquet"

    # ------------------------------------------------------------------------------------ samples

    def write_samples(self, dataset: str, samples: SampleTable, *, opened: bool = True) -> None:
        columns: dict[str, Any] = {
            "sample": samples.sample.tolist(),
            "patient": samples.patient.tolist(),
            "split": samples.split.tolist(),
        }
        for name, values in samples.attributes.items():
            columns[f"{ATTRIBUTE}{name}"] = values.tolist()
        for task, targets in samples.targets.items():
            for i, label in enumerate(samples.names[task]):
                columns[f"{TARGET}{json.dumps([task, label])}"] = targets[:, i].tolist()
        path = self.folder / ("samples" if opened else "fitting") / f"{dataset}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            pq.write_table(pa.table(columns), partial, compression="zstd")

    def samples(self, dataset: str, *, opened: bool = True) -> SampleTable:
        table = pq.read_table(
            self.folder / ("samples" if opened else "fitting") / f"{dataset}.parquet"
        )
        attributes: dict[str, NDArray[Any]] = {}
        targets: dict[str, list[NDArray[np.float64]]] = {}
        names: dict[str, list[str]] = {}
        for column in table.column_names:
            if column.startswith(ATTRIBUTE):
                values = np.array(table[column].to_pylist(), dtype=object)
                attributes[column.removeprefix(ATTRIBUTE)] = values
            elif column.startswith(TARGET):
                task, label = json.loads(column.removeprefix(TARGET))
                names.setdefault(task, []).append(label)
                targets.setdefault(task, []).append(table[column].to_numpy())
        sample, patient, split = (
            np.array(table[c].to_pylist(), dtype=np.str_) for c in ("sample", "patient", "split")
        )
        stacked = {task: np.stack(columns, axis=1) for task, columns in targets.items()}
        return SampleTable(sample, patient, split, attributes, stacked, names)

    # --------------------------------------------------------------------------------------- plan

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What was fixed before the opening. Raises FileNotFoundError before `benchmark fit`."""
        path = self.folder / PLAN
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run `ray-mae benchmark fit` first")
        values: dict[str, Any] = json.loads(path.read_text())
        return values

    def trust(self) -> dict[str, list[dict[str, Any]]]:
        """Records of what was measured besides: knows, variance, robustness, agreement."""
        path = self.folder / TRUST
        found: dict[str, list[dict[str, Any]]] = (
            json.loads(path.read_text()) if path.is_file() else {}
        )
        return found

    def opened(self) -> list[dict[str, Any]]:
        """A record for each opening of the test labels: plan, time."""
        return read_jsonl(self.folder / OPENED)

    def keys(self) -> Iterator[FitKey]:
        """Those of all fits that the plan names."""
        for values in self.plan["fits"]:
            yield key_of(values)


def key_of(values: dict[str, Any]) -> FitKey:
    """A key from plain values, as `asdict` gives them."""
    return FitKey(**{**values, "cell": Cell(**values["cell"])})


def _fit(text: str) -> Fit:
    values = json.loads(text)
    trials = [Trial(**trial) for trial in values.pop("trials")]
    return Fit(key=key_of(values.pop("key")), trials=trials, **values)
