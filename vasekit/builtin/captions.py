"""Captions for tiny-clip: many ways to say what a rendered photograph shows, and which photographs a caption fits.

The kit's own filter prompts never occur as captions (`forbidden`), so that scores on them are scores on unseen text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

Traits = dict[str, str]

_GOOD = ("complete", "intact", "whole", "undamaged", "perfect", "unbroken", "full", "entire", "pristine", "flawless")
_GOOD += ("well-preserved", "well preserved", "fully preserved", "perfectly preserved", "complete and unbroken")
_MATERIAL = ("", "", "", "", "ceramic", "pottery", "decorated", "clay", "painted", "ancient", "ancient Greek", "Greek")
_MATERIAL += ("terracotta", "antique", "Attic", "museum", "figured")
_NOUN = ("vase", "vase", "vase", "pot", "vessel", "jar", "pottery vessel", "ceramic vessel", "painted vase")
_VIEW = {
    "front": (
        "viewed from the front",
        "in frontal view",
        "facing forward",
        "front view",
        "shown frontally",
        "from the front",
        "facing the camera",
        "in front perspective",
        "seen from the front",
        "photographed frontally",
        "photographed from the front",
        "from its front side",
        "facing the viewer",
        "straight on",
        "with the main scene facing the viewer",
        "with its picture in the centre",
        "standing upright, front side",
        "front side visible",
    ),
    "three-quarter": ("at an oblique angle", "in three-quarter view", "turned slightly", "seen at an angle", "rotated"),
    "side": (
        "from the side",
        "in profile",
        "side view",
        "seen from the side",
        "showing the handle side",
        "turned sideways",
    ),
    "back": ("from the back", "rear view", "seen from behind", "showing the reverse", "back side", "the reverse side"),
    "top": (
        "from above",
        "top view",
        "seen from the top",
        "looking down into the mouth",
        "overhead view",
        "showing the rim",
    ),
    "bottom": ("from below", "bottom view", "seen from underneath", "showing the foot and base", "underside view"),
}
_BROKEN = ["broken", "shattered", "fragmented", "smashed", "damaged", "scattered", "isolated"]
_PIECES = ["fragments", "pieces", "shards", "sherds", "potsherds", "debris", "chips", "bits", "parts", "remains"]
_LOSS = (
    "with missing pieces",
    "with missing parts",
    "with a hole",
    "with holes in the wall",
    "with parts lost",
    "with pieces broken off",
    "with large losses",
    "with a large piece missing",
    "with broken edges",
    "missing its rim",
)
_LOSSY = ("incomplete", "partial", "damaged", "broken", "fragmentary", "fragmented", "partly lost", "heavily damaged")
_CRACKS = (
    "with cracks",
    "with visible cracks",
    "with cracks and chips",
    "with breaks",
    "with fractures",
    "full of cracks",
    "with a network of cracks",
    "with visible breaks and cracks",
    "mended from many pieces",
    "reassembled from fragments",
    "glued together from sherds",
)
_CRACKED = (
    *["cracked", "damaged", "fractured", "restored", "repaired", "mended", "reassembled"],
    "cracked and damaged",
    "cracked and broken",
)
_FLAW = {
    "blur": ("a blurry photo of {}", "an out of focus picture of {}", "a blurred image of {}", "{}, blurred"),
    "low_resolution": ("a low resolution image of {}", "a pixelated photo of {}", "a tiny low quality picture of {}"),
    "drawing": (
        "a line drawing of {}",
        "a pencil sketch of {}",
        "a black and white drawing of {}",
        "{}, drawn by hand",
    ),
}
_OTHER = (
    "a photo of something else",
    "not a vase",
    "an object that is no vase",
    "a picture without any vase",
    "a page, a landscape or a coin",
    "a temple, fruit or a box",
    "an unrelated picture",
)
_PHOTO = ("a photo of ", "a picture of ", "", "", "", "an image of ", "a photograph of ", "a museum photograph of ")


@dataclass(frozen=True)
class Caption:
    """A caption and the traits it mentions: it fits every photograph that has all of them."""

    text: str
    traits: tuple[tuple[str, str], ...]

    def fits(self, photo: Traits) -> bool:
        return all(photo.get(key) == value for key, value in self.traits)


def traits_of(truth: Traits) -> Traits:
    """A row of truth.json as the traits that captions speak of; left and right are both `side`."""
    view = truth["view"]
    return truth | {"view": "side" if view in ("left", "right") else view}


def caption(photo: Traits, rng: random.Random, forbidden: frozenset[str]) -> Caption:
    """A random caption for a photograph; never one of `forbidden`."""
    while True:
        made = _compose(photo, rng)
        if made.text.lower() not in forbidden:
            return made


def _compose(photo: Traits, rng: random.Random) -> Caption:
    condition = photo["condition"]
    traits = {"condition": condition}
    if condition == "not_a_vase":
        return Caption(rng.choice(_OTHER), tuple(traits.items()))
    noun, material = rng.choice(_NOUN), rng.choice(_MATERIAL)
    if rng.random() < 0.3:
        noun, traits["shape"] = photo["shape"], photo["shape"]
    if rng.random() < 0.25:
        material, traits["technique"] = photo["technique"], photo["technique"]
    subject = f"{material} {noun}".strip()
    if condition == "sherds":
        traits.pop("shape", None)
        text = _sherds(
            f"{material} {rng.choice(['vase', 'pottery', 'ceramic', 'pot', 'vessel', 'vases'])}".strip(), rng
        )
        return Caption(text, tuple(traits.items()))
    view = ""
    if rng.random() < (0.85 if condition == "whole" else 0.3):
        view, traits["view"] = ", " * (rng.random() < 0.3) + " " + rng.choice(_VIEW[photo["view"]]), photo["view"]
    if rng.random() < 0.15 and photo["view"] == "front":
        subject, traits["motif"] = f"{subject} with a {photo['motif']}", photo["motif"]
    return Caption(" ".join(_sentence(condition, subject, view, rng).split()).replace(" ,", ","), tuple(traits.items()))


def _sentence(condition: str, subject: str, view: str, rng: random.Random) -> str:
    if condition in _FLAW:
        return rng.choice(_FLAW[condition]).format(_a(subject)) + view
    if condition == "whole":
        good = rng.choice(_GOOD) + (", " + rng.choice(_GOOD) if rng.random() < 0.2 else "")
        tail = rng.choice(
            ("", "", "", " with nothing missing", " without damage", " in one piece", " in perfect condition")
        )
        return rng.choice(_PHOTO) + rng.choice((_a(f"{good} {subject}") + view + tail, _a(f"{subject}, {good}") + view))
    adjectives, tails = (_LOSSY, _LOSS) if condition == "missing" else (_CRACKED, _CRACKS)
    adjective, tail = rng.choice(adjectives), rng.choice(tails)
    patterns = (
        _a(f"{adjective} {subject}") + f"{view} {tail}",
        _a(subject) + f" {tail}{view}",
        f"{adjective} {subject} {tail}",
        _a(f"{adjective} {subject}") + view,
        f"the {adjective} body of {_a(subject)}",
    )
    return rng.choice(_PHOTO) + rng.choice(patterns)


def _sherds(subject: str, rng: random.Random) -> str:
    broken, piece, other = rng.choice(_BROKEN), rng.choice(_PIECES), rng.choice(_PIECES)
    patterns = (
        f"{broken} {subject} {piece}",
        f"{subject} {piece} and {other}",
        f"{piece} of a {broken} {subject}",
        f"{broken} {piece} of {subject}",
        f"{piece} and {other} of a {subject}",
        f"a single {piece.rstrip('s')} of a {subject}",
        f"{broken} {piece} laid out on a table",
        f"{piece} broken from a {subject}",
        f"a {broken} {subject} in {piece}",
        f"a close-up of {subject} {piece}",
    )
    return rng.choice(_PHOTO) + rng.choice(patterns)


def _a(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiouAEIOU" else "a ") + phrase
