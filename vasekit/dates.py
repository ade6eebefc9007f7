"""Dates of vases: an interval of years, in the spellings that catalogues use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vasekit.vocabulary import plain

Years = tuple[int, int]

_DASHES = re.compile("[\u2010-\u2015\u2212]")
_ABOUT = r"(?:c\.?(?=\d)|(?:circa|ca|c|about|around|approximately|approx|probably|perhaps|possibly)\b\.?\s*)"
_ERA = r"(?:\s*(?:b\.?\s?c\.?(?:\s?e\b\.?)?|c\.?\s?e\b\.?|a\.?\s?d\b\.?)(?![a-z]))"
# Years of a century that a part of it covers, counted from its beginning.
_PARTS = {
    "early": (0, 33),
    "beginning": (0, 33),
    "mid": (33, 67),
    "middle": (33, 67),
    "late": (67, 100),
    "end": (67, 100),
}
# "second quarter", "2nd quarter", "last third": the k-th of so many.
_WHICH = {"first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3, "last": -1}
_PIECES = {"half": 2, "third": 3, "quarter": 4, "decade": 10}
_ONE_PART = rf"(?:{'|'.join(_PARTS)}|(?:{'|'.join(_WHICH)})\s+(?:{'|'.join(_PIECES)}))"
_PART = rf"(?:(?P<part>{_ONE_PART}(?:[\s-]*(?:to|-|/)[\s-]*{_ONE_PART})?)(?:\s+of)?(?:\s+the)?[\s-]*)"
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ORDINAL = rf"(?P<century>\d{{1,2}}(?:st|nd|rd|th)|{'|'.join(_ORDINALS)})"
_CENTURY = r"(?:[\s-]*(?P<word>century|centuries|cent\.?|c\.))"
_YEAR = r"(?P<ad>(?:a\.?d\.?|b\.?c\.?(?:e\.?)?)\s*)?(?P<minus>-\s?)?(?P<year>\d{1,4})(?P<decade>'?s\b)?(?![\d.]*\d)"
_AFTER = rf"(?:,?\s*\(?(?P<after>{_ONE_PART})\b\)?)"
_SIDE = rf"(?P<about>{_ABOUT})?(?:{_PART}?{_ORDINAL}\b{_CENTURY}?|{_YEAR})(?P<era>{_ERA})?{_AFTER}?"
_SIDES = [re.sub(r"\?P<(\w+)>", rf"?P<\g<1>{k}>", _SIDE) for k in (1, 2)]
_DATE = re.compile(
    rf"(?<![\w.:]){_SIDES[0]}(?:\s*(?P<join>-|/|,(?=\s*-)|to\b|until\b|and\b)\s*{_SIDES[1]})?(?!\w)", re.IGNORECASE
)
# These make of a year the end of a span without a beginning.
_OPEN = re.compile(r"\b(?:before|after|pre|post|since|until|not earlier than|not later than)[\s-]*(?:c\.\s*)?$", re.I)
# Around a date these say nothing more.
_PADDING = re.compile(r"^[\s(\[?.,;:]*(?:dated?(?:\s+to)?|from)?[\s(\[:]*$|^[\s)\]?.,;:]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A date in a text, and where it stands."""

    years: Years
    start: int
    end: int


def find(text: str) -> list[Found]:
    """The dates that a text states, in its order.

    A number is a date where it has an era, a minus sign, "c.", a century, or three figures in a span; or where nothing
    else is said. "2 horses" is none, and neither is an open end ("after 480 BCE").
    """
    return list(_found(_DASHES.sub("-", text)))


def _found(text: str) -> Iterator[Found]:
    for match in _DATE.finditer(text):
        alone = _PADDING.match(text[: match.start()]) and _PADDING.match(text[match.end() :])
        if _OPEN.search(text[: match.start()]) or not (alone or _is_marked(match)):
            continue
        if years := _years(match):
            yield Found(years, match.start(), match.end())


def parse_date(text: str) -> Years | None:
    """(first, last) year, negative for BCE; None where the text states no date.

    "-525 to -475", "c. 525-475 BCE", "525\u2013475 BC", "480/79 BC", "480 BCE", "470s BC", "early 5th century BCE",
    "late 6th to early 5th century BC". Without an era, a span that runs downwards or a lone year is BCE, as is
    everything in this field; CE has to be said.
    """
    found = find(plain(text))
    return found[0].years if found else None


