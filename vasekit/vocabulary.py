"""Words of the catalogue: which spellings mean the same, what is a kind of what, which licence allows what."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from vasekit.cli import UserError, default_path, need_file

BUILTIN = Path(__file__).with_name("vocabulary.yaml")
# A collection's own words: this file where it exists, or the one that the variable names.
OWN, VARIABLE = "data/vocabulary.yaml", "VASE_VOCABULARY"
FIELDS = ("fabric", "technique", "shape", "licence")
# Around the name of a licence these say nothing more.
_LICENCE_PADDING = {"licence", "license", "licenses", "international", "unported", "generic", "deed", "the", "version"}
_LICENCE_PADDING |= {"http", "https", "www", "creativecommons", "org", "creative", "commons", "in", "en", "universal"}


def plain(text: str) -> str:
    """Without HTML tags and entities, control characters and doubled blanks."""
    return " ".join(re.sub(r"<[^>]*>", " ", html.unescape(text)).split())


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words: what is left of a spelling when punctuation does not count."""
    return tuple(re.findall(r"[^\W_]+", plain(text).lower().replace("'s", "s")))


@dataclass(frozen=True)
class Licence:
    """What a licence allows: to hand the picture on (`publish`), and whether its maker must be named (`credit`)."""

    name: str
    publish: bool
    credit: bool


@dataclass(frozen=True)
class Vocabulary:
    """terms: field -> {sorted words of a spelling: canonical term}; kinds: shape -> what it is a kind of."""

    terms: dict[str, dict[tuple[str, ...], str]] = field(default_factory=lambda: {name: {} for name in FIELDS})
    kinds: dict[str, str] = field(default_factory=dict)
    licences: dict[str, Licence] = field(default_factory=dict)

    def lineage(self, shape: str) -> list[str]:
        """From the family down to the shape: ["storage jar", "amphora", "neck-amphora"]."""
        path = [shape]
        while path[-1] in self.kinds:
            path.append(self.kinds[path[-1]])
        return path[::-1]


def files() -> list[Path]:
    """The vocabulary files in use: the built-in one, and the collection's own where there is one."""
    named = os.environ.get(VARIABLE)
    if named:
        return [BUILTIN, need_file(Path(named).expanduser().absolute(), VARIABLE)]
    own = default_path(OWN)
    return [BUILTIN, own] if own.is_file() else [BUILTIN]


def vocabulary() -> Vocabulary:
    """The words in use. Raises UserError for a file that is none."""
    return _read(tuple(files()))


@cache
def _read(paths: tuple[Path, ...]) -> Vocabulary:
    made = Vocabulary()
    for path in paths:
        for name, term, entry in _entries(path):
            _add(made, path, name, term, entry)
    for shape in made.kinds:
        _need_end(made.kinds, shape)
    return made


def _entries(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"vocabulary {path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(loaded, dict):
        raise UserError(f"vocabulary {path}: needs sections {', '.join(FIELDS)}")
    for name, entries in loaded.items():
        if name == "sources":
            continue
        if name not in FIELDS or not isinstance(entries, dict):
            raise UserError(f"vocabulary {path}: section {name!r}; there are {', '.join(FIELDS)}, each a list of terms")
        for term, entry in entries.items():
            yield name, str(term), _entry(path, name, term, entry)


_KEYS = {"fabric": {}, "technique": {}, "shape": {"kind": str}, "licence": {"publish": bool, "credit": bool}}


def _entry(path: Path, name: str, term: object, entry: object) -> dict[str, Any]:
    """The entry, checked; `[Attic]` is short for `{also: [Attic]}`."""
    made = {"also": entry} if isinstance(entry, list) else entry if isinstance(entry, dict) else {}
    needed = _KEYS[name]
    wrong = [key for key in made if key not in {"also", "source", *needed}]
    missing = [key for key, kind in needed.items() if not isinstance(made.get(key), kind)]
    also = made.get("also", [])
    listed = isinstance(also, list) and all(isinstance(spelling, str) and words_of(spelling) for spelling in also)
    if wrong or missing or not listed or not words_of(str(term)):
        what = (
            f"unknown key {wrong[0]}" if wrong else f"needs {missing[0]}" if missing else "also needs a list of words"
        )
        example = {"also": ["..."]} | {key: "..." if kind is str else True for key, kind in needed.items()}
        raise UserError(f"vocabulary {path}: {name} {term!r}: {what}; an entry looks like {example}")
    return made


def _add(made: Vocabulary, path: Path, name: str, term: str, entry: Mapping[str, Any]) -> None:
    for spelling in (term, *entry.get("also", ())):
        key = tuple(sorted(words_of(spelling)))
        if made.terms[name].setdefault(key, term) != term:
            raise UserError(f"vocabulary {path}: {name} {spelling!r} means both {made.terms[name][key]!r} and {term!r}")
    if name == "shape":
        made.kinds[term] = entry["kind"]
    if name == "licence":
        made.licences[term] = Licence(term, entry["publish"], entry["credit"])


def _need_end(kinds: Mapping[str, str], shape: str) -> None:
    seen = [shape]
    while seen[-1] in kinds:
        seen.append(kinds[seen[-1]])
        if seen[-1] == shape:
            raise UserError(f"vocabulary: shape {' is a kind of '.join(seen)}; a kind can't lead back to itself")


# ---- look-ups ----


def _found(name: str, words: tuple[str, ...]) -> dict[int, tuple[str, int]]:
    """Place of its first word -> (term, number of words); of overlapping spellings the longest counts."""
    table = vocabulary().terms[name]
    found: dict[int, tuple[str, int]] = {}
    used: set[int] = set()
    for length in sorted({len(spelling) for spelling in table}, reverse=True):
        for start in range(len(words) - length + 1):
            place = range(start, start + length)
            term = table.get(tuple(sorted(words[start : start + length])))
            if term and used.isdisjoint(place):
                found[start] = (term, length)
                used.update(place)
    return found


def terms_in(name: str, text: str) -> list[str]:
    """All terms of a field that the text names, in its order, each once."""
    return list(dict.fromkeys(term for _, (term, _) in sorted(_found(name, words_of(text)).items())))


def canonical(name: str, value: str) -> str:
    """The vocabulary's term for a fabric, technique, shape or licence; an unknown value stays, in lower case.

    Of "CUP LITTLE MASTER LIP, SIANA" it is the little master cup; `unknown_in` reports "siana".
    """
    found = terms_in(name, value)
    return found[0] if found else plain(value).lower()


def unknown_in(name: str, value: str) -> str:
    """What of a value the vocabulary has no word for: all of it, single words, or nothing."""
    words = words_of(value)
    known = {k for start, (_, length) in _found(name, words).items() for k in range(start, start + length)}
    return " ".join(word for k, word in enumerate(words) if k not in known)


def licence_of(text: str) -> Licence | None:
    """The licence that the text names and nothing more; None where it says something else or more.

    Rights are not guessed: "CC BY 4.0" and its web address are CC BY, "CC BY 4.0, not for training" is not.
    """
    rest = [word for word in words_of(unknown_in("licence", text)) if not word.isdigit()]
    named = terms_in("licence", text)
    if len(named) != 1 or not _LICENCE_PADDING.issuperset(rest):
        return None
    return vocabulary().licences[named[0]]
