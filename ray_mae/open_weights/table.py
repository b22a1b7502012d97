"""What became of every tensor of a source: taken, rewritten, resampled or left out, and what is new."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ray_mae.open_weights.files import fingerprint
from ray_mae.open_weights.ours import OurEncoder
from ray_mae.open_weights.source import OpenEncoder

TAKEN, REWRITTEN, RESAMPLED, LEFT_OUT = "taken", "rewritten", "resampled", "left out"


def fates(
    found: OpenEncoder, ours: OurEncoder | None, kept: Iterable[str] = ()
) -> dict[str, tuple[str, str]]:
    """Returns what became of each tensor of the source, and how or why.

    Args:
        found: the source.
        ours: what was made of it; None where it serves as it is.
        kept: names of the weights that are used; by default all.
    """
    result = {name: (LEFT_OUT, why) for name, why in found.left_out.items()}
    origins = found.origins if ours is None else ours.origins
    rewritten = found.rewritten if ours is None else ours.rewritten
    resampled: dict[str, str] = {} if ours is None else ours.resampled
    used = {*kept} or {*origins}
    for name, sources in origins.items():
        for source in sources:
            if name not in used:
                result.setdefault(source, (LEFT_OUT, "a part that the run has not"))
            elif name in resampled:
                result[source] = RESAMPLED, resampled[name]
            elif result.get(source, ("",))[0] == RESAMPLED:
                continue
            elif name in rewritten:
                result[source] = REWRITTEN, rewritten[name]
            elif result.get(source, ("",))[0] != REWRITTEN:
                result[source] = TAKEN, ""
    return result


def report(found: OpenEncoder, ours: OurEncoder | None, kept: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the table as plain values: counts by how and why, names where there are few.

    Args:
        found: the source.
        ours: what was made of it; None where it serves as it is.
        kept: names of the weights that are used; by default all.
    """
    every = fates(found, ours, kept)

    def by_reason(fate: str) -> dict[str, int]:
        return dict(Counter(why for what, why in every.values() if what == fate).most_common())

    notes = [*(found.notes if ours is None else ours.notes)]
    return {
        "source": str(found.path),
        "family": found.family,
        "encoder": (found.settings if ours is None else ours.settings).described,
        "licence": found.licence or "unknown",
        "sha256": fingerprint(found.files),
        "training_data": "unknown",
        "tensors": len(every),
        "taken": sum(what == TAKEN for what, _ in every.values()),
        "rewritten": by_reason(REWRITTEN),
        "resampled": by_reason(RESAMPLED),
        "left_out": by_reason(LEFT_OUT),
        "fresh": [] if ours is None else list(ours.fresh),
        **({"notes": notes} if notes else {}),
    }
