"""Vase shapes as surfaces of revolution: a profile, the zones of its decoration, and handles as bent tubes.

Lengths are in units of the nominal vase height before `height` is applied; y is 0 at the foot and 1 at the lip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Shape:
    """One named shape.

    profile: control points "radius y, radius y, ..." from foot to lip. height: total height. zones: y of foot top, body
    base, frieze bottom, frieze top, shoulder, neck top. handles: key of `HANDLES`. floor: y where the inside ends.
    """

    name: str
    profile: str
    height: float
    zones: tuple[float, float, float, float, float, float]
    handles: str
    floor: float = 0.12


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "amphora",
            "0.16 0, 0.165 0.035, 0.08 0.06, 0.11 0.10, 0.24 0.30, 0.325 0.56, 0.30 0.68, "
            "0.17 0.755, 0.125 0.79, 0.118 0.89, 0.15 0.95, 0.175 0.965, 0.175 1",
            1.0,
            (0.06, 0.20, 0.28, 0.67, 0.765, 0.94),
            "neck pair",
        ),
        Shape(
            "hydria",
            "0.16 0, 0.165 0.035, 0.09 0.06, 0.14 0.12, 0.32 0.36, 0.40 0.58, 0.37 0.66, "
            "0.20 0.72, 0.11 0.76, 0.105 0.86, 0.18 0.96, 0.20 0.98, 0.20 1",
            0.92,
            (0.06, 0.20, 0.27, 0.64, 0.735, 0.95),
            "hydria",
        ),
        Shape(
            "bell-krater",
            "0.21 0, 0.215 0.05, 0.10 0.09, 0.10 0.15, 0.26 0.23, "
            "0.36 0.42, 0.375 0.66, 0.41 0.88, 0.475 0.965, 0.48 1",
            0.86,
            (0.12, 0.25, 0.30, 0.82, 0.86, 0.93),
            "low loops",
            0.18,
        ),
        Shape(
            "lekythos",
            "0.13 0, 0.135 0.05, 0.045 0.075, 0.08 0.11, 0.155 0.28, 0.175 0.55, 0.18 0.665, "
            "0.13 0.715, 0.05 0.745, 0.042 0.85, 0.075 0.89, 0.10 0.95, 0.105 1",
            1.1,
            (0.075, 0.20, 0.27, 0.665, 0.735, 0.88),
            "one neck",
        ),
        Shape(
            "kylix",
            "0.26 0, 0.25 0.05, 0.07 0.12, 0.05 0.28, 0.10 0.33, 0.34 0.44, 0.47 0.66, 0.52 0.90, 0.55 1",
            0.56,
            (0.11, 0.36, 0.47, 0.95, 0.97, 0.98),
            "rim loops long",
            0.34,
        ),
        Shape(
            "oinochoe",
            "0.16 0, 0.165 0.04, 0.12 0.06, 0.17 0.12, 0.28 0.30, 0.305 0.46, "
            "0.25 0.62, 0.13 0.74, 0.105 0.80, 0.12 0.88, 0.19 1",
            0.9,
            (0.06, 0.16, 0.23, 0.60, 0.74, 0.9),
            "one high",
        ),
        Shape(
            "skyphos",
            "0.24 0, 0.245 0.06, 0.215 0.085, 0.27 0.2, 0.37 0.48, 0.42 0.78, 0.43 1",
            0.64,
            (0.09, 0.22, 0.27, 0.88, 0.92, 0.96),
            "rim loops",
        ),
        Shape(
            "pelike",
            "0.24 0, 0.245 0.04, 0.21 0.06, 0.29 0.12, 0.385 0.27, 0.36 0.42, "
            "0.23 0.64, 0.165 0.78, 0.155 0.88, 0.20 0.96, 0.21 1",
            0.92,
            (0.06, 0.11, 0.16, 0.62, 0.74, 0.92),
            "pelike pair",
        ),
        Shape(
            "stamnos",
            "0.17 0, 0.175 0.04, 0.12 0.06, 0.20 0.2, 0.34 0.45, 0.42 0.68, "
            "0.38 0.82, 0.21 0.89, 0.18 0.92, 0.22 0.99, 0.22 1",
            0.78,
            (0.06, 0.22, 0.29, 0.77, 0.87, 0.95),
            "shoulder loops",
        ),
        Shape(
            "alabastron",
            "0.01 0, 0.09 0.02, 0.15 0.14, 0.165 0.4, 0.15 0.65, 0.10 0.82, 0.05 0.88, 0.05 0.93, 0.13 0.97, 0.13 1",
            1.0,
            (0.03, 0.14, 0.20, 0.74, 0.80, 0.9),
            "none",
        ),
        Shape(
            "kantharos",
            "0.20 0, 0.19 0.04, 0.05 0.11, 0.04 0.26, 0.10 0.31, 0.23 0.38, 0.25 0.48, 0.255 0.62, 0.31 0.92, 0.33 1",
            0.78,
            (0.10, 0.36, 0.45, 0.93, 0.955, 0.98),
            "swung pair",
            0.34,
        ),
        Shape(
            "aryballos",
            "0.05 0, 0.12 0.02, 0.27 0.14, 0.35 0.36, 0.31 0.58, 0.17 0.72, 0.08 0.76, 0.075 0.84, 0.19 0.92, 0.20 1",
            0.82,
            (0.03, 0.14, 0.19, 0.58, 0.70, 0.86),
            "one small",
        ),
    )
}


@dataclass(frozen=True)
class Body:
    """A vase's own profile: the shape's, varied by a few per cent.

    radius, y, arc: (n,) arrays from foot to lip; arc is the length along the wall. normal_r, normal_y: outward normal.
    """

    shape: Shape
    radius: Array
    y: Array
    arc: Array
    normal_r: Array
    normal_y: Array

    @cached_property
    def extent(self) -> float:
        """Larger of height and greatest diameter: what has to fit into the picture."""
        return float(max(self.y[-1], 2 * self.radius.max()))

    @property
    def is_open(self) -> bool:
        """The mouth is about as wide as the body."""
        return bool(self.radius[-1] > 0.9 * self.radius.max())

    def radius_at(self, y: float) -> float:
        """Radius at relative height y in 0..1."""
        return float(np.interp(y * self.shape.height, self.y, self.radius))

    def arc_at(self, y: float) -> float:
        """Length along the wall from the foot to relative height y in 0..1."""
        return float(np.interp(y * self.shape.height, self.y, self.arc))


def make_body(shape: Shape, rng: np.random.Generator, samples: int = 400) -> Body:
    """Vary the control points (radii by about 5 %, height by 4 %) and smooth them with a Catmull-Rom spline."""
    points = np.array([point.split() for point in shape.profile.split(",")], np.float64)
    wobble = rng.uniform(0.95, 1.05, len(points))
    wobble = (wobble + np.roll(wobble, 1) + np.roll(wobble, -1)) / 3
    points[:, 0] *= wobble * rng.uniform(0.95, 1.05)
    points[:, 1] *= shape.height * rng.uniform(0.96, 1.04)
    curve = catmull_rom(points, 24)
    curve[:, 0] = np.maximum(curve[:, 0], 0.004)
    curve[:, 1] = np.maximum.accumulate(np.clip(curve[:, 1], 0, points[-1, 1]))
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    arc = np.linspace(0, length[-1], samples)
    radius, y = (np.interp(arc, length, curve[:, k]) for k in (0, 1))
    d_radius, d_y = np.gradient(radius, arc), np.gradient(y, arc)
    norm = np.hypot(d_radius, d_y) + 1e-9
    return Body(shape, radius, y, arc, d_y / norm, -d_radius / norm)


def catmull_rom(points: Array, steps: int) -> Array:
    """Smooth curve through (n, d) `points`, `steps` samples per segment; (n * steps - steps + 1, d)."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    p0, p1, p2, p3 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return np.vstack([curve.transpose(1, 0, 2).reshape(-1, points.shape[1]), points[-1:]])


