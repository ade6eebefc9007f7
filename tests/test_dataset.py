"""From photographs and records to training files, through data/build.py."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from filter_entry import picture

from vasekit import decide, rewards
from vasekit.cli import ROOT
from vasekit.synth import world


def build(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "data" / "build.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Photographs (of nothing) and records of 60 vases of the built-in world."""
    rows = [world.record(world.vase_seed(3, k)) for k in range(60)]
    for seed, row in enumerate(rows):
        picture(tmp_path / "photos" / f"{row['Image GUID']}_1_ac001001.jpg", seed)
    picture(tmp_path / "photos" / "stranger_1.jpg", size=(16, 16))
    with (tmp_path / "records.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, world.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_rows_join_split_by_vase_and_say_what_the_record_says(collection: Path) -> None:
    flags = ("--images", collection / "photos", "--records", collection / "records.csv", "--test_share", 0.2)
    done = build(*flags, "--output", collection / "a")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    names = ("video_training_dataset.json", "grpo_video_dataset.json", "test.json", "manifest.json")
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


def test_parts_are_proportional_in_every_stratum_and_new_vases_move_few() -> None:
    shares = {"test": 0.1, "val": 0.05, "grpo": 0.25, "sft": 0.6}
    groups = [(f"vase-{k}", (f"shape {k % 7}", k % 3)) for k in range(600)]
    parts = decide.stratified(groups, shares, 42)
    for name, share in shares.items():
        assert parts.count(name) == pytest.approx(600 * share, abs=10)
        for stratum in {s for _, s in groups}:
            own = [part for part, (_, s) in zip(parts, groups, strict=True) if s == stratum]
            assert own.count(name) == pytest.approx(len(own) * share, abs=1)
    more = decide.stratified([*groups, ("new", ("shape 3", 1))], shares, 42)
    assert sum(a != b for a, b in zip(parts, more[:-1], strict=True)) <= 3
    alone = decide.stratified([(f"vase-{k}", k) for k in range(2000)], shares, 42)  # a stratum each
    assert all(alone.count(name) == pytest.approx(2000 * share, abs=60) for name, share in shares.items())
    assert parts != decide.stratified(groups, shares, 43)
    with pytest.raises(ValueError, match="not to 1"):
        decide.stratified(groups, {"sft": 0.5}, 42)


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
    done = build("--images", tmp_path / "photos", "--records", tmp_path / "records.jsonl", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert report["unknown_words"] == {"shape": {"thymiaterion": 1}, "date": {"no idea": 1}}
    assert sum(report["vases"].values()) == 3
    assert [(row["vase"], row["stage"]) for row in report["left_out"]] == [("detail_cup", "record")]


@pytest.mark.parametrize(
    ("records", "text", "said"),
    [
        ("missing.csv", None, "no such file"),
        ("records.xls", "x", "needs .csv"),
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
    done = build("--images", tmp_path / "photos", "--records", tmp_path / records, "--output", tmp_path / "out")
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
    flags = ("--images", tmp_path / "photos", "--records", tmp_path / "records.csv", "--output", tmp_path / "data")
    done = build(*flags, "--view_pattern", "folder", "--plain", "--grpo_share", 0, "--val_share", 0, "--test_share", 0)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "data/video_training_dataset.json").read_text())
    answers = {(row["vase"], row["messages"][-1]["content"]) for row in rows if row["field"] == "technique"}
    assert answers == {("698", "black-figure"), ("8375", "red-figure")}
