"""The page itself: which pictures it shows, their thumbnails, and the data its script works on.

Python chooses and counts, page.js draws. All text reaches the page as JSON that the script sets with textContent, or
through html.escape, so that a file name can't become markup.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vasekit import files, images
from vasekit.images import ImageError
from vasekit.review.model import Cell, Curve, Item, Review, Table, VaseViews
from vasekit.review.overrides import DECISIONS

# What keeps the page at a few MB whatever the collection: pictures a sheet, vases, views of a vase.
SHEET, VASES, VIEWS = 60, 60, 8
THUMBNAIL, JPEG_QUALITY = 160, 78


def write(path: Path, review: Review) -> None:
    """Write the page: one file that needs no network and no other file."""
    sheets, vases = _sheets(review), _vases(review)
    shown = {item.filename: item for item in _shown(sheets, vases)}
    number = {name: index for index, name in enumerate(shown)}
    data = {
        "stage": review.stage,
        "vases": [_vase(vase, number) for vase in vases],
        "sheets": [sheet.data(number) for sheet in sheets],
        "applied": _applied(review),
        "curves": [_curve(curve) for curve in review.curves],
        "pictures": [_picture(*pair) for pair in zip(shown.values(), _thumbnails(shown.values()), strict=True)],
    }
    if review.stage == "quality":
        data |= _scores(review)
    parts = {
        "title": html.escape(review.title),
        "stage": review.stage,
        "lead": _lead(review),
        "vases": _vases_note(review, vases),
        "tables": "".join(map(_table, review.tables)),
        "css": _template("page.css"),
        "js": _template("page.js"),
        "data": _embedded(data),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template("page.html"))
    # Names that are no UTF-8 on disk hold lone surrogates, which a file in UTF-8 can't.
    files.write_text(path, text.encode("utf-8", "replace").decode())


def _template(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _embedded(data: Any) -> str:
    """JSON that may stand inside <script>: without `<` nothing in it can end the element or open a comment."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


# ---- what is shown ----


@dataclass(frozen=True)
class Sheet:
    """Some of `total` pictures, and how they were picked."""

    key: str
    title: str
    how: str
    total: int
    items: Sequence[Item]

    def data(self, number: Mapping[str, int]) -> dict[str, Any]:
        shown = len(self.items)
        all_of_them = "all shown" if shown == self.total else f"{shown:,} of {self.total:,} shown"
        return {
            "key": self.key,
            "title": self.title,
            "note": f"{all_of_them}, {self.how}",
            "pictures": [number[item.filename] for item in self.items],
        }


def _sheets(review: Review) -> list[Sheet]:
    """Contact sheets; those without a picture are left out."""
    sheets = [*_quality_sheets(review)] if review.stage == "quality" else []
    errors = [item for item in review.items if item.verdict == "error"]
    sheets.append(Sheet("errors", "Unreadable", "by name", len(errors), _sorted_by_name(errors)[:SHEET]))
    return [sheet for sheet in sheets if sheet.items]


