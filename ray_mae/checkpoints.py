"""`checkpoint list` and `checkpoint verify`: what a run keeps, and whether it is whole."""

import time
from pathlib import Path
from typing import Any

from ray_mae.config import CheckpointListConfig, CheckpointVerifyConfig
from ray_mae.train import checkpoint as ckpt
from ray_mae.train.checksums import damage


def checkpoint_list(config: CheckpointListConfig) -> dict[str, Any]:
    """Committed checkpoints of a run by step, and folders that no start of it committed."""
    run = config.run.resolve()
    kept = ckpt.committed(run)
    if not kept:
        raise FileNotFoundError(f"{run} is not the folder of a run with a committed checkpoint")
    latest, best = ckpt.last_committed(run), ckpt.best_by_probe(run)
    found: dict[str, Any] = {}
    for path, metrics in kept:
        state = ckpt.read_state(path)
        marks = [
            *(["latest"] if path == latest else []),
            *(["best by probe"] if best and best["checkpoint"] == str(path) else []),
        ]
        found[f"step {state['step']}"] = {
            "folder": path.name,
            "saved": time.strftime("%F %T", time.localtime((path / ckpt.STATE).stat().st_mtime)),
            "MB": round(_bytes(path) / 1e6, 1),
            "workers": state["workers"],
            "zero_stage": state["zero_stage"],
            **{k: round(v, 4) for k, v in metrics.items() if k == "probe_auroc"},
            **({"marks": ", ".join(marks)} if marks else {}),
        }
    if of_best := ckpt.kept_best(run):
        step = of_best["step"]
        found[ckpt.BEST] = {"step": step, "probe_auroc": round(of_best["probe_auroc"], 4)}
    return {**found, "never_committed": [path.name for path in ckpt.never_committed(run)]}


def checkpoint_verify(config: CheckpointVerifyConfig) -> dict[str, Any]:
    """Read every file of the checkpoints of a run, or of one, and compare it with what was written.

    Raises RuntimeError that names each file that is missing or damaged.
    """
    path = config.path.resolve()
    every = [path] if (path / ckpt.STATE).is_file() else [p for p, _ in ckpt.committed(path)]
    if not every:
        raise FileNotFoundError(
            f"{path} is neither a checkpoint (no {ckpt.STATE}) nor the folder of a run with a committed one"
        )
    wrong: list[str] = []
    for one in every:
        if not (one / ckpt.STATE).is_file():
            wrong.append(f"{one.name}: {ckpt.STATE} is missing")
            continue
        workers = ckpt.read_state(one)["workers"]
        wrong += [f"{one.name}: {what}" for what in damage(one, workers)]
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return {"whole": [one.name for one in every], "bytes": sum(map(_bytes, every))}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
