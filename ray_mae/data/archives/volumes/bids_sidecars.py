"""JSON files beside the images of a BIDS data set, as far as they say something of the scanner.

A file speaks of all images of its folder and those below it that have its suffix and all its entities; what
lies nearer to the image, or has more entities, counts (the inheritance principle of BIDS).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_mae.data.archives.folders import stem_of
from ray_mae.data.paths import list_folder

KEYS = {
    "site": "InstitutionName", "manufacturer": "Manufacturer", "model": "ManufacturersModelName",
    "field_strength": "MagneticFieldStrength",
}  # fmt: skip
"""Names in the files, by attribute."""


class Sidecars:
    """What the JSON files below a folder say; each is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, list[str]] = {}
        self._content: dict[str, dict[str, Any]] = {}
        self._not_readable = 0

    def cells(self, image: str) -> dict[str, str]:
        """The cells of KEYS of an image, given by its path below the root; "" where no file says it."""
        values: dict[str, Any] = {}
        for path in self._of(image):
            values.update(self._read(path))
        texts = {name: values.get(key) for name, key in KEYS.items()}
        return {n: str(v) if isinstance(v, (str, int, float)) else "" for n, v in texts.items()}

    def notes(self) -> dict[str, int]:
        """For the summary."""
        return {"sidecars_not_readable": self._not_readable}

    def _of(self, image: str) -> Iterator[str]:
        """Paths of the files that speak of an image, that which counts most at last."""
        *entities, suffix = stem_of(image).split("_")
        folders = image.split("/")[:-1]
        for depth in range(len(folders) + 1):
            folder = "/".join(folders[:depth])
            for name in self._listed(folder):
                *wanted, of_suffix = name.removesuffix(".json").split("_")
                if of_suffix == suffix and set(wanted) <= set(entities):
                    yield f"{folder}/{name}" if folder else name

    def _listed(self, folder: str) -> list[str]:
        """Names of the JSON files in a folder, those with more entities later."""
        if folder not in self._names:
            listed = list_folder(self._root / folder if folder else self._root)
            names = [name for name, is_folder in listed if name.endswith(".json") and not is_folder]
            self._names[folder] = sorted(names, key=lambda name: (name.count("_"), name))
        return self._names[folder]

    def _read(self, path: str) -> dict[str, Any]:
        if path not in self._content:
            try:
                content = json.loads((self._root / path).read_text())
            except (OSError, ValueError):
                content = None
            self._not_readable += not isinstance(content, dict)
            known = content if isinstance(content, dict) else {}
            self._content[path] = {key: known[key] for key in KEYS.values() if key in known}
        return self._content[path]
