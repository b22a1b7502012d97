"""A list on disk, for what grows with the archive: the driver's memory does not."""

import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_CACHE_KIB = 4 << 10


class DiskList(Generic[T]):
    """A list in a temporary file that nobody else sees and that goes with its last user.

    Iterating gives the items in the order of their keys, those of one key as they were added, and can be
    repeated.

    Args:
        items: the first ones, without keys. Items are pickled.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._count = 0
        self._keyed = False
        self._file = sqlite3.connect("", isolation_level=None)  # without a name: a temporary one
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
            self._file.execute(f"PRAGMA {setting}")
        self._file.execute("CREATE TABLE items (n INTEGER PRIMARY KEY, key BLOB, item BLOB)")
        self._file.execute("BEGIN")
        for item in items:
            self.add(item)

    def add(self, item: T, *key: str) -> None:
        """Add an item, under a key of several words that are compared one after the other."""
        self._count += 1
        self._keyed = self._keyed or bool(key)
        # names of files need not be valid text
        joined = "\0".join(key).encode(errors="surrogatepass")
        row = (self._count, joined, pickle.dumps(item, pickle.HIGHEST_PROTOCOL))
        self._file.execute("INSERT INTO items VALUES (?, ?, ?)", row)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        order = "key, n" if self._keyed else "n"
        for (item,) in self._file.execute(f"SELECT item FROM items ORDER BY {order}"):
            yield pickle.loads(item)
