"""What a checkpoint holds, and which one is the last.

model.safetensors   all weights of the method, fp32, by name: what evaluation and export read
state.json          step, position in the data, settings, hash of the shards, versions
tokenizer.json      the tokenizer, if the method reads text
deepspeed/          DeepSpeed's partitioned parameters and optimiser states, for going on
checksums/          SHA-256 of each file, by the worker that wrote it
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ray_mae.config import AnyPretrainConfig, MdaeConfig, MvmaeConfig, pretrain_config
from ray_mae.config.base import from_dict, to_dict
from ray_mae.data.paths import sha256_of
from ray_mae.data.schema import Manifest
from ray_mae.train.metrics.trackers import read_ids

Weights = dict[str, NDArray[np.float32]]
"""Arrays by name."""
WEIGHTS, STATE, TOKENIZER = "model.safetensors", "state.json", "tokenizer.json"
BEST = "best"
"""Folder of a run with the weights of the checkpoint that its online probe found best."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
EXPORTED, ENCODER = "encoder.json", "encoder.safetensors"
"""An exported encoder: its settings and its weights."""


def write_state(
    folder: Path,
    config: AnyPretrainConfig,
    *,
    step: int,
    workers: int,
    of_shards: dict[str, Any] | None = None,
    zero_stage: int | None = None,
    precision: str | None = None,
) -> None:
    """state.json after `step` optimiser steps.

    of_shards: as `facts_of` had it when training began; read now where it is None. zero_stage and
    precision: what the engine made of the settings.
    """
    state = {
        "step": step,
        "position": step * config.optim.batch_size,
        "workers": workers,
        "zero_stage": config.engine.zero_stage if zero_stage is None else zero_stage,
        "precision": precision or config.engine.precision,
        **(of_shards or facts_of(config.shards)),
        "config": to_dict(config),
        "trackers": read_ids(config.output),
        "versions": {
            name: version(name) for name in ("ray-mae", "torch", "ray", "deepspeed", "timm")
        },
    }
    (folder / STATE).write_text(json.dumps(state, indent=1) + "\n")


def facts_of(shards: Path) -> dict[str, Any]:
    """What a checkpoint keeps of the shards it was trained on."""
    return {
        "shards_sha256": fingerprint(shards),
        "spacing_mm": Manifest.read(shards).spacing_mm,
    }


def fingerprint(shards: Path) -> str:
    """Which shards these are: the hash of their manifest."""
    return hashlib.sha256((shards / Manifest.FILE).read_bytes()).hexdigest()


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The content of state.json."""
    return json.loads((checkpoint / STATE).read_text())


def read_config(checkpoint: Path) -> AnyPretrainConfig:
    """The settings that the checkpoint was trained with."""
    return pretrain_config(read_state(checkpoint)["config"])


def method_config(path: Path) -> MvmaeConfig | MdaeConfig:
    """The method's settings of a run, a checkpoint or an exported encoder.

    Raises FileNotFoundError that says what was looked for.
    """
    exported = path / EXPORTED
    if not exported.is_file():
        return read_config(find_checkpoint(path)).method
    values = json.loads(exported.read_text())
    values.pop("spacing_mm", None)
    if values.get("name") == "mdae":
        return from_dict(MdaeConfig, values)
    return from_dict(MvmaeConfig, values)


def spacing_of(path: Path) -> float | None:
    """Distance in mm between the voxels trained on; None for images, and where each volume has its own."""
    exported = path / EXPORTED
    if exported.is_file():
        return json.loads(exported.read_text()).get("spacing_mm")
    return read_state(find_checkpoint(path)).get("spacing_mm")


def write_exported(
    folder: Path, method: MvmaeConfig | MdaeConfig, spacing_mm: float | None
) -> None:
    """encoder.json: the method's settings, and the spacing of the volumes."""
    facts = to_dict(method) | ({"spacing_mm": spacing_mm} if spacing_mm else {})
    (folder / EXPORTED).write_text(json.dumps(facts, indent=1) + "\n")


def last_committed(run: Path) -> Path | None:
    """The last checkpoint that all workers finished, as Ray Train's own record says.

    Never the newest folder: that may be the half-written one of a worker that was killed.
    """
    latest = _record(run).get("latest_checkpoint_result")
    return run / latest["checkpoint_dir_name"] if latest else None


