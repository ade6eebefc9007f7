"""The score table: what was read from each file and what a model said of it. Score once, decide later.

A folder of Parquet files with one row per image file. The rows of one scorer (model, weights, preprocessing) lie in
one subfolder, named after its identity. A file is known by path, size and modification time, its content by SHA-256:
a copy of a scored file is not scored again. Part files are written whole or not at all, and only ever added.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vasekit import files

# Shared by all stages, so that what one of them read and scored the next one finds.
FOLDER = "output/scores"
# How a value is stored: as bytes, little endian, which reads seven times as fast as a list of numbers would.
# From Python: np.frombuffer(cell, "<f2") for an embedding.
COLUMNS = {"probability": "<f4", "embedding": "<f2"}


@dataclass(frozen=True)
class Stamp:
    """What tells, without reading it, that a file is the one that was read before."""

    path: str
    bytes: int = -1
    mtime_ns: int = -1

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """A file that is not there, or can't be reached, has no size."""
        try:
            status = path.stat()
        except OSError:
            return cls(str(path))
        return cls(str(path), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Row:
    """One file. reason: why it could not be read; if it could, `value` is what the scorer said of it, (d,)."""

    stamp: Stamp
    sha256: str = ""
    width: int = 0
    height: int = 0
    phash: int = 0
    reason: str = ""
    value: np.ndarray | None = None


@dataclass(frozen=True)
class Scores:
    """Rows in the order asked for: values (n, d) as stored, NaN where `reasons` tells why there is none."""

    values: np.ndarray
    reasons: list[str]
    phashes: np.ndarray  # (n,) uint64
    digests: list[str]


def _schema():
    import pyarrow as pa

    names = {"path": pa.string(), "bytes": pa.int64(), "mtime_ns": pa.int64(), "sha256": pa.string()}
    names |= {"width": pa.int32(), "height": pa.int32(), "phash": pa.uint64()}
    return pa.schema([*names.items(), ("status", pa.string()), ("reason", pa.string()), ("value", pa.binary())])


def folder_of(table: Path, identity: dict[str, Any]) -> Path:
    """Where the rows of the scorer of that identity lie."""
    return table / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


class ScoreTable:
    """The rows of one scorer.

    identity: all that a value depends on, JSON-ready. column: `probability` (one float32) or `embedding` (float16).
    own: the paths of the run at hand. Their content is not looked up, so that which pictures meet in one batch does
    not depend on where an earlier run was interrupted.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], column: str, own: Collection[str] = ()) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self.folder, self._dtype = folder_of(folder, identity), COLUMNS[column]
        if not (self.folder / "scorer.json").exists():
            files.write_json(self.folder / "scorer.json", identity | {"column": column})
        parts = [parquet.read_table(path, schema=_schema()) for path in sorted(self.folder.glob("part-*.parquet"))]
        self._loaded = pa.concat_tables([_schema().empty_table(), *parts])
        self._new: list[Row] = []
        columns = [self._loaded[name].to_pylist() for name in ("path", "bytes", "mtime_ns", "sha256", "status")]
        self._places: dict[tuple[str, int, int], int] = {}
        self._contents: dict[str, int] = {}
        self._failures: set[int] = set()
        for place, (path, size, mtime_ns, digest, status) in enumerate(zip(*columns, strict=True)):
            if status == "ok":
                self._places[path, size, mtime_ns] = place
                if path not in own:
                    self._contents[digest] = place
            elif self._places.setdefault((path, size, mtime_ns), place) == place:
                self._failures.add(place)

    def find(self, stamp: Stamp) -> int | None:
        """The place of the row of this very file, unless it changed."""
        return self._places.get((stamp.path, stamp.bytes, stamp.mtime_ns))

    def failed(self, place: int) -> bool:
        """Whether the file of that row, written by an earlier run, could not be read."""
        return place in self._failures

    def copy(self, sha256: str, stamp: Stamp) -> Row | None:
        """A row for the file at `stamp` from another file of the same content that could be read."""
        place = self._contents.get(sha256)
        if place is None:
            return None
        (found,) = self._loaded.slice(place, 1).to_pylist()
        kept = {name: found[name] for name in ("sha256", "width", "height", "phash")}
        return Row(stamp, value=np.frombuffer(found["value"], self._dtype), **kept)

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; they are on disk, all or none of them, after `flush`."""
        start = len(self._loaded) + len(self._new)
        self._new.extend(rows)
        for place, row in enumerate(rows, start):
            self._places[row.stamp.path, row.stamp.bytes, row.stamp.mtime_ns] = place

    def flush(self) -> None:
        """Write what was added since the last time as one part."""
        import pyarrow as pa
        from pyarrow import parquet

        if self._new:
            rows = self._table(self._new)
            with files.atomic_path(self.folder / f"part-{uuid.uuid4().hex}.parquet") as temporary:
                parquet.write_table(rows, temporary, compression="none")
            self._loaded, self._new = pa.concat_tables([self._loaded, rows]), []

    def gather(self, stamps: Sequence[Stamp]) -> Scores:
        """The rows of these files. Raises KeyError when one of them is not there."""
        import pyarrow as pa

        places = [self.find(stamp) for stamp in stamps]
        if None in places:
            raise KeyError(stamps[places.index(None)].path)
        rows = pa.concat_tables([self._loaded, self._table(self._new)]).take(pa.array(places, pa.int64()))
        good = np.array([status == "ok" for status in rows["status"].to_pylist()], bool)
        cells = pa.concat_arrays(rows["value"].chunks)  # errors take no bytes, so the others lie side by side
        flat = np.frombuffer(cells.buffers()[2] or b"", self._dtype)
        values = np.full((len(places), len(flat) // max(good.sum(), 1)), np.nan, self._dtype)
        values[good] = flat.reshape(good.sum(), values.shape[1])
        return Scores(values, rows["reason"].to_pylist(), rows["phash"].to_numpy(), rows["sha256"].to_pylist())

    def _table(self, rows: Sequence[Row]):
        import pyarrow as pa

        columns = {name: [getattr(row.stamp, name) for row in rows] for name in ("path", "bytes", "mtime_ns")}
        columns |= {name: [getattr(row, name) for row in rows] for name in ("sha256", "width", "height", "phash")}
        columns["status"] = ["error" if row.reason else "ok" for row in rows]
        columns["reason"] = [row.reason for row in rows]
        columns["value"] = [b"" if row.value is None else row.value.astype(self._dtype).tobytes() for row in rows]
        return pa.table(columns, _schema())
