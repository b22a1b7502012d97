"""The command `ingest`: list an archive, plan its shards, and write each in a Ray Data task."""

import json
import time
from array import array
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.cluster.runtime import cluster, within_reach
from ray_mae.config import IngestConfig
from ray_mae.data.archives import READERS, VOLUME_READERS
from ray_mae.data.ingest import studies as study_shards
from ray_mae.data.ingest import volumes as volume_shards
from ray_mae.data.ingest.earlier import check_plans, check_settings, write_settings
from ray_mae.data.ingest.faces import caution_of, describe_faces
from ray_mae.data.ingest.layout import earlier_pseudonyms, write_layout
from ray_mae.data.ingest.look_alikes import keep_together
from ray_mae.data.ingest.quarantine_table import short
from ray_mae.data.ingest.reports import REVIEW, write_review
from ray_mae.data.ingest.shards import RESULTS, IngestJob, ShardPlan, earlier_result, write_shard
from ray_mae.data.parallel_map import parallel_map
from ray_mae.data.paths import list_folder, make_private_folder, remove, resolve_path
from ray_mae.data.privacy.pseudonyms import load_key
from ray_mae.data.quarantine import QuarantineRow
from ray_mae.data.schema import NOUNS, SCHEMA_VERSION, SPLITS, Manifest, Shard
from ray_mae.data.stored_form import stored_form
from ray_mae.lock import hold
from ray_mae.summary import write_summary
from ray_mae.terminal import ProgressLine

QUARANTINE = "quarantine.parquet"
NAMED_BY_PATHS = frozenset({"bids", "brats", "nifti"})
"""Archives in which the names of folders and files say who is a patient."""
_PLURAL = {**NOUNS, "image": "images", "report": "reports"}


def ingest(config: IngestConfig) -> dict[str, Any]:
    """Turn an archive into shards, a manifest and a quarantine table.

    Started again it keeps the shards that are complete and does the others; shards of other settings are
    written anew only where `overwrite` says so. A study, image or volume
    that cannot be used never stops the job.

    Args:
        config: the settings of `ray-mae ingest`.

    Returns:
        The summary, as it is written to summary.json: what came in and went out, what is in quarantine
        and why, and counts by split.

    Raises:
        ValueError, FileNotFoundError: in a sentence, for what is wrong with the archive or the settings
            as a whole.
        InUseError: another `ingest` writes into the same folder.
    """
    start = time.monotonic()
    load_key(
        config.pseudonym_key, config.insecure_pseudonyms
    )  # before anything else, if there is none
    if config.validation_share + config.test_share >= 1:
        raise ValueError(
            f"validation_share + test_share must be less than 1, got {config.validation_share} + "
            f"{config.test_share}: nothing would be left to train on"
        )
    config = _with_absolute_paths(config)
    _check_dataset(config)
    pseudonyms = _how_pseudonyms_are_made(config)
    key = load_key(
        config.pseudonym_key,
        config.insecure_pseudonyms,
        config.dataset if pseudonyms == "public by data set" else None,
    )
    check_settings(config, key)
    config.output.mkdir(parents=True, exist_ok=True)
    with hold(config.output, "ray-mae ingest"), cluster():
        return _ingest(config, key, pseudonyms, start)


def _how_pseudonyms_are_made(config: IngestConfig) -> str:
    """One of PSEUDONYMS. What was ingested with the public key of earlier versions goes on with it."""
    if not config.insecure_pseudonyms:
        return "secret"
    earlier = earlier_pseudonyms(config.output / RESULTS)
    return "public" if earlier == "public" else "public by data set"


