"""Photographs of a vase: its surface as a dense point cloud, a depth buffer, one light, a backdrop.

Camera: orthographic, x to the right, y up, z towards the viewer. Azimuth 0 of a vase is the middle of its front.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

from vasekit.synth import damage, paint, shapes
from vasekit.synth.shapes import SHAPES, Body

Array = np.ndarray

VIEWS = ("front", "three-quarter", "left", "right", "back", "top", "bottom")
# Azimuth of the vase that faces the camera and height of the camera above the horizon, in degrees.
_AZIMUTH = {"left": -90.0, "right": 90.0, "back": 180.0}
OVERSAMPLE = 1.35
# Distance of neighbouring samples in pixels. 1 / sqrt 2 would leave no pixel empty in any orientation; a coarser grid
# has a quarter fewer samples, and its few pin holes are closed afterwards.
SPACING = 0.82

OUTSIDE, INSIDE, UNDERSIDE, HANDLE = 0, 1, 2, 3
_PLASTER = (222, 212, 194)


@dataclass(frozen=True)
class Camera:
    """facing: azimuth of the vase in front of the camera; pitch: height above the horizon; roll: tilt. Radians."""

    facing: float
    pitch: float
    roll: float = 0.0

    def project(self, position: Array) -> Array:
        """(n, 3) of the vase turned by `facing` already -> (n, 3) camera coordinates, float32."""
        cos_p, sin_p, cos_r, sin_r = np.cos(self.pitch), np.sin(self.pitch), np.cos(self.roll), np.sin(self.roll)
        pitch = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
        roll = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]])
        return position @ (roll @ pitch).T.astype(np.float32)


def camera_for(view: str, rng: np.random.Generator) -> Camera:
    """A photographer's aim at one of `VIEWS`."""
    azimuth = rng.choice([-1, 1]) * rng.uniform(38, 58) if view == "three-quarter" else _AZIMUTH.get(view, 0.0)
    pitch = {"top": rng.uniform(58, 85), "bottom": -rng.uniform(55, 80)}.get(view, rng.uniform(0, 14))
    return Camera(*np.deg2rad([azimuth + rng.uniform(-10, 10), pitch, rng.normal(0, 1.5)]))


