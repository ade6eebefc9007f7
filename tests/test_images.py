"""Finding, opening and naming photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from filter_entry import broken, picture
from PIL import Image

from vasekit import images
from vasekit.cli import UserError
from vasekit.images import ImageError

GUID = "0A1B2C3D-0000-4000-8000-0123456789AB"


def test_find_is_recursive_sorted_and_knows_every_suffix_in_any_case(tmp_path):
    names = ["b.JPG", "a.jpe", "c.Jpeg", "d.PNG", "e.webp", "f.bmp", "g.tif", "h.TIFF", "sub/a.jpg", "i.jpg"]
    for name in [*names, "notes.txt", ".hidden.jpg", "._a.jpg", ".cache/x.jpg", "noextension"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in images.find(tmp_path)] == sorted(names)


def test_find_follows_links_to_folders_but_not_in_circles(tmp_path):
    picture(tmp_path / "elsewhere/a.jpg")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "here")
    assert [path.name for path in images.find(tmp_path / "here")] == ["a.jpg"]


def test_an_empty_folder_is_an_error_that_names_the_suffixes(tmp_path):
    with pytest.raises(UserError, match=r"--input_dir .*no images.*jpe"):
        images.need_images(tmp_path, "--input_dir")


def test_read_turns_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert images.read(tmp_path / "a.jpg").size == (20, 40)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "YCbCr", "RGBA", "I;16", "F"])
def test_read_makes_every_mode_rgb(tmp_path, mode):
    kind = "tif" if mode in ("CMYK", "YCbCr", "F") else "png"
    Image.new(mode, (8, 8)).save(tmp_path / f"a.{kind}")
    assert images.read(tmp_path / f"a.{kind}").mode == "RGB"


def test_16_bit_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "a.png")
    assert images.read(tmp_path / "a.png").getpixel((0, 0)) == pytest.approx((128, 128, 128), abs=1)


def test_transparent_parts_become_white(tmp_path):
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert images.read(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_each_broken_file_has_its_reason(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    broken(tmp_path / "half.jpg")
    broken(tmp_path / "half.png")
    picture(tmp_path / "bomb.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    reasons = {}
    for path in tmp_path.iterdir():
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000 if path.stem == "bomb" else 10**8)
        with pytest.raises(ImageError) as caught:
            images.read(path)
        reasons[path.name] = str(caught.value)
    assert reasons["empty.jpg"] == "empty file"
    assert reasons["text.jpg"] == "not an image"
    assert "truncated" in reasons["half.jpg"]
    assert "8,000 pixels" in reasons["bomb.png"]
    assert all(reasons.values())


def test_letterbox_keeps_proportions():
    boxed = np.asarray(images.letterbox(Image.new("RGB", (20, 40), "red"), 32))
    assert boxed.shape == (32, 32, 3)
    assert (boxed[:, :7] == images.PADDING).all()
    assert (boxed[:, 9:23] == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("name", "vase", "view"),
    [
        (f"{GUID}_3_ac001001.jpg", GUID, "3"),
        (f"{GUID.lower()}_12_bc001001.jpe", GUID.lower(), "12"),
        ("698_1.jpg", "698", "1"),
        ("satyr_maenad_1.jpg", "satyr_maenad", "1"),
        ("vase7_front.png", "vase7", "front"),
        ("1867.5_A.tif", "1867.5", "A"),
        ("x_three-quarter.webp", "x", "three-quarter"),
    ],
)
def test_names_of_known_patterns(name, vase, view):
    assert images.parse_name(Path("any/where") / name) == images.View(vase, view)


@pytest.mark.parametrize("name", ["attic_amphora.jpg", "IMG_20240131.jpg", "vase.jpg", "_1.jpg"])
def test_other_names_are_a_vase_of_their_own(name):
    view = images.parse_name(name)
    assert (view.vase, view.matched) == (Path(name).stem, False)


def test_upper_and_lower_case_are_one_vase():
    assert images.parse_name(f"{GUID}_1_ac001001.jpg").key == images.parse_name(f"{GUID.lower()}_2_AC001001.JPG").key
