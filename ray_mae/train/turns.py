"""Runs that share a cluster: their workers together always leave CPUs for reading data.

Training workers hold their CPUs to the end. Of two runs each of which leaves a CPU free, the second can
take the last one, and then both wait for data for ever. So a run says how many its workers will hold
before they take them, and waits its turn where too few would be left for the tasks that read.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PREFIX = "ray_mae"
# Every cluster has this resource on its head, where drivers run. A placement group of next to nothing of it
# takes no process and no CPU, stands in a list that all jobs see, and is gone with the job that made it.
_HEAD = "node:__internal_head__"
_NEXT_TO_NOTHING = 0.0001


@dataclass(frozen=True, order=True)
class Claim:
    """CPUs that the workers of a run hold, or will when it is their turn."""

    since: float
    held: float
    beside: float
    """CPUs that must stay free of workers while this run goes on."""
    key: str

    @property
    def name(self) -> str:
        """How the claim is written down."""
        return f"{_PREFIX} {self.since!r} {self.held:g} {self.beside:g} {self.key}"


def must_wait(own: Claim, others: list[Claim], cpus: float) -> bool:
    """Whether workers of earlier claims leave too little of the cluster's `cpus` for this one.

    A claim that does not even fit an empty cluster does not count, and does not wait: it asks the
    cluster to grow.
    """
    if own.held + own.beside > cpus:
        return False
    earlier = [c for c in others if c < own and c.held + c.beside <= cpus]
    beside = max([c.beside for c in earlier] + [own.beside])
    return sum(c.held for c in earlier) + own.held + beside > cpus


@contextmanager
def turn(held: float, beside: float) -> Iterator[None]:
    """Wait until a run's workers may take `held` CPUs; they are accounted for until the block ends."""
    from ray.util.placement_group import placement_group, remove_placement_group

    from ray_mae.runtime import within_reach
    from ray_mae.train.progress import console

    own = Claim(time.time(), held, beside, uuid.uuid4().hex)
    group = placement_group([{_HEAD: _NEXT_TO_NOTHING}], name=own.name)
    try:
        waited = False
        while must_wait(own, _claims(), within_reach("CPU")):
            if not waited:
                console.print(
                    f"waiting: workers of other runs hold CPUs, and {held:g} more would leave less than "
                    f"{beside:g} for reading data"
                )
            waited = True
            time.sleep(1)
        yield
    finally:
        remove_placement_group(group)


def _claims() -> list[Claim]:
    from ray.util.placement_group import placement_group_table

    words = (g["name"].split() for g in placement_group_table().values() if g["state"] != "REMOVED")
    return [Claim(float(w[1]), float(w[2]), float(w[3]), w[4]) for w in words if w[:1] == [_PREFIX]]
