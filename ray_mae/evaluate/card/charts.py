"""Charts (SVG) and contact sheets (PNG) of a card, and the choice of what they show."""

import io
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ray_mae.data.loading.rows import read_rows
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.pages.charts import COLOURS, figure

MOST_LINES = 7
TILE = 128


def bars(values: Sequence[float], label: str, what: str) -> bytes:
    """Histogram of whole numbers."""
    with figure(4.8, 2.4) as (axes, out):
        if values:
            axes.hist(values, bins=30, color=COLOURS[0])
        axes.set_xlabel(label)
        axes.set_ylabel(what)
    return out.getvalue()


def density(groups: Mapping[str, np.ndarray], label: str, span: tuple[float, float]) -> bytes:
    """One line per group: the share of its values in each of 64 bins. Of many groups the first ones."""
    edges = np.linspace(*span, 65)
    with figure(4.8, 2.8) as (axes, out):
        heights = []
        for i, (name, values) in enumerate(list(groups.items())[:MOST_LINES]):
            share = np.histogram(values, edges)[0] / max(1, len(values))
            heights.append(share)
            style = ("-", "--", ":")[i // len(COLOURS) if i >= len(COLOURS) else i % 3]
            axes.plot(
                (edges[:-1] + edges[1:]) / 2,
                share,
                style,
                color=COLOURS[i % len(COLOURS)],
                linewidth=1.5,
                label=name if len(name) <= 34 else name[:24] + "…" + name[name.rfind(" (") :],
            )
        left = len(groups) - MOST_LINES
        axes.set_xlabel(label + (f" ({left} smaller groups are not drawn)" if left > 0 else ""))
        axes.set_ylabel("share")
        if groups:  # the background is a spike beside which all else would be flat
            axes.set_ylim(0, 1.5 * float(np.quantile(heights, 0.97)) or 1.0)
            axes.legend(frameon=False, fontsize=8)
    return out.getvalue()


def tile(image: np.ndarray) -> np.ndarray:
    """[H, W] uint8 in the middle of a square of TILE pixels, black around."""
    side = max(image.shape)
    canvas = np.zeros((side, side), np.uint8)
    top, left = ((side - extent) // 2 for extent in image.shape)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return np.asarray(Image.fromarray(canvas).resize((TILE, TILE), Image.Resampling.BILINEAR))


def contact_sheet(tiles: Sequence[np.ndarray], across: int) -> bytes:
    """A PNG of equal tiles [S, S] uint8, row by row; empty without any."""
    if not tiles:
        return b""
    across = min(across, len(tiles))
    side, down = tiles[0].shape[0], -(-len(tiles) // across)
    sheet = np.full((down * (side + 2) - 2, across * (side + 2) - 2), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // across) * (side + 2), (i % across) * (side + 2)
        sheet[top : top + side, left : left + side] = tile
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "PNG")
    return out.getvalue()


def choose(groups: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Up to `count` indices, dealt to the groups in turn, each group's in random order; ascending."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(len(groups)):
        members[groups[i]].append(int(i))
    queues = [members[group] for group in sorted(members, key=str)]
    choice: list[int] = []
    while queues and len(choice) < count:
        choice += [queue.pop() for queue in queues][: count - len(choice)]
        queues = [queue for queue in queues if queue]
    return sorted(choice)


def rows_at(
    shards: Path, manifest: Manifest, index: Sequence[int], columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The rows of these numbers among all rows, ascending; each row group is read once."""
    first = 0
    for shard in manifest.shards:
        for group, size in enumerate(shard.row_groups):
            here = [i - first for i in index if first <= i < first + size]
            if here:
                rows = read_rows(shards / shard.file, shard, group, columns)
                yield from (rows[i] for i in here)
            first += size
