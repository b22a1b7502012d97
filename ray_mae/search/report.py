"""Writes what a search leaves for people: report.html, best.yaml and the numbers of its summary."""

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
from ray_mae.evaluate.intervals import TOO_FEW
from ray_mae.evaluate.metrics import Estimate
from ray_mae.evaluate.pages.page import environment, generated, svg
from ray_mae.files import write_whole
from ray_mae.search import charts
from ray_mae.search.cost import budget_of, cost_of
from ray_mae.search.files import BEST, REPORT, dashboards
from ray_mae.search.optuna_study import optuna_quiet
from ray_mae.search.results import SEED, SearchResult, TrialResult, read_search
from ray_mae.search.space import (
    Parameter,
    describe,
    describe_value,
    read_space,
    short_name,
    with_values,
)
from ray_mae.search.statistics import (
    SeedStatistics,
    SeedVariance,
    difference,
    group_by_setting,
    mean_auroc,
)
from ray_mae.search.trial import shards_of

_FEW = 8  # trials below which no importance is shown
_SHOWN = 10  # best single trials in the table
_LINES = 5  # settings in the figure over label counts
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(output: Path, storage: str) -> dict[str, Any]:
    """Writes both files from what the Optuna study holds now.

    Args:
        output: folder of the search.
        storage: URL of the database that holds its Optuna studies.

    Returns:
        The summary of the search: trials by state, the best settings, what it cost, how to open
        dashboards.

    Raises:
        ValueError: There is no search.
    """
    search = read_search(output, storage)
    findings = _findings(search)
    best = _write_best(search, findings, output / BEST)
    write_whole(output / REPORT, _page(search, findings, best))
    return _summary(search, findings, best)


@dataclass(frozen=True)
class _Findings:
    parameters: list[Parameter]
    settings: list[SeedStatistics]
    """Of the search itself: in the order of a grid where seeds were gridded, else best first."""
    repeats: list[SeedStatistics]
    """New seeds of the best, best first."""
    seed_variance: SeedVariance | None
    """Between runs that differ in their seed alone, of the search and of the repeats."""
    winner: SeedStatistics | None
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
        return any(len(s.trials) > 1 for s in self.settings)


def _findings(search: SearchResult) -> _Findings:
    settings, repeats = group_by_setting(search.trials), group_by_setting(search.repeats)
    if all(len(s.trials) == 1 for s in settings):
        settings.sort(key=lambda s: -s.mean)
    # of settings with fewer runs than others (one failed) the mean is too easily high
    most = max((len(s.trials) for s in repeats or settings), default=0)
    candidates = [s for s in repeats or settings if len(s.trials) == most]
    return _Findings(
        read_space(search.config.space),
        settings,
        sorted(repeats, key=lambda s: -s.mean),
        SeedVariance.of([*settings, *repeats]),
        max(candidates, key=lambda s: s.mean, default=None),
        budget_of(search),
        *_importance(search),
    )


def _importance(search: SearchResult) -> tuple[dict[str, float], int]:
    """Returns by setting its share of the variance of AUROC; and at which share of the steps (%) it is read.

    Read at the first probe, to which all trials came: after ASHA few whole ones are left, and those the
    best. Empty where there are too few trials.
    """
    first = {t.number: t.probes[0] for t in search.trials if t.probes}
    if len(first) < _FEW:
        return {}, 0
    with optuna_quiet():
        at_first = optuna.create_study(direction="maximize")
        for trial in search.study.trials:
            if trial.number in first:
                at_first.add_trial(
                    optuna.create_trial(
                        params=trial.params,
                        distributions=trial.distributions,
                        value=first[trial.number][1],
                    )
                )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            shares = optuna.importance.get_param_importances(at_first, evaluator=evaluator)
        except (ValueError, RuntimeError):  # no setting varies, or there is none that all have
            return {}, 0
    shares.pop(SEED, None)
    return shares, max(percent for percent, *_ in first.values())


def _write_best(search: SearchResult, findings: _Findings, path: Path) -> str:
    """Writes and returns the settings of the best run, for `pretrain --config`; empty without any."""
    if findings.winner is None:
        return ""
    config, winner = search.config, findings.winner
    run = with_values(to_dict(config.run), winner.values)
    run |= shards_of(config)
    auroc = mean_auroc(winner, findings.seed_variance).describe()
    comment = (
        f"Chosen among {len(search.trials)} trials: macro AUROC {auroc} on "
        f"validation patients after the steps below, {_of_runs(winner)}. Searched: "
        f"{', '.join(winner.values)}."
    )
    text = "".join(f"# {line}\n" for line in textwrap.wrap(comment, 96))
    text += f"# ray-mae pretrain --config {shlex.quote(str(path))} --output runs/best\n"
    text += yaml.safe_dump(run, sort_keys=False, allow_unicode=True)
    write_whole(path, text)
    return text


def _of_runs(setting: SeedStatistics) -> str:
    runs = len(setting.trials)
    return "one run" if runs == 1 else f"mean of {runs} runs"