def _groups(match: re.Match[str]) -> dict[str, str | None]:
    part = match.groupdict()
    return part | {f"era{k}": part[f"era{k}"] or part[f"ad{k}"] for k in (1, 2)}


def _is_marked(match: re.Match[str]) -> bool:
    part = _groups(match)
    if part["era1"] or part["era2"] or part["minus1"] or part["word1"] or part["word2"]:
        return True
    long = [len(part[name]) >= 3 for name in ("year1", "year2") if part[name]]
    return bool(long) and all(long) and bool(part["about1"] or len(long) == 2)


def _years(match: re.Match[str]) -> Years | None:
    """The interval of both sides; an era that one side lacks is that of the other."""
    part = _groups(match)
    if not part["join"]:
        return _side(part, 1, _is_bce(part["era1"]))
    if bool(part["century1"]) != bool(part["century2"]):
        return None
    if part["century1"] and not (part["word1"] or part["word2"]):
        return None
    part["year2"] = _spelled_out(part)
    downwards = bool(part["century1"]) or int(part["year1"]) > int(part["year2"])
    said = part["era1"] or part["era2"]
    before = bool(part["minus1"]) or (_is_bce(said) if said else downwards)
    # "-50 to 50" crosses the era, "-525-475" does not.
    crosses = _is_ce(part["era2"]) if part["era2"] else bool(part["minus1"]) and not downwards
    one, other = _side(part, 1, before), _side(part, 2, bool(part["minus2"]) or (before and not crosses))
    return (min(one[0], other[0]), max(one[1], other[1])) if one and other else None


def _spelled_out(part: dict[str, str | None]) -> str | None:
    """The second year in full: 480/79 is 480 to 479, 480-70 is 480 to 470, but 525-75 is 525 to 75."""
    first, second = part["year1"], part["year2"]
    if not first or not second or len(second) >= len(first) or part["minus2"] or part["era1"]:
        return second
    full = first[: len(first) - len(second)] + second
    return full if int(full) < int(first) or _is_ce(part["era2"]) else second


# No vase was made so early that a bare number above this is a year BCE.
_FIRST_VASES = 1600


def _side(part: dict[str, str | None], k: int, bce: bool) -> Years | None:
    """One year, decade or century. A lone year without an era is BCE."""
    era = part[f"era{k}"]
    if part[f"century{k}"]:
        if not (part[f"word{k}"] or part[f"century{3 - k}"]):
            return None
        named = part[f"part{k}"] or part[f"after{k}"]
        return _century(part[f"century{k}"], named, bce or not (_is_ce(era) or _is_ce(part["era2"])))
    year, decade = int(part[f"year{k}"]), 9 if part[f"decade{k}"] else 0
    if year > _FIRST_VASES and not era and not part[f"minus{k}"]:
        return None
    bce = bce or bool(part[f"minus{k}"]) or not (part["join"] or _is_ce(era))
    return (-year - decade, -year) if bce else (year, year + decade)


def _century(ordinal: str, part: str | None, bce: bool) -> Years:
    number = int(re.sub(r"\D", "", ordinal) or 0) or _ORDINALS.index(ordinal.lower()) + 1
    pieces = [_piece(text) for text in re.findall(_ONE_PART, part or "", re.IGNORECASE)] or [(0, 100)]
    low, high = min(piece[0] for piece in pieces), max(piece[1] for piece in pieces)
    if bce:
        start = -number * 100
        return start + low, start + high - (1 if high == 100 else 0)
    start = (number - 1) * 100
    return start + low + 1, start + high


def _piece(text: str) -> Years:
    """The years of a century that "early" or "second quarter" covers, counted from its beginning."""
    which, _, piece = " ".join(text.lower().split()).partition(" ")
    if not piece:
        return _PARTS[which]
    count = _PIECES[piece]
    k = _WHICH[which] % count
    return round(100 * k / count), round(100 * (k + 1) / count)


def _is_bce(era: str | None) -> bool:
    return bool(era) and era.strip().lower().startswith("b")


def _is_ce(era: str | None) -> bool:
    return bool(era) and era.strip().lower()[0] in "ca"


def write_date(years: Years) -> str:
    """Such as "525-475 BCE", "480 BCE", "20-40 CE", "10 BCE to 20 CE"."""
    first, last = years
    if first < 0 < last:
        return f"{-first} BCE to {last} CE"
    era = "BCE" if first < 0 else "CE"
    first, last = abs(first), abs(last)
    return f"{first} {era}" if first == last else f"{first}-{last} {era}"
