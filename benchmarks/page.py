"""BENCHMARKS.md from the JSON files of benchmarks/results: one section for each, its title from the module.

python -m benchmarks.page
"""

import ast
import json
from pathlib import Path
from typing import Any

from benchmarks.record import FOLDER, RESULTS, cell

PAGE = FOLDER.parent / "BENCHMARKS.md"

ORDER = (
    "reading", "encodings", "voxel_encodings", "object_store", "ingest", "step_time", "decoding",
    "decode_share", "engines", "zero_memory", "gpu", "start", "saving", "checksums", "heads", "scale",
)  # fmt: skip
"""Of the modules on the page: data, step, start, scale; others follow by name."""

PARTS = ("__init__", "record", "page", "curves", "streamers", "family")
"""Of this folder, no measurements."""

HEAD = """# Benchmarks

Every figure here is made by the command beside it, on the machine and at the commit that it names; a `+`
behind the commit says that the checkout differed from it. With `--record` a command writes its rows to
`benchmarks/results/` and makes this page again (`python -m benchmarks.page`). Figures of different sections
may be of different machines: compare within a section, where all rows were measured in turn in one run.
Commands run from a checkout (`uv run python -m …`).
"""


def page() -> str:
    """The text of the page."""
    found = [(path.stem, json.loads(path.read_text("utf-8"))) for path in RESULTS.glob("*.json")]

    def place(item: tuple[str, dict[str, Any]]) -> tuple[int, str]:
        module = item[1]["module"]
        return (ORDER.index(module) if module in ORDER else len(ORDER), item[0])

    parts = [HEAD]
    for _, result in sorted(found, key=place):
        parts.append(section(result))
    shown = {result["module"] for _, result in found}
    names = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in (*shown, *PARTS))
    lines = [f"- `python -m benchmarks.{name}`: {title(name)}." for name in names]
    return "\n".join([*parts, "## Other measurements", "", *lines, ""])


def section(result: dict[str, Any]) -> str:
    """One result: title, table, what it says, and where it was measured."""
    machine = dict(result["machine"])
    where = [f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"]
    where += [machine["gpu"]] if "gpu" in machine else []
    where += [f"load {machine['load']} before", f"torch {machine['torch']}"]
    columns = list(result["rows"][0])
    lines = [f"## {title(result['module'])}", "", f"`{result['command']}`", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in result["rows"]:
        lines.append("| " + " | ".join(cell(row.get(c, "")) for c in columns) + " |")
    lines += ["", *([result["note"], ""] if result["note"] else [])]
    lines += [f"{result['date']}, commit {result['commit']}; {'; '.join(where)}.", ""]
    return "\n".join(lines)


def title(module: str) -> str:
    """The first sentence of the module's docstring, without its full stop."""
    path = FOLDER / f"{module}.py"
    doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or module
    return doc.splitlines()[0].rstrip(".")


def write_page() -> Path:
    """Writes the page beside the README."""
    PAGE.write_text(page(), encoding="utf-8")
    return PAGE


if __name__ == "__main__":
    print(write_page())
