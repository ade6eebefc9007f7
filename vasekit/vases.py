"""The domain, once: what a record says of a vase, how a caption says it, and what a caption claims.

Words are in `vocabulary`, dates in `dates`, questions and answers in `questions`, files of records in `records`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

from vasekit.dates import find, parse_date, write_date
from vasekit.vocabulary import canonical, plain, terms_in, unknown_in, words_of

TERMS = ("fabric", "technique", "shape")
# What a caption says, in its order; "place" is the find-spot or, where that is unknown, the collection.
CAPTION_FIELDS = ("fabric", "technique", "shape", "date", "attribution", "decoration", "place")


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
    credit: str = ""
    licence: str = ""

    def normalised(self) -> VaseRecord:
        """The same with canonical fabric, technique, shape, date and attribution, and text free of markup."""
        return _normalised(self)

    def stated(self) -> dict[str, str]:
        """The fields that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}


@lru_cache(maxsize=65536)  # every question, caption and reward of a vase asks for it
def _normalised(record: VaseRecord) -> VaseRecord:
    made = {f.name: plain(getattr(record, f.name)) for f in fields(record)}
    made |= {name: canonical(name, made[name]) for name in TERMS}
    years = parse_date(made["date"])
    made |= {"date": write_date(years) if years else made["date"]}
    return VaseRecord(**made | {"attribution": str(Attribution.parse(made["attribution"]))})


# ---- attributions ----

# How near a vase is to a hand that is not its own.
_QUALIFIERS = "manner|near|follower|followers|circle|school|imitator|companion|recalls|close to|related to|akin to"
_QUALIFIED = rf"(?:(?P<qualifier>(?:{_QUALIFIERS})(?:\s+of)?)\s+(?:the\s+)?)?"
_KINDS = {"P": "Painter", "PAINTER": "Painter", "GROUP": "Group", "WORKSHOP": "Workshop", "CLASS": "Class"}
_KINDS |= {"POTTER": "Potter"}
_WHO = re.compile(
    rf"{_QUALIFIED}(?:the\s+)?(?P<artist>.+?)(?:\s+by\s+(?P<scholar>.+)|\s*\((?P<judge>[^()?]+)\))?$", re.I
)


@dataclass(frozen=True)
class Attribution:
    """ "Manner of PHRYNOS P by GORBUNOVA": qualifier, artist and the scholar who says so. `str` writes it like that."""

    artist: str = ""
    qualifier: str = ""
    scholar: str = ""

    @staticmethod
    def parse(text: str) -> Attribution:
        """From the catalogue's notation or a caption's ("attributed to the manner of the Phrynos Painter")."""
        text = re.sub(r"^(?:attributed to|by)\s+", "", plain(text).split("|")[0].strip(" ;."), flags=re.IGNORECASE)
        match = _WHO.match(text)
        if not match:
            return Attribution()
        scholar = match["scholar"] or match["judge"] or ""
        words = [word.upper() for word in match["artist"].split()]
        words = ["P" if word == "PAINTER" else word for word in words]
        return Attribution(" ".join(words), (match["qualifier"] or "").capitalize(), scholar.upper())

    def __str__(self) -> str:
        by = f"by {self.scholar}" if self.scholar else ""
        return " ".join(part for part in (self.qualifier, self.artist, by) if part)

    @property
    def kind(self) -> str:
        """ "Painter", "Group", ...; empty for a person's own name."""
        return next((_KINDS[word] for word in self.artist.split() if word in _KINDS), "")

    @property
    def names(self) -> frozenset[str]:
        """The words that tell this artist from others."""
        return frozenset(words_of(self.artist)) - {"p", "of", "the", *map(str.lower, _KINDS)}

    def prose(self) -> str:
        """ "manner of the Phrynos Painter"; the scholar stays in the record."""
        words = [_KINDS.get(word) or (word.title() if word.isupper() else word) for word in self.artist.split()]
        article = "the" if _KINDS.keys() & self.artist.split() else ""
        return " ".join(part for part in (self.qualifier.lower(), article, *words) if part)


