"""What a search leaves for people: report.html, best.yaml and the figures of its summary."""

import itertools
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.evaluate.metrics import Estimate
from ray_mae.evaluate.page import environment, generated, svg
from ray_mae.search import figures
from ray_mae.search.groups import Group, difference, group
from ray_mae.search.names import BEST, REPORT
from ray_mae.search.results import SearchRecord, TrialRecord, read_search
from ray_mae.search.space import (
    Parameter,
    in_words,
    read_space,
    shorter,
    value_in_words,
    with_values,
)
from ray_mae.settings import flatten, to_dict
from ray_mae.train.plan import make_plan

_FEW = 8  # trials below which no importance is told
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(output: Path, storage: str) -> dict[str, Any]:
    """Write both files from what the study holds now; returns the summary."""
    record = read_search(output, storage)
    found = _findings(record)
    best = _write_best(record, found, output / BEST)
    (output / REPORT).write_text(_page(record, found, best), "utf-8")
    return _summary(record, found, output, best)


@dataclass(frozen=True)
class _Findings:
    parameters: list[Parameter]
    groups: list[Group]
    """Of the search itself, by settings: more than one run each where the seed was gridded."""
    repeated: list[Group]
    """New seeds of the best, best first."""
    winner: Group | None
    importance: dict[str, float]
    importance_percent: int
    """Share of the steps at which it was read."""


def _findings(record: SearchRecord) -> _Findings:
    groups = group(record.trials)
    seeds = any(len(g.trials) > 1 for g in groups)
    ranked = sorted(group(record.repeats), key=lambda g: -g.auroc.value)
    by_search = sorted(groups, key=lambda g: -g.auroc.value)
    winner = ranked[0] if ranked else by_search[0] if by_search else None
    return _Findings(
        read_space(record.config.space),
        groups if seeds else by_search,
        ranked,
        winner,
        *_importance(record),
    )


def _importance(record: SearchRecord) -> tuple[dict[str, float], int]:
    """Share of the variance of AUROC by setting, and the share of the steps (%) at which it is read.

    Read where all trials came: after ASHA few whole ones are left, and those the best. Empty where there
    are too few trials.
    """
    probed = {t.number: t for t in record.trials if t.probes}
    if len(probed) < _FEW:
        return {}, 0
    percent = min(t.percent for t in probed.values())
    same = optuna.create_study(direction="maximize")
    for trial in record.study.get_trials(deepcopy=False):
        at = (
            [p[1] for p in probed[trial.number].probes if p[0] == percent]
            if trial.number in probed
            else []
        )
        if at:
            same.add_trial(
                optuna.create_trial(
                    params=trial.params, distributions=trial.distributions, value=at[0]
                )
            )
    try:
        return optuna.importance.get_param_importances(same), percent
    except (ValueError, RuntimeError):  # no setting varies, or there is none that all trials have
        return {}, 0


def _write_best(record: SearchRecord, found: _Findings, path: Path) -> str:
    """The settings of the best run, for `pretrain --config`; empty without any."""
    if found.winner is None:
        return ""
    config, winner = record.config, found.winner
    run = with_values(to_dict(config.run), winner.values)
    run |= {"shards": str(config.shards)}
    e = winner.auroc
    runs = f"{len(winner.trials)} run{'s' if len(winner.trials) > 1 else ''}"
    said = (
        f"Chosen among {len(record.trials)} trials: macro AUROC {_text(e)} on validation patients after "
        f"the steps below, mean of {runs}. Searched: {', '.join(winner.values)}.",
        f"ray-mae pretrain --config {path} --output runs/best",
    )
    text = "".join(f"# {line}\n" for each in said for line in textwrap.wrap(each, 96))
    text += yaml.safe_dump(run, sort_keys=False, allow_unicode=True)
    path.write_text(text, "utf-8")
    return text


def cost_of(record: SearchRecord) -> dict[str, float]:
    """Hours of trials. A whole run's share is what its start and its training would have taken."""
    trials = [*record.trials, *record.repeats]
    spent = sum(t.seconds for t in record.trials) / 3600
    full = sum(
        t.start_up_seconds + (t.seconds - t.start_up_seconds) * 100 / t.percent
        for t in record.trials
        if t.percent
    )
    return {
        "search_hours": spent,
        "repeat_hours": sum(t.seconds for t in record.repeats) / 3600,
        "hours_had_all_been_run_to_the_end": full / 3600,
        "start_up_share": sum(t.start_up_seconds for t in trials)
        / max(sum(t.seconds for t in trials), 1e-9),
    }


def _budget(record: SearchRecord) -> dict[str, Any]:
    """What each trial was given, and whose data."""
    from ray_mae.search.trial import Runs

    config = record.config
    manifest = Manifest.read(config.shards)
    first = next((t.values for t in record.trials if t.values), {})
    plan = make_plan(Runs(config).config(first, config.output), manifest)
    probed = next((t.probe() for t in record.trials if t.probes), None)
    rows = {name: manifest.rows(name) for name in ("train", "val", "test")}
    return {
        "noun": NOUNS[manifest.kind],
        "dataset": manifest.dataset,
        "steps": plan.steps,
        "samples": plan.samples,
        "epochs": round(plan.epochs, 2),
        "of_splits": rows,
        "probe_samples": probed["samples"] if probed else {},
        "probe_patients": probed["patients"] if probed else {},
        "labels": list(probed["labels"]) if probed else [],
    }


