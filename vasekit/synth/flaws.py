"""What is wrong with a picture rather than with the vase: blur, low resolution, drawings, other things."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vasekit.synth.render import backdrop

Rng = np.random.Generator


def blur(image: Image.Image, rng: Rng) -> Image.Image:
    """Out of focus: a Gaussian of 2.2 to 5 % of the width."""
    return image.filter(ImageFilter.GaussianBlur(image.width * rng.uniform(0.022, 0.05)))


def low_resolution(image: Image.Image, rng: Rng) -> Image.Image:
    """A thumbnail of 12 to 24 pixels, enlarged."""
    side = int(rng.integers(12, 25))
    enlarge = Image.Resampling.NEAREST if rng.random() < 0.5 else Image.Resampling.BILINEAR
    return image.resize((side, side), Image.Resampling.BOX).resize(image.size, enlarge)


def drawing(image: Image.Image, rng: Rng) -> Image.Image:
    """A pencil drawing on paper: the picture divided by its blur ("colour dodge")."""
    grey = image.convert("L")
    light = np.asarray(grey, np.float32)
    soft = np.asarray(grey.filter(ImageFilter.GaussianBlur(image.width * 0.012)), np.float32)
    pencil = np.clip(255 - np.clip(255 - light * 255 / (soft + 1), 0, 255) * 2.4, 0, 255)
    paper = np.array([250, 246, 236], np.float32) * np.float32(rng.uniform(0.92, 1))
    return Image.fromarray((pencil[..., None] / 255 * paper).astype(np.uint8))


def not_a_vase(size: int, rng: Rng) -> Image.Image:
    """A page, a landscape, a coin, a crate, fruit or a temple: what strays into a folder of vases."""
    side = size * 2
    image = Image.fromarray(np.clip(backdrop(side, rng), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    _OTHERS[rng.integers(len(_OTHERS))](draw, side, rng)
    image = image.resize((size, size), Image.Resampling.BOX)
    noise = rng.normal(0, rng.uniform(1, 5), (size, size, 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _tone(rng: Rng, *colour: int) -> tuple[int, ...]:
    return tuple(int(np.clip(c + rng.normal(0, 14), 0, 255)) for c in colour)


def _page(draw: ImageDraw.ImageDraw, side: int, rng: Rng) -> None:
    left, top = side * rng.uniform(0.05, 0.2), side * rng.uniform(0.04, 0.12)
    draw.rectangle((left, top, side - left, side - top), fill=_tone(rng, 244, 240, 228))
    step = side * rng.uniform(0.035, 0.06)
    for y in np.arange(top + 2 * step, side - top - step, step):
        end = side - left - step - (rng.uniform(0, side * 0.3) if rng.random() < 0.2 else 0)
        draw.line([(left + step, y), (end, y)], fill=_tone(rng, 60, 58, 60), width=max(1, int(step * 0.3)))


def _landscape(draw: ImageDraw.ImageDraw, side: int, rng: Rng) -> None:
    draw.rectangle((0, 0, side, side), fill=_tone(rng, 140, 180, 220))
    for depth, colour in enumerate(((120, 140, 150), (96, 128, 84), (80, 110, 60))):
        level, phase = side * (0.45 + 0.17 * depth), rng.uniform(0, 6)
        ridge = [(x, level + side * 0.07 * np.sin(x / side * rng.uniform(4, 6) + phase)) for x in range(0, side + 8, 8)]
        draw.polygon([(0, side), *ridge, (side, side)], fill=_tone(rng, *colour))


def _coin(draw: ImageDraw.ImageDraw, side: int, rng: Rng) -> None:
    r, colour = side * rng.uniform(0.3, 0.44), _tone(rng, 150, 145, 135)
    middle = side / 2
    draw.ellipse((middle - r, middle - r, middle + r, middle + r), fill=colour)
    draw.ellipse(
        (middle - r * 0.9, middle - r * 0.9, middle + r * 0.9, middle + r * 0.9),
        outline=_tone(rng, 90, 86, 80),
        width=4,
    )
    draw.ellipse(
        (middle - r * 0.3, middle - r * 0.5, middle + r * 0.35, middle + r * 0.3), fill=_tone(rng, 190, 186, 176)
    )
    draw.polygon(
        [(middle + r * 0.3, middle - r * 0.2), (middle + r * 0.55, middle), (middle + r * 0.25, middle + r * 0.1)],
        fill=_tone(rng, 190, 186, 176),
    )


def _crate(draw: ImageDraw.ImageDraw, side: int, rng: Rng) -> None:
    a, b, colour = side * rng.uniform(0.15, 0.25), side * rng.uniform(0.3, 0.4), _tone(rng, 160, 120, 80)
    draw.rectangle((a, b, side - a, side * 0.85), fill=colour)
    draw.polygon(
        [(a, b), (a + b * 0.4, b * 0.6), (side - a * 0.4, b * 0.6), (side - a, b)], fill=_tone(rng, 190, 150, 110)
    )
    for y in np.linspace(b, side * 0.85, 5):
        draw.line([(a, y), (side - a, y)], fill=_tone(rng, 90, 66, 40), width=5)


def _fruit(draw: ImageDraw.ImageDraw, side: int, rng: Rng) -> None:
    for _ in range(int(rng.integers(2, 6))):
        x, y, r = *(rng.uniform(0.25, 0.75, 2) * side), side * rng.uniform(0.1, 0.2)
        colour = _tone(rng, *((200, 40, 40), (90, 160, 60), (230, 170, 50))[rng.integers(3)])
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        draw.ellipse((x - r * 0.5, y - r * 0.6, x - r * 0.1, y - r * 0.2), fill=tuple(min(255, c + 50) for c in colour))
        draw.line([(x, y - r), (x + r * 0.2, y - r * 1.4)], fill=(70, 50, 30), width=6)


def _temple(draw: ImageDraw.ImageDraw, side: int, rng: Rng) -> None:
    draw.rectangle((0, 0, side, side * 0.8), fill=_tone(rng, 150, 185, 225))
    stone, dark = _tone(rng, 222, 212, 190), _tone(rng, 120, 110, 95)
    left, right, top, base = side * 0.1, side * 0.9, side * rng.uniform(0.25, 0.4), side * 0.82
    draw.polygon([(left, top), (side / 2, top - side * 0.16), (right, top)], fill=stone)
    draw.rectangle((left, top, right, top + side * 0.06), fill=stone)
    draw.rectangle((left, top + side * 0.06, right, base), fill=dark)
    for x in np.linspace(left, right - side * 0.07, int(rng.integers(4, 8))):
        draw.rectangle((x, top + side * 0.06, x + side * 0.07, base), fill=stone)


_OTHERS: tuple[Callable[[ImageDraw.ImageDraw, int, Rng], None], ...] = (
    _page,
    _landscape,
    _coin,
    _crate,
    _fruit,
    _temple,
)