# ---- captions ----


def depicted(decoration: str) -> str:
    """The decoration as a caption says it: sides joined by " | ", in lower case, without the letters of the parts."""
    sides = re.split(r"\||[.;]\s+(?=[A-Z](?:,\s?[A-Z])*:)", plain(decoration))
    parts = [re.sub(r"^\s*[A-Za-z]+(?:\s*,\s*[A-Za-z]+)*\s*:\s*", "", part) for part in sides]
    return " | ".join(part.strip(" .").lower().replace(";", ",") for part in parts if part.strip(" ."))


def caption(record: VaseRecord, say: Sequence[str] = CAPTION_FIELDS) -> str:
    """ "Athenian black-figure lekythos, 525-475 BCE, attributed to Lydos, warrior; Vulci."

    What the record lacks is left out, and so are the fields that are not in `say`.
    """
    record = record.normalised()
    said = VaseRecord(**{name: getattr(record, name) for name in say if name != "place"})
    what = " ".join(part.replace(",", "") for part in (said.fabric, said.technique, said.shape or "vase") if part)
    who = Attribution.parse(said.attribution)
    hand = who.prose() if who.qualifier else f"attributed to {who.prose()}" if who.artist else ""
    place = tidy(record.provenance or record.collection) if "place" in say else ""
    date = said.date if parse_date(said.date) else ""  # "undated" is no part of a description
    body = ", ".join(part for part in (what, date, hand, depicted(said.decoration)) if part)
    return f"{body}; {place}." if place else f"{body}."


def tidy(text: str) -> str:
    """Without shouting: "ETRURIA, VULCI" becomes "Etruria, Vulci"."""
    text = plain(text).strip(" .").replace(";", ",")
    return text.title() if text.isupper() else text


# ---- what a text claims ----

Claims = dict[str, tuple[str, ...]]
# Field -> what it is called in questions, answers and record strings.
NAMES = {
    "fabric": ("fabric",),
    "technique": ("technique",),
    "shape": ("shape name", "shape"),
    "provenance": ("provenance",),
    "date": ("date",),
    "attribution": ("attribution", "attributed to"),
    "decoration": ("decoration",),
    "collection": ("collection", "collection record"),
}
_FIELD_OF = {name: field for field, names in NAMES.items() for name in names}
_NAME = "|".join(sorted(_FIELD_OF, key=len, reverse=True))
# "The Shape Name is CUP;", "The fabric of the vase is Athenian."
_STATEMENT = re.compile(
    rf"\bThe\s+(?P<name>{_NAME})(?:\s+of\s+(?:the|this)\s+vase)?\s+is\b\s*(?P<value>.*?)"
    r"\s*(?:;|\.(?=\s+(?:The\s|[A-Z]\w+\s+of\s)|\s*$)|$)",
    re.IGNORECASE | re.DOTALL,
)
# "Technique: black-figure."
_LABEL = re.compile(
    rf"(?:^|(?<=[.;,])\s*)(?P<name>{_NAME})\s*:\s*(?P<value>.*?)\s*(?:;|\.(?=\s+[A-Z]|\s*$)|$)",
    re.IGNORECASE | re.DOTALL,
)
_NEGATED = re.compile(r"\b(?:not|no|neither|nor|never|without|isn't)\b", re.IGNORECASE)
_MARKED_HAND = re.compile(
    rf"(?:attributed to|painted by|by the hand of)\s+(?P<who>{_QUALIFIED}[^,;.|]+)", re.IGNORECASE
)
_HEAD_HAND = re.compile(r"\bby\s+(?P<who>[^,;.|]+)", re.IGNORECASE)
# A segment that is a hand by itself. Names are capitalised, figures in captions are not.
_HANDS = (
    re.compile(rf"(?i:by|(?:{_QUALIFIERS})(?:\s+of)?)\s+(?:the\s+)?[A-Z].*"),
    re.compile(r"(?:[Tt]he\s+)?[A-Z][\w'. -]*\s(?i:painter|workshop|potter)(?:\s+by\s.+|\s*\(.+\))?"),
    re.compile(r"(?:the\s+)?(?:[A-Z][\w'.-]*\s)+(?:Group|Class|GROUP|CLASS)(?:\s+by\s.+)?"),
)
_SHOWING = re.compile(r"\b(?:with|showing|depicting|depicts|shows|decorated with|representing)\b", re.IGNORECASE)
_OPENING = re.compile(r"^(?:it|this|the (?:vase|scene|decoration))\s+(?:shows|depicts|is)\b\s*", re.IGNORECASE)
# What is left around a date, and what every caption may say.
_PADDING = {
    "dated",
    "dating",
    "date",
    "dates",
    "to",
    "from",
    "it",
    "is",
    "circa",
    "c",
    "a",
    "an",
    "the",
    "vase",
    "this",
}
# A place that is a collection, not a find-spot.
_MUSEUM = re.compile(
    r"\d|museum|museo|mus\u00e9e|collection|louvre|institute|university|gallery|library|:", re.IGNORECASE
)


