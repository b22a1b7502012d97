"""`pretrain`: from settings to a finished run, on Ray Train."""

import json
import math
import shutil
import time
from dataclasses import replace
from typing import Any

import yaml

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.convert import FAMILIES
from ray_mae.cluster.admission import (
    admission,
    check_resources,
    cpu_reservation,
    worker_resources,
)
from ray_mae.cluster.pending_nodes import report_pending_nodes
from ray_mae.cluster.runtime import cluster
from ray_mae.config import AnyPretrainConfig, PretrainConfig
from ray_mae.config.base import flatten, to_dict
from ray_mae.data.loading.tokenizer import load_tokenizer, train_tokenizer, training_reports
from ray_mae.data.schema import Manifest
from ray_mae.terminal import console
from ray_mae.train.forecast.tables import Opening, as_table, plan_rows
from ray_mae.train.metrics.progress import Progress
from ray_mae.train.metrics.prometheus import RunGauges
from ray_mae.train.metrics.run_log import METRICS, begin_attempt, read_events, read_jsonl
from ray_mae.train.metrics.trackers import Listeners, open_trackers
from ray_mae.train.recovery.lost_samples import unreadable_rows
from ray_mae.train.run_storage import replace_whole
from ray_mae.train.setup import Plan, check_sizes, make_plan, text_of
from ray_mae.train.trainer import Probe, fit

CONFIG = "config.yaml"
_FREE_TO_CHANGE = {
    *("shards", "output", "weights"),
    *("scaling", "checkpoint", "tracking", "probe", "max_skipped", "corrupt"),
}
"""Settings that may differ when a run is continued."""


def pretrain(config: AnyPretrainConfig, probe: Probe | None = None) -> dict[str, Any]:
    """Train to the last step, from the last committed checkpoint if the run has one.

    probe: called for checkpoints, in tasks of its own; see `ray_mae.pretrain`.
    Returns the summary that is also written to summary.json. Raises ValueError or
    FileNotFoundError with what to do before any worker is asked for.
    """
    began = time.time()
    config = replace(config, shards=config.shards.resolve(), output=config.output.resolve())
    manifest = Manifest.read(config.shards)
    plan = make_plan(config, manifest)
    config.output.mkdir(parents=True, exist_ok=True)
    first_step = _first_step(config)
    if not first_step:  # of a start that came to no checkpoint
        shutil.rmtree(config.output / ckpt.BEST, ignore_errors=True)
    tokenizer = _tokenizer(config, manifest, first_step)
    check_sizes(config.method)
    if config.weights:  # a run that goes on has its own, and those of before may be gone
        given = config.weights.resolve()
        config = replace(config, weights=given if first_step else ckpt.find_checkpoint(given))
    document = yaml.safe_dump(to_dict(config), sort_keys=False)
    replace_whole(config.output / CONFIG, document.encode())
    console.print(as_table(plan_rows(config, plan, f"in {config.shards}", first_step)))
    if first_step < plan.steps:
        trackers = open_trackers(config, _tracked(config))
        attempt = begin_attempt(config.output)
        # one CPU more than the workers keep, for the tasks that read data
        keep = math.ceil(config.scaling.most * config.scaling.cpus_per_worker)
        with cluster(cpus=keep + 1 + (config.probe.cpus if probe else 0)):
            check_resources(config)
            with admission(config, bool(probe)), cpu_reservation(config, bool(probe)):
                listeners = Listeners(
                    [RunGauges(config.output, plan.steps), *trackers], console.print
                )
                progress = Progress(
                    config.output,
                    began,
                    attempt,
                    plan.kind,
                    Opening(config, plan, manifest),
                    listeners,
                )
                with progress, report_pending_nodes(worker_resources(config)):
                    fit(config, manifest, tokenizer, attempt, probe)
        events = read_events(config.output, attempt)
    else:
        events = [{"event": "nothing to do", "time": began, "first_step": first_step}]
    return _summary(config, plan, began, events)


