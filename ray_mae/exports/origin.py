"""Where an encoder comes from, as far as may leave the house: counts and settings, no names and no paths."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.config.pretrain import RunConfig
from ray_mae.config.sections import Paper
from ray_mae.data.paths import resolve_url

UNKNOWN = "unknown"
CARD = "card.json"
"""What `inspect` leaves of a data set."""
_RESULTS = ("probe.json", "finetune.json", "segment.json")
TASKS = {
    "probe": ("image-classification", "Linear probe"),
    "finetune": ("image-classification", "Fine-tuning"),
    "segment": ("image-segmentation", "Segmentation"),
}
"""How hubs call a task, and its name, by the result's file."""


@dataclass(frozen=True)
class Origin:
    """What a card says of a training. What is not known says so."""

    method: str = UNKNOWN
    described: str = UNKNOWN
    """Method and encoder in a few words."""
    papers: tuple[Paper, ...] = ()
    training: dict[str, str] = field(default_factory=dict)
    """Steps, batch, optimiser and so on, in words."""
    shards: tuple[str, ...] = ()
    """SHA-256 of the manifests trained on."""
    folders: tuple[Path, ...] = ()
    """Of the shards: never published."""


def origin_of(checkpoint: Path) -> Origin:
    """Returns what a checkpoint says of its training; of an exported encoder next to nothing.

    Args:
        checkpoint: a run, a checkpoint or an exported encoder.
    """
    facts = ckpt.encoder_facts(checkpoint)
    if (checkpoint / ckpt.EXPORTED).is_file():
        read = {"read beside images": ", ".join(facts.read)} if facts.read else {}
        return Origin(described=facts.settings.described, training=read, shards=facts.trained_on)
    state = ckpt.read_state(ckpt.find_checkpoint(checkpoint))
    config = ckpt.run_config(state["config"])
    optim = config.optim
    last = "" if optim.final_weight_decay is None else f" to {optim.final_weight_decay:g}"
    return Origin(
        method=config.method.name,
        described=config.method.described,
        papers=config.method.papers_of(config.encoder),
        training={
            "encoder": facts.settings.described,
            "method": config.method.described,
            **_taught(config),
            "labels read for": "; ".join(config.label_uses) or "nothing",
            "began with": _began_with(state, bool(config.weights)),
            "steps": f"{state['step']:,}",
            "samples per step": f"{optim.batch_size:,}",
            "samples seen": f"{state['position']:,}",
            "optimiser": f"{optim.optimizer}, {optim.decay} decay, weight decay {optim.weight_decay:g}{last}",
            "seed": str(config.seed),
            "precision": str(state.get("precision", UNKNOWN)),
            "workers": str(state.get("workers", UNKNOWN)),
            "versions": ", ".join(f"{k} {v}" for k, v in state.get("versions", {}).items())
            or UNKNOWN,
        },
        shards=facts.trained_on,
        folders=tuple(config.folders),
    )


def _taught(config: RunConfig) -> dict[str, str]:
    """A frozen encoder whose features were learnt from: what it is called, not where it lay."""
    frozen = config.method.frozen_encoder
    if frozen is None:
        return {}
    words = "a frozen encoder, whose licence and training data count here, too"
    return {"taught by": f"{frozen.name}: {words}"}


def _began_with(state: Mapping[str, Any], weights: bool) -> str:
    """What the training began with: kind, licence and checksum, not where it lay."""
    begun = state.get("begun_with", {})
    if "family" not in begun:
        return "weights of another training (not described)" if weights else "random weights"
    parts = [str(begun["family"])]
    for key, words in (
        ("licence", "licence"),
        ("training_data", "its training data"),
        ("sha256", "SHA-256"),
    ):
        if key in begun:
            parts.append(f"{words} {begun[key]}")
    return ", ".join(parts)


# --------------------------------------------------------------------------------------------- data


