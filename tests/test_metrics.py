"""Measures against independent libraries and known values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vasekit import decide, metrics


@pytest.mark.parametrize(("k", "n"), [(57, 70), (0, 5), (10, 10), (1, 400)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert metrics.wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert metrics.wilson(k, n)[0] <= k / n <= metrics.wilson(k, n)[1]


def test_auc_equals_mann_whitney_with_ties() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 12, 80) + 2, rng.integers(0, 12, 60)
    found = metrics.auc(positive, negative)
    assert found["value"] == pytest.approx(stats.mannwhitneyu(positive, negative).statistic / (80 * 60))
    assert found["low"] < found["value"] < found["high"]
    assert found["n"] == 140


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = metrics.auc(rng.normal(1, 1, 60), rng.normal(0, 1, 60))
        hits += found["low"] <= 0.7602 <= found["high"]  # Phi(1 / sqrt 2)
    assert 0.88 <= hits / 200 <= 1


def test_balanced_accuracy_agrees_with_the_confusion_matrix() -> None:
    rng = np.random.default_rng(2)
    labels, guesses = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    found = metrics.balanced_accuracy(labels, guesses)
    assert found["value"] == pytest.approx(decide.classification_metrics(labels, guesses)["balanced_accuracy"])
    assert found["low"] < found["value"] < found["high"]


def test_bootstrap_and_paired_gain() -> None:
    rng = np.random.default_rng(3)
    before = rng.uniform(0, 1, 400)
    gain = metrics.paired_gain(before, before + 0.1)
    assert gain["value"] == pytest.approx(0.1)
    assert gain["high"] - gain["low"] < 1e-9
    mean = metrics.bootstrap_mean(before)
    assert mean["high"] - mean["low"] == pytest.approx(2 * 1.96 * before.std() / 20, rel=0.15)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.proportion(0, 0),
        lambda: metrics.bootstrap_mean([]),
        lambda: metrics.auc([], [1]),
        lambda: metrics.balanced_accuracy([1, 1], [1, 0]),
    ],
)
def test_what_cannot_be_computed_is_an_error_not_zero(call) -> None:
    with pytest.raises(ValueError, match=r"no|needs"):
        call()
