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
from ray_mae.checkpoint.integrity import write_checksums
from ray_mae.data.paths import is_remote
from ray_mae.files import write_whole
from ray_mae.store import put_folder

if TYPE_CHECKING:
    import torch


FAMILIES = {0: "0", 1: "1 or 2", 2: "1 or 2", 3: "3"}
"""ZeRO stages whose optimiser states can be read by one another, in words."""
OPTIMIZER_PARTS = "*_optim_states.pt"
"""Pattern of the files with a worker's part of the optimiser."""
_MOMENTUM = "momentum_buffer"


# ---------------------------------------------------------------------------------------- universal


def make_universal(checkpoint: Path, output: Path) -> None:
    """Joins the parts of all workers to one universal checkpoint, which any number of workers loads.

    Holds one worker's part in memory at a time.

    Args:
        checkpoint: folder of DeepSpeed's own files.
        output: folder to write to, empty or not there.
    """
    from deepspeed.checkpoint import ds_to_universal

    output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="ray_mae_", dir=output.parent) as readable,
        contextlib.redirect_stdout(io.StringIO()),  # a page of lines and bars
    ):
        _add_adam_moments(checkpoint, Path(readable))
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


def _add_adam_moments(checkpoint: Path, folder: Path) -> None:
    """The checkpoint with the moments that DeepSpeed's converter looks for, which knows Adam alone.

    The momentum of SGD stands for both; `mend` undoes it. Where no step was taken yet they are zero.
    """
    import torch

    for path in checkpoint.iterdir():
        if not path.match(OPTIMIZER_PARTS):
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
    """Puts right what DeepSpeed leaves wrong in an optimiser that it loaded from a universal checkpoint.

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


# ------------------------------------------------------------------------------------ weights alone


@contextmanager
def extract_weights(checkpoint: Path, output: Path, **facts: Any) -> Iterator[Path]:
    """Makes a folder of a checkpoint's weights, tokenizer and state.json, which replaces `output`.

    Args:
        checkpoint: what is copied.
        output: the folder, which appears as a whole when the block ends without an error.
        facts: for state.json, beside what is there.

    Yields:
        The folder while it has another name: what the block adds becomes part of it, with checksums.
    """
    state = ckpt.read_state(checkpoint)
    if is_remote(output):
        with tempfile.TemporaryDirectory(prefix="ray_mae-") as beside:
            folder = Path(beside) / output.name
            with extract_weights(checkpoint, folder, **facts) as local:
                yield local
            (output / ckpt.STATE).unlink(missing_ok=True)  # without it the weights are none
            put_folder(folder, output, last=ckpt.STATE)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
        folder, before = Path(beside) / "new", Path(beside) / "before"
        folder.mkdir()
        for name in (ckpt.WEIGHTS, ckpt.TOKENIZER):
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
        yield folder
        state = state | {"workers": 1, "written_by": state["workers"], **facts}
        write_whole(folder / ckpt.STATE, json.dumps(state, indent=1) + "\n")
        write_checksums(folder, 0)
        if output.exists():
            output.rename(before)
        folder.rename(output)


def keep_best(run: Path, checkpoint: Path, metrics: dict[str, Any]) -> None:
    """Copies the weights of a checkpoint to the run's folder `best` if its probe did better than all before.

    Args:
        run: folder of the run.
        checkpoint: folder of the checkpoint.
        metrics: of the probe; `probe_auroc` decides.
    """
    best = ckpt.read_best(run)
    if best is None or metrics["probe_auroc"] > best["probe_auroc"]:
        with extract_weights(checkpoint, run / ckpt.BEST, probe=metrics):
            pass
