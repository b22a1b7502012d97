"""What was seen of the tests before, and what scores are without it: a section of the page."""

from ray_mae.benchmarking.report.cells import (
    Section,
    Table,
    count,
    encoder,
    interval,
    long,
    words,
)
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import difference, exposure_words, place_name, short

LEAKS = (
    "Where test samples are known to have been seen, by a pretraining or, under the same name on another "
    "data set, by the heads, scores with all rows and without these stand side by side. Left out are the "
    "rows that anybody saw, the same for all encoders. Of what is only declared nobody knows which rows."
)


def exposure(found: Findings) -> Section:
    """What pretrainings saw of the tests."""
    results = found.results
    tested = list(dict.fromkeys(p.dataset for p in results.places))
    rows = []
    for name in results.suite.encoders:
        for dataset in tested:
            told = results.exposure(name, dataset)
            rows.append(
                [
                    encoder(name), words(dataset), words(exposure_words(told) or "nothing"),
                    words(short(told.get("patients", "–"))), words(short(told.get("images", "–"))),
                    long(" ".join([told.get("why", ""), *told.get("notes", ())])),
                ]
            )  # fmt: skip
    columns = ["Encoder", "Test", "Its pretraining", "Patients", "Images", "How that is known"]
    return Section(
        "What the pretraining saw of the tests",
        [
            "Tests that an encoder's pretraining saw something of, or may have, are in no headline average, "
            "nor are those with patients whom the heads were fitted to."
        ],
        tables=[Table(columns, rows, "Pretrainings"), *_without(found)],
        folded=True,
    )


def _without(found: Findings) -> list[Table]:
    rows = [
        [
            words(place_name(k.place)), words(k.head), encoder(k.encoder), count(k.seen), count(k.fitted),
            count(k.samples), interval(k.every), count(k.left), interval(k.clean),
        ]
        for k in found.leaks.scores
    ]  # fmt: skip
    pairs = [
        [
            words(f"{c.every.a} − {c.every.b}"), words(place_name(c.every.place)), words(c.head),
            words(difference(c.every)), words("–" if c.clean is None else difference(c.clean)),
        ]
        for c in found.leaks.contrasts
    ]  # fmt: skip
    columns = [
        "Task", "Head", "Encoder", "Seen by its pretraining", "Of patients fitted to", "Samples", "All",
        "Left", "Without them",
    ]  # fmt: skip
    return [
        Table(columns, rows, "Scores with and without rows that leak", LEAKS),
        Table(
            ["Pair", "Task", "Head", "Difference, all", "Without them"], pairs,
            "Planned pairs with and without rows that leak",
        ),
    ]  # fmt: skip
