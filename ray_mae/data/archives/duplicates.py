"""Duplicates: images that an archive lists twice. On disk, since an archive may have any number."""

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
    """Give a problem to all but the first of the records with one name.

    Args:
        listed: order, name and record. The name "" is nobody's, and a record that has a problem
            already has no name.
        problem: makes the problem from the first record of the name.

    Returns:
        All records by their order.
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
