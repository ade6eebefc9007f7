"""The one way to write: to a temporary name in the same folder, then rename."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vasekit.cli import UserError, need_file

# Names that begin so are of a write that goes on, or that was killed.
TEMPORARY = ".tmp-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any failure it is removed."""
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staging_dir(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`, on any failure it is removed.

    The old folder is moved aside first and removed last, so that no moment leaves a half-written one.
    """
    stage = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".staging", dir=path.parent))
    old = stage.with_suffix(".old")
    try:
        yield stage
        stage.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(old)
        stage.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """Yield an empty folder within `folder`; on success its files take their places, one right after the other.

    Files that belong together are so never mixed with those of an earlier run, but for the instant of the renames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=_prefix(folder / "files"), dir=folder))
    try:
        yield stage
        for path in sorted(stage.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _prefix(path: Path) -> str:
    """How temporary names beside `path` begin; makes its folder, and removes what a killed run left there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{TEMPORARY}{path.name}."
    for left in path.parent.glob(f"{glob.escape(prefix)}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    return prefix


def claim_dir(path: Path, flag: str, reports: Iterable[str], others: Iterable[str]) -> None:
    """Refuse an output folder that may not be replaced: one without any of our `reports`, or with foreign entries."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{flag} {path}: is a file, needs a folder")
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    entries = {name for name in names if not name.startswith(TEMPORARY)}
    reports = set(reports)
    foreign = sorted(entries - reports - set(others)) or ([] if entries & reports else sorted(entries))
    if foreign:
        named = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UserError(f"{flag} {path}: not empty and not written by this stage ({named}); name another folder")


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; keys keep their order, non-ASCII stays readable."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, flag: str) -> Any:
    """Parse a JSON file that a person named with `flag`; a broken one is a UserError with the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{flag} {path}: no such file; give an existing one with {flag}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{flag} {path}: not valid JSON ({error}); mend the file or give another") from None


def read_csv(path: Path, flag: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row below the header `columns`, empty rows left out.

    Raises UserError, with the line, for a file that is not such a CSV.
    """
    needed = ",".join(columns)
    try:
        # Spreadsheets put a byte order mark first.
        with need_file(path, flag).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            if [cell.strip().lower() for cell in header] != list(columns):
                found = ",".join(header)[:80] or "nothing"
                raise UserError(f"{flag} {path}, line 1: header {found!r}, needs {needed}; save it as CSV with commas")
            start = reader.line_num + 1  # a quoted cell may go over several lines
            for row in reader:
                if any(cell.strip() for cell in row):
                    if len(row) != len(columns):
                        raise UserError(
                            f"{flag} {path}, line {start}: {len(row)} columns, needs {len(columns)} ({needed}); quote"
                            " what has a comma in it"
                        )
                    yield start, row
                start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {path}: not UTF-8 text ({error}); save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{flag} {path}, line {reader.line_num}: not valid CSV ({error}); save it anew") from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def place(source: Path, target: Path, link: str = "copy") -> None:
    """Put `source` at `target`: link is `copy`, `hard` or `sym`. A hard link across devices falls back to a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link == "sym":
        target.symlink_to(source.resolve())
        return
    if link == "hard":
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    try:
        shutil.copy2(source, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # shutil names the source, which is not what is full
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
