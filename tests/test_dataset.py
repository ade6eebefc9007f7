"""From photographs and records to training files, through data/build.py."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from filter_entry import picture

from vasekit import dataset, rewards
from vasekit.cli import ROOT
from vasekit.synth import world


def build(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "data" / "build.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Photographs (of nothing) and records of 60 vases of the built-in world."""
    rows = [world.record(world.vase_seed(3, k)) for k in range(60)]
    for row in rows:
        picture(tmp_path / "photos" / f"{row['Image GUID']}_1_ac001001.jpg", size=(16, 16))
    picture(tmp_path / "photos" / "stranger_1.jpg", size=(16, 16))
    with (tmp_path / "records.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, world.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_rows_join_split_by_vase_and_say_what_the_record_says(collection: Path) -> None:
    flags = ("--photos", collection / "photos", "--records", collection / "records.csv", "--test_share", 0.2)
    done = build(*flags, "--output", collection / "a")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    names = ("video_training_dataset.json", "grpo_video_dataset.json", "test.json", "dataset_report.json")
    sft, grpo, test, report = (json.loads((collection / "a" / name).read_text()) for name in names)
    vases = [{row["vase"] for row in rows} for rows in (sft, grpo, test)]
    assert sum(map(len, vases)) == len(set.union(*vases))
    assert all(len(part) > 5 for part in vases)
    assert all([m["role"] for m in row["messages"]] == ["user", "assistant"] for row in sft)
    assert all(row["messages"][0]["content"].count("<image>") == len(row["images"]) == 1 for row in sft + grpo)
    for row in grpo:
        assert [m["role"] for m in row["messages"]] == ["user"]
        target = json.loads(row["solution"])
        assert rewards.external_vase_acc([target["caption"]], [row["solution"]])[0] > 0.8
    assert report["photographs_without_record"] == ["stranger_1.jpg"]
    assert report["records_silent_about"]["date"] > 10

    build(*flags, "--output", collection / "b")
    assert (collection / "a" / names[0]).read_bytes() == (collection / "b" / names[0]).read_bytes()


def test_new_vases_move_none_of_the_others() -> None:
    keys = [f"vase-{k}" for k in range(500)]
    parts = {key: dataset.part_of(key, 42, 0.3, 0.1) for key in keys}
    shares = [sum(part == name for part in parts.values()) / 500 for name in ("test", "grpo", "sft")]
    assert shares == pytest.approx([0.1, 0.27, 0.63], abs=0.06)


def test_messy_json_records_do_not_stop_the_run(tmp_path: Path) -> None:
    for name in ("8375_1", "8375_2", "698_1", "detail_cup_1", "30552_1"):
        picture(tmp_path / "photos" / f"{name}.jpg", size=(16, 16))
    records = [
        {
            "image": "8375_1.jpg",
            "fabric": "ATHENIAN",
            "shape": "CUP LITTLE MASTER LIP",
            "attribution": "<em>Manner of</em> X P",
        },
        {"image": "8375_2.jpg", "fabric": "ATHENIAN", "shape": "CUP LITTLE MASTER LIP", "provenance": ""},
        {"image": "698_1.jpg", "technique": "BLACK-FIGURE", "shape": "THYMIATERION", "date": "no idea"},
        {"image": "detail_cup_1.jpg", "note": "no record"},
        {
            "image": "30552_1.jpg",
            "technique": None,
            "date": "-400 to -300",
            "decoration": "A: SPHINX (THEBAN), OEDIPUS",
        },
    ]
    (tmp_path / "records.jsonl").write_text("\n".join(json.dumps(row) for row in records))
    done = build("--photos", tmp_path / "photos", "--records", tmp_path / "records.jsonl", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "dataset_report.json").read_text())
    assert report["unknown_words"] == {"shape": {"thymiaterion": 1}}
    assert sum(report["vases"].values()) == 4


@pytest.mark.parametrize(
    ("records", "text", "said"),
    [
        ("missing.csv", None, "no such file"),
        ("records.txt", "x", "needs .csv"),
        ("records.csv", "Fabric,Date\n", "holds no record"),
        ("records.jsonl", '{"image": "a.jpg"}\n{broken', "line 2"),
        ("records.json", '"text"', "needs a list"),
        ("records.csv", "Image GUID,Fabric\nother,Attic\n", "no photograph has a record"),
    ],
)
def test_bad_records_are_refused_in_one_line(tmp_path: Path, records: str, text: str | None, said: str) -> None:
    picture(tmp_path / "photos" / "698_1.jpg", size=(16, 16))
    if text is not None:
        (tmp_path / records).write_text(text)
    done = build("--photos", tmp_path / "photos", "--records", tmp_path / records, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_one_folder_per_vase_reaches_the_records(tmp_path: Path) -> None:
    for vase in ("698", "8375"):
        for view in (1, 2):
            picture(tmp_path / f"photos/{vase}/{view}.jpg", size=(16, 16))
    (tmp_path / "records.csv").write_text(
        "Image GUID,Technique,Shape Name\n698,BLACK-FIGURE,SKYPHOS\n8375,RED-FIGURE,CUP\n"
    )
    flags = ("--photos", tmp_path / "photos", "--records", tmp_path / "records.csv", "--output", tmp_path / "data")
    done = build(*flags, "--view_pattern", "folder", "--grpo_share", 0)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "data/video_training_dataset.json").read_text())
    answers = {(row["vase"], row["messages"][-1]["content"]) for row in rows if row["field"] == "technique"}
    assert answers == {("698", "black-figure"), ("8375", "red-figure")}
