"""The two CLIP stages, through their entry points, with a tiny model of random weights."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filter_entry import FILTER, broken, entry, picture, shell
from tiny_models import make_clip

from vasekit import cli, clip, hub, images, pipeline

clipfilter1, clipfilter2 = entry("clipfilter1"), entry("clipfilter2")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    return f"local-dir:{make_clip(tmp_path_factory.mktemp('models') / 'clip')}"


@pytest.fixture
def photos(tmp_path) -> Path:
    """Nine readable photographs of four vases, two of them with equal names, and two broken ones."""
    folder = tmp_path / "photos"
    names = [f"{vase}_{view}.jpg" for vase in ("a", "b", "c") for view in (1, 2)]
    for seed, name in enumerate([*names, "more/a_1.jpg", "more/IMG_20240131.PNG", "more/A_3.jpg"]):
        picture(folder / name, seed)
    broken(folder / "c_3.jpg")
    (folder / "more/zero.jpg").touch()
    return folder


def default_scorer(cache: Path) -> clip.Scorer:
    return clip.Scorer(clip.DEFAULT_MODEL, clip.DEFAULT_PRETRAINED, cache, "fp32")


def read(folder: Path, name: str):
    return json.loads((folder / name).read_text())


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run1(photos: Path, model: str, *flags: object) -> tuple[int, Path]:
    out = photos.parent / "out"
    flags = ("--input_dir", photos, "--output_dir", out, "--model", model, "--device", "cpu", *flags)
    flags = ("--scores", photos.parent / "scores", *flags)
    return clipfilter1([str(flag) for flag in flags]), out


def test_scores_are_the_difference_of_two_cosines(photos, tiny_clip):
    """The published formula, written out once more with open_clip alone."""
    import open_clip
    import torch
    from torch.nn.functional import normalize

    model, prepare = open_clip.create_model_from_pretrained(tiny_clip)
    model.eval()
    tokenize, prompts = open_clip.get_tokenizer(tiny_clip), clip.load_prompts()
    assert (len(prompts.complete), len(prompts.fragments)) == (8, 8)
    run1(photos, tiny_clip, "--precision", "fp32")
    report = read(photos.parent / "out", "filtering_report.json")
    with torch.no_grad():
        high, low = (normalize(model.encode_text(tokenize(list(group))).mean(0), dim=0) for group in prompts)
        for row in report["results"]:
            picture = images.read(photos / row["filename"])
            feature = normalize(model.encode_image(prepare(picture)[None])[0], dim=0)
            assert row["high_quality_similarity"] == pytest.approx((feature @ high).item(), abs=1e-4)  # kept as float16
            assert row["quality_score"] == pytest.approx(
                (feature @ high - feature @ low).item(), abs=1e-4
            )  # kept as float16
            assert row["accepted"] == (row["quality_score"] >= report["threshold"])


def test_every_image_ends_up_in_one_place_and_broken_ones_in_none(photos, tiny_clip, capsys):
    status, out = run1(photos, tiny_clip, "--keep", 0.5)
    assert status == 0
    report = read(out, "filtering_report.json")
    accepted, rejected = files_in(out / "accepted"), files_in(out / "rejected")
    assert not accepted & rejected
    assert len(accepted | rejected) == 9
    assert {"a_1.jpg", "more/a_1.jpg"} <= accepted | rejected, "equal names of two folders both survive"
    assert (len(accepted), len(rejected)) == (report["accepted_images"], report["rejected_images"])
    assert report["total_images"] == 11
    assert {row["filename"] for row in report["errors"]} == {"c_3.jpg", "more/zero.jpg"}
    assert all(row["reason"] for row in report["errors"])
    assert report["quality_statistics"]["count"] == 9
    assert report["model"]["weights_sha256"]
    assert len(report["model"]["complete"]) == 8
    assert report["model"]["devices"] == ["cpu"]
    assert {"torch", "open_clip_torch"} <= set(report["versions"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "2 unreadable" in lines[0]


def test_another_threshold_leaves_nothing_stale(photos, tiny_clip):
    run1(photos, tiny_clip, "--threshold", -2)
    out = photos.parent / "out"
    assert len(files_in(out / "accepted")) == 9
    run1(photos, tiny_clip, "--threshold", 2)
    assert (len(files_in(out / "accepted")), len(files_in(out / "rejected"))) == (0, 9)
    assert read(out, "filtering_report.json")["threshold_source"] == "given"
    assert {path.name for path in photos.parent.iterdir()} == {"photos", "out", "scores"}, "no staging folder is left"


def test_the_automatic_threshold_is_the_same_in_every_run(photos, tiny_clip):
    thresholds = set()
    for _ in range(2):
        run1(photos, tiny_clip, "--sample_size", 4)
        thresholds.add(read(photos.parent / "out", "filtering_report.json")["threshold"])
    assert len(thresholds) == 1


def test_the_users_model_cache_stays_where_it_is(photos, tiny_clip, monkeypatch):
    cache = photos.parent / "cache/huggingface"
    cache.mkdir(parents=True)
    (cache / "weights.bin").write_bytes(b"mine")
    monkeypatch.setenv("HF_HOME", str(cache))
    assert run1(photos, tiny_clip)[0] == 0
    assert run1(photos, tiny_clip, "--model_cache_dir", photos.parent / "other", "--threshold", 0)[0] == 0
    assert files_in(cache) == {"weights.bin"}


def test_analysis_filters_nothing(photos, tiny_clip, capsys):
    status, out = run1(photos, tiny_clip, "--analyze_only", "--sample_size", 5)
    assert status == 0
    assert files_in(out) == {"quality_analysis.json"}
    analysis = read(out, "quality_analysis.json")
    assert analysis["total_images"] == 5
    assert "0.75" in analysis["thresholds"]
    assert "recommended threshold" in capsys.readouterr().out
    assert run1(photos, tiny_clip)[0] == 0, "filtering after an analysis"


def test_links(photos, tiny_clip):
    for kind in ("hard", "sym"):
        _, out = run1(photos, tiny_clip, "--threshold", -2, "--link", kind)
        placed = out / "accepted/a_1.jpg"
        assert placed.samefile(photos / "a_1.jpg")
        assert placed.is_symlink() == (kind == "sym")


def test_a_foreign_output_folder_is_left_alone(photos, tiny_clip, capsys):
    out = photos.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert run1(photos, tiny_clip)[0] == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert files_in(out) == {"thesis.txt"}
    (out / "thesis.txt").rename(photos.parent / "thesis.txt")
    assert run1(photos, tiny_clip)[0] == 0
    (photos.parent / "thesis.txt").rename(out / "thesis.txt")
    assert run1(photos, tiny_clip)[0] == 2, "our folder, but with something of theirs in it"


@pytest.mark.parametrize("inside", ["photos", "photos/out", "."])
def test_input_and_output_must_not_lie_in_each_other(photos, inside, capsys):
    flags = ["--input_dir", str(photos), "--output_dir", str(photos.parent / inside)]
    assert clipfilter1(flags) == 2
    assert "lie in each other" in capsys.readouterr().err


def test_only_broken_images_is_an_error_and_writes_nothing(tmp_path, tiny_clip, capsys):
    broken(tmp_path / "photos/a_1.jpg")
    status, out = run1(tmp_path / "photos", tiny_clip)
    assert status == 2
    assert "none of 1 images can be read" in capsys.readouterr().err
    assert not out.exists()


def test_best_view_of_every_vase(photos, tiny_clip, capsys):
    out = photos.parent / "out"
    flags = ["--input_dir", str(photos), "--output_dir", str(out), "--model", tiny_clip]
    flags += ["--device", "cpu", "--scores", str(photos.parent / "scores")]
    for _ in range(2):  # a second run replaces the first
        assert clipfilter2(flags) == 0
    report, stats = read(out, "best_views_report.json"), read(out, "filtering_stats.json")
    # a and A are one vase; the photograph without a view in its name is a vase of its own, and is listed.
    assert [row["vase_id"] for row in report["results"]] == ["a", "b", "c", "IMG_20240131"]
    assert report["unmatched"] == ["more/IMG_20240131.PNG", "more/zero.jpg"]
    assert report["vases_without_readable_view"] == ["zero"]
    assert {row["filename"] for row in report["errors"]} == {"c_3.jpg", "more/zero.jpg"}
    assert files_in(out / "best_views") == {row["selected_filename"] for row in report["results"]}
    for row in report["results"]:
        assert row["clip_score"] == max(row["all_view_scores"].values())
        assert row["total_views"] == len(row["all_view_scores"])
    assert report["results"][0]["total_views"] == 4
    assert stats["summary"]["total_vases"] == report["total_selected_images"] == 4
    assert sum(stats["view_distribution"].values()) == 4
    assert "2 files without a view in their name, 2 unreadable" in capsys.readouterr().out


def test_a_foreign_best_views_folder_is_left_alone(photos, capsys):
    mine = picture(photos.parent / "out/best_views/mine.jpg")
    assert clipfilter2(["--input_dir", str(photos), "--output_dir", str(photos.parent / "out")]) == 2
    assert "best_views_report.json" in capsys.readouterr().err
    assert mine.exists()


def test_the_two_stages_join(photos, tiny_clip):
    _, out = run1(photos, tiny_clip)
    flags = ["--input_dir", out / "accepted", "--output_dir", out, "--model", tiny_clip, "--device", "cpu"]
    flags += ["--scores", photos.parent / "scores"]
    assert clipfilter2([str(flag) for flag in flags]) == 0
    assert {"accepted", "rejected", "best_views"} <= {path.name for path in out.iterdir()}
    run1(photos, tiny_clip, "--threshold", 2)
    assert not (out / "best_views").exists(), "made from an accepted/ that is no more"


def test_reading_runs_ahead_by_one_batch_only(tmp_path):
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(12)]
    prepared = []
    batches = pipeline.read(paths, lambda image: prepared.append(1), batch_size=3, workers=2)
    next(batches)
    assert len(prepared) <= 6
    assert [len(batch) for batch in batches] == [3, 3, 3]


# ---- models that can't be had ----


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "ViT-nope"], "no model of that name"),
        (["--model", "local-dir:nowhere"], "no open_clip_config.json"),
        (["--model", "ViT-B-32", "--pretrained", "nope"], "neither a file nor weights"),
        (["--device", "cuda:7"], "there is cpu"),
    ],
)
def test_what_is_wrong_with_the_model_in_one_line(photos, flags, words, capsys):
    assert run1(photos, "builtin", *flags)[0] == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_weights_that_are_no_weights(photos, tmp_path, capsys):
    (tmp_path / "w.pt").write_text("no")
    assert run1(photos, "RN50", "--pretrained", tmp_path / "w.pt")[0] == 2
    assert "can't be loaded" in capsys.readouterr().err


def test_without_a_network_the_local_alternative_is_named(tmp_path, monkeypatch, caplog):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(cli.UserError, match=r"no network .* --model builtin, or --model local-dir:"):
        clip.text_features(default_scorer(tmp_path), clip.load_prompts())
    assert not caplog.records, "one line is enough"


@pytest.mark.slow
def test_a_hub_that_never_answers_is_given_up_within_seconds(tmp_path, monkeypatch):
    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
    code = (
        f"import sys; sys.path.insert(0, {str(FILTER.parent)!r})\n"
        "import pathlib, time, open_clip\nfrom vasekit import cli, clip\n"  # imports are not what is timed
        "start = time.perf_counter()\n"
        f"scorer = clip.Scorer(clip.DEFAULT_MODEL, clip.DEFAULT_PRETRAINED, pathlib.Path({str(tmp_path)!r}), 'fp32')\n"
        "status = cli.run(lambda argv: clip.text_features(scorer, clip.load_prompts()))\n"
        "print(status, time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    silent.close()
    assert "--model builtin" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    status, seconds = done.stdout.split()
    assert status == "2"
    assert float(seconds) < 10


def test_a_probe_knows_an_answer_from_silence():
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}"

    def refuse() -> None:
        connection, _ = server.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.close()

    threading.Thread(target=refuse).start()
    assert hub.Probe(url, 5).answered(), "a refusal is an answer"
    start = time.perf_counter()
    assert not hub.Probe(url, 0.3).answered()
    assert time.perf_counter() - start < 2
    server.close()
    assert not hub.Probe(url, 5).answered()


# ---- through the shell ----


@pytest.mark.parametrize("name", ["clipfilter1.py", "clipfilter2.py", "classifier.py", "model.py"])
def test_help_is_quick_and_unknown_flags_are_refused(name, tmp_path):
    start = time.perf_counter()
    assert shell(name, "--help", cwd=tmp_path).returncode == 0
    assert time.perf_counter() - start < 2, "torch must not be imported for this; 0.4 s on two quiet cores"
    done = shell(name, "--no_such_flag")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["clipfilter1.py", "clipfilter2.py"])
def test_missing_and_empty_input(name, tmp_path):
    for folder, words in ((tmp_path / "none", "no such folder"), (tmp_path, "no images in it")):
        done = shell(name, "--input_dir", folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_menu_without_a_terminal_filters_or_fails(photos, tiny_clip):
    out = photos.parent / "out"
    flags = ["--input_dir", photos, "--output_dir", out, "--model", tiny_clip, "--scores", photos.parent / "scores"]
    done = shell("clipfilter1.sh")
    assert done.returncode == 2
    assert "no terminal" in done.stderr
    assert shell("clipfilter1.sh", "7", *flags).returncode == 2
    assert shell("clipfilter1.sh", "3", *flags).returncode == 2
    assert "gpu 0" in shell("clipfilter1.sh", "gpu", *flags).stderr
    assert shell("clipfilter1.sh", "1", "--input_dir", out).returncode == 2, "the status is that of the work"
    assert not out.exists()
    done = shell("clipfilter1.sh", "3", "0.01", *flags)
    assert done.returncode == 0, done.stderr
    assert read(out, "filtering_report.json")["threshold"] == 0.01


def test_options_of_the_menu(tmp_path, monkeypatch):
    """Which flags each option stands for: a stand-in for Python prints them."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\nshift\necho "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(stand_in))
    expected = {
        ("1",): "--analyze_only",
        ("2", "--keep", "0.5"): "--keep 0.5",
        ("3", "0.2"): "--threshold 0.2",
        ("3", "--threshold", "0.3"): "--threshold 0.3",
        ("4",): "--device cpu",
        ("5",): "--device cuda:1",
        ("6",): "--analyze_only --sample_size 100",
        ("analyze", "--seed", "1"): "--analyze_only --seed 1",
        ("auto",): "",
        ("threshold", "-0.2", "--dedup"): "--threshold -0.2 --dedup",
        ("cpu",): "--device cpu",
        ("gpu", "3", "--yes"): "--device cuda:3 --yes",
        ("quick",): "--analyze_only --sample_size 100",
    }
    assert {words: shell("clipfilter1.sh", *words).stdout.strip() for words in expected} == expected


def test_settings_in_a_report_are_plain_values(photos, tiny_clip):
    _, out = run1(photos, tiny_clip)
    settings = read(out, "filtering_report.json")["settings"]
    assert settings["input_dir"] == str(photos)
    assert (settings["seed"], settings["keep"], settings["threshold"]) == (42, 0.75, None)
