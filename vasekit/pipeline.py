"""Reader and scorer side by side: threads decode the next batch while the device works on this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vasekit import images
from vasekit.cli import UserError
from vasekit.images import ImageError

# Pillow and torch release the GIL while they decode and resize; more threads than this only wait for the disk.
DEFAULT_WORKERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a value, or the reason why it could not be read."""

    path: Path
    value: Any = None
    error: str = ""


def read(
    paths: Sequence[Path], prepare: Callable[[Image.Image], Any], batch_size: int, workers: int
) -> Iterator[list[Outcome]]:
    """`prepare(picture)` of each file, in order and in batches; one batch is decoded ahead, so memory stays bounded."""

    def attempt(path: Path) -> Outcome:
        try:
            return Outcome(path, prepare(images.read(path)))
        except ImageError as error:
            return Outcome(path, error=str(error))

    with ThreadPoolExecutor(workers) as pool:
        ahead: list[Future[Outcome]] = []
        for start in range(0, len(paths), batch_size):
            now, ahead = ahead, [pool.submit(attempt, path) for path in paths[start : start + batch_size]]
            if now:
                yield [future.result() for future in now]
        yield [future.result() for future in ahead]


def score(
    paths: Sequence[Path],
    prepare: Callable[[Image.Image], Any],
    scorer: Callable[[Any], Any],
    batch_size: int,
    workers: int,
) -> list[Outcome]:
    """One Outcome per file, in order; `scorer` maps a stacked batch of prepared pictures to a row of numbers each.

    A file that can't be read never reaches the scorer: it is an error, not a verdict.
    """
    import torch

    outcomes: list[Outcome] = []
    for batch in read(paths, prepare, batch_size, workers):
        good = [outcome for outcome in batch if not outcome.error]
        rows = iter(scorer(torch.stack([torch.as_tensor(outcome.value) for outcome in good])).tolist() if good else [])
        outcomes += [outcome if outcome.error else Outcome(outcome.path, next(rows)) for outcome in batch]
    return outcomes


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
