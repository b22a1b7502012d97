"""What a checkpoint holds, and which one is the last.

model.safetensors   all weights of the method, fp32, by name: what evaluation and export read
state.json          step, position in the data, settings, hash of the shards, versions
tokenizer.json      the tokenizer, if the method reads text
deepspeed/          DeepSpeed's partitioned parameters and optimiser states, for going on
checksums/          SHA-256 of each file, by the worker that wrote it
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ray_mae.checkpoint.integrity import CHECKSUMS, SNAPSHOT, read_record, require_whole
from ray_mae.config.base import from_dict, to_dict
from ray_mae.config.migrate import migrate_exported
from ray_mae.config.pretrain import PretrainConfig
from ray_mae.config.sections import DATA, DataConfig, EncoderSettings
from ray_mae.config.urls import is_path, opened
from ray_mae.data.paths import is_remote, resolve_path, resolve_url, with_os_errors
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.data.stored_form import StoredForm
from ray_mae.encoders.registry import ENCODERS
from ray_mae.files import write_whole
from ray_mae.methods.registry import run_of
from ray_mae.store import fetch

if TYPE_CHECKING:
    from ray_mae.open_weights.source import OpenEncoder

Weights = dict[str, NDArray[np.float32]]
"""Arrays by name."""
WEIGHTS, STATE, TOKENIZER = "model.safetensors", "state.json", "tokenizer.json"
WITHOUT_OPTIMIZER = (STATE, WEIGHTS, TOKENIZER, CHECKSUMS)
"""Of a checkpoint: what is read but to go on with its training."""
TAG = "deepspeed"
"""Folder of DeepSpeed's files within a checkpoint."""
OPTIMIZER = "optimizer.pt"
"""States of an optimiser that every worker has whole."""
BEGUN_WITH = "begun_with"
"""Folder of a run with the weights that it begins with, where they were rewritten for it, and their table."""
BEST = "best"
"""Folder of a run with the weights of the checkpoint that its online probe found best."""
READ = ("reports", "labels")
"""What a pretraining may read of its samples beside the images."""
EXPORTED, ENCODER = "encoder.json", "encoder.safetensors"
"""An exported encoder: its settings and its weights."""


# -------------------------------------------------------------------------------------------- state


def write_state(
    folder: Path,
    settings: dict[str, Any],
    *,
    step: int,
    workers: int,
    engine: str,
    zero_stage: int,
    precision: str,
    shards: dict[str, Any],
    trackers: dict[str, str],
    begun_with: dict[str, Any] | None = None,
) -> None:
    """Writes state.json after `step` optimiser steps.

    Args:
        folder: of the checkpoint.
        settings: of the run, as plain values.
        step: optimiser steps done.
        workers: that wrote it.
        engine: its name.
        zero_stage: of the engine, which takes 1 for 0 in bf16.
        precision: fp32 or bf16.
        shards: what training began with, by `facts_of`.
        trackers: ids of the run in other programs, by their names.
        begun_with: table of the weights of others that it began with, if any.
    """
    state = {
        "step": step,
        "position": step * settings["optim"]["batch_size"],
        "workers": workers,
        "engine": engine,
        "zero_stage": zero_stage,
        "precision": precision,
        **shards,
        "config": settings,
        **({"begun_with": begun_with} if begun_with else {}),
        "trackers": trackers,
        "versions": {
            name: version(name) for name in ("ray-mae", "torch", "ray", "deepspeed", "timm")
        },
    }
    write_whole(folder / STATE, json.dumps(state, indent=1) + "\n")


def facts_of(shards: ShardSet) -> dict[str, Any]:
    """Returns what a checkpoint records of its shards: names, shares, hashes, and how samples are stored."""
    return {
        "shards": [
            {"dataset": f.name, "share": f.share, "sha256": fingerprint(f.path)}
            for f in shards.folders
        ],
        "spacing_mm": shards.spacing_mm,
        "form": shards.form,
    }


