"""The quality filter's threshold from labels: precision and recall, their uncertainty, what to label next.

Pure functions over scores; an image is accepted when its score >= threshold. Precision and recall are those of the
collection only if the labels are a random sample of it: labels collected around the threshold (`to_label_next`) make
the threshold sharper, but are harder than the rest, and precision among them lower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vasekit import files, metrics
from vasekit.cli import UserError
from vasekit.metrics import Measure

# ---- labels ----

COLUMNS = ("path", "label")
LABELS = {
    "1": 1,
    "complete": 1,
    "accepted": 1,
    "yes": 1,
    "0": 0,
    "fragment": 0,
    "rejected": 0,
    "no": 0,
}
# Below that a step of the precision-recall curve is a tenth and more: no threshold could be told from its neighbours.
FEWEST = 10


def read_labels(path: Path, flag: str, known: Collection[str]) -> dict[str, int]:
    """1 (complete, to keep) or 0 (fragment, to reject) for each labelled file name.

    known: the names below the input folder, POSIX. Raises UserError for a file that can't be used, and why.
    """
    names = frozenset(known)
    labels: dict[str, int] = {}
    strangers: dict[str, int] = {}
    line = 1
    for line, row in files.read_csv(path, flag, COLUMNS):
        where = f"{flag} {path}, line {line}"
        name = row[0] if row[0] in names else Path(row[0].strip()).as_posix()
        label = LABELS.get(row[1].strip().lower())
        if label is None:
            raise UserError(f"{where}: label {row[1]!r}, allowed are {', '.join(LABELS)}")
        if labels.setdefault(name, label) != label:
            raise UserError(f"{where}: {name!r} has the other label further up; keep one of the two lines")
        if name not in names:
            strangers.setdefault(name, line)
    if strangers:
        first, shown = next(iter(strangers.values())), ", ".join(map(repr, list(strangers)[:3]))
        more = ", ..." if len(strangers) > 3 else ""
        raise UserError(
            f"{flag} {path}, line {first}: {len(strangers):,} of {len(labels):,} paths are no readable image in the"
            f" input folder ({shown}{more}); write them as below it, such as folder/name.jpg"
        )
    where = f"{flag} {path}, line {line}: ends after labels of {len(labels)} images"
    if len(labels) < FEWEST:
        raise UserError(f"{where}, needs {FEWEST} or more")
    if len(set(labels.values())) == 1:
        raise UserError(f"{where}, all of them {label}; needs both 1 (complete) and 0 (fragment)")
    return labels


# ---- precision and recall ----


@dataclass(frozen=True)
class PrecisionRecall:
    """(k,) distinct thresholds from the highest down, and what accepting from there on gives: recall only rises."""

    threshold: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def average_precision(self) -> float:
        """Sum over thresholds of (R_k - R_(k-1)) * P_k: the area in steps, without interpolation (Zhu 2004)."""
        return float(_areas(self.precision[None], self.recall[None])[0])


@dataclass(frozen=True)
class _Ranked:
    """n images from the highest score down. ends: (k,) place of the last image of each distinct score."""

    order: np.ndarray
    ends: np.ndarray
    threshold: np.ndarray
    labels: np.ndarray


def _rank(scores: Sequence[float], labels: Sequence[int]) -> _Ranked:
    values, truth = np.asarray(scores, dtype=float), np.asarray(labels)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(f"{values.shape} scores and {truth.shape} labels, need one label per score")
    if not np.isfinite(values).all():
        raise ValueError("scores have to be finite")
    complete, fragments = int((truth == 1).sum()), int((truth == 0).sum())
    if complete + fragments != len(truth) or not complete or not fragments:
        raise ValueError(f"needs labels of both classes, got {complete} of 1 and {fragments} of 0 in {len(truth)}")
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return _Ranked(order, ends, ranked[ends], truth[order].astype(np.int32))


def _steps(weights: np.ndarray, ranked: _Ranked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """precision, recall, accepted: (r, k) each, for r samples that hold image i weights[:, i] times, in rank order.

    NaN where undefined: precision of nothing accepted, recall of a sample without complete images.
    """
    right = np.cumsum(weights * ranked.labels, axis=1, dtype=np.int32)[:, ranked.ends]
    accepted = np.cumsum(weights, axis=1, dtype=np.int32)[:, ranked.ends]
    with np.errstate(invalid="ignore"):
        return right / accepted, right / right[:, -1:], accepted


def _areas(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """(r,) average precision of (r, k) curves; where nothing is accepted yet, recall has not risen either."""
    return (np.diff(recall, axis=1, prepend=0) * np.nan_to_num(precision)).sum(axis=1)


def curve(scores: Sequence[float], labels: Sequence[int]) -> PrecisionRecall:
    """Precision and recall of accepting score >= threshold, at each distinct score.

    scores, labels: (n,) each, labels 1 or 0. Raises ValueError unless both classes are there.
    """
    ranked = _rank(scores, labels)
    precision, recall, _ = _steps(np.ones((1, len(ranked.order)), np.int32), ranked)
    return PrecisionRecall(ranked.threshold, precision[0], recall[0])


@dataclass(frozen=True)
class _Target:
    """A wanted precision or a wanted recall, above 0 and at most 1."""

    name: str
    wanted: float

    def reach(self, precision: np.ndarray, recall: np.ndarray, accepted: np.ndarray) -> np.ndarray:
        """(r,) index of the threshold that reaches the target in each of (r, k) curves, -1 where none does.

        Precision: the lowest threshold, which gives the largest recall; recall: the highest.
        """
        if self.name == "recall":
            hits = recall >= self.wanted
            return np.where(hits.any(axis=1), hits.argmax(axis=1), -1)
        # A score that a resample lacks is no threshold of it, though it would accept the same images.
        hits = (precision >= self.wanted) & (np.diff(accepted, axis=1, prepend=0) > 0)
        return np.where(hits.any(axis=1), hits.shape[1] - 1 - hits[:, ::-1].argmax(axis=1), -1)


def _target(precision: float | None, recall: float | None) -> _Target:
    given = {name: value for name, value in (("precision", precision), ("recall", recall)) if value is not None}
    if len(given) != 1:
        raise ValueError("needs either a wanted precision or a wanted recall")
    ((name, wanted),) = given.items()
    if not 0 < wanted <= 1:
        raise ValueError(f"{name} {wanted} wanted, needs a share above 0 and at most 1")
    return _Target(name, wanted)


def threshold_for(
    scores: Sequence[float], labels: Sequence[int], *, precision: float | None = None, recall: float | None = None
) -> float:
    """The lowest threshold with the wanted precision, or the highest with the wanted recall; one of the scores.

    scores, labels: (n,) each. Raises ValueError where no threshold reaches it, with the best that one does.
    """
    target = _target(precision, recall)
    ranked = _rank(scores, labels)
    steps = _steps(np.ones((1, len(ranked.order)), np.int32), ranked)
    (at,) = target.reach(*steps)
    if at < 0:  # only precision: the lowest threshold has recall 1
        best = int(steps[0][0].argmax())
        raise ValueError(
            f"no threshold reaches precision {target.wanted:g}; the best is {steps[0][0, best]:.3f}, at threshold"
            f" {ranked.threshold[best]:.4f} with recall {steps[1][0, best]:.3f}"
        )
    return float(ranked.threshold[at])


# ---- uncertainty ----

RESAMPLES = 2000
# Resampled labels at a time: bounds the memory, some 30 bytes each.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it does on the labels; every interval is at 95 %, n counts labelled images.

    interval: of the threshold, None where it was given and not found. resamples: how many were drawn. unreachable: how
    many of them have no threshold that reaches the target; the interval of the threshold is that of the others.
    undefined: how many accept nothing at the threshold or hold no complete image, and say nothing of precision, or of
    recall and average precision.
    """

    threshold: float
    interval: Measure | None
    precision: Measure
    recall: Measure
    average_precision: Measure
    resamples: int
    unreachable: int
    undefined: int


