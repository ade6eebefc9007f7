"""The review page: what it holds, what comes back from it, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filter_entry import picture
from PIL import Image

from vasekit import review
from vasekit.cli import UserError
from vasekit.review import Curve, Item, Review, Table, VaseViews, page

NASTY = "<img src=x onerror=\"alert(1)\"> 'a', {{css}} & </script><!-- \u00fc\u2028.jpg"


def item(name: str, score: float | None, threshold: float = 0.0, source: Path = Path("/nowhere"), **more: str) -> Item:
    verdict = "error" if score is None else "accepted" if score >= threshold else "rejected"
    return Item(name, source, more.pop("verdict", verdict), score, **more)


def vase(name: str, *scores: float, reason: str = "highest score") -> VaseViews:
    views = [item(f"{name}_{k}.jpg", s, verdict="rejected", vase=name, view=str(k)) for k, s in enumerate(scores)]
    views[0] = replace(views[0], verdict="accepted", reason=reason)
    return VaseViews(name, tuple(views), scores[0] - scores[1] if len(scores) > 1 else None)


def written(tmp_path: Path, **parts) -> tuple[str, dict]:
    """The page's text, and the data in it."""
    path = tmp_path / "review.html"
    review.write(path, Review(**({"title": "Review", "stage": "quality", "threshold": 0.0, "items": ()} | parts)))
    text = path.read_text(encoding="utf-8")
    return text, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def lead(text: str) -> str:
    return re.sub("<[^>]+>", "", re.search(r'<p class="lead">(.*?)</p>', text)[1])


def sheet(data: dict, key: str) -> list[str]:
    return [data["pictures"][k]["name"] for s in data["sheets"] if s["key"] == key for k in s["pictures"]]


def note(data: dict, key: str) -> str:
    return next(s["note"] for s in data["sheets"] if s["key"] == key)


# ---- the page ----


def test_no_text_becomes_markup(tmp_path):
    table = Table(NASTY, NASTY, [NASTY], [[NASTY]])
    items = [item(NASTY, 0.5, reason=NASTY, vase=NASTY, view=NASTY), item(NASTY + "2", None, reason=NASTY)]
    text, data = written(tmp_path, title=NASTY, items=items, tables=[table], curves=[Curve(NASTY, NASTY, NASTY, [])])
    assert "<img" not in text
    assert "<!--" not in text
    assert len(re.findall("</script>", text)) == 2
    assert {p["name"] for p in data["pictures"]} == {NASTY, NASTY + "2"}
    assert data["pictures"][0]["reason"] == NASTY
    assert text.count(re.search(r"<h1>(.*)</h1>", text)[1]) == 6  # <title>, <h1> and four times in the table


