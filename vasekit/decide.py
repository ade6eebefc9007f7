"""What to do with scores: thresholds, best views, splits. Pure functions; nothing here opens an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vasekit.images import View, parse_name

# Shares to keep that a report proposes thresholds for: .75 is the documented default, .465 the paper's own run.
SHARES = (0.9, 0.75, 0.5, 0.465, 0.25)


def sample(count: int, size: int, seed: int) -> np.ndarray:
    """`size` of the indices 0..count-1 (all of them if there are fewer), sorted, the same for the same seed."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:size])


def threshold_to_keep(scores: Sequence[float], keep: float) -> float:
    """The threshold at which a share `keep` of `scores` is accepted (score >= threshold)."""
    return float(np.quantile(np.asarray(scores, dtype=float), 1 - keep))


def statistics(scores: Sequence[float]) -> dict[str, float]:
    """Mean, spread and quantiles."""
    values = np.asarray(scores, dtype=float)
    quantiles = np.quantile(values, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)).tolist()
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "std": float(values.std()),
        **dict(zip(("min", "p5", "p25", "median", "p75", "p95", "max"), quantiles, strict=True)),
    }


# ---- best view ----


@dataclass(frozen=True)
class Choice:
    """The view taken of one vase. `views` holds (path, view, score) of all that could be read, best first."""

    vase: str
    views: tuple[tuple[Path, View, float], ...]

    @property
    def score(self) -> float:
        return self.views[0][2]

    @property
    def margin(self) -> float | None:
        """Lead over the runner-up; None for an only view."""
        return self.score - self.views[1][2] if len(self.views) > 1 else None


def best_views(scores: Iterable[tuple[Path, float]]) -> list[Choice]:
    """One Choice per vase, sorted by vase; equal scores are decided by file name. The vase is spelled as met first."""
    groups: dict[str, list[tuple[Path, View, float]]] = defaultdict(list)
    for path, score in scores:
        view = parse_name(path)
        groups[view.key].append((path, view, score))
    return [
        Choice(views[0][1].vase, tuple(sorted(views, key=lambda row: (-row[2], row[0].name, row[0].as_posix()))))
        for _, views in sorted(groups.items())
    ]


# ---- splits ----

SPLITS = ("train", "val", "test")


def split_groups(
    groups: Sequence[Hashable], labels: Sequence[int], seed: int, shares: tuple[float, float] = (0.1, 0.1)
) -> dict[str, np.ndarray]:
    """Indices of train, val and test: whole groups (vases) move, and each split gets the labels in equal proportion.

    `shares` are those of val and test. Groups with the same set of labels form a stratum; each stratum of three or
    more gives at least one group to val and to test. The order of the input does not matter.
    """
    strata: dict[tuple[int, ...], list[Hashable]] = defaultdict(list)
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    for group in sorted(members, key=str):
        strata[tuple(sorted({labels[i] for i in members[group]}))].append(group)
    rng = np.random.default_rng(seed)
    split: dict[str, list[int]] = {name: [] for name in SPLITS}
    for _, names in sorted(strata.items()):
        order = [names[i] for i in rng.permutation(len(names))]
        val, test = (max(1, round(share * len(order))) if len(order) >= 3 else 0 for share in shares)
        cuts = {"val": order[:val], "test": order[val : val + test], "train": order[val + test :]}
        for name, chosen in cuts.items():
            split[name] += [index for group in chosen for index in members[group]]
    return {name: np.array(sorted(indices), dtype=int) for name, indices in split.items()}


# ---- verdicts against labels ----


def classification_metrics(labels: Sequence[int], predicted: Sequence[int]) -> dict:
    """Accuracy, balanced accuracy; precision, recall and F1 of class 1 (None where undefined); counts."""
    truth, guess = np.asarray(labels), np.asarray(predicted)
    matrix = np.array([[int(((truth == t) & (guess == g)).sum()) for g in (0, 1)] for t in (0, 1)])
    (tn, fp), (fn, tp) = matrix.tolist()

    def ratio(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    recalls = [r for r in (ratio(tn, tn + fp), ratio(tp, tp + fn)) if r is not None]
    return {
        "n": len(truth),
        "accuracy": ratio(tn + tp, len(truth)),
        "balanced_accuracy": sum(recalls) / len(recalls) if recalls else None,
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "confusion_matrix": {"rows": "label", "columns": "predicted", "counts": matrix.tolist()},
    }