def calibrate(
    scores: Sequence[float],
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    precision: float | None = None,
    recall: float | None = None,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Calibration:
    """The threshold for a wanted precision or recall (or a given one), with percentile bootstrap intervals.

    scores, labels, groups: (n,) each; groups are the vases. Vases are resampled, not images: those of one vase are
    alike (cluster bootstrap, Davison and Hinkley 1997, 3.8). Precision and recall are those of the one threshold that
    is returned; as it was found on the same labels, they are a little optimistic. Raises ValueError as `threshold_for`
    does, and for labels of a single vase, of which no interval can be had.
    """
    if threshold is None:
        target, chosen = _target(precision, recall), threshold_for(scores, labels, precision=precision, recall=recall)
    elif precision is not None or recall is not None:
        raise ValueError("needs a threshold or a wanted precision or recall, not both")
    else:
        target, chosen = None, float(threshold)
    ranked = _rank(scores, labels)
    vases, vase_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(vase_of) != len(ranked.order):
        raise ValueError(f"{len(vase_of)} groups for {len(ranked.order)} scores")
    if len(vases) < 2:
        raise ValueError("needs labels of two vases or more, got one")
    if chosen > ranked.threshold[0]:
        raise ValueError(f"threshold {chosen:g} accepts no labelled image; the highest scores {ranked.threshold[0]:g}")
    n = len(ranked.order)
    (own,) = _at(np.ones((1, n), np.int32), ranked, chosen, target)
    parts = [
        _at(counts[:, vase_of[ranked.order]], ranked, chosen, target)
        for counts in _resampled(len(vases), n, resamples, seed)
    ]
    draws = np.concatenate(parts)
    thresholds, *rates = draws.T
    return Calibration(
        chosen,
        _interval(chosen, thresholds, n) if target else None,
        *(_interval(value, column, n) for value, column in zip(own[1:], rates, strict=True)),
        resamples=resamples,
        unreachable=int(np.isnan(thresholds).sum()) if target else 0,
        undefined=int(np.isnan(draws[:, 1:]).any(axis=1).sum()),
    )


def _at(weights: np.ndarray, ranked: _Ranked, chosen: float, target: _Target | None) -> np.ndarray:
    """(r, 4): the threshold found, precision and recall at `chosen`, average precision; NaN where undefined.

    weights: as in `_steps`. `chosen` accepts at least the first image.
    """
    precision, recall, accepted = _steps(weights, ranked)
    found = np.full(len(weights), np.nan)
    if target:
        at = target.reach(precision, recall, accepted)
        found = np.where(at >= 0, ranked.threshold[at], np.nan)
    place = int((ranked.threshold >= chosen).sum()) - 1
    return np.stack([found, precision[:, place], recall[:, place], _areas(precision, recall)], axis=1)


def _resampled(vases: int, images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """(r, vases) how often each vase was drawn, `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // images)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        picks = rng.integers(vases, size=(rows, vases)) + np.arange(rows)[:, None] * vases
        yield np.bincount(picks.ravel(), minlength=rows * vases).reshape(rows, vases).astype(np.int32)


def _interval(value: float, draws: np.ndarray, n: int) -> Measure:
    """Percentile interval of the draws that are defined."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        raise ValueError(f"none of {len(draws)} resamples has a value; label more images")
    return metrics.measure(value, *np.quantile(defined, (0.025, 0.975)), n)


# ---- what to label next ----

PER_VASE = 2


def to_label_next(
    scores: Mapping[str, float],
    threshold: float,
    labelled: Collection[str],
    groups: Mapping[str, str],
    n: int,
    interval: tuple[float, float] | None,
    per_vase: int = PER_VASE,
) -> list[str]:
    """At most n unlabelled images whose labels would say most about the threshold: the nearest to it, best first.

    scores, groups: score and vase by name. interval: (low, high) of the threshold; images inside it come before all
    others. At most `per_vase` images of one vase, those labelled already not counted. Ties are decided by name.
    """
    low, high = interval or (threshold, threshold)
    done = frozenset(labelled)
    ranked = sorted(
        (not low <= score <= high, abs(score - threshold), name) for name, score in scores.items() if name not in done
    )
    taken: list[str] = []
    of_vase = Counter[str]()
    for _, _, name in ranked:
        if len(taken) >= n:
            break
        if of_vase[groups[name]] < per_vase:
            of_vase[groups[name]] += 1
            taken.append(name)
    return taken


# ---- report ----


def report(
    scores: Mapping[str, float],
    labels: Mapping[str, int],
    groups: Mapping[str, str],
    *,
    precision: float | None = None,
    recall: float | None = None,
    threshold: float | None = None,
    n: int = 20,
    seed: int = 0,
) -> dict:
    """Everything above, ready for JSON.

    scores, groups: score and vase of all images by name; labels: of some of them. One of precision, recall (wanted) or
    threshold (given) has to be there. n: how many images to propose for labelling. Raises ValueError as `calibrate`
    does.
    """
    names = sorted(labels)
    values, truth = [scores[name] for name in names], [labels[name] for name in names]
    vases = [groups[name] for name in names]
    found = calibrate(values, truth, vases, precision=precision, recall=recall, threshold=threshold, seed=seed)
    whole = curve(values, truth)
    interval = (found.interval["low"], found.interval["high"]) if found.interval else None
    asked = {"precision": precision, "recall": recall, "threshold": threshold}
    return {
        "labels": {"images": len(names), "complete": sum(truth), "fragments": len(truth) - sum(truth)},
        "labelled_vases": len(set(vases)),
        "target": {name: value for name, value in asked.items() if value is not None},
        "threshold": found.threshold,
        "threshold_interval": found.interval,
        "precision": found.precision,
        "recall": found.recall,
        "average_precision": found.average_precision,
        "accepted_images": sum(score >= found.threshold for score in scores.values()),
        "total_images": len(scores),
        "resamples": found.resamples,
        "resamples_unreachable": found.unreachable,
        "resamples_undefined": found.undefined,
        "curve": {
            "threshold": whole.threshold.tolist(),
            "precision": whole.precision.tolist(),
            "recall": whole.recall.tolist(),
        },
        "to_label_next": [
            {
                "filename": name,
                "score": scores[name],
                "vase": groups[name],
                "inside_interval": bool(interval and interval[0] <= scores[name] <= interval[1]),
            }
            for name in to_label_next(scores, found.threshold, labels, groups, n, interval)
        ],
    }


TABLE = ("measure", "value")


def rows(found: dict) -> list[list[str | Measure]]:
    """`report` as rows below TABLE, for a page. Scores are texts: their differences lie in the fourth decimal."""
    labels, span = found["labels"], found["threshold_interval"]
    asked = ", ".join(f"{name} {value:g}" for name, value in found["target"].items())
    counts = f"{labels['complete']:,} complete, {labels['fragments']:,} fragments, {found['labelled_vases']:,} vases"
    between = f" ({span['low']:.4f} to {span['high']:.4f})" if span else ""
    lost = f"{found['resamples_unreachable']:,} of {found['resamples']:,}"
    return [
        ["asked for", asked],
        ["labels", counts],
        ["threshold", f"{found['threshold']:.4f}{between}"],
        ["precision", found["precision"]],
        ["recall", found["recall"]],
        ["average precision", found["average_precision"]],
        ["accepted of all images", f"{found['accepted_images']:,} of {found['total_images']:,}"],
        *([["resamples that can't reach it", lost]] if span else []),
    ]


def points(found: dict, x: str = "recall", y: str = "precision", limit: int = 200) -> list[tuple[float, float]]:
    """At most `limit` (x, y) of `report`'s curve, evenly picked from the highest threshold down, both ends kept.

    x, y: `threshold`, `precision` or `recall`.
    """
    curve_of = found["curve"]
    count = len(curve_of["threshold"])
    picked = np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int))
    return [(curve_of[x][k], curve_of[y][k]) for k in picked]