def fingerprint(shards: Path) -> str:
    """Returns the SHA-256 of a folder's manifest, which names every shard by its own hash."""
    return hashlib.sha256((resolve_url(shards) / Manifest.FILE).read_bytes()).hexdigest()


def trained_on(state: dict[str, Any]) -> list[str]:
    """Returns the hashes of the manifests that a checkpoint was trained on, from its state."""
    if "shards" in state:
        return [shards["sha256"] for shards in state["shards"]]
    return [state["shards_sha256"]]  # 0.1 read one folder


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Returns the content of state.json. Raises ValueError where it is damaged."""
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE).read_bytes())
    except ValueError as error:
        raise ValueError(f"{checkpoint / STATE} is damaged: it is no JSON ({error})") from error
    return state


def run_config(values: dict[str, Any]) -> PretrainConfig:
    """Returns the settings of a run from plain values, of this version or before."""
    return run_of(values)


def read_config(checkpoint: Path) -> PretrainConfig:
    """Returns the settings that a checkpoint was trained with."""
    return run_config(read_state(checkpoint)["config"])


# ----------------------------------------------------------------------------- checkpoints of a run


def find_checkpoint(path: Path) -> Path:
    """Returns the folder of a checkpoint.

    Args:
        path: of a run, whose last committed checkpoint is taken, or of a checkpoint.

    Raises:
        FileNotFoundError: that says what was looked for.
    """
    if (path / STATE).is_file():
        return path
    last = last_committed(path)
    if last is None or not (last / STATE).is_file():
        raise FileNotFoundError(
            f"{path} is neither a checkpoint (no {STATE}) nor the folder of a run with a "
            f"committed checkpoint (no {SNAPSHOT}), nor weights of others (docs/weights.md): give the "
            "--output folder of `ray-mae pretrain`"
        )
    return last


def is_ours(path: Path) -> bool:
    """Returns whether a path is a run, a checkpoint or an encoder that was exported."""
    names = (STATE, SNAPSHOT, EXPORTED, f"{BEGUN_WITH}.json")
    return any((path / name).is_file() for name in names)


def at_hand(path: Path) -> Path:
    """Returns where the files of an encoder lie on this machine: those of a URL are fetched, as far as read.

    Args:
        path: of a run, a checkpoint, an exported encoder or weights of others.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: the package of the URL's store is not installed.
    """
    path = opened(path)
    if not is_remote(path):
        return path
    resolve_path(path)  # the package of its store is installed
    return with_os_errors(lambda: _fetched(path))


def _fetched(path: Path) -> Path:
    """The copy of `at_hand`."""
    if (path / EXPORTED).is_file():
        return fetch(path, (EXPORTED, ENCODER))
    if is_ours(path) and not (path / f"{BEGUN_WITH}.json").is_file():
        return fetch(find_checkpoint(path), WITHOUT_OPTIMIZER)
    from ray_mae.open_weights.read import looks_open

    if not is_ours(path) and not looks_open(path):
        find_checkpoint(path)  # which says that there is none
    return fetch(path)


def open_encoder(path: Path) -> "OpenEncoder | None":
    """Returns the encoder of others in a file or folder; None where there is none. Imports PyTorch.

    Raises:
        ValueError: it cannot be read, with what would do.
    """
    path = at_hand(path)
    if is_ours(path):
        return None
    from ray_mae.open_weights.read import looks_open, read_open

    return read_open(path) if looks_open(path) else None


def last_committed(run: Path) -> Path | None:
    """Returns the last checkpoint that all workers finished, as Ray Train's own record says.

    Never the newest folder: that may be the half-written one of a worker that was killed.
    """
    latest = read_record(run).get("latest_checkpoint_result")
    return run / latest["checkpoint_dir_name"] if latest else None


def committed(run: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Returns the checkpoints that are there and that all workers finished, with their metrics, by step."""
    results = read_record(run).get("checkpoint_results", [])
    checkpoints = [(run / r["checkpoint_dir_name"], r["metrics"]) for r in results]
    return sorted(checkpoints, key=lambda pair: pair[1]["step"])


