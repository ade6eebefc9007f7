"""The reward of the reinforcement stage: a caption's claims against the record, dimension by dimension.

Pure functions without a framework; `plugin/plugin.py` registers them with ms-swift. Weights from the VaseVQA-3D paper
(arXiv 2510.04479), where a dimension is a similarity with a hard gate; here it is a graded score without template
words, so that a wrong answer earns nothing and a better one always earns more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vasekit import vases
from vasekit.vases import VaseRecord

WEIGHTS = {
    "fabric": 0.20,
    "technique": 0.20,
    "shape": 0.15,
    "date": 0.15,
    "decoration": 0.20,
    "attribution": 0.10,
}
# A guess of the same family of shapes (neck-amphora for amphora) is worth this much of the right one.
SAME_KIND = 0.4
# Share of the total that a caption loses for running on and for repeating itself.
LENGTH_PENALTY, REPETITION_PENALTY = 0.1, 0.1


def same_term(name: str, claim: str, target: str) -> float:
    """1 for the same canonical term, else 0. Two claims at once are no answer."""
    return float(_single(claim) is not None and vases.canonical(name, claim) == vases.canonical(name, target))


def shape_score(claim: str, target: str) -> float:
    """1 for the same shape, `SAME_KIND` for one of the same family, else 0."""
    if _single(claim) is None:
        return 0.0
    said, true = vases.canonical("shape", claim), vases.canonical("shape", target)
    if said == true:
        return 1.0
    kinds = vases.vocabulary().kinds
    return SAME_KIND if said in kinds and kinds.get(said) == kinds.get(true) else 0.0


def date_score(claim: str, target: str) -> float | None:
    """Overlap of the two spans in years over their union, both ends included: 1 for the same span or year.

    A span twice too wide or half too narrow scores 1/2; "-1000 to 0" scores next to nothing. None: no date to compare
    with.
    """
    true = vases.parse_date(target)
    if true is None:
        return None
    said = vases.parse_date(claim)
    if said is None:
        return 0.0
    shared = min(said[1], true[1]) - max(said[0], true[0]) + 1
    union = max(said[1], true[1]) - min(said[0], true[0]) + 1
    return max(0, shared) / union


def figures_score(claim: str, target: str) -> float:
    """F1 of the two sets of words, template words left out: order and repetition do not count."""
    said, true = _figures(claim), _figures(target)
    shared = len(said & true)
    return 2 * shared / (len(said) + len(true)) if shared else 0.0


def name_score(claim: str, target: str) -> float:
    """1 where the painter's own name occurs in the claim, else 0; "Manner of", "P" and scholars do not count."""
    name = set(vases.words_of(target.split(" by ")[0])) - _ATTRIBUTION
    return float(bool(name) and name <= set(vases.words_of(claim)))


# Words without a claim: they neither earn nor cost.
_TEMPLATE = {"a", "an", "and", "the", "of", "with", "at", "in", "to", "by", "is", "side", "vase", "scene", "showing"}
_ATTRIBUTION = {"p", "painter", "group", "workshop", "class", "manner", "of", "near", "follower", "the", "attributed"}


def _figures(text: str) -> set[str]:
    return set(vases.words_of(vases.depicted(text))) - _TEMPLATE


def _single(claim: str) -> str | None:
    return claim if claim and " / " not in claim else None


SCORES: dict[str, Callable[[str, str], float | None]] = {
    "fabric": lambda claim, target: same_term("fabric", claim, target),
    "technique": lambda claim, target: same_term("technique", claim, target),
    "shape": shape_score,
    "date": date_score,
    "decoration": figures_score,
    "attribution": name_score,
}


def score_fields(caption: str, target: VaseRecord) -> dict[str, float | None]:
    """One score in [0, 1] per dimension, None where the record is silent."""
    claims = vases.parse_caption(caption)
    said = {name: getattr(claims, name) for name in WEIGHTS}
    # A caption has no slot of its own for the painter: the name counts wherever it stands, and is no figure.
    said["attribution"] = caption
    painter = {*vases.words_of(target.attribution), *_ATTRIBUTION}
    said["decoration"] = " ".join(word for word in vases.words_of(claims.decoration) if word not in painter)
    return {
        name: score(said[name], getattr(target, name)) if getattr(target, name) else None
        for name, score in SCORES.items()
    }


def total(caption: str, target: VaseRecord) -> float:
    """Weighted mean over the dimensions that the record has, less penalties, in [0, 1]; 0 for an empty record."""
    scores = {name: score for name, score in score_fields(caption, target).items() if score is not None}
    weight = sum(WEIGHTS[name] for name in scores)
    if not weight:
        return 0.0
    mean = sum(WEIGHTS[name] * score for name, score in scores.items()) / weight
    return max(0.0, mean - penalty(caption, target))


def penalty(caption: str, target: VaseRecord) -> float:
    """Length beyond one and a half times the record's own caption (full at three times), and repeated words."""
    words = vases.words_of(caption)
    expected = max(8, len(vases.words_of(vases.caption(target))))
    excess = min(1.0, max(0.0, len(words) / expected - 1.5) / 1.5)
    repeated = 1 - len(set(words)) / len(words) if len(words) > 3 else 0.0
    return LENGTH_PENALTY * excess + REPETITION_PENALTY * max(0.0, repeated - 0.2) / 0.8


@dataclass(frozen=True)
class Target:
    """What an answer is compared with."""

    record: VaseRecord

    @staticmethod
    def parse(solution: object) -> Target:
        """From a JSON object of fields, a mapping, or a caption. Raises ValueError where nothing can be read."""
        if isinstance(solution, str) and solution.lstrip().startswith("{"):
            solution = json.loads(solution)
        if isinstance(solution, dict):
            record = vases.parse_record(solution)
        elif isinstance(solution, str) and solution.strip():
            record = vases.parse_caption(solution)
        else:
            raise ValueError(f"solution {solution!r}: needs a JSON object of fields or a caption")
        return Target(record.normalised())


def external_vase_acc(responses: Sequence[str], references: Sequence[object]) -> list[float]:
    """The documented reward function: one total in [0, 1] per response; references are captions, JSON or mappings."""
    return [
        total(response, Target.parse(reference).record)
        for response, reference in zip(responses, references, strict=True)
    ]
