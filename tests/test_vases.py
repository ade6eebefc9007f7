"""Records, words, dates, captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from vasekit import dates, questions, rewards, vases, vocabulary
from vasekit.cli import UserError
from vasekit.questions import QUESTIONS
from vasekit.synth import world
from vasekit.vases import Attribution, VaseRecord


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
        ("6th-5th century BCE", (-600, -401)),
        ("late 6th to early 5th century BC", (-533, -467)),
        ("first half of the fifth century B.C.", (-500, -450)),
        ("second quarter of the 6th c. BC", (-575, -550)),
        ("mid-6th century BC", (-567, -533)),
        ("2nd quarter of the 5th century B.C.", (-475, -450)),
        ("last third of the 6th century BC", (-533, -501)),
        ("last decade of the 6th century BC", (-510, -501)),
        ("5th century B.C., second half", (-450, -401)),
        ("early to mid 5th century BC", (-500, -433)),
        ("480-70 BC", (-480, -470)),
        ("480-79 BC", (-480, -479)),
        ("525-75 BC", (-525, -75)),
        ("BC 525", (-525, -525)),
        ("c500 BC", (-500, -500)),
        ("-525,-475", (-525, -475)),
        ("1880", None),  # an inventory's year, no vase's
        ("480/79 BC", (-480, -479)),
        ("470s BC", (-479, -470)),
        ("ca. 500 B.C.", (-500, -500)),
        ("525 BCE - 475 BCE", (-525, -475)),
        ("between 525 and 475 BCE", (-525, -475)),
        ("-1000 to 0", (-1000, 0)),
        ("-50 to 50", (-50, 50)),
        ("-525-475", (-525, -475)),
        ("AD 20", (20, 20)),
        ("c. 525-475 BCE (Beazley)", (-525, -475)),
        ("", None),
        ("undated", None),
        ("after 480 BCE", None),  # an open end is no interval
        ("before c. 480 BCE", None),
        ("2 horses", None),
        ("1867.5-8.1125", None),
        ("B 525", None),
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


def test_a_caption_is_searched_for_dates_and_not_for_numbers() -> None:
    claims = vases.claims_in("Athenian red-figure krater, 2 horses and 3 youths, c. 450 BCE; London E 467.")
    assert claims["date"] == ("450 BCE",)
    assert claims["decoration"] == ("2 horses and 3 youths",)
    assert claims["collection"] == ("London E 467",)


# ---- attributions ----


@pytest.mark.parametrize(
    ("text", "written", "prose"),
    [
        (
            "<em>Manner of</em> PHRYNOS P by GORBUNOVA",
            "Manner of PHRYNOS P by GORBUNOVA",
            "manner of the Phrynos Painter",
        ),
        ("LEAFLESS GROUP by BOARDMAN", "LEAFLESS GROUP by BOARDMAN", "the Leafless Group"),
        ("attributed to the Antimenes Painter", "ANTIMENES P", "the Antimenes Painter"),
        ("by Lydos", "LYDOS", "Lydos"),
        ("near the Berlin Painter (Beazley)", "Near BERLIN P by BEAZLEY", "near the Berlin Painter"),
        ("Follower of DOURIS", "Follower of DOURIS", "follower of Douris"),
        ("Sotades Workshop", "SOTADES WORKSHOP", "the Sotades Workshop"),
        ("", "", ""),
    ],
)
def test_attributions_are_read_in_both_notations(text: str, written: str, prose: str) -> None:
    found = Attribution.parse(text)
    assert (str(found), found.prose()) == (written, prose)
    assert Attribution.parse(found.prose()) == Attribution(found.artist, found.qualifier)


# ---- captions ----


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Athenian black-figure lekythos, c. 525-475 BCE, Herakles and the boar; Marathon, Attica.",
            {
                "fabric": "Athenian",
                "date": "525-475 BCE",
                "decoration": "Herakles and the boar",
                "provenance": "Marathon, Attica",
            },
        ),
        (
            "Black-figure Attic olpe by the Amasis Painter, 550\u2013530 BC",
            {"shape": "olpe", "attribution": "AMASIS P"},
        ),
        ("Red-figure kylix, Sotades Workshop, youth", {"attribution": "SOTADES WORKSHOP", "decoration": "youth"}),
        ("Pelike attributed to the Pan Painter, red-figure", {"technique": "red-figure", "attribution": "PAN P"}),
        (
            "This is an Athenian kylix. It shows a youth with a lyre.",
            {"shape": "kylix", "decoration": "a youth with a lyre"},
        ),
        (
            "Athenian amphora with Herakles and the lion, 525 BCE",
            {"decoration": "Herakles and the lion", "date": "525 BCE"},
        ),
        ("red-figure kylix; Toledo (OH), Museum of Art: 69.368", {"collection": "Toledo (OH), Museum of Art: 69.368"}),
        ("Athenian black-figure thymiaterion", {"shape": "thymiaterion"}),  # a word that the vocabulary lacks
        (
            "The fabric of the vase is Athenian. The date of the vase is c. 550 BC."
            " The decoration of the vase is A: WARRIOR.",
            {"fabric": "Athenian", "date": "c. 550 BC", "decoration": "A: WARRIOR"},
        ),
        ("Technique: black-figure. Attribution: Lysippides Painter.", {"attribution": "Lysippides Painter"}),
        ("A terracotta amphora with black-figure decoration", {"technique": "black-figure", "shape": "amphora"}),
        ("Athenian, black-figure, amphora; 530-510 BCE", {"date": "530-510 BCE"}),
        ("a horse", {"decoration": "a horse"}),
        ("", {}),
    ],
)
def test_what_captions_claim(text: str, said: dict[str, str]) -> None:
    claims = {name: " / ".join(values) for name, values in vases.claims_in(text).items() if values}
    assert claims | said == claims
    assert set(said) <= set(claims)


def reads_back(record: VaseRecord, read: VaseRecord, fields: tuple[str, ...]) -> None:
    """Field by field, as answers say it: scholars, the letters of sides and capitals are the record's own."""
    for field in fields:
        assert questions.value(read, field).casefold() == questions.value(record, field).casefold(), field


