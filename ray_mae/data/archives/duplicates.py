"""What an archive lists twice: told on disk, since an archive may have any number of images."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from ray_mae.data.archives.records import ImageRecord
from ray_mae.data.disk_list import Spool
from ray_mae.data.quarantine import Unusable


def without_repeated(
    listed: Iterable[tuple[str, str, ImageRecord]], problem: Callable[[ImageRecord], Unusable]
) -> Spool[ImageRecord]:
    """The records by their order; of those with one name all but the first get a problem.

    listed: order, name ("" is nobody's) and record; what has a problem already counts for nobody.
    problem: makes it from the first record of the name.
    """
    named: Spool[tuple[str, str, ImageRecord]] = Spool()
    for order, name, record in listed:
        name = "" if record.problem else name
        named.add((name, order, record), name, order)
    ordered: Spool[ImageRecord] = Spool()
    for name, found in groupby(named, key=itemgetter(0)):
        first = None
        for _, order, record in found:
            if name and first:
                record = replace(record, problem=problem(first))
            first = first or record
            ordered.add(record, order)
    return ordered
