"""The painted wall of one vase, unrolled: columns are the azimuth, row 0 is the lip.

Technique decides the colours, style decides the scheme. `plain` pieces carry one figure on an otherwise black or pale
body; `ornate` ones are covered with bands. Style is what dates a vase of this world, see `world.DATES`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vasekit.synth import motifs
from vasekit.synth.shapes import Body

Array = np.ndarray
TECHNIQUES = ("black-figure", "red-figure", "white-ground")
STYLES = ("plain", "ornate")
MOTIFS = tuple(motifs.FIGURES)

CLAY, SLIP, CHALK = (202, 108, 60), (26, 22, 20), (236, 226, 206)


@dataclass(frozen=True)
class Palette:
    """Colours of one vase: body = what most of the wall shows, scene = ground of the picture, figure, incised, band."""

    clay: motifs.Colour
    slip: motifs.Colour
    body: motifs.Colour
    scene: motifs.Colour
    figure: motifs.Colour
    incised: motifs.Colour
    band: motifs.Colour


@dataclass(frozen=True)
class Wall:
    """The texture: pixels (H, W, 3) uint8, wear (H, W) uint8 around 128, and the palette."""

    pixels: Array
    wear: Array
    palette: Palette


def palette_of(technique: str, rng: np.random.Generator) -> Palette:
    """The colours of a technique, varied a little per vase."""

    def vary(colour: motifs.Colour, by: float) -> motifs.Colour:
        shared = rng.uniform(-by, by)
        return tuple(int(np.clip(c + shared + rng.uniform(-by, by) / 3, 0, 255)) for c in colour)

    clay, slip, chalk = vary(CLAY, 14), vary(SLIP, 7), vary(CHALK, 9)
    if technique == "black-figure":
        return Palette(clay, slip, clay, clay, slip, clay, slip)
    if technique == "red-figure":
        return Palette(clay, slip, slip, slip, clay, slip, clay)
    return Palette(clay, slip, chalk, chalk, vary((112, 58, 40), 14), chalk, slip)


def paint(body: Body, technique: str, style: str, motif: str, rng: np.random.Generator, scale: float) -> Wall:
    """Paint the wall of `body` at `scale` texels per unit of length."""
    radius = body.radius_at((body.shape.zones[2] + body.shape.zones[3]) / 2)
    width, height = int(2 * np.pi * radius * scale), int(body.arc[-1] * scale)
    canvas = Image.new("RGB", (width, height))
    painter = _Painter(ImageDraw.Draw(canvas), body, palette_of(technique, rng), rng, width, height)
    (painter.ornate if style == "ornate" else painter.plain)(motif)
    coarse = Image.fromarray(rng.integers(90, 166, (14, 20), dtype=np.uint8))
    wear = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return Wall(np.asarray(canvas), np.asarray(wear), painter.colours)


class _Painter:
    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        body: Body,
        colours: Palette,
        rng: np.random.Generator,
        width: int,
        height: int,
    ) -> None:
        self.draw, self.body, self.colours, self.rng, self.width = draw, body, colours, rng, width
        self.per_y = height / body.arc[-1]
        foot, base, low, high, shoulder, neck = body.shape.zones
        self.foot, self.base, self.low, self.high, self.shoulder, self.neck = (
            height - body.arc_at(y) * self.per_y for y in (foot, base, low, high, shoulder, neck)
        )
        self.middle = (low + high) / 2

    def brush(self, azimuth: float, ground: float, height: float, at: float | None = None) -> motifs.Brush:
        """A brush at `azimuth` (0..1 around, 0.5 = front) whose proportions are right at relative height `at`."""
        around = 2 * np.pi * self.body.radius_at(self.middle if at is None else at)
        mirrored = bool(self.rng.integers(2))
        return motifs.Brush(azimuth * self.width, ground, self.width / around, self.per_y, height, mirrored)

    def band(self, top: float, bottom: float, colour: motifs.Colour, left: float = 0.0, right: float = 1.0) -> None:
        self.draw.rectangle((left * self.width, top, right * self.width, bottom), fill=colour)

    def figure(self, motif: str) -> None:
        """One large figure in the middle of the front."""
        room = (self.low - self.high) / self.per_y
        aspect = motifs.FIGURES[motif][0]
        # No wider than a third of the way round, or its ends vanish behind the horizon of the body.
        across = 2 * np.pi * self.body.radius_at(self.middle) * 0.42 / aspect
        height = min(room * 0.95, across)
        ground = self.low - (room - height) / 2 * self.per_y * 0.8
        motifs.draw_figure(
            self.draw, motif, self.brush(0.5, ground, height / 1.06), self.colours.figure, self.colours.incised
        )

    def plain(self, motif: str) -> None:
        """Early scheme: a dark (or pale) body, one picture on the front, nothing else."""
        c = self.colours
        ground = c.slip if c.body == c.clay else c.body
        self.band(0, self.foot * 2, c.slip)
        self.band(self.shoulder, self.base, ground)
        # The picture: a reserved panel in black-figure, the bare ground otherwise, framed by a thin line.
        left, right = 0.5 - 0.23, 0.5 + 0.23
        self.band(self.high, self.low, c.scene, left, right)
        line = max(1, round(0.008 * self.per_y))
        for y in (self.high, self.low):
            self.draw.line([(left * self.width, y), (right * self.width, y)], fill=c.band, width=line)
        self.figure(motif)

    def ornate(self, motif: str) -> None:
        """Late scheme: rays, a meander under and a chequer over the picture, tongues, palmettes all around."""
        c, rng = self.colours, self.rng
        self.band(0, self.foot * 2, c.slip)
        self.band(self.shoulder, self.base, c.body)
        self.band(self.base, self.foot, c.clay)
        cell = 0.075 * self.per_y * rng.uniform(0.85, 1.15)
        motifs.rays(self.draw, self.base, self.foot, self.width, cell * 1.3, c.slip)
        thick = max(4.0, 0.13 * (self.low - self.high))
        self.band(self.low - thick, self.low, c.clay)
        motifs.meander(self.draw, self.low - thick, self.low, self.width, cell * 1.2, c.slip)
        self.band(self.high, self.high + 0.7 * thick, CHALK)
        motifs.checks(self.draw, self.high, self.high + 0.7 * thick, self.width, cell * 0.7, c.slip)
        if self.high - self.shoulder > 4:
            self.band(self.shoulder, self.high, c.clay)
            motifs.tongues(self.draw, self.shoulder + 1, self.high - 1, self.width, cell * 0.8, c.slip)
        self.low -= thick
        self.high += 0.7 * thick
        room = (self.low - self.high) / self.per_y
        for azimuth in (0.0, 0.2, 0.8, 1.0):
            motifs.palmette(self.draw, self.brush(azimuth, self.low - 2, min(room * 0.8, 0.26)), c.figure)
        self.figure(motif)
