"""Readers of shards: everybody sees the changed images, those without a network, too."""

from pathlib import Path

import numpy as np
import pytest

from ray_mae.benchmarking.readers import HistogramRows
from ray_mae.data.schema import Manifest
from tests.shards import write_shards, write_volume_shards


@pytest.mark.parametrize(("kind", "change"), [("study", "noise:3"), ("volume", "noise:3")])
def test_histograms_are_of_the_changed_images(tmp_path: Path, kind: str, change: str) -> None:
    write = write_shards if kind == "study" else write_volume_shards
    write(tmp_path, train=4, held_out=2)
    manifest = Manifest.read(tmp_path)
    clean, changed = (
        [
            vector
            for shard in manifest.of_split("test")
            for block in HistogramRows(tmp_path, manifest.kind, 4, c).read(shard)
            for vector in block["0/vector:histogram"].to_pylist()
        ]
        for c in ("", change)
    )
    assert len(clean) == len(changed) > 0
    assert not np.allclose(clean, changed)
