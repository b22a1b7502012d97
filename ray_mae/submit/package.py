"""What a job takes along, in one file: import packages of the working folder, and settings that it names."""

import os
import re
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

OURS = "ray_mae"
"""The import package that goes along wherever the working folder has it."""
_MODULES = {".py", ".pyi", ".j2"}
"""What Python imports from a package, and the templates that ours load."""
_WITH_PASSWORD = re.compile(r"[a-zA-Z][\w+.-]*://[^\s/:@'\"]*:(?!\$|\d+[/?#])[^\s'\"]+@")


@dataclass(frozen=True)
class Package:
    """Files that a job takes along."""

    files: dict[str, Path]
    """By the path that each has for the job, sorted; the file on this machine."""
    left_out: list[str]
    """Files of the import packages that are no modules."""

    @property
    def size(self) -> int:
        """Bytes of all files, before compression."""
        return sum(file.stat().st_size for file in self.files.values())

    def write(self, archive: Path) -> int:
        """Writes the files as a zip: the same bytes for the same content, so that Ray sends it once.

        Returns:
            Size of the archive in bytes.
        """
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for name, file in self.files.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o644 << 16
                out.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
        return archive.stat().st_size


def pack(
    root: Path, packages: Sequence[str], settings: Sequence[Path], project: bool, max_mb: float
) -> Package:
    """Chooses what a job takes along: nothing goes because of its name alone.

    Args:
        root: folder that holds the import packages.
        packages: names of import packages beside ours.
        settings: YAML files that the command names, relative to the folder where it was typed.
        project: also what an environment is built from: pyproject.toml, the files that it names, uv.lock.
        max_mb: megabytes that all may have together.

    Raises:
        ValueError: A folder, package or file is not there, there is too much, or a password in it.
    """
    if not root.is_dir():
        raise ValueError(f"folder {root} is not a folder")
    files: dict[str, Path] = {}
    left_out: list[str] = []
    for name in sorted({*packages, *([OURS] if (root / OURS / "__init__.py").is_file() else [])}):
        for file in _of_package(root, name):
            inner = file.relative_to(root).as_posix()
            if file.suffix in _MODULES and not file.is_symlink():  # a link leads out of the folder
                files[inner] = file
            else:
                left_out.append(inner)
    text = {file.as_posix(): file for file in settings}
    if project:
        text |= {name: root / name for name in _of_project(root)}
    for name, file in text.items():
        _refuse_passwords(name, file)
    package = Package(dict(sorted((files | text).items())), sorted(left_out))
    if package.size > max_mb * 1e6:
        largest = sorted(package.files.items(), key=lambda item: -item[1].stat().st_size)[:3]
        raise ValueError(
            f"{package.size / 1e6:.0f} MB would be sent, more than max_mb {max_mb:g}; most in "
            + ", ".join(f"{name} ({file.stat().st_size / 1e6:.1f} MB)" for name, file in largest)
            + ": name what is not needed in .gitignore"
        )
    return package


def _of_package(root: Path, name: str) -> Iterator[Path]:
    """Yields all files of an import package, or its one module, that .gitignore does not name."""
    module = root / f"{name}.py"
    if module.is_file():
        yield module
    elif (root / name / "__init__.py").is_file():
        ignored = [(root, _ignored_by(root))]
        if not _matches(ignored, root / name, folder=True):
            yield from _walk(root / name, ignored)
    else:
        raise ValueError(
            f"package {name} is no import package of {root}: {root / name / '__init__.py'} is missing"
        )


def _walk(folder: Path, ignored: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    ignored = [*ignored, (folder, _ignored_by(folder))]
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if _matches(ignored, path, is_folder):
            continue
        if is_folder:
            yield from _walk(path, ignored)
        else:
            yield path


def _ignored_by(folder: Path) -> GitIgnoreSpec:
    file = folder / ".gitignore"
    return GitIgnoreSpec.from_lines(file.read_text().splitlines() if file.is_file() else [])


def _matches(ignored: list[tuple[Path, GitIgnoreSpec]], path: Path, folder: bool) -> bool:
    ending = "/" if folder else ""
    return any(
        spec.match_file(path.relative_to(base).as_posix() + ending) for base, spec in ignored
    )


def _of_project(root: Path) -> list[str]:
    """Returns names of the files that uv builds an environment from."""
    if not (root / "pyproject.toml").is_file():
        raise ValueError(f"environment uv wants a pyproject.toml in the folder {root}")
    project = tomllib.loads((root / "pyproject.toml").read_text()).get("project", {})
    readme = project.get("readme")
    named = [readme.get("file") if isinstance(readme, dict) else readme]
    for pattern in project.get("license-files", []):
        named += [file.relative_to(root).as_posix() for file in root.glob(pattern)]
    optional = [name for name in [*named, "uv.lock"] if name and (root / name).is_file()]
    return ["pyproject.toml", *optional]


def _refuse_passwords(name: str, file: Path) -> None:
    """Raises ValueError for a text with a URL that holds a password: the cluster shows what it was sent."""
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        if holds_password(line):
            raise ValueError(
                f"{name}, line {number}: a URL with a password would be sent to the cluster, where others "
                "can read it: take it out, and give it to the nodes by their environment"
            )


def holds_password(text: str) -> bool:
    """Returns whether a text holds a URL with a password before its host. `:$NAME@` is none."""
    return _WITH_PASSWORD.search(text) is not None
