"""Which vase and view a photograph shows: presets, patterns, tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from vasekit import views
from vasekit.cli import UserError
from vasekit.images import View


@pytest.mark.parametrize(
    ("pattern", "name", "vase", "view"),
    [
        ("auto", "x/AB-12_3_ac001001.jpg", "AB-12", "3"),
        ("auto", "698_front.JPG", "698", "front"),
        ("published", "AB-12_3_bc001001.jpe", "AB-12", "3"),
        ("name", "698_2.tif", "698", "2"),
        ("folder", "attic/cup 7/IMG_1.jpg", "attic/cup 7", "IMG_1"),
        (r"(?P<view>[a-z]+)-(?P<vase>\d+)", "front-0012.jpg", "0012", "front"),
        (r"(?P<vase>[^/]+)/(?P<view>\w+)", "cup/left.jpg", "cup", "left"),
    ],
)
def test_patterns(pattern: str, name: str, vase: str, view: str) -> None:
    assert views.from_pattern(pattern)(name) == View(vase, view)


@pytest.mark.parametrize(
    ("pattern", "name"), [("published", "698_2.jpg"), ("folder", "IMG_1.jpg"), (r"(?P<vase>\d+)x(?P<view>\d)", "a.jpg")]
)
def test_what_does_not_match_is_a_vase_of_its_own(pattern: str, name: str) -> None:
    assert views.from_pattern(pattern)(name) == View(Path(name).stem, "", matched=False)


@pytest.mark.parametrize(("pattern", "words"), [("(", "no regular expression"), (r"(?P<vase>.*)", "needs the groups")])
def test_patterns_that_cannot_be(pattern: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        views.from_pattern(pattern)


def test_a_table_names_files_by_path_or_by_name(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("\ufefffilename,vase,view\nx/a.jpg,V1,front\nb.jpg,V1,back\n", encoding="utf-8")
    read = views.from_table(tmp_path / "v.csv")
    assert read("x/a.jpg") == View("V1", "front")
    assert read("deep/b.jpg") == View("V1", "back")
    assert not read("c.jpg").matched


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs filename,vase,view"),
        ("filename,vase\na,b\n", "needs filename,vase,view"),
        ("filename,vase,view\n,b,c\n", "line 2: needs a file name"),
        ("filename,vase,view\na,b,c\na,b,d\n", "line 3: a is named twice"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        views.from_table(tmp_path / "v.csv")
    with pytest.raises(UserError, match="no such file"):
        views.from_table(tmp_path / "none.csv")