def never_committed(run: Path) -> list[Path]:
    """Returns folders of checkpoints that some worker did not finish."""
    names = {path.name for path, _ in committed(run)}
    return sorted(p for p in run.glob("checkpoint_*") if p.is_dir() and p.name not in names)


def best_by_probe(run: Path) -> dict[str, Any] | None:
    """Returns path, step and metrics of the checkpoint with the best online probe; None without any."""
    best = read_best(run)  # first: of equal ones the earliest is the best
    probed = [best] if best else []
    probed += [
        {"checkpoint": str(path), **metrics}
        for path, metrics in committed(run)
        if "probe_auroc" in metrics
    ]
    return max(probed, key=lambda probe: probe["probe_auroc"]) if probed else None


def read_best(run: Path) -> dict[str, Any] | None:
    """Returns path, step and metrics of what `keep_best` wrote to the run's folder `best`, if anything."""
    if not (run / BEST / STATE).is_file():
        return None
    state = read_state(run / BEST)
    return {"checkpoint": str(run / BEST), "step": state["step"], **state["probe"]}


# ------------------------------------------------------------------------------------------ weights


def encoder_weights(path: Path) -> Weights:
    """Returns an encoder's weights by name.

    Args:
        path: of a run, a checkpoint, an exported encoder or weights of others.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: weights of others that cannot be read.
    """
    path = at_hand(path)
    if (path / EXPORTED).is_file():
        return load_file(path / ENCODER)
    if (found := open_encoder(path)) is not None:
        return {name: w.numpy() for name, w in found.weights.items()}
    prefix = "encoder."
    every = weights_to_begin_with(path)
    return {k.removeprefix(prefix): v for k, v in every.items() if k.startswith(prefix)}


def decoder_weights(path: Path, template: Mapping[str, Any]) -> Weights:
    """Returns a decoder's weights by name, or nothing where the method trains none of this kind.

    Args:
        path: of a run, a checkpoint or weights of others; an exported encoder has no decoder.
        template: arrays of the decoder that they are for, by name, for their shapes.
    """
    path = at_hand(path)
    if (path / EXPORTED).is_file():
        return {}
    prefix = "decoder."
    found = open_encoder(path)
    saved = {k: w.numpy() for k, w in found.decoder.items()} if found else all_weights(path)
    every = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
    fits = all(k in every and every[k].shape == tuple(v.shape) for k, v in template.items())
    return {k: every[k] for k in template} if fits else {}


def weights_to_begin_with(path: Path) -> Weights:
    """Returns what `all_weights` does, with the encoder that the method keeps as encoder.….

    Args:
        path: of a run or a checkpoint, or of an exported encoder.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: a file is not as it was written.
    """
    path = at_hand(path)
    every = all_weights(path)
    if any((path / name).is_file() for name in (EXPORTED, f"{BEGUN_WITH}.json")):
        return every
    kept = f"{read_config(find_checkpoint(path)).method.kept}."
    trained = "encoder."
    if kept == trained:
        return every
    others = {k: w for k, w in every.items() if not k.startswith(trained)}
    return others | {
        trained + k.removeprefix(kept): w for k, w in every.items() if k.startswith(kept)
    }


def all_weights(path: Path) -> Weights:
    """Returns the weights of a method by name, such as encoder.… and decoder.….

    Args:
        path: of a run or a checkpoint; of an exported encoder there are those of the encoder.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: the file is not as it was written.
    """
    path = at_hand(path)
    if (path / EXPORTED).is_file():
        return {f"encoder.{name}": w for name, w in load_file(path / ENCODER).items()}
    if (path / f"{BEGUN_WITH}.json").is_file():
        return load_file(path / WEIGHTS)
    checkpoint = find_checkpoint(path)
    require_whole(checkpoint, STATE, WEIGHTS)
    return load_file(checkpoint / WEIGHTS)


# ----------------------------------------------------------------------------------------- encoders


