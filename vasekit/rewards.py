"""The reward of the reinforcement stage: a caption's claims against the record, dimension by dimension.

    R = clip(sum_i w_i g(s_i) - P + B, 0, 1)

with six dimensions, weights w, a gate g at tau, penalties P and a bonus B for structure (VaseVQA-3D, arXiv 2510.04479).
What the paper leaves open is a parameter of `Reward`. Pure functions without a framework; `plugin/plugin.py` registers
them with ms-swift. `python -m vasekit.rewards` tries a reward on completions before anything is trained with it.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from vasekit import vases
from vasekit.dates import parse_date
from vasekit.vases import Attribution, Claims, VaseRecord
from vasekit.vocabulary import canonical, terms_in, unknown_in, vocabulary, words_of

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = {
    "fabric": 0.20,
    "technique": 0.20,
    "shape": 0.15,
    "date": 0.15,
    "decoration": 0.20,
    "attribution": 0.10,
}
# "Manner of X" for X, or the Haimon Group for the Haimon Painter: the right circle, not the right hand.
OTHER_QUALIFIER = 0.5
# Words without a claim: they neither earn nor cost.
_TEMPLATE = {"a", "an", "and", "the", "of", "with", "at", "in", "on", "to", "by", "is", "its", "it", "this", "from"}
_TEMPLATE |= {"side", "vase", "scene", "showing", "attributed", "dated", "circa", "c", "bc", "bce", "ce", "ad"}

Encoder = Callable[[Sequence[str]], "np.ndarray"]


# ---- one dimension ----


def term_score(name: str, claim: str, target: str) -> float | None:
    """1 for the same canonical term, else 0; a term that the vocabulary lacks counts by its words (F1)."""
    if terms_in(name, target):
        return float(canonical(name, claim) == canonical(name, target))
    return _f1(set(words_of(claim)), set(words_of(target)))


def _f1(said: set[str], true: set[str]) -> float | None:
    """None where there is nothing to compare with."""
    return 2 * len(said & true) / (len(said) + len(true)) if true else None


def shape_score(claim: str, target: str) -> float | None:
    """1 for the same shape, less the further apart two shapes are in the vocabulary's taxonomy, 0 across families.

    Twice the depth where they meet over the sum of their depths (Wu and Palmer 1994): neck-amphora is .8 of an amphora,
    a pelike .5, a krater 0.
    """
    said, true = canonical("shape", claim), canonical("shape", target)
    kinds = vocabulary().kinds
    if said not in kinds or true not in kinds:
        return term_score("shape", claim, target)
    one, other = (vocabulary().lineage(shape) for shape in (said, true))
    shared = sum(a == b for a, b in zip(one, other, strict=False))
    return 2 * shared / (len(one) + len(other))


def date_score(claim: str, target: str) -> float | None:
    """Overlap of the two spans in years over their union, both ends included: 1 for the same span or year.

    A span twice too wide or half too narrow scores 1/2; "-1000 to 0" scores next to nothing. None: no date to compare
    with.
    """
    true = parse_date(target)
    if true is None:
        return None
    said = parse_date(claim)
    if said is None:
        return 0.0
    shared = min(said[1], true[1]) - max(said[0], true[0]) + 1
    union = max(said[1], true[1]) - min(said[0], true[0]) + 1
    return max(0, shared) / union


def figures_score(claim: str, target: str) -> float | None:
    """F1 of the two sets of words, template words left out: order and repetition do not count."""
    return _f1(figures_in(claim), figures_in(target))


def figures_in(text: str) -> set[str]:
    """The words of a decoration that name something, in the singular."""
    return {_singular(word) for word in words_of(vases.depicted(text))} - _TEMPLATE


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


def name_score(claim: str, target: str) -> float | None:
    """1 for the same artist and qualifier, `OTHER_QUALIFIER` where one of both differs, else 0; without the scholar."""
    said, true = Attribution.parse(claim), Attribution.parse(target)
    if not true.names:
        return None
    if said.names != true.names:
        return 0.0
    return 1.0 if (said.qualifier, said.kind) == (true.qualifier, true.kind) else OTHER_QUALIFIER


SCORES: dict[str, Callable[[str, str], float | None]] = {
    "fabric": lambda claim, target: term_score("fabric", claim, target),
    "technique": lambda claim, target: term_score("technique", claim, target),
    "shape": shape_score,
    "date": date_score,
    "decoration": figures_score,
    "attribution": name_score,
}


# ---- what is taken off, and what is added ----


def length_excess(answer: str, reference: str) -> float:
    """0 up to one and a half times the words of the reference caption, 1 from three times on."""
    return min(1.0, max(0.0, len(words_of(answer)) / _size(reference) - 1.5) / 1.5)


def repetition(answer: str, reference: str) -> float:
    """Words that come again more often than in the reference, over the reference's words; at most 1.

    A count, not a share of the answer: more words never make it smaller.
    """
    said, true = (Counter(word for word in words_of(text) if word not in _TEMPLATE) for text in (answer, reference))
    again = sum(max(0, count - max(1, true[word])) for word, count in said.items())
    return min(1.0, again / _size(reference))


def irrelevance(answer: str, record: VaseRecord, reference: str) -> float:
    """Different words that neither the record nor the vocabulary knows, over the reference's words; at most 1.

    Terms and dates are judged by their dimension, or can't be judged where the record is silent.
    """
    known = set(words_of(" ".join([*record.stated().values(), reference]))) | _TEMPLATE
    rest = answer
    for name in vases.TERMS:
        rest = unknown_in(name, rest)
    strange = {word for word in words_of(rest) if word not in known and not word.isdigit()}
    return min(1.0, len(strange) / _size(reference))


def structure(answer: str, reference: str) -> float:
    """Similarity of the two texts as sequences of words (Ratcliff and Obershelp, difflib), in [0, 1]."""
    return difflib.SequenceMatcher(None, words_of(answer), words_of(reference), autojunk=False).ratio()


@lru_cache(maxsize=65536)
def _reference(target: VaseRecord) -> str:
    return vases.caption(target)


def _size(reference: str) -> int:
    """Words of the reference; short ones leave room for a whole sentence."""
    return max(8, len(words_of(reference)))


# ---- the whole ----


@dataclass(frozen=True)
class Scored:
    """Why an answer earns what it does. parts: a similarity in [0, 1] each, None where the record is silent."""

    parts: dict[str, float | None]
    gated: dict[str, float]
    penalty: float
    bonus: float
    total: float


@dataclass(frozen=True)
class Reward:
    """The formula with all that the paper leaves open. The defaults are the preset `strict`."""

    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
    tau: float = 0.7
    # hard: s below tau earns nothing, as in the paper; then whole groups of answers are equal and teach nothing.
    # soft: s below tau earns s * s / tau, so that a better answer always earns more.
    gate: Literal["hard", "soft"] = "soft"
    # Whether the weights are spread over the dimensions that the record has. Without, a lean record caps the reward.
    renormalise: bool = True
    # P = 0.1 length + 0.1 repetition + 0.15 irrelevance; the terms themselves are not stated in the paper.
    length_weight: float = 0.1
    repetition_weight: float = 0.1
    irrelevance_weight: float = 0.15
    # Scale of B. With the clip at 1, any bonus hides penalties, and template words earn it: strict pays none.
    structure_weight: float = 0.0
    # Similarity of a dimension by sentence embeddings instead of the graded scores; None: graded.
    encoder: Encoder | None = None

    def score(self, answer: str, target: VaseRecord) -> Scored:
        """Score an answer against a normalised record; an empty record scores 0."""
        reference = _reference(target)
        parts = self._parts(answer, target)
        gated = {name: self._gated(value) for name, value in parts.items() if value is not None}
        weight = sum(self.weights[name] for name in gated) if self.renormalise else sum(self.weights.values())
        mean = sum(self.weights[name] * value for name, value in gated.items()) / weight if gated else 0.0
        penalty = self.length_weight * length_excess(answer, reference)
        penalty += self.repetition_weight * repetition(answer, reference)
        penalty += self.irrelevance_weight * self._irrelevance(answer, target, reference)
        bonus = self.structure_weight * structure(answer, reference) if self.structure_weight else 0.0
        total = min(1.0, max(0.0, mean - penalty + bonus)) if gated else 0.0
        return Scored(parts, gated, penalty, bonus, total)

    def _parts(self, answer: str, target: VaseRecord) -> dict[str, float | None]:
        claims = vases.claims_in(answer)
        return {
            name: self._part(name, claims, getattr(target, name)) if getattr(target, name) else None
            for name in self.weights
        }

    def _part(self, name: str, claims: Claims, target: str) -> float | None:
        """The score of the worst claim: a second one never helps. None where the target can't be compared with."""
        if self.encoder:
            return min((self._cosine(claim, target) for claim in claims[name]), default=0.0)
        values = [SCORES[name](claim, target) for claim in claims[name]] or [SCORES[name]("", target)]
        return None if None in values else min(values)

    def _cosine(self, one: str, other: str) -> float:
        first, second = self.encoder([one, other])
        return min(1.0, max(0.0, float(first @ second)))

    def _gated(self, value: float) -> float:
        if value >= self.tau:
            return value
        return 0.0 if self.gate == "hard" else value * value / self.tau

    def _irrelevance(self, answer: str, target: VaseRecord, reference: str) -> float:
        if self.encoder:
            return 1.0 - self._cosine(answer, reference)
        return irrelevance(answer, target, reference)


