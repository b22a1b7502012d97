"""Logistic regressions of many labels and many strengths of the regularisation, in one go.

Each minimises |w|² / 2 + C Σ log(1 + exp(−s (w·x + b))), s = ±1, as scikit-learn's LogisticRegression
does. All of one x share its products with the coefficients, and one basis: in its principal axes the second
derivative is nearly diagonal, so that L-BFGS started from that diagonal needs some ten steps where it
otherwise needs hundreds. Axes without variance have no coefficient, so few samples have short vectors.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ray_mae.evaluate.heads.axes import principal_axes
from ray_mae.evaluate.heads.base import FloatArray

TOLERANCE = 1e-9
"""Of the loss per sample: what a Newton step would still gain."""
MAX_STEPS = 500
MEMORY = 10
"""Steps that L-BFGS remembers."""
FLAT = 0.1
"""A step is long enough where the slope along it is so much of that at its start."""
MAX_LENGTHS = 20
_LARGEST = np.float32(80)
"""Logit whose exponential float32 still holds."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class LogisticPath:
    """Fits of L labels for each of K values of C."""

    C: list[float]
    """[K] rising"""
    weight: Float32
    """[K, L, D]"""
    bias: Float32
    """[K, L]"""
    converged: NDArray[np.bool_]
    """[K, L]"""

    def logits(self, x: FloatArray) -> Float32:
        """[m, L, K] of x [m, D]"""
        K, L, width = self.weight.shape
        found = x.astype(np.float32) @ self.weight.reshape(K * L, width).T
        return (found.reshape(len(x), K, L) + self.bias).transpose(0, 2, 1)


def logistic_path(x: FloatArray, y: FloatArray, C_values: list[float]) -> LogisticPath:
    """Fits all labels, from the smallest C to the largest, each from where the last one ended.

    Args:
        x: [n, D], of one scale.
        y: [n, L] in {0, 1}, NaN where unknown: such samples do not count. Each label has both classes.
        C_values: K inverse strengths.
    """
    x = np.asarray(x, np.float32)
    axes = principal_axes(x)
    z = np.concatenate([x @ axes, np.ones((len(x), 1), np.float32)], axis=1)
    known = ~np.isnan(y)
    problem = _Problem(z, np.where(known, 2 * y - 1, 0).T.astype(np.float32))
    w = problem.start()
    C_values = sorted(C_values)
    weights, biases, converged = [], [], []
    for C in C_values:
        w, done = problem.solve(w, 1 / C)
        weights.append(w[:, :-1] @ axes.T)
        biases.append(w[:, -1])
        converged.append(done)
    return LogisticPath(
        C_values,
        np.stack(weights).astype(np.float32),
        np.stack(biases).astype(np.float32),
        np.stack(converged),
    )


