"""Renders for training and judging the built-in models: arrays in memory, from worlds that are never delivered."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vasekit.builtin.captions import Traits, traits_of
from vasekit.synth import world
from vasekit.synth.world import Photo

SIZE = 112
_TAKEN = (112, 128, 128, 224)  # pixels of the photographs before they are scaled
# One reserved world per use, so that no vase is seen twice.
CLIP_TRAIN, CLIP_TEST, CLIP_VIEWS, VLM_TRAIN, VLM_TEST = range(world.RESERVED + 1, world.RESERVED + 6)

_CONDITIONS = {
    "whole": 0.58,
    "sherds": 0.1,
    "missing": 0.1,
    "cracked": 0.1,
    "blur": 0.03,
    "low_resolution": 0.03,
    "drawing": 0.03,
    "not_a_vase": 0.03,
}
_VIEWS = dict(zip(world.VIEWS, (0.28, 0.18, 0.1, 0.1, 0.2, 0.07, 0.07), strict=True))


@dataclass(frozen=True)
class Renders:
    """images: (n, SIZE, SIZE, 3) uint8. traits: n dictionaries as captions use them."""

    images: np.ndarray
    traits: list[Traits]


def mixed(number: int, count: int) -> Renders:
    """`count` photographs, two of each vase, in every condition and from every side."""

    def shot(index: int) -> Photo:
        seed = world.vase_seed(number, index // 2)
        rng = np.random.default_rng([seed, 8, index % 2])
        condition = str(rng.choice(list(_CONDITIONS), p=list(_CONDITIONS.values())))
        return _photo(seed, index % 2, str(rng.choice(list(_VIEWS), p=list(_VIEWS.values()))), condition)

    return _render([shot(index) for index in range(count)])


def all_views(number: int, vases: int) -> Renders:
    """Seven photographs of each whole vase, in the order of `world.VIEWS`."""
    seeds = [world.vase_seed(number, index) for index in range(vases)]
    return _render([_photo(s, k, view, "whole") for s in seeds for k, view in enumerate(world.VIEWS)])


def fronts(number: int, count: int) -> Renders:
    """Whole vases from the front (three in four) or nearly so, one photograph each."""

    def shot(index: int) -> Photo:
        seed = world.vase_seed(number, index)
        view = "three-quarter" if np.random.default_rng([seed, 8]).random() < 0.25 else "front"
        return _photo(seed, 0, view, "whole")

    return _render([shot(index) for index in range(count)])


def _photo(seed: int, photo: int, view: str, condition: str) -> Photo:
    return Photo("", "", seed, photo, view, condition)


def _render(photos: list[Photo]) -> Renders:
    with ProcessPoolExecutor() as pool:
        images = np.stack(list(pool.map(_pixels, photos, chunksize=16)))
    return Renders(images, [traits_of({k: str(v) for k, v in p.truth().items()}) for p in photos])


def _pixels(photo: Photo) -> np.ndarray:
    """As a model gets to see a delivered photograph: saved as JPEG at some size, read, and scaled."""
    size = int(np.random.default_rng([photo.seed, 9, photo.photo]).choice(_TAKEN))
    delivered = io.BytesIO()
    photo.take(size).save(delivered, "JPEG", quality=90)
    with Image.open(delivered) as picture:
        return np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC))