# ---- handles: centre lines of tubes. Azimuth 0 faces the viewer of a front view, +90 degrees is to the right. ----

LEFT, RIGHT, BACK = -np.pi / 2, np.pi / 2, np.pi


def _vertical(body: Body, azimuth: float, low: float, high: float, bulge: float, radius: float, lift: float = 0.0):
    """A strap that leaves the wall at `low`, stands off by `bulge`, rises by `lift` above `high` and returns there."""
    height = body.y[-1]
    r_low, r_high = body.radius_at(low) * 0.97, body.radius_at(high) * 0.97
    out = max(r_low, r_high) + bulge
    y_low, y_high = low * height, high * height
    path = [
        (r_low, y_low),
        (out, y_low + 0.35 * (y_high - y_low)),
        (out, y_low + 0.85 * (y_high - y_low) + lift),
        (r_high + 0.3 * (out - r_high), y_high + lift),
        (r_high, y_high),
    ]
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    return np.array([(r * sin, y, r * cos) for r, y in path]), radius


def _loop(body: Body, azimuth: float, at: float, span: float, bulge: float, lift: float, radius: float):
    """A horizontal loop of +-`span` radians around the wall at `at`, standing off by `bulge` and rising by `lift`."""
    r, y = body.radius_at(at) * 0.97, at * body.y[-1]
    arc = ((-1, 0, 0), (-0.95, 0.6, 0.4), (-0.6, 1, 0.9), (0, 1.08, 1), (0.6, 1, 0.9), (0.95, 0.6, 0.4), (1, 0, 0))
    path = [((azimuth + u * span), r + b * bulge, y + k * lift) for u, b, k in arc]
    return np.array([(out * np.sin(a), up, out * np.cos(a)) for a, out, up in path]), radius