def _ingest(config: IngestConfig, key: bytes, pseudonyms: str, start: float) -> dict[str, Any]:
    output = config.output
    progress = ProgressLine("listed", "files").show
    if config.archive in VOLUME_READERS:
        volumes = VOLUME_READERS[config.archive](config, progress)
        if config.archive in NAMED_BY_PATHS:
            print(volume_shards.describe_sample(list(volumes.records)), flush=True)
        _print_warnings(volumes.warnings)
        root, plan = volumes.root, partial(volume_shards.prepare, volumes, config, key)
        del volumes
    else:
        images = READERS[config.archive](config, progress)
        _print_warnings(images.warnings)
        root, plan = images.root, partial(study_shards.prepare, images, config, key)
        del images
    job, look_alikes = plan(), None
    if config.leaks == "keep_together":
        print("looking at every image for patients who look alike", flush=True)
        job, look_alikes = keep_together(job, root, plan)
    del plan  # what was listed is in the plans of shards
    check_plans(config, job.plans)
    make_private_folder(output / RESULTS)
    write_settings(config, key)
    remove(output / Manifest.FILE)  # from here on the shards are on the move
    patients = _Patients()
    write_layout(output / RESULTS, job.per_shard, pseudonyms, map(patients.add_plan, job.plans))
    results, earlier_files = _write_shards(job, root, output)

    _check_nothing_is_lost(job, results)
    job.quarantine.write(output / QUARANTINE, output / RESULTS)
    waiting = write_review(
        output,
        output / RESULTS,
        chain.from_iterable(result.pop("review", ()) for result in results),
    )
    if not any(result["rows"] for result in results):
        reason, times = next(iter(job.quarantine.reasons(next(iter(job.listed))).items()))
        raise ValueError(
            f"not one {job.kind} of {config.source} could be used, most often ({times} times) for the "
            f"reason {reason!r}: see {output / QUARANTINE}"
        )
    _remove_old_shards(output, {result["file"] for result in results})
    _manifest(job, config, results, pseudonyms).write(output)

    summary = _summary(config, job, results, patients) | {"pseudonyms": pseudonyms}
    if waiting:
        summary["reports_to_review"] = {"reports": waiting, "file": str(output / REVIEW)}
    if look_alikes is not None:
        summary["look_alikes"] = look_alikes
    seconds = time.monotonic() - start
    written = sum(result["images"] for result in results if result["file"] not in earlier_files)
    summary |= {
        "shards": {"written": len(results) - len(earlier_files), "kept": len(earlier_files)},
        "seconds": round(seconds, 2),
        f"{_PLURAL[next(iter(job.listed))]}_per_second": round(written / seconds, 2),
    }
    return write_summary(output, summary)


def _print_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", flush=True)


def _with_absolute_paths(config: IngestConfig) -> IngestConfig:
    """The settings with every path absolute, since workers may have another working folder."""
    table, model = config.volumes.table, config.names.model
    return replace(
        config,
        source=resolve_path(config.source),
        output=resolve_path(config.output),
        reports=config.reports and resolve_path(config.reports),
        tables=config.tables and resolve_path(config.tables),
        volumes=replace(config.volumes, table=table and resolve_path(table)),
        names=replace(config.names, model=model and resolve_path(model)),
    )


def _check_dataset(config: IngestConfig) -> None:
    """Raise ValueError if the output folder holds another data set."""
    output = config.output
    manifest = output / Manifest.FILE
    if manifest.is_file():
        dataset = json.loads(manifest.read_text()).get("dataset")
        if dataset != config.dataset:
            raise ValueError(
                f"{output} holds the shards of {dataset!r}, not of {config.dataset!r}: choose "
                "another output folder, or remove this one"
            )


def _write_shards(
    job: IngestJob, root: Path, output: Path
) -> tuple[list[dict[str, Any]], set[str]]:
    """Write the shards; the result of every plan, in order, and the files kept from an earlier run.

    What the shards leave out goes to the job's quarantine.
    """
    results: dict[str, dict[str, Any]] = {}
    earlier_files: set[str] = set()
    expected = 0
    for plan in job.plans:
        if result := earlier_result(plan, root, output):
            earlier_files.add(plan.file)
        else:
            expected += plan.entries
        # an empty one keeps the order of the plans
        results[plan.file] = _take_quarantined(job, result) if result else {}
    if expected and not within_reach("CPU"):
        print("the cluster has no CPUs now: the work waits until it has grown", flush=True)
    entry = next(iter(job.listed))
    progress, done = ProgressLine("wrote", _PLURAL[entry]), 0
    kind = job.plan  # not the job: what the task names travels to the workers
    for result in parallel_map(
        lambda fields: write_shard(kind.from_json(fields), root, output),
        (plan for plan in job.plans if plan.file not in earlier_files),
    ):
        if result["rows"] and not (output / result["file"]).is_file():
            raise ValueError(
                f"a worker wrote {result['file']}, but it is not in {output} as seen from here: the "
                "output must be a folder that every node of the cluster sees under this path"
            )
        done += result["images"] + sum(r["kind"] == entry for r in result["quarantined"])
        results[result["file"]] = _take_quarantined(job, result)
        progress.show(done, expected)
    for name, _ in list_folder(output / RESULTS):
        if name.endswith(".unfinished"):  # of workers that were killed
            remove(output / RESULTS / name)
    return list(results.values()), earlier_files