@dataclass(frozen=True)
class Points:
    """Surface samples, turned so that the camera's azimuth is 0.

    position, normal: (n, 3). u, v: (n,) texture coordinates. part: (n,) OUTSIDE.. mark: (n,) damage.PAINTED..
    All float32 but part and mark, which are uint8.
    """

    position: Array
    normal: Array
    u: Array
    v: Array
    part: Array
    mark: Array

    def __getitem__(self, keep: Array) -> Points:
        return Points(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    @staticmethod
    def join(parts: list[Points]) -> Points:
        return Points(*(np.concatenate([getattr(p, name) for p in parts]) for name in Points.__dataclass_fields__))


class Vase:
    """One vase of the built-in world, a function of its seed; any of the four attributes can be fixed."""

    def __init__(
        self,
        seed: int,
        shape: str | None = None,
        technique: str | None = None,
        style: str | None = None,
        motif: str | None = None,
    ) -> None:
        rng = np.random.default_rng([seed, 0])
        drawn = (
            str(rng.choice(list(SHAPES))),
            str(rng.choice(paint.TECHNIQUES, p=(0.4, 0.4, 0.2))),
            str(rng.choice(paint.STYLES)),
            str(rng.choice(paint.MOTIFS)),
        )
        given = (shape, technique, style, motif)
        self.seed = seed
        self.shape, self.technique, self.style, self.motif = (g or d for g, d in zip(given, drawn, strict=True))

    @cached_property
    def body(self) -> Body:
        return shapes.make_body(SHAPES[self.shape], np.random.default_rng([self.seed, 1]))

    def wall(self, scale: float) -> paint.Wall:
        """The painted wall at `scale` texels per unit of length; the last one is kept, for the next view."""
        scale = float(2 ** (np.ceil(np.log2(scale) * 2) / 2))  # steps of sqrt 2: the views share one texture
        if getattr(self, "_wall", (None,))[0] != scale:
            rng = np.random.default_rng([self.seed, 2])
            self._wall = scale, paint.paint(self.body, self.technique, self.style, self.motif, rng, scale)
        return self._wall[1]


# ---- surface samples ----


def sample(body: Body, camera: Camera, spacing: float, broken: bool = False) -> Points:
    """All samples that this camera can see, about `spacing` apart. broken: the inside shows through holes."""
    parts = [_wall_points(body, camera, spacing, inside=False), _handle_points(body, camera, spacing)]
    if camera.pitch > 0 or broken:
        parts.append(_wall_points(body, camera, spacing, inside=True, broken=broken))
        parts.append(_disc(body, camera, spacing, body.radius_at(body.shape.floor) * 0.9, floor=True))
    if camera.pitch < 0:
        parts.append(_disc(body, camera, spacing, float(body.radius[0]), floor=False))
    return Points.join(parts)


def _wall_points(body: Body, camera: Camera, spacing: float, inside: bool, broken: bool = False) -> Points:
    at = np.arange(0, body.arc[-1], spacing)
    radius, y, n_r, n_y = (np.interp(at, body.arc, k) for k in (body.radius, body.y, body.normal_r, body.normal_y))
    if inside:
        lip, across = body.y[-1], body.radius[-1] + body.radius.max()
        deepest = body.shape.floor * lip
        if not broken:  # a level camera sees no deeper than this through the mouth
            deepest = max(deepest, lip - across * np.tan(min(camera.pitch, 1.5)) - 2 * spacing)
        rows = y >= deepest
        at, radius, y, n_r, n_y = at[rows], np.maximum(radius[rows] - 0.016, 0.004), y[rows], n_r[rows], n_y[rows]
    # A ring faces the camera where n_r cos(a) cos(pitch) + n_y sin(pitch) > 0: an interval of azimuths around 0.
    limit = np.arccos(np.clip(-n_y * np.sin(camera.pitch) / (n_r * np.cos(camera.pitch) + 1e-9), -1, 1))
    start, span = (limit, 2 * np.pi - 2 * limit) if inside else (-limit, 2 * limit)
    count = np.ceil(span * radius / spacing).astype(np.int64) + 1
    row = np.repeat(np.arange(len(at)), count)
    step = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    azimuth = (start[row] + step * (span / count)[row]).astype(np.float32)
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    radius, y, n_r, n_y = (k.astype(np.float32)[row] for k in (radius, y, n_r, n_y))
    sign = np.float32(-1 if inside else 1)
    u = (azimuth + np.float32(camera.facing + np.pi)) / np.float32(2 * np.pi)
    v = (1 - at / body.arc[-1]).astype(np.float32)[row]
    return Points(
        np.stack([radius * sin, y, radius * cos], 1),
        np.stack([sign * n_r * sin, sign * n_y, sign * n_r * cos], 1),
        u - np.floor(u),
        v,
        np.full(len(row), INSIDE if inside else OUTSIDE, np.uint8),
        np.zeros(len(row), np.uint8),
    )


def _handle_points(body: Body, camera: Camera, spacing: float) -> Points:
    position, normal = shapes.tubes(body, spacing)
    sin, cos = np.sin(camera.facing), np.cos(camera.facing)
    turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], np.float32)
    azimuth = np.arctan2(position[:, 0], position[:, 2]) / (2 * np.pi) + 0.5
    # For damage a handle belongs to the wall at its own height.
    v = 1 - np.interp(position[:, 1], body.y, body.arc) / body.arc[-1]
    count = len(position)
    points = Points(
        position @ turn.T,
        normal @ turn.T,
        azimuth.astype(np.float32),
        v.astype(np.float32),
        np.full(count, HANDLE, np.uint8),
        np.zeros(count, np.uint8),
    )
    facing = points.normal[:, 1] * np.sin(camera.pitch) + points.normal[:, 2] * np.cos(camera.pitch) > 0
    return points[facing]


def _disc(body: Body, camera: Camera, spacing: float, radius: float, floor: bool) -> Points:
    """The floor of the inside, or the underside of the foot."""
    side = np.arange(-radius, radius, spacing, dtype=np.float32)
    x, z = (k.ravel() for k in np.meshgrid(side, side))
    inside = x * x + z * z <= radius * radius
    x, z = x[inside], z[inside]
    y = body.shape.floor * body.y[-1] + 0.01 if floor else 0.004
    count = len(x)
    return Points(
        np.stack([x, np.full(count, y, np.float32), z], 1),
        np.tile(np.array([[0, 1 if floor else -1, 0]], np.float32), (count, 1)),
        np.hypot(x, z) / np.float32(radius),
        np.ones(count, np.float32),
        np.full(count, INSIDE if floor else UNDERSIDE, np.uint8),
        np.zeros(count, np.uint8),
    )