@pytest.fixture(scope="module")
def catalogue() -> list[VaseRecord]:
    rows = [world.record(world.vase_seed(11, k)) for k in range(300)]
    return [vases.parse_record(row).normalised() for row in rows]


def test_300_records_lose_nothing(catalogue: list[VaseRecord]) -> None:
    for number, record in enumerate(catalogue):
        row = world.record(world.vase_seed(11, number))
        for column, value in row.items():
            field = vases.COLUMNS.get(" ".join(vocabulary.words_of(column)))
            assert not field or bool(getattr(record, field)) == bool(value), (column, value)
        assert not any(vocabulary.unknown_in(name, getattr(record, name)) for name in vases.TERMS)
        assert not record.date or dates.parse_date(record.date)


def test_300_captions_read_back(catalogue: list[VaseRecord]) -> None:
    for record in catalogue:
        read = vases.parse_caption(vases.caption(record)).normalised()
        reads_back(record, read, questions.FIELDS)
        if not record.provenance:
            assert read.collection.casefold() == record.collection.casefold()
        assert vases.caption(read) == vases.caption(record)


def test_a_caption_says_the_fields_it_is_asked_for(catalogue: list[VaseRecord]) -> None:
    record = VaseRecord("Attic", "bf", "cup", "-500 to -475", "A: OWL", "DOURIS", "VULCI")
    assert vases.caption(record) == "Athenian black-figure kylix, 500-475 BCE, attributed to Douris, owl; Vulci."
    assert vases.caption(record, ("shape", "date")) == "kylix, 500-475 BCE."
    assert vases.caption(VaseRecord(shape="cup", date="undated")) == "kylix."


@pytest.mark.parametrize(
    "text",
    [
        "Athenian black-figure amphora; red-figure hydria, 400 BCE",
        "The fabric of the vase is Athenian or Corinthian.",
        "The Fabric is CORINTHIAN;The Fabric is ATHENIAN",
        "The date of the vase is 530-510 BCE or 400 BCE.",
        "The attribution of the vase is Lysippides Painter | Exekias.",
    ],
)
def test_hedges_are_several_claims(text: str) -> None:
    assert any(len(values) > 1 for values in vases.claims_in(text).values())


@pytest.mark.parametrize("text", ["Is this an Athenian black-figure cup?", "neither Athenian nor red-figure", "no cup"])
def test_questions_and_denials_claim_nothing(text: str) -> None:
    assert not any(vases.claims_in(text).values())


@pytest.mark.parametrize("cell", ["-", "?", "\u2014", "n/a", "N.A.", "unknown", "...", " "])
def test_cells_that_say_nothing_are_empty(cell: str) -> None:
    assert not vases.parse_record(dict.fromkeys(("Fabric", "Shape Name", "Date", "Decoration"), cell)).stated()


@pytest.mark.parametrize(
    "decoration",
    [
        "SCHOOL OF BOYS",
        "POTTERS IN A WORKSHOP",
        "YOUTH, BY ALTAR",
        "A: YOUTH. B: MAENAD",
        "COMPANION OF HERAKLES",
        "2 HORSES",
    ],
)
def test_decorations_that_look_like_something_else_read_back(decoration: str) -> None:
    record = VaseRecord(technique="red-figure", decoration=decoration)
    claims = vases.claims_in(vases.caption(record))
    assert not claims["attribution"]
    assert not claims["date"]
    assert rewards.total(vases.caption(record), record.normalised()) == 1


