"""What to do with scores: thresholds, best views, splits. Pure functions; nothing here opens an image."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vasekit.images import View

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


# ---- verdicts ----


@dataclass(frozen=True)
class Verdict:
    """accepted, and why: `score`, `override` or `near-duplicate of NAME`."""

    accepted: bool
    reason: str


def verdicts(
    names: Sequence[str],
    scores: Sequence[float],
    threshold: float,
    overrides: Mapping[str, str],
    better: Mapping[str, str],
) -> list[Verdict]:
    """One per image: what a person decided (`accept` or `reject`) comes first, then `better` (a near-duplicate and
    the name of the one that is kept for it), then score >= threshold.
    """
    decided = []
    for name, score in zip(names, scores, strict=True):
        if name in overrides:
            decided.append(Verdict(overrides[name] == "accept", "override"))
        elif name in better and score >= threshold:
            decided.append(Verdict(False, f"near-duplicate of {better[name]}"))
        else:
            decided.append(Verdict(bool(score >= threshold), "score"))
    return decided


# ---- near-duplicates ----

# Of 64 bits. Measured on rendered and real vases: 99 % of copies at 50 to 100 % of the size and JPEG quality 30 to 90
# differ in at most 6, pairs of other views of the same vase in at least 8.
NEAR_BITS = 6


def near_duplicates(hashes: Sequence[int], vases: Sequence[str], bits: int = NEAR_BITS) -> list[list[int]]:
    """Groups of two and more pictures of one vase that are linked by hashes of at most `bits` different bits."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, vase in enumerate(vases):
        members[vase].append(index)
    groups = []
    for _, indices in sorted(members.items()):
        left = list(indices)
        while left:
            group = [left.pop(0)]
            for known in group:  # grows while it is walked through
                near = [k for k in left if (int(hashes[known]) ^ int(hashes[k])).bit_count() <= bits]
                group += near
                left = [k for k in left if k not in near]
            if len(group) > 1:
                groups.append(sorted(group))
    return groups


def near_pairs(hashes: Sequence[int], bits: int = NEAR_BITS) -> np.ndarray:
    """(m, 2) indices a < b of hashes that differ in at most `bits` of 64, whatever vase they show.

    Cut into bits + 1 bands, two such hashes agree in one band at least, so only those are compared.
    """
    values = np.asarray(hashes, np.uint64)
    cuts = np.linspace(0, 64, bits + 2).astype(int)
    found = [np.empty((0, 2), int)]
    for low, high in itertools.pairwise(cuts.tolist()):
        band = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order])) + 1
        found += [_near(order_part, values, bits) for order_part in np.split(order, starts) if len(order_part) > 1]
    return np.unique(np.concatenate(found), axis=0)


def _near(indices: np.ndarray, values: np.ndarray, bits: int) -> np.ndarray:
    """The pairs among these, sorted; row by row, so that a crowded band takes time but no memory."""
    pairs = []
    for k, first in enumerate(indices[:-1]):
        others = indices[k + 1 :]
        close = others[np.bitwise_count(values[others] ^ values[first]) <= bits]
        pairs.append(np.stack([np.full(len(close), first), close], axis=1))
    return np.sort(np.concatenate(pairs), axis=1)


def linked(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The indices 0..count-1 in groups: what a chain of pairs links is together; sorted."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for a, b in pairs:
        one, other = sorted((root(a), root(b)))
        parent[other] = one
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        groups[root(index)].append(index)
    return list(groups.values())


# ---- best view ----


@dataclass(frozen=True)
class Choice:
    """The view taken of one vase. `views` holds (name, view, score) of all that could be read, the chosen one first."""

    vase: str
    views: tuple[tuple[str, View, float], ...]
    reason: str

    @property
    def score(self) -> float:
        return self.views[0][2]

    @property
    def margin(self) -> float | None:
        """Lead over the best of the others; None for an only view, negative where a person chose another than that."""
        return self.score - self.views[1][2] if len(self.views) > 1 else None


def best_views(views: Iterable[tuple[str, View, float]], chosen: Collection[str] = ()) -> list[Choice]:
    """One Choice per vase, sorted by vase; equal scores are decided by file name. The vase is spelled as met first.

    chosen: names that a person chose; they win whatever their score.
    """
    groups: dict[str, list[tuple[str, View, float]]] = defaultdict(list)
    for name, view, score in views:
        groups[view.key].append((name, view, score))
    return [_choice(own, chosen) for _, own in sorted(groups.items())]


def _choice(views: list[tuple[str, View, float]], chosen: Collection[str]) -> Choice:
    vase = views[0][1].vase
    ranked = sorted(views, key=lambda row: (row[0] not in chosen, -row[2], Path(row[0]).name, row[0]))
    if ranked[0][0] in chosen:
        reason = "override"
    elif len(ranked) == 1:
        reason = "only view"
    else:
        reason = "highest score" if ranked[0][2] > ranked[1][2] else "tie, first by name"
    return Choice(vase, tuple(ranked), reason)


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


SMALL_STRATUM = 10


def stratified(groups: Sequence[tuple[str, Hashable]], shares: Mapping[str, float], seed: int) -> list[str]:
    """The part of each group (key, stratum), in proportion to `shares` in every stratum.

    Systematic sampling: within a stratum a hash of seed and key decides the order, and the parts are cut off along it
    from a start that is the stratum's own. Strata of fewer than SMALL_STRATUM groups are thrown together. New groups
    move a few others of their stratum at most, and none of another. Raises ValueError when the shares do not sum to 1.
    """
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"shares sum to {sum(shares.values())}, not to 1")
    strata: dict[Hashable, list[int]] = defaultdict(list)
    for index, (_, stratum) in enumerate(groups):
        strata[stratum].append(index)
    small = [stratum for stratum, members in strata.items() if len(members) < SMALL_STRATUM]
    strata["small"] = [index for stratum in small for index in strata.pop(stratum)]
    parts = [""] * len(groups)
    for stratum, members in strata.items():
        start = _draw(seed, stratum)
        for rank, index in enumerate(sorted(members, key=lambda i: _draw(seed, groups[i][0]))):
            parts[index] = _part((rank + start) / len(members), shares)
    return parts


def _draw(seed: int, key: Hashable) -> float:
    """A number in [0, 1) that only depends on these two."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64


def _part(place: float, shares: Mapping[str, float]) -> str:
    for name, share in shares.items():
        place -= share
        if place < 0 and share:
            return name
    return max(shares, key=shares.__getitem__)  # rounding


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


CALIBRATION_BINS = 15  # as in Guo et al. 2017


def expected_calibration_error(labels: Sequence[int], chances: Sequence[float], bins: int = CALIBRATION_BINS) -> float:
    """How far confidence is from accuracy: the sum over bins of |B| / n * |acc(B) - conf(B)| (Guo et al. 2017, eq. 3).

    chances: (n,) probabilities of class 1, which is predicted from .5 on. An item's confidence is the probability of
    its predicted class; the bins over (0, 1] are equally wide and closed above. Raises ValueError for no items.
    """
    truth, high = np.asarray(labels), np.asarray(chances, dtype=float)
    if not len(truth):
        raise ValueError("no predictions to judge")
    confidence = np.maximum(high, 1 - high)
    gaps = ((high >= 0.5) == truth) - confidence  # their sum in a bin is |B| * (acc(B) - conf(B))
    bin_of = np.ceil(confidence * bins).astype(int) - 1
    return float(np.abs(np.bincount(bin_of, gaps)).sum() / len(truth))
