"""What an archive lists twice: told on disk, since an archive may have any number of images."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from ray_mae.data.archives.records import ImageRecord
from ray_mae.data.disk_list import DiskList
from ray_mae.data.quarantine import QuarantineError


def mark_duplicates(
    listed: Iterable[tuple[str, str, ImageRecord]],
    problem: Callable[[ImageRecord], QuarantineError],
) -> DiskList[ImageRecord]:
    """The records by their order; of those with one name all but the first get a problem.

    listed: order, name ("" is nobody's) and record; what has a problem already counts for nobody.
    problem: makes it from the first record of the name.
    """
    named: DiskList[tuple[str, str, ImageRecord]] = DiskList()
    for order, name, record in listed:
        name = "" if record.problem else name
        named.add((name, order, record), name, order)
    ordered: DiskList[ImageRecord] = DiskList()
    for name, group in groupby(named, key=itemgetter(0)):
        first = None
        for _, order, record in group:
            if name and first:
                record = replace(record, problem=problem(first))
            first = first or record
            ordered.add(record, order)
    return ordered
