"""Reports in ingest: on a worker, a study's text becomes its findings and impression, or goes aside.

A detector of names may look at what the rules leave (`names.model`). Where it finds one, the report waits
for a person: it is in no shard until a table of decisions says `keep`.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_mae.config.ingest import NameSettings, TableEncoding
from ray_mae.data.archives.tables import iter_table
from ray_mae.data.paths import atomic_write, remove
from ray_mae.data.privacy.name_detector import NameDetector, name_detector
from ray_mae.data.privacy.report_sections import Sections, sections
from ray_mae.data.quarantine import QuarantineError

REVIEW = "names_to_review.csv"
"""In the output: reports in which names were found, for their owner alone."""
DECISIONS = ("keep", "withhold")
_COLUMNS = ("study_id", "text_sha256", "found", "findings", "impression", "decision")


@dataclass(frozen=True)
class ReportReader:
    """Reads the sections of reports as the settings of an ingest say. Part of a shard's plan."""

    model: str | None
    labels: list[str] | None
    min_score: float
    model_files: str
    """Changes if the model does."""

    @classmethod
    def of(cls, names: NameSettings) -> "ReportReader":
        """Raises FileNotFoundError or ValueError if there is no such model, before anything is read."""
        reader = cls(
            str(names.model) if names.model else None,
            names.labels,
            names.min_score,
            _state_of(names.model) if names.model else "",
        )
        if reader.model is not None:
            reader.detector()
        return reader

    def detector(self) -> NameDetector:
        """The model, read once by each process."""
        assert self.model is not None
        labels = None if self.labels is None else tuple(self.labels)
        return name_detector(Path(self.model), labels, self.min_score)

    def read(self, text: str, decision: str | None) -> "ReadReport":
        """The sections of a text.

        Args:
            text: of the report as the archive has it.
            decision: keep or withhold, of a person who has seen what was found in it.

        Raises:
            QuarantineError: it has neither section, or a person withholds it.
        """
        found = sections(text)
        if not any(found):
            raise QuarantineError("no-sections")
        if decision == "withhold":
            raise QuarantineError("name-found", "a person withholds it")
        if self.model is None or decision == "keep":
            return ReadReport(found)
        detect = self.detector()
        kinds: Counter[str] = Counter()
        words = []
        for section in filter(None, found):
            for mention in detect(section):
                kinds[mention.label] += 1
                words.append(f"{mention.label}: {section[mention.start : mention.end]}")
        return ReadReport(found, dict(sorted(kinds.items())), words)


@dataclass(frozen=True)
class ReadReport:
    """What was read of a report."""

    sections: Sections
    kinds: dict[str, int] = field(default_factory=dict)
    """How many names were found, by the model's label."""
    words: list[str] = field(default_factory=list)
    """Those names."""

    def review(self, study_id: str, text: str) -> dict[str, Any]:
        """The row of REVIEW."""
        return {
            "study_id": study_id,
            "text_sha256": digest(text),
            "found": "; ".join(self.words),
            **self.sections._asdict(),
            "decision": "",
        }


def digest(text: str) -> str:
    """Of a report's text, so that a decision is about this text and no other."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_decisions(
    path: Path | None, encoding: TableEncoding = "utf-8"
) -> dict[tuple[str, str], str]:
    """What a person decided, by study and digest of its text, from a filled-in REVIEW.

    Raises:
        ValueError: a decision is none of DECISIONS.
        FileNotFoundError: there is no such table.
    """
    decisions = {}
    for number, row in enumerate(iter_table(path, encoding=encoding) if path else (), start=2):
        decision = row.get("decision", "").strip().lower()
        if decision and decision not in DECISIONS:
            raise ValueError(
                f"{path}, line {number}: decision is {decision!r}, it must be {' or '.join(DECISIONS)}, or "
                "nothing (names.reviewed)"
            )
        if decision:
            decisions[row["study_id"].strip(), row["text_sha256"].strip()] = decision
    return decisions


def write_review(output: Path, beside: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write REVIEW, readable for its owner alone, where there are rows; how many there are.

    A spreadsheet must not take a report for a formula: a cell that begins like one gets a blank.
    """
    rows = list(rows)
    if not rows:
        remove(output / REVIEW)
        return 0
    with (
        atomic_write(output / REVIEW, beside, private=True) as file,
        file.open("w", newline="") as stream,
    ):
        table = csv.DictWriter(stream, _COLUMNS)
        table.writeheader()
        for row in rows:
            table.writerow({name: _cell(row[name]) for name in _COLUMNS})
    return len(rows)


def _cell(value: str | None) -> str:
    return f" {value}" if value and value[0] in "=+-@" else value or ""


def _state_of(model: Path) -> str:
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in model.iterdir())
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
