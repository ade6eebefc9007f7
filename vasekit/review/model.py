"""What a stage hands to the review page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vasekit.metrics import Measure

Cell = str | int | float | Measure | None


@dataclass(frozen=True)
class Item:
    """A photograph and what became of it."""

    filename: str  # below the input folder, POSIX: the identity of an image in overrides.csv
    source: Path  # where the photograph lies, for its thumbnail
    verdict: str  # "accepted", "rejected" or "error"
    score: float | None  # None for errors
    reason: str = ""  # "" or "score", "override", "near-duplicate of NAME"; of an error, why
    vase: str = ""
    view: str = ""

    @property
    def overridden(self) -> bool:
        return self.reason == "override"

    @property
    def by_score(self) -> bool:
        """Whether another threshold could change the verdict."""
        return self.reason in ("", "score")


@dataclass(frozen=True)
class VaseViews:
    """All views of a vase, best first; the first is the chosen one."""

    vase: str
    views: tuple[Item, ...]
    margin: float | None  # lead over the runner-up; None for an only view


@dataclass(frozen=True)
class Table:
    """Numbers beside the pictures, such as an audit or a calibration. None is an empty cell."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Curve:
    """A line chart; `marked` is an x to draw a vertical line at."""

    title: str
    x_label: str
    y_label: str
    points: Sequence[tuple[float, float]]
    marked: float | None = None


@dataclass(frozen=True)
class Review:
    """A page. stage: `quality` shows `items`, `views` shows `vases` (and the errors among `items`)."""

    title: str
    stage: str
    threshold: float | None
    items: Sequence[Item]
    vases: Sequence[VaseViews] = ()
    tables: Sequence[Table] = ()
    curves: Sequence[Curve] = ()
