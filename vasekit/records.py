"""Files of records, in the shapes that are met in the wild, as plain rows; and what a row says of which pictures.

- a Beazley export: CSV or TSV, one vase a line;
- JSON or JSONL rows of fields ("fabric": ..., "image": ...);
- training rows: `images` (a list, or one text), `caption`, `conversations` (from, value) or `messages` (role, content);
- caption ground truth and predictions: `images`, `caption`, `data_by`; ms-swift's results: `messages`, `response`;
- record strings ("The Fabric is ATHENIAN;The Provenance is ;..."), one a line of a .txt file or in a field of a row.

A row that can't be one of these is a UserError that names it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vasekit import images, questions, vases
from vasekit.cli import UserError, need_file
from vasekit.vases import VaseRecord
from vasekit.vocabulary import words_of

Row = dict[str, Any]
# Columns that tell which photographs a record belongs to: the vase's key, or the name of one file.
_KEY_COLUMNS = ("image guid", "guid", "vase", "vase number")
_FILE_COLUMNS = ("image", "images", "file", "filename")
_TURNS = {"conversations": ("from", "value"), "messages": ("role", "content")}
_ASKS, _ANSWERS, _OTHERS = ("human", "user"), ("gpt", "assistant"), ("system", "tool")
_TEXTS = ("caption", "response", "prediction")
_STRING = "record"
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".txt")
_SHOWN = 5


def read_rows(path: Path, flag: str = "--records") -> list[Row]:
    """The rows of a file of records. Raises UserError with the row, or the line, where something is wrong."""
    readers = {".csv": _table, ".tsv": _table, ".json": _json, ".jsonl": _lines, ".txt": _strings}
    kind = path.suffix.lower()
    need_file(path, flag)
    if kind not in readers:
        raise UserError(f"{flag} {path}: {kind or 'no suffix'}; needs {', '.join(SUFFIXES)}")
    rows, wrong = [], []
    for where, row in readers[kind](_text(path, flag), path, flag):
        problem = problem_in(row)
        rows.append(row)
        wrong += [(where, problem)] if problem else []
    if wrong:
        where, problem = wrong[0]
        others = ", ".join(place for place, _ in wrong[1 : 1 + _SHOWN])
        more = f" (and {len(wrong) - 1:,} more: {others})" if others else ""
        raise UserError(f"{flag} {path}, {where}: {problem}{more}; mend the file and start again")
    if not rows:
        raise UserError(f"{flag} {path}: holds no record")
    return rows


def _text(path: Path, flag: str) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{flag} {path}, line {line}: not UTF-8 text; save it as UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{flag} {path}, line {line}: a NUL character; save it as UTF-8 text")
    return text


# ---- the kinds of file ----

Numbered = Iterator[tuple[str, Row]]


def _table(text: str, path: Path, flag: str) -> Numbered:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
    )
    try:
        header = next(reader, [])
        _check_header(header, path, flag)
        start = reader.line_num + 1  # a quoted cell may go over several lines
        for cells in reader:
            if len(cells) > len(header):
                found = f"{len(cells)} cells, the header has {len(header)}"
                raise UserError(f"{flag} {path}, line {start}: {found}; quote what has the separator in it")
            if any(cells):
                yield f"line {start}", dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{flag} {path}, line {reader.line_num}: not valid CSV ({error}); save it anew") from None


def _check_header(header: Sequence[str], path: Path, flag: str) -> None:
    names = [" ".join(words_of(cell)) for cell in header]
    if not header:
        raise UserError(f"{flag} {path}: holds no record")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise UserError(f"{flag} {path}, line 1: two columns are called {twice!r}; rename one")
    if not any(name in vases.COLUMNS or name in (*_KEY_COLUMNS, *_FILE_COLUMNS, _STRING) for name in names):
        hint = "is it separated by tabs or semicolons?" if len(header) == 1 else "add a header line"
        known = "Image GUID, Fabric, Technique, Shape Name, Date, ..."
        raise UserError(f"{flag} {path}, line 1: no known column in {', '.join(header)[:80]!r} ({known}); {hint}")


def _json(text: str, path: Path, flag: str) -> Numbered:
    rows = _loads(text, f"{flag} {path}", 0)
    if not isinstance(rows, list):
        raise UserError(f"{flag} {path}: needs a list of records, found {_kind(rows)}")
    yield from ((f"row {k}", row) for k, row in enumerate(rows, 1))


def _lines(text: str, path: Path, flag: str) -> Numbered:
    for k, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {k}", _loads(line, f"{flag} {path}", k)


def _strings(text: str, path: Path, flag: str) -> Numbered:
    yield from ((f"line {k}", {_STRING: line}) for k, line in enumerate(text.split("\n"), 1) if line.strip())


def _loads(text: str, where: str, line: int) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON value")

    def once(pairs: list[tuple[str, Any]]) -> Row:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is given twice")
        return made

    try:
        if re.search(r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])", text, re.IGNORECASE):
            raise ValueError("half of a character, such as \\ud800")
        return json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno}, column {error.colno}"
        raise UserError(f"{where}, {place}: not valid JSON ({error.msg}); mend the file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}{f', line {line}' if line else ''}: not valid JSON ({error}); mend the file") from None


# ---- what a row may hold ----


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def problem_in(row: object) -> str | None:
    """What is wrong with a row, or None. Empty fields, unknown words and further columns are normal."""
    if not isinstance(row, dict):
        return f"is {_kind(row)}, needs an object with fields"
    checks: tuple[Callable[[Row], str | None], ...] = (_wrong_field, _wrong_names, _wrong_turns, _wrong_text)
    return next(filter(None, (check(row) for check in checks)), None)


def _wrong_field(row: Row) -> str | None:
    for column, value in row.items():
        name = " ".join(words_of(str(column)))
        if name in vases.COLUMNS or name in _KEY_COLUMNS:
            if isinstance(value, (list, dict, bool)):
                return f"{column} is {_kind(value)}, needs a text"
            if name == "date" and isinstance(value, float):
                return f"{column} is {value}, needs a text such as '-525 to -475'"
    return None


def _wrong_names(row: Row) -> str | None:
    for column, value in row.items():
        if " ".join(words_of(str(column))) not in _FILE_COLUMNS or value is None:
            continue
        values = [_path(item) for item in (value if isinstance(value, list) else [value])]
        if odd := [item for item in values if not isinstance(item, str)]:
            return f"{column} holds {_kind(odd[0])}, needs a file name or a list of them"
        if isinstance(value, list) and not all(item.strip() for item in values):
            return f"{column} holds an empty file name"
    return None


def _path(item: object) -> object:
    """ms-swift's results write a picture as {"path": ..., "bytes": null}."""
    return item["path"] if isinstance(item, dict) and "path" in item else item


