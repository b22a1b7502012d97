"""What a probe leaves for people and for programs: probe.json, probe.csv and report.html.

The page is one file: figures, pictures and style are inside, nothing is loaded from anywhere, so
that it can be archived and opened on a machine without a network.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray_mae.config.base import flatten
from ray_mae.data.labels import policy_in_words
from ray_mae.data.schema import NOUNS
from ray_mae.evaluate.baselines import TRAINED
from ray_mae.evaluate.calibration import CALIBRATION, TEMPERED
from ray_mae.evaluate.metrics import METRICS, Estimate
from ray_mae.evaluate.pages import charts
from ray_mae.evaluate.pages.page import environment, generated, png, svg
from ray_mae.evaluate.probe.charts import forest, reliability, roc
from ray_mae.evaluate.probe.heads import OWN_CHOICE
from ray_mae.evaluate.probe.result import ONE_SEED, ProbeResult
from ray_mae.evaluate.scores import FEW, SCORES, TOO_FEW
from ray_mae.files import replacing, write_whole
from ray_mae.number_text import ENDS
from ray_mae.transforms.slices import CONVENTION


def write_report(
    output: Path,
    result: ProbeResult,
    *,
    title: str,
    settings: dict[str, Any],
    curves: Sequence[dict[str, Any]] | None = None,
    probes: Sequence[dict[str, Any]] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    captions: Sequence[dict[str, str]] | None = None,
    cautions: Sequence[str] = (),
    kind: str = "study",
    sees: str = "",
) -> dict[str, Path]:
    """Write the three files into `output` and return their paths as json, csv and html.

    settings: of the run, may be nested; shown by dotted name. If its `dataset` (at any depth)
    names phantoms, the page says that the cohort is generated;
    curves: records of the pretraining's metrics.jsonl, with `step` and the losses;
    probes: records of its probes.jsonl, of which there may be none;
    pictures: title and PNG of each reconstruction;
    captions: dicts with `true`, `generated` and, where it may be shown, `study_id`;
    cautions: sentences that a reader must know before the numbers;
    kind: what a row is, study or volume;
    sees: what the encoder was shown of it, in words.
    """
    output.mkdir(parents=True, exist_ok=True)
    paths = {
        "json": output / "probe.json",
        "csv": output / "probe.csv",
        "html": output / "report.html",
    }
    flat = flatten(settings)
    everything = {"title": title, "settings": flat, **result.to_dict()}
    everything["cautions"] = list(cautions)
    write_whole(paths["json"], json.dumps(everything, indent=1, default=str) + "\n")
    _write_csv(paths["csv"], result)
    page = _page(
        result, title, flat, curves or [], probes, pictures, captions or [], cautions, kind, sees
    )
    write_whole(paths["html"], page)
    return paths


def _write_csv(path: Path, result: ProbeResult) -> None:
    """One row per feature set and label, and one per feature set with label `macro`."""
    spans = [f"{m}{end}" for m in SCORES for end in ENDS]
    of_label = ["C", "validation_auroc", "temperature", "constant", "positive", "negative",
                "positive_patients", "negative_patients", "usable", "interval"]  # fmt: skip
    columns = ["features", "label", *spans, *of_label]
    test = result.counts["test"].labels
    with replacing(path) as whole, whole.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, columns, restval="")
        rows.writeheader()
        for name, score in result.features.items():
            rows.writerow({"features": name, "label": "macro", **_spans(score.macro)})
            for label, one in score.labels.items():
                evidence = result.evidence[label]
                rows.writerow(
                    {
                        "features": name,
                        "label": label,
                        **_spans(one.metrics),
                        "C": one.C,
                        "validation_auroc": one.validation_auroc,
                        "temperature": one.temperature,
                        "constant": one.constant,
                        "positive": test[label].positive,
                        "negative": test[label].negative,
                        "positive_patients": evidence.positive_patients,
                        "negative_patients": evidence.negative_patients,
                        "usable": evidence.usable,
                        "interval": evidence.interval,
                    }
                )


def _spans(metrics: dict[str, Estimate]) -> dict[str, float]:
    return {
        f"{m}{end}": value
        for m, e in metrics.items()
        for end, value in zip(ENDS, (e.value, e.low, e.high), strict=True)
    }


def _page(
    result: ProbeResult,
    title: str,
    settings: dict[str, Any],
    curves: Sequence[dict[str, Any]],
    probes: Sequence[dict[str, Any]],
    pictures: Sequence[tuple[str, bytes]],
    captions: Sequence[dict[str, str]],
    cautions: Sequence[str],
    kind: str,
    sees: str,
) -> str:
    names = list(result.features)
    looks = {name: charts.look(name, names) for name in names}
    first = result.features.get(TRAINED) or result.features[names[0]]
    labels = sorted(first.labels, key=lambda label: -first.labels[label].metrics["auroc"].value)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            generated=generated(settings),
            noun=kind,
            sees=sees,
            nouns=NOUNS[kind],
            result=result,
            names=names,
            labels=labels,
            metrics=METRICS,
            calibration=[m for m in CALIBRATION | TEMPERED if m in first.macro],
            titles=SCORES,
            few=FEW,
            too_few=TOO_FEW,
            own_choice=OWN_CHOICE,
            colours={name: colour for name, (colour, _) in looks.items()},
            markers={name: charts.GLYPHS[marker] for name, (_, marker) in looks.items()},
            forest=svg(forest(result, labels)),
            rocs=[(label, svg(roc(result, label))) for label in labels],
            reliabilities=[(name, svg(reliability(result, name))) for name in names],
            curves=[(name, svg(curve)) for name, curve in charts.curves(curves).items()],
            held_out=any(f"{charts.HELD_OUT}loss" in record for record in curves),
            probes=svg(drawn) if (drawn := charts.probes(probes)) else None,
            pictures=[(name, png(image)) for name, image in pictures],
            captions=captions,
            settings=settings,
            cautions=cautions,
            notes=result.notes,
            policy=policy_in_words(result.protocol["uncertain"], result.protocol["unmentioned"]),
            convention=CONVENTION,
            one_seed=ONE_SEED,
        )
    )
