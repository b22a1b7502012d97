"""Code and settings of the working folder in one file: what a job takes along."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

_SUFFIXES = {".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".lock", ".sh", ".j2"}
"""Suffixes of code and settings. Anything else may be of a patient, or a key: images need no suffix."""
_NAMES = {"README.md", "LICENSE"}  # pyproject.toml may want them
_NEVER = [
    *".git .venv/ venv/ node_modules/ __pycache__/ .*_cache/ *.egg-info/ .ingest/".split(),
    *".env* .aws/ .kube/ .ssh/ *secret*.y*ml *credential*.y*ml".split(),
]
_RESULTS = {"summary.json", "metrics.jsonl", "manifest.json", "checkpoint_manager_snapshot.json"}
"""Files of ours: a folder that has one was written by a command."""


@dataclass(frozen=True)
class Package:
    """What of a folder a job takes along."""

    root: Path
    files: list[Path]
    """Relative to root, sorted."""
    large: list[Path]
    """Left out because of their size alone."""

    @property
    def size(self) -> int:
        """Bytes of all files, before compression."""
        return sum((self.root / file).stat().st_size for file in self.files)

    def has(self, path: Path) -> bool:
        """Returns whether a path relative to root is one of the files, or a folder with some."""
        path = Path(os.path.normpath(path))
        return any(file == path or path in file.parents for file in self.files)

    def write(self, archive: Path) -> int:
        """Writes the files as a zip: the same bytes for the same content, so that Ray sends it once.

        Returns:
            Size of the archive in bytes.
        """
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for file in self.files:
                entry = zipfile.ZipInfo(file.as_posix())
                mode = 0o755 if os.access(self.root / file, os.X_OK) else 0o644
                entry.external_attr = mode << 16
                out.writestr(entry, (self.root / file).read_bytes(), zipfile.ZIP_DEFLATED)
        return archive.stat().st_size


def pack(root: Path, max_file_mb: float, max_mb: float) -> Package:
    """Chooses the files of a folder that a job takes along: code and settings, and nothing of patients.

    Args:
        root: the folder.
        max_file_mb: megabytes above which a file is left out.
        max_mb: megabytes that all files may have together.

    Raises:
        ValueError: There is no such folder, or the files are too much; with the largest of them.
    """
    if not root.is_dir():
        raise ValueError(f"folder {root} is not a folder")
    files: list[Path] = []
    large: list[Path] = []
    for file in _walk(root, root, [(root, GitIgnoreSpec.from_lines(_NEVER))]):
        over = (root / file).stat().st_size > max_file_mb * 1e6
        (large if over else files).append(file)
    package = Package(root, sorted(files), sorted(large))
    if package.size > max_mb * 1e6:
        sizes: dict[str, int] = {}
        for file in files:
            sizes[file.parts[0]] = sizes.get(file.parts[0], 0) + (root / file).stat().st_size
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        raise ValueError(
            f"{root} holds {package.size / 1e6:.0f} MB to pack, more than max_mb {max_mb:g}; most in "
            + ", ".join(f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest)
            + ": name what is not needed in .gitignore or .rayignore, or give --folder"
        )
    return package


def _walk(root: Path, folder: Path, specs: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    specs = specs + [
        (folder, GitIgnoreSpec.from_lines((folder / name).read_text().splitlines()))
        for name in (".gitignore", ".rayignore")
        if (folder / name).is_file()
    ]
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if any(_ignored(spec, path.relative_to(base), is_folder) for base, spec in specs):
            continue
        if is_folder:
            if not _RESULTS & set(os.listdir(path)):
                yield from _walk(root, path, specs)
        elif path.suffix not in _SUFFIXES and path.name not in _NAMES:
            continue
        elif entry.is_file(follow_symlinks=False):  # a link leads out of the folder
            yield path.relative_to(root)


def _ignored(spec: GitIgnoreSpec, path: Path, is_folder: bool) -> bool:
    return spec.match_file(path.as_posix() + ("/" if is_folder else ""))
