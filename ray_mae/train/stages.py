"""`pretrain` in stages: each begins with the weights of the one before, and one report is of all."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from ray_mae.checkpoint import format as ckpt
from ray_mae.config.pretrain import PretrainConfig
from ray_mae.config.stages import Stage, StagesConfig
from ray_mae.files import write_whole
from ray_mae.lock import hold
from ray_mae.store import require_store
from ray_mae.summary import write_summary
from ray_mae.terminal import console
from ray_mae.train.held_out import PREFIX
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.pretrain import finished, ready
from ray_mae.train.run_folder import CONFIG, METRICS, PROBES
from ray_mae.train.setup import targets_of

REPORT = "stages.md"
"""File with the tables, in the folder of all stages."""


def pretrain_stages(
    config: StagesConfig, pretrain: Callable[[PretrainConfig], dict[str, Any]]
) -> dict[str, Any]:
    """Trains the stages in turn; those that are finished stay as they are.

    Args:
        config: settings of all stages. A stage may be added at the end later on.
        pretrain: trains one of them.

    Returns:
        The summary that is also written to summary.json, with that of each stage.

    Raises:
        ValueError: with what to do: a stage cannot be, or was made with other settings, or other stages
            lie in the folder.
        RuntimeError: with why a stage ended.
        Interrupted: a signal ended it, after a last checkpoint of its stage.
    """
    began = time.time()
    output = config.output
    assert output is not None
    for stage in config.runs:  # all of them, before the first one takes its days
        _, _, shards = ready(stage.run)
        targets_of(stage.run, shards)
    require_store(output)
    output.mkdir(parents=True, exist_ok=True)
    with hold(output, "ray-mae pretrain"):
        done = _finished(output, config.runs)
        records = []
        for stage in config.runs:
            of = f"stage {stage.place} of {len(config.runs)}, {stage.name}"
            if stage.place <= len(done):
                console.print(f"{of}: finished, in {stage.run.output}")
                records.append(record_of(stage, done[stage.place - 1], trained=False))
            else:
                console.print(f"{of}: {stage.run.output}")
                records.append(record_of(stage, pretrain(stage.run), trained=True))
            write_whole(output / REPORT, report(records))
        console.print(as_table(stage_rows(records)))
        last = records[-1]
        return write_summary(
            output,
            {
                "command": "pretrain",
                "stages": {record["folder"]: record for record in records},
                "checkpoint": last["checkpoint"],
                "report": str(output / REPORT),
                "seconds": round(time.time() - began, 1),
            },
        )


def _finished(output: Path, stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    """The summaries of the first stages, as far as they are finished.

    Raises ValueError for a folder of other stages, and for stages whose beginning is gone.
    """
    if (output / CONFIG).is_file():
        raise ValueError(
            f"{output} is the folder of one run without stages: choose another --output"
        )
    folders = [stage.folder for stage in stages]
    others = sorted(p.name for p in output.glob("stage-*") if p.name not in folders)
    if others:
        raise ValueError(
            f"{output} holds {', '.join(others)}, and the stages are {', '.join(folders)}: choose another "
            "--output, or the stages of before, to which others may be added at the end"
        )
    done: list[dict[str, Any]] = []
    for stage in stages:
        run = stage.run.output
        if len(done) + 1 < stage.place:  # one before is not finished
            if ckpt.last_committed(run) is not None:
                raise ValueError(
                    f"{run} was begun with the weights of {folders[len(done)]}, which is not finished in "
                    f"{output}: put that back, or choose another --output"
                )
            continue
        try:
            summary = finished(stage.run)
        except ValueError as error:
            raise ValueError(f"stage {stage.place}, {stage.name}: {error}") from error
        if summary is not None:
            done.append(summary)
    return done


def record_of(stage: Stage, summary: dict[str, Any], *, trained: bool) -> dict[str, Any]:
    """Returns what the report has of a stage.

    Args:
        stage: its settings.
        summary: of its run.
        trained: whether this command trained it, or found it finished.
    """
    run: PretrainConfig = stage.run
    metrics, probes = (read_jsonl(run.output / name) for name in (METRICS, PROBES))
    names = ("loss", *run.method.losses)
    held_out = [m for m in metrics if f"{PREFIX}loss" in m]
    record: dict[str, Any] = {
        "folder": stage.folder,
        "method": run.method.name,
        "steps": summary["steps"],
        "samples": summary["samples"],
        "losses": _losses(metrics, names),
        "held_out_losses": _losses(held_out, names, PREFIX),
        "checkpoint": summary["checkpoint"],
        "trained_now": trained,
    }
    if probes:
        record["probe"] = {
            name: probes[-1][name]
            for name in ("step", "probe_auroc", "probe_auroc_low", "probe_auroc_high", "labels")
        }
    if "labels_read" in summary:
        record["labels_read"] = summary["labels_read"]
    return record


def _losses(
    metrics: list[dict[str, Any]], names: tuple[str, ...], prefix: str = ""
) -> dict[str, list[float]]:
    """By name the first and the last value in the metrics of a run, as far as it has them."""
    found = {}
    for name in names:
        values = [record[prefix + name] for record in metrics if prefix + name in record]
        if values:
            found[name] = [values[0], values[-1]]
    return found


def stage_rows(records: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Returns the table of the stages, as texts by the titles of its columns."""
    rows = []
    for place, record in enumerate(records, 1):
        probe = record.get("probe")
        read = record.get("labels_read")
        rows.append(
            {
                "stage": f"{place}, {record['folder'].split('-', 2)[2]}",
                "method": record["method"],
                "steps": f"{record['steps']:,}",
                "loss": _change(record["losses"].get("loss")),
                "held-out loss": _change(record["held_out_losses"].get("loss")),
                "probe AUROC": _auroc(probe) if probe else "–",
                "labels": "read" if read else "not read",
            }
        )
    return rows


