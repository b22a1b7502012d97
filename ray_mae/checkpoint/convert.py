"""Other forms of checkpoints: DeepSpeed's universal one, for any number of workers, and weights alone."""

import contextlib
import io
import json
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.format import write_checksums

if TYPE_CHECKING:
    import torch


FAMILIES = {0: "0", 1: "1 or 2", 2: "1 or 2", 3: "3"}
"""ZeRO stages whose optimiser states can be read by one another, in words."""
_MOMENTUM = "momentum_buffer"
_PARTS = "*_optim_states.pt"


def make_universal(checkpoint: Path, output: Path) -> None:
    """Write the parts in `checkpoint` (the folder of DeepSpeed's own files) as one whole to `output`.

    `output` must be empty, or not there. Holds one worker's part in memory at a time.
    """
    from deepspeed.checkpoint import ds_to_universal

    output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="ray_mae_", dir=output.parent) as readable,
        contextlib.redirect_stdout(io.StringIO()),  # a page of lines and bars
    ):
        _as_of_adam(checkpoint, Path(readable))
        ds_to_universal.main(
            Namespace(
                input_folder=readable,
                output_folder=str(output),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,  # of models that are not Megatron's
            )
        )


def _as_of_adam(checkpoint: Path, folder: Path) -> None:
    """The checkpoint with the moments that DeepSpeed's converter looks for, which knows Adam alone.

    The momentum of SGD stands for both; `mend` undoes it. Where no step was taken yet they are zero.
    """
    import torch

    for path in checkpoint.iterdir():
        if not path.match(_PARTS):
            (folder / path.name).symlink_to(path.resolve())
            continue
        part = torch.load(path, map_location="cpu", weights_only=False)
        states, weights = _states(part["optimizer_state_dict"])
        for group, weight in enumerate(weights):
            state = states.setdefault(group, {})
            momentum = state.pop(_MOMENTUM, None)
            if "exp_avg" not in state:
                moment = torch.zeros_like(weight) if momentum is None else momentum
                state |= {"exp_avg": moment, "exp_avg_sq": moment}
            state.setdefault("step", torch.zeros(()))
        torch.save(part, folder / path.name)


def _states(optimizer: dict[str, Any]) -> tuple[dict[int, Any], list[Any]]:
    """By group: the states, and the flat fp32 weights; of ZeRO 3, or of 1 and 2."""
    if "fp32_flat_groups" in optimizer:
        return optimizer["optimizer_state_dict"]["state"], optimizer["fp32_flat_groups"]
    return optimizer["base_optimizer_state"]["state"], optimizer["single_partition_of_fp32_groups"]


def mend(optimizer: "torch.optim.Optimizer") -> None:
    """What DeepSpeed leaves wrong in an optimiser that it loaded from a universal checkpoint.

    The momentum of SGD has Adam's names; and in ZeRO 3 all groups count their steps in one tensor.
    """
    import torch

    for state in optimizer.state.values():
        if isinstance(optimizer, torch.optim.SGD):
            moment = state.get("exp_avg")
            state.clear()
            if moment is not None:
                state[_MOMENTUM] = moment
        elif isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


@contextmanager
def extract_weights(checkpoint: Path, output: Path, **facts: Any) -> Iterator[Path]:
    """A folder with the checkpoint's weights, tokenizer and state.json; it becomes `output` at the end.

    What the block adds becomes part of it, with its checksums; facts: for state.json, beside what is
    there. What `output` was before is replaced.
    """
    state = ckpt.read_state(checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
        folder, before = Path(beside) / "new", Path(beside) / "before"
        folder.mkdir()
        for name in (ckpt.WEIGHTS, ckpt.TOKENIZER):
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
        yield folder
        state = state | {"workers": 1, "written_by": state["workers"], **facts}
        (folder / ckpt.STATE).write_text(json.dumps(state, indent=1) + "\n")
        write_checksums(folder, 0)
        if output.exists():
            output.rename(before)
        folder.rename(output)


def keep_best(run: Path, checkpoint: Path, metrics: dict[str, Any]) -> None:
    """Keep the weights of a checkpoint in the run's folder `best` if its probe did better than all before.

    metrics: `probe_auroc` and others of the probe.
    """
    best = ckpt.read_best(run)
    if best is None or metrics["probe_auroc"] > best["probe_auroc"]:
        with extract_weights(checkpoint, run / ckpt.BEST, probe=metrics):
            pass
