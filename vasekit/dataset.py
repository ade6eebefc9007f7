"""From photographs and records to training rows: join, split by vase, write what ms-swift reads."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from vasekit import decide, images, questions, records, vases
from vasekit.dates import parse_date
from vasekit.images import ImageError, View
from vasekit.questions import ANSWERS, QUESTIONS
from vasekit.vases import VaseRecord
from vasekit.vocabulary import licence_of, unknown_in

# What a reward can score; a record without any of these teaches reinforcement nothing.
SCORED = ("fabric", "technique", "shape", "date", "decoration", "attribution")


@dataclass(frozen=True)
class Entry:
    """A vase with its photographs, its record, and the frames of a turn around it, where there are any."""

    key: str
    photos: tuple[Path, ...]
    record: VaseRecord
    frames: tuple[Path, ...] = ()


# ---- joining ----


@dataclass(frozen=True)
class Joined:
    """Entries, and what found no partner."""

    entries: list[Entry]
    photos_without_record: list[Path]
    records_without_photo: int


def join(
    photos: Sequence[Path],
    rows: Sequence[dict],
    view_of: Callable[[Path], View] = images.parse_name,
) -> Joined:
    """Photographs to records by file name or vase. The first record of a vase that says anything counts."""
    index = _Index(rows)
    groups: dict[str, list[Path]] = {}
    found: dict[str, VaseRecord] = {}
    missing: list[Path] = []
    seen: set[int] = set()
    names = Counter(photo.name.casefold() for photo in photos)
    for photo in photos:
        key = view_of(photo).key
        own = index.of_vase(key)
        places = index.of_file(photo, alone=names[photo.name.casefold()] == 1) or own
        seen.update(places, own)
        if not places:
            missing.append(photo)
            continue
        groups.setdefault(key, []).append(photo)
        if not found.get(key, VaseRecord()).stated():
            found[key] = index.record(places)
    entries = [Entry(key, tuple(groups[key]), found[key]) for key in sorted(groups)]
    return Joined(entries, missing, len(rows) - len(seen))


class _Index:
    """Rows by the names they give: vase keys and file names, with as much of a path as is written there."""

    def __init__(self, rows: Sequence[dict]) -> None:
        self._rows = rows
        self.places: dict[str, list[int]] = {}
        self._tails: dict[str, set[str]] = {}
        for place, row in enumerate(rows):
            for name in dict.fromkeys(records.names_in(row)):
                self.places.setdefault(name, []).append(place)
                parts = PurePosixPath(name).parts
                for k in range(1, len(parts)):
                    self._tails.setdefault("/".join(parts[k:]), set()).add(name)

    def of_vase(self, key: str) -> list[int]:
        """Rows of a vase; the key of a folder below others is a path, and its last part may be all that rows know."""
        return self.places.get(key) or self.places.get(PurePosixPath(key).name, [])

    def of_file(self, photo: Path, alone: bool) -> list[int]:
        """Rows that name this file: the longest common end of both paths decides.

        alone: no other photograph has this file name, so the name will do where the folders differ.
        """
        parts = photo.as_posix().casefold().split("/")
        for k in range(len(parts)):
            tail = "/".join(parts[k:])
            if tail in self.places:
                return self.places[tail]
            longer = self._tails.get(tail, ())
            if len(longer) == 1 and (len(parts) - k > 1 or alone):
                return self.places[next(iter(longer))]
        return []

    def record(self, places: Sequence[int]) -> VaseRecord:
        """The first of these rows that says anything."""
        found = [records.parse(self._rows[place]).normalised() for place in places]
        return next((record for record in found if record.stated()), found[0])


def turntables(entries: Iterable[Entry], folder: Path, at_most: int) -> list[Entry]:
    """The entries with the frames of `folder`/VASE/, thinned to `at_most`; a vase without such a folder stays."""
    frames = {path.name.casefold(): images.find(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    return [
        Entry(entry.key, entry.photos, entry.record, tuple(thinned(frames.get(entry.key, []), at_most)))
        for entry in entries
    ]


def thinned(frames: Sequence[Path], at_most: int) -> list[Path]:
    """`at_most` frames at equal distances, the first among them."""
    count = min(at_most, len(frames))
    return [frames[k * len(frames) // count] for k in range(count)]


# ---- photographs ----


@dataclass(frozen=True)
class Facts:
    """What a row says of its photograph; error: why it can't be read."""

    name: str
    view: str
    sha256: str = ""
    phash: int = 0
    thumbnail: bytes = b""
    score: float | None = None
    error: str = ""

    def lineage(self) -> dict:
        return {"name": self.name, "view": self.view, "sha256": self.sha256, "score": self.score}