# ---- questions and answers ----


def test_every_wording_reads_back(catalogue: list[VaseRecord]) -> None:
    for record in catalogue[:100]:
        for field in questions.FIELDS:
            for wording in range(len(questions.ANSWERS[field])):
                said = questions.answer(record, field, wording)
                assert questions.parse_answer(field, said) == questions.value(record, field)
        reads_back(record, questions.claim("overall", questions.answer(record, "overall")), questions.FIELDS)


def test_every_question_is_recognised() -> None:
    for kind, wordings in QUESTIONS.items():
        assert all(questions.kind_of(f"<image>{question}") == kind for question in wordings)
    assert questions.kind_of("<image>\n What is the fabric of the vase?") == "fabric"
    assert questions.kind_of("What is the Shape  Name of this vase?") == "shape"
    assert questions.kind_of("How many handles are there?") is None


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("fabric", "The fabric of the vase is ATHENIAN.", "ATHENIAN"),
        ("fabric", "The vase of the fabric is ATHENIAN", "ATHENIAN"),  # the published words in another order
        ("shape", "The of vase the shape name is LEKYTHOS, SQUAT.", "LEKYTHOS, SQUAT"),
        ("date", "525-475 B.C.", "525-475 B.C."),
        ("technique", "black-figure", "black-figure"),
        ("decoration", "A: Theseus, who is young", "A: Theseus, who is young"),
    ],
)
def test_answers_are_read_in_both_published_templates(field: str, text: str, value: str) -> None:
    assert questions.parse_answer(field, text) == value


# ---- the vocabulary ----


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CC BY-NC 4.0", "CC BY-NC"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "CC BY-NC-SA"),
        ("CC0 1.0", "CC0"),
        ("Public Domain Mark 1.0", "public domain"),
        ("All rights reserved", "all rights reserved"),
        ("CC BY 4.0, not for training", None),  # says more than the licence
        ("free for schools", None),
        ("", None),
    ],
)
def test_rights_are_not_guessed(text: str, name: str | None) -> None:
    found = vocabulary.licence_of(text)
    assert (found and found.name) == name


def test_words_that_the_vocabulary_lacks_are_told_apart() -> None:
    assert vocabulary.unknown_in("shape", "CUP LITTLE MASTER LIP, SIANA") == "siana"
    assert vocabulary.unknown_in("technique", "INCISED") == "incised"


def test_a_collection_adds_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "words.yaml"
    own.write_text("shape:\n  thymiaterion: {kind: support, also: [incense burner]}\nfabric:\n  Melian: [Milesian]\n")
    assert vocabulary.canonical("shape", "Incense burner") == "incense burner"
    monkeypatch.setenv("VASE_VOCABULARY", str(own))
    assert vocabulary.canonical("shape", "Incense burner") == "thymiaterion"
    assert vocabulary.vocabulary().lineage("thymiaterion") == ["support", "thymiaterion"]
    assert vocabulary.canonical("fabric", "MILESIAN") == "Melian"
    assert vocabulary.canonical("fabric", "Attic") == "Athenian"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shape: [", "not valid YAML"),
        ("- a", "needs sections"),
        ("colour: {red: []}", "section 'colour'"),
        ("shape: {bowl: []}", "needs kind"),
        ("shape: {bowl: {kind: dish, size: 2}}", "unknown key size"),
        ("fabric: {Melian: {also: [1]}}", "also needs a list of words"),
        ("fabric: {Melian: [Attic]}", "means both"),
        ("fabric: {Melian: {also: Attic}}", "also needs a list of words"),
        ("shape: {a: {kind: b}, b: {kind: a}}", "can't lead back"),
        ("licence: {own: {publish: maybe, credit: true}}", "needs publish"),
        (None, "no such file"),
    ],
)
def test_a_broken_vocabulary_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "words.yaml").write_text(text)
    monkeypatch.setenv("VASE_VOCABULARY", str(tmp_path / "words.yaml"))
    with pytest.raises(UserError, match=said) as caught:
        vocabulary.vocabulary()
    assert "\n" not in str(caught.value)


def test_every_term_has_a_source_and_kinds_are_families_or_shapes() -> None:
    import yaml

    loaded = yaml.safe_load(vocabulary.BUILTIN.read_text())
    terms = {term: entry for name in vocabulary.FIELDS for term, entry in loaded[name].items()}
    assert all(entry["source"] in loaded["sources"] for entry in terms.values())
