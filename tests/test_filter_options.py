"""Calibration, audit, prompts and view maps through the entry points, on rendered vases with the built-in model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from filter_entry import entry

from vasekit.synth import world

SORT = ["--model", "builtin", "--device", "cpu"]


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, records.csv, truth.json and labels.csv of a small collection."""
    folder = tmp_path_factory.mktemp("museum")
    world.deliver(9_500, vases=24, views=3, labelled=0, turntable=0, size=112, folder=folder)
    truth = json.loads((folder / "truth.json").read_text())
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        writer.writerows((row["image"], int(row["condition"] == "whole")) for row in truth[::2])
    return folder


def sort(museum: Path, tmp_path: Path, *flags: object) -> tuple[int, dict]:
    where = ["--input_dir", museum / "photos", "--output_dir", tmp_path / "out", "--scores", museum / "scores"]
    status = entry("clipfilter1")([*map(str, [*where, *SORT, *flags])])
    report = tmp_path / "out/filtering_report.json"
    return status, json.loads(report.read_text()) if report.is_file() else {}


def test_labels_set_the_threshold(museum: Path, tmp_path: Path) -> None:
    _, report = sort(museum, tmp_path, "--labels", museum / "labels.csv", "--target_recall", 0.9)
    found = report["calibration"]
    assert report["threshold_source"] == "labels"
    assert report["threshold"] == found["threshold"]
    assert found["recall"]["value"] >= 0.9
    assert found["threshold_interval"]["low"] <= found["threshold"] <= found["threshold_interval"]["high"]
    labelled = {row["path"] for row in csv.DictReader((museum / "labels.csv").open())}
    assert found["to_label_next"]
    assert labelled.isdisjoint(row["filename"] for row in found["to_label_next"])
    assert "Precision and recall" in (tmp_path / "out/review.html").read_text()


def test_labels_judge_a_threshold_that_was_given(museum: Path, tmp_path: Path) -> None:
    _, report = sort(museum, tmp_path, "--labels", museum / "labels.csv", "--threshold", -0.5)
    assert (report["threshold"], report["threshold_source"]) == (-0.5, "given")
    assert report["calibration"]["precision"]["n"] > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--target_precision", "0.9"], "give them with --labels"),
        (["--labels", "LABELS", "--target_precision", "0.9", "--target_recall", "0.9"], "one of them decides"),
        (["--labels", "LABELS", "--target_precision", "0.9", "--threshold", "0"], "one of them decides"),
        (["--labels", "nowhere.csv"], "no such file"),
        (["--records", "nowhere.csv"], "no such file"),
        (["--prompts", "nowhere.yaml"], "no such file"),
        (["--overrides", "nowhere.csv"], "no such file"),
    ],
)
def test_what_does_not_go_together_in_one_line(museum: Path, tmp_path: Path, flags: list, words: str, capsys) -> None:
    flags = [str(museum / "labels.csv") if flag == "LABELS" else flag for flag in flags]
    status, report = sort(museum, tmp_path, *flags)
    assert (status, report) == (2, {})
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_records_show_whom_the_filter_removes(museum: Path, tmp_path: Path) -> None:
    _, report = sort(museum, tmp_path, "--records", museum / "records.csv", "--keep", 0.5)
    found = report["audit"]
    assert found["overall"]["n"] == report["total_images"] - report["error_images"]
    assert found["overall"]["value"] == pytest.approx(report["acceptance_rate"])
    assert {"technique", "shape"} <= found["fields"].keys()
    assert "Who is accepted" in (tmp_path / "out/review.html").read_text()


def test_prompts_of_ones_own_need_no_second_look_at_the_pictures(museum: Path, tmp_path: Path) -> None:
    _, first = sort(museum, tmp_path)
    (tmp_path / "p.yaml").write_text("complete: [a complete vase]\nfragments: [sherds, a broken vase]\n")
    parts = sorted((museum / "scores").glob("*/part-*.parquet"))
    _, second = sort(museum, tmp_path, "--prompts", tmp_path / "p.yaml")
    assert second["model"]["complete"] == ["a complete vase"]
    assert first["results"][0]["quality_score"] != second["results"][0]["quality_score"]
    assert sorted((museum / "scores").glob("*/part-*.parquet")) == parts
    (tmp_path / "p.yaml").write_text("complete: a vase\n")
    assert sort(museum, tmp_path, "--prompts", tmp_path / "p.yaml")[0] == 2


def test_a_map_of_views_and_an_override_of_the_best(museum: Path, tmp_path: Path) -> None:
    photos = sorted(path.name for path in (museum / "photos").iterdir())[:6]
    with (tmp_path / "views.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("filename", "vase", "view"), *((name, "V", k) for k, name in enumerate(photos))])
    where = ["--input_dir", museum / "photos", "--output_dir", tmp_path, "--scores", museum / "scores", *SORT]
    flags = [*where, "--views", tmp_path / "views.csv"]
    assert entry("clipfilter2")([*map(str, flags)]) == 0
    report = json.loads((tmp_path / "best_views_report.json").read_text())
    (row,) = [row for row in report["results"] if row["vase_id"] == "V"]
    assert (row["total_views"], row["reason"]) == (6, "highest score")
    assert row["runner_up"] in photos
    assert report["unmatched_images"] == report["total_images"] - 6
    other = next(name for name in photos if name != row["selected_filename"])
    (tmp_path / "o.csv").write_text(f"filename,decision\n{other},best\n")
    assert entry("clipfilter2")([*map(str, flags), "--overrides", str(tmp_path / "o.csv")]) == 0
    report = json.loads((tmp_path / "best_views_report.json").read_text())
    (row,) = [row for row in report["results"] if row["vase_id"] == "V"]
    assert (row["selected_filename"], row["reason"]) == (other, "override")
    assert (tmp_path / "best_views" / other).is_file()
    assert "best" in (tmp_path / "best_views.html").read_text()
