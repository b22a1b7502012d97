"""Batches of samples for a classifier, and what it says of them: both in tasks of Ray Data."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_mae.data.ingest.shards import Besides, ShardPlan
from ray_mae.data.ingest.studies import StudyShardPlan
from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.schema import Row, Shard

FACTS, ARRAYS = "facts", "arrays"
"""Columns of a block with one row, a batch: JSON of what is known of its samples, and its arrays."""


@dataclass(frozen=True)
class NewFiles:
    """Decodes the files of plans, as `ingest` does."""

    root: Path
    plan: type[ShardPlan]
    names: dict[str, str]
    """The source's own names by those of the plans."""
    collator: Collator
    batch_size: int

    def read(self, fields: str) -> Iterator[pa.Table]:
        """The batches of a plan, given as JSON. What cannot be used stands in the facts of the first."""
        plan, besides = self.plan.from_json(json.loads(fields)), Besides()
        known = []
        rows = []
        for row in plan.rows(self.root, besides):
            rows.append(row)
            known.append(self._describe(plan, row, besides))
        quarantined = [asdict(entry) for entry in besides.quarantined]
        if not rows:
            yield _block([], quarantined)
        for first in range(0, len(rows), self.batch_size):
            part = slice(first, first + self.batch_size)
            arrays = self.collator.collate(rows[part], [0] * len(rows[part]))
            yield _block(known[part], [] if first else quarantined, arrays)

    def _describe(self, plan: ShardPlan, row: Row, besides: Besides) -> dict[str, Any]:
        """Name and views of a sample; those of a study's files that were taken are its views, in order."""
        if not isinstance(plan, StudyShardPlan):
            volume = next(v for v in plan.volumes if v.volume_id == row["volume_id"])  # type: ignore[attr-defined]
            return {"sample": self.names[row["volume_id"]], "path": volume.paths[0], "views": []}
        name = row["study_id"]
        aside = {entry.path for entry in besides.quarantined if entry.sample_id == name}
        study = next(s for s in plan.studies if s.study_id == name)
        paths = [image.path for image in study.images if image.path not in aside]
        views = [
            {"path": path, "view": view["view"]}
            for path, view in zip(paths, row["views"], strict=True)
        ]
        return {"sample": self.names[name], "path": None, "views": views}


@dataclass(frozen=True)
class OfShards:
    """Reads shards, whose samples have pseudonyms and no paths."""

    shards: Path
    collator: Collator
    batch_size: int

    def read(self, fields: dict[str, Any]) -> Iterator[pa.Table]:
        """The batches of one shard, given as plain fields."""
        shard = Shard(**fields)
        for group in range(len(shard.row_groups)):
            path = self.shards / shard.file
            rows = iter(read_rows(path, shard, group, self.collator.columns, wait=True))
            while part := list(islice(rows, self.batch_size)):
                known = [
                    {
                        "sample": row[f"{self.collator.kind}_id"],
                        "path": None,
                        "views": [{"path": None, "view": v["view"]} for v in row.get("views", ())],
                    }
                    for row in part
                ]
                yield _block(known, [], self.collator.collate(part, [0] * len(part)))


def _block(known: list[dict[str, Any]], quarantined: list[Any], arrays: Any = None) -> pa.Table:
    facts = json.dumps({"samples": known, "quarantined": quarantined})
    packed = pa.array([pickle.dumps(arrays)], pa.large_binary())
    return pa.table({FACTS: [facts], ARRAYS: packed})


class Predictor:
    """Lives in an actor: batches in, the same facts out, with probabilities of each sample and view."""

    def __init__(self, checkpoint: Path) -> None:
        import torch

        from ray_mae.data.kinds import of_encoder
        from ray_mae.evaluate.finetune.classifier import load_model

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_model(checkpoint).to(self._device)
        self._kind = of_encoder(self._model.encoder.settings)

    def __call__(self, block: pa.Table) -> pa.Table:
        import torch

        facts = json.loads(block[FACTS][0].as_py())
        if facts["samples"]:
            arrays = pickle.loads(block[ARRAYS][0].as_py())
            batch = self._kind.to_batch(arrays).to(self._device)
            with torch.inference_mode():
                whole, of_views = self._model.fused_and_views(batch)
            each = iter(of_views.sigmoid().tolist())
            for sample, probability in zip(facts["samples"], whole.sigmoid().tolist(), strict=True):
                sample["probability"] = probability
                for view in sample["views"]:
                    view["probability"] = next(each)
        return pa.table({FACTS: [json.dumps(facts)]})
