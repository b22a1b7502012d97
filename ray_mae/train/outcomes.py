"""What came of a step, without waiting for the device: it is told when it is known."""

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor


class Outcome:
    """Whether a step was taken, and the norm of its gradient before clipping.

    Both are made on the device, and travel to the host beside its work.

    Args:
        norm: scalar.
        taken: scalar, false where the step was skipped.
    """

    def __init__(self, norm: Tensor, taken: Tensor) -> None:
        self.taken = taken
        """Scalar on the device."""
        values = torch.stack([norm.detach().float(), taken.float()])
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            self._values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._values = values

    @classmethod
    def of(cls, norm: float, taken: bool) -> "Outcome":
        """Of a step that the host knows already."""
        return cls(torch.tensor(norm), torch.tensor(taken))

    @property
    def known(self) -> bool:
        """Whether nobody would wait to hear it."""
        return self._event is None or self._event.query()

    @property
    def skipped(self) -> bool:
        """Whether the step changed nothing, since its gradient was not finite on some worker; waits."""
        return not self._read()[1]

    @property
    def norm(self) -> float:
        """Of the gradient; waits."""
        return self._read()[0]

    def _read(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


class Outcomes:
    """Steps whose outcome nobody has looked at yet, oldest first."""

    AHEAD = 2
    """Steps that the host may be ahead of the device: enough that it always has work."""

    def __init__(self) -> None:
        self._open: deque[tuple[int, Outcome]] = deque()

    def add(self, step: int, outcome: Outcome) -> None:
        """Notes a step, from 0."""
        self._open.append((step, outcome))

    def settled(self, *, every: bool) -> Iterator[tuple[int, Outcome]]:
        """Yields the steps whose outcome is known, each once.

        Args:
            every: wait for all of them.
        """
        while self._open:
            _, outcome = self._open[0]
            if not (every or len(self._open) > self.AHEAD or outcome.known):
                return
            yield self._open.popleft()
