"""Records, words, dates, captions."""

from __future__ import annotations

import pytest

from vasekit import dates, questions, vases, vocabulary
from vasekit.questions import QUESTIONS
from vasekit.vases import VaseRecord


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("-525 to -475", (-525, -475)),
        ("c. 525-475 BCE", (-525, -475)),
        ("525\u2013475 BC", (-525, -475)),  # en dash: not [-475, 525]
        ("525-475 B.C.", (-525, -475)),
        ("525 - 475", (-525, -475)),
        ("480 BCE", (-480, -480)),
        ("-480", (-480, -480)),
        ("5th century BCE", (-500, -401)),
        ("early 5th century BC", (-500, -467)),
        ("late 6th century BCE", (-533, -501)),
        ("10 BCE to 20 CE", (-10, 20)),
        ("20-40 CE", (20, 40)),
        ("1st century CE", (1, 100)),
        ("", None),
        ("undated", None),
    ],
)
def test_dates_in_every_spelling(text: str, years: tuple[int, int] | None) -> None:
    assert dates.parse_date(text) == years


@pytest.mark.parametrize("years", [(-525, -475), (-480, -480), (20, 40), (-10, 20), (-500, -401)])
def test_dates_survive_writing_and_reading(years: tuple[int, int]) -> None:
    assert dates.parse_date(dates.write_date(years)) == years


@pytest.mark.parametrize(
    ("field", "text", "term"),
    [
        ("fabric", "ATTIC", "Athenian"),
        ("technique", "BLACK-FIGURE", "black-figure"),
        ("technique", "red figured", "red-figure"),
        ("technique", "Six's technique", "Six's technique"),
        ("shape", "LEKYTHOS, SQUAT", "squat lekythos"),
        ("shape", "squat lekythos", "squat lekythos"),
        ("shape", "KRATER, BELL", "bell-krater"),
        ("shape", "AMPHORA, NECK", "neck-amphora"),
        ("shape", "CUP LITTLE MASTER LIP", "little master cup"),
        ("shape", "CUP", "kylix"),
        ("shape", "Cup (kylix)", "kylix"),
        ("shape", "THYMIATERION", "thymiaterion"),  # unknown: kept
    ],
)
def test_words_have_one_canonical_form(field: str, text: str, term: str) -> None:
    assert vocabulary.canonical(field, text) == term


def test_a_messy_record_becomes_a_caption_that_reads_back() -> None:
    row = {
        "FABRIC": "ATHENIAN",
        "technique": "BLACK-FIGURE",
        "Shape Name": "KRATER, BELL",
        "Date": "-525 to -500",
        "Decoration": "A: WARRIOR | B: YOUTH (?)",
        "Attributed To": "<em>Manner of</em> PHRYNOS P by GORBUNOVA",
        "Provenance": "",
        "Licence": None,
    }
    record = vases.parse_record(row).normalised()
    assert record.attribution == "Manner of PHRYNOS P by GORBUNOVA"
    assert (
        vases.caption(record)
        == "Athenian black-figure bell-krater, 525-500 BCE, manner of the Phrynos Painter, warrior | youth (?)."
    )
    read = vases.parse_caption(vases.caption(record)).normalised()
    assert (read.fabric, read.technique, read.shape, read.date) == (
        record.fabric,
        record.technique,
        record.shape,
        record.date,
    )
    assert vases.caption(VaseRecord()) == "vase."


def test_record_strings_may_have_empty_fields() -> None:
    record = vases.parse_record_string(
        "The Vase Number is 8375;The Fabric is ATHENIAN;The Shape Name is CUP LITTLE MASTER LIP;The Provenance is ;"
        "The Date is -550 to -500;The Attributed To is <em>Manner of</em> PHRYNOS P by GORBUNOVA;The Decoration is A: X"
    )
    assert (record.fabric, record.provenance, record.date) == ("ATHENIAN", "", "-550 to -500")


def test_every_question_has_an_answer_where_the_record_speaks() -> None:
    full = VaseRecord(*("Attic", "rf", "cup", "-500 to -475", "A: OWL", "DOURIS", "VULCI"))
    assert all(questions.answer(full, field) for field in QUESTIONS)
    assert questions.answer(full, "date") == "500-475 BCE"
    assert not any(questions.answer(VaseRecord(), field) for field in QUESTIONS if field != "caption")
