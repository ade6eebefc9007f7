"""The threshold from labels, against naive references and cases worked out by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasekit import calibrate
from vasekit.cli import UserError

# Scores with ties, both classes: few distinct values make many ties.
DATA = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=2, max_size=30).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


def naive(scores: list[float], labels: list[int]) -> list[tuple[float, float, float]]:
    """(threshold, precision, recall), highest threshold first, by counting anew for each."""
    found = []
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        found.append((threshold, sum(taken) / len(taken), sum(taken) / sum(labels)))
    return found


def naive_area(steps: list[tuple[float, float, float]]) -> float:
    before = [0.0, *(recall for *_, recall in steps[:-1])]
    return sum((recall - last) * precision for (_, precision, recall), last in zip(steps, before, strict=True))


def naive_threshold(scores: list[float], labels: list[int], name: str, wanted: float) -> float | None:
    steps = naive(scores, labels)
    if name == "precision":
        return min((t for t, precision, _ in steps if precision >= wanted), default=None)
    return max(t for t, _, recall in steps if recall >= wanted)


# ---- the curve ----


def test_a_curve_by_hand() -> None:
    found = calibrate.curve([0.9, 0.8, 0.8, 0.5, 0.1], [1, 0, 1, 1, 0])
    assert found.threshold.tolist() == [0.9, 0.8, 0.5, 0.1]
    assert found.precision == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])
    assert found.recall == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert found.average_precision == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4)


@given(DATA)
def test_the_curve_and_its_area_equal_a_naive_count(pairs: list[tuple[int, int]]) -> None:
    scores, labels = map(list, zip(*pairs, strict=True))
    found, steps = calibrate.curve(scores, labels), naive(scores, labels)
    for got, column in zip((found.threshold, found.precision, found.recall), zip(*steps, strict=True), strict=True):
        assert got == pytest.approx(list(column))
    assert found.average_precision == pytest.approx(naive_area(steps))


def test_equal_scores_make_one_threshold_that_accepts_all() -> None:
    found = calibrate.curve([0.3] * 4, [1, 0, 0, 0])
    assert (found.threshold.tolist(), found.precision.tolist(), found.recall.tolist()) == ([0.3], [0.25], [1.0])
    assert found.average_precision == 0.25
    assert calibrate.threshold_for([0.3] * 4, [1, 0, 0, 0], recall=0.1) == 0.3


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([], [], "both classes"),
        ([1.0, 2.0], [1, 1], "2 of 1 and 0 of 0"),
        ([1.0, 2.0], [0, 0], "0 of 1 and 2 of 0"),
        ([1.0, 2.0], [1, 2], "both classes"),
        ([1.0, float("nan")], [1, 0], "finite"),
        ([1.0, 2.0], [1], "one label per score"),
    ],
)
def test_what_has_no_curve_is_refused(scores: list[float], labels: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibrate.curve(scores, labels)


# ---- the threshold ----


@pytest.mark.parametrize(
    ("target", "threshold"),
    [
        ({"precision": 1.0}, 0.9),
        ({"precision": 0.75}, 0.5),  # the lowest, though 0.8 has less
        ({"precision": 0.7}, 0.5),
        ({"precision": 0.6}, 0.1),
        ({"recall": 0.1}, 0.9),
        ({"recall": 0.34}, 0.8),
        ({"recall": 1.0}, 0.5),  # the highest of two
    ],
)
def test_thresholds_by_hand(target: dict[str, float], threshold: float) -> None:
    assert calibrate.threshold_for([0.9, 0.8, 0.8, 0.5, 0.1], [1, 0, 1, 1, 0], **target) == threshold


@given(DATA, st.sampled_from(["precision", "recall"]), st.sampled_from([0.1, 0.5, 2 / 3, 0.75, 0.9, 1.0]))
def test_thresholds_equal_a_naive_search(pairs: list[tuple[int, int]], name: str, wanted: float) -> None:
    scores, labels = map(list, zip(*pairs, strict=True))
    expected = naive_threshold(scores, labels, name, wanted)
    if expected is None:
        with pytest.raises(ValueError, match="no threshold reaches precision"):
            calibrate.threshold_for(scores, labels, **{name: wanted})
    else:
        assert calibrate.threshold_for(scores, labels, **{name: wanted}) == expected


def test_what_cannot_be_reached_is_told_with_the_best_that_can() -> None:
    with pytest.raises(ValueError, match=r"precision 0.95; the best is 0.667, at threshold 0.5000 with recall 1.000"):
        calibrate.threshold_for([0.9, 0.5, 0.5], [0, 1, 1], precision=0.95)


@pytest.mark.parametrize("target", [{}, {"precision": 0.5, "recall": 0.5}, {"precision": 0.0}, {"recall": 1.1}])
def test_one_sensible_target_is_needed(target: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        calibrate.threshold_for([1, 2], [0, 1], **target)


# ---- the bootstrap ----


def labelled(n: int, per_vase: int, seed: int = 0) -> tuple[list[float], list[int], list[str]]:
    """Scores that tell the classes apart well but not fully; labels and scores of a vase are alike."""
    rng = np.random.default_rng(seed)
    vase = np.arange(n) // per_vase
    labels = (rng.random(n) < 0.6)[vase].astype(int)
    scores = rng.normal(size=n)[vase] * 0.02 + rng.normal(size=n) * 0.01 + labels * 0.04
    return scores.tolist(), labels.tolist(), [f"vase {k}" for k in vase]


@given(DATA, st.sampled_from(["precision", "recall"]), st.sampled_from([0.5, 0.8, 1.0]))
@settings(max_examples=30, deadline=None)
def test_the_bootstrap_equals_one_by_loops(pairs: list[tuple[int, int]], name: str, wanted: float) -> None:
    scores, labels = map(list, zip(*pairs, strict=True))
    groups = [str(k // 2) for k in range(len(scores))]
    vases = sorted(set(groups))
    if len(vases) < 2 or (threshold := naive_threshold(scores, labels, name, wanted)) is None:
        return
    found = calibrate.calibrate(scores, labels, groups, **{name: wanted}, resamples=40)
    (drawn,) = calibrate._resampled(len(vases), len(scores), 40, 0)
    thresholds, precisions, recalls, undefined = [], [], [], 0
    for counts in drawn:
        picks = [i for i, vase in enumerate(groups) for _ in range(counts[vases.index(vase)])]
        own = [(scores[i], labels[i]) for i in picks]
        taken = [label for score, label in own if score >= threshold]
        complete = sum(label for _, label in own)
        precisions += [sum(taken) / len(taken)] if taken else []
        recalls += [sum(taken) / complete] if complete else []
        undefined += not taken or not complete
        reached = naive_threshold(*zip(*own, strict=True), name, wanted) if complete else None
        thresholds += [] if reached is None else [reached]
    assert found.unreachable == 40 - len(thresholds)
    assert found.undefined == undefined
    for got, values in zip(
        (found.interval, found.precision, found.recall), (thresholds, precisions, recalls), strict=True
    ):
        assert (got["low"], got["high"]) == pytest.approx(np.quantile(values, (0.025, 0.975)))
    assert found.interval["value"] == found.threshold == threshold


def test_copies_within_a_vase_make_nothing_surer() -> None:
    scores, labels, groups = labelled(100, 2)
    once = calibrate.calibrate(scores, labels, groups, precision=0.8)
    often = calibrate.calibrate(scores * 4, labels * 4, groups * 4, precision=0.8)
    for name in ("interval", "precision", "recall", "average_precision"):
        one, other = getattr(once, name), getattr(often, name)
        assert (one["value"], one["low"], one["high"]) == pytest.approx((other["value"], other["low"], other["high"]))
    images = calibrate.calibrate(scores * 4, labels * 4, [str(k) for k in range(400)], precision=0.8)
    assert images.precision["high"] - images.precision["low"] < 0.7 * (once.precision["high"] - once.precision["low"])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    whole, truth, _ = labelled(100_000, 4, seed=99)
    at = np.asarray(whole) >= 0.02
    true = np.asarray(truth)[at].mean()
    hits = 0
    for seed in range(200):
        found = calibrate.calibrate(*labelled(240, 4, seed), threshold=0.02, resamples=400)
        hits += found.precision["low"] <= true <= found.precision["high"]
    assert 0.88 <= hits / 200 <= 0.99


def test_the_bootstrap_is_seeded_and_does_not_depend_on_the_order() -> None:
    scores, labels, groups = labelled(60, 3)
    one, same, other = (calibrate.calibrate(scores, labels, groups, recall=0.9, seed=seed) for seed in (1, 1, 2))
    turned = calibrate.calibrate(scores[::-1], labels[::-1], groups[::-1], recall=0.9, seed=1)
    assert one == same == turned
    assert one != other
    assert one.unreachable == 0


def test_resamples_that_miss_the_target_are_counted() -> None:
    # The fragment a lies above the complete b and c.
    found = calibrate.calibrate([0.9, 0.5, 0.4], [0, 1, 1], ["a", "b", "c"], precision=0.6)
    assert found.threshold == 0.4
    # Of the 27 draws of three vases 3 x a, and 2 x a with one other (6 of them) fall short.
    assert found.unreachable / found.resamples == pytest.approx(7 / 27, abs=0.03)
    assert found.undefined / found.resamples == pytest.approx(1 / 27, abs=0.015)  # 3 x a has no complete image
    assert found.interval["n"] == 3


@pytest.mark.parametrize(
    ("groups", "more", "words"),
    [
        (["a", "a", "a"], {"recall": 0.5}, "two vases"),
        (["a", "b"], {"recall": 0.5}, "2 groups for 3"),
        (["a", "b", "c"], {"threshold": 1.0}, "accepts no labelled image"),
        (["a", "b", "c"], {"threshold": 0.1, "recall": 0.5}, "not both"),
        (["a", "b", "c"], {"precision": 0.9}, "best is 0.667"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(groups: list[str], more: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibrate.calibrate([0.9, 0.5, 0.4], [0, 1, 1], groups, **more)


def test_two_thousand_labels_take_seconds() -> None:
    scores, labels, groups = labelled(2000, 4)
    started = time.perf_counter()
    found = calibrate.calibrate(scores, labels, groups, precision=0.9)
    assert time.perf_counter() - started < 3  # half a second when nothing else runs
    assert found.precision["low"] < 0.9 <= found.precision["value"] < found.precision["high"]


# ---- what to label next ----


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, ["b", "a", "c", "e"]),  # b at the threshold, a and c equally near, d is the third of a vase
        ({"n": 2}, ["b", "a"]),
        ({"n": 0}, []),
        ({"labelled": ["b"]}, ["a", "c", "d", "e"]),
        ({"per_vase": 3}, ["b", "a", "c", "d", "e"]),
        ({"per_vase": 1}, ["b", "c"]),
        ({"interval": (0.45, 0.75)}, ["b", "c", "d", "e"]),  # what is inside comes first, which fills the vase of a
        ({"labelled": "abcde"}, []),
    ],
)
def test_labels_are_asked_for_where_they_say_most(more: dict, names: list[str]) -> None:
    scores = {"e": 0.9, "d": 0.7, "c": 0.6, "b": 0.5, "a": 0.4}
    flags = {"labelled": (), "n": 10, "interval": None} | more
    groups = {"a": "v", "b": "v", "c": "w", "d": "v", "e": "w"}
    for order in (sorted(scores), sorted(scores, reverse=True)):
        found = calibrate.to_label_next({k: scores[k] for k in order}, 0.5, groups=groups, **flags)
        assert found == names


# ---- reading labels ----

NAMES = [f"a/{k}.jpg" for k in range(12)] + ["comma, b.jpg", " blank .jpg"]


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(words: tuple[str, str] = ("1", "0"), count: int = 12) -> str:
    return "path,label\n" + "".join(f"a/{k}.jpg,{words[k % 2]}\n" for k in range(count))


@pytest.mark.parametrize(
    "words", [("1", "0"), ("complete", "fragment"), ("ACCEPTED", "Rejected"), ("yes", "no"), (" Yes ", "0")]
)
def test_labels_in_all_words(tmp_path: Path, words: tuple[str, str]) -> None:
    found = calibrate.read_labels(write(tmp_path, lines(words)), "--labels", NAMES)
    assert found == {f"a/{k}.jpg": 1 - k % 2 for k in range(12)}


def test_labels_as_spreadsheets_write_them(tmp_path: Path) -> None:
    more = '"comma, b.jpg",1\r\n blank .jpg,0\r\n,\r\n\r\n./a/0.jpg,1\r\n a/1.jpg,0\r\n'
    text = "\ufeffPath , LABEL\r\n" + lines().replace("\n", "\r\n").partition("\r\n")[2] + more
    found = calibrate.read_labels(write(tmp_path, text), "--labels", NAMES)
    assert len(found) == 14
    assert (found["comma, b.jpg"], found[" blank .jpg"], found["a/0.jpg"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["line 1", "header 'nothing'", "path,label"]),
        ("filename,decision\na/0.jpg,accept\n", ["line 1", "header 'filename,decision'"]),
        ("path;label\na/0.jpg;1\n", ["line 1", "commas"]),
        (lines() + "a/3.jpg,maybe\n", ["line 14", "'maybe'", "complete", "rejected"]),
        (lines() + "a/3.jpg\n", ["line 14", "1 columns"]),
        (lines() + "comma, b.jpg,1\n", ["line 14", "3 columns", "quote"]),
        (lines() + "a/3.jpg,1\n", ["line 14", "'a/3.jpg'", "other label"]),
        (lines() + "".join(f"{k}.jpg,1\n" for k in range(5)), ["line 14", "5 of 17", "'0.jpg', '1.jpg', '2.jpg', ..."]),
        (lines() + "A/3.JPG,1\n", ["line 14", "1 of 13", "('A/3.JPG')"]),
        (lines(("1", "1")), ["line 13", "all of them 1", "0 (fragment)"]),
        (lines(count=9), ["line 10", "9 images", "10 or more"]),
        ("path,label\n", ["line 1", "0 images"]),
        (lines().encode() + b"\xff,1\n", ["UTF-8"]),
        (lines() + '"a/3.jpg,1\n', ["line 14", "not valid CSV"]),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        calibrate.read_labels(path, "--labels", NAMES)
    message = str(caught.value)
    assert "\n" not in message
    for word in [f"--labels {path}", *words]:
        assert word in message


def test_a_missing_file_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--labels .*no such file"):
        calibrate.read_labels(tmp_path / "none.csv", "--labels", NAMES)


# ---- the report ----


def collection() -> tuple[dict[str, float], dict[str, int], dict[str, str]]:
    """Scores of 120 images, labels of the first 90, and vases of three."""
    scores, truth, groups = labelled(120, 3)
    names = [f"{k:03}.jpg" for k in range(120)]
    by_name = [dict(zip(names, values, strict=True)) for values in (scores, truth, groups)]
    return by_name[0], {name: by_name[1][name] for name in names[:90]}, by_name[2]


def test_the_report_is_json_and_the_same_in_any_order() -> None:
    scores, labels, groups = collection()
    found = calibrate.report(scores, labels, groups, precision=0.8, n=5)
    turned = calibrate.report(*({k: d[k] for k in reversed(d)} for d in (scores, labels, groups)), precision=0.8, n=5)
    assert json.loads(json.dumps(found, allow_nan=False)) == turned
    assert found["labels"] == {"images": 90, "complete": sum(labels.values()), "fragments": 90 - sum(labels.values())}
    assert found["labelled_vases"] == 30
    assert found["target"] == {"precision": 0.8}
    assert found["precision"]["value"] >= 0.8
    assert found["accepted_images"] == sum(score >= found["threshold"] for score in scores.values())
    assert len(found["to_label_next"]) == 5
    assert not {row["filename"] for row in found["to_label_next"]} & labels.keys()


def test_rows_and_points_for_a_page() -> None:
    found = calibrate.report(*collection(), recall=0.9)
    rows = dict(calibrate.rows(found))
    assert rows["asked for"] == "recall 0.9"
    assert rows["threshold"].startswith(f"{found['threshold']:.4f} (")
    assert rows["recall"] == found["recall"]
    assert rows["resamples that can't reach it"] == "0 of 2,000"
    whole, few = calibrate.points(found), calibrate.points(found, "threshold", "recall", limit=7)
    assert len(whole) == 90
    assert len(few) == 7
    assert few[0] == (max(found["curve"]["threshold"]), found["curve"]["recall"][0])
    assert few[-1] == (min(found["curve"]["threshold"]), 1.0)


def test_a_given_threshold_is_judged_and_gets_no_interval() -> None:
    found = calibrate.report(*collection(), threshold=0.02)
    assert found["target"] == {"threshold": 0.02}
    assert found["threshold_interval"] is None
    assert found["precision"]["low"] < found["precision"]["value"]
    assert not any(row["inside_interval"] for row in found["to_label_next"])
    assert "resamples that can't reach it" not in dict(calibrate.rows(found))
