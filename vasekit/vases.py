"""The domain, once: records of vases, their words and dates, captions, questions and answers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

VOCABULARY = Path(__file__).with_name("vocabulary.yaml")

# Field -> ways to ask for it; the first is the documented question.
QUESTIONS = {
    "fabric": ("What is the fabric of the vase?",),
    "technique": ("What is the technique of the vase?",),
    "shape": ("What is the shape name of the vase?",),
    "provenance": ("What is the provenance of the vase?",),
    "date": ("What is the date of the vase?",),
    "attribution": ("What is the attribution of the vase?",),
    "decoration": ("What is the decoration of the vase?",),
    "overall": ("What is the overall description of the vase?",),
}


@dataclass(frozen=True)
class VaseRecord:
    """What a catalogue says of a vase. Every field may be empty; `normalised` ones use the vocabulary's words."""

    fabric: str = ""
    technique: str = ""
    shape: str = ""
    date: str = ""
    decoration: str = ""
    attribution: str = ""
    provenance: str = ""
    sub_technique: str = ""
    collection: str = ""
    licence: str = ""

    def normalised(self) -> VaseRecord:
        """The same with canonical fabric, technique, shape and date, and text free of markup."""
        known = {name: canonical(name, getattr(self, name)) for name in ("fabric", "technique", "shape")}
        texts = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in known}
        years = parse_date(self.date)
        return VaseRecord(**known, **texts | {"date": write_date(years) if years else texts["date"]})

    def stated(self) -> dict[str, str]:
        """The fields that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}


# ---- words ----


def plain(text: str) -> str:
    """Without HTML tags and entities, control characters and doubled blanks."""
    return " ".join(re.sub(r"<[^>]*>", " ", html.unescape(text)).split())


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words: what is left of a spelling when punctuation does not count."""
    return tuple(re.findall(r"[^\W_]+", plain(text).lower().replace("'s", "s")))


@dataclass(frozen=True)
class Vocabulary:
    """terms: field -> {sorted words of a spelling: canonical term}. kinds: shape -> family."""

    terms: Mapping[str, Mapping[tuple[str, ...], str]]
    kinds: Mapping[str, str]


@cache
def vocabulary(path: Path = VOCABULARY) -> Vocabulary:
    """Read a vocabulary file."""
    import yaml

    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    terms: dict[str, dict[tuple[str, ...], str]] = {}
    for name, entries in loaded.items():
        table = terms.setdefault(name, {})
        for term, more in entries.items():
            for spelling in (term, *(more.get("also", ()) if isinstance(more, dict) else more)):
                table[tuple(sorted(words_of(spelling)))] = term
    return Vocabulary(terms, {term: entry["kind"] for term, entry in loaded["shape"].items()})


def canonical(name: str, value: str) -> str:
    """The vocabulary's term for a fabric, technique or shape; an unknown value stays, in lower case.

    Further words do not matter: "CUP LITTLE MASTER LIP, SIANA" is a little master cup.
    """
    found = terms_in(name, value)
    return found[0] if found else plain(value).lower()


def terms_in(name: str, text: str) -> list[str]:
    """All terms of a field that the text names, in its order; of overlapping spellings the longest counts."""
    words, table = words_of(text), vocabulary().terms[name]
    found: dict[int, str] = {}
    used: set[int] = set()
    for length in sorted({len(spelling) for spelling in table}, reverse=True):
        for start in range(len(words) - length + 1):
            place = range(start, start + length)
            term = table.get(tuple(sorted(words[start : start + length])))
            if term and used.isdisjoint(place):
                found[start] = term
                used.update(place)
    return list(dict.fromkeys(term for _, term in sorted(found.items())))


def is_known(name: str, value: str) -> bool:
    """Whether the vocabulary has a word for it."""
    return bool(terms_in(name, value))


# ---- dates ----

_YEAR = r"(\d{1,4})"
_ERA = r"(b\.?\s*c\.?\s*e?\.?|c\.?\s*e\.?|a\.?\s*d\.?)?"
_SPAN = re.compile(rf"(-?){_YEAR}\s*{_ERA}\s*(?:-|/|to|and)\s*(-?){_YEAR}\s*{_ERA}", re.IGNORECASE)
_SINGLE = re.compile(rf"(-?){_YEAR}\s*{_ERA}", re.IGNORECASE)
_CENTURY = re.compile(
    r"(early|mid|middle|late|first half of(?: the)?|second half of(?: the)?)?[\s-]*(?:the\s+)?"
    rf"(\d{{1,2}})(?:st|nd|rd|th)\s+(?:century|cent\.?|c\.)\s*{_ERA}",
    re.IGNORECASE,
)
# Years of a century that "early", "mid" and "late" cover, counted from its beginning.
_PARTS = {
    "early": (0, 33),
    "mid": (33, 67),
    "middle": (33, 67),
    "late": (67, 100),
    "first": (0, 50),
    "second": (50, 100),
}