HANDLES = {
    "none": lambda b: [],
    "neck pair": lambda b: [_vertical(b, a, 0.68, 0.90, 0.08, 0.024) for a in (LEFT, RIGHT)],
    "hydria": lambda b: [
        *(_loop(b, a, 0.58, 0.42, 0.09, 0.08, 0.022) for a in (LEFT, RIGHT)),
        _vertical(b, BACK, 0.66, 0.95, 0.06, 0.022),
    ],
    "low loops": lambda b: [_loop(b, a, 0.55, 0.34, 0.10, 0.14, 0.026) for a in (LEFT, RIGHT)],
    "one neck": lambda b: [_vertical(b, RIGHT, 0.70, 0.90, 0.07, 0.018)],
    "rim loops long": lambda b: [_loop(b, a, 0.88, 0.22, 0.17, 0.05, 0.018) for a in (LEFT, RIGHT)],
    "one high": lambda b: [_vertical(b, RIGHT, 0.48, 0.96, 0.10, 0.024, 0.09)],
    "rim loops": lambda b: [_loop(b, a, 0.9, 0.26, 0.15, 0.0, 0.02) for a in (LEFT, RIGHT)],
    "pelike pair": lambda b: [_vertical(b, a, 0.58, 0.90, 0.06, 0.024) for a in (LEFT, RIGHT)],
    "shoulder loops": lambda b: [_loop(b, a, 0.70, 0.28, 0.10, 0.07, 0.024) for a in (LEFT, RIGHT)],
    "swung pair": lambda b: [_vertical(b, a, 0.42, 0.97, 0.17, 0.02, 0.24) for a in (LEFT, RIGHT)],
    "one small": lambda b: [_vertical(b, RIGHT, 0.62, 0.93, 0.05, 0.026)],
}


def tubes(body: Body, spacing: float) -> tuple[Array, Array]:
    """Surface points and normals, each (n, 3), of all handles, at most `spacing` apart."""
    made = [_tube(path, radius, spacing) for path, radius in HANDLES[body.shape.handles](body)]
    if not made:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)
    return tuple(np.concatenate(parts).astype(np.float32) for parts in zip(*made, strict=True))


def _tube(path: Array, radius: float, spacing: float) -> tuple[Array, Array]:
    centre = catmull_rom(path, 12)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(centre, axis=0), axis=1))])
    # The outside of a bend is longer than the centre line: hence 1.4 times as many rings.
    at = np.linspace(0, length[-1], int(1.4 * length[-1] / spacing) + 2)
    centre = np.stack([np.interp(at, length, centre[:, k]) for k in range(3)], 1)
    along = np.gradient(centre, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.cross(along, (0.13, 0.05, 1.0))
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    angle = np.linspace(0, 2 * np.pi, int(2 * np.pi * radius / spacing) + 8, endpoint=False)[None, :, None]
    normal = side[:, None] * np.cos(angle) + np.cross(along, side)[:, None] * np.sin(angle)
    return (centre[:, None] + radius * normal).reshape(-1, 3), normal.reshape(-1, 3)