# ---- damage ----


def crack(points: Points, breaks: damage.Breaks, width: float) -> Points:
    """Dark lines with a pale rim of filler along every border between pieces, on the wall and the handles."""
    _, gap = breaks.at(points.u, points.v)
    surface = points.part != UNDERSIDE
    points.mark[surface & (gap < 2.2 * width)] = damage.PLASTER
    points.mark[surface & (gap < width)] = damage.CRACK
    return points


def lose(points: Points, breaks: damage.Breaks, lost: Array) -> Points:
    """Remove pieces; the wall shows raw clay along the break."""
    cell, gap = breaks.at(points.u, points.v)
    gone = np.isin(cell, lost) & (points.part != UNDERSIDE)
    points.mark[(gap < 0.02) & (points.part != UNDERSIDE) & ~gone] = damage.FRESH_BREAK
    return points[~gone]


def sherds(vase: Vase, spacing: float, rng: np.random.Generator) -> Points:
    """One to six pieces of the vase, each turned face up and laid out on the table (seen from above)."""
    body, pieces = vase.body, int(rng.integers(9, 16))
    breaks = damage.break_up(body, pieces, rng)
    shown = int(rng.integers(1, 7))
    columns = int(np.ceil(np.sqrt(shown)))
    order = rng.permutation(np.argsort(-np.bincount(breaks.cell.ravel(), minlength=pieces))[: shown + 3])[:shown]
    # Enlarged to about 0.27 units each, pieces need a finer grid than the whole vase.
    around = [sample(body, Camera(facing, 0.0), spacing * 0.7) for facing in (-2.0944, 0.0, 2.0944)]
    clouds = [
        (_turn(points, facing), breaks.at(points.u, points.v))
        for points, facing in zip(around, (-2.0944, 0.0, 2.0944), strict=True)
    ]
    laid = []
    for place, piece in enumerate(order):
        chosen = Points.join([points[(cell == piece) & (points.part == OUTSIDE)] for points, (cell, _) in clouds])
        if not len(chosen.u):
            continue
        _, gap = breaks.at(chosen.u, chosen.v)
        chosen.mark[gap < 0.016] = damage.FRESH_BREAK
        out = chosen.normal.mean(0)
        azimuth, height = np.arctan2(out[0], out[2]), np.arctan2(out[1], np.hypot(out[0], out[2]))
        turn = _rotation(rng.uniform(-np.pi, np.pi), rng.normal(0, 0.3), 0) @ _rotation(0, height, -azimuth)
        position = (chosen.position - chosen.position.mean(0)) @ turn.T
        position *= 0.27 * rng.uniform(0.7, 1.1) / np.abs(position[:, :2]).max()
        grid = (place % columns - (columns - 1) / 2, (columns - 1) / 2 - place // columns)
        position[:, :2] += np.array(grid, np.float32) * 0.62 + rng.normal(0, 0.05, 2).astype(np.float32)
        laid.append(Points(position, chosen.normal @ turn.T, chosen.u, chosen.v, chosen.part, chosen.mark))
    return Points.join(laid)


def _turn(points: Points, facing: float) -> Points:
    """Undo the turn of a camera: back to the vase's own azimuth."""
    turn = _rotation(0, 0, facing)
    return Points(points.position @ turn.T, points.normal @ turn.T, points.u, points.v, points.part, points.mark)


def _rotation(roll: float, pitch: float, yaw: float) -> Array:
    """Yaw about y, then pitch about x, then roll about z; (3, 3) float32."""
    cos_y, sin_y, cos_p, sin_p, cos_r, sin_r = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    about_x = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
    about_z = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]])
    return (about_z @ about_x @ about_y).astype(np.float32)


# ---- the picture ----


