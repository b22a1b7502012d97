"""Which of a command's paths a job on a cluster can see."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ray_mae.config.stages import OF_ALL, StagesConfig
from ray_mae.config.urls import TAKES_URL, as_url, is_url, path_settings


def check_paths(config: Any, files: Sequence[Path], image: bool, local: bool) -> list[str]:
    """Refuses paths that cannot be right on the cluster.

    Args:
        config: the command's settings.
        files: YAML files that they were read from.
        image: whether the job runs in an image of its own, so that nothing is sent.
        local: whether the cluster runs on this machine and sees its disk.

    Returns:
        Warnings of paths that may be wrong.

    Raises:
        ValueError: A path that is wrong, with what to give.
    """
    for file in files:
        if image:
            raise ValueError(
                f"--config {file} is not sent with an image: give its settings as flags"
            )
        if not local and not is_sent(file):
            raise ValueError(
                f"{file} cannot be sent as it is named: put it into the working folder, and give a path "
                "relative to that"
            )
    shared = []
    for name, path in _paths_of(config):
        if is_url(path):
            continue
        if Path(path).is_absolute():
            if (flag := f"--{name} {path}") not in shared:
                shared.append(flag)
            continue
        reason = (
            "the job's folder is thrown away when it ends"
            if name.endswith("output")
            else "the YAML files that a command names are sent, and no other file"
        )
        url = ", or a URL" if name in TAKES_URL.get(_name(config), ()) else ""
        raise ValueError(
            f"--{name} {path} is relative, and {reason}: give an absolute path that all nodes mount{url}"
        )
    if shared and not local:
        return [f"every node of the cluster must mount {', '.join(shared)} as a shared disk"]
    return []


def _paths_of(config: Any) -> Iterator[tuple[str, Any]]:
    """As `path_settings`; of stages those of each, without what follows from the others."""
    if not isinstance(config, StagesConfig):
        yield from path_settings(config)
        return
    if config.output is not None:
        yield "output", config.output
    for stage in config.runs:
        own = ("output",) if stage.place == 1 else OF_ALL
        yield from (item for item in path_settings(stage.run) if item[0] not in own)


def _name(config: Any) -> str:
    return (config.RUN if isinstance(config, StagesConfig) else type(config)).__name__


def is_sent(file: Path) -> bool:
    """Returns whether a file has the same name for the job: a relative one, of the working folder."""
    return not file.is_absolute() and not os.path.normpath(file).startswith("..")


def output_of(config: Any) -> str | None:
    """Returns the path or URL where a command writes its results; None for a command without one."""
    output = getattr(config, "output", None)
    if output is None:
        return None
    return as_url(output)
