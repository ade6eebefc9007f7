"""Decisions over scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasekit import decide
from vasekit.images import parse_name


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
    choices = decide.best_views((name, parse_name(name), score) for name, score in scores)
    assert [(c.vase, Path(c.views[0][0]).name) for c in choices] == [
        ("odd", "odd.jpg"),
        ("X", "x_2_bc001001.jpe"),
        ("Y", "Y_1.jpg"),
    ]
    assert choices[1].margin == pytest.approx(0.2)
    assert choices[0].margin is None


def test_ties_are_broken_by_name_not_by_order():
    rows = [(name, parse_name(name), 0.5) for name in ("v_2.jpg", "v_1.jpg")]
    for order in (rows, rows[::-1]):
        (choice,) = decide.best_views(order)
        assert choice.views[0][0] == "v_1.jpg"
        assert choice.reason == "tie, first by name"


def test_what_a_person_chose_wins() -> None:
    rows = [("v_1.jpg", parse_name("v_1.jpg"), 0.9), ("v_2.jpg", parse_name("v_2.jpg"), 0.4)]
    (choice,) = decide.best_views(rows, chosen=["v_2.jpg"])
    assert (choice.views[0][0], choice.reason) == ("v_2.jpg", "override")
    assert choice.margin == pytest.approx(-0.5)


def test_verdicts_put_the_person_first_then_duplicates_then_the_score() -> None:
    names, scores = ["a", "b", "c", "d"], [0.9, 0.8, 0.1, 0.8]
    found = decide.verdicts(names, scores, 0.5, {"a": "reject", "c": "accept"}, {"b": "d", "c": "d"})
    assert [(v.accepted, v.reason) for v in found] == [
        (False, "override"),
        (False, "near-duplicate of d"),
        (True, "override"),
        (True, "score"),
    ]
    assert decide.verdicts(["x"], [0.5], 0.5, {}, {})[0].accepted, "the threshold itself is accepted"


def test_near_duplicates_stay_within_a_vase_and_chain() -> None:
    hashes = [0, 0b111111, 0b111111111111, 2**64 - 1, 0]
    assert decide.near_duplicates(hashes, ["v", "v", "v", "v", "w"]) == [[0, 1, 2]]
    assert decide.near_duplicates(hashes, ["v", "v", "v", "v", "w"], bits=5) == []


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
