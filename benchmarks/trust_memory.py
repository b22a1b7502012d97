"""Time and memory of what looks at all features of a data set at once, on generated ones.

    python -m benchmarks.trust_memory --views 300000 --width 768 --part knows

Each part in a process of its own: its peak of memory, less that of the features, which are there before it.
"""

import argparse
import json
import resource
import time

import numpy as np

from ray_mae.benchmarking.features import Features, mean_of_views
from ray_mae.benchmarking.knows import eta_squared, knows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=300_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--part", choices=["mean", "knows", "number", "variance"], required=True)
    asked = parser.parse_args()
    draw = np.random.default_rng(0)
    n = asked.views // 2 if asked.part == "mean" else asked.views
    x = draw.standard_normal((asked.views, asked.width), np.float32)
    sex = np.where(draw.random(n) < 0.5, "F", "M").astype(object)
    x[: len(sex), 0] += sex[: len(x)] == "F"
    age = draw.normal(60, 15, n).astype(object)
    patient = np.array([f"p{i // 2}" for i in range(n)])
    split = np.where(
        np.arange(n) < 0.8 * n, "train", np.where(np.arange(n) < 0.9 * n, "val", "test")
    )
    before, began = _peak(), time.perf_counter()
    if asked.part == "mean":
        features = Features(
            np.repeat(np.arange(n), 2), np.tile([0, 1], n).astype(np.int8), {"mean": x}
        )
        mean_of_views(features, np.ones(len(x), bool), n)
    elif asked.part == "variance":
        eta_squared(x, {"sex": sex}, np.flatnonzero(split == "train"))
    else:
        knows(x, asked.part, sex if asked.part == "knows" else age, patient, split)
    facts = {
        "part": asked.part,
        "views": asked.views,
        "seconds": round(time.perf_counter() - began, 1),
        "gigabytes_of_features": round(x.nbytes / 1e9, 2),
        "gigabytes_more": round((_peak() - before) / 1e9, 2),
    }
    print(json.dumps(facts))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
