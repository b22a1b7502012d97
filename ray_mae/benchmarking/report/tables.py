"""The tables of a benchmark as files: CSV and Parquet for machines, LaTeX for papers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import place_name, where
from ray_mae.benchmarking.statistics.contrasts import headline
from ray_mae.benchmarking.statistics.results import Place
from ray_mae.benchmarking.statistics.uncertainty import Score
from ray_mae.files import replacing, write_whole
from ray_mae.number_text import significant

DIGITS = 6
"""Of numbers in the tables: what a sum in another order would change is not among them."""


def rounded(value: Any) -> Any:
    """A number with so many digits; what is not finite as None."""
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return bool(value) if isinstance(value, np.bool_) else value


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Writes a CSV; an empty field where there is no number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({c: _field(rounded(row.get(c))) for c in columns} for row in rows)
    write_whole(path, text.getvalue())


def _field(value: Any) -> Any:
    return "" if value is None else value


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Writes the same rows with their types; a column of words and numbers as words."""
    arrays = {}
    for column in columns:
        values = [rounded(row.get(column)) for row in rows]
        mixed = len({type(v) for v in values if v is not None} - {int, float}) > 0
        words = mixed and not all(isinstance(v, (bool, type(None))) for v in values)
        arrays[column] = pa.array(
            [None if v is None else str(v) for v in values] if words else values
        )
    with replacing(path) as partial:
        pq.write_table(pa.table(arrays), partial, compression="zstd")


def latex(found: Findings) -> str:
    """The main scores, a table for each head, and the planned contrasts, with booktabs."""
    heads = list(dict.fromkeys(s.cell.head for s in found.main))
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            *(_scores(found, head) for head in heads),
            _contrasts(found),
        ]
    )


def _scores(found: Findings, head: str) -> str:
    here = [s for s in found.main if s.cell.head == head]
    places = list(dict.fromkeys(s.cohort.place for s in here))
    table = {(s.encoder, s.cohort.place): s for s in here}
    lines = [
        f"% {head} head; mean over labels with 95 % interval",
        f"\\begin{{tabular}}{{l{'c' * len(places)}}}",
        "\\toprule",
        " & ".join(["Encoder", *(escaped(place_name(p)) for p in places)]) + r" \\",
        "\\midrule",
    ]
    for encoder in found.results.suite.encoders:
        if any((encoder, p) in table for p in places):
            cells = [_latex_cell(found, table, encoder, p) for p in places]
            lines.append(" & ".join([escaped(encoder), *cells]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_cell(found: Findings, table: dict[Any, Any], encoder: str, place: Place) -> str:
    if (encoder, place) not in table:
        return "--"
    one = table[encoder, place]
    text = _latex_score(one.score(one.primary))
    exposed = not found.results.unseen(encoder, place.dataset)
    return f"{text}$^\\dagger$" if exposed else text


def _latex_score(score: Score) -> str:
    value = significant(score.value)
    return (
        f"{value} [{significant(score.low)}, {significant(score.high)}]" if score.known else value
    )


def _contrasts(found: Findings) -> str:
    lines = [
        "% planned contrasts; dagger above: the pretraining saw, or may have seen, test images or patients",
        "\\begin{tabular}{llccl}",
        "\\toprule",
        r"Contrast & Task & Difference & $p$ (Holm) & Verdict \\",
        "\\midrule",
    ]
    for c in headline(found.contrasts, found.results):
        value = Score(c.difference, c.low, c.high, "combined")
        p = "--" if np.isnan(c.p_holm) else f"{c.p_holm:.2g}"
        lines.append(
            " & ".join(
                [
                    f"{escaped(c.a)} $-$ {escaped(c.b)}",
                    escaped(where(c)),
                    _latex_score(value),
                    p,
                    escaped(c.verdict),
                ]
            )
            + r" \\"
        )
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def escaped(text: str) -> str:
    """Foreign text for LaTeX."""
    marks = {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    }  # fmt: skip
    return "".join(marks.get(letter, letter) for letter in text)