def _quality_sheets(review: Review) -> Iterable[Sheet]:
    scored = sorted((item for item in review.items if item.score is not None), key=lambda i: (i.score, i.filename))
    threshold = _threshold(review)
    free = [item for item in scored if item.by_score]
    below = [item for item in free if item.score < threshold][-(SHEET // 2) :]
    above = [item for item in free if item.score >= threshold][: SHEET // 2]
    how = f"nearest to the threshold: {len(below)} below, {len(above)} above"
    yield Sheet("borderline", "Borderline", how, len(free), below + above)
    for verdict in ("accepted", "rejected"):
        items = [item for item in scored if item.verdict == verdict]
        how = "evenly from the lowest to the highest score"
        yield Sheet(verdict, verdict.capitalize(), how, len(items), _evenly(items))
    overridden = _sorted_by_name(item for item in scored if item.overridden)
    yield Sheet("overruled", "Overruled in this run", "by name", len(overridden), overridden[:SHEET])


def _evenly(items: Sequence[Item]) -> list[Item]:
    """At most SHEET of them, at equal distances, the first and the last among them."""
    picked = np.unique(np.linspace(0, len(items) - 1, min(SHEET, len(items))).round().astype(int))
    return [items[i] for i in picked]


def _sorted_by_name(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.filename)


def _vases(review: Review) -> list[VaseViews]:
    """The vases most worth a look: narrow choices first, then only views, then what a person has chosen already."""

    def rank(vase: VaseViews) -> tuple:
        return vase.views[0].overridden, vase.margin is None, vase.margin or 0.0, vase.vase

    return sorted((vase for vase in review.vases if vase.views), key=rank)[:VASES]


def _shown(sheets: Iterable[Sheet], vases: Iterable[VaseViews]) -> Iterable[Item]:
    for sheet in sheets:
        yield from sheet.items
    for vase in vases:
        yield from vase.views[:VIEWS]


# ---- data of the script ----


def _threshold(review: Review) -> float:
    """The run's threshold; where none is given, the lowest score that was accepted for its score."""
    if review.threshold is not None:
        return review.threshold
    free = [item for item in review.items if item.score is not None and item.by_score]
    accepted = [item.score for item in free if item.verdict == "accepted"]
    return min(accepted) if accepted else max((item.score for item in free), default=0.0)


def _scores(review: Review) -> dict[str, Any]:
    """The threshold, and the scores of all images: those it decides, and those that it does not."""
    scored = [item for item in review.items if item.score is not None]
    fixed = [item for item in scored if not (item.by_score or item.overridden)]
    return {
        "threshold": _threshold(review),
        "scores": _doubles(item.score for item in scored if item.by_score),
        "fixedScores": _doubles(item.score for item in fixed),
        "fixedAccepted": sum(item.verdict == "accepted" for item in fixed),
    }


def _doubles(values: Iterable[float]) -> str:
    """Sorted, as they are in memory: rounded ones could lie on the other side of a threshold that is one of them."""
    return base64.b64encode(np.sort(np.fromiter(values, "<f8")).tobytes()).decode()


def _applied(review: Review) -> list[dict[str, Any]]:
    """The overrides that this run was given: they stay in force unless they are taken back on the page."""
    if review.stage == "views":
        chosen = [(vase.vase, vase.views[0]) for vase in review.vases if vase.views and vase.views[0].overridden]
        return [{"name": item.filename, "decision": "best", "vase": vase} for vase, item in chosen]
    accept, reject = DECISIONS["quality"]
    return [
        {"name": item.filename, "decision": accept if item.verdict == "accepted" else reject, "score": item.score}
        for item in review.items
        if item.overridden and item.score is not None
    ]


def _picture(item: Item, thumbnail: str) -> dict[str, Any]:
    return {
        "name": item.filename,
        "verdict": item.verdict,
        "score": item.score,
        "reason": "" if item.by_score or item.overridden else item.reason,
        "byScore": item.by_score,
        "view": item.view,
        "jpeg": thumbnail,
    }


def _vase(vase: VaseViews, number: Mapping[str, int]) -> dict[str, Any]:
    return {
        "vase": vase.vase,
        "margin": vase.margin,
        "views": [number[item.filename] for item in vase.views[:VIEWS]],
        "more": len(vase.views[VIEWS:]),
    }


def _curve(curve: Curve) -> dict[str, Any]:
    """Points that are no numbers, such as a precision of nothing, are left out."""
    points = [(float(x), float(y)) for x, y in curve.points if np.isfinite(x) and np.isfinite(y)]
    return {
        "title": curve.title,
        "xLabel": curve.x_label,
        "yLabel": curve.y_label,
        "points": points,
        "marked": None if curve.marked is None else float(curve.marked),
    }


# ---- thumbnails ----


def _thumbnails(items: Iterable[Item]) -> list[str]:
    """JPEG in base64, empty where there is no picture to be had; as many are open at a time as there are threads."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda item: _thumbnail(item.source), items))


def _thumbnail(path: Path) -> str:
    try:
        picture, _ = images.decode(images.contents(path), at_least=THUMBNAIL)
    except ImageError:  # gone since it was scored, or the reason why it is an error
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


# ---- HTML that needs no script ----


def _lead(review: Review) -> str:
    """The counts in a sentence, linked to their sheets."""
    errors = sum(item.verdict == "error" for item in review.items)
    unreadable = [_link("errors", f"{errors:,} unreadable")] if errors else []
    if review.stage == "views":
        total = sum(len(vase.views) for vase in review.vases) + errors
        only = sum(len(vase.views) == 1 for vase in review.vases)
        chosen = sum(bool(vase.views) and vase.views[0].overridden for vase in review.vases)
        parts = [f"one view each of {len(review.vases):,} vases"]
        parts += [f"{only:,} with an only view"] * bool(only) + [f"{chosen:,} chosen by hand"] * bool(chosen)
        return f"<b>{total:,} photographs</b>: {', '.join([*parts, *unreadable])}."
    counts = {verdict: sum(item.verdict == verdict for item in review.items) for verdict in ("accepted", "rejected")}
    overridden = sum(item.overridden for item in review.items)
    others = sum(not (item.by_score or item.overridden) for item in review.items if item.score is not None)
    parts = [_link(verdict, f"{count:,} {verdict}") for verdict, count in counts.items()] + unreadable
    more = [_link("overruled", f"{overridden:,} overruled by hand")] * bool(overridden)
    more += [f"near-duplicates of a better picture, rejected at any threshold: {others:,}"] * bool(others)
    tail = f" Among them {'; '.join(more)}." if more else ""
    return f"<b>{len(review.items):,} photographs</b>: {', '.join(parts)}.{tail}"


def _link(sheet: str, text: str) -> str:
    """To a sheet, which is not there when it would be empty."""
    if text.startswith("0 "):
        return text
    return f'<a href="#sheet-{sheet}">{text}</a>'


def _vases_note(review: Review, shown: Sequence[VaseViews]) -> str:
    if review.stage != "views":
        return ""
    total = len(review.vases)
    part = "All shown" if len(shown) == total else f"{len(shown):,} of {total:,} shown"
    return f"{part}, smallest margin first; a margin is the lead of the chosen view over the runner-up"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f'<section class="table"><h2>{html.escape(table.title)}</h2>{note}<div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _cell(value: Cell) -> str:
    if value is None or isinstance(value, str):
        return f"<td>{html.escape(value or '')}</td>"
    if isinstance(value, Mapping):
        interval = f"{value['low']:.3f} to {value['high']:.3f}, n {value['n']:,}"
        return f'<td class="n">{value["value"]:.3f} <small>{interval}</small></td>'
    return f'<td class="n">{value:,}</td>' if isinstance(value, int) else f'<td class="n">{value:.3f}</td>'
