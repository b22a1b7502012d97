"""What an archive lists, checked before anything of it is opened."""

import re
from collections.abc import Collection, Iterable

from ray_mae.config import IngestConfig
from ray_mae.data.paths import store_of
from ray_mae.data.quarantine import QuarantineError

_CHAINED = re.compile(r"::[A-Za-z][A-Za-z0-9+.-]*:/")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def named_stores(config: IngestConfig) -> frozenset[str]:
    """The stores that an archive's tables may name: those of the settings' own paths, and `stores`."""
    paths = (config.source, config.reports, config.tables, config.volumes.table)
    own = (store_of(str(path)) for path in paths if path is not None)
    return frozenset(config.stores) | frozenset(filter(None, own))


def find_problem(
    paths: Iterable[str | None], texts: Iterable[str | None], stores: Collection[str]
) -> QuarantineError | None:
    """What is wrong with the paths and texts of an image or volume; None if nothing is.

    A URL in a table would be fetched from within the network by whoever reads the table, with their
    rights: only stores that were named are asked.
    """
    for path in filter(None, paths):
        if "\0" in path:
            return QuarantineError("not-text", "a path holds a NUL character")
        if _CHAINED.search(path):  # fsspec would read one by another
            return QuarantineError("other-store", "a URL within a URL")
        store = store_of(path)
        if store is not None and store not in stores:
            return QuarantineError("other-store", f"{store}://; --stores [{store}] would allow it")
    if any(_NO_TEXT.search(text) for text in texts if text):
        return QuarantineError("not-text", "a NUL character or half of a character")
    return None
