"""Measures with their uncertainty: every number is {value, low, high, n}, the interval at 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Measure = dict[str, float]
_Z = 1.959964
_RESAMPLES = 2000


def measure(value: float, low: float, high: float, n: int) -> Measure:
    """The shape of every result."""
    return {"value": float(value), "low": float(low), "high": float(high), "n": int(n)}


def wilson(successes: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); (0, 1) for n = 0. Counts, or effective numbers."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Exact at the ends, where rounding could put the bound on the wrong side of the share.
    return (centre - half if successes else 0.0), (centre + half if successes < n else 1.0)


def proportion(successes: int, n: int) -> Measure:
    """A share with its Wilson interval. Raises ValueError for n = 0: a missing measure is not 0."""
    if n == 0:
        raise ValueError("no items to take a share of")
    return measure(successes / n, *wilson(successes, n), n)


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Measure:
    """A mean with its percentile bootstrap interval; one value per vase."""
    data = np.asarray(values, float)
    if not len(data):
        raise ValueError("no values to average")
    picks = np.random.default_rng(seed).integers(len(data), size=(_RESAMPLES, len(data)))
    low, high = np.quantile(data[picks].mean(1), (0.025, 0.975))
    return measure(data.mean(), low, high, len(data))


def paired_gain(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Measure:
    """Mean of after - before over the same vases, with its bootstrap interval."""
    return bootstrap_mean(np.asarray(after, float) - np.asarray(before, float), seed)


def auc(positive: Sequence[float], negative: Sequence[float]) -> Measure:
    """ROC-AUC, ties counted half, with DeLong's interval on the logit scale (DeLong et al. 1988). n: both groups."""
    high, low = np.asarray(positive, float), np.asarray(negative, float)
    if not len(high) or not len(low):
        raise ValueError(f"ROC-AUC needs both groups, got {len(high)} and {len(low)}")
    above = _midranks(np.concatenate([high, low]))
    own_high, own_low = _midranks(high), _midranks(low)
    wins = (above[: len(high)] - own_high) / len(low)
    losses = 1 - (above[len(high) :] - own_low) / len(high)
    area = wins.mean()
    variance = sum(part.var(ddof=1) / len(part) for part in (wins, losses) if len(part) > 1)
    if not 0 < area < 1 or variance == 0:
        return measure(area, area, area, len(high) + len(low))
    centre, half = math.log(area / (1 - area)), _Z * math.sqrt(variance) / (area * (1 - area))
    ends = (1 / (1 + math.exp(-(centre + sign * half))) for sign in (-1, 1))
    return measure(area, *ends, len(high) + len(low))


def balanced_accuracy(labels: Sequence[int], predicted: Sequence[int]) -> Measure:
    """Mean of the recalls of both classes; the interval adds their Wilson half-widths as independent errors."""
    truth, guess = np.asarray(labels), np.asarray(predicted)
    recalls, halves = [], []
    for label in (0, 1):
        own = guess[truth == label]
        if not len(own):
            raise ValueError(f"balanced accuracy needs both classes, class {label} is empty")
        right = int((own == label).sum())
        low, high = wilson(right, len(own))
        recalls.append(right / len(own))
        halves.append((recalls[-1] - low, high - recalls[-1]))
    value = sum(recalls) / 2
    down, up = (math.hypot(halves[0][k], halves[1][k]) / 2 for k in (0, 1))
    return measure(value, max(0.0, value - down), min(1.0, value + up), len(truth))


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
