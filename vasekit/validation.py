"""The check of a training file: rows ms-swift can train on, images that open, lengths that fit, nothing that leaks.

ms-swift drops or cuts what does not fit, mostly without a word and after half a minute of imports. Here every row is
looked at once, in seconds, and no picture is decoded.
"""

from __future__ import annotations

import json
import os
import re
import stat
import statistics
import warnings
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vasekit.images import parse_name
from vasekit.lengths import IMAGE, VIDEO, Lengths, Size

# What ms-swift calls its columns, and other names that it takes for them. Two names in one file, and it drops rows.
MESSAGES = ("messages", "conversations", "conversation")
IMAGES, VIDEOS = ("images", "image"), ("videos", "video")
ROLES = {"system": "system", "user": "user", "human": "user"} | dict.fromkeys(("assistant", "gpt", "bot"), "assistant")
# A disk answers several questions at once; for a warm cache one thread would do.
THREADS, CHUNK = 8, 2000
# kind: what is the matter with the rows, what to do
PROBLEMS = {
    "file": ("", ""),
    "json": ("that can't be read", "mend the file or build it again with data/build.py"),
    "schema": ("that ms-swift can't train on", "mend them or build the file again with data/build.py"),
    "image": ("with pictures that can't be used", "put them there, or build the file again with data/build.py"),
    "tags": ("with tags that don't fit the pictures", "write one <image> or <video> for each"),
    "length": (
        "that are too long",
        "lower MAX_PIXELS, shorten them or raise --max_length: they would be cut or dropped",
    ),
    "solution": ("without a target for the reward", "build the file again with data/build.py"),
    "leakage": ("that are in the other file too", "keep a vase in one of the two files"),
}
WARNINGS = {
    "duplicate": ("that repeat another", "each counts as often as it is there"),
    "answers": ("with another answer to the same question about the same picture", "only one of them can be right"),
}
SHOWN = 3


class Finding(NamedTuple):
    """What was found in a row; `row` is None where it is about the file."""

    file: str
    row: int | None
    kind: str
    message: str


@dataclass(frozen=True)
class Settings:
    """What rows are checked against.

    limit: most tokens of a row, or of a prompt where there is a reward. root: ms-swift's ROOT_IMAGE_DIR; without one,
    paths are relative to the data file's folder, as model/*.sh will have it.
    """

    lengths: Lengths
    limit: int
    reward: bool = False
    root: Path | None = None


@dataclass
class Report:
    """Everything that was found, in the order of the files."""

    files: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        found = {"problems": self.problems, "warnings": self.warnings}
        lists = {name: [finding._asdict() for finding in findings] for name, findings in found.items()}
        return {"ok": not self.problems, "files": self.files, **lists}


