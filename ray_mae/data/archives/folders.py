"""What archives in folders have in common: finding files, and labels that are numbers."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ray_mae.config import IngestConfig

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")


def stem_of(path: str) -> str:
    """The name of a volume file without folder and suffix."""
    name = Path(path).name
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), "")
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name


def walk(root: Path, output: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder below root and the names of its files, links to folders followed, each once.

    Left out are the output, which may lie below the source, and hidden folders, which belong to
    other programs.
    """
    seen = {root.resolve(), output.resolve()}
    for folder, folders, names in os.walk(root, followlinks=True):
        kept = []
        for name in sorted(folders):
            place = Path(folder, name).resolve()
            if not name.startswith(".") and place not in seen:
                seen.add(place)
                kept.append(name)
        folders[:] = kept
        yield folder, names


def volume_files(config: IngestConfig) -> tuple[Path, list[str], dict[str, int]]:
    """The source, its volume files as paths below it, sorted, and what else there is, by suffix.

    Raises FileNotFoundError where there are none.
    """
    root = config.source.absolute()  # workers may have another working folder
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder (source): the `{config.archive}` archive is a folder of NIfTI "
            "files, for a table that lists them use the archive `volume-table`"
        )
    found, passed_over = [], Counter[str]()
    for folder, names in walk(root, config.output):
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(os.path.relpath(os.path.join(folder, name), root))
            else:
                passed_over[Path(name).suffix.lower() or name] += 1
    if not found:
        raise FileNotFoundError(f"{root} holds no {', '.join(SUFFIXES)} files (source)")
    return root, sorted(found), dict(sorted(passed_over.items()))


def numbers(
    cells: Mapping[str, object], names: Iterable[str], not_numbers: Counter[str]
) -> dict[str, float]:
    """The cells of these names that are finite numbers; the others that hold something are counted."""
    labels = {}
    for name in names:
        said = cells.get(name)
        text = "" if said is None else str(said).strip()
        try:
            value = float(text)
        except ValueError:
            not_numbers[name] += text.lower() not in ("", "n/a", "na", "none", "null")
            continue
        if math.isfinite(value):
            labels[name] = value
    return labels


def noted(not_numbers: Counter[str]) -> dict[str, int]:
    """The counts of `numbers`, for the summary."""
    return {name: count for name, count in not_numbers.most_common() if count}