def _wrong_turns(row: Row) -> str | None:
    for column, (who, what) in _TURNS.items():
        if column not in row:
            continue
        turns = row[column]
        if not isinstance(turns, list) or not turns:
            return f"{column} is {_kind(turns) if turns != [] else 'empty'}, needs a list of turns"
        for k, turn in enumerate(turns, 1):
            if not isinstance(turn, dict):
                return f"{column}, turn {k} is {_kind(turn)}, needs {{'{who}': ..., '{what}': ...}}"
            if missing := [name for name in (who, what) if name not in turn]:
                return f"{column}, turn {k} lacks '{missing[0]}'"
            if turn[who] not in (*_ASKS, *_ANSWERS, *_OTHERS):
                needed = "human or gpt" if who == "from" else "user or assistant"
                return f"{column}, turn {k}: '{who}' is {turn[who]!r}, needs {needed}"
            if not isinstance(turn[what], str):
                return f"{column}, turn {k}: '{what}' is {_kind(turn[what])}, needs a text"
        if turns[0][who] in _ANSWERS:
            return f"{column} begins with an answer, needs a question first"
    return None


def _wrong_text(row: Row) -> str | None:
    for column in _TEXTS:
        if row.get(column) is not None and not isinstance(row[column], str):
            return f"{column} is {_kind(row[column])}, needs a text"
    text = row.get(_STRING)
    if text is None:
        return None
    if not isinstance(text, str) or not vases.record_string(text):
        return f"{_STRING} is no record string ('The Fabric is ...;The Technique is ...')"
    return None


# ---- what a row says ----


def parse(row: Row) -> VaseRecord:
    """The record in a row: its own fields first, then a record string, answered questions, and the caption."""
    found = vases.parse_record(row)
    sources = [vases.parse_record_string(row[_STRING])] if row.get(_STRING) else []
    sources += [questions.claim(kind, said) for kind, said in answered(row)]
    sources += [vases.parse_caption(row[column]) for column in _TEXTS if row.get(column)]
    for source in sources:
        missing = {f.name for f in fields(found) if not getattr(found, f.name)}
        found = replace(found, **{name: getattr(source, name) for name in missing})
    return found


def answered(row: Row) -> Iterator[tuple[str, str]]:
    """(kind of question, answer) of the turns of a row; questions that are not about the vase are left out."""
    for column, (who, what) in _TURNS.items():
        asked = None
        for turn in row.get(column) or ():
            if turn[who] in _ANSWERS and asked:
                yield asked, turn[what]
            asked = questions.kind_of(turn[what]) if turn[who] in _ASKS else None


def names_in(row: Row) -> list[str]:
    """Lower-case vase keys and file names (paths as they are written) that a row says it belongs to."""
    found = []
    for column, value in (vases.record_string(row.get(_STRING) or "") | row).items():
        name = " ".join(words_of(str(column)))
        items = [_path(item) for item in (value if isinstance(value, list) else [value])]
        values = [str(item).replace("\\", "/").casefold() for item in items if item]
        if name in _KEY_COLUMNS:
            found += [PurePosixPath(text).name for text in values]
        elif name in _FILE_COLUMNS:
            found += [*values, *(images.parse_name(PurePosixPath(text).name).key for text in values)]
    return found
