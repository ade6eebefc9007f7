"""Decisions over scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasekit import decide


def test_the_share_kept_is_the_share_asked_for():
    scores = np.random.default_rng(0).normal(size=1000)
    for keep in (0.75, 0.465, 1.0):
        threshold = decide.threshold_to_keep(scores, keep)
        assert np.mean(scores >= threshold) == pytest.approx(keep, abs=0.002)


def test_samples_are_seeded_sorted_and_never_larger_than_the_whole():
    assert decide.sample(10, 500, 1).tolist() == list(range(10))
    one, same, other = (decide.sample(1000, 20, seed).tolist() for seed in (1, 1, 2))
    assert one == same != other
    assert one == sorted(set(one))


def test_best_view_groups_by_vase_whatever_the_case():
    scores = [("a/X_1_ac001001.jpg", 0.1), ("x_2_bc001001.jpe", 0.3), ("Y_1.jpg", 0.2), ("odd.jpg", 0.0)]
    choices = decide.best_views((Path(name), score) for name, score in scores)
    assert [(c.vase, c.views[0][0].name) for c in choices] == [
        ("odd", "odd.jpg"),
        ("X", "x_2_bc001001.jpe"),
        ("Y", "Y_1.jpg"),
    ]
    assert choices[1].margin == pytest.approx(0.2)
    assert choices[0].margin is None


def test_ties_are_broken_by_name_not_by_order():
    rows = [(Path("v_2.jpg"), 0.5), (Path("v_1.jpg"), 0.5)]
    assert decide.best_views(rows)[0].views[0][0] == decide.best_views(rows[::-1])[0].views[0][0] == Path("v_1.jpg")


def test_split_keeps_vases_together_and_stratifies():
    groups = [f"vase{i // 3}" for i in range(600)]
    labels = [int(i // 3 % 4 == 0) for i in range(600)]
    split = decide.split_groups(groups, labels, seed=42)
    vases = {name: {groups[i] for i in indices} for name, indices in split.items()}
    assert sum(map(len, vases.values())) == len(set.union(*vases.values())) == 200
    assert [len(split[name]) for name in decide.SPLITS] == [480, 60, 60]
    for indices in split.values():
        assert np.mean([labels[i] for i in indices]) == pytest.approx(0.25, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=80), st.randoms())
def test_split_loses_nothing_and_does_not_depend_on_the_order_of_files(rows, random):
    shuffled = random.sample(rows, len(rows))

    def vases(rows):
        split = decide.split_groups([g for g, _ in rows], [label for _, label in rows], seed=3)
        assert sorted(np.concatenate(list(split.values()))) == list(range(len(rows)))
        return {name: {rows[i][0] for i in indices} for name, indices in split.items()}

    assert vases(rows) == vases(shuffled)


def test_classification_metrics_by_hand():
    metrics = decide.classification_metrics([1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0])
    assert metrics["confusion_matrix"]["counts"] == [[4, 1], [1, 2]]
    assert metrics["accuracy"] == 0.75
    assert metrics["balanced_accuracy"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == pytest.approx(2 / 3)


def test_undefined_ratios_are_none_not_zero():
    metrics = decide.classification_metrics([0, 0], [0, 0])
    assert metrics["precision"] is metrics["recall"] is metrics["f1"] is None