def test_the_page_needs_nothing_but_itself(tmp_path):
    photo = picture(tmp_path / "a.jpg")
    text, _ = written(tmp_path, items=[item("a.jpg", 0.5, source=photo)])
    addresses = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]*)""", text)
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert set(re.findall(r"url\(([^)]*)\)", text)) == {"#above"}
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"\{\{\w+\}\}", text)


def test_names_that_are_no_unicode_can_be_written(tmp_path):
    _, data = written(tmp_path, items=[item("caf\udce9.jpg", 0.5)], tables=[Table("t\udce9", "", ["x"], [["y"]])])
    assert data["pictures"][0]["name"] == "caf\udce9.jpg"


def test_sheets_are_capped_and_scores_are_not(tmp_path):
    scores = np.random.default_rng(0).normal(size=1000).tolist()
    names = {f"{k:04}.jpg": score for k, score in enumerate(scores)}
    errors = [item(f"bad{k:03}.jpg", None, reason="empty file") for k in range(100)]
    items = [item(name, score, 0.25) for name, score in names.items()]
    text, data = written(tmp_path, threshold=0.25, items=items + errors)
    above = sorted(score for score in scores if score >= 0.25)
    assert lead(text) == f"1,100 photographs: {len(above)} accepted, {1000 - len(above)} rejected, 100 unreadable."
    assert len(sheet(data, "accepted")) == len(sheet(data, "errors")) == page.SHEET
    assert note(data, "accepted").startswith(f"60 of {len(above)} shown")
    shown = [names[name] for name in sheet(data, "accepted")]
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (above[0], above[-1])
    nearest = [names[name] for name in sheet(data, "borderline")]
    assert nearest[30:] == above[:30]
    assert max(nearest[:30]) == max(score for score in scores if score < 0.25)
    assert np.frombuffer(base64.b64decode(data["scores"]), "<f8").tolist() == sorted(scores)
    assert len(text) < 200_000


def test_what_a_score_does_not_decide_stays_apart(tmp_path):
    items = [
        item("high.jpg", 0.5, reason="score"),
        item("low.jpg", -0.5),
        item("saved.jpg", -0.1, verdict="accepted", reason="override"),
        item("struck.jpg", 0.2, verdict="rejected", reason="override"),
        item("copy.jpg", 0.4, verdict="rejected", reason="near-duplicate of high.jpg"),
    ]
    text, data = written(tmp_path, items=items)
    assert lead(text).startswith("5 photographs: 2 accepted, 3 rejected. Among them 2 overruled by hand; near-dup")
    assert [(row["name"], row["decision"]) for row in data["applied"]] == [
        ("saved.jpg", "accept"),
        ("struck.jpg", "reject"),
    ]
    assert np.frombuffer(base64.b64decode(data["scores"])).tolist() == [-0.5, 0.5]
    assert np.frombuffer(base64.b64decode(data["fixedScores"])).tolist() == [0.4]
    assert data["fixedAccepted"] == 0
    assert sheet(data, "borderline") == ["low.jpg", "high.jpg"]
    assert sheet(data, "overruled") == ["saved.jpg", "struck.jpg"]
    assert note(data, "rejected").startswith("all shown")


def test_thumbnails_are_small_and_a_missing_file_is_no_obstacle(tmp_path):
    photo = picture(tmp_path / "big.png", size=(700, 1100))
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    items = [
        item("big.png", 0.1, source=photo),
        item("gone.jpg", 0.2, source=tmp_path / "gone.jpg"),
        item("broken.jpg", None, source=tmp_path / "broken.jpg", reason="not an image"),
    ]
    _, data = written(tmp_path, items=items)
    found = {p["name"]: p for p in data["pictures"]}
    with Image.open(io.BytesIO(base64.b64decode(found["big.png"]["jpeg"]))) as small:
        assert (small.format, small.size) == ("JPEG", (102, 160))
    assert found["gone.jpg"]["jpeg"] == found["broken.jpg"]["jpeg"] == ""
    assert found["broken.jpg"]["reason"] == "not an image"


@pytest.mark.parametrize("stage", ["quality", "views"])
@pytest.mark.parametrize("items", [[], [item("bad.jpg", None, reason="empty file")]], ids=["none", "errors"])
def test_a_page_with_nothing_to_decide(tmp_path, stage, items):
    text, data = written(tmp_path, stage=stage, threshold=None, items=items)
    assert len(data["sheets"]) == len(items)
    assert lead(text).startswith(f"{len(items)} photographs")


def test_without_a_threshold_it_lies_at_the_lowest_score_accepted(tmp_path):
    _, data = written(tmp_path, threshold=None, items=[item(f"{s}.jpg", s, 0.3) for s in (0.1, 0.3, 0.2, 0.4)])
    assert data["threshold"] == 0.3


def test_narrow_choices_come_first(tmp_path):
    vases = [vase("only", 0.9), vase("clear", 0.9, 0.1), vase("narrow", 0.5, 0.49, 0.3)]
    vases.append(vase("ruled", 0.2, 0.8, reason="override"))
    text, data = written(tmp_path, stage="views", threshold=None, vases=vases)
    assert [row["vase"] for row in data["vases"]] == ["narrow", "clear", "only", "ruled"]
    assert data["vases"][2]["margin"] is None
    assert data["applied"] == [{"name": "ruled_0.jpg", "decision": "best", "vase": "ruled"}]
    assert lead(text) == "8 photographs: one view each of 4 vases, 1 with an only view, 1 chosen by hand."
    assert "All shown, smallest margin first" in text


def test_vases_and_their_views_are_capped(tmp_path):
    vases = [vase(f"v{k:03}", 0.5, *(0.4 - k / 1000 - j / 100 for j in range(10))) for k in range(100)]
    text, data = written(tmp_path, stage="views", threshold=None, vases=vases)
    assert [row["vase"] for row in data["vases"]] == [f"v{k:03}" for k in range(page.VASES)]
    assert {(len(row["views"]), row["more"]) for row in data["vases"]} == {(page.VIEWS, 3)}
    assert "60 of 100 shown, smallest margin first" in text


def test_tables_show_measures_with_their_intervals(tmp_path):
    rows = [["Athenian", 1234, {"value": 0.5, "low": 0.4, "high": 0.6, "n": 1000}, 0.25, None]]
    text, _ = written(tmp_path, tables=[Table("Audit", "by fabric", list("abcde"), rows)])
    assert '0.500 <small>0.400 to 0.600, n 1,000</small></td><td class="n">0.250</td><td></td>' in text
    assert '<td>Athenian</td><td class="n">1,234</td>' in text


# ---- overrides.csv ----

KNOWN = ("a.jpg", 'more/b, "c".jpg', "two\nlines.jpg", "\u00fc.jpg")


def overrides(tmp_path: Path, content: str | bytes, stage: str = "quality") -> dict[str, str]:
    path = tmp_path / "overrides.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return review.read_overrides(path, "--overrides", stage, KNOWN)


def test_overrides_are_read(tmp_path):
    text = 'filename,decision\na.jpg,accept\n\n"more/b, ""c"".jpg",reject\n"two\nlines.jpg",accept\n\u00fc.jpg,reject\n'
    expected = dict(zip(KNOWN, ("accept", "reject", "accept", "reject"), strict=True))
    assert overrides(tmp_path, text) == expected
    assert overrides(tmp_path, "\ufeff" + text.replace("\n", "\r\n").replace("two\r\n", "two\n")) == expected
    assert overrides(tmp_path, "filename,decision\na.jpg,best\na.jpg,best\n", "views") == {"a.jpg": "best"}
    assert overrides(tmp_path, "filename,decision\n") == {}


@pytest.mark.parametrize(
    ("content", "stage", "message"),
    [
        ("", "quality", "line 1: header 'nothing', needs filename,decision"),
        ("filename;decision\na.jpg;accept\n", "quality", "line 1: header 'filename;decision', needs filename,decision"),
        ("a.jpg,accept\n", "quality", "line 1: header 'a.jpg,accept', needs"),
        ("filename,decision\na.jpg,keep\n", "quality", "line 2: decision 'keep', here it is accept or reject"),
        ("filename,decision\na.jpg,accept\n", "views", "line 2: decision 'accept', here it is best"),
        ("filename,decision\n\nx.jpg,accept\n", "quality", "line 3: no image 'x.jpg' in the input folder"),
        ('filename,decision\n"two\nlines.jpg",accept\nx,reject\n', "quality", "line 4: no image 'x'"),
        ("filename,decision\na.jpg,accept\na.jpg,reject\n", "quality", "line 3: 'a.jpg' was decided otherwise"),
        ("filename,decision\na,b.jpg,accept\n", "quality", "line 2: 3 columns, needs 2"),
        ("filename,decision\na.jpg\n", "quality", "line 2: 1 columns, needs 2"),
        (b"filename,decision\n\xff.jpg,accept\n", "quality", "not UTF-8 text"),
        ('filename,decision\n"a.jpg,accept\n', "quality", "not valid CSV"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(tmp_path, content, stage, message):
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        overrides(tmp_path, content, stage)
    assert str(refused.value).startswith(f"--overrides {tmp_path / 'overrides.csv'}")
    assert "\n" not in str(refused.value)
    assert ";" in str(refused.value)  # what to do


def test_missing_overrides_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file; give an existing one with --overrides"):
        review.read_overrides(tmp_path / "none.csv", "--overrides", "quality", KNOWN)


# ---- in a browser ----


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """The browser of this machine; none is downloaded."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium) -> Iterator:
    """A page that must neither fail nor ask for anything but itself."""
    opened = chromium.new_page(viewport={"width": 1200, "height": 900})
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("console", lambda message: message.type == "error" and troubles.append(message.text))
    opened.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or troubles.append(r.url))
    yield opened
    opened.close()
    assert troubles == []


