"""The heads by name: what tasks each suits, and what it looks at."""

from dataclasses import dataclass
from importlib import import_module
from typing import Literal, cast

from ray_mae.evaluate.heads.base import Head, Kind


@dataclass(frozen=True)
class HeadEntry:
    """A line of the registry."""

    place: str
    """Module of ray_mae.evaluate.heads, or module:object."""
    kinds: tuple[Kind, ...]
    """Of tasks that it suits."""
    needs: Literal["vectors", "tokens", "nothing"] = "vectors"
    used_by: str = ""
    """Name in `heads.use` that asks for it; "" for its own. "-" for none: it stands for a baseline."""
    per_shots: bool = False
    """Whether it is fitted for each of `heads.shots`, given alone, and each of `heads.tries` as seed."""

    @property
    def head(self) -> Head:
        """Imported when asked for: some need PyTorch."""
        module, _, name = self.place.partition(":")
        found = import_module(f"ray_mae.evaluate.heads.{module}")
        return cast(Head, getattr(found, name) if name else found)


HEADS: dict[str, HeadEntry] = {
    "linear": HeadEntry("linear", ("labels",)),
    "knn": HeadEntry("knn", ("labels", "number")),
    "attentive": HeadEntry("attentive", ("labels", "number"), needs="tokens"),
    "few_shot": HeadEntry("few_shot:logistic", ("labels",), per_shots=True),
    "few_shot_mean": HeadEntry(
        "few_shot:class_mean", ("labels",), used_by="few_shot", per_shots=True
    ),
    "ridge": HeadEntry("ridge", ("number",)),
    "cox": HeadEntry("cox", ("survival",)),
    "retrieval": HeadEntry("retrieval", ("retrieval",)),
    "prevalence": HeadEntry(
        "prevalence", ("labels", "number", "survival"), needs="nothing", used_by="-"
    ),
}
"""`finetune` is none of them: it changes the encoder."""


def suiting(use: list[str], kind: str) -> list[str]:
    """Names of the heads that a suite which uses these fits for a task of this kind.

    `few_shot` stands for two: a logistic regression and the nearest class mean.
    """
    return [
        name
        for name, entry in HEADS.items()
        if (entry.used_by or name) in use and kind in entry.kinds
    ]
