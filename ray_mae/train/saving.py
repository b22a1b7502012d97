"""Checkpoints of a run: every worker writes its part, Ray Train merges and commits them."""

import tempfile
import time
from pathlib import Path

import ray.train
from safetensors.torch import save_file

from ray_mae.config import AnyPretrainConfig
from ray_mae.train import checkpoint as ckpt
from ray_mae.train.checksums import write_checksums
from ray_mae.train.engine import Engine


class Saver:
    """Saves this worker's part of the run's checkpoints, and knows the time that this took."""

    def __init__(
        self,
        engine: Engine,
        config: AnyPretrainConfig,
        rank: int,
        workers: int,
        tokenizer: str | None,
    ) -> None:
        self._engine, self._config = engine, config
        self._rank, self._workers, self._tokenizer = rank, workers, tokenizer
        self._began, self._seconds = time.perf_counter(), 0.0
        self._last: float | None = None

    def save(self, step: int, *, probed: bool) -> None:
        """A checkpoint after `step` steps; called by every worker. probed: the probe is called for it.

        Raises RuntimeError where the weights are not finite.
        """
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="ray_mae_") as temporary:
            folder = Path(temporary)
            self._write(folder, step)
            ray.train.report(
                {"step": step},
                checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
                validation=probed,
            )
        self._last = time.perf_counter() - began
        self._seconds += self._last

    def figures(self) -> dict[str, float]:
        """`saving`: share of the time since the start that training waited for checkpoints; `saving_s`:
        seconds that it waited for the last one."""
        share = {"saving": self._seconds / (time.perf_counter() - self._began)}
        return share if self._last is None else share | {"saving_s": self._last}

    def _write(self, folder: Path, step: int) -> None:
        """This worker's part, to a folder of this machine."""
        self._engine.save(folder)
        weights = self._engine.weights()
        if broken := [name for name, w in weights.items() if not w.isfinite().all()]:
            raise RuntimeError(
                f"{len(broken)} weights are not finite after step {step}, such as {broken[0]}: the "
                "training diverged, and no checkpoint was made of it; lower the learning rate"
            )
        if self._rank == 0:
            save_file(weights, folder / ckpt.WEIGHTS)
            ckpt.write_state(
                folder,
                self._config,
                step=step,
                workers=self._workers,
                zero_stage=self._engine.stage,
            )
            if self._tokenizer:
                (folder / ckpt.TOKENIZER).write_text(self._tokenizer)
        write_checksums(folder, self._rank)
