"""A checkpoint without its optimiser, and the best one of a run by the online probe."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_mae.train import checkpoint as ckpt
from ray_mae.train.checksums import write_checksums


@contextmanager
def extracted(checkpoint: Path, output: Path, **facts: Any) -> Iterator[Path]:
    """A folder with the checkpoint's weights, tokenizer and state.json; it becomes `output` at the end.

    What the block adds becomes part of it, with its checksums; facts: for state.json, beside what is
    there. What `output` was before is replaced.
    """
    state = ckpt.read_state(checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
        made, before = Path(beside) / "made", Path(beside) / "before"
        made.mkdir()
        for name in (ckpt.WEIGHTS, ckpt.TOKENIZER):
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, made / name)
        yield made
        told = state | {"workers": 1, "written_by": state["workers"], **facts}
        (made / ckpt.STATE).write_text(json.dumps(told, indent=1) + "\n")
        write_checksums(made, 0)
        if output.exists():
            output.rename(before)
        made.rename(output)


def keep_best(run: Path, checkpoint: Path, figures: dict[str, Any]) -> None:
    """Keep the weights of a checkpoint in the run's folder `best` if its probe found more than all before.

    figures: `probe_auroc` and others of the probe.
    """
    best = ckpt.kept_best(run)
    if best is None or figures["probe_auroc"] > best["probe_auroc"]:
        with extracted(checkpoint, run / ckpt.BEST, probe=figures):
            pass
