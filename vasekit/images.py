"""Photographs on disk: find them, open them safely, fit them into a square, read their names."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from vasekit.cli import UserError

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"))
# Scaled to what a model sees, a narrower picture would have no width left, or an enormous height.
MAX_RATIO = 50
# The ImageNet mean: what is padded with it is zero after normalisation.
PADDING = (124, 116, 104)


class ImageError(Exception):
    """A file that can't be used as an image; the message is the reason."""


def find(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted by relative path; links to folders are followed, each folder once."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(here)  # noqa: PTH116 - os.walk hands out strings
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Hidden folders are staging areas and thumbnails, hidden files what file managers leave behind.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(here, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def need_images(folder: Path, flag: str) -> list[Path]:
    """`find`, or a UserError when there is nothing to work on."""
    found = find(folder)
    if not found:
        kinds = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise UserError(f"{flag} {folder}: no images in it or below it (looked for {kinds})")
    return found


def read(path: Path) -> Image.Image:
    """The whole picture, upright, as RGB: transparent parts on white, 16 and 32 bit scaled, first frame of several.

    Raises ImageError with the reason.
    """
    return decode(contents(path))[0]


def contents(path: Path) -> bytes:
    """The bytes of a file, which may be a link. Raises ImageError with the reason."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):  # reading a pipe or a device would never end
            raise ImageError("not a regular file")
        data = path.read_bytes()
    except OSError as error:
        missing = "link to a missing file" if path.is_symlink() else "no such file"
        reasons = {errno.ELOOP: "links that lead to each other", errno.ENOENT: missing}
        raise ImageError(reasons.get(error.errno, f"{error.strerror}".lower())) from None
    if not data:
        raise ImageError("empty file")
    return data


def decode(data: bytes, at_least: int = 0) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in `data`, as `read` gives it, and its (width, height) as stored.

    at_least: a JPEG of more than that many pixels a side may come at a half, a quarter or an eighth of its size, which
    its decoder makes in a fraction of the time (draft mode).
    """
    try:
        with Image.open(BytesIO(data)) as image:
            size = image.size
            if max(size) > MAX_RATIO * min(size):
                raise ImageError(f"{size[0]} x {size[1]} pixels, too narrow to be a photograph")
            if at_least:
                image.draft("RGB", (at_least, at_least))
            image.load()
            return _rgb(ImageOps.exif_transpose(image)), size
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("not an image") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels") from None
    # Pillow's decoders raise whatever broken bytes lead them to: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise ImageError(f"{error}" or type(error).__name__) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # convert() would clip these instead of scaling them
        grey = image.convert("F")
        top = 65535 if image.mode.startswith("I;16") else max(grey.getextrema()[1], 1)
        image = grey.point(lambda value: value * (255 / top)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def perceptual_hash(image: Image.Image) -> int:
    """64 bits: which of the 8 x 8 slowest cosine waves of the grey picture lie above their median (Zauner 2010, pHash).

    Copies that were scaled or compressed again differ in few bits.
    """
    import numpy as np

    side, waves = 32, 8
    grey = image.resize((side, side), Image.Resampling.BOX, reducing_gap=2.0).convert("L")
    cosines = np.cos(np.pi * (2 * np.arange(side) + 1) * np.arange(waves)[:, None] / (2 * side))
    strengths = (cosines @ np.asarray(grey, np.float32) @ cosines.T).ravel()
    bits = strengths > np.median(strengths[1:])  # without the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


# Mean difference of two thumbnails, of 255. Measured on rendered and real vases: copies at 50 to 100 % of the size and
# JPEG quality 30 to 90 differ by at most 2.7; other vases with a near perceptual hash by at least 5.1.
SAME_COLOURS = 4.0


def thumbnail(image: Image.Image) -> bytes:
    """8 x 8 pixels, RGB: the colours where a perceptual hash has only light and dark."""
    return image.resize((8, 8), Image.Resampling.BOX).tobytes()


def letterbox(image: Image.Image, size: int) -> Image.Image:
    """The picture in a (size, size) square, proportions kept: they define a vase's shape."""
    return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=PADDING)


def pixels(path: Path) -> int:
    """Width times height, from the header alone."""
    with Image.open(path) as image:
        return image.width * image.height


def shrink(path: Path, target: Path, at_most: int) -> None:
    """Store the picture as a JPEG of at most that many pixels, proportions kept."""
    image = read(path)
    scale = (at_most / (image.width * image.height)) ** 0.5
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    target.parent.mkdir(parents=True, exist_ok=True)
    image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0).save(target, quality=95)


# ---- names ----

# <GUID>_<n>_ac001001.jpg; other leaf names of the Beazley Archive (bc001001) have the same form.
PUBLISHED = re.compile(r"(?P<vase>.+)_(?P<view>\d+)_[a-z]{2}\d{6}", re.IGNORECASE)
# VASE_VIEW: the view is a number, a side letter or a word, so that attic_amphora.jpg is no view "amphora" of "attic".
_WORDS = "front|back|rear|left|right|side|top|bottom|profile|detail|three-?quarter"
GENERAL = re.compile(rf"(?P<vase>.+)_(?P<view>\d{{1,3}}|[a-d]|{_WORDS})", re.IGNORECASE)


@dataclass(frozen=True)
class View:
    """What a file name says: which vase, which view of it. `matched` is False when it says neither."""

    vase: str
    view: str
    matched: bool = True

    @property
    def key(self) -> str:
        """Equal for all views of one vase: museums mix upper and lower case."""
        return self.vase.casefold()


def parse_name(path: Path | str) -> View:
    """The vase and the view in a file name; a name of no known pattern is a vase of its own."""
    stem = Path(path).stem
    match = PUBLISHED.fullmatch(stem) or GENERAL.fullmatch(stem)
    return View(match["vase"], match["view"]) if match else View(stem, "", matched=False)


def target_name(path: Path, root: Path) -> Path:
    """Where `path` goes below an output folder: as below `root`, so that equal names of two folders both survive."""
    return path.relative_to(root)
