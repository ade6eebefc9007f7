"""From photographs and records to training files: join, split by vase, write rows that ms-swift reads."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasekit import images, vases
from vasekit.cli import UserError
from vasekit.vases import QUESTIONS, VaseRecord

# Columns that tell which photographs a record belongs to: the vase's key, or the name of one file.
_KEY_COLUMNS = ("image guid", "guid", "vase")
_FILE_COLUMNS = ("image", "images", "file", "filename")
# What a reward can score; a record without any of these teaches reinforcement nothing.
SCORED = ("fabric", "technique", "shape", "date", "decoration", "attribution")


@dataclass(frozen=True)
class Entry:
    """A vase with its photographs and its record."""

    key: str
    photos: tuple[Path, ...]
    record: VaseRecord


# ---- reading ----


def read_rows(path: Path) -> list[dict]:
    """Rows of a CSV, TSV, JSON (a list) or JSONL file of records. Raises UserError with the line where it breaks."""
    if not path.is_file():
        raise UserError(f"--records {path}: no such file; give a .csv, .tsv, .json or .jsonl file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--records {path}: not UTF-8 text ({error}); save it as UTF-8") from None
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t" if kind == ".tsv" else ","))
    elif kind == ".jsonl":
        rows = [_json(line, f"{path} line {k}") for k, line in enumerate(text.splitlines(), 1) if line.strip()]
    elif kind == ".json":
        rows = _json(text, str(path))
    else:
        raise UserError(f"--records {path}: {kind or 'no suffix'}; needs .csv, .tsv, .json or .jsonl")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"--records {path}: needs a list of records")
    if not rows:
        raise UserError(f"--records {path}: holds no record")
    return rows


def _json(text: str, where: str) -> list | dict:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--records {where}: not valid JSON ({error})") from None


def names_in(row: dict) -> list[str]:
    """Lower-case vase keys and file names that a row says it belongs to."""
    found = []
    for column, value in row.items():
        name = " ".join(vases.words_of(str(column)))
        values = value if isinstance(value, list) else [value]
        texts = [Path(str(v)).name.casefold() for v in values if v]
        if name in _KEY_COLUMNS:
            found += texts
        elif name in _FILE_COLUMNS:
            found += [*texts, *(images.parse_name(text).key for text in texts)]
    return found


@dataclass(frozen=True)
class Joined:
    """Entries, and what found no partner."""

    entries: list[Entry]
    photos_without_record: list[str]
    records_without_photo: int


def join(
    photos: Sequence[Path], rows: Iterable[dict], view_of: Callable[[Path], images.View] = images.parse_name
) -> Joined:
    """Photographs to records by file name or vase. The first record of a vase that says anything counts."""
    by_name: dict[str, VaseRecord] = {}
    names_of: list[list[str]] = []
    for row in rows:
        names = names_in(row)
        names_of.append(names)
        record = vases.parse_record(row).normalised()
        for name in names:
            if record.stated() or name not in by_name:
                by_name.setdefault(name, record)
    groups: dict[str, list[Path]] = {}
    missing: list[str] = []
    records: dict[str, VaseRecord] = {}
    for photo in photos:
        key = view_of(photo).key
        record = by_name.get(photo.name.casefold()) or by_name.get(key)
        if record is None:
            missing.append(photo.name)
            continue
        groups.setdefault(key, []).append(photo)
        records.setdefault(key, record)
    have = {photo.name.casefold() for photo in photos} | {view_of(photo).key for photo in photos}
    unused = sum(have.isdisjoint(names) for names in names_of)
    return Joined([Entry(key, tuple(groups[key]), records[key]) for key in sorted(groups)], missing, unused)


# ---- splitting and writing ----


def part_of(key: str, seed: int, grpo_share: float, test_share: float) -> str:
    """ "test", "grpo" or "sft", by a hash of seed and vase: adding vases moves none of the others."""
    place = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64
    if place < test_share:
        return "test"
    return "grpo" if place < test_share + grpo_share * (1 - test_share) else "sft"


def question_rows(entry: Entry, questions: Sequence[str]) -> list[dict]:
    """One row per question that the record answers, with the answer, for supervised fine-tuning."""
    rows = []
    for field in questions:
        said = vases.answer(entry.record, field) if field != "overall" or is_scorable(entry) else ""
        if said:
            rows.append(_row(entry, QUESTIONS[field][0]) | {"field": field})
            rows[-1]["messages"].append({"role": "assistant", "content": said})
    return rows


def target_row(entry: Entry) -> dict:
    """A caption request with its target in the column `solution`, for reinforcement."""
    target = entry.record.stated() | {"caption": vases.caption(entry.record)}
    return _row(entry, QUESTIONS["overall"][0]) | {"solution": json.dumps(target, ensure_ascii=False)}


def is_scorable(entry: Entry) -> bool:
    """Whether the reward finds anything to compare with."""
    return any(getattr(entry.record, name) for name in SCORED)


def _row(entry: Entry, question: str) -> dict:
    return {
        "messages": [{"role": "user", "content": f"<image>{question}"}],
        "images": [str(entry.photos[0])],
        "vase": entry.key,
    }


def gaps(entries: Iterable[Entry]) -> dict[str, int]:
    """How many records are silent about each field."""
    counts = Counter[str]()
    for entry in entries:
        counts.update(name for name in SCORED if not getattr(entry.record, name))
    return dict(sorted(counts.items()))


def unknown_words(entries: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """Values that the vocabulary does not know, with their counts: kept as they are, listed to be looked at."""
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        for name in ("fabric", "technique", "shape"):
            value = getattr(entry.record, name)
            if value and not vases.is_known(name, value):
                found.setdefault(name, Counter())[value] += 1
    return {name: dict(counts.most_common()) for name, counts in found.items()}