def photograph(vase: Vase, view: str, condition: str, size: int, rng: np.random.Generator) -> Image.Image:
    """One RGB photograph, size x size. condition: whole, sherds, missing or cracked."""
    return shoot(vase, camera_for(view, rng), condition, size, rng)


def shoot(vase: Vase, camera: Camera, condition: str, size: int, rng: np.random.Generator) -> Image.Image:
    """As `photograph`, with a camera of one's own."""
    resolution = round(size * OVERSAMPLE)
    fill = rng.uniform(0.76, 0.92)
    if condition == "sherds":
        table = Camera(0.0, 0.0, 0.0)
        points = sherds(vase, SPACING / (0.85 * resolution), rng)
        camera_points = points.position
        scale, offset = _frame(camera_points, resolution, fill, rng)
        camera, texture_scale = table, scale * 0.7
    else:
        coarse = sample(vase.body, camera, vase.body.extent / 50)
        scale, offset = _frame(camera.project(coarse.position), resolution, fill, rng)
        points = sample(vase.body, camera, SPACING / scale, broken=condition == "missing")
        if condition != "whole":
            points = _break(points, vase, condition, camera, rng)
        camera_points, texture_scale = camera.project(points.position), scale
    index, hit = _visible(camera_points, resolution, scale, offset)
    seen = points[index]
    colour = _colour(seen, vase, texture_scale)
    picture = _backdrop(hit, resolution, rng)
    picture[hit] = _light(colour, camera.project(seen.normal), seen.part, rng)
    _close_pin_holes(picture, hit, resolution)
    picture *= np.float32(rng.uniform(0.9, 1.08)) * (1 + rng.uniform(-0.03, 0.03, 3).astype(np.float32))
    pixels = np.clip(picture, 0, 255).astype(np.uint8).reshape(resolution, resolution, 3)
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX, reducing_gap=None)
    return _grain(image, rng)


def _break(points: Points, vase: Vase, condition: str, camera: Camera, rng: np.random.Generator) -> Points:
    breaks = damage.break_up(vase.body, int(rng.integers(8, 15)), rng)
    if condition == "cracked":
        return crack(points, breaks, rng.uniform(0.009, 0.014) * vase.body.extent)
    return lose(points, breaks, damage.lost_pieces(breaks, vase.body, camera.facing, rng))


def _frame(position: Array, resolution: int, fill: float, rng: np.random.Generator) -> tuple[float, Array]:
    """(pixels per unit, (x, y) of the origin in pixels) so that the object fills `fill` of the picture."""
    low, high = position[:, :2].min(0), position[:, :2].max(0)
    scale = float(resolution * fill / (high - low).max())
    middle = (low + high) / 2
    shake = rng.normal(0, 0.012 * resolution, 2)
    return scale, np.array(
        [resolution / 2 - middle[0] * scale + shake[0], resolution / 2 + middle[1] * scale + shake[1]]
    )


def _visible(position: Array, resolution: int, scale: float, offset: Array) -> tuple[Array, Array]:
    """Depth buffer: (index of the nearest sample of each covered pixel, (resolution ** 2,) bool covered)."""
    x = (position[:, 0] * np.float32(scale) + np.float32(offset[0])).astype(np.int32)
    y = (np.float32(offset[1]) - position[:, 1] * np.float32(scale)).astype(np.int32)
    inside = (x >= 0) & (x < resolution) & (y >= 0) & (y < resolution)
    depth = ((position[:, 2] + np.float32(4)) * np.float32(1e6)).astype(np.int64)
    # Nearest last: of several writes to one pixel the last one stays.
    packed = (depth << 24) | np.arange(len(x))
    packed = np.sort(packed[inside])
    order = packed & ((1 << 24) - 1)
    nearest = np.full(resolution * resolution, -1, np.int64)
    nearest[y[order] * resolution + x[order]] = order
    hit = nearest >= 0
    return nearest[hit], hit


