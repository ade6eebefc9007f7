"""Files that call themselves images: what can be read is scored, everything else has its reason."""

from __future__ import annotations

import csv
import json
import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from filter_entry import entry
from PIL import Image

from vasekit import images
from vasekit.images import ImageError

NOISE = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
RGB = Image.fromarray(NOISE)


def saved(image: Image.Image, kind: str, **flags: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **flags)
    return stream.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


JPEG, PNG = saved(RGB, "JPEG", quality=90), saved(RGB, "PNG")

ODD_BUT_READABLE: dict[str, bytes] = {
    "cmyk.jpg": saved(RGB.convert("CMYK"), "JPEG"),
    "grey.jpg": saved(RGB.convert("L"), "JPEG"),
    "progressive.jpg": saved(RGB, "JPEG", progressive=True),
    "turned.jpg": saved(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    "png_called.jpg": PNG,
    "UPPER.JPG": JPEG,
    "tail.jpg": JPEG + b"\0" * 500,
    "alpha.png": saved(RGB.convert("RGBA"), "PNG"),
    "grey_alpha.png": saved(RGB.convert("LA"), "PNG"),
    "palette.png": saved(RGB.convert("P"), "PNG", transparency=0),
    "one_bit.png": saved(RGB.convert("1"), "PNG"),
    "sixteen.png": saved(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "PNG"),
    "float.tif": saved(Image.fromarray(NOISE[..., 0].astype(np.float32)), "TIFF"),
    "lab.tif": saved(RGB.convert("LAB"), "TIFF"),
    "pages.tiff": saved(RGB, "TIFF", save_all=True, append_images=[RGB]),
    "animated.webp": saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)]),
    "pixel.png": saved(Image.new("RGB", (1, 1)), "PNG"),
    "frieze.png": saved(Image.new("RGB", (900, 20)), "PNG"),
}

BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty file"),
    "text.jpg": (b"this is no picture", "not an image"),
    "page.jpg": (b"<!DOCTYPE html><title>404</title>", "not an image"),
    "drawing.jpg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
    "archive.jpg": (b"PK\x03\x04" + bytes(200), "not an image"),
    "document.jpg": (b"%PDF-1.7\n%%EOF", "not an image"),
    "film.jpg": (b"\0\0\0\x18ftypmp42" + bytes(100), "not an image"),
    "nothing.jpg": (bytes(4000), "not an image"),
    "noise.jpg": (np.random.default_rng(1).bytes(4000), "not an image"),
    "tiny.jpg": (b"\xff", "not an image"),
    "head.jpg": (JPEG[:20], ""),
    "start.jpg": (JPEG[:300], ""),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "almost.jpg": (JPEG[: len(JPEG) * 9 // 10], "truncated"),
    "half.png": (PNG[: len(PNG) // 2], ""),
    "head.png": (PNG[:40], ""),
    "checksum.png": (PNG[:29] + b"\0\0\0\0" + PNG[33:], ""),
    "garbage.png": (png(50, 50, b"not zlib"), ""),
    "short.png": (png(50, 50, zlib.compress(bytes(100))), ""),
    "empty_side.png": (png(0, 50, zlib.compress(b"")), ""),
    "bomb.png": (png(50_000, 50_000, zlib.compress(bytes(10))), "more than"),
    "thread.png": (saved(Image.new("RGB", (1, 900)), "PNG"), "too narrow"),
    "half.webp": (saved(RGB, "WEBP")[:200], ""),
    "half.tif": (saved(RGB, "TIFF")[:300], ""),
    "offsets.tif": (b"II*\0\xff\xff\xff\x7f", ""),
    "half.bmp": (saved(RGB, "BMP")[:500], ""),
    "huge.bmp": (b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0), ""),
}


def links(folder: Path) -> dict[str, str]:
    """What is no file at all, by name, with its reason."""
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return {
        "gone.jpg": "link to a missing file",
        "loop.jpg": "links that lead to each other",
        "pipe.jpg": "not a regular file",
    }


@pytest.fixture
def museum(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, data in ODD_BUT_READABLE.items():
        (folder / name).write_bytes(data)
    for name, (data, _) in BROKEN.items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    return folder, {name: reason for name, (_, reason) in BROKEN.items()} | links(folder)


def test_there_are_many_kinds() -> None:
    assert len(BROKEN) >= 25
    assert len(ODD_BUT_READABLE) >= 15


@pytest.mark.parametrize("name", ODD_BUT_READABLE)
@pytest.mark.parametrize("decode", [lambda data: images.decode(data), lambda data: images.decode(data, 64)])
def test_odd_kinds_are_read_as_rgb(name: str, decode: Callable) -> None:
    image, size = decode(ODD_BUT_READABLE[name])
    assert image.mode == "RGB"
    assert sorted(image.size) == sorted(size), "nothing here is large enough to be read at half its size"
    assert name != "turned.jpg" or image.size == (90, 70), "upright"


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kinds_have_a_reason_of_one_line(name: str, tmp_path: Path) -> None:
    data, words = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError) as caught:
        images.read(tmp_path / name)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_errors_are_a_third_outcome(museum: tuple[Path, dict[str, str]], tmp_path: Path, capsys) -> None:
    photos, bad = museum
    out = tmp_path / "out"
    flags = ["--input_dir", photos, "--output_dir", out, "--model", "builtin", "--device", "cpu"]
    flags = [*map(str, flags), "--scores", str(tmp_path / "scores")]
    assert entry("clipfilter1")(flags) == 0
    assert f"{len(bad)} images can't be read" in capsys.readouterr().err
    report = json.loads((out / "filtering_report.json").read_text())
    assert {row["filename"] for row in report["results"]} == ODD_BUT_READABLE.keys()
    assert all(-2 <= row["quality_score"] <= 2 for row in report["results"])
    assert report["quality_statistics"]["count"] == len(ODD_BUT_READABLE)
    reasons = {row["filename"]: row["reason"] for row in report["errors"]}
    assert reasons.keys() == bad.keys()
    assert all(reasons[name] and words in reasons[name] for name, words in bad.items())
    with (out / "errors/errors.csv").open(newline="") as stream:
        assert {row["filename"]: row["reason"] for row in csv.DictReader(stream)} == reasons
    assert entry("clipfilter1")([*flags, "--strict", "--threshold", "0"]) == 3, "done, but not with all of them"
    assert (out / "filtering_report.json").is_file()


def test_what_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a_1.jpg").write_bytes(JPEG)
    (photos / "a_2.jpg").symlink_to(tmp_path / "late.jpg")
    flags = ["--input_dir", photos, "--output_dir", tmp_path / "out", "--model", "builtin", "--device", "cpu"]
    flags = [*map(str, flags), "--scores", str(tmp_path / "scores")]
    for arrived in (0, 1):
        if arrived:
            (tmp_path / "late.jpg").write_bytes(PNG)
        assert entry("clipfilter1")(flags) == 0
        report = json.loads((tmp_path / "out/filtering_report.json").read_text())
        assert (len(report["results"]), len(report["errors"])) == (1 + arrived, 1 - arrived)