def _summary(search: SearchResult, findings: _Findings, best: str) -> dict[str, Any]:
    summary: dict[str, Any] = {"trials": dict(Counter(t.state for t in search.trials))}
    if findings.winner:
        summary["best"] = describe(findings.winner.values)
        summary["macro_auroc"] = mean_auroc(findings.winner, findings.seed_variance).describe()
        summary["runs_of_best"] = len(findings.winner.trials)
    if search.repeats:
        summary["repeated"] = {
            describe(s.values): f"{mean_auroc(s, findings.seed_variance).describe()}, {_of_runs(s)}"
            for s in findings.repeats
        }
    summary |= {
        "failures": {f"trial {t.number}": t.reason for t in search.trials if t.state == "failed"},
        "cost": {k: round(v, 3) for k, v in cost_of(search).items()},
        "budget": {k: findings.budget[k] for k in ("steps", "samples", "epochs", "labels")},
        "report": str(search.output / REPORT),
    }
    if best:
        summary["settings"] = str(search.output / BEST)
    return {
        **summary,
        "dashboards": dashboards(search.output, search.storage, search.config.trackers),
    }


def _rows(
    settings: list[SeedStatistics],
    against: SeedStatistics | None,
    seed_variance: SeedVariance | None,
) -> list[dict[str, Any]]:
    """Returns table rows of settings, with the difference to `against` where that is one of several."""
    return [
        {
            "statistics": each,
            "words": describe(each.values),
            "auroc": mean_auroc(each, seed_variance),
            "difference": difference(each, against, seed_variance, len(settings) - 1)
            if against is not None and each is not against
            else None,
        }
        for each in settings
    ]


def _page(search: SearchResult, findings: _Findings, best: str) -> str:
    config = search.config
    shown = [t for t in search.trials if t.values]
    free = [p for p in findings.parameters if p.name != "seed"]
    whole = [t for t in search.trials if t.whole]
    front = _front(whole) if config.objective == "auroc_and_hours" else []
    counts = config.run.probe.label_counts
    pictures: dict[str, Any] = {
        "curves": svg(charts.learning_curves(shown, search.whole[0].number if whole else None))
        if any(len(t.probes) > 1 for t in shown)
        else None,
        "importance": svg(charts.importance(findings.importance)) if findings.importance else None,
        "slices": [(p.name, svg(charts.slice_of(p, shown))) for p in free],
        "parallel": svg(charts.parallel(free, shown)) if len(free) > 1 and shown else None,
        "landscapes": [
            (
                f"{rows.name} × {columns.name}",
                svg(charts.landscape(rows, columns, findings.settings)),
            )
            for rows, columns in itertools.combinations([p for p in free if p.kind == "grid"], 2)
            if findings.settings
        ],
        "labels": svg(charts.by_labels(_by_labels(search, findings, counts)))
        if counts and whole
        else None,
        "front": svg(charts.pareto_front(shown, front)) if front else None,
    }
    jinja = environment(_TEMPLATES)
    jinja.filters |= {"short_name": short_name, "value": describe_value, "span": _span}
    return jinja.get_template("search.html.j2").render(
        search=search,
        config=config,
        findings=findings,
        winner=mean_auroc(findings.winner, findings.seed_variance) if findings.winner else None,
        budget=findings.budget,
        cost=cost_of(search),
        pictures=pictures,
        front=[(t, describe(t.values)) for t in front],
        rows=_rows(findings.settings, findings.settings[0], findings.seed_variance)
        if findings.seeds
        else _rows(findings.settings[:_SHOWN], None, None),
        too_few=TOO_FEW,
        lines=min(_LINES, len(findings.settings)),
        repeats=_rows(findings.repeats, findings.winner, findings.seed_variance),
        searched={t.number: t for t in search.trials},
        failures=[t for t in [*search.trials, *search.repeats] if t.reason or t.restarts],
        settings=flatten(to_dict(config.run)),
        best=best,
        generated=generated({"dataset": findings.budget["dataset"]}),
        states=Counter(t.state for t in search.trials),
    )


def _span(ends: list[float]) -> str:
    return " to ".join(f"{v:,}" for v in ends)


def _front(trials: list[TrialResult]) -> list[TrialResult]:
    """Returns trials that no other beats in both AUROC and hours, by hours."""
    measured = [t for t in trials if t.hours and t.auroc is not None]

    def beaten(t: TrialResult) -> bool:
        return any(
            (o.auroc or 0) >= (t.auroc or 0)
            and (o.hours or 0) <= (t.hours or 0)
            and (o.auroc, o.hours) != (t.auroc, t.hours)
            for o in measured
        )

    return sorted((t for t in measured if not beaten(t)), key=lambda t: t.hours or 0)


def _by_labels(
    search: SearchResult, findings: _Findings, counts: list[int]
) -> dict[str, list[tuple[int, Estimate]]]:
    """Returns by setting, of the best ones: AUROC with so many labelled samples, and with all."""
    everything = findings.budget["probe_samples"]["train"]
    sizes = [(count, group_by_setting(search.trials, str(count))) for count in sorted(counts)]
    sizes.append((everything, findings.settings))
    series: dict[str, list[tuple[int, Estimate]]] = {}
    for best in sorted(findings.settings, key=lambda s: -s.mean)[:_LINES]:
        key = best.trials[0].setting
        series[describe(best.values)] = [
            (count, mean_auroc(each, SeedVariance.of(settings)))
            for count, settings in sizes
            for each in settings
            if each.trials[0].setting == key
        ]
    return series
