"""How samples are stored, as far as an encoder must know: written by ingest, kept by checkpoints."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ray_mae.config import IngestConfig

StoredForm = dict[str, Any]
"""Plain values by name: normalisation; of volumes orientation and contrasts, of studies image_size, encoding,
bits and views. Contrasts and views are counts by split. Empty where shards of earlier versions do not say."""

CONTENTS = {"contrasts": "modality/", "views": "views/"}
"""What is counted, and how its counts of a shard begin."""


def stored_form(
    kind: str, config: IngestConfig, results: Iterable[Mapping[str, Any]]
) -> StoredForm:
    """Returns the form of what an ingest wrote.

    Args:
        kind: study or volume.
        config: of the ingest.
        results: of each shard its split and counts.
    """
    if kind == "volume":
        name = "contrasts"
        form: StoredForm = {"normalisation": "z-scores over the foreground", "orientation": "RAS"}
    else:
        name = "views"
        form = {
            "normalisation": "grey values of 8 bit",  # as they are seen, of whatever bits
            "image_size": config.image_size,
            "encoding": config.encoding,
            "bits": config.bits,
        }
    by_split: dict[str, Counter[str]] = {}
    for result in results:
        counts = by_split.setdefault(result["split"], Counter())
        for key, number in result["counts"].items():
            if key.startswith(CONTENTS[name]) and number:
                counts[key.removeprefix(CONTENTS[name])] += number
    return {**form, name: {split: dict(sorted(c.items())) for split, c in by_split.items() if c}}


def join_forms(forms: Iterable[StoredForm]) -> StoredForm:
    """Returns the form of several folders: what all of them say alike, and the sum of their contents.

    Empty where one of them says nothing.
    """
    every = list(forms)
    if not all(every):
        return {}
    joint = {k: v for k, v in every[0].items() if all(form.get(k) == v for form in every)}
    for name in CONTENTS:
        if name in every[0]:
            joint[name] = {}
            for form in every:
                for split, counts in form.get(name, {}).items():
                    joint[name][split] = dict(Counter(joint[name].get(split, {})) + Counter(counts))
    return joint
