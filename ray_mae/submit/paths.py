"""Which of a command's paths a job on a cluster can see."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_mae.submit.package import Package


def check_paths(
    config: Any, arguments: list[str], package: Package | None, local: bool
) -> list[str]:
    """Refuses paths that cannot be right on the cluster.

    Args:
        config: the command's settings.
        arguments: the command's words, for --config.
        package: what the job takes along; None with an image.
        local: whether the cluster runs on this machine and sees its disk.

    Returns:
        Warnings of paths that may be wrong.

    Raises:
        ValueError: A path that is wrong, with what to give.
    """
    for file in _config_files(arguments):
        if package is None:
            raise ValueError(
                f"--config {file} is not sent with an image: give its settings as flags"
            )
        if not local and (file.is_absolute() or not package.has(file)):
            raise ValueError(
                f"--config {file} is not among the files that are packed: put it into the working "
                "folder as YAML, under a relative path that .gitignore does not name"
            )
    shared = []
    for name, path in _paths(config):
        if is_url(path):
            continue
        if path.is_absolute():
            shared.append(f"--{name} {path}")
        elif name.endswith("output"):
            raise ValueError(
                f"--{name} {path} is relative, and the job's folder is thrown away when it ends: give an "
                "absolute path that all nodes mount, or a URL"
            )
        else:
            raise ValueError(
                f"--{name} {path} is relative, and of the working folder code and settings alone are sent: "
                "give an absolute path that all nodes mount, or a URL"
            )
    if shared and not local:
        return [f"every node of the cluster must mount {', '.join(shared)} as a shared disk"]
    return []


def is_url(path: Path) -> bool:
    """Returns whether a path was given as a URL, of whose two slashes pathlib keeps one."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", str(path)) is not None


def output_of(config: Any) -> str | None:
    """Returns the path or URL where a command writes its results; None for a command without one."""
    output = getattr(config, "output", None)
    if output is None:
        return None
    return re.sub(r"^([a-z][a-z0-9+.-]+):/+", r"\1://", str(output))


def _config_files(arguments: list[str]) -> Iterator[Path]:
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--config":
            yield Path(following)
        elif word.startswith("--config="):
            yield Path(word.removeprefix("--config="))


def _paths(config: Any, prefix: str = "") -> Iterator[tuple[str, Path]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _paths(value, f"{prefix}{field.name}.")
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Path):
                yield f"{prefix}{field.name}", each