def _change(values: list[float] | None) -> str:
    return "–" if values is None else f"{values[0]:.3g} → {values[1]:.3g}"


def _auroc(probe: dict[str, Any]) -> str:
    low, high = probe["probe_auroc_low"], probe["probe_auroc_high"]
    return f"{probe['probe_auroc']:.3f} [{low:.3f}, {high:.3f}]"


def as_table(rows: list[dict[str, str]]) -> Table:
    """Returns them for the terminal."""
    table = Table(box=None, pad_edge=False)
    for title in rows[0]:
        table.add_column(title)
    for row in rows:
        table.add_row(*row.values())
    return table


def report(records: list[dict[str, Any]]) -> str:
    """Returns the report of the stages so far, in Markdown."""
    parts = [
        "# Pretraining in stages",
        "Each stage is a run of its own, in the folder of its name, and began with the last weights of the "
        "one before. Losses are the first and the last of its record, held-out ones those of validation "
        "patients; those of two methods are no two values of one thing. The probe is the last online one.",
        _markdown(stage_rows(records)),
    ]
    labelled = [r for r in records if "labels_read" in r]
    if labelled:
        first = next(i for i, r in enumerate(records, 1) if "labels_read" in r)
        parts.append(
            f"From stage {first} on the encoder has learnt from labels of training patients. A probe of the "
            "same labels then measures how well they were learnt, and the stages before it what was there "
            "without them. Labels were read for:"
        )
        parts += [
            "\n".join(f"- {r['folder']}: {'; '.join(r['labels_read']['for'])}" for r in labelled)
        ]
    probed = {place: r["probe"]["labels"] for place, r in enumerate(records, 1) if "probe" in r}
    if probed:
        names = dict.fromkeys(name for labels in probed.values() for name in labels)
        rows = [
            {"label": name}
            | {f"stage {p}": f"{of[name]:.3f}" if name in of else "–" for p, of in probed.items()}
            for name in names
        ]
        parts += ["## Online probe: AUROC of each label, validation patients", _markdown(rows)]
    return "\n\n".join(parts) + "\n"


def _markdown(rows: list[dict[str, str]]) -> str:
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
