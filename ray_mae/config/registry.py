"""What can be chosen by name: ours, and what other packages bring by an entry point."""

import difflib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def load(home: str) -> Any:
    """Imports what "module:name" stands for."""
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)


class Registry(Generic[T]):
    """Classes of settings by the name they are chosen with.

    Args:
        setting: the dotted name of the setting that chooses, such as "method.name".
        homes: "module:Class" by name. It is imported when it is asked for.
        group: of entry points by which other packages add theirs: name = "module:Class".
    """

    def __init__(self, setting: str, homes: dict[str, str], group: str) -> None:
        self.setting, self._ours, self._group = setting, homes, group

    def homes(self) -> dict[str, str]:
        """ "module:Class" by name; ours cannot be replaced."""
        others = {point.name: point.value for point in entry_points(group=self._group)}
        return others | self._ours

    def __iter__(self) -> Iterator[str]:
        return iter(self.homes())

    def __getitem__(self, name: str) -> type[T]:
        """The class of settings. Raises ValueError with the nearest right name."""
        homes = self.homes()
        if name not in homes:
            close = difflib.get_close_matches(str(name), homes, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{self.setting} must be one of {', '.join(homes)}, got {name}{hint}")
        return load(homes[name])
