"""The built-in world: deterministic, varied, and never the same vase twice."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vasekit.cli import ROOT
from vasekit.synth import flaws, render, world
from vasekit.synth.render import VIEWS, Vase
from vasekit.synth.shapes import SHAPES, make_body


def pixels(vase: Vase, view: str = "front", condition: str = "whole", size: int = 96, seed: int = 0) -> np.ndarray:
    return np.asarray(render.photograph(vase, view, condition, size, np.random.default_rng(seed)), np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_fills_the_picture(shape: str) -> None:
    vase = Vase(5, shape=shape)
    hit = np.abs(pixels(vase) - pixels(vase)[0, 0]).sum(-1) > 60
    assert 0.1 < hit.mean() < 0.85
    assert make_body(SHAPES[shape], np.random.default_rng(0)).extent > 0.4


def test_twelve_shapes_three_techniques_and_six_motifs() -> None:
    vases = [Vase(seed) for seed in range(300)]
    for trait, count in (("shape", 12), ("technique", 3), ("style", 2), ("motif", 6)):
        assert len({getattr(v, trait) for v in vases}) == count


def test_same_seed_same_bytes_other_seed_other_vase() -> None:
    assert np.array_equal(pixels(Vase(7)), pixels(Vase(7)))
    assert not np.array_equal(pixels(Vase(7)), pixels(Vase(8)))


def test_views_differ_and_only_the_front_shows_the_figure() -> None:
    vase = Vase(1, shape="amphora", technique="black-figure", style="plain", motif="owl")
    pictures = [pixels(vase, view) for view in VIEWS]
    for k, picture in enumerate(pictures):
        assert all(np.abs(picture - other).mean() > 2 for other in pictures[k + 1 :])
    orange = [((p[..., 0] - p[..., 2]) > 60)[40:70, 36:60].mean() for p in pictures]
    assert orange[0] > orange[VIEWS.index("back")] + 0.2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("condition", world.BROKEN)
def test_damage_is_visible_at_224_pixels(condition: str, seed: int) -> None:
    whole, broken = (pixels(Vase(seed), "front", c, 224, seed) for c in ("whole", condition))
    changed = np.abs(whole - broken).max(-1) > 40
    assert changed.mean() > 0.01


@pytest.mark.parametrize("name", world.FLAWS)
def test_flaws_change_the_picture_and_keep_its_size(name: str) -> None:
    rng = np.random.default_rng(0)
    image = render.photograph(Vase(3), "front", "whole", 96, rng)
    spoilt = getattr(flaws, name)(image, rng)
    assert spoilt.size == image.size
    assert np.abs(np.asarray(spoilt, np.float32) - np.asarray(image, np.float32)).mean() > 2


def test_worlds_share_no_vase_and_the_sample_is_apart() -> None:
    first, second = ({p.seed for p in world.plan(w, 50, 3)} for w in (1, 2))
    sample = {p.seed for _, p in world.plan_labelled(1, 40)}
    assert len(first) == 50
    assert not first & second
    assert not first & sample
    assert len({world.guid(seed) for seed in first | second | sample}) == 140


def test_records_have_gaps_and_many_spellings_but_speak_the_truth() -> None:
    rows = [world.record(seed) for seed in range(400)]
    missing = {c: sum(not r[c] for r in rows) / len(rows) for c in ("Date", "Technique", "Attributed To", "Shape Name")}
    assert missing == pytest.approx(
        {"Date": 0.65, "Technique": 0.15, "Attributed To": 0.6, "Shape Name": 0.03}, abs=0.09
    )
    assert len({r["Technique"] for r in rows}) > 6
    for seed, row in enumerate(rows):
        early, late = world.DATES[Vase(seed).technique, Vase(seed).style]
        assert not row["Date"] or (str(early) in row["Date"] and str(late) in row["Date"])


def make_world(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "data" / "make_world.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


def digest(folder: Path) -> str:
    names = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "world.json")
    return hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in names)).hexdigest()


def test_make_world_delivers_what_a_museum_would(tmp_path: Path) -> None:
    flags = ("--vases", "6", "--seed", "4", "--size", "64", "--labelled", "4", "--turntable", "3", "--output")
    done = make_world(*flags, str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    again = make_world(*flags, str(tmp_path / "b"))
    assert again.returncode == 0
    assert digest(tmp_path / "a") == digest(tmp_path / "b")

    truth = json.loads((tmp_path / "a" / "truth.json").read_text())
    photos = sorted(p.name for p in (tmp_path / "a" / "photos").iterdir())
    assert photos == sorted(row["image"] for row in truth)
    with Image.open(tmp_path / "a" / "photos" / photos[0]) as image:
        assert image.size == (64, 64)
    with (tmp_path / "a" / "records.csv").open(newline="") as handle:
        guids = {row["Image GUID"] for row in csv.DictReader(handle)}
    assert guids == {row["vase"] for row in truth}
    assert [len(list((tmp_path / "a" / "labelled" / k).iterdir())) for k in "01"] == [2, 2]
    whole = {row["vase"] for row in truth if row["condition"] == "whole"}
    assert {p.name for p in (tmp_path / "a" / "turntable").iterdir()} == whole
    assert "already" in make_world(*flags, str(tmp_path / "a")).stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--seed", "9001", "--output", "new"), "worlds go from 0"),
        (("--vases", "0", "--output", "new"), "at least 1"),
        (("--vases", "60000", "--output", "new"), "at most 50000"),
        (("--colour", "red", "--output", "new"), "--colour"),
        (("--vases", "5", "--output", "taken"), "not empty"),
    ],
)
def test_make_world_refuses_in_one_line(tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    done = make_world(*flags[:-1], str(tmp_path / flags[-1]))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not (tmp_path / "new").exists()
