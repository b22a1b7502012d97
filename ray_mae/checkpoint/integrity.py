"""Whether the files of a checkpoint are as they were written, and which one a run can go on with."""

import json
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray_mae.data.paths import sha256_of
from ray_mae.files import write_whole
from ray_mae.store import rename_folder

CHECKSUMS = "checksums"
"""Of a checkpoint: one JSON file per worker, with the SHA-256 of each file that it wrote."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's record of a run's checkpoints."""
DAMAGED = "damaged_"
"""Begins the name of a checkpoint's folder that a run did not go on with."""
_AT_ONCE = 4


def files_of(folder: Path) -> list[Path]:
    """Returns the files in a folder and in those below it, by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def size_of(folder: Path) -> int:
    """Returns the bytes of the files in a folder and in those below it."""
    return sum(path.stat().st_size for path in files_of(folder))


def write_checksums(folder: Path, rank: int) -> None:
    """Writes the SHA-256 of each file in a folder to its folder of checksums.

    Args:
        folder: this worker's part of a checkpoint.
        rank: of the worker.
    """
    checksums = {str(path.relative_to(folder)): sha256_of(path) for path in files_of(folder)}
    (folder / CHECKSUMS).mkdir()
    (folder / CHECKSUMS / f"worker-{rank:04d}.json").write_text(
        json.dumps(checksums, indent=1) + "\n"
    )


def damage(checkpoint: Path, workers: Collection[int] | None = None) -> list[str]:
    """Returns what is wrong with the files of a checkpoint, a line each; none if it is whole.

    Args:
        checkpoint: folder of the checkpoint.
        workers: ranks of those whose files are read; None: all that state.json tells of.
    """
    if workers is None:
        try:
            workers = range(json.loads((checkpoint / "state.json").read_bytes())["workers"])
        except FileNotFoundError:
            return ["state.json is missing"]
        except (ValueError, KeyError):
            return ["state.json was changed or damaged"]
    wrong: list[str] = []
    listed: dict[str, str] = {}
    for rank in workers:
        listing = checkpoint / CHECKSUMS / f"worker-{rank:04d}.json"
        try:
            listed |= json.loads(listing.read_bytes())
        except FileNotFoundError:
            wrong.append(f"{listing.relative_to(checkpoint)} is missing")
        except ValueError:
            wrong.append(f"{listing.relative_to(checkpoint)} was changed or damaged")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda item: _wrong_with(checkpoint / item[0], item[1]), listed.items())
        wrong += [f"{name} {what}" for name, what in zip(listed, found, strict=True) if what]
    return wrong


def known_damage(checkpoint: Path, workers: Collection[int] | None = None) -> list[str]:
    """As `damage`; nothing of a checkpoint without checksums, as an earlier version or a person made it."""
    without = not (checkpoint / CHECKSUMS).is_dir() and (checkpoint / "state.json").is_file()
    return [] if without else damage(checkpoint, workers)


def require_whole(checkpoint: Path, *names: str) -> None:
    """Compares files of a checkpoint with the checksums that were written with them.

    A checkpoint without checksums, as an earlier version or a person made it, passes.

    Args:
        checkpoint: folder of the checkpoint.
        names: of files in it.

    Raises:
        ValueError: names the one that is not as it was written.
    """
    listed: dict[str, str] = {}
    for listing in sorted((checkpoint / CHECKSUMS).glob("*.json")):
        try:
            listed |= json.loads(listing.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{listing} was changed or damaged: it is no JSON; {_REMEDY}"
            ) from error
    for name in names:
        if name in listed and (what := _wrong_with(checkpoint / name, listed[name])):
            raise ValueError(f"{checkpoint / name} {what} since it was written; {_REMEDY}")


_REMEDY = (
    "take another checkpoint of the run (`ray-mae checkpoint list`, `ray-mae checkpoint verify`)"
)


def _wrong_with(path: Path, checksum: str) -> str | None:
    if not path.is_file():
        return "is missing"
    return None if sha256_of(path) == checksum else "was changed or damaged"


def drop_damaged(run: Path, tell: Callable[[str], None]) -> None:
    """Lets a run go on with its last checkpoint that is whole.

    Damaged ones that are later stay under another name, and Ray Train's record forgets them.

    Args:
        run: folder of the run; no start of it is at work.
        tell: gets a sentence about each of them.

    Raises:
        ValueError: none is whole.
    """
    record = read_record(run)
    dropped: dict[str, str] = {}
    while latest := record.get("latest_checkpoint_result"):
        name = latest["checkpoint_dir_name"]
        if not (wrong := known_damage(run / name)):
            break
        dropped[name] = wrong[0]
        _forget(record, name)
    if not dropped:
        return
    if not record["latest_checkpoint_result"]:
        raise ValueError(
            f"{run} has no checkpoint that is whole: "
            + "; ".join(f"{name}: {what}" for name, what in dropped.items())
            + ". Put an intact copy back, or begin another run with another --output"
        )
    write_whole(run / SNAPSHOT, json.dumps(record))
    for name, what in dropped.items():
        if (run / name).is_dir():
            rename_folder(run / name, f"{DAMAGED}{name}")
        tell(
            f"{name} is damaged ({what}) and kept as {DAMAGED}{name}: the run goes on with "
            f"{record['latest_checkpoint_result']['checkpoint_dir_name']}, of step "
            f"{record['latest_checkpoint_result']['metrics']['step']}"
        )


def _forget(record: dict[str, Any], name: str) -> None:
    """Takes a checkpoint out of Ray Train's record of them."""

    def kept(results: str, beside: str) -> None:
        pairs = list(zip(record.get(results, []), record.get(beside, []), strict=False))
        pairs = [pair for pair in pairs if pair[0]["checkpoint_dir_name"] != name]
        record[results], record[beside] = ([pair[i] for pair in pairs] for i in (0, 1))

    kept("checkpoint_results", "checkpoint_report_indices")
    kept("pending_training_results", "pending_validation_specs")
    record["latest_checkpoint_result"] = max(
        record["checkpoint_results"], key=lambda result: result["metrics"]["step"], default=None
    )


def read_record(run: Path) -> dict[str, Any]:
    """Returns Ray Train's record of a run's checkpoints; empty where there is none.

    Raises:
        ValueError: it is damaged.
    """
    snapshot = run / SNAPSHOT
    if not snapshot.is_file():
        return {}
    try:
        record = json.loads(snapshot.read_bytes())
        return json.loads(record) if isinstance(record, str) else record
    except ValueError as error:
        raise ValueError(
            f"{snapshot} is damaged ({error}): put an intact copy back, or begin another run from a "
            "checkpoint of this one with --weights and another --output"
        ) from error
