"""What a search was worth, on the test patients that it never saw, beside settings drawn at random.

    python -m benchmarks.search --search DIR --random DIR --output DIR

--search: the output of `ray-mae tune`, with repeats; --random: of another one with
`--sampler random --asha.stop no`. Every whole trial of --random, and every repeat of the best setting of
--search, is probed on test patients by `evaluate probe`. Printed are both distributions, and what the
early stopping saved: hours of the trials, beside those of all run to their end at their own pace.
"""

import argparse
from pathlib import Path

import numpy as np

from ray_mae.cluster.runtime import cluster
from ray_mae.config import ProbeConfig
from ray_mae.evaluate.probe.command import evaluate_probe
from ray_mae.search.cost import cost_of
from ray_mae.search.database import storage_url
from ray_mae.search.results import TrialResult, read_search
from ray_mae.search.space import describe
from ray_mae.search.statistics import group_by_setting


def on_test(trial: TrialResult, shards: Path, output: Path) -> float:
    """Macro AUROC on test patients of a trial's last checkpoint."""
    found = evaluate_probe(
        ProbeConfig(checkpoint=trial.folder, shards=shards, output=output, gpu=False, bootstrap=10)
    )
    return float(found["macro_auroc"]["trained"].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("search", "random", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    search, rand = (
        read_search(folder.resolve(), storage_url(folder.resolve(), None))
        for folder in (arguments.search, arguments.random)
    )
    best = max(group_by_setting(search.repeats), key=lambda g: g.mean)
    print(f"chosen: {describe(best.values)}; validation {best.mean:.3f} of {len(best.trials)} runs")
    with cluster(cpus=3):
        chosen, drawn = (
            [
                on_test(t, search.config.folders[0], arguments.output / f"{kind}-{t.number}")
                for t in trials
            ]
            for kind, trials in (("chosen", best.trials), ("random", rand.whole))
        )
    print(
        f"chosen, on test patients: {np.mean(chosen):.3f} ({', '.join(f'{v:.3f}' for v in chosen)})"
    )
    print(
        f"random settings, on test patients: median {np.median(drawn):.3f}, from {min(drawn):.3f} to "
        f"{max(drawn):.3f} ({', '.join(f'{v:.3f}' for v in sorted(drawn))})"
    )
    spent = cost_of(search)
    whole = spent["hours_had_all_been_run_to_the_end"]
    print(
        f"{len(search.trials)} trials took {60 * spent['search_hours']:.1f} minutes of trials, "
        f"{60 * whole:.1f} had all run to their end: {spent['search_hours'] / whole:.2f}; "
        f"{spent['start_up_share']:.0%} of it was start-up"
    )


if __name__ == "__main__":
    main()