def lines(findings: Sequence[Finding]) -> list[str]:
    """One line per file and kind: how many rows, the first of them, what to do."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.file, finding.kind), []).append(finding)
    return [_line(file, kind, group) for (file, kind), group in groups.items()]


def _line(file: str, kind: str, group: Sequence[Finding]) -> str:
    if kind == "file":
        return f"{file}: {group[0].message}"
    what, todo = (PROBLEMS | WARNINGS)[kind]
    count = len({finding.row for finding in group})
    named = "; ".join(f"row {finding.row} {finding.message}" for finding in group[:SHOWN])
    more = "; ..." if len(group) > SHOWN else ""
    return f"{file}: {count:,} row{'s' if count > 1 else ''} {what}: {named}{more}; {todo}"


# ---- reading ----


@dataclass(frozen=True)
class Row:
    """What a row trains with, under one name for each thing."""

    turns: list[str]
    system: str | None
    images: list[str]
    videos: list[list[str]]

    @property
    def paths(self) -> list[str]:
        return [*self.images, *(frame for frames in self.videos for frame in frames)]


def read(path: Path) -> Iterator[tuple[int | None, Any]]:
    """Rows with their numbers: the line of a .jsonl file, the place in the list of a .json file, from 1.

    Where a row can't be read a ValueError stands for it, and without a number for the whole file.
    """
    if not path.exists():
        yield None, ValueError("no such file; make it with data/build.py or give another")
    elif not path.is_file():
        yield None, ValueError("is no file; name the .json or .jsonl file in it")
    elif path.suffix.lower() not in (".json", ".jsonl"):
        yield None, ValueError("needs to be a .json file (a list of rows) or a .jsonl file (a row per line)")
    else:
        found = False
        try:
            for found, item in enumerate(_lines(path) if path.suffix.lower() == ".jsonl" else _list(path)):  # noqa: B007
                yield item
        except UnicodeDecodeError as error:
            yield None, ValueError(f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8")
            return
        if found is False:
            yield None, ValueError("holds no row; build it from more photographs (data/build.py)")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    yield number, ValueError(f"not valid JSON ({error.msg} at column {error.colno})")


_SPACE = re.compile(r"[ \n\r\t]*")
_AFTER = re.compile(r"[ \n\r\t]*([,\]])[ \n\r\t]*")


def _list(path: Path) -> Iterator[tuple[int | None, Any]]:
    """Row by row, so that only the text is held as a whole."""
    text, decoder, number = path.read_text(encoding="utf-8"), json.JSONDecoder(), 0
    if not text:
        return
    if text[0] != "[":  # ms-swift's reader stumbles over a byte order mark, and even over a blank
        yield None, ValueError("does not begin with the [ of a list of rows; one row per line goes into a .jsonl file")
        return
    at = _SPACE.match(text, 1).end()
    try:
        while number or text[at : at + 1] != "]":
            number += 1
            row, at = decoder.raw_decode(text, at)
            yield number, row
            mark = _AFTER.match(text, at)
            if not mark:
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
            at = mark.end()
            if mark[1] == "]":
                break
        if number and at < len(text):
            raise json.JSONDecodeError("Extra data", text, at)
    except json.JSONDecodeError as error:
        yield number, ValueError(f"not valid JSON ({error})")


def parse(value: Any, reward: bool) -> Row:
    """A row as ms-swift's preprocessor reads it. Raises ValueError with what it could not train on."""
    if not isinstance(value, dict):
        raise ValueError("is no object with messages and images")
    system, turns = _turns(_first(value, MESSAGES), value.get("system"))
    if not turns:
        raise ValueError("has no question")
    if reward and len(turns) % 2 == 0:
        turns = turns[:-1]  # ms-swift drops the answer and lets the model give its own
    if not reward and len(turns) % 2:
        raise ValueError("lacks the assistant's answer (a file for GRPO is checked with --reward)")
    images, videos = (_first(value, names) or [] for names in (IMAGES, VIDEOS))
    images = [images] if isinstance(images, str) else images
    if not _all(images, str):
        raise ValueError("has images that are no file names")
    if not _all(videos, list) or not all(video and _all(video, str) for video in videos):
        raise ValueError('has videos that are no lists of frames, such as [["1.jpg", "2.jpg"]]')
    return Row(turns, system, images, videos)


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _first(value: Mapping[str, Any], names: Sequence[str]) -> Any:
    name = _name(value, names)
    return value[name] if name else None


def _name(value: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if value.get(name) is not None), None)


def _turns(messages: Any, system: Any) -> tuple[str | None, list[str]]:
    """The system's text and what user and assistant say in turn."""
    if not isinstance(system, str | None):
        raise ValueError("has a system that is no text")
    if not messages:
        raise ValueError("has no messages")
    if not _all(messages, dict):
        raise ValueError("has messages that are no list of objects with role and content")
    turns: list[str] = []
    for place, message in enumerate(messages, 1):
        role, text = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if role not in ROLES:
            raise ValueError(f"has the role {role!r} in message {place}, needs system, user or assistant")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"has no text in message {place}")
        if ROLES[role] == "system" and place == 1:
            system = text
        elif ROLES[role] != ("user", "assistant")[len(turns) % 2]:
            raise ValueError(f"has {role} in message {place}: user and assistant must take turns")
        else:
            turns.append(text)
    return system, turns


# ---- pictures ----


class Pictures:
    """Sizes of image files from their headers, each file once."""

    def __init__(self, root: Path | None) -> None:
        self._root, self._here = root, Path.cwd()
        self._sizes: dict[str, Size | str] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, path: str) -> Size:
        """Raises ValueError with the reason why the picture can't be used."""
        found = self._sizes[path]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def load(self, paths: Iterable[str], pool: ThreadPoolExecutor) -> None:
        """Read the headers that are not known yet."""
        new = [path for path in dict.fromkeys(paths) if path not in self._sizes]
        # Handing over one file costs as much as reading it.
        slices = [new[k : k + 64] for k in range(0, len(new), 64)]
        for names, sizes in zip(slices, pool.map(lambda names: [_header(name) for name in names], slices), strict=True):
            self._sizes.update(zip(names, sizes, strict=True))

    def locate(self, name: str, folder: Path) -> str:
        """The file that ms-swift opens: below the current folder if there is one, else below ROOT_IMAGE_DIR.

        Raises ValueError where both hold one.
        """
        if os.path.isabs(name):  # noqa: PTH117 - a hundred thousand times
            return name
        here, there = str(self._here / name), str((self._root or folder) / name)
        if os.path.exists(here):  # noqa: PTH110
            if os.path.exists(there) and not os.path.samefile(here, there):  # noqa: PTH110, PTH121
                raise ValueError(f"names {name}, and ms-swift would take the one in the current folder")
            return here
        return there


