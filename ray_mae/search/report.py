"""What a search leaves for people: report.html, best.yaml and the figures of its summary."""

import itertools
import shlex
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from ray_mae.config.base import flatten, to_dict
from ray_mae.evaluate.metrics import Estimate
from ray_mae.evaluate.pages.page import environment, generated, svg
from ray_mae.search import figures
from ray_mae.search.cost import budget_of, cost_of
from ray_mae.search.files import BEST, REPORT, dashboards
from ray_mae.search.optuna_study import optuna_quiet
from ray_mae.search.results import SEED, SearchRecord, TrialRecord, read_search
from ray_mae.search.space import (
    Parameter,
    in_words,
    read_space,
    shorter,
    value_in_words,
    with_values,
)
from ray_mae.search.statistics import Group, Spread, auroc, difference, group

_FEW = 8  # trials below which no importance is told
_SHOWN = 10  # best single trials in the table
_LINES = 5  # settings in the figure over label counts
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(output: Path, storage: str) -> dict[str, Any]:
    """Write both files from what the study holds now; returns the summary."""
    record = read_search(output, storage)
    found = _findings(record)
    best = _write_best(record, found, output / BEST)
    (output / REPORT).write_text(_page(record, found, best), "utf-8")
    return _summary(record, found, best)


@dataclass(frozen=True)
class _Findings:
    parameters: list[Parameter]
    groups: list[Group]
    """Of the search itself, by settings: in the order of a grid where seeds were gridded, else best first."""
    repeated: list[Group]
    """New seeds of the best, best first."""
    spread: Spread | None
    """Between runs that differ in their seed alone, of the search and of the repeats."""
    winner: Group | None
    budget: dict[str, Any]
    importance: dict[str, float]
    importance_percent: int
    """Share of the steps at which it was read."""

    @property
    def gridded(self) -> bool:
        """Whether nothing was left to a sampler."""
        return all(p.kind == "grid" for p in self.parameters)

    @property
    def seeds(self) -> bool:
        """Whether the search itself ran settings under several seeds."""
        return any(len(g.trials) > 1 for g in self.groups)


def _findings(record: SearchRecord) -> _Findings:
    groups, repeats = group(record.trials), group(record.repeats)
    if all(len(g.trials) == 1 for g in groups):
        groups.sort(key=lambda g: -g.mean)
    # of settings with fewer runs than others (one failed) the mean is too easily high
    most = max((len(g.trials) for g in repeats or groups), default=0)
    able = [g for g in repeats or groups if len(g.trials) == most]
    return _Findings(
        read_space(record.config.space),
        groups,
        sorted(repeats, key=lambda g: -g.mean),
        Spread.of([*groups, *repeats]),
        max(able, key=lambda g: g.mean, default=None),
        budget_of(record),
        *_importance(record),
    )


def _importance(record: SearchRecord) -> tuple[dict[str, float], int]:
    """Share of the variance of AUROC by setting, and the share of the steps (%) at which it is read.

    Read at the first probe, to which all trials came: after ASHA few whole ones are left, and those the
    best. Empty where there are too few trials.
    """
    first = {t.number: t.probes[0] for t in record.trials if t.probes}
    if len(first) < _FEW:
        return {}, 0
    with optuna_quiet():
        same = optuna.create_study(direction="maximize")
        for trial in record.study.trials:
            if trial.number in first:
                same.add_trial(
                    optuna.create_trial(
                        params=trial.params,
                        distributions=trial.distributions,
                        value=first[trial.number][1],
                    )
                )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            shares = optuna.importance.get_param_importances(same, evaluator=evaluator)
        except (ValueError, RuntimeError):  # no setting varies, or there is none that all have
            return {}, 0
    shares.pop(SEED, None)
    return shares, max(percent for percent, *_ in first.values())


def _write_best(record: SearchRecord, found: _Findings, path: Path) -> str:
    """The settings of the best run, for `pretrain --config`; empty without any."""
    if found.winner is None:
        return ""
    config, winner = record.config, found.winner
    run = with_values(to_dict(config.run), winner.values)
    run |= {"shards": str(config.shards)}
    said = (
        f"Chosen among {len(record.trials)} trials: macro AUROC {_text(auroc(winner, found.spread))} on "
        f"validation patients after the steps below, {_of_runs(winner)}. Searched: "
        f"{', '.join(winner.values)}."
    )
    text = "".join(f"# {line}\n" for line in textwrap.wrap(said, 96))
    text += f"# ray-mae pretrain --config {shlex.quote(str(path))} --output runs/best\n"
    text += yaml.safe_dump(run, sort_keys=False, allow_unicode=True)
    path.write_text(text, "utf-8")
    return text


