"""Reader, scorer, writer side by side: threads decode ahead, the device works on batches, the table keeps the rows."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from vasekit import images
from vasekit.cli import UserError
from vasekit.images import ImageError
from vasekit.scores import Row, ScoreTable, Stamp

# Pillow and torch release the GIL while they decode and resize; more threads than this only wait for the disk.
DEFAULT_WORKERS = min(8, os.cpu_count() or 1)
# What an interrupt costs at most: this many batches or seconds of work.
_FLUSH_BATCHES, _FLUSH_SECONDS = 16, 10.0

S = TypeVar("S")
T = TypeVar("T")


class Encoder(Protocol):
    """A model on a device. at_least: sides from which on a JPEG may be read at a fraction of its size, 0: never."""

    at_least: int

    def prepare(self, image: Image.Image) -> np.ndarray:
        """(3, size, size) uint8 of one picture; called from several threads."""
        ...

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(n, 3, size, size) uint8 -> (n, d) float32."""
        ...


class Scorer(Protocol):
    """What to score with; light, so that it can be sent to other processes. `open` loads the model."""

    column: str

    @property
    def identity(self) -> dict[str, Any]:
        """All that a value depends on."""
        ...

    def open(self, device: str) -> Encoder: ...


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a value, or the reason why it could not be read."""

    path: Path
    value: Any = None
    error: str = ""
    sha256: str = ""
    phash: int = 0


def read(
    paths: Sequence[Path], prepare: Callable[[Image.Image], Any], batch_size: int, workers: int
) -> Iterator[list[Outcome]]:
    """`prepare(picture)` of each file, in order and in batches."""

    def attempt(path: Path) -> Outcome:
        try:
            return Outcome(path, prepare(images.read(path)))
        except ImageError as error:
            return Outcome(path, error=str(error))

    yield from _ahead(_slices(paths, batch_size), attempt, workers)


def score(
    paths: Sequence[Path], scorer: Scorer, devices: Sequence[str], table: Path, batch_size: int, workers: int
) -> list[Outcome]:
    """One Outcome per file, in order; values (d,) as the score table at `table` keeps them.

    Only files that the table does not hold are read, and the model is loaded only when one of them has new content.
    A file that can't be read never reaches the scorer: it is an error, not a verdict. Interrupted, the next call
    goes on where this one stopped. Several devices work side by side, each in a process of its own.
    """
    stamps = [Stamp.of(path) for path in paths]
    own = {stamp.path for stamp in stamps}
    rows = ScoreTable(table, scorer.identity, scorer.column, own)
    places = [rows.find(stamp) for stamp in stamps]
    new = [stamp for stamp, place in zip(stamps, places, strict=True) if place is None]
    # What could not be read once may be readable now: a permission, a network drive.
    failed = [stamp for stamp, place in zip(stamps, places, strict=True) if place is not None and rows.failed(place)]
    # A resumed run finds whole batches done and makes the same ones of the rest, so every digit comes out the same.
    batches = [*_slices(failed, batch_size), *_slices(new, batch_size)]
    if batches:
        progress = Progress(len(failed) + len(new))
        work = partial(_work, scorer, table, own, max(1, workers // len(devices)))
        if len(devices) == 1:
            work(devices[0], batches, progress.add)
        else:
            _spread(work, devices, batches, progress)
        progress.close()
        del rows  # memory for one table, not for two
        rows = ScoreTable(table, scorer.identity, scorer.column)
    found = rows.gather(stamps)
    return [Outcome(*row) for row in zip(paths, found.values, found.reasons, found.digests, found.phashes, strict=True)]


def _work(
    scorer: Scorer,
    table: Path,
    own: Collection[str],
    workers: int,
    device: str,
    batches: Sequence[Sequence[Stamp]],
    told: Callable[[int, int], None],
) -> None:
    """Score `batches` on one device; `told` hears of each batch how many files and how many errors it had."""
    rows = ScoreTable(table, scorer.identity, scorer.column, own)
    encoder = _once(partial(scorer.open, device))
    flushed = time.monotonic()
    try:
        for number, looked in enumerate(_ahead(batches, partial(_look, rows, encoder), workers), 1):
            done = list(_scored(looked, encoder))
            # What still can't be read is in the table already.
            rows.append([row for row in done if not row.reason or rows.find(row.stamp) is None])
            told(len(done), sum(bool(row.reason) for row in done))
            if number % _FLUSH_BATCHES == 0 or time.monotonic() > flushed + _FLUSH_SECONDS:
                rows.flush()
                flushed = time.monotonic()
    finally:
        rows.flush()


def _look(rows: ScoreTable, encoder: Callable[[], Encoder], stamp: Stamp) -> tuple[Row, np.ndarray | None]:
    """Read one file; the second part is what is still to be scored, None for known content and for errors."""
    digest = ""
    try:
        data = images.contents(Path(stamp.path))
        digest = hashlib.sha256(data).hexdigest()
        if known := rows.copy(digest, stamp):
            return known, None
        image, (width, height) = images.decode(data, encoder().at_least)
    except ImageError as error:
        return Row(stamp, digest, reason=str(error)), None
    return Row(stamp, digest, width, height, images.perceptual_hash(image)), encoder().prepare(image)


def _scored(looked: Sequence[tuple[Row, np.ndarray | None]], encoder: Callable[[], Encoder]) -> Iterator[Row]:
    pixels = [own for _, own in looked if own is not None]
    values = iter(encoder()(np.stack(pixels)) if pixels else ())
    for row, own in looked:
        yield row if own is None else replace(row, value=next(values))


def _spread(
    work: Callable[..., None], devices: Sequence[str], batches: Sequence[Sequence[Stamp]], progress: Progress
) -> None:
    """One process per device, each with every n-th batch. Raises what the first of them to fail raised."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(devices), context) as pool:
        news = manager.Queue()
        shares = [(device, batches[k :: len(devices)]) for k, device in enumerate(devices)]
        running = [pool.submit(_in_process, work, *share, len(devices), news) for share in shares]
        while not all(future.done() for future in running) or not news.empty():
            try:
                progress.add(*news.get(timeout=0.2))
            except queue.Empty:
                if any(future.done() and future.exception() for future in running):
                    break
        try:
            for future in running:
                future.result()
        except BrokenProcessPool:
            raise UserError(
                f"--device {','.join(devices)}: a process that scored was killed (out of memory?); the same command"
                " again goes on where it stopped"
            ) from None


