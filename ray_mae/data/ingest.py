"""The job that turns an archive into shards: list, group, plan, and one Ray Data task per shard."""

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.config import IngestConfig
from ray_mae.data.archives import READERS
from ray_mae.data.archives.record import Archive
from ray_mae.data.distribute import distribute
from ray_mae.data.identity import load_key
from ray_mae.data.labels import CHEXPERT_LABELS, STATE_NAMES
from ray_mae.data.quarantine import QUARANTINE_SCHEMA, Refusal
from ray_mae.data.schema import SCHEMA_VERSION, SPLITS, VIEWS, Manifest, Shard
from ray_mae.data.shards import RESULTS, Plan, finished, plan_shards, write_shard
from ray_mae.data.studies import Grouped, group
from ray_mae.runtime import connect

QUARANTINE = "quarantine.parquet"
SUMMARY = "summary.json"


def ingest(config: IngestConfig) -> dict[str, Any]:
    """Turn an archive into shards, a manifest and a quarantine table; returns the summary.

    Started again it keeps the shards that are complete and does the others. A study or an image
    that cannot be used never stops the job. Raises ValueError or FileNotFoundError, in a sentence,
    for what is wrong with the archive or the settings as a whole.
    """
    start = time.monotonic()
    key = load_key(config.pseudonym_key, config.insecure_pseudonyms)
    if config.validation_share + config.test_share >= 1:
        raise ValueError(
            f"validation_share + test_share must be less than 1, got {config.validation_share} + "
            f"{config.test_share}: nothing would be left to train on"
        )
    output = _output(config)
    connect()

    archive = READERS[config.archive](config, _Progress("listed", "files").show)
    grouped = group(
        archive.records,
        key=key,
        validation_share=config.validation_share,
        test_share=config.test_share,
        max_views=config.max_views,
    )
    plans = plan_shards(grouped.studies, config)
    (output / RESULTS).mkdir(parents=True, exist_ok=True)
    (output / Manifest.FILE).unlink(missing_ok=True)  # from here on the shards are on the move
    results, kept = _work_off(plans, archive, output)

    refusals = grouped.refusals + [
        Refusal(**refusal) for result in results for refusal in result["refusals"]
    ]
    _check_nothing_is_lost(archive, grouped, results, refusals)
    _write_quarantine(output / QUARANTINE, refusals)
    if not any(result["rows"] for result in results):
        images = Counter(r.reason for r in refusals if r.kind == "image")
        reason, times = images.most_common(1)[0]
        raise ValueError(
            f"not one study of {config.source} could be used, most often ({times} times) for the "
            f"reason {reason!r}: see {output / QUARANTINE}"
        )
    _remove_old_shards(output, {plan.file for plan in plans})
    _manifest(config, results).write(output)

    summary = _summary(config, archive, grouped, plans, results, refusals)
    seconds = time.monotonic() - start
    made = sum(result["images"] for result in results if result["file"] not in kept)
    summary |= {
        "shards": {"written": len(results) - len(kept), "kept": len(kept)},
        "seconds": round(seconds, 2),
        "images_per_second": round(made / seconds, 2),
    }
    (output / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _output(config: IngestConfig) -> Path:
    """The output folder. ValueError if it holds another data set."""
    output = config.output.absolute()
    manifest = output / Manifest.FILE
    if manifest.is_file():
        dataset = json.loads(manifest.read_text()).get("dataset")
        if dataset != config.dataset:
            raise ValueError(
                f"{output} holds the shards of {dataset!r}, not of {config.dataset!r}: choose "
                "another output folder, or remove this one"
            )
    return output


def _work_off(
    plans: list[Plan], archive: Archive, output: Path
) -> tuple[list[dict[str, Any]], set[str]]:
    """The result of every plan, in order, and the files kept from an earlier run."""
    results = {plan.file: result for plan in plans if (result := finished(plan, output))}
    kept = set(results)
    todo = [asdict(plan) for plan in plans if plan.file not in kept]
    progress, done = _Progress("wrote", "images"), 0
    images = sum(len(study["images"]) for plan in todo for study in plan["studies"])
    root = archive.root  # not the archive: what the task names travels to the workers
    for result in distribute(
        lambda fields: write_shard(Plan.from_json(fields), root, output), todo
    ):
        if result["rows"] and not (output / result["file"]).is_file():
            raise ValueError(
                f"a worker wrote {result['file']}, but it is not in {output} as seen from here: the "
                "output must be a folder that every node of the cluster sees under this path"
            )
        results[result["file"]] = result
        done += result["images"] + sum(r["kind"] == "image" for r in result["refusals"])
        progress.show(done, images)
    for leftover in (output / RESULTS).glob("*.unfinished"):
        leftover.unlink()
    return [results[plan.file] for plan in plans], kept


def _check_nothing_is_lost(
    archive: Archive, grouped: Grouped, results: list[dict[str, Any]], refusals: list[Refusal]
) -> None:
    """Raise RuntimeError unless everything that came in went out or into quarantine."""
    for kind, listed, written in (
        ("image", len(archive.records), sum(result["images"] for result in results)),
        ("study", grouped.listed, sum(result["rows"] for result in results)),
    ):
        refused = sum(refusal.kind == kind for refusal in refusals)
        if listed != written + refused:
            raise RuntimeError(
                f"{listed} {kind} entries were listed, but {written} written and {refused} "
                "quarantined: this is a defect of ray_mae, please report it"
            )


def _write_quarantine(path: Path, refusals: list[Refusal]) -> None:
    rows = sorted(
        (asdict(refusal) for refusal in refusals),
        key=lambda r: (r["kind"], r["path"] or "", r["study_id"] or ""),
    )
    for row in rows:  # names of files need not be valid text
        row["path"] = row["path"] and row["path"].encode(errors="replace").decode()
        row["detail"] = row["detail"].encode(errors="replace").decode()
    pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA), path)