def _summary(record: SearchRecord, found: _Findings, output: Path, best: str) -> dict[str, Any]:
    summary: dict[str, Any] = {"trials": dict(Counter(t.state for t in record.trials))}
    if found.winner:
        summary["best"] = in_words(found.winner.values)
        summary["macro_auroc"] = _text(found.winner.auroc)
        summary["runs_of_best"] = len(found.winner.trials)
    if record.repeats:
        summary["repeated"] = {
            in_words(g.values): f"{_text(g.auroc)} of {len(g.trials)} runs" for g in found.repeated
        }
    failures = {f"trial {t.number}": t.reason for t in record.trials if t.state == "failed"}
    summary |= {
        "failures": failures,
        "cost": {k: round(v, 3) for k, v in cost_of(record).items()},
        "budget": {k: v for k, v in _budget(record).items() if k in ("steps", "samples", "epochs")},
        "report": str(output / REPORT),
    }
    if best:
        summary["settings"] = str(output / BEST)
    return summary


def _text(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def _rows(groups: list[Group], against: Group | None) -> list[dict[str, Any]]:
    """Table rows of settings, with the difference to `against`."""
    rows = []
    for each in groups:
        d = difference(each, against) if against is not None and each is not against else None
        rows.append({"group": each, "words": in_words(each.values), "difference": d})
    return rows


def _page(record: SearchRecord, found: _Findings, best: str) -> str:
    config = record.config
    shown = [t for t in record.trials if t.values]
    gridded = [p for p in found.parameters if p.kind == "grid" and p.name != "seed"]
    free = [p for p in found.parameters if p.name != "seed"]
    hours = "hours" in config.objectives
    ended = [t for t in record.trials if t.whole]
    front = _front(ended) if hours else []
    best_trial = record.whole[0].number if record.whole else None
    budget = _budget(record)
    counts = config.run.probe.label_counts
    pictures: dict[str, Any] = {
        "curves": svg(figures.learning_curves(shown, best_trial)) if shown else None,
        "importance": svg(figures.importance(found.importance)) if found.importance else None,
        "slices": [(p.name, svg(figures.slice_of(p, shown))) for p in free],
        "parallel": svg(figures.parallel(free, shown)) if len(free) > 1 and shown else None,
        "landscapes": [
            (f"{rows.name} × {columns.name}", svg(figures.landscape(rows, columns, found.groups)))
            for rows, columns in itertools.combinations(gridded, 2)
            if found.groups
        ],
        "labels": svg(figures.by_labels(_by_labels(record, found, counts)))
        if counts and ended
        else None,
        "front": svg(figures.front(shown, front)) if front else None,
    }
    several = any(len(g.trials) > 1 for g in found.groups)
    made = environment(_TEMPLATES)
    made.filters |= {"shorter": shorter, "value": value_in_words}
    template = made.get_template("search.html.j2")
    return template.render(
        record=record,
        config=config,
        found=found,
        budget=budget,
        cost=cost_of(record),
        pictures=pictures,
        front=[(t, in_words(t.values)) for t in front],
        rows=_rows(found.groups, found.groups[0] if several else None)
        if several
        else _rows(found.groups[:10], found.groups[0] if found.groups else None),
        several=several,
        reference=in_words(found.groups[0].values) if several else "",
        repeats=_rows(found.repeated, found.repeated[0] if found.repeated else None),
        searched={t.number: t for t in record.trials},
        trials=[(t, in_words(t.values)) for t in [*record.trials]],
        failures=[t for t in [*record.trials, *record.repeats] if t.reason or t.restarts],
        settings=flatten(to_dict(config.run)),
        best=best,
        generated=generated({"dataset": budget["dataset"]}),
        states=Counter(t.state for t in record.trials),
    )


def _front(trials: list[TrialRecord]) -> list[TrialRecord]:
    """Trials that no other beats in both AUROC and hours, by hours."""
    known = [t for t in trials if t.hours and t.auroc is not None]

    def beaten(t: TrialRecord) -> bool:
        return any(
            (o.auroc or 0) >= (t.auroc or 0)
            and (o.hours or 0) <= (t.hours or 0)
            and (o.auroc, o.hours) != (t.auroc, t.hours)
            for o in known
        )

    return sorted((t for t in known if not beaten(t)), key=lambda t: t.hours or 0)


def _by_labels(
    record: SearchRecord, found: _Findings, counts: list[int]
) -> dict[str, list[tuple[int, Estimate]]]:
    """By setting: AUROC with so many labelled samples, and with all."""
    series: dict[str, list[tuple[int, Estimate]]] = {}
    whole = {g.trials[0].setting: g for g in group(record.trials)}
    everything = _budget(record)["probe_samples"]["train"]
    for count in sorted(counts):
        for each in group(record.trials, str(count)):
            series.setdefault(in_words(each.values), []).append((count, each.auroc))
    for each in whole.values():
        series[in_words(each.values)].append((everything, each.auroc))
    return dict(list(series.items())[:5])