@dataclass(frozen=True)
class EncoderFacts:
    """What must be known of an encoder to use it, beside its weights."""

    settings: EncoderSettings
    data: DataConfig
    """How samples were drawn and changed in its pretraining."""
    spacing_mm: float | None
    """Between the voxels trained on; None for images, and where each volume had its own."""
    form: StoredForm = field(default_factory=dict)
    """How the samples trained on were stored; empty where that is not known."""
    trained_on: tuple[str, ...] = ()
    """Hashes of the manifests trained on; empty where they are not known."""
    read: tuple[str, ...] = ()
    """What of READ, in its pretraining and that of the weights it began with."""

    @property
    def decoding(self) -> dict[str, Any]:
        """Settings of `decode_image` or `decode_volume`, under which new files become such samples."""
        if self.settings.dimensions == 3:
            return {"spacing_mm": self.spacing_mm}
        return {k: v for k, v in self.form.items() if k in ("image_size", "encoding")}


def encoder_facts(path: Path) -> EncoderFacts:
    """Returns the settings of an encoder and its data.

    Args:
        path: of a run, a checkpoint, an exported encoder or weights of others.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: state.json is not as it was written, or weights of others cannot be read.
    """
    path = at_hand(path)
    exported = path / EXPORTED
    if (found := open_encoder(path)) is not None:
        return facts_of_open(found)
    if not exported.is_file():
        checkpoint = find_checkpoint(path)
        require_whole(checkpoint, STATE)
        config = read_config(checkpoint)
        state = read_state(checkpoint)
        spacing, form = state.get("spacing_mm"), state.get("form", {})
        every = {*state.get("begun_with", {}).get("read", ()), *read_of(checkpoint, config)}
        return EncoderFacts(
            config.encoder,
            config.data,
            spacing,
            form,
            tuple(trained_on(state)),
            tuple(what for what in READ if what in every),
        )
    values = json.loads(exported.read_text())
    spacing, form = values.pop("spacing_mm", None), values.pop("form", {})
    shards, read = tuple(values.pop("trained_on", ())), tuple(values.pop("read", ()))
    return EncoderFacts(*sections_of(values), spacing, form, shards, read)


def read_of(checkpoint: Path, config: PretrainConfig) -> tuple[str, ...]:
    """Returns what of READ a training read itself, not that of the weights it began with.

    Args:
        checkpoint: of it.
        config: its settings.
    """
    reports = (checkpoint / TOKENIZER).is_file()
    return (*(["reports"] if reports else []), *(["labels"] if config.label_uses else []))


def facts_of_open(found: "OpenEncoder") -> EncoderFacts:
    """Returns the same of an encoder of others; how its samples were drawn and stored is not known."""
    data = DATA["study" if found.settings.dimensions == 2 else "volume"]
    return EncoderFacts(found.settings, data(), found.spacing_mm)


def write_exported(folder: Path, facts: EncoderFacts) -> None:
    """Writes encoder.json: settings of the encoder and of its data, and how its samples were stored.

    It may leave the house: paths in the settings, as of a tokenizer, are left out.
    """
    data = {k: v for k, v in to_dict(facts.data).items() if not is_path(getattr(facts.data, k))}
    values: dict[str, Any] = {"encoder": to_dict(facts.settings), "data": data}
    if facts.spacing_mm:
        values["spacing_mm"] = facts.spacing_mm
    if facts.form:
        values["form"] = facts.form
    if facts.trained_on:
        values["trained_on"] = facts.trained_on
    if facts.read:
        values["read"] = facts.read
    write_whole(folder / EXPORTED, json.dumps(values, indent=1) + "\n")


def sections_of(values: dict[str, Any]) -> tuple[EncoderSettings, DataConfig]:
    """Returns settings of an encoder and of its data.

    Args:
        values: what `write_exported` wrote, in this version or before.
    """
    values = migrate_exported(values)
    settings = from_dict(ENCODERS[values["encoder"]["name"]], values["encoder"])
    data = DATA["study" if settings.dimensions == 2 else "volume"]
    return settings, from_dict(data, values.get("data", {}))
