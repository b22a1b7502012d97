"""Which settings take a URL of an object store. Every other path lies on a disk that all nodes see."""

import dataclasses
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args, get_type_hints

TAKES_URL: dict[str, frozenset[str]] = {
    "IngestConfig": frozenset({"source", "output", "reports", "tables", "volumes.table"}),
    "InspectConfig": frozenset({"shards", "against", "output"}),
    "DoctorConfig": frozenset({"shards", "output"}),
    "PretrainConfig": frozenset({"shards", "output", "weights"}),
    "PlanConfig": frozenset({"shards", "output", "weights"}),
    "TuneConfig": frozenset({"shards", "output", "run.weights"}),
    "TuneReportConfig": frozenset({"output"}),
    "AdaptConfig": frozenset({"shards"}),
    "SuiteConfig": frozenset({"datasets.*.shards", "output"}),
    "CheckpointListConfig": frozenset({"run"}),
    "CheckpointVerifyConfig": frozenset({"path"}),
    "CheckpointInspectConfig": frozenset({"path"}),
    "CheckpointConvertConfig": frozenset({"checkpoint", "output"}),
    "EmbedConfig": frozenset({"shards", "checkpoint", "output"}),
    "ProbeConfig": frozenset({"shards", "checkpoint", "output"}),
    "FinetuneConfig": frozenset({"shards", "checkpoint", "output"}),
    "SegmentConfig": frozenset({"shards", "checkpoint", "output"}),
    "PredictConfig": frozenset({"source", "checkpoint", "output"}),
    "ExportConfig": frozenset({"checkpoint", "output"}),
    "PublishConfig": frozenset({"checkpoint", "output"}),
}
"""Names of the settings by the class that holds them; * stands for any name."""

_URL = re.compile(r"(?P<scheme>[A-Za-z][\w+.:-]+?):/+(?P<rest>.*)", re.DOTALL)


_WITH_SECRET = re.compile(r"[^/@]*:[^/]*@")
_ON_DISK = ("file", "local")


def is_url(path: Path | str) -> bool:
    """Returns whether a path was given as a URL, of whose two slashes pathlib keeps one."""
    return _URL.fullmatch(str(path)) is not None


def is_path(value: Any) -> bool:
    """Returns whether a value is a path: on disk, or over fsspec."""
    return isinstance(value, Path) or hasattr(value, "protocol")


def as_url(path: Path | str) -> str:
    """Returns a URL with both of its slashes; a path on disk as it is."""
    match = _URL.fullmatch(str(path))
    return f"{match['scheme']}://{match['rest']}" if match else str(path)


def opened(path: Path | str) -> Path:
    """Returns a path; of a URL one over fsspec, which joins, lists, reads and writes as pathlib's do.

    A file:// URL is a path on disk. One whose store fsspec does not know, or a chain of several, stays what
    it is, and is refused.
    """
    if not isinstance(path, (str, Path)):
        return path  # it is one already
    match = _URL.fullmatch(str(path))
    if match is None or "::" in match["scheme"]:
        return Path(path)
    if match["scheme"].lower() in _ON_DISK:
        return Path("/", match["rest"])
    from upath import UPath

    try:  # others write as well: what was listed before may be out of date
        url = f"{match['scheme'].lower()}://{match['rest']}"
        return UPath(url, use_listings_cache=False)
    except (ValueError, ImportError):
        return Path(path)


def path_settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the value of each path among settings; of a list each of its paths.

    Args:
        config: settings, with others inside.
        prefix: of the names, with its dot.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            yield from path_settings(value, f"{prefix}{field.name}.")
        elif isinstance(value, dict):
            for name, one in value.items():
                if dataclasses.is_dataclass(one):
                    yield from path_settings(one, f"{prefix}{field.name}.{name}.")
        elif value is not None and Path in {hint, *get_args(hint), *_items(hint)}:
            for each in value if isinstance(value, (list, tuple)) else [value]:
                yield f"{prefix}{field.name}", each


def _items(hint: Any) -> set[Any]:
    """Returns the types that a type's lists hold."""
    return {item for option in (hint, *get_args(hint)) for item in get_args(option)}


def refuse_urls(config: Any) -> None:
    """Raises ValueError for a URL in a setting that takes a path on disk alone.

    Taken for a path it would be a folder of that name below the working folder: on a cluster the one
    that is thrown away when the job ends.

    Args:
        config: settings of a command.
    """
    takes = TAKES_URL.get(type(config).__name__, frozenset())
    for name, path in path_settings(config):
        match = _URL.fullmatch(str(path))
        if match is None:
            continue
        if _WITH_SECRET.match(match["rest"]):
            raise ValueError(
                f"--{name} is a URL with a password, which would be written to files that others can read: "
                "leave it out, and give it by the environment (docs/object_stores.md)"
            )
        taken = any(fnmatchcase(name, one) for one in takes)
        read_only = name.endswith("output") and match["scheme"].lower() in ("http", "https")
        if taken and not isinstance(path, Path) and not read_only:
            continue
        if taken and "::" in match["scheme"]:
            remedy = "give the URL of the store itself"
        elif taken and read_only:
            remedy = "it can only be read: give a path, or the URL of an object store"
        elif taken:
            remedy = (
                "fsspec knows no such store: give a path, on a cluster one that every node mounts"
            )
        else:
            remedy = "give a path, on a cluster one that every node mounts"
        raise ValueError(f"--{name} {as_url(path)} is a URL that cannot be used here: {remedy}")