def claims_in(text: str) -> Claims:
    """Field -> its values, in the text's order, of a caption, of full sentences, or of a record string.

    "Athenian black-figure lekythos, c. 525-475 BCE, by X, Herakles and the boar; Marathon." Fabric and technique may
    swap places; a caption that opens oddly is searched through for terms. Several values of a field are several claims.
    """
    text = plain(text)
    found: dict[str, list[str]] = {name: [] for name in NAMES}
    if text.endswith("?"):  # a question claims nothing
        return dict.fromkeys(NAMES, ())
    if record_string(text):
        for column, value in _PHRASE.findall(text):
            for field, said in parse_record({column: value}).stated().items():
                if field in found:
                    found[field] += _each(field, said)
        return {name: tuple(dict.fromkeys(values)) for name, values in found.items()}
    for pattern in (_STATEMENT, _LABEL):
        for match in pattern.finditer(text):
            field = _FIELD_OF[" ".join(match["name"].lower().split())]
            found[field] += _each(field, match["value"])
        text = pattern.sub(" ", text)
    rest = text.strip(" ;,.")
    for name, values in _of_caption(rest).items() if rest else ():
        found[name] += values
    return {name: tuple(dict.fromkeys(value for value in values if value)) for name, values in found.items()}


def _each(field: str, value: str) -> list[str]:
    """The claims in a value: "Athenian or Corinthian" are two."""
    if field in TERMS:
        found = terms_in(field, value)
        return found if len(found) > 1 else [value]
    if field == "date":
        found = [write_date(date.years) for date in find(value)]
        return found if len(found) > 1 else [value]
    if field == "attribution":
        return [part.strip() for part in re.split(r"\||;|\s+or\s+", value) if part.strip()]
    return [value]


def _of_caption(text: str) -> dict[str, list[str]]:
    body, place = _body_and_place(text)
    dates = find(body)
    for date in reversed(dates):
        body = f"{body[: date.start]}, {body[date.end :]}"
    body, hands = _cut(_MARKED_HAND, body)
    segments = [_OPENING.sub("", part.strip(" .")) for part in re.split(r",|\.\s", body)]
    segments = [part for part in segments if not set(words_of(part)) <= _PADDING and not _NEGATED.search(part)]
    hands += [part for part in segments if _is_hand(part)]
    head, *tail = [part for part in segments if not _is_hand(part)] or [""]
    head, more = _cut(_HEAD_HAND, head)
    terms, figures = _terms_and_figures(head, tail)
    return {
        **terms,
        "date": [write_date(date.years) for date in dates],
        "attribution": [str(Attribution.parse(who)) for who in hands + more],
        "decoration": [", ".join(figures)],
        "collection" if _MUSEUM.search(place) else "provenance": [place.strip(" .")],
    }


