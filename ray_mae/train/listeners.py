"""Who else hears of a run while it goes on: what the driver reads from its files is handed on to each."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Listener(Protocol):
    """Records are those of events.jsonl, metrics.jsonl and probes.jsonl.

    A step may come twice, where workers started again from a checkpoint.
    """

    def event(self, record: dict[str, Any]) -> None:
        """Something happened."""
        ...

    def figures(self, record: dict[str, Any]) -> None:
        """A line of figures."""
        ...

    def probe(self, record: dict[str, Any]) -> None:
        """What the online probe found, or its error."""
        ...

    def close(self, ended_well: bool) -> None:
        """This start of the run is over."""
        ...


class Listeners:
    """Several as one. What fails in one of them is said once, and stops neither the run nor the others."""

    def __init__(self, each: Sequence[Listener], say: Callable[[str], None]) -> None:
        self._each, self._say = each, say
        self._failing: set[Listener] = set()

    def event(self, record: dict[str, Any]) -> None:
        """See Listener."""
        self._tell(lambda listener: listener.event(record))

    def figures(self, record: dict[str, Any]) -> None:
        """See Listener."""
        self._tell(lambda listener: listener.figures(record))

    def probe(self, record: dict[str, Any]) -> None:
        """See Listener."""
        self._tell(lambda listener: listener.probe(record))

    def close(self, ended_well: bool) -> None:
        """See Listener."""
        self._tell(lambda listener: listener.close(ended_well))

    def _tell(self, call: Callable[[Listener], None]) -> None:
        for listener in self._each:
            try:
                call(listener)
                self._failing.discard(listener)
            except Exception as error:  # of other people's packages and servers, whatever it is
                if listener not in self._failing:
                    name, first = type(listener).__name__, str(error).strip().split("\n")[0]
                    self._say(f"warning: {name} was not told: {first[:300]}")
                self._failing.add(listener)


def probe_figures(record: dict[str, Any]) -> dict[str, Any]:
    """The scalars of a probe that did not fail, with its step; the step alone otherwise."""
    kept = ("step", "probe_auroc", "probe_auroc_low", "probe_auroc_high")
    return {name: record[name] for name in kept if name in record}
