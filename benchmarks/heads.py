"""Seconds of the linear head against one scikit-learn fit for each label and C, side by side.

    OMP_NUM_THREADS=1 python -m benchmarks.heads [SAMPLES] [FEATURES] [LABELS] [SKLEARN_LABELS]

scikit-learn fits SKLEARN_LABELS of the labels at every C, and its seconds are scaled to all of them. AUROC
on other samples is compared at every C. Seconds are of the process, as other programs share the machine.
"""

import sys
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.choice import aurocs
from ray_mae.evaluate.heads.logistic import logistic_path


def main(samples: int = 20_000, width: int = 768, labels: int = 14, by_them: int = 1) -> None:
    draw = np.random.default_rng(0)
    extent = 5 * np.arange(1, width + 1) ** -0.7  # as features have it: a few axes say most
    turn = np.linalg.qr(draw.normal(size=(width, width)))[0]
    x = (draw.normal(size=(samples + 3000, width)) * extent) @ turn
    x = ((x - x[:samples].mean(0)) / x[:samples].std(0)).astype(np.float32)
    logit = x @ draw.normal(size=(width, labels)) * 0.1 + draw.uniform(-4, 0, labels)
    y = (draw.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)
    C_values = sorted(Heads().C)

    began = time.process_time()
    path = logistic_path(x[:samples], y[:samples], C_values)
    ours = time.process_time() - began

    began, theirs = time.process_time(), np.empty((3000, by_them, len(C_values)))
    warnings.simplefilter("ignore")
    for i in range(by_them):
        for k, C in enumerate(C_values):
            model = LogisticRegression(C=C, max_iter=2000).fit(x[:samples], y[:samples, i])
            theirs[:, i, k] = model.decision_function(x[samples:])
    seconds = (time.process_time() - began) * labels / by_them
    target = y[samples:, :by_them]
    mine = aurocs(target, path.logits(x[samples:])[:, :by_them])
    other = aurocs(target, theirs)
    print(f"{samples} x {width}, {labels} labels, {len(C_values)} C")
    print(f"batched {ours:.1f} s, converged {path.converged.mean():.0%}")
    print(f"scikit-learn {seconds:.1f} s ({by_them} labels measured): {seconds / ours:.0f} times")
    print(
        f"largest difference of AUROC {np.abs(mine - other).max():.4f}, of the best C "
        f"{np.abs(mine.max(axis=1) - other.max(axis=1)).max():.5f}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