def _take_quarantined(job: IngestJob, result: dict[str, Any]) -> dict[str, Any]:
    """The result of a shard without its rows of the quarantine table, which are added to the job's."""
    for row in result.pop("quarantined"):
        job.quarantine.add(QuarantineRow(**row))
    return result


def _check_nothing_is_lost(job: IngestJob, results: list[dict[str, Any]]) -> None:
    """Raise RuntimeError unless everything that came in went out or into quarantine."""
    for kind, listed in job.listed.items():
        written = _written(results, kind)
        quarantined = job.quarantine.count(kind)
        if listed != written + quarantined:
            raise RuntimeError(
                f"{listed} {kind} entries were listed, but {written} written and {quarantined} "
                "quarantined: this is a defect of ray_mae, please report it"
            )


def _written(results: list[dict[str, Any]], kind: str) -> int:
    return sum(result["counts"].get(kind, 0) for result in results)


def _remove_old_shards(output: Path, current: set[str]) -> None:
    """Remove shards that an earlier run with other settings left, by the notes on them."""
    for name, _ in list_folder(output / RESULTS):
        file = name.removesuffix(".json")
        if name.endswith(".parquet.json") and file not in current:
            remove(output / file)
            remove(output / RESULTS / name)


def _manifest(
    job: IngestJob, config: IngestConfig, results: list[dict[str, Any]], pseudonyms: str
) -> Manifest:
    fields = ("file", "split", "rows", "row_groups", "images", "bytes", "sha256")
    shards = [
        Shard(**{name: result[name] for name in fields}, footer=result.get("footer", ""))
        for result in results
        if result["rows"]
    ]
    order = {split: i for i, split in enumerate(SPLITS)}
    shards.sort(key=lambda shard: (order[shard.split], shard.file))
    spacing = config.volumes.spacing_mm if job.kind == "volume" else None
    return Manifest(
        job.kind,
        config.dataset,
        SCHEMA_VERSION,
        shards,
        spacing,
        pseudonyms,
        faces=_faces(job, results),
        form=stored_form(job.kind, config, results),
        **job.manifest,
    )


def _faces(job: IngestJob, results: list[dict[str, Any]]) -> dict[str, int] | None:
    """Volumes by FACES; None of studies."""
    if job.kind != "volume":
        return None
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result["counts"])
    return describe_faces(counts)


def _summary(
    config: IngestConfig, job: IngestJob, results: list[dict[str, Any]], patients: "_Patients"
) -> dict[str, Any]:
    """What came in, what went out, what did not and why."""
    lost = job.quarantine.samples(job.kind)
    splits = {}
    for split in SPLITS:
        counts: Counter[str] = Counter()
        for result in results:
            if result["split"] == split:
                counts.update(result["counts"])
        splits[split] = {
            _PLURAL[job.kind]: counts[job.kind],
            "patients": patients.count(split, lost),
            **job.describe(counts),
        }
    quarantined = {kind: job.quarantine.reasons(kind) for kind in job.listed}
    flows = {
        _PLURAL[kind]: {
            "in": listed,
            "out": _written(results, kind),
            "quarantined": sum(quarantined[kind].values()),
        }
        for kind, listed in job.listed.items()
    }
    empty = [name for name, split in splits.items() if not split["patients"]]
    caution = f"no patient is in {' and '.join(empty)}: " + (
        "there is nothing to pretrain on"
        if "train" in empty
        else "a probe or fine-tuning needs some; more patients, another patient identifier, or larger "
        "shares would bring them"
    )
    return {
        "archive": config.archive,
        "dataset": config.dataset,
        "caution": caution if empty else None,
        "caution_faces": caution_of(_faces(job, results) or {}),
        **flows,
        "quarantined": quarantined,
        "splits": splits,
        "bytes": sum(result["bytes"] for result in results if result["rows"]),
        "notes": job.notes,
    }


class _Patients:
    """The patients of each split: 16 bytes for each study or volume."""

    def __init__(self) -> None:
        self._by_split = {split: (array("Q"), array("Q")) for split in SPLITS}

    def add_plan(self, plan: ShardPlan) -> tuple[str, list[str]]:
        """Count the patients of a plan. Returns its file and samples, as the layout wants them."""
        samples, patients = self._by_split[plan.split]
        for sample, patient in plan.samples:
            samples.append(short(sample))
            patients.append(short(patient))
        return plan.file, [sample for sample, _ in plan.samples]

    def count(self, split: str, lost: NDArray[np.uint64]) -> int:
        """Patients with a sample that is not lost."""
        samples, patients = (np.array(column, np.uint64) for column in self._by_split[split])
        return len(np.unique(patients[~np.isin(samples, lost)]))