def _colour(seen: Points, vase: Vase, scale: float) -> Array:
    """(n, 3) float32 paint of each visible sample."""
    wall = vase.wall(scale)
    height, width = wall.wear.shape
    row = np.minimum((seen.v * height).astype(np.int32), height - 1)
    column = np.minimum((seen.u * width).astype(np.int32), width - 1)
    colour = wall.pixels[row, column].astype(np.float32)
    colour *= (0.72 + wall.wear[row, column].astype(np.float32) * (0.28 / 128))[:, None]
    clay, slip = (np.array(c, np.float32) for c in (wall.palette.clay, wall.palette.slip))
    # Open shapes are glazed inside, closed ones show bare clay.
    colour[seen.part == INSIDE] = slip * 1.2 if vase.body.is_open else clay * 0.8
    colour[seen.part == HANDLE] = slip
    rings = (seen.u * 5).astype(np.int32) % 2 == 0
    under = seen.part == UNDERSIDE
    colour[under] = np.where(rings[under, None], clay, clay * 0.75)
    for mark, shown in ((damage.FRESH_BREAK, clay * 1.1 + 24), (damage.CRACK, (14, 11, 9)), (damage.PLASTER, _PLASTER)):
        colour[seen.mark == mark] = shown
    return colour


def _light(colour: Array, normal: Array, part: Array, rng: np.random.Generator) -> Array:
    """Blinn-Phong: one lamp from above, glossier where the paint is dark."""
    lamp = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.3, 0.8), rng.uniform(0.6, 1.1)])
    lamp /= np.linalg.norm(lamp)
    half = lamp + np.array([0, 0, 1])
    half /= np.linalg.norm(half)
    normal = np.where(normal[:, 2:] < 0, -normal, normal)
    diffuse = np.clip(normal @ lamp.astype(np.float32), 0, 1)
    glint = np.clip(normal @ half.astype(np.float32), 0, 1) ** np.float32(rng.uniform(18, 50))
    glint *= np.where(colour.mean(1) < 90, np.float32(95), np.float32(38)) * np.float32(rng.uniform(0.4, 1.0))
    shade = np.where(part == INSIDE, np.float32(0.55), np.float32(1))
    lit = (np.float32(rng.uniform(0.4, 0.55)) + np.float32(0.75) * diffuse) * shade
    return colour * lit[:, None] + (glint * shade)[:, None]


_BACKDROPS = (
    (236, 236, 234),
    (205, 205, 208),
    (150, 152, 156),
    (90, 92, 98),
    (66, 66, 70),
    (222, 214, 200),
    (168, 178, 190),
)


def backdrop(resolution: int, rng: np.random.Generator) -> Array:
    """A studio background, (resolution, resolution, 3) float32: a shaded wall, at times with a table edge."""
    base = np.array(_BACKDROPS[rng.integers(len(_BACKDROPS))]) + rng.uniform(-9, 9) + rng.uniform(-2, 2, 3)
    y = np.linspace(0, 1, resolution, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, resolution, dtype=np.float32)[None, :]
    shade = (1 - np.float32(rng.uniform(0, 0.25)) * y) * (1 - np.float32(0.08 * rng.uniform(0, 2)) * x * x)
    if rng.random() < 0.5:
        shade[round(resolution * rng.uniform(0.72, 0.9)) :] *= np.float32(rng.uniform(0.8, 0.95))
    return shade[..., None] * base.astype(np.float32)


def _backdrop(hit: Array, resolution: int, rng: np.random.Generator) -> Array:
    """The background with the object's soft shadow, (resolution ** 2, 3) float32."""
    small = max(8, resolution // 4)
    mask = Image.fromarray(hit.reshape(resolution, resolution) * np.uint8(255))
    shadow = (
        mask.resize((small, small)).filter(ImageFilter.GaussianBlur(small * 0.035)).resize((resolution, resolution))
    )
    drop = int(resolution * 0.02) + 1
    shade = np.roll(np.asarray(shadow), (drop, int(rng.integers(-2, 3)) * drop), (0, 1)).astype(np.float32) / 255
    return (backdrop(resolution, rng) * (1 - 0.38 * shade[..., None])).reshape(-1, 3)


def _close_pin_holes(picture: Array, hit: Array, resolution: int) -> None:
    """Empty pixels inside the object take the colour of the pixel above."""
    grid = hit.reshape(resolution, resolution)
    hole = ~grid[1:-1] & grid[:-2] & grid[2:]
    rows, columns = np.nonzero(hole)
    at = (rows + 1) * resolution + columns
    picture[at] = picture[at - resolution]


def _grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    size = image.size
    noise = rng.normal(0, rng.uniform(0.5, 4), (size[1], size[0], 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))