def parse_date(text: str) -> tuple[int, int] | None:
    """(first, last) year, negative for BCE; None where the text states no date.

    "-525 to -475", "c. 525-475 BCE", "525\u2013475 BC", "480 BCE", "early 5th century BCE". Without an era, a span
    that runs downwards or a lone year is BCE, as is everything in this field; CE has to be said.
    """
    text = re.sub("[\u2010-\u2015\u2212]", "-", plain(text)).strip()
    if match := _CENTURY.search(text):
        return _century(match)
    if match := _SPAN.search(text):
        sign_a, a, era_a, sign_b, b, era_b = match.groups()
        era = era_b or era_a
        if sign_a or _is_bce(era_a or era_b) or (not era and int(a) > int(b)):
            first, last = -int(a), int(b) if _is_ce(era_b) and not sign_b else -int(b)
        else:
            first, last = int(a), int(b)
        return min(first, last), max(first, last)
    if match := _SINGLE.search(text):
        sign, year, era = match.groups()
        value = int(year) if _is_ce(era) and not sign else -int(year)
        return value, value
    return None


def _century(match: re.Match[str]) -> tuple[int, int]:
    part, number, era = match.groups()
    low, high = _PARTS.get((part or "").lower().split(" ")[0], (0, 100))
    if _is_ce(era):
        start = (int(number) - 1) * 100
        return start + low + 1, start + high
    start = -int(number) * 100
    return start + low, start + high - (1 if high == 100 else 0)


def _is_bce(era: str | None) -> bool:
    return bool(era) and era.lower().startswith("b")


def _is_ce(era: str | None) -> bool:
    return bool(era) and era.lower()[0] in "ca"


def write_date(years: tuple[int, int]) -> str:
    """Such as "525-475 BCE", "480 BCE", "20-40 CE", "10 BCE to 20 CE"."""
    first, last = years
    if first < 0 < last:
        return f"{-first} BCE to {last} CE"
    era = "BCE" if first < 0 else "CE"
    first, last = abs(first), abs(last)
    return f"{first} {era}" if first == last else f"{first}-{last} {era}"


# ---- captions, questions, answers ----


def depicted(decoration: str) -> str:
    """The decoration as a caption says it: sides joined, in lower case, without the letters of the parts."""
    parts = [re.sub(r"^\s*[A-Z](?:\s*,\s*[A-Z])*\s*:\s*", "", part) for part in plain(decoration).split("|")]
    return "; ".join(part.strip().lower() for part in parts if part.strip())


def caption(record: VaseRecord) -> str:
    """ "Athenian black-figure lekythos, 525-475 BCE, warrior."; what the record lacks is left out."""
    record = record.normalised()
    what = " ".join(part for part in (record.fabric, record.technique, record.shape or "vase") if part)
    return ", ".join(part for part in (what, record.date, depicted(record.decoration)) if part) + "."


def answer(record: VaseRecord, field: str) -> str:
    """The answer to `QUESTIONS[field]`, empty where the record is silent."""
    if field == "overall":
        return caption(record)
    value = getattr(record.normalised(), field)
    return depicted(value) if field == "decoration" else value


def parse_caption(text: str) -> VaseRecord:
    """What a caption claims. Several values of one field are joined by " / ": they are several claims."""
    head, *tail = [part.strip() for part in re.split(r",(?!\d)", plain(text).rstrip(". "))]
    rest = [part for part in tail if not parse_date(part)]
    dated = next((part for part in [*tail, head] if parse_date(part)), "")
    claims = {}
    for name in ("fabric", "technique", "shape"):  # in either order; a caption that opens oddly is searched through
        claims[name] = " / ".join(terms_in(name, head) or terms_in(name, text))
    return VaseRecord(**claims, date=dated, decoration="; ".join(rest))


# ---- records ----

_COLUMNS = {
    "fabric": "fabric",
    "technique": "technique",
    "sub technique": "sub_technique",
    "shape": "shape",
    "shape name": "shape",
    "provenance": "provenance",
    "date": "date",
    "attribution": "attribution",
    "attributed to": "attribution",
    "decoration": "decoration",
    "collection": "collection",
    "collection record": "collection",
    "licence": "licence",
    "license": "licence",
}


def parse_record(row: Mapping[str, object]) -> VaseRecord:
    """A row of a Beazley export or of JSON, whatever the case of its headers; other columns are ignored."""
    found: dict[str, str] = {}
    for column, value in row.items():
        name = _COLUMNS.get(" ".join(words_of(str(column))))
        if name and value is not None and not found.get(name):
            found[name] = plain(str(value))
    return VaseRecord(**found)


_PHRASE = re.compile(r"The ([A-Z][A-Za-z ]*?) is (.*?)(?:;(?=The )|;?\s*$)", re.DOTALL)


def parse_record_string(text: str) -> VaseRecord:
    """ "The Fabric is ATHENIAN;The Provenance is ;..." with empty fields and markup."""
    return parse_record(dict(_PHRASE.findall(text)))