def _of_runs(one: Group) -> str:
    return "one run" if len(one.trials) == 1 else f"mean of {len(one.trials)} runs"


def _summary(record: SearchRecord, found: _Findings, best: str) -> dict[str, Any]:
    summary: dict[str, Any] = {"trials": dict(Counter(t.state for t in record.trials))}
    if found.winner:
        summary["best"] = in_words(found.winner.values)
        summary["macro_auroc"] = _text(auroc(found.winner, found.spread))
        summary["runs_of_best"] = len(found.winner.trials)
    if record.repeats:
        summary["repeated"] = {
            in_words(g.values): f"{_text(auroc(g, found.spread))}, {_of_runs(g)}"
            for g in found.repeated
        }
    summary |= {
        "failures": {f"trial {t.number}": t.reason for t in record.trials if t.state == "failed"},
        "cost": {k: round(v, 3) for k, v in cost_of(record).items()},
        "budget": {k: found.budget[k] for k in ("steps", "samples", "epochs")},
        "report": str(record.output / REPORT),
    }
    if best:
        summary["settings"] = str(record.output / BEST)
    return {
        **summary,
        "dashboards": dashboards(record.output, record.storage, record.config.trackers),
    }


def _text(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def _rows(
    groups: list[Group], against: Group | None, spread: Spread | None
) -> list[dict[str, Any]]:
    """Table rows of settings, with the difference to `against` where that is one of several."""
    return [
        {
            "group": each,
            "words": in_words(each.values),
            "auroc": auroc(each, spread),
            "difference": difference(each, against, spread, len(groups) - 1)
            if against is not None and each is not against
            else None,
        }
        for each in groups
    ]


def _page(record: SearchRecord, found: _Findings, best: str) -> str:
    config = record.config
    shown = [t for t in record.trials if t.values]
    free = [p for p in found.parameters if p.name != "seed"]
    whole = [t for t in record.trials if t.whole]
    front = _front(whole) if config.objective == "auroc_and_hours" else []
    counts = config.run.probe.label_counts
    pictures: dict[str, Any] = {
        "curves": svg(figures.learning_curves(shown, record.whole[0].number if whole else None))
        if any(len(t.probes) > 1 for t in shown)
        else None,
        "importance": svg(figures.importance(found.importance)) if found.importance else None,
        "slices": [(p.name, svg(figures.slice_of(p, shown))) for p in free],
        "parallel": svg(figures.parallel(free, shown)) if len(free) > 1 and shown else None,
        "landscapes": [
            (f"{rows.name} × {columns.name}", svg(figures.landscape(rows, columns, found.groups)))
            for rows, columns in itertools.combinations([p for p in free if p.kind == "grid"], 2)
            if found.groups
        ],
        "labels": svg(figures.by_labels(_by_labels(record, found, counts)))
        if counts and whole
        else None,
        "front": svg(figures.front(shown, front)) if front else None,
    }
    made = environment(_TEMPLATES)
    made.filters |= {"shorter": shorter, "value": value_in_words, "span": _span}
    return made.get_template("search.html.j2").render(
        record=record,
        config=config,
        found=found,
        winner=auroc(found.winner, found.spread) if found.winner else None,
        budget=found.budget,
        cost=cost_of(record),
        pictures=pictures,
        front=[(t, in_words(t.values)) for t in front],
        rows=_rows(found.groups, found.groups[0], found.spread)
        if found.seeds
        else _rows(found.groups[:_SHOWN], None, None),
        lines=min(_LINES, len(found.groups)),
        repeats=_rows(found.repeated, found.winner, found.spread),
        searched={t.number: t for t in record.trials},
        failures=[t for t in [*record.trials, *record.repeats] if t.reason or t.restarts],
        settings=flatten(to_dict(config.run)),
        best=best,
        generated=generated({"dataset": found.budget["dataset"]}),
        states=Counter(t.state for t in record.trials),
    )


def _span(ends: list[float]) -> str:
    return " to ".join(f"{v:,}" for v in ends)


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
    """By setting, of the best ones: AUROC with so many labelled samples, and with all."""
    everything = found.budget["probe_samples"]["train"]
    sizes = [(count, group(record.trials, str(count))) for count in sorted(counts)]
    sizes.append((everything, found.groups))
    series: dict[str, list[tuple[int, Estimate]]] = {}
    for best in sorted(found.groups, key=lambda g: -g.mean)[:_LINES]:
        key = best.trials[0].setting
        series[in_words(best.values)] = [
            (count, auroc(each, Spread.of(groups)))
            for count, groups in sizes
            for each in groups
            if each.trials[0].setting == key
        ]
    return series
