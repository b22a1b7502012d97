"""What a measurement leaves behind: a table on the terminal and, on request, a JSON file for BENCHMARKS.md.

Every measurement of this folder that has a place on the page ends with `finish`. With `--record` its rows
are written to benchmarks/results with machine, date, commit and command, and the page is made again.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

Cell = str | int | float


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser of the command line with --record."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--record", action="store_true", help="write the rows to benchmarks/results, and the page"
    )
    parser.set_defaults(load=os.getloadavg()[0])
    return parser


def finish(
    given: argparse.Namespace, rows: Sequence[Mapping[str, Cell]], note: str = "", name: str = ""
) -> None:
    """Prints the rows and, with --record, keeps them.

    Args:
        given: by `parser_of`.
        rows: of the table; the first one's keys are its columns, with units.
        note: a sentence or two for the page: what the rows say, and what they do not.
        name: of the JSON file; the module's, where it is not given.
    """
    columns = list(rows[0])
    table = Table(*columns)
    for row in rows:
        table.add_row(*(cell(row.get(column, "")) for column in columns))
    Console().print(table)
    if note:
        print(note)
    if given.record:
        module = Path(sys.argv[0]).stem
        found = {
            "module": module,
            "command": command(),
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "machine": machine(given.load),
            "note": note,
            "rows": list(rows),
        }
        write(name or module, found)


def write(name: str, found: dict[str, Any]) -> None:
    """Writes a result as finish does, and the page."""
    from benchmarks.page import write_page

    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    write_page()


def cell(value: Cell) -> str:
    """A number with three digits that matter, whole ones in full; words as they are."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def command() -> str:
    """The command that is running, as one types it; a path is named by its last part."""
    words = [word for word in sys.argv[1:] if word != "--record"]
    words = [Path(word).name if word.startswith("/") else word for word in words]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words])


def commit() -> str:
    """Of the checkout, with a + where files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=FOLDER, capture_output=True, text=True)
        return done.stdout.strip()

    name = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--", "ray_mae", "benchmarks/*.py")
    return f"{name}+" if name and changed else name


def machine(load: float) -> dict[str, Cell]:
    """What a figure depends on; load: of the machine when the measurement began."""
    import torch

    cpu = platform.processor() or platform.machine()
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = names[0] if names else cpu
    except OSError:
        pass
    found: dict[str, Cell] = {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": round(load, 1),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["gpu"] = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return found