def _in_process(work: Callable[..., None], device: str, batches: Sequence, processes: int, news: Any) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    work(device, batches, lambda *counts: news.put(counts))


def _slices(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _ahead(batches: Sequence[Sequence[S]], work: Callable[[S], T], workers: int) -> Iterator[list[T]]:
    """`work` on each item in threads, batches in order; one batch is worked ahead, so memory stays bounded."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: list[Future[T]] = []
        try:
            for batch in [*batches, []]:
                now, ahead = ahead, [pool.submit(work, item) for item in batch]
                if now:
                    yield [future.result() for future in now]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """`make`, called when first needed, by whichever thread comes first, and only once."""
    lock, made = threading.Lock(), []

    def get() -> T:
        with lock:
            if not made:
                made.append(make())
        return made[0]

    return get


class Progress:
    """How far, how fast, how long still, how many errors: one line on a terminal, now and then a line elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.errors = total, 0, 0
        self._terminal = sys.stderr.isatty()
        self._start = self._shown = time.monotonic()

    def add(self, done: int, errors: int) -> None:
        self.done, self.errors = self.done + done, self.errors + errors
        now = time.monotonic()
        if now - self._shown > (0.2 if self._terminal else 30):
            self._shown = now
            print(
                f"\r{self.line(now - self._start):78}" if self._terminal else self.line(now - self._start),
                end="" if self._terminal else "\n",
                file=sys.stderr,
                flush=True,
            )

    def line(self, seconds: float) -> str:
        rate = self.done / max(seconds, 1e-9)
        left = timedelta(seconds=round((self.total - self.done) / rate)) if rate else "?"
        return f"{self.done:,} of {self.total:,} images, {rate:.1f} images/s, {left} left, {self.errors:,} errors"

    def close(self) -> None:
        """Leave nothing of the line on a terminal."""
        if self._terminal:
            print(f"\r{'':78}\r", end="", file=sys.stderr, flush=True)


def readable(outcomes: list[Outcome], flag: str) -> list[Outcome]:
    """Those that have a score; a UserError when none has."""
    good = [outcome for outcome in outcomes if not outcome.error]
    if not good:
        first = outcomes[0]
        raise UserError(f"{flag}: none of {len(outcomes)} images can be read ({first.path.name}: {first.error})")
    return good


def errors(outcomes: list[Outcome], root: Path) -> list[dict[str, str]]:
    """File and reason of each unreadable image."""
    return [{"filename": o.path.relative_to(root).as_posix(), "reason": o.error} for o in outcomes if o.error]