def _body_and_place(text: str) -> tuple[str, str]:
    """After the first ";" stands a place; what else is said there counts as if it were said before."""
    body, *others = text.split(";")
    said, places = [body], []
    for part in others:
        claims = find(part) or _is_hand(part.strip(" .")) or _MARKED_HAND.search(part) or _names_terms(part)
        (said if claims else places).append(part)
    return ", ".join(said), ";".join(places)


def _terms_and_figures(head: str, tail: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Fabric, technique and shape, which the head names or else the tail; and what is shown."""
    head, _, shown = _split(_SHOWING, head)
    terms = {name: terms_in(name, head) for name in TERMS}
    silent = [name for name in TERMS if not terms[name]]
    # "Athenian black-figure thymiaterion": a word that the vocabulary lacks. A head without any term is a figure.
    unknown = [_rest(head)] if len(silent) < len(TERMS) else []
    named = [shown, *tail] if unknown else [head, shown, *tail]
    # A part that only names terms is a claim of its own; in a scene an amphora is not alone.
    claims = " , ".join(part for part in tail if _is_terms(part))
    terms |= {name: terms_in(name, " , ".join([shown, *tail])) or unknown for name in silent}
    figures = [part for part in named if part and not _is_terms(part)]
    return {name: [*own, *terms_in(name, claims)] for name, own in terms.items()}, figures


def _cut(pattern: re.Pattern[str], text: str) -> tuple[str, list[str]]:
    return pattern.sub(" ", text), [match["who"].strip() for match in pattern.finditer(text)]


def _split(pattern: re.Pattern[str], text: str) -> tuple[str, str, str]:
    match = pattern.search(text)
    return (text[: match.start()], match[0], text[match.end() :].strip()) if match else (text, "", "")


def _is_hand(segment: str) -> bool:
    return any(hand.fullmatch(segment) for hand in _HANDS) and not _names_terms(segment)


def _names_terms(text: str) -> bool:
    return any(terms_in(name, text) for name in TERMS)


def _rest(head: str) -> str:
    """The words of the head that are no terms."""
    for name in TERMS:
        head = unknown_in(name, head)
    return " ".join(word for word in words_of(head) if word not in _PADDING)


def _is_terms(segment: str) -> bool:
    """Whether a segment only names terms."""
    return _names_terms(segment) and not _rest(segment)


def parse_caption(text: str) -> VaseRecord:
    """What a caption claims. Several values of one field are joined by " / ": they are several claims."""
    return VaseRecord(**{name: " / ".join(values) for name, values in claims_in(text).items()})


# ---- records ----

# Column of a Beazley export, or key of a JSON record -> field.
COLUMNS = {
    **_FIELD_OF,
    "sub technique": "sub_technique",
    "licence": "licence",
    "license": "licence",
    "rights": "licence",
    "credit": "credit",
    "credit line": "credit",
}


def parse_record(row: Mapping[str, object]) -> VaseRecord:
    """A row of a Beazley export or of JSON, whatever the case of its headers; other columns are ignored."""
    found: dict[str, str] = {}
    for column, value in row.items():
        name = COLUMNS.get(" ".join(words_of(str(column))))
        if name and value is not None and not found.get(name) and not is_blank(str(value)):
            found[name] = plain(str(value))
    return VaseRecord(**found)


def is_blank(text: str) -> bool:
    """Whether a cell says nothing: empty, "-", "?", "n/a", "unknown"."""
    return " ".join(words_of(text)) in _BLANK


_BLANK = {"", "n a", "na", "none", "null", "nil", "unknown", "not known", "unspecified", "not recorded"}


_PHRASE = re.compile(r"The ([A-Z][A-Za-z ]*?) is (.*?)(?:;(?=The )|;?\s*$)", re.DOTALL)


def parse_record_string(text: str) -> VaseRecord:
    """ "The Fabric is ATHENIAN;The Provenance is ;..." with empty fields and markup."""
    return parse_record(record_string(text))


def record_string(text: str) -> dict[str, str]:
    """Its columns and values, empty ones too; an empty mapping where the text is no record string."""
    return dict(_PHRASE.findall(text)) if re.match(r"\s*The [A-Z][A-Za-z ]*? is ", text) else {}