def counts(tab) -> dict[str, int]:
    keys = ("accepted", "rejected", "gained", "lost")
    return {key: int(tab.locator(f"#{key}").inner_text().replace(",", "")) for key in keys}


def drag_line(tab, pixels: int) -> float:
    """Take hold of the threshold's line, move it, and return the threshold that it then stands at."""
    box = tab.locator("#histogram .cut").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + pixels / 2, y, steps=3)
    tab.mouse.move(x + pixels, y)
    tab.mouse.up()
    return float(tab.locator("#threshold").input_value())


def downloaded(tab, tmp_path: Path) -> Path:
    with tab.expect_download() as download:
        tab.locator("#download").click()
    assert download.value.suggested_filename == "overrides.csv"
    path = tmp_path / "downloaded.csv"
    download.value.save_as(path)
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@pytest.mark.slow
def test_threshold_and_overrides_in_a_browser(tab, tmp_path):
    photo = picture(tmp_path / "photo.jpg")
    threshold = 0.1234567
    scores = np.random.default_rng(1).normal(0.1, 0.05, 3000).tolist()
    items = [item(f"{k:04}.jpg", score, threshold, photo) for k, score in enumerate(scores)]
    odd = 'odd, "quoted"\n<b>\u00fc</b>.jpg'  # the lowest score, so it is on the sheet
    items += [item(odd, -0.5, threshold, photo), item("bad.jpg", None, reason="empty file")]
    saved = item("saved.jpg", -0.4, source=photo, verdict="accepted", reason="override")
    copy = item("copy.jpg", 0.9, source=photo, verdict="rejected", reason="near-duplicate of 0001.jpg")
    written(tmp_path, threshold=threshold, items=[*items, saved, copy])
    tab.goto((tmp_path / "review.html").as_uri())

    def expected(now: float) -> dict[str, int]:
        """Counted from all scores; the override is always accepted, the near-duplicate and the lowest score never."""
        high = sum(score >= now for score in scores)
        move = high - sum(score >= threshold for score in scores)
        accepted = high + 1
        return {"accepted": accepted, "rejected": 3003 - accepted, "gained": max(0, move), "lost": max(0, -move)}

    assert counts(tab) == expected(threshold)
    for pixels in (150, -260):
        reached = drag_line(tab, pixels)
        assert (reached > threshold) == (pixels > 0)
        assert counts(tab) == expected(reached)
        assert float(tab.locator("#threshold-range").input_value()) == pytest.approx(reached)
        assert f"--threshold {reached:g} " in tab.locator("#flags").inner_text()
        moved = tab.locator("#sheet-borderline .picture.moves").count()
        assert moved == 30
        assert "30 of these change" in tab.locator("#sheet-borderline .note").inner_text()
    assert reached < threshold
    tab.locator("#threshold").fill("0.2")
    tab.locator("#threshold").press("Enter")
    assert counts(tab) == expected(0.2)
    tab.locator("#threshold-range").press("ArrowRight")
    assert float(tab.locator("#threshold").input_value()) > 0.2
    tab.locator("#threshold-reset").click()
    assert counts(tab) == expected(threshold)
    assert f"--threshold {threshold} " in tab.locator("#flags").inner_text()

    # A picture, with the keyboard and the mouse; an error can't be overruled.
    assert tab.locator("#sheet-errors button").count() == 0
    assert tab.locator("#sheet-errors").inner_text().count("empty file") == 1
    first = tab.locator("#sheet-rejected button").first
    assert "odd" in first.inner_text()
    first.press("Enter")
    assert first.get_attribute("aria-pressed") == "true"
    tab.locator("#sheet-rejected button", has_text="near-duplicate of").click()
    highest = max(range(3000), key=scores.__getitem__)
    tab.locator("#sheet-accepted button").last.click()
    before = expected(threshold)
    ruled = {"accepted": before["accepted"] + 1, "rejected": before["rejected"] - 1, "gained": 2, "lost": 1}
    assert counts(tab) == ruled
    tab.locator("#sheet-accepted button").nth(4).dblclick()  # there and back
    assert tab.locator("#override-count").inner_text() == "4"

    path = downloaded(tab, tmp_path)
    decided = {odd: "accept", "saved.jpg": "accept", "copy.jpg": "accept", f"{highest:04}.jpg": "reject"}
    assert rows(path) == [["filename", "decision"], *map(list, sorted(decided.items()))]
    known = {photo.filename for photo in [*items, saved, copy]}
    assert review.read_overrides(path, "--overrides", "quality", known) == decided

    # Taken back in the list, the override of the run is gone, and the score decides again.
    tab.locator("summary").click()
    tab.locator("#override-list li", has_text="saved.jpg").get_by_role("button").click()
    assert tab.locator("#sheet-overruled .picture .state").inner_text() == "rejected"
    assert ["saved.jpg", "accept"] not in rows(downloaded(tab, tmp_path))