class _Problem:
    """Logistic regressions of L labels on z [n, A + 1], whose last column is one."""

    def __init__(self, z: Float32, sign: Float32) -> None:
        self.z, self.sign = z, sign  # [L, n] 1, −1, and 0 where unknown
        self.n = np.abs(sign).sum(axis=1, dtype=np.float64)  # [L]
        self.extent = (z**2).mean(axis=0, dtype=np.float64)  # [A + 1]

    def start(self) -> FloatArray:
        """[L, A + 1] no coefficient, and the prevalence."""
        w = np.zeros((len(self.sign), self.z.shape[1]))
        w[:, -1] = np.log((self.sign > 0).sum(axis=1) / (self.sign < 0).sum(axis=1))
        return w

    def solve(self, start: FloatArray, ridge: float) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Minimises ridge |w|² / 2 + Σ loss from w [L, A + 1]; returns it, and which labels converged."""
        found, done = start.copy(), np.zeros(len(start), bool)
        active, memory = np.arange(len(start)), list[_Step]()
        penalty = np.full(start.shape[1], ridge)
        penalty[-1] = 0
        sign, w = self.sign, start
        logit = _product(w, self.z.T)
        for _ in range(MAX_STEPS):
            slope, curvature = _derivatives(logit, sign)
            gradient = _product(slope, self.z) + penalty * w
            if memory:
                memory[-1] = memory[-1].ended(gradient)
            spread = np.maximum(curvature.sum(axis=1, dtype=np.float64), 1e-6)
            diagonal = spread[:, None] * self.extent + penalty
            left = (gradient**2 / diagonal).sum(axis=1) > TOLERANCE * self.n[active]
            found[active], done[active[~left]] = w, True
            if not left.any():
                break
            if not left.all():
                active, memory = active[left], [step.of(left) for step in memory]
                sign, w, logit = sign[left], w[left], logit[left]
                gradient, diagonal = gradient[left], diagonal[left]
            direction = -_two_loops(gradient, memory, diagonal)
            change = _product(direction, self.z.T)
            t = _line_minimum(logit, change, sign, w, direction, penalty)
            memory = [*memory, _Step(t * direction, -gradient)][-MEMORY:]
            w, logit = w + t * direction, logit + t.astype(np.float32) * change
        return found, done


@dataclass(frozen=True)
class _Step:
    """What a step changed, [L, A + 1] each."""

    w: FloatArray
    gradient: FloatArray
    rate: FloatArray = field(default_factory=lambda: np.zeros(0))
    """[L] one by the product of the two; 0 where the step is of no use."""

    def ended(self, gradient: FloatArray) -> "_Step":
        """With the gradient where it led."""
        change = self.gradient + gradient
        product = _dot(self.w, change)
        rate = np.where(product > 0, 1 / np.where(product > 0, product, 1), 0)
        return _Step(self.w, change, rate[:, None])

    def of(self, labels: NDArray[np.bool_]) -> "_Step":
        return _Step(self.w[labels], self.gradient[labels], self.rate[labels])


def _product(a: FloatArray, b: Float32) -> Float32:
    return a.astype(np.float32) @ b


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """[L] of a, b [L, A]"""
    found: FloatArray = np.einsum("la,la->l", a, b)
    return found


def _derivatives(logit: Float32, sign: Float32) -> tuple[Float32, Float32]:
    """First and second derivative of the loss by the logit, [L, n]; sign is 0 where unknown.

    From the probability of the other class, which keeps its digits where that is next to 0.
    """
    wrong = 1 / (1 + np.exp(np.minimum(sign * logit, _LARGEST)))
    return -sign * wrong, wrong * (1 - wrong) * np.abs(sign)


def _two_loops(gradient: FloatArray, memory: list[_Step], diagonal: FloatArray) -> FloatArray:
    """Inverse second derivative times gradient [L, A + 1], each label by itself (Nocedal 1980)."""
    q, parts = gradient, []
    for step in reversed(memory):
        part = step.rate * _dot(step.w, q)[:, None]
        q = q - part * step.gradient
        parts.append(part)
    q = q / diagonal
    for step, part in zip(memory, reversed(parts), strict=True):
        q = q + (part - step.rate * _dot(step.gradient, q)[:, None]) * step.w
    return q


def _line_minimum(
    logit: Float32,
    change: Float32,
    sign: Float32,
    w: FloatArray,
    direction: FloatArray,
    penalty: FloatArray,
) -> FloatArray:
    """Length [L, 1] of the step along direction at which the loss is lowest: Newton's method, bracketed.

    It costs no product with the samples: their logits change by t times `change`.
    """
    linear, square = _dot(penalty * w, direction), _dot(penalty * direction, direction)

    def along(t: FloatArray) -> tuple[FloatArray, FloatArray]:
        slope, curvature = _derivatives(logit + t[:, None].astype(np.float32) * change, sign)
        first = _dot(slope, change) + linear + t * square
        return first, _dot(curvature * change, change) + square

    at_start, _ = along(np.zeros(len(w)))
    low, high, t = np.zeros(len(w)), np.full(len(w), np.inf), np.ones(len(w))
    for _ in range(MAX_LENGTHS):
        slope, bend = along(t)
        far = np.abs(slope) > FLAT * np.abs(at_start)
        if not far.any():
            break
        low, high = np.where(slope < 0, t, low), np.where(slope > 0, t, high)
        newton = t - slope / np.maximum(bend, np.finfo(np.float64).tiny)
        inside = (newton > low) & (newton < np.minimum(high, 4 * t))
        otherwise = np.where(np.isinf(high), 4 * t, (low + high) / 2)
        t = np.where(far, np.where(inside, newton, otherwise), t)
    return t[:, None]
