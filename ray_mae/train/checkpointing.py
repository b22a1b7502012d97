"""Checkpoints of a run: every worker saves its part, Ray Train commits them, and a start begins with one."""

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import ray.train
import torch
import torch.distributed as dist
from ray.train import CheckpointUploadMode
from safetensors.torch import save_file

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint import integrity
from ray_mae.checkpoint.begin import fresh_names
from ray_mae.checkpoint.convert import make_universal
from ray_mae.data.paths import is_remote
from ray_mae.methods.base import Method
from ray_mae.store import put_folder, remove_folder
from ray_mae.train.engine import Engine
from ray_mae.train.errors import FatalError
from ray_mae.train.metrics.jsonl import put_gathered
from ray_mae.train.metrics.trackers import read_ids
from ray_mae.train.run_folder import RunFolder
from ray_mae.train.run_storage import FullDisk, is_full
from ray_mae.train.setup import Job

# ------------------------------------------------------------------------------------------- saving


class Checkpoints:
    """Saves this worker's part of the run's checkpoints, and knows the time that this took.

    The part is written to the temporary folder of this machine (TMPDIR) and uploaded from there, by
    default while training goes on. One upload at a time.

    Args:
        engine: whose weights and optimiser states are saved.
        upload: whether training goes on while a checkpoint is uploaded, or waits.
        folder: of the run.
        job: whose settings, shards and tokenizer stand in each checkpoint.
        event: called with a sentence that a user should read.
    """

    def __init__(
        self,
        engine: Engine,
        upload: Literal["async", "wait"],
        folder: RunFolder,
        job: Job,
        event: Callable[[str], None],
    ) -> None:
        context = ray.train.get_context()
        rank = context.get_world_rank()
        self._engine, self._upload_mode, self._folder, self._job = engine, upload, folder, job
        self._rank, self._workers = rank, context.get_world_size()
        self._event = event
        self._uploaded = threading.Event()
        self._uploaded.set()
        self._uploaded_step = 0
        self._began, self._waited = time.perf_counter(), 0.0
        self._last: dict[str, float] = {}
        run = hashlib.sha256(str(folder.path).encode()).hexdigest()[:12]
        self._prefix = f"ray_mae-{run}-{rank:04d}-"
        for left in Path(tempfile.gettempdir()).glob(
            f"{self._prefix}*"
        ):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)

    def save(self, step: int, *, probed: bool, wait: bool = False) -> None:
        """Saves a checkpoint after `step` steps; called by every worker.

        Args:
            step: optimiser steps done.
            probed: whether the probe is called for it.
            wait: until it is uploaded, whatever the settings say.

        Raises:
            FatalError: the weights are not finite.
            FullDisk: it does not fit.
        """
        began = time.perf_counter()
        self.wait()
        wait = wait or self._upload_mode == "wait"
        folder = Path(tempfile.mkdtemp(prefix=self._prefix))
        try:
            self._write(folder, step)
            self._require_room(folder, step)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._uploaded.clear()
        ray.train.report(
            {"step": step},
            checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
            checkpoint_upload_mode=CheckpointUploadMode.SYNC
            if wait
            else CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=lambda local, name: self._upload(local, name, step),
            delete_local_checkpoint_after_upload=True,
            validation=probed,
        )
        if wait:
            self._uploaded.set()  # even where Ray Train left the report out, since workers are going
        self._last["saving_s"] = time.perf_counter() - began
        self._waited += self._last["saving_s"]

    def wait(self) -> None:
        """Waits until the last checkpoint is uploaded, or failed to be, which ends the run elsewhere."""
        self._uploaded.wait()

    def settle(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Where training ends by an error: let the last checkpoint be uploaded and committed before."""
        if kind is not None and issubclass(kind, Exception):
            self._uploaded.wait(self._folder.patience)
            with suppress(OSError):
                put_gathered()
                self._last_committed()

    def metrics(self) -> dict[str, float]:
        """What checkpoints cost.

        `saving` is the share of the time since the start that training waited for them; `saving_s` the
        seconds that it waited for the last one, and `upload_s` those that copying one took, beside it.
        """
        share = self._waited / (time.perf_counter() - self._began)
        return {"saving": share, **self._last}

    def _write(self, folder: Path, step: int) -> None:
        """This worker's part, to a folder of this machine."""
        try:
            self._engine.save(folder)
            weights = self._engine.weights()
            _require_finite(weights, step)
            if self._rank == 0:
                self._write_whole(folder, step, weights)
            integrity.write_checksums(folder, self._rank)
        except Exception as error:
            if is_full(error, folder):
                raise self._full(folder.parent, step, "; TMPDIR names another folder") from error
            raise

    def _write_whole(self, folder: Path, step: int, weights: dict[str, torch.Tensor]) -> None:
        """What one worker writes for all."""
        save_file(weights, folder / ckpt.WEIGHTS)
        ckpt.write_state(
            folder,
            self._job.config,
            step=step,
            workers=self._workers,
            engine=self._engine.name,
            zero_stage=self._engine.stage,
            precision=self._engine.precision,
            shards=self._job.shards,
            trackers=read_ids(self._folder.path),
            begun_with=self._job.begun_with,
        )
        if self._job.tokenizer:
            (folder / ckpt.TOKENIZER).write_text(self._job.tokenizer)

    def _require_room(self, folder: Path, step: int) -> None:
        """Raise FullDisk, on every worker, before anything is uploaded that would not go in."""
        sizes = torch.tensor(integrity.size_of(folder), device=self._engine.device)
        if self._workers > 1:
            dist.all_reduce(sizes)
        run = self._folder.path
        if is_remote(run):
            return  # nobody knows how much goes in
        try:
            free = shutil.disk_usage(run).free
        except OSError:
            return  # it is away: the upload waits for it
        if free < int(sizes):
            raise self._full(
                run, step, f": it needs {int(sizes) / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
            )

    def _upload(self, local: Any, name: str, step: int) -> Any:
        """From the temporary folder to the run's; called by Ray Train, in a thread where it is async."""
        began = time.perf_counter()
        run = self._folder.path
        context = ray.train.get_context().get_storage()
        storage, path = context.storage_filesystem, context.build_checkpoint_path_from_name(name)

        def copy() -> Any:
            self._folder.require_current()
            put_gathered()  # a run that goes on from this checkpoint does not write them again
            put_folder(Path(local.path), run / name)
            return ray.train.Checkpoint(path, filesystem=storage)

        try:
            copied = self._folder.outlast(copy, back=self._event)
            self._uploaded_step = step
            return copied
        except BaseException as error:
            shutil.rmtree(local.path, ignore_errors=True)
            if not is_full(error, run):
                raise
            remove_folder(run / name)
            raise self._full(run, step, "") from error
        finally:
            self._last["upload_s"] = time.perf_counter() - began
            self._uploaded.set()

    def _full(self, folder: Path, step: int, more: str) -> FullDisk:
        last = self._last_committed()
        earlier = f"that of step {last} is as it was" if last else "there is none"
        return FullDisk(
            f"{folder} has no room for the checkpoint of step {step}{more}. Of earlier ones, {earlier}. "
            "Make room, or lower checkpoint.keep, and start the same command again"
        )

    def _last_committed(self) -> int:
        """The step of the last checkpoint; what is uploaded is committed when Ray Train has looked."""
        for _ in range(100):
            last = ckpt.last_committed(self._folder.path)
            step = ckpt.read_state(last)["step"] if last else 0
            if step >= self._uploaded_step:
                break
            time.sleep(0.1)
        return step


def _require_finite(weights: dict[str, torch.Tensor], step: int) -> None:
    if broken := [name for name, w in weights.items() if not w.isfinite().all()]:
        raise FatalError(
            f"{len(broken)} weights are not finite after step {step}, such as {broken[0]}: the "
            "training diverged, and no checkpoint was made of it; lower the learning rate"
        )


# ---------------------------------------------------------------------------------------- beginning


def begin_with(module: Method, checkpoint: Path) -> str:
    """Loads what fits of other weights into the module; returns in words how much that was.

    Args:
        module: the method with fresh weights.
        checkpoint: of another run, an exported encoder, or what `checkpoint.begin` made of others.

    Raises:
        ValueError: the encoder is another one.
    """
    may_be_new = fresh_names(checkpoint)
    saved = ckpt.weights_to_begin_with(checkpoint)
    own = module.state_dict()
    fits = {
        name: torch.from_numpy(saved[name])
        for name, tensor in own.items()
        if name in saved and saved[name].shape == tuple(tensor.shape)
    }
    rest = [name for name in own if name not in fits]
    strange = [name for name in rest if name.startswith("encoder.")]
    if strange := [name for name in strange if not name.startswith(may_be_new)]:
        raise ValueError(
            f"{checkpoint} holds another encoder: {len(strange)} weights are missing or of another shape, "
            f"such as {strange[0]}; take its settings of encoder, or no --weights"
        )
    module.load_state_dict(fits, strict=False)
    module.begin()
    fresh = f", {len(rest)} are new" if rest else ""
    return f"weights of {checkpoint}: {len(fits)} taken{fresh}"


def saved_step() -> int:
    """Returns the step to go on with: that of the last committed checkpoint, 0 where there is none."""
    saved = ray.train.get_checkpoint()
    if saved is None:
        return 0
    with saved.as_directory() as path:
        return int(ckpt.read_state(Path(path))["step"])


def restore(engine: Engine) -> None:
    """Loads the last committed checkpoint, if any.

    One by another number of workers, or of another ZeRO stage, becomes a universal one on the way.
    """
    saved = ray.train.get_checkpoint()
    if saved is None:
        return
    with saved.as_directory() as path:
        folder = Path(path)
        state = ckpt.read_state(folder)
        _require_whole(folder, state["workers"])
        _require_precision(engine, state.get("precision", engine.precision))
        before = (state["workers"], state["zero_stage"])
        if engine.reads_any_workers or before == (dist.get_world_size(), engine.stage):
            engine.load(folder)
            dist.barrier()  # workers of one node share the folder: nobody may remove it early
        else:
            with _universal(folder) as whole:
                engine.load(whole, universal=True)
            engine.set_buffers(_tensors(folder))
        if engine.has_frozen:
            engine.set_frozen(_tensors(folder))


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All weights of the method."""
    return {name: torch.from_numpy(w) for name, w in ckpt.all_weights(checkpoint).items()}


def _require_whole(checkpoint: Path, workers: int) -> None:
    """Raise FatalError, on every worker, where a file is not as it was written; each reads its share."""
    rank, world = dist.get_rank(), dist.get_world_size()
    wrong: list[list[str]] = [[]] * world
    dist.all_gather_object(wrong, integrity.known_damage(checkpoint, range(rank, workers, world)))
    if found := [what for of_worker in wrong for what in of_worker]:
        raise FatalError(
            f"{checkpoint} is damaged ({'; '.join(found[:3])}): start the same command again, and it goes "
            "on with the last checkpoint that is whole"
        )


def _require_precision(engine: Engine, before: str) -> None:
    """`auto` may be another one on the GPUs of today, and optimiser states are not for both."""
    if engine.precision != before:
        raise FatalError(
            f"the run's checkpoints are of {before}, and this start would train in {engine.precision}: set "
            f"engine.precision to {before}, or begin another run from the weights alone with --weights"
        )


@contextmanager
def _universal(checkpoint: Path) -> Iterator[Path]:
    """The folder of a universal copy, made once on each node for all of its workers."""
    context = ray.train.get_context()
    first = context.get_local_rank() == 0
    here = (context.get_node_rank(), tempfile.mkdtemp(prefix="ray_mae_") if first else "")
    everybody: list[tuple[int, str]] = [(0, "")] * context.get_world_size()
    dist.all_gather_object(everybody, here)
    folder = Path(next(path for node, path in everybody if node == here[0] and path))
    try:
        if first:
            make_universal(checkpoint / ckpt.TAG, folder / ckpt.TAG)
        dist.barrier()
        yield folder
        dist.barrier()  # nobody may remove it early
    finally:
        if first:
            shutil.rmtree(folder, ignore_errors=True)