@pytest.mark.slow
def test_best_views_in_a_browser(tab, tmp_path):
    vases = [vase("clear", 0.9, 0.1), vase("narrow", 0.5, 0.49, 0.3), vase("ruled", 0.2, 0.8, reason="override")]
    errors = [item("bad.jpg", None, reason="empty file")]
    written(tmp_path, stage="views", threshold=None, vases=vases, items=errors)
    tab.goto((tmp_path / "review.html").as_uri())
    narrow, clear, ruled = (tab.locator(".vase").nth(k) for k in range(3))
    assert "margin 0.0100, runner-up narrow_1.jpg" in narrow.inner_text()
    assert "narrow_0.jpg" in narrow.locator(".best").inner_text()
    narrow.locator("button").nth(2).click()
    assert "narrow_2.jpg" in narrow.locator(".best").inner_text()
    narrow.locator("button").nth(1).press("Enter")  # one best view a vase
    clear.locator("button").nth(0).click()
    assert "ruled_0.jpg" in ruled.locator(".best").inner_text()
    path = downloaded(tab, tmp_path)
    decided = {"clear_0.jpg": "best", "narrow_1.jpg": "best", "ruled_0.jpg": "best"}
    assert rows(path) == [["filename", "decision"], *map(list, decided.items())]
    known = {view.filename for row in vases for view in row.views}
    assert review.read_overrides(path, "--overrides", "views", known) == decided
    ruled.locator("button").nth(0).click()  # taken back, the score decides
    assert "ruled_1.jpg" in ruled.locator(".best").inner_text()
    assert tab.locator("#override-count").inner_text() == "2"
    assert tab.locator("#sheet-errors button").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("stage", ["quality", "views"])
def test_nothing_sticks_out(tab, tmp_path, width, stage):
    name = "folder/" + 40 * "GUID-0123" + "_1_ac001001.jpg"
    wide = Table("Audit", "", [f"column {k}" for k in range(12)], [["x" * 40] * 12])
    line = Curve("F1", "threshold", "F1", [(0.0, 0.5), (0.1, 0.9), (0.2, 0.4)], 0.1)
    items = [item(f"{k}{name}", k / 10) for k in range(-5, 5)] + [item("bad" + name, None, reason="empty file")]
    vases = [vase(name, 0.5, 0.4)] if stage == "views" else []
    tab.set_viewport_size({"width": width, "height": 800})
    written(tmp_path, stage=stage, items=items, vases=vases, tables=[wide], curves=[line])
    tab.goto((tmp_path / "review.html").as_uri())
    tab.locator(".charts svg .line").wait_for(state="attached")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(set(ids)) == len(ids)
    assert set(tab.evaluate("[...document.querySelectorAll('a')].map((a) => a.hash.slice(1))")) <= set(ids)
