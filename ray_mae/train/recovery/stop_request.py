"""The driver's request to save and end."""

import threading

import torch
import torch.distributed as dist
from ray.exceptions import RayError

from ray_mae.cluster import ray_private


class StopRequest:
    """Asks, about every second, whether the driver was asked to end the run.

    The first worker looks, in a thread, since the cluster's store may be slow; the others hear of it in a
    collective operation, at steps that follow from metrics that all of them share.

    Args:
        device: of the tensor that carries the answer.
    """

    SECONDS = 1.0

    def __init__(self, device: torch.device) -> None:
        self._device, self._every = device, 1
        self._asked, self._ended = threading.Event(), threading.Event()
        if dist.get_rank() == 0:
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._ended.wait(self.SECONDS / 2):
            try:
                if ray_private.stop_requested():
                    self._asked.set()
                    return
            except (RayError, RuntimeError):  # the control store is away, and may come back
                continue

    def pace(self, steps_per_s: float) -> None:
        """Sets the steps between two questions by the last report's speed, the same on every worker."""
        self._every = max(1, round(self.SECONDS * steps_per_s))

    def requested(self, step: int) -> bool:
        """Returns whether to save after `step` steps and end: the same on every worker."""
        if step % self._every:
            return False
        if dist.get_world_size() == 1:
            return self._asked.is_set()
        answer = torch.tensor(int(self._asked.is_set()), device=self._device)
        dist.broadcast(answer, 0)
        return bool(answer.item())

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
