"""output/demo/index.html: one static file that shows what went in, what came out, and how well."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vasekit import files

THUMBNAIL = 112
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222;background:#fbfaf8}
h1{font-size:1.7rem}h2{margin-top:2.2rem;border-bottom:2px solid #c66b3c;padding-bottom:.2rem;font-size:1.25rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.row{display:flex;flex-wrap:wrap;gap:8px}figure{margin:0;width:116px;font-size:12px;line-height:1.25}
figure img{width:112px;height:112px;border:2px solid #ddd;display:block}figure.good img{border-color:#2e7d32}
figure.bad img{border-color:#b3261e}.wide figure{width:330px;display:flex;gap:8px}.right{color:#2e7d32}
.wrong{color:#b3261e}svg{background:#fff;border:1px solid #ddd}p.small{color:#666;font-size:13px}
"""


@dataclass(frozen=True)
class Picture:
    """A thumbnail with a caption; mark is "good", "bad" or "". Lines may hold HTML made by `mark_up`."""

    path: Path
    lines: Sequence[str]
    mark: str = ""

    def html(self) -> str:
        text = "<br>".join(self.lines)
        image = f'<img src="{_inline(self.path)}" alt="">'
        return f'<figure class="{self.mark}">{image}<figcaption>{text}</figcaption></figure>'


def _inline(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def mark_up(text: str, right: bool) -> str:
    """`text`, escaped, in green or red."""
    return f'<span class="{"right" if right else "wrong"}">{html.escape(text)}</span>'


def gallery(pictures: Iterable[Picture], wide: bool = False) -> str:
    """Thumbnails in a row."""
    return f'<div class="row{" wide" if wide else ""}">' + "".join(p.html() for p in pictures) + "</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells that start with a digit, a sign or a dot are numbers."""

    def cell(text: str) -> str:
        numeric = text[:1].isdigit() or text[:1] in ".+-"
        return f'<td class="n">{html.escape(text)}</td>' if numeric else f"<td>{html.escape(text)}</td>"

    body = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + f"</tr>{body}</table>"


def curve(title: str, points: Sequence[tuple[float, float]], width: int = 480, height: int = 170) -> str:
    """A line chart as inline SVG. points: (step, value)."""
    if len(points) < 2:
        return f"<p>{html.escape(title)}: too few points to draw</p>"
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(ys), max(ys)
    span = (high - low) or 1.0

    def at(x: float, y: float) -> str:
        left = 46 + (x - xs[0]) / ((xs[-1] - xs[0]) or 1) * (width - 60)
        return f"{left:.1f},{22 + (high - y) / span * (height - 46):.1f}"

    line = " ".join(at(x, y) for x, y in points)
    return (
        f'<svg width="{width}" height="{height}" font-size="11" font-family="sans-serif">'
        f'<text x="46" y="14" font-weight="bold">{html.escape(title)}</text>'
        f'<text x="4" y="30">{high:.3g}</text><text x="4" y="{height - 22}">{low:.3g}</text>'
        f'<text x="46" y="{height - 6}">step {xs[0]:g}</text>'
        f'<text x="{width - 60}" y="{height - 6}">step {xs[-1]:g}</text>'
        f'<polyline points="{line}" fill="none" stroke="#c66b3c" stroke-width="2"/></svg>'
    )


def write(path: Path, title: str, sections: Iterable[tuple[str, str]]) -> None:
    """Write the page; sections: (heading, HTML)."""
    body = "".join(f"<h2>{html.escape(heading)}</h2>{content}" for heading, content in sections)
    files.write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n",
    )
