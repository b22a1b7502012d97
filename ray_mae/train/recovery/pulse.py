"""What driver and workers tell each other while training goes on: signs of life, and the request to end."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ray_mae.cluster import ray_private

EVERY_S = 5.0
"""Between two signs of life of a worker."""


@dataclass(frozen=True)
class Sign:
    """A worker's sign of life."""

    rank: int
    step: int
    """Steps done."""
    doing: str
    """What it is at, in words."""
    host: str
    pid: int
    time: float
    """Unix time of its machine, for whoever compares the signs of one worker."""


class Pulse:
    """Of one worker, in a thread of its own: it tells a sign of life, and hears whether the run is to end.

    The first worker hears it, the others in a collective operation, at steps that follow from metrics that
    all of them share.

    Args:
        attempt: start of the run.
        step: the first one.
    """

    ASK_S = 1.0
    """Between two questions, about."""

    def __init__(self, attempt: str, step: int) -> None:
        import torch.distributed as dist

        self._attempt, self._every = attempt, 1
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self.step, self.doing = step, "starting"
        self._asked, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        from ray.exceptions import RayError

        told = -EVERY_S
        while not self._ended.wait(self.ASK_S / 2):
            try:
                if self._rank == 0 and ray_private.stop_requested():
                    self._asked.set()
                if time.monotonic() - told >= EVERY_S:
                    told = time.monotonic()
                    ray_private.tell(
                        f"{key_of(self._attempt)}{self._rank:05d}", json.dumps(asdict(self._sign()))
                    )
            except (RayError, RuntimeError):  # the control store is away, and may come back
                continue

    def _sign(self) -> Sign:
        return Sign(
            self._rank,
            self.step,
            self.doing,
            socket.gethostname(),
            os.getpid(),
            time.time(),
        )

    def pace(self, steps_per_s: float) -> None:
        """Sets the steps between two questions by the last report's speed, the same on every worker."""
        self._every = max(1, round(self.ASK_S * steps_per_s))

    def stop_requested(self, step: int) -> bool:
        """Returns whether to save after `step` steps and end: the same on every worker."""
        if step % self._every:
            return False
        if self._world == 1:
            return self._asked.is_set()
        import torch
        import torch.distributed as dist

        answer = torch.tensor(int(self._asked.is_set()))  # on the CPU: nobody waits for a device
        dist.broadcast(answer, 0)
        return bool(answer.item())

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()


class Silence:
    """Of the driver: says who is waited for when no metrics have come for long.

    Args:
        attempt: start of the run.
        read: returns the workers' last signs of life, of a start.
    """

    LEAST_S = 60.0
    """Silence that is spoken of; five times the time between two metrics where that is longer."""

    def __init__(self, attempt: str, read: Callable[[str], list[Sign]] | None = None) -> None:
        self._attempt = attempt
        self._read = read or read_signs
        self._last: float | None = None
        self._interval = 0.0
        self._told = 0.0
        self._seen: dict[
            int, tuple[float, float]
        ] = {}  # rank → its own time, and ours when it came

    def heard(self, now: float) -> str | None:
        """Notes metrics; returns a line where there was silence before.

        Args:
            now: seconds of a clock that does not jump.
        """
        silent = now - self._last if self._told and self._last is not None else 0.0
        if self._last is not None and not silent:
            self._interval = now - self._last
        self._last, self._told = now, 0.0
        return f"metrics again after {silent:.0f} s" if silent else None

    def rest(self) -> None:
        """Notes that no metrics are to come, until there are some."""
        self._last, self._told = None, 0.0
        self._seen.clear()

    def look(self, now: float) -> str | None:
        """Returns a line where no metrics have come for long: then, and whenever that time has doubled."""
        if self._last is None:  # workers start, which has lines of its own
            return None
        silent = now - self._last
        limit = max(self.LEAST_S, 5 * self._interval)
        if silent < limit / 2:
            return None
        signs = self._read(self._attempt)
        for sign in signs:
            if self._seen.get(sign.rank, (None,))[0] != sign.time:
                self._seen[sign.rank] = (sign.time, now)
        if silent < max(limit, 2 * self._told):
            return None
        self._told = silent
        return f"no metrics for {silent:.0f} s: {self._who(signs, now)}"

    def _who(self, signs: list[Sign], now: float) -> str:
        if not signs:
            return "no worker has told anything"
        silent = [s for s in signs if now - self._seen[s.rank][1] > 3 * EVERY_S]
        if silent:
            others = len(signs) - len(silent)
            which = ", ".join(
                f"worker {s.rank} ({s.host}, process {s.pid}) for {now - self._seen[s.rank][1]:.0f} s, "
                f"last {s.doing} after step {s.step}"
                for s in silent[:3]
            )
            more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
            wait = f"; the others ({others}) wait" if others else ""
            return (
                f"no sign of life of {which}{more}{wait}. One that does not answer for "
                f"{ray_private.health_check_timeout():.0f} s is given up, and all begin again with the last "
                "checkpoint by themselves; where it is not, stop the command and start it again"
            )
        least = min(signs, key=lambda s: (s.step, s.doing != "reading data"))
        return (
            f"all {len(signs)} workers are alive; worker {least.rank} ({least.host}, process {least.pid}) is "
            f"{least.doing} after step {least.step}. Ctrl-C ends the run, and the same command goes on from "
            "its last checkpoint"
        )


def key_of(attempt: str) -> str:
    """Returns how the names begin under which the workers of a start tell their signs of life."""
    return f"pulse-{attempt}-"


def read_signs(attempt: str) -> list[Sign]:
    """Returns the last signs of life of a start's workers; none while the control store is away."""
    from ray.exceptions import RayError

    try:
        return [Sign(**json.loads(value)) for value in ray_private.told(key_of(attempt))]
    except (RayError, RuntimeError):
        return []
