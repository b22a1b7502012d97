"""The papers of a published folder: README.md (a model card), LICENSE, CITATION.cff."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from ray_mae.checkpoint.format import EncoderFacts
from ray_mae.config import PublishConfig
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.exports import graphs, nnunet, timm
from ray_mae.exports.doors import Door
from ray_mae.exports.example import FILMS
from ray_mae.exports.origin import TASKS, UNKNOWN, Figure, Origin

APACHE = "apache-2.0"
_METRIC_TYPES = {"auroc": "roc_auc", "dice": "dice"}
"""Names of metrics as hubs have them."""


@dataclass(frozen=True)
class Card:
    """All that the papers are made of."""

    name: str
    folder: str
    """Its name."""
    config: PublishConfig
    facts: EncoderFacts
    width: int
    """Length of a feature vector."""
    origin: Origin
    data: Sequence[Mapping[str, str]]
    """Of each data set trained on, by `describe_data`."""
    figures: Sequence[Figure]
    doors: Sequence[Door]
    transform_distance: float | None
    """1 − cosine by timm's own transform of pictures; None of volumes, and where timm is not there."""


def readme(card: Card) -> str:
    """Returns README.md: the header that hubs read, then the card."""
    environment = Environment(
        loader=PackageLoader("ray_mae.exports"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["estimate"] = _estimate
    settings, spacing = card.facts.settings, card.facts.spacing_mm
    return environment.get_template("README.md.j2").render(
        header=yaml.safe_dump(_header(card), sort_keys=False, allow_unicode=True),
        name=card.name,
        folder=card.folder,
        images=settings.dimensions == 2,
        views=isinstance(settings, VitSettings),
        tokens=settings.form == "tokens",
        trainer=nnunet.primus_trainer(settings),
        settings=settings,
        config=card.config,
        size=settings.input_size,
        width=card.width,
        spacing=f"{spacing:g} mm" if spacing else "the volume's own spacing",
        data=card.data,
        origin=card.origin,
        figures=card.figures,
        tasks=TASKS,
        doors=card.doors,
        distance=card.transform_distance,
        films=len(FILMS),
        torch=version("torch"),
        version=version("ray-mae"),
        timm=timm,
        nnunet=nnunet,
        graphs=graphs,
    )


def _header(card: Card) -> dict[str, Any]:
    images = card.facts.settings.dimensions == 2
    monai = ["monai"] if "monai" in card.facts.settings.exports else []
    kind = ["timm", "transformers"] if images else ["nnunet", *monai, "3d"]
    learnt = "weakly-supervised" if "labels" in card.facts.read else "self-supervised"
    tags = [*kind, "medical", "radiology", learnt, "ray_mae"]
    if card.origin.method != UNKNOWN:
        tags.append(card.origin.method)
    header: dict[str, Any] = {
        "license": card.config.license,
        "library_name": "timm" if images else "ray_mae",
        "pipeline_tag": "image-feature-extraction",
        "tags": tags,
        "datasets": [],
    }
    known = [f for f in card.figures if f.values.get("trained", {}).get("value") is not None]
    if results := [_result(figure) for figure in known]:
        metrics = {r["metrics"][0]["type"] for r in results}
        header["metrics"] = sorted(metrics)
        header["model-index"] = [{"name": card.name, "results": results}]
    return header


def _result(figure: Figure) -> dict[str, Any]:
    task, name = TASKS[figure.task]
    trained = figure.values["trained"]
    return {
        "task": {"type": task, "name": name},
        "dataset": {"type": "private", "name": "held-out patients", "split": "test"},
        "metrics": [
            {
                "type": _METRIC_TYPES.get(figure.metric, figure.metric),
                "value": round(float(trained["value"]), 4),
                "name": f"macro {figure.metric}",
            }
        ],
    }


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    """Value and interval; a dash where there is none, as of pixels in a fine-tuning."""
    if not estimate or estimate.get("value") is None:
        return "–"
    if estimate.get("low") is None:
        return f"{estimate['value']:.3f} (no interval)"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


# ------------------------------------------------------------------------------- licence and citation


def licence_text(config: PublishConfig) -> str:
    """Returns LICENSE: the file that was given, the Apache licence's text, or what is known of it."""
    if config.license_file:
        return config.license_file.read_text()
    if config.license == UNKNOWN:
        return (
            "No licence was chosen for these weights: nobody but their makers may use them, until these say\n"
            "otherwise. (ray-mae publish --license apache-2.0, or another name with --license_file FILE.)\n"
        )
    if config.license == APACHE:
        for file in distribution("ray-mae").files or ():
            if file.name == "LICENSE":
                return Path(str(file.locate())).read_text()
    return f"SPDX-License-Identifier: {config.license}\nhttps://spdx.org/licenses/\n"


def citation(card: Card) -> str:
    """Returns CITATION.cff."""
    authors = [{"name": name} for name in card.config.authors or [UNKNOWN]]
    content: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this encoder, please cite it, and the papers of its method.",
        "title": card.name,
        "type": "software",
        "authors": authors,
        "version": "1.0.0",
        "date-released": date.today().isoformat(),
    }
    if card.config.license == APACHE:  # of others it is not known that they are of SPDX's list
        content["license"] = "Apache-2.0"
    references = [
        {
            "type": "article",
            "title": paper.title,
            "authors": [{"name": paper.authors}],
            "year": paper.year,
            "notes": paper.where,
        }
        for paper in card.origin.papers
    ]
    references.append(
        {
            "type": "software",
            "title": "ray_mae",
            "authors": [{"name": "The ray_mae developers"}],
            "version": version("ray-mae"),
        }
    )
    content["references"] = references
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
