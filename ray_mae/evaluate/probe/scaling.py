"""Features brought to one scale for a linear head, without blowing up what does not vary.

A scaler divides by a deviation. Where that is only what rounding to float32 leaves (a dead channel, the
last principal component of as many samples), the quotient is noise of deviation 1, as loud as a signal.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

ROUNDING = float(np.finfo(np.float32).eps)


class FeatureScaler(StandardScaler):
    """Mean 0 and deviation 1, as of scikit-learn; a feature that varies by rounding alone becomes 0."""

    def fit(self, X: NDArray[Any], y: Any = None, sample_weight: Any = None) -> "FeatureScaler":
        """Takes mean and deviation of each feature of X [n, D]."""
        super().fit(X, y, sample_weight)
        self.constant_ = self.var_ <= (ROUNDING * np.abs(X).max(axis=0)) ** 2
        self.scale_: NDArray[np.float64] = np.where(self.constant_, np.inf, self.scale_)
        return self


def principal_components(x: NDArray[Any], train: NDArray[np.bool_], most: int, seed: int) -> Any:
    """Principal components, fitted on some rows.

    Args:
        x: [S, P]
        train: [S] the n rows that they are fitted on.
        most: components that are kept, at most; no more than n − 1, and than P.
        seed: of the solver.

    Returns:
        [S, k] float64, those whose variance is more than what rounding to float32 gives; one column of
        zeros where there is none.
    """
    x = np.asarray(x, np.float64)
    rows = x[train]
    n, width = rows.shape
    k = min(most, n - 1, width)
    if k < 1:
        return np.zeros((len(x), 1))
    pca = PCA(k, random_state=seed).fit(rows)
    # the largest deviation along any axis that rounding errors of n rows have
    noise = ROUNDING * np.abs(rows).max() * (1 + (width / n) ** 0.5)
    varies = pca.explained_variance_ > noise**2
    return pca.transform(x)[:, varies] if varies.any() else np.zeros((len(x), 1))