STRICT = Reward()


def paper(encoder: Encoder) -> Reward:
    """The published formula to the letter: cosine of sentence embeddings, hard gate, fixed weights, a bonus for form.

    encoder: texts -> (n, d) rows of unit length. The paper names none; its evaluation uses all-mpnet-base-v2.
    """
    return Reward(gate="hard", renormalise=False, structure_weight=0.1, encoder=encoder)


def preset(name: str, encoder: str = "") -> Reward:
    """`strict`, or `paper` with an encoder: a folder, a hub name, or builtin. Raises UserError for another."""
    from vasekit import cli

    if name == "strict":
        return STRICT
    if name != "paper":
        raise cli.UserError(f"reward {name!r}: there are strict and paper")
    from vasekit import encoders

    return paper(encoders.load(encoder or encoders.DEFAULT))


def score_fields(answer: str, target: VaseRecord) -> dict[str, float | None]:
    """One score in [0, 1] per dimension, None where the record is silent (strict)."""
    return STRICT.score(answer, target).parts


def total(answer: str, target: VaseRecord) -> float:
    """The reward of an answer, in [0, 1] (strict)."""
    return STRICT.score(answer, target).total


@dataclass(frozen=True)
class Target:
    """What an answer is compared with."""

    record: VaseRecord

    @staticmethod
    def parse(solution: object) -> Target:
        """From a JSON object of fields, a mapping, or a caption. Raises ValueError where nothing can be read."""
        if isinstance(solution, dict):
            return Target(vases.parse_record(solution).normalised())
        if isinstance(solution, str) and solution.strip():
            return _parsed(solution)
        raise ValueError(f"solution {solution!r}: needs a JSON object of fields or a caption")


@lru_cache(maxsize=65536)  # a target is scored against many completions
def _parsed(solution: str) -> Target:
    if solution.lstrip().startswith("{"):
        return Target.parse(json.loads(solution))
    return Target(vases.parse_caption(solution).normalised())


def external_vase_acc(responses: Sequence[str], references: Sequence[object]) -> list[float]:
    """The documented reward function: one total in [0, 1] per response; references are captions, JSON or mappings."""
    return [
        total(response, Target.parse(reference).record)
        for response, reference in zip(responses, references, strict=True)
    ]


if __name__ == "__main__":
    from vasekit import cli, dry_run

    sys.exit(cli.run(dry_run.main))
