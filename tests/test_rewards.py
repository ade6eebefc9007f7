"""The reward: truth wins, tricks do not pay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vasekit import rewards, vases
from vasekit.vases import VaseRecord

RECORD = VaseRecord(
    fabric="Athenian",
    technique="black-figure",
    shape="neck-amphora",
    date="525-500 BCE",
    decoration="A: HERAKLES AND THE LION",
    attribution="ANTIMENES P by BEAZLEY",
).normalised()
TRUTH = "Athenian black-figure neck-amphora, 525-500 BCE, Herakles and the lion, Antimenes Painter."
BASE = "Athenian black-figure neck-amphora, 525-500 BCE, Herakles and the lion."


def test_the_truth_earns_all_in_any_spelling_and_order() -> None:
    assert rewards.total(TRUTH, RECORD) == pytest.approx(1)
    for other in (
        TRUTH.replace("Athenian black-figure", "Black figure Attic"),
        TRUTH.replace("525-500 BCE", "c. 525\u2013500 BC"),
        TRUTH.replace("Herakles and the lion", "the lion and Herakles"),
    ):
        assert rewards.total(other, RECORD) == pytest.approx(1)


@pytest.mark.parametrize(
    "trick",
    [
        "",
        "What is the overall description of the vase?",
        "The fabric of the vase is. The technique of the vase is. The date of the vase is.",
        "Athenian black-figure red-figure white-ground amphora krater lekythos kylix hydria, -1000 to 0, "
        "Herakles lion warrior horse owl ship youth satyr maenad",
        " ".join([BASE] * 10),
        "Athenian red-figure lekythos, 425-400 BCE, a woman with a mirror.",
        "\u0391\u03b8\u03b7\u03bd\u03b1\u03ca\u03ba\u03cc\u03c2 \u03b1\u03bc\u03c6\u03bf\u03c1\u03ad\u03b1\u03c2",
    ],
    ids=["empty", "question", "template", "keywords", "repeated", "wrong", "greek"],
)
def test_tricks_earn_clearly_less_than_an_honest_caption(trick: str) -> None:
    assert rewards.total(trick, RECORD) < rewards.total(BASE, RECORD) - 0.1


def test_wrong_technique_earns_nothing_although_most_letters_agree() -> None:
    # A keyword Jaccard pays BLACK-FIGURE 0.23 for RED-FIGURE.
    assert rewards.score_fields("Athenian red-figure neck-amphora.", RECORD)["technique"] == 0


def test_two_claims_at_once_are_no_answer() -> None:
    scores = rewards.score_fields("Athenian black-figure red-figure neck-amphora krater.", RECORD)
    assert scores["technique"] == scores["shape"] == 0


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        ("525-500 BCE", 1, 1),
        ("-1000 to 0", 0, 0.03),  # 1.0 where only the true span is covered
        ("550-500 BCE", 0.5, 0.55),
        ("510 BCE", 0.03, 0.05),
        ("450-425 BCE", 0, 0),
        ("no date", 0, 0),
    ],
)
def test_dates_pay_neither_wide_nor_narrow_spans(said: str, low: float, high: float) -> None:
    assert low <= rewards.date_score(said, "525-500 BCE") <= high


def test_single_years_are_well_defined() -> None:
    assert rewards.date_score("480 BCE", "480 BCE") == 1  # not 0 by division of a zero span
    assert rewards.date_score("481 BCE", "480 BCE") == 0


def test_a_near_shape_earns_part() -> None:
    shapes = ("neck-amphora", "amphora", "belly-amphora", "pelike", "krater")
    near = [rewards.shape_score(shape, "neck-amphora") for shape in shapes]
    assert near == sorted(near, reverse=True)
    assert near[0] == 1
    assert near[-1] == 0
    assert len(set(near)) == len(near)


def test_fields_that_the_record_lacks_do_not_count() -> None:
    lean = VaseRecord(technique="red-figure", shape="kylix")
    assert rewards.total("red-figure kylix.", lean) == pytest.approx(1)
    assert rewards.score_fields("red-figure kylix.", lean)["date"] is None
    assert rewards.total("anything", VaseRecord()) == 0


@given(st.text(max_size=300))
def test_any_text_scores_between_nothing_and_the_truth(text: str) -> None:
    assert 0 <= rewards.total(text, RECORD) <= rewards.total(TRUTH, RECORD)


@given(st.permutations(["herakles", "lion", "athena", "boar"]))
def test_order_of_figures_does_not_matter(figures: list[str]) -> None:
    assert rewards.figures_score(", ".join(figures), "Herakles, lion, Athena, boar") == 1


@pytest.mark.parametrize(
    "false",
    ["red-figure", "kylix", "satyr", "Corinthian", "450 BCE"],
)
def test_adding_a_false_claim_never_pays(false: str) -> None:
    longer = BASE.rstrip(".") + f", {false}."
    assert rewards.total(longer, RECORD) <= rewards.total(BASE, RECORD)


def test_the_documented_function_reads_captions_json_and_mappings() -> None:
    fields = RECORD.stated()
    for reference in (fields, json.dumps(fields), vases.caption(RECORD)):
        assert rewards.external_vase_acc([BASE], [reference])[0] > 0.85
    with pytest.raises(ValueError, match="needs a JSON object of fields or a caption"):
        rewards.external_vase_acc([BASE], [None])