def _header(path: str) -> Size | str:
    """Width and height, or why the file can't be used."""
    try:
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
            return "is not a file"
        if not status.st_size:
            return "is empty"
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        return "is not there"
    except Image.UnidentifiedImageError:
        return "is not an image"
    except Image.DecompressionBombError:
        return "has too many pixels"
    # Pillow's readers raise whatever broken bytes lead them to.
    except Exception as error:
        return f"can't be read ({error})"


# ---- the check ----


def check(paths: Sequence[Path], settings: Settings, against: Sequence[Path] = ()) -> Report:
    """Look at every row of `paths` once; `against` are files that must share no vase and no photograph with them."""
    report = Report()
    with ThreadPoolExecutor(THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is no error
        others = _others(against, Pictures(settings.root), report)
        checker = _Checker(settings, report, others, pool)
        for path in paths:
            checker.file(path)
    return report


def _others(paths: Sequence[Path], pictures: Pictures, report: Report) -> dict[str, str]:
    """Which row each vase and photograph of the other files is in."""
    found: dict[str, str] = {}
    for path in paths:
        for number, value in read(path):
            if isinstance(value, ValueError):
                report.problems.append(Finding(str(path), number, "json" if number else "file", str(value)))
            elif isinstance(value, dict):
                for key in _marks(value, _located(value, pictures, path.parent)):
                    found.setdefault(key, f"{path} row {number}")
    return found


def _located(value: Mapping[str, Any], pictures: Pictures, folder: Path) -> list[str]:
    """Files of all pictures of a row of any form; those that can't be told are left out."""
    names = [_first(value, IMAGES), _first(value, VIDEOS)]
    found = []
    while names:
        name = names.pop()
        if isinstance(name, list):
            names += name
        elif isinstance(name, str):
            try:
                found.append(pictures.locate(name, folder))
            except ValueError:
                continue
    return found


def _marks(value: Mapping[str, Any], paths: Iterable[str]) -> Iterator[str]:
    """What tells that two rows show the same thing: vase, file, content."""
    paths = [os.path.normpath(path) for path in paths]
    vases = [value["vase"]] if value.get("vase") else [parse_name(path).key for path in paths]
    yield from (f"vase {str(vase).casefold()}" for vase in dict.fromkeys(vases))
    yield from (f"image {path}" for path in dict.fromkeys(paths))
    photo = value.get("photo")
    if isinstance(photo, dict) and photo.get("sha256"):
        yield f"photograph {photo['sha256']}"


@dataclass(frozen=True)
class _Item:
    """A row between two looks at it: what it is, and which files it shows."""

    number: int
    value: Mapping[str, Any]
    row: Row
    images: list[str]
    videos: list[list[str]]

    @property
    def paths(self) -> list[str]:
        return [*self.images, *(frame for frames in self.videos for frame in frames)]


class _File:
    """What is remembered of one file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows, self.relative, self.tokens = 0, False, array("l")
        # For messages, images and videos: columns there are; by column, rows that use it and the first of them.
        self.columns: dict[tuple[str, ...], set[str]] = {names: set() for names in (MESSAGES, IMAGES, VIDEOS)}
        self.used: dict[str, list[int]] = {}

    def note_columns(self, number: int, value: Mapping[str, Any]) -> None:
        for names, columns in self.columns.items():
            columns.update(name for name in names if name in value)
            if used := _name(value, names):
                self.used.setdefault(used, [0, number])[0] += 1

    def lost_columns(self) -> Iterator[tuple[int, str]]:
        """ms-swift renames a column where the file has no other of that meaning; else only the first name counts."""
        for names, columns in self.columns.items():
            for name in columns - {names[0]} if len(columns) > 1 else ():
                if name in self.used:
                    count, first = self.used[name]
                    others = ", ".join(f"'{other}'" for other in sorted(columns - {name}))
                    yield first, f"({count:,} in all) has '{name}', lost where other rows have {others}"

    def summary(self, images: int) -> dict[str, Any]:
        tokens = None
        if self.tokens:
            tokens = {"min": min(self.tokens), "median": statistics.median(self.tokens), "max": max(self.tokens)}
        return {
            "path": str(self.path),
            "rows": self.rows,
            "tokens": tokens,
            "images": images,
            "relative_paths": self.relative,
        }


class _Checker:
    """One pass over the files; what stays of a row is a few numbers."""

    def __init__(self, settings: Settings, report: Report, others: Mapping[str, str], pool: ThreadPoolExecutor) -> None:
        self._settings, self._report, self._others, self._pool = settings, report, others, pool
        self._pictures = Pictures(settings.root)
        self._answers: dict[int, str] = {}
        self._questions: dict[int, str] = {}

    def file(self, path: Path) -> None:
        self._file, before = _File(path), len(self._pictures)
        source = read(path)
        while chunk := list(islice(source, CHUNK)):
            items = [item for number, value in chunk if (item := self._item(number, value))]
            self._pictures.load((path for item in items for path in item.paths), self._pool)
            for item in items:
                self._look(item)
        for number, message in self._file.lost_columns():
            self._problem(number, "schema", message)
        self._report.files.append(self._file.summary(len(self._pictures) - before))

    def _problem(self, number: int | None, kind: str, message: object) -> None:
        self._report.problems.append(Finding(str(self._file.path), number, kind, str(message)))

    def _item(self, number: int | None, value: Any) -> _Item | None:
        if number is None:
            self._problem(None, "file", value)
            return None
        self._file.rows += 1
        if isinstance(value, ValueError):
            self._problem(number, "json", value)
            return None
        try:
            row = parse(value, self._settings.reward)
        except ValueError as error:
            self._problem(number, "schema", error)
            return None
        self._file.note_columns(number, value)
        self._file.relative |= not all(os.path.isabs(name) for name in row.paths)  # noqa: PTH117
        try:
            images = [self._locate(name) for name in row.images]
            videos = [[self._locate(name) for name in frames] for frames in row.videos]
        except ValueError as error:
            self._problem(number, "image", error)
            return None
        return _Item(number, value, row, images, videos)

    def _locate(self, name: str) -> str:
        return self._pictures.locate(name, self._file.path.parent)

    def _look(self, item: _Item) -> None:
        sizes = self._sizes(item)
        if self._tags(item) and sizes is not None:
            self._length(item, sizes)
        if self._settings.reward and (message := _no_target(item.value.get("solution"))):
            self._problem(item.number, "solution", message)
        shared = next((mark for mark in _marks(item.value, item.paths) if mark in self._others), None)
        if shared:
            self._problem(item.number, "leakage", f"({shared}) is in {self._others[shared]}")
        self._repeated(item)

    def _tags(self, item: _Item) -> bool:
        text = "\n".join((item.row.system or "", *item.row.turns))
        fits = True
        for tag, there in ((IMAGE, len(item.images)), (VIDEO, len(item.videos))):
            if (count := text.count(tag)) != there:
                self._problem(item.number, "tags", f"has {count} {tag} for {there} of them")
                fits = False
        return fits

    def _sizes(self, item: _Item) -> dict[str, Size] | None:
        """Sizes of the row's pictures, None where one can't be used."""
        sizes: dict[str, Size] = {}
        paths = dict.fromkeys(item.paths)
        for path in paths:
            try:
                sizes[path] = self._pictures[path]
            except ValueError as error:
                self._problem(item.number, "image", f"names {path}, which {error}")
        return sizes if len(sizes) == len(paths) else None

    def _length(self, item: _Item, sizes: Mapping[str, Size]) -> None:
        images, videos = ([sizes[p] for p in item.images], [[sizes[p] for p in frames] for frames in item.videos])
        try:
            count = self._settings.lengths.row(item.row.turns, item.row.system, images, videos)
        except ValueError as error:
            self._problem(item.number, "image", f"has {error}")
            return
        self._file.tokens.append(count)
        if count > self._settings.limit:
            self._problem(item.number, "length", f"has {count:,} tokens, {self._settings.limit:,} fit")

    def _repeated(self, item: _Item) -> None:
        cut = len(item.row.turns) - 1
        question = hash((*item.paths, None, item.row.system, *item.row.turns[: cut + self._settings.reward]))
        target = item.value.get("solution") if self._settings.reward else item.row.turns[cut]
        answer = hash((question, target if isinstance(target, str) else json.dumps(target, sort_keys=True)))
        where, row = str(self._file.path), f"{self._file.path.name} row {item.number}"
        if answer in self._answers:
            kind, earlier = "duplicate", self._answers[answer]
        elif question in self._questions:
            kind, earlier = "answers", self._questions[question]
        else:
            kind = ""
        if kind:
            self._report.warnings.append(Finding(where, item.number, kind, f"(as {earlier})"))
        self._answers.setdefault(answer, row)
        self._questions.setdefault(question, row)


def _no_target(solution: Any) -> str | None:
    """Why the reward could not score an answer to this row."""
    from vasekit import rewards

    if not solution:
        return "lacks the column 'solution', which the reward compares with"
    try:
        record = rewards.Target.parse(solution).record
    except ValueError as error:
        return f"has a solution that can't be read ({error})"
    if not any(getattr(record, name) for name in rewards.WEIGHTS):
        return f"has a solution without {', '.join(rewards.WEIGHTS)}"
    return None
