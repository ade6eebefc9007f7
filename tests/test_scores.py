"""The score table: what is kept, what is found again, and that another threshold needs no model."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from filter_entry import FILTER, entry, picture

from vasekit import clip, pipeline
from vasekit.scores import Row, ScoreTable, Stamp

IDENTITY = {"model": "m", "precision": "fp32"}


def row(name: str, *values: float, reason: str = "", sha256: str = "") -> Row:
    value = None if reason else np.array(values, np.float16)
    return Row(Stamp(name, 10, 20), sha256 or name, 4, 3, 2**64 - 1, reason, value)


def table(folder: Path, own: tuple[str, ...] = (), column: str = "embedding") -> ScoreTable:
    return ScoreTable(folder, IDENTITY, column, own)


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    first = table(tmp_path)
    first.append([row("a", 1, 2), row("b", reason="empty file"), row("c", 3, 4)])
    first.flush()
    again = table(tmp_path)
    again.append([row("d", 5, 6)])
    found = again.gather([Stamp(name, 10, 20) for name in "dbac"])
    assert found.values[[0, 2, 3]].tolist() == [[5, 6], [1, 2], [3, 4]]
    assert np.isnan(found.values[1]).all()
    assert found.reasons == ["", "empty file", "", ""]
    assert found.phashes.tolist() == [2**64 - 1] * 4
    with pytest.raises(KeyError, match="z"):
        again.gather([Stamp("z", 10, 20)])


def test_a_probability_keeps_its_single_precision(tmp_path: Path) -> None:
    kept = table(tmp_path, column="probability")
    kept.append([Row(Stamp("a", 1, 1), "a", value=np.array([0.123456789], np.float32))])
    kept.flush()
    assert table(tmp_path, column="probability").gather([Stamp("a", 1, 1)]).values[0, 0] == np.float32(0.123456789)


def test_a_changed_file_is_not_found_and_a_copy_is(tmp_path: Path) -> None:
    kept = table(tmp_path)
    kept.append([row("a", 1, 2, sha256="x")])
    kept.flush()
    again = table(tmp_path)
    assert again.find(Stamp("a", 10, 20)) is not None
    assert again.find(Stamp("a", 11, 20)) is None
    assert again.find(Stamp("a", 10, 21)) is None
    assert again.copy("x", Stamp("b", 1, 1)).value.tolist() == [1, 2]
    assert again.copy("y", Stamp("b", 1, 1)) is None
    assert table(tmp_path, own=("a",)).copy("x", Stamp("b", 1, 1)) is None, "see ScoreTable: own"


def test_other_scorers_have_rows_of_their_own(tmp_path: Path) -> None:
    kept = table(tmp_path)
    kept.append([row("a", 1, 2)])
    kept.flush()
    assert ScoreTable(tmp_path, IDENTITY | {"precision": "bf16"}, "embedding").find(Stamp("a", 10, 20)) is None
    assert json.loads((kept.folder / "scorer.json").read_text())["precision"] == "fp32"


def test_the_table_opens_in_other_programs(tmp_path: Path) -> None:
    from pyarrow import parquet

    kept = table(tmp_path)
    kept.append([row("a", 1, 2), row("b", reason="empty file")])
    kept.flush()
    (part,) = kept.folder.glob("*.parquet")
    columns = parquet.read_table(part).to_pydict()
    assert columns["status"] == ["ok", "error"]
    assert (columns["width"][0], columns["height"][0]) == (4, 3)
    assert np.frombuffer(columns["value"][0], "<f2").tolist() == [1, 2]


# ---- through the stages ----


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for vase in "abc":
        for view in (1, 2, 3):
            picture(tmp_path / f"photos/{vase}_{view}.jpg", ord(vase) + 100 * view, (80, 120))
    return tmp_path / "photos"


def sort(photos: Path, *flags: object, out: str = "out") -> dict:
    where = ["--input_dir", photos, "--output_dir", photos.parent / out, "--scores", photos.parent / "scores"]
    assert entry("clipfilter1")([*map(str, [*where, "--model", "builtin", "--device", "cpu", *flags])]) == 0
    report = photos.parent / out / "filtering_report.json"
    return json.loads(report.read_text()) if report.exists() else {}


def test_a_second_run_touches_no_model(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    first = sort(photos, "--threshold", 0)

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(clip, "_network", refuse)
    second = sort(photos, "--threshold", -2)
    assert [row["quality_score"] for row in first["results"]] == [row["quality_score"] for row in second["results"]]
    where = ["--input_dir", photos.parent / "out/accepted", "--output_dir", photos.parent / "out", "--model", "builtin"]
    flags = [*where, "--scores", photos.parent / "scores", "--device", "cpu"]
    assert entry("clipfilter2")([*map(str, flags)]) == 0, "copies of known content"
    sort(photos, "--threshold", -2)
    assert "quality filter: unchanged" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["threshold", "photograph", "new", "gone", "result"])
def test_any_change_is_noticed(photos: Path, change: str, capsys) -> None:
    sort(photos, "--threshold", -2)
    capsys.readouterr()
    if change == "photograph":
        picture(photos / "a_1.jpg", 999, (81, 120))
    elif change == "new":
        picture(photos / "d_1.jpg", 4)
    elif change == "gone":
        (photos / "a_1.jpg").unlink()
    elif change == "result":
        (photos.parent / "out/accepted/a_2.jpg").unlink()
    report = sort(photos, "--threshold", -1.9 if change == "threshold" else -2)
    assert "unchanged" not in capsys.readouterr().out
    listed = {row["filename"] for row in report["results"]}
    assert (
        listed
        == {path.name for path in photos.iterdir()}
        == {p.name for p in (photos.parent / "out/accepted").iterdir()}
    )


def test_a_dry_run_writes_nothing_but_scores(photos: Path, capsys) -> None:
    assert sort(photos, "--dry_run") == {}
    assert "dry run" in capsys.readouterr().out
    assert {path.name for path in photos.parent.iterdir()} == {"photos", "scores"}


def test_overrides_come_before_the_score_and_are_recorded(photos: Path) -> None:
    (photos.parent / "o.csv").write_text("filename,decision\na_1.jpg,reject\nb_2.jpg,accept\n")
    report = sort(photos, "--threshold", -2, "--overrides", photos.parent / "o.csv")
    verdicts = {row["filename"]: (row["accepted"], row["reason"]) for row in report["results"]}
    assert verdicts["a_1.jpg"] == (False, "override")
    assert verdicts["b_2.jpg"] == (True, "override")
    assert report["overrides"] == 2
    assert (photos.parent / "out/rejected/a_1.jpg").is_file()
    report = sort(photos, "--threshold", 2, "--overrides", photos.parent / "o.csv")
    assert report["accepted_images"] == 1


def test_near_duplicates_are_reported_and_dedup_keeps_the_best(photos: Path) -> None:
    from PIL import Image

    with Image.open(photos / "a_1.jpg") as image:
        image.save(photos / "a_8.jpg", quality=60)
        image.save(photos / "b_8.jpg", quality=60)  # of another vase: no duplicate
    report = sort(photos, "--threshold", -2)
    assert [sorted(group) for group in report["near_duplicates"]] == [["a_1.jpg", "a_8.jpg"]]
    assert report["accepted_images"] == 11
    report = sort(photos, "--threshold", -2, "--dedup")
    best, other = report["near_duplicates"][0]
    rows = {row["filename"]: row for row in report["results"]}
    assert rows[best]["accepted"]
    assert rows[other]["reason"] == f"near-duplicate of {best}"
    assert rows[best]["quality_score"] >= rows[other]["quality_score"]
    assert report["accepted_images"] == 10


@pytest.mark.slow
def test_two_processes_give_the_values_of_one(photos: Path) -> None:
    import subprocess
    import sys

    alone = sort(photos, "--threshold", 0, "--batch_size", 2)
    where = ["--input_dir", photos, "--output_dir", photos.parent / "two", "--scores", photos.parent / "scores2"]
    flags = [*where, "--model", "builtin", "--device", "cpu,cpu", "--threshold", 0, "--batch_size", 2]
    command = [sys.executable, FILTER / "clipfilter1.py", *flags]
    subprocess.run([str(word) for word in command], check=True)
    beside = json.loads((photos.parent / "two/filtering_report.json").read_text())
    assert beside["results"] == alone["results"]


class Counting:
    """A scorer that counts: by its batches it can be told whether pictures are scored together."""

    column, identity, at_least = "embedding", {"model": "counting"}, 0

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def open(self, device: str) -> Counting:
        return self

    def prepare(self, image) -> np.ndarray:
        self.threads.add(threading.get_ident())
        return np.asarray(image.resize((2, 2))).transpose(2, 0, 1)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        return batch.reshape(len(batch), -1).astype(np.float32)


def test_pictures_are_decoded_beside_and_scored_together(photos: Path, tmp_path: Path) -> None:
    scorer, paths = Counting(), sorted(photos.iterdir())
    found = pipeline.score(paths, scorer, ["cpu"], tmp_path / "scores", batch_size=4, workers=2)
    assert scorer.batches == [4, 4, 1]
    assert threading.get_ident() not in scorer.threads
    assert [outcome.path for outcome in found] == paths
    assert np.isfinite([outcome.value for outcome in found]).all()


def test_progress_says_how_far_how_fast_and_how_long_still() -> None:
    progress = pipeline.Progress(200)
    progress.add(50, 2)
    assert progress.line(10.0) == "50 of 200 images, 5.0 images/s, 0:00:30 left, 2 errors"