def committed(run: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Kept checkpoints that all workers finished, with their figures, by step."""
    results = _record(run).get("checkpoint_results", [])
    found = [(run / r["checkpoint_dir_name"], r["metrics"]) for r in results]
    return sorted(found, key=lambda pair: pair[1]["step"])


def never_committed(run: Path) -> list[Path]:
    """Folders of checkpoints that some worker did not finish."""
    names = {path.name for path, _ in committed(run)}
    return sorted(p for p in run.glob("checkpoint_*") if p.is_dir() and p.name not in names)


def best_by_probe(run: Path) -> dict[str, Any] | None:
    """Path, step and figures of the kept checkpoint with the best online probe; None without any."""
    best = kept_best(run)  # first: of equal ones the earliest is the best
    probed = [best] if best else []
    probed += [
        {"checkpoint": str(path), **metrics}
        for path, metrics in committed(run)
        if "probe_auroc" in metrics
    ]
    return max(probed, key=lambda found: found["probe_auroc"]) if probed else None


def kept_best(run: Path) -> dict[str, Any] | None:
    """Path, step and figures of what `keep_best` has kept in the run's folder `best`."""
    if not (run / BEST / STATE).is_file():
        return None
    state = read_state(run / BEST)
    return {"checkpoint": str(run / BEST), "step": state["step"], **state["probe"]}


def _record(run: Path) -> dict[str, Any]:
    """Ray Train's record of the run's checkpoints; empty where there is none."""
    snapshot = run / SNAPSHOT
    if not snapshot.is_file():
        return {}
    record = json.loads(snapshot.read_text())
    return json.loads(record) if isinstance(record, str) else record


def cautions(path: Path, shards: Path) -> list[str]:
    """What a reader of test figures on these shards must know of the encoder at `path`.

    Nothing where it was pretrained on the same shards, whose splits kept the test patients apart.
    """
    known = not (path / EXPORTED).is_file()
    if known and read_state(find_checkpoint(path))["shards_sha256"] == fingerprint(shards):
        return []
    trained_on = (
        "other shards than these" if known else "shards that an exported encoder does not name"
    )
    return [
        f"The encoder was pretrained on {trained_on}: whether it saw test patients in its "
        "pretraining cannot be told from here."
    ]


def find_checkpoint(path: Path) -> Path:
    """A checkpoint folder from a run's folder (its last committed one) or from itself.

    Raises FileNotFoundError with what was looked for.
    """
    if (path / STATE).is_file():
        return path
    last = last_committed(path)
    if last is None or not (last / STATE).is_file():
        raise FileNotFoundError(
            f"{path} is neither a checkpoint (no {STATE}) nor the folder of a run with a "
            f"committed checkpoint (no {SNAPSHOT}): give the --output folder of `ray-mae pretrain`"
        )
    return last


def encoder_weights(path: Path) -> Weights:
    """The encoder's weights by name, of a run, a checkpoint or an exported folder."""
    if (path / EXPORTED).is_file():
        return load_file(path / ENCODER)
    prefix = "encoder."
    every = all_weights(path)
    return {k.removeprefix(prefix): v for k, v in every.items() if k.startswith(prefix)}


def all_weights(path: Path) -> Weights:
    """Encoder and decoder by name, of a run or a checkpoint. Raises FileNotFoundError."""
    return load_file(find_checkpoint(path) / WEIGHTS)


FOLDER = "checksums"
"""Of a checkpoint: one JSON file per worker, with the SHA-256 of each file that it wrote."""


def write_checksums(folder: Path, rank: int) -> None:
    """Of all files in `folder`, which hold this worker's part of a checkpoint."""
    found = {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / FOLDER).mkdir()
    (folder / FOLDER / f"worker-{rank:04d}.json").write_text(json.dumps(found, indent=1) + "\n")


def damage(checkpoint: Path, workers: int) -> list[str]:
    """What is wrong with the files of a checkpoint that so many workers wrote, a line each; none if whole."""
    wrong = []
    for rank in range(workers):
        list_of_one = checkpoint / FOLDER / f"worker-{rank:04d}.json"
        if not list_of_one.is_file():
            wrong.append(f"{list_of_one.relative_to(checkpoint)} is missing")
            continue
        for name, told in json.loads(list_of_one.read_text()).items():
            path = checkpoint / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
            elif sha256_of(path) != told:
                wrong.append(f"{name} was changed or damaged")
    return wrong