def examine(
    photos: Sequence[Path], root: Path, view_of: Callable[[Path], View], score_of: Mapping[str, float], workers: int
) -> dict[Path, Facts]:
    """Facts of each photograph. score_of: what the filter said of the file with that name below `root`."""

    def one(photo: Path) -> Facts:
        name = images.target_name(photo, root).as_posix()
        about = {"name": name, "view": view_of(photo).view, "score": score_of.get(name)}
        try:
            data = images.contents(photo)
            # Big JPEGs are read reduced, as for the hashes in the score table.
            picture, _ = images.decode(data, at_least=64)
        except ImageError as error:
            return Facts(**about, error=str(error))
        # Resampled without aliasing, copies of real photographs differed in at most 2 bits, of rendered ones 99 % in 6.
        small = picture.resize((32, 32), Image.Resampling.LANCZOS)
        digest = hashlib.sha256(data).hexdigest()
        return Facts(**about, sha256=digest, phash=images.perceptual_hash(small), thumbnail=images.thumbnail(picture))

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(photos, pool.map(one, photos), strict=True))


def readable(entries: Iterable[Entry], facts: Mapping[Path, Facts]) -> list[Entry]:
    """The entries with the photographs that can be read, the one with the highest score first; none left: dropped."""

    def rank(photo: Path) -> tuple:
        score = facts[photo].score
        return (-score if score is not None else 1.0, facts[photo].name)

    found = []
    for entry in entries:
        photos = sorted((photo for photo in entry.photos if not facts[photo].error), key=rank)
        if photos:
            found.append(Entry(entry.key, tuple(photos), entry.record, entry.frames))
    return found


# ---- splitting ----


def alike(entries: Sequence[Entry], facts: Mapping[Path, Facts]) -> list[list[int]]:
    """Indices of entries in groups that may not be parted: they share a picture, or nearly the same one."""
    owners = [(index, facts[photo]) for index, entry in enumerate(entries) for photo in entry.photos]
    pairs = decide.near_pairs([fact.phash for _, fact in owners])
    colours = np.array([np.frombuffer(fact.thumbnail, np.uint8) for _, fact in owners], np.float32)
    differences = np.abs(colours[pairs[:, 0]] - colours[pairs[:, 1]]).mean(axis=1)
    same = pairs[differences <= images.SAME_COLOURS]
    return decide.linked(len(entries), ((owners[a][0], owners[b][0]) for a, b in same.tolist()))


def stratum(record: VaseRecord) -> tuple[str, int]:
    """What is spread evenly over the parts: the shape, and the century of the middle of the date (0: no date)."""
    years = parse_date(record.date)
    return record.shape, sum(years) // 200 if years else 0