def _first_step(config: AnyPretrainConfig) -> int:
    """The step to go on with; refuses to go on with settings that make another run of it."""
    last = ckpt.last_committed(config.output)
    if last is None:
        _require_no_lost(config)
        return 0
    state = ckpt.read_state(last)
    # through the schema, so that a setting that came later has its default in an older run, too
    before, now = (flatten(to_dict(c)) for c in (ckpt.read_config(last), config))
    changed = [
        path
        for path, value in now.items()
        if not _FREE_TO_CHANGE & {*path.split(".")} and before.get(path) != value
    ]
    stage, was = config.engine.zero_stage, state["zero_stage"]
    if "engine.zero_stage" in changed:
        if FAMILIES[stage] != FAMILIES[was]:
            raise ValueError(
                f"{last} was written with ZeRO {was}, and ZeRO {stage} cannot read its optimiser states: "
                f"continue with engine.zero_stage {FAMILIES[was]}, or begin another run from its weights "
                f"alone with --weights {last} and another --output"
            )
        changed.remove("engine.zero_stage")
    if config.engine.precision in ("auto", state.get("precision")):  # the workers look what auto is
        changed = [path for path in changed if path != "engine.precision"]
    if changed:
        raise ValueError(
            f"{config.output} holds a run with other settings ({', '.join(changed)}): "
            "choose another --output, or the same settings to continue it"
        )
    if state["shards_sha256"] != ckpt.fingerprint(config.shards):
        raise ValueError(
            f"{config.output} was trained on other shards than {config.shards} holds now, so there is "
            "no next sample to go on with: choose another --output, or the shards of before"
        )
    return int(state["step"])


def _require_no_lost(config: AnyPretrainConfig) -> None:
    """Raise where there are checkpoints that no record names: a new start would write over that run."""
    for folder in ckpt.never_committed(config.output):
        if (folder / ckpt.STATE).is_file():
            step = ckpt.read_state(folder)["step"]
            if (
                step > config.checkpoint.every
            ):  # the first may have been interrupted as it was committed
                raise ValueError(
                    f"{config.output} holds a checkpoint of step {step}, and not Ray Train's record of them: "
                    f"put {ckpt.SNAPSHOT} back to go on, or begin another run from its weights with "
                    f"--weights {folder} and another --output"
                )


def _tracked(config: AnyPretrainConfig) -> dict[str, str]:
    """The run's id by tracker, as its last checkpoint knows it."""
    last = ckpt.last_committed(config.output)
    return ckpt.read_state(last).get("trackers", {}) if last else {}


def _tokenizer(config: AnyPretrainConfig, manifest: Manifest, first_step: int) -> str | None:
    """The run's tokenizer, kept with it: the given one, the run's own, or a new one."""
    text = text_of(config)
    if text is None:
        return None
    assert isinstance(config, PretrainConfig)
    kept = config.output / ckpt.TOKENIZER
    if first_step and kept.is_file():  # without a checkpoint it may be of other settings
        return kept.read_text()
    given = config.weights and ckpt.find_checkpoint(config.weights) / ckpt.TOKENIZER
    if given and given.is_file():  # the captioner's embeddings are of its words
        document = given.read_text()
    elif config.data.tokenizer:
        document = load_tokenizer(config.data.tokenizer)
    else:
        texts = list(training_reports(config.shards, manifest, text))
        if not texts:
            raise ValueError(
                f"no study of {config.shards} has a report to train the captioner on: "
                "ingest with reports, or set method.gamma to 0 (MVMAE without text)"
            )
        document = train_tokenizer(texts, config.data.vocabulary)
    replace_whole(kept, document.encode())
    return document


def _summary(
    config: AnyPretrainConfig, plan: Plan, began: float, events: list[dict[str, Any]]
) -> dict[str, Any]:
    figures = read_jsonl(config.output / METRICS)
    last = ckpt.last_committed(config.output)
    assert last is not None
    summary: dict[str, Any] = {
        "command": "pretrain",
        "steps": plan.steps,
        "continued_from_step": next(e["first_step"] for e in events if "first_step" in e),
        "samples": plan.samples,
        "epochs": round(plan.epochs, 2),
        "last": figures[-1] if figures else {},
        "seconds": round(time.time() - began, 1),
        "start_up_seconds": {e["event"]: round(e["time"] - began, 1) for e in events},
        "checkpoint": str(last),
    }
    if lost := unreadable_rows(config.output):
        summary["unreadable_rows"] = lost
    if best := ckpt.best_by_probe(config.output):
        summary["best_by_probe"] = best
    (config.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary
