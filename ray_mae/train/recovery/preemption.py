"""Notices that a node will be taken away."""

import os

import ray.train


class Preemption:
    """Asks, every few seconds, whether a node of the run is about to be taken away.

    Ray's answer is the same for all workers, who must ask at the same steps; so the steps between two
    questions follow from metrics that all of them share.
    """

    SECONDS = 5.0
    """Between two questions; cloud providers give notice of 30 s to two minutes."""

    def __init__(self) -> None:
        self._watched = os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1") != "0"
        self._every = 1
        self._known: set[str] = set()

    def pace(self, steps_per_s: float) -> None:
        """Sets the steps between two questions by the last report's speed, the same on every worker."""
        self._every = max(1, round(self.SECONDS * steps_per_s))

    def notice(self, step: int) -> str | None:
        """Returns a notice that is new, in words: the time to save after `step` steps; else None."""
        if not self._watched or step % self._every:
            return None
        info = ray.train.get_preemption_info()
        if info is None or self._known >= set(info.preempted_node_ids):
            return None
        self._known |= set(info.preempted_node_ids)
        ranks = ", ".join(map(str, info.preempted_ranks))
        return f"notice that a node will be taken away (workers {ranks}): saving after step {step}"