def split(
    entries: Sequence[Entry], groups: Sequence[Sequence[int]], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The part of each entry. Whole groups move; shapes and centuries are spread evenly.

    Raises ValueError when the shares do not sum to 1.
    """
    known = [(entries[group[0]].key, stratum(entries[group[0]].record)) for group in groups]
    parts = decide.stratified(known, shares, seed)
    chosen = [""] * len(entries)
    for group, part in zip(groups, parts, strict=True):
        for index in group:
            chosen[index] = part
    return chosen


# ---- rows ----


@dataclass(frozen=True)
class Writer:
    """How rows are made. kinds: question -> share of the vases that are asked it; say: the fields of a caption.

    plain: the documented question and the bare answer only. where: the path that a row gives for a file.
    """

    kinds: Mapping[str, float]
    facts: Mapping[Path, Facts]
    seed: int
    plain: bool = False
    all_views: bool = False
    say: tuple[str, ...] = vases.CAPTION_FIELDS
    where: Callable[[Path], str] = str

    def training(self, entry: Entry) -> list[dict]:
        """Questions with their answers, for supervised fine-tuning."""
        return [
            self._asked(entry, shown, kind, self.plain)
            for shown in self._shown(entry)
            for kind, share in self.kinds.items()
            if self._says(entry, kind) and self._draw(entry.key, kind) < share
        ]

    def held_out(self, entry: Entry) -> list[dict]:
        """Every question in its documented wording, with the answer and what it is scored against."""
        rows = [self._asked(entry, self._shown(entry)[0], kind, True) for kind in self.kinds if self._says(entry, kind)]
        return [row | {"solution": self.solution(entry)} for row in rows]

    def targets(self, entry: Entry) -> list[dict]:
        """Caption requests with their target in the column `solution`, for reinforcement."""
        return [
            self._row(entry, shown, QUESTIONS["caption"][0]) | {"solution": self.solution(entry)}
            for shown in self._shown(entry)
        ]

    def solution(self, entry: Entry) -> str:
        target = entry.record.stated() | {"caption": self._caption(entry)}
        return json.dumps(target, ensure_ascii=False)

    def _shown(self, entry: Entry) -> list[tuple[Path, ...]]:
        """What each set of rows shows: the frames of a turn, or one photograph."""
        if entry.frames:
            return [entry.frames]
        return [(photo,) for photo in (entry.photos if self.all_views else entry.photos[:1])]

    def _says(self, entry: Entry, kind: str) -> bool:
        """Absent fields make no question."""
        return is_scorable(entry) if kind in ("caption", "overall") else bool(questions.value(entry.record, kind))

    def _draw(self, *words: str) -> float:
        """A number in [0, 1) that stays the same when other vases come or go."""
        text = ":".join((str(self.seed), *words))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64

    def _asked(self, entry: Entry, shown: tuple[Path, ...], kind: str, plain: bool) -> dict:
        wordings, answers = QUESTIONS[kind], ANSWERS.get(kind, ("{}",))
        place = str(shown[0].name)
        question = 0 if plain else int(self._draw(entry.key, kind, place, "question") * len(wordings))
        wording = 0 if plain else int(self._draw(entry.key, kind, place, "answer") * len(answers))
        row = self._row(entry, shown, wordings[question]) | {"field": kind}
        said = questions.answer(entry.record, kind, wording, self.say)
        row["messages"].append({"role": "assistant", "content": said})
        return row

    def _row(self, entry: Entry, shown: tuple[Path, ...], question: str) -> dict:
        paths = [self.where(path) for path in shown]
        tag, pictures = ("<video>", {"videos": [paths]}) if entry.frames else ("<image>", {"images": paths})
        photo = shown[0] if shown[0] in self.facts else entry.photos[0]
        return {
            "messages": [{"role": "user", "content": f"{tag}{question}"}],
            **pictures,
            "caption": self._caption(entry),
            "vase": entry.key,
            "photo": self.facts[photo].lineage(),
        }

    def _caption(self, entry: Entry) -> str:
        return _caption(entry.record, self.say)


@lru_cache(maxsize=1024)  # the rows of a vase follow each other
def _caption(record: VaseRecord, say: tuple[str, ...]) -> str:
    return vases.caption(record, say)


def is_scorable(entry: Entry) -> bool:
    """Whether the reward finds anything to compare with."""
    return any(getattr(entry.record, name) for name in SCORED)


# ---- what the records lack ----


def gaps(entries: Iterable[Entry]) -> dict[str, int]:
    """How many records are silent about each field."""
    fields = (*SCORED, "provenance", "collection", "licence", "credit")
    counts = Counter(dict.fromkeys(fields, 0))
    for entry in entries:
        counts.update(name for name in fields if not getattr(entry.record, name))
    return dict(sorted(counts.items()))


def unknown_words(entries: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """Values that the vocabulary does not know, with their counts: kept as they are, listed to be looked at."""
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        for name in vases.TERMS:
            if rest := unknown_in(name, getattr(entry.record, name)):
                found.setdefault(name, Counter())[rest] += 1
        if entry.record.date and not parse_date(entry.record.date):
            found.setdefault("date", Counter())[entry.record.date] += 1
        if entry.record.licence and not licence_of(entry.record.licence):
            found.setdefault("licence", Counter())[entry.record.licence] += 1
    return {name: dict(counts.most_common()) for name, counts in found.items()}


def unpublishable(record: VaseRecord) -> str:
    """Why a vase's picture may not be handed on; empty where it may."""
    licence = licence_of(record.licence)
    if licence is None:
        return f"unknown licence {record.licence!r}" if record.licence else "no licence stated"
    if not licence.publish:
        return f"{licence.name} forbids it"
    return f"{licence.name} needs a credit line" if licence.credit and not record.credit else ""