def read_cards(given: Sequence[Path], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the cards of data sets that are there.

    Args:
        given: folders with a card.json; where there are none, those of the shards are looked into.
        folders: of the shards.

    Raises:
        FileNotFoundError: a folder that was given has no card.
    """
    for folder in given:
        if not (folder / CARD).is_file():
            raise FileNotFoundError(
                f"{folder / CARD} is missing: run `ray-mae inspect --shards SHARDS --output {folder}`, or "
                "leave the folder out of cards"
            )
    files = [resolve_url(folder) / CARD for folder in (given or folders)]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def describe_data(card: Mapping[str, Any]) -> dict[str, str]:
    """Returns counts of a data set in words, without any name of it."""
    splits = card["splits"]
    noun = "studies" if card["kind"] == "study" else "volumes"
    totals = {
        name: f"{counts.get(noun, 0):,} {noun} of {counts.get('patients', 0):,} patients, "
        f"{counts.get('images', 0):,} images"
        for name, counts in splits.items()
    }
    data = {f"{name} split": text for name, text in totals.items()}
    for key, title in (("views", "views"), ("modalities", "contrasts")):
        if key in card:
            data[title] = _counted(card[key])
    years = sorted(year for year in card.get("years", {}) if year != UNKNOWN)
    data["years"] = f"{years[0]} to {years[-1]}" if years else UNKNOWN
    sites = [site for site in card.get("sites", {}) if site != UNKNOWN]
    data["sites"] = str(len(sites)) if sites else UNKNOWN
    leaks = {k: v for k, v in card.get("leaks", {}).items() if v}
    data["leaks found between splits"] = (
        ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in leaks.items()) or "none"
    )
    return data


def _counted(table: Mapping[str, Any]) -> str:
    """Counts of the training split: by split then name (views), or by name then split (contrasts)."""
    counts = table.get("train")
    if counts is None:
        counts = {name: of_split.get("train", 0) for name, of_split in table.items()}
    shown = {name: n for name, n in counts.items() if n}
    return ", ".join(f"{name} {n:,}" for name, n in shown.items()) or UNKNOWN


# ------------------------------------------------------------------------------------------ results


@dataclass(frozen=True)
class Figure:
    """One metric of one evaluation, by features or initialisation."""

    task: str
    """A key of TASKS."""
    metric: str
    rows: int
    """Labels or classes that it is a mean over."""
    values: dict[str, dict[str, Any]]
    """value, low, high by name: trained, random, pixels."""
    difference: dict[str, Any] | None
    """trained less random."""
    cautions: tuple[str, ...]
    labels: tuple[str, ...]


def read_figures(folders: Sequence[Path]) -> list[Figure]:
    """Returns results of `evaluate probe|finetune|segment`.

    Args:
        folders: their outputs.

    Raises:
        FileNotFoundError: a folder holds none of their files.
    """
    figures = []
    for folder in folders:
        files = [folder / name for name in _RESULTS if (folder / name).is_file()]
        if not files:
            raise FileNotFoundError(
                f"{folder} holds none of {', '.join(_RESULTS)}: give outputs of `ray-mae evaluate` by figures"
            )
        for file in files:
            result = json.loads(file.read_text())
            figures.append((_probe if file.stem == "probe" else _comparison)(file.stem, result))
    return figures


def _probe(task: str, result: Mapping[str, Any]) -> Figure:
    features = result["features"]
    labels = tuple(next(iter(features.values()))["labels"])
    return Figure(
        task,
        "auroc",
        len(labels),
        {name: score["macro"]["auroc"] for name, score in features.items()},
        result["differences"].get("random"),
        tuple(result.get("cautions", ())),
        labels,
    )


def _comparison(task: str, result: Mapping[str, Any]) -> Figure:
    starts = result["starts"]
    every = next(iter(starts.values()))
    metric = next(iter(every["macro"]))
    labels = tuple(row for row in every if row != "macro")
    return Figure(
        task,
        metric,
        len(labels),
        {name: rows["macro"][metric] for name, rows in starts.items()},
        result["differences"].get("macro", {}).get(metric),
        (),
        labels,
    )
