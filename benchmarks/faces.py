"""How often a skull is seen where there is one, and not where there is none.

    python -m benchmarks.faces --source ../shared/data/mri

On the real volumes of a folder with metadata.csv (path, kind, skull).
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ray_mae.config import VolumeSettings
from ray_mae.data.decoding.faces import find_head
from ray_mae.data.decoding.preprocessing import Preparation
from ray_mae.data.quarantine import QuarantineError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with metadata.csv")
    source = parser.parse_args().source
    table = pd.read_csv(source / "metadata.csv")
    counts: Counter[tuple[str, str]] = Counter()
    others, seconds = [], []
    read = Preparation.of(VolumeSettings())._read
    for row in table[table["kind"].isin(["image", "original image"])].itertuples():
        try:
            volume, _ = read([source / str(row.path)])
        except QuarantineError:
            continue
        began = time.perf_counter()
        found = find_head(volume.values, volume.spacing)
        seconds.append(time.perf_counter() - began)
        counts[str(row.skull), found] += 1
        expected = {"with skull": "head", "without skull": "brain"}.get(str(row.skull), "unknown")
        if found != expected:
            others.append(f"{row.volume_id} ({row.skull}): {found}")
    for (skull, found), number in sorted(counts.items()):
        print(f"{skull:14} {found:8} {number:4}")
    print("\n".join(others))
    print(f"{1000 * float(np.median(seconds)):.0f} ms in the median, {max(seconds):.2f} s at most")


if __name__ == "__main__":
    main()
