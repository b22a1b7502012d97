"""Which rows a card draws: some of every group, by seed."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ray_mae.data.loading.rows import read_rows
from ray_mae.data.paths import on_disk
from ray_mae.data.schema import Manifest


def chosen(groups: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Up to `count` indices, dealt to the groups in turn, each group's in random order; ascending."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(len(groups)):
        members[groups[i]].append(int(i))
    queues = [members[group] for group in sorted(members, key=str)]
    taken: list[int] = []
    while queues and len(taken) < count:
        taken += [queue.pop() for queue in queues][: count - len(taken)]
        queues = [queue for queue in queues if queue]
    return sorted(taken)


def rows_at(
    shards: Path, manifest: Manifest, index: Sequence[int], columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The rows at these places of all rows, ascending; each row group is read once."""
    wanted, place = list(index), 0
    for shard in manifest.shards:
        for group, size in enumerate(shard.row_groups):
            here = [i - place for i in wanted if place <= i < place + size]
            if here:
                with on_disk(shards / shard.file) as file:
                    rows = read_rows(file, group, columns)
                yield from (rows[i] for i in here)
            place += size