def _remove_old_shards(output: Path, current: set[str]) -> None:
    """Shards that an earlier run with other settings left, by the notes on them."""
    for note in (output / RESULTS).glob("*.parquet.json"):
        file = note.name.removesuffix(".json")
        if file not in current:
            (output / file).unlink(missing_ok=True)
            note.unlink()


def _manifest(config: IngestConfig, results: list[dict[str, Any]]) -> Manifest:
    fields = ("file", "split", "rows", "row_groups", "images", "bytes", "sha256")
    shards = [
        Shard(**{name: result[name] for name in fields}) for result in results if result["rows"]
    ]
    order = {split: i for i, split in enumerate(SPLITS)}
    shards.sort(key=lambda shard: (order[shard.split], shard.file))
    return Manifest("study", config.dataset, SCHEMA_VERSION, shards)


def _summary(
    config: IngestConfig,
    archive: Archive,
    grouped: Grouped,
    plans: list[Plan],
    results: list[dict[str, Any]],
    refusals: list[Refusal],
) -> dict[str, Any]:
    """What came in, what went out, what did not and why."""
    lost = {refusal.study_id for refusal in refusals if refusal.kind == "study"}
    splits = {}
    for split in SPLITS:
        counts: Counter[str] = Counter()
        for result in results:
            if result["split"] == split:
                counts.update(result["counts"])
        studies = [s for plan in plans if plan.split == split for s in plan.studies]
        splits[split] = {
            "studies": counts["studies"],
            "patients": len({s.patient_id for s in studies if s.study_id not in lost}),
            "images": counts["images"],
            "views": {view: counts[f"views/{view}"] for view in VIEWS},
            "views_per_study": _under(counts, "views per study/"),
            "with_report": counts["with report"],
            "with_findings": counts["with findings"],
            "with_impression": counts["with impression"],
            "labels": {
                label: {name: counts[f"labels/{label}/{name}"] for name in STATE_NAMES.values()}
                for label in CHEXPERT_LABELS
            },
            "image_bytes": counts["image bytes"],
        }
    quarantined = {
        kind: dict(Counter(r.reason for r in refusals if r.kind == kind).most_common())
        for kind in ("image", "study")
    }
    return {
        "archive": config.archive,
        "dataset": config.dataset,
        "images": {
            "in": len(archive.records),
            "out": sum(result["images"] for result in results),
            "quarantined": sum(quarantined["image"].values()),
        },
        "studies": {
            "in": grouped.listed,
            "out": sum(result["rows"] for result in results),
            "quarantined": sum(quarantined["study"].values()),
        },
        "quarantined": quarantined,
        "splits": splits,
        "bytes": sum(result["bytes"] for result in results if result["rows"]),
        "notes": {
            "studies_with_several_texts": grouped.several_texts,
            "texts_without_findings_or_impression": grouped.texts_without_sections,
            **archive.notes,
        },
    }


def _under(counts: Counter[str], prefix: str) -> dict[str, int]:
    found = {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


class _Progress:
    """A line every few seconds: how much is done, how fast, and how long the rest takes."""

    EVERY = 10.0

    def __init__(self, verb: str, noun: str) -> None:
        self.verb, self.noun = verb, noun
        self.start = self.last = time.monotonic()

    def show(self, done: int, of: int) -> None:
        """Print the line, if it is time for one."""
        now = time.monotonic()
        if now - self.last < self.EVERY or not done:
            return
        self.last = now
        rate = done / (now - self.start)
        left = (of - done) / rate
        print(
            f"{self.verb} {done:,} of {of:,} {self.noun}, {rate:,.0f}/s, {left:,.0f} s left",
            flush=True,
        )
