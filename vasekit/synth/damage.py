"""How a vase breaks: a Voronoi pattern on the wall, looked up by every surface point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vasekit.synth.shapes import Body

Array = np.ndarray
ROWS, COLUMNS = 128, 256

# What a surface point shows besides its paint.
PAINTED, FRESH_BREAK, CRACK, PLASTER = 0, 1, 2, 3


@dataclass(frozen=True)
class Breaks:
    """cell: (ROWS, COLUMNS) piece number of each bit of wall, row 0 = lip. gap: distance to the next piece, in units of
    length."""

    cell: Array
    gap: Array

    def at(self, u: Array, v: Array) -> tuple[Array, Array]:
        """(cell, gap) for texture coordinates in 0..1."""
        row = np.minimum((v * ROWS).astype(np.int32), ROWS - 1)
        column = (u * COLUMNS).astype(np.int32) % COLUMNS
        return self.cell[row, column], self.gap[row, column]


def break_up(body: Body, pieces: int, rng: np.random.Generator) -> Breaks:
    """Cut the wall into about `pieces` jagged pieces."""
    # Metric: true lengths at the radius where each seed sits, so that pieces are as wide as they are high.
    theta = (np.arange(COLUMNS) + 0.5) / COLUMNS * 2 * np.pi
    arc = body.arc[-1] * (1 - (np.arange(ROWS) + 0.5) / ROWS)
    radius = np.interp(arc, body.arc, body.radius)
    mean_radius = float(np.average(body.radius, weights=body.radius))
    jag_a = 0.05 * np.sin(3 * theta[None] + 9 * arc[:, None]) + 0.03 * np.sin(11 * theta[None] - 21 * arc[:, None])
    jag_b = 0.03 * np.sin(17 * theta[None] + 13 * arc[:, None] + 1) + 0.02 * np.sin(5 * theta[None] + 31 * arc[:, None])
    # Seeds spread evenly by area: a low-discrepancy angle, heights by the cumulated radius.
    by_area = np.cumsum(radius[::-1]) / radius.sum()
    seed_arc = np.interp((rng.permutation(pieces) + rng.uniform(0.2, 0.8, pieces)) / pieces, by_area, arc[::-1])
    seed_theta = (np.arange(pieces) * 2.39996 + rng.uniform(0, 2 * np.pi)) % (2 * np.pi) + rng.normal(0, 0.2, pieces)
    around = np.abs((theta[None, None] - seed_theta[:, None, None] + np.pi) % (2 * np.pi) - np.pi) * mean_radius
    along = arc[None, :, None] - seed_arc[:, None, None]
    distance = np.sqrt((around + jag_a) ** 2 + (along + jag_b) ** 2).astype(np.float32)
    nearest = np.partition(distance, 1, axis=0)
    return Breaks(distance.argmin(0).astype(np.int8), nearest[1] - nearest[0])


def lost_pieces(breaks: Breaks, body: Body, facing: float, rng: np.random.Generator) -> Array:
    """Numbers of the pieces that are gone: one that the camera at azimuth `facing` sees for certain, and some others.

    Pieces that carry the foot or the lip's whole ring may go as well; at least half of the wall stays.
    """
    theta = (np.arange(COLUMNS) + 0.5) / COLUMNS * 2 * np.pi - np.pi
    arc = body.arc[-1] * (1 - (np.arange(ROWS) + 0.5) / ROWS)
    radius = np.interp(arc, body.arc, body.radius)
    pieces = int(breaks.cell.max()) + 1
    cell = breaks.cell.ravel()
    towards = np.clip(np.cos(theta - facing), 0, None)[None] ** 2 * radius[:, None]
    seen = np.bincount(cell, weights=towards.ravel(), minlength=pieces)
    area = np.bincount(cell, weights=np.broadcast_to(radius[:, None], breaks.cell.shape).ravel(), minlength=pieces)
    lost = [int(rng.choice(np.argsort(-seen)[:2]))]
    for piece in rng.permutation(pieces):
        if piece not in lost and len(lost) < max(2, pieces // 3) and area[[*lost, piece]].sum() < 0.5 * area.sum():
            lost.append(int(piece))
    return np.array(lost)
