"""What is painted: figures as a few bold strokes in a unit box, and the running ornaments of a vase.

A figure is drawn in x -0.5..0.5 (to the right) and y 0..1 (up). `fill` strokes take the figure's colour, `incised` ones
the colour of scratched or painted inner lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import ImageDraw

from vasekit.synth.shapes import catmull_rom

Colour = tuple[int, int, int]
Stroke = tuple  # ("blob", points) | ("poly", points) | ("oval", x, y, rx, ry) | ("ring", ...) | ("line", points, width)


def _blob(text: str) -> Stroke:
    return ("blob", _points(text))


def _poly(text: str) -> Stroke:
    return ("poly", _points(text))


def _line(text: str, width: float) -> Stroke:
    return ("line", _points(text), width)


def _oval(x: float, y: float, rx: float, ry: float) -> Stroke:
    return ("oval", x, y, rx, ry)


def _ring(x: float, y: float, rx: float, ry: float) -> Stroke:
    return ("ring", x, y, rx, ry)


def _points(text: str) -> tuple[tuple[float, float], ...]:
    numbers = [float(word) / 100 for word in text.split()]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


# Coordinates below are in hundredths of the box. aspect = width / height of the drawn figure.
FIGURES: dict[str, tuple[float, tuple[Stroke, ...], tuple[Stroke, ...]]] = {
    "warrior": (
        0.80,
        (
            _blob("-9 82 -3 74 8 76 10 88 4 97 -6 96 -12 90"),
            _blob("-14 88 -16 100 -2 106 14 100 18 88 10 98 -2 101 -10 97"),
            _poly("-12 76 12 76 10 46 -10 46"),
            _poly("-13 50 13 50 16 38 -16 38"),
            _line("-7 42 -14 22 -16 3 -26 2", 0.085),
            _line("8 42 17 22 15 3 26 2", 0.085),
            _line("-10 72 -26 62 -30 74", 0.06),
            _oval(0.17, 0.60, 0.20, 0.22),
            _line("-31 2 -29 104", 0.035),
            _poly("-33 98 -25 98 -29 112"),
        ),
        (_ring(0.17, 0.60, 0.15, 0.165), _oval(0.17, 0.60, 0.05, 0.055), _line("0 86 9 86", 0.02)),
    ),
    "horse": (
        1.10,
        (
            _blob("-33 62 -38 48 -30 36 -10 40 10 38 24 42 28 54 20 66 0 62 -20 66"),
            _blob("12 60 22 52 30 62 36 80 40 90 30 98 20 88 16 74"),
            _blob("28 98 36 100 52 82 56 74 48 70 40 78 30 82"),
            _poly("27 96 31 106 36 96"),
            _line("-30 46 -36 26 -30 22 -34 2", 0.075),
            _line("-22 44 -20 24 -24 2", 0.075),
            _line("18 46 20 24 17 2", 0.075),
            _line("24 48 40 38 38 18", 0.07),
            _blob("-32 62 -44 60 -52 40 -48 16 -44 34 -40 46 -32 52"),
        ),
        (_line("16 70 24 92", 0.03), _line("21 68 29 88", 0.025), _oval(0.40, 0.86, 0.022, 0.025)),
    ),
    "owl": (
        0.75,
        (
            _blob("-22 70 -26 46 -18 22 -6 12 8 12 20 24 27 46 22 70"),
            _blob("-25 78 -24 96 -12 94 0 96 12 94 24 96 25 78 16 64 0 60 -16 64"),
            _poly("-25 84 -28 106 -10 94"),
            _poly("25 84 28 106 10 94"),
            _line("-9 14 -9 3 -16 2", 0.055),
            _line("9 14 9 3 16 2", 0.055),
            _poly("16 34 38 2 24 2 8 18"),
        ),
        (
            _oval(-0.115, 0.80, 0.095, 0.10),
            _oval(0.115, 0.80, 0.095, 0.10),
            _poly("-4 70 4 70 0 60"),
            *(_oval(x / 100, y / 100, 0.022, 0.03) for x in (-12, 0, 12) for y in (26, 38, 50)),
        ),
    ),
    "ship": (
        1.30,
        (
            _blob("-66 58 -60 34 -44 14 0 8 42 12 58 26 70 52 58 40 44 32 0 28 -44 32 -56 42"),
            _line("-1 26 -1 108", 0.045),
            _blob("-38 98 0 104 38 98 32 72 34 46 0 42 -34 46 -32 72"),
            *(_line(f"{x} 18 {x - 9} -1", 0.03) for x in range(-42, 50, 12)),
        ),
        (
            _line("-33 60 33 60", 0.025),
            _line("-34 80 34 80", 0.025),
            _line("-12 44 -12 101", 0.02),
            _line("12 44 12 101", 0.02),
            _oval(0.50, 0.28, 0.035, 0.035),
        ),
    ),
    "dolphin": (
        1.30,
        (
            _blob("-58 30 -44 40 -24 62 4 74 30 68 48 52 62 36 56 32 42 36 24 40 0 42 -24 34 -44 22"),
            _poly("-4 72 -12 98 16 72"),
            _poly("16 42 8 18 30 38"),
            _blob("-52 32 -70 52 -76 44 -66 30 -74 10 -64 8 -48 24"),
            _line("-60 4 -40 10 -20 2 0 10 20 2 40 10 60 4", 0.05),
        ),
        (_oval(0.42, 0.52, 0.03, 0.035), _line("-28 44 0 54 24 52", 0.025), _line("44 42 56 38", 0.02)),
    ),
    "lyre": (
        0.80,
        (
            _blob("-24 34 -26 16 -12 4 12 4 26 16 24 34 10 40 -10 40"),
            _line("-22 30 -36 56 -30 78 -18 94", 0.085),
            _line("22 30 36 56 30 78 18 94", 0.085),
            _oval(-0.17, 0.96, 0.07, 0.06),
            _oval(0.17, 0.96, 0.07, 0.06),
            _line("-34 86 34 86", 0.07),
            *(_line(f"{x} 84 {x * 0.7} 22", 0.022) for x in (-14, -7, 0, 7, 14)),
        ),
        (_line("-14 22 14 22", 0.03), _ring(0.0, 0.14, 0.05, 0.05)),
    ),
}


@dataclass(frozen=True)
class Brush:
    """Where a figure lands on the texture: centre x and ground line y in texels, texels per unit in both directions."""

    x: float
    y: float
    per_x: float
    per_y: float
    height: float
    mirrored: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + (-x if self.mirrored else x) * self.height * self.per_x, self.y - y * self.height * self.per_y


@cache
def _smooth(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    closed = np.array([*points, points[0]])
    return tuple(map(tuple, catmull_rom(closed, 5)))


def draw_figure(draw: ImageDraw.ImageDraw, name: str, brush: Brush, fill: Colour, incised: Colour) -> None:
    """Paint one figure of `FIGURES`."""
    _, body, lines = FIGURES[name]
    for strokes, colour in ((body, fill), (lines, incised)):
        for stroke in strokes:
            _STROKES[stroke[0]](draw, brush, colour, *stroke[1:])


def _draw_poly(draw: ImageDraw.ImageDraw, brush: Brush, colour: Colour, points: tuple) -> None:
    draw.polygon([brush.at(*p) for p in points], fill=colour)


def _draw_blob(draw: ImageDraw.ImageDraw, brush: Brush, colour: Colour, points: tuple) -> None:
    draw.polygon([brush.at(*p) for p in _smooth(points)], fill=colour)


def _draw_line(draw: ImageDraw.ImageDraw, brush: Brush, colour: Colour, points: tuple, width: float) -> None:
    pixels = width * brush.height * (brush.per_x + brush.per_y) / 2
    draw.line([brush.at(*p) for p in points], fill=colour, width=max(1, round(pixels)), joint="curve")


def _box(brush: Brush, x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
    centre_x, centre_y = brush.at(x, y)
    half_x, half_y = rx * brush.height * brush.per_x, ry * brush.height * brush.per_y
    return centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y


def _draw_oval(draw: ImageDraw.ImageDraw, brush: Brush, colour: Colour, *oval: float) -> None:
    draw.ellipse(_box(brush, *oval), fill=colour)


def _draw_ring(draw: ImageDraw.ImageDraw, brush: Brush, colour: Colour, *oval: float) -> None:
    draw.ellipse(_box(brush, *oval), outline=colour, width=max(1, round(0.02 * brush.height * brush.per_y)))


_STROKES: dict[str, Callable[..., None]] = {
    "poly": _draw_poly,
    "blob": _draw_blob,
    "line": _draw_line,
    "oval": _draw_oval,
    "ring": _draw_ring,
}


# ---- running ornaments: y grows downwards, `top` and `bottom` in texels, around the whole vase ----


def meander(draw: ImageDraw.ImageDraw, top: float, bottom: float, width: int, cell: float, colour: Colour) -> None:
    """A key pattern, one hook per `cell` texels."""
    count = max(8, round(width / cell))
    step, height, line = width / count, bottom - top, max(1, round((bottom - top) * 0.13))
    hook = ((0, 0.12), (0, 0.88), (0.78, 0.88), (0.78, 0.32), (0.4, 0.32), (0.4, 0.62))
    for k in range(count):
        x = k * step
        draw.line([(x + a * step, bottom - b * height) for a, b in hook], fill=colour, width=line)
        draw.line([(x, bottom - 0.12 * height), (x + step, bottom - 0.12 * height)], fill=colour, width=line)


def tongues(draw: ImageDraw.ImageDraw, top: float, bottom: float, width: int, cell: float, colour: Colour) -> None:
    """Upright leaves, alternately filled."""
    count = max(8, round(width / cell))
    step = width / count
    for k in range(count):
        box = (k * step + 0.12 * step, top, k * step + 0.88 * step, bottom)
        draw.ellipse(box, fill=colour if k % 2 else None, outline=colour, width=max(1, round(step * 0.12)))


def rays(draw: ImageDraw.ImageDraw, top: float, bottom: float, width: int, cell: float, colour: Colour) -> None:
    """Spikes that rise from the foot."""
    count = max(8, round(width / cell))
    step = width / count
    for k in range(count):
        x = k * step
        draw.polygon([(x + 0.1 * step, bottom), (x + 0.9 * step, bottom), (x + 0.5 * step, top)], fill=colour)


def checks(draw: ImageDraw.ImageDraw, top: float, bottom: float, width: int, cell: float, colour: Colour) -> None:
    """A chequer band of two rows."""
    count = max(8, round(width / cell)) // 2 * 2
    step, middle = width / count, (top + bottom) / 2
    for k in range(count):
        low, high = (top, middle) if k % 2 else (middle, bottom)
        draw.rectangle((k * step, low, (k + 1) * step, high), fill=colour)


def palmette(draw: ImageDraw.ImageDraw, brush: Brush, colour: Colour) -> None:
    """A fan of seven leaves over two volutes, `brush.height` high."""
    for angle in np.deg2rad(np.linspace(-84, 84, 7)):
        tip = (np.sin(angle) * 0.5, 0.28 + np.cos(angle) * 0.66)
        _draw_line(draw, brush, colour, ((0, 0.25), tip), 0.1)
        _draw_oval(draw, brush, colour, *tip, 0.09, 0.1)
    for x in (-0.2, 0.2):
        _draw_ring(draw, brush, colour, x, 0.13, 0.16, 0.13)
