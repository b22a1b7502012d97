"""`checkpoint list`, `verify` and `convert`: what a run keeps, whether it is whole, and copies for others."""

import time
from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint import integrity
from ray_mae.checkpoint.convert import OPTIMIZER_PARTS, extract_weights, make_universal
from ray_mae.config import CheckpointConvertConfig, CheckpointListConfig, CheckpointVerifyConfig
from ray_mae.store import fetch, writes_to_stores


def checkpoint_list(config: CheckpointListConfig) -> dict[str, Any]:
    """Lists the committed checkpoints of a run by step, and folders that no start of it committed.

    Raises:
        FileNotFoundError: the folder is not that of a run with a committed checkpoint.
    """
    run = config.run.resolve()
    checkpoints = ckpt.committed(run)
    if not checkpoints:
        raise FileNotFoundError(f"{run} is not the folder of a run with a committed checkpoint")
    latest, best = ckpt.last_committed(run), ckpt.best_by_probe(run)
    rows: dict[str, Any] = {}
    for path, metrics in checkpoints:
        state = ckpt.read_state(path)
        marks = [
            *(["latest"] if path == latest else []),
            *(["best by probe"] if best and best["checkpoint"] == str(path) else []),
        ]
        rows[f"step {state['step']}"] = {
            "folder": path.name,
            "saved": time.strftime("%F %T", time.localtime((path / ckpt.STATE).stat().st_mtime)),
            "MB": round(integrity.size_of(path) / 1e6, 1),
            "workers": state["workers"],
            **_engine_of(state),
            **{k: round(v, 4) for k, v in metrics.items() if k == "probe_auroc"},
            **({"marks": ", ".join(marks)} if marks else {}),
        }
    if best_weights := ckpt.read_best(run):
        step = best_weights["step"]
        rows[ckpt.BEST] = {"step": step, "probe_auroc": round(best_weights["probe_auroc"], 4)}
    return {**rows, "never_committed": [path.name for path in ckpt.never_committed(run)]}


def _engine_of(state: dict[str, Any]) -> dict[str, Any]:
    """What wrote a checkpoint, by its state.json."""
    name = state.get("engine", "deepspeed")  # there was no other
    return {"engine": name} | ({"zero_stage": state["zero_stage"]} if name == "deepspeed" else {})


def checkpoint_verify(config: CheckpointVerifyConfig) -> dict[str, Any]:
    """Reads every file of the checkpoints of a run, or of one, and compares it with its checksum.

    Returns:
        `whole`, the names of the checkpoints, and `bytes`, the size of what was read.

    Raises:
        RuntimeError: names each file that is missing or damaged.
        FileNotFoundError: there is no checkpoint.
    """
    path = config.path.resolve()
    checkpoints = [path] if (path / ckpt.STATE).is_file() else [p for p, _ in ckpt.committed(path)]
    if not checkpoints:
        raise FileNotFoundError(
            f"{path} is neither a checkpoint (no {ckpt.STATE}) nor the folder of a run with a committed one"
        )
    wrong: list[str] = []
    for checkpoint in checkpoints:
        wrong += [f"{checkpoint.name}: {what}" for what in integrity.damage(checkpoint)]
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return {
        "whole": [checkpoint.name for checkpoint in checkpoints],
        "bytes": sum(map(integrity.size_of, checkpoints)),
    }


@writes_to_stores(goes_on=True)
def checkpoint_convert(config: CheckpointConvertConfig) -> dict[str, Any]:
    """Writes weights alone, or DeepSpeed's universal format, to a folder that is new or empty.

    Either has model.safetensors, state.json and the tokenizer, which the other commands read, and
    checksums.

    Raises:
        ValueError: the folder is not empty, or the checkpoint has no optimiser to convert.
        FileNotFoundError: there is no checkpoint.
    """
    checkpoint = fetch(ckpt.find_checkpoint(config.checkpoint.resolve()))
    output = config.output.resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not empty: choose another --output")
    if wrong := integrity.known_damage(checkpoint):  # before DeepSpeed's code unpickles it
        raise ValueError(
            f"{checkpoint} is damaged: {'; '.join(wrong[:3])}; take another one of the run"
        )
    state = ckpt.read_state(checkpoint)
    if config.to == "universal" and not list((checkpoint / ckpt.TAG).glob(OPTIMIZER_PARTS)):
        wrote = " ".join(map(str, _engine_of(state).values()))
        raise ValueError(
            f"{checkpoint} has no parts of an optimiser ({wrote}): with DDP or ZeRO 0 any number of workers "
            "goes on with it as it is, and weights alone have none"
        )
    with extract_weights(checkpoint, output, format=config.to) as folder:
        if config.to == "universal":
            make_universal(checkpoint / ckpt.TAG, folder / ckpt.TAG)
    return {
        "checkpoint": str(checkpoint),
        "step": state["step"],
        **_engine_of(state),
        "output": str(output),
        "files": len(integrity.files_of(output)),
        "MB": round(integrity.size_of(output) / 1e6, 1),
        # of a method that reads reports
        "holds_words_of_reports": (output / ckpt.TOKENIZER).is_file(),
    }
