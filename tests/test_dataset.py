"""From photographs and records to training files, through data/build.py."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from filter_entry import broken, picture
from PIL import Image

from vasekit import dataset, decide, files, images, questions, rewards
from vasekit.cli import ROOT
from vasekit.synth import world
from vasekit.vases import VaseRecord


def build(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "data" / "build.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Photographs (of nothing) and records of 60 vases of the built-in world."""
    rows = world_rows()
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


# ---- names and records ----


def test_paths_in_records_tell_equal_file_names_apart() -> None:
    rows = [
        {"image": "images/a/1.jpg", "fabric": "ATHENIAN"},
        {"image": "images/b/1.jpg", "fabric": "BOEOTIAN"},
        {"image": "elsewhere/2.jpg", "fabric": "LACONIAN"},
        {"image": "C:\\photos\\c\\3.jpg", "fabric": "ETRUSCAN"},
    ]
    photos = [Path("/x/a/1.jpg"), Path("/x/b/1.jpg"), Path("/x/c/1.jpg"), Path("/x/2.jpg"), Path("/x/c/3.jpg")]
    joined = dataset.join(photos, rows, lambda photo: images.View(f"{photo.parent.name}-{photo.stem}", ""))
    found = {entry.photos[0].as_posix(): entry.record.fabric for entry in joined.entries}
    assert found == {
        "/x/a/1.jpg": "Athenian",
        "/x/b/1.jpg": "Boeotian",
        "/x/2.jpg": "Laconian",  # no other file of that name
        "/x/c/3.jpg": "Etruscan",
    }
    assert joined.photos_without_record == [Path("/x/c/1.jpg")]
    assert joined.records_without_photo == 0


def test_training_rows_of_others_are_records_too(tmp_path: Path) -> None:
    asked = [{"from": "human", "value": "<image>What is the fabric of the vase?"}, {"from": "gpt", "value": "ATHENIAN"}]
    rows = [{"images": "old/698_1.jpg", "conversations": asked}, {"images": ["8375_1.jpg"], "caption": "Attic rf cup."}]
    for seed, row in enumerate(rows):
        picture(tmp_path / "photos" / Path(str(row["images"]).strip("[]'")).name, seed)
    (tmp_path / "records.json").write_text(json.dumps(rows))
    made = built(tmp_path, "--val_share", 0, "--test_share", 0, "--grpo_share", 0, "--plain", records="records.json")
    said = {(row["vase"], row["field"]): row["messages"][-1]["content"] for row in made["sft"]}
    assert said["698", "fabric"] == "Athenian"
    assert said["8375", "caption"] == "Athenian red-figure kylix."


# ---- rows ----


def built(folder: Path, *flags: object, records: str = "records.csv") -> dict:
    """data/build.py on a collection: part -> rows, `manifest`, `card` and what was said."""
    where = ("--images", folder / "photos", "--records", folder / records, "--output", folder / "out")
    done = build(*where, *flags)
    assert done.returncode == 0, done.stderr
    names = {"sft": "video_training_dataset", "grpo": "grpo_video_dataset", "val": "val", "test": "test"}
    paths = {name: folder / "out" / f"{stem}.json" for name, stem in {**names, "manifest": "manifest"}.items()}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    return found | {"card": (folder / "out" / "DATASET_CARD.md").read_text(), "said": done.stdout + done.stderr}


def test_rows_say_nothing_that_the_record_does_not(collection: Path) -> None:
    made = built(collection)
    records = made["manifest"]["lineage"]
    for row in made["sft"] + made["val"] + made["test"]:
        if row["field"] not in ("caption", "overall"):
            assert records[row["vase"]]["record"][row["field"]]
            value = questions.parse_answer(row["field"], row["messages"][-1]["content"])
            record = VaseRecord(**records[row["vase"]]["record"])
            assert value == questions.value(record, row["field"])
    assert {row["field"] for row in made["sft"]} == set(questions.QUESTIONS)
    assert all(set(row) >= {"messages", "images", "caption", "vase", "photo", "field"} for row in made["sft"])


def test_paraphrases_are_ours_and_held_out_questions_are_the_documented_ones(collection: Path) -> None:
    made = built(collection)

    def asked(part: str) -> set[str]:
        return {row["messages"][0]["content"].removeprefix("<image>") for row in made[part]}

    documented = {wordings[0] for wordings in questions.QUESTIONS.values()}
    assert len(asked("sft")) > 20
    assert asked("sft") <= {question for wordings in questions.QUESTIONS.values() for question in wordings}
    assert asked("test") <= documented
    plain = built(collection, "--plain")
    assert {row["messages"][0]["content"].removeprefix("<image>") for row in plain["sft"]} <= documented


def test_ratio_flags(collection: Path) -> None:
    made = built(collection, "--questions", "shape=0.5,technique,caption=0.25", "--grpo_share", 0)
    counts = Counter(row["field"] for row in made["sft"])
    assert set(counts) == {"shape", "technique", "caption"}
    assert 0.3 < counts["shape"] / made["manifest"]["vases"]["sft"] < 0.7
    assert 0.1 < counts["caption"] / made["manifest"]["vases"]["sft"] < 0.45
    assert not made["grpo"]
    again = built(collection, "--questions", "shape=0.5,technique,caption=0.25", "--grpo_share", 0, "--seed", 7)
    assert again["sft"] != made["sft"]


def test_a_split_of_before_leaves_nothing_behind(collection: Path) -> None:
    assert built(collection)["test"]
    made = built(collection, "--test_share", 0, "--val_share", 0)
    assert "test" not in made
    assert "val" not in made


def test_copies_of_a_picture_stay_in_one_part(collection: Path) -> None:
    """Another vase's photograph, smaller and compressed again, must not be in training while its original is a test."""
    photos = sorted((collection / "photos").glob("*_ac001001.jpg"))
    for seed, (photo, other) in enumerate(zip(photos[:20], photos[20:40], strict=True)):
        picture(photo, 100 + seed, size=(300, 420))
        with Image.open(photo) as image:
            image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(other, quality=50)
    made = built(collection, "--test_share", 0.3, "--val_share", 0.2)
    part_of = {key: entry["part"] for key, entry in made["manifest"]["lineage"].items()}
    keys = [images.parse_name(photo).key for photo in photos]
    assert all(part_of[a] == part_of[b] for a, b in zip(keys[:20], keys[20:40], strict=True))
    assert len(made["manifest"]["near_duplicates"]) == 20
    assert len(set(part_of.values())) >= 4
    assert "share a picture" in made["card"]
    checked = validate(*(collection / "out" / name for name in ("video_training_dataset.json", "test.json")))
    assert checked.returncode == 0, checked.stderr


def validate(path: Path, against: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "data" / "validate.py"), path, "--against", against, "--model", "builtin"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_a_placeholder_picture_is_noticed(collection: Path) -> None:
    for photo in sorted((collection / "photos").glob("*_ac001001.jpg"))[:15]:
        picture(photo, 999)
    assert "15 vases, such as" in built(collection)["said"]


def test_broken_photographs_are_a_third_outcome(collection: Path) -> None:
    first, second = sorted((collection / "photos").glob("*_ac001001.jpg"))[:2]
    broken(first)
    picture(second.with_name(second.name.replace("_1_", "_2_")), 77)
    broken(second)
    made = built(collection)
    assert "1 vases left out for their photographs" in made["said"]
    assert {row["name"] for row in made["manifest"]["unreadable"]} == {first.name, second.name}
    shown = {path for part in ("sft", "grpo", "val", "test") for row in made[part] for path in row["images"]}
    assert not {str(first), str(second)} & shown
    assert any("_2_" in path for path in shown)  # the other view of that vase


def test_every_view_makes_rows_where_asked(collection: Path) -> None:
    photo = sorted((collection / "photos").glob("*_ac001001.jpg"))[0]
    picture(photo.with_name(photo.name.replace("_1_", "_2_")), 78)
    key = images.parse_name(photo).key

    def shown(made: dict) -> set[str]:
        return {row["images"][0] for row in made["sft"] + made["grpo"] if row["vase"] == key}

    quiet = ("--test_share", 0, "--val_share", 0)
    assert len(shown(built(collection, *quiet))) == 1
    assert len(shown(built(collection, *quiet, "--all_views"))) == 2


def test_turntables_become_videos(collection: Path) -> None:
    key = images.parse_name(sorted((collection / "photos").glob("*_ac001001.jpg"))[0]).key
    for frame in range(10):
        picture(collection / "turns" / key.upper() / f"frame_{frame:02d}.jpg", frame)
    made = built(
        collection, "--turntables", collection / "turns", "--max_frames", 4, "--test_share", 0, "--val_share", 0
    )
    rows = [row for row in made["sft"] + made["grpo"] if row["vase"] == key]
    assert rows
    for row in rows:
        assert "images" not in row
        assert row["messages"][0]["content"].startswith("<video>")
        assert [Path(frame).name for frame in row["videos"][0]] == [f"frame_{k:02d}.jpg" for k in (0, 2, 5, 7)]


def test_large_pictures_are_stored_smaller_where_asked(collection: Path) -> None:
    photo = sorted((collection / "photos").glob("*_ac001001.jpg"))[0]
    picture(photo, 5, size=(400, 600))
    made = built(collection, "--max_pixels", 60_000)
    (entry,) = [entry for key, entry in made["manifest"]["lineage"].items() if key == images.parse_name(photo).key]
    shown = {path for part in ("sft", "grpo", "val", "test") for row in made[part] for path in row["images"]}
    small = collection / "out" / "images" / photo.name
    assert str(small) in shown
    with Image.open(small) as image:
        assert image.size == (200, 300)
    assert [path.name for path in small.parent.iterdir()] == [photo.name]
    assert entry["photos"][0]["sha256"] == files.sha256(photo)  # of the photograph, not of the copy


def test_photographs_of_ones_own_are_never_replaced(collection: Path) -> None:
    (collection / "photos").rename(collection / "images")
    flags = ("--images", collection / "images", "--records", collection / "records.csv", "--output", collection)
    before = sorted((collection / "images").iterdir())
    for more in ("--publish", "--max_pixels=100"):
        done = build(*flags, more)
        assert done.returncode == 2
        assert "lie in each other" in done.stderr
    (collection / "out" / "images").mkdir(parents=True)
    (collection / "out" / "images" / "notes.txt").write_text("mine")
    done = build(*flags[:-1], collection / "out", "--publish")
    assert done.returncode == 2
    assert "was not written by this script" in done.stderr
    assert sorted((collection / "images").iterdir()) == before
    assert (collection / "out" / "images" / "notes.txt").exists()


def test_record_strings_are_joined_by_their_number(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "8375_1.jpg")
    (tmp_path / "records.txt").write_text("The Vase Number is 8375;The Fabric is ATHENIAN;The Shape Name is CUP\n")
    quiet = ("--val_share", 0, "--test_share", 0, "--grpo_share", 0, "--plain")
    assert {row["vase"] for row in built(tmp_path, *quiet, records="records.txt")["sft"]} == {"8375"}


# ---- rights ----


def test_only_what_may_be_handed_on_is_published(collection: Path) -> None:
    made = built(collection, "--publish")
    reasons = {row["vase"]: row["reason"] for row in made["manifest"]["left_out"] if row["stage"] == "rights"}
    records = {images.View(row["Image GUID"], "").key: row for row in world_rows()}
    for key, row in records.items():
        if row["Licence"] in ("", "All rights reserved"):
            assert key in reasons
    assert "no licence stated" in reasons.values()
    assert "all rights reserved forbids it" in reasons.values()
    assert f"{len(reasons)} vases left out for their rights" in made["said"]
    rows = [row for part in ("sft", "grpo", "val", "test") for row in made[part]]
    assert not {row["vase"] for row in rows} & set(reasons)
    assert all((collection / "out" / row["images"][0]).is_file() for row in rows)
    assert "Every picture may be handed on" in made["card"]
    assert "CC BY-NC" in made["card"]
    unpublished = built(collection)
    assert "Not to be published as it is" in unpublished["card"]


def world_rows() -> list[dict[str, str]]:
    return [world.record(world.vase_seed(3, k)) for k in range(60)]


def test_a_credit_line_is_needed_where_the_licence_says_so() -> None:
    assert dataset.unpublishable(VaseRecord(licence="CC BY 4.0")) == "CC BY needs a credit line"
    assert dataset.unpublishable(VaseRecord(licence="CC BY 4.0", credit="Museum")) == ""
    assert dataset.unpublishable(VaseRecord(licence="CC0")) == ""
    assert dataset.unpublishable(VaseRecord(licence="CC BY 4.0, no AI", credit="x")).startswith("unknown licence")


def test_nothing_to_publish_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "698_1.jpg")
    (tmp_path / "records.csv").write_text("vase,Fabric,Licence\n698,ATHENIAN,In copyright\n")
    flags = ("--images", tmp_path / "photos", "--records", tmp_path / "records.csv", "--output", tmp_path / "out")
    done = build(*flags, "--publish")
    assert done.returncode == 2
    assert "forbids it" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


# ---- lineage ----


def lineage_of(folder: Path, vase: str) -> dict:
    command = [sys.executable, "-m", "vasekit.lineage", vase, "--data", str(folder / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return json.loads(done.stdout)


@pytest.fixture
def filtered(tmp_path: Path) -> Path:
    """Vases that came through the filter: chosen, rejected, unreadable, without a record, and sorted out before."""
    for seed, name in enumerate(("a_1", "a_2", "d_1")):
        picture(tmp_path / "filtered" / "best_views" / f"{name}.jpg", seed)
    quality = [("a_1", 0.2, True), ("a_2", 0.3, True), ("b_1", -0.2, False), ("d_1", 0.3, True)]
    report = {
        "threshold": 0.1,
        "results": [
            {"filename": f"{n}.jpg", "quality_score": q, "accepted": ok, "reason": "score", "vase_id": n[0].upper()}
            for n, q, ok in quality
        ],
        "errors": [{"filename": "c_1.jpg", "reason": "empty file"}],
        "settings": {"input_dir": str(tmp_path / "images3" / "1")},
    }
    files.write_json(tmp_path / "filtered" / "filtering_report.json", report)
    sorted_ = {
        "confidence_threshold": 0.5,
        "results": [{"filename": "e_1.jpg", "probability": 0.1, "label": 0}],
        "errors": [],
    }
    files.write_json(tmp_path / "images3" / "classification_report.json", sorted_)
    chosen = {"vase_id": "A", "selected_filename": "a_2.jpg", "clip_score": 0.7, "margin": 0.2, "total_views": 2}
    chosen |= {"reason": "highest score", "all_view_scores": {"a_2.jpg": 0.7, "a_1.jpg": 0.5}}
    files.write_json(
        tmp_path / "filtered" / "best_views_report.json",
        {"results": [chosen], "errors": [], "settings": {"input_dir": str(tmp_path / "filtered" / "accepted")}},
    )
    (tmp_path / "records.csv").write_text("vase,Fabric,Licence\nA,ATHENIAN,CC0\nB,ATHENIAN,CC0\n")
    where = ("--images", tmp_path / "filtered" / "best_views", "--records", tmp_path / "records.csv")
    done = build(*where, "--output", tmp_path / "out", "--val_share", 0, "--test_share", 0, "--grpo_share", 0)
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_lineage_follows_a_vase_from_the_filter_to_its_rows(filtered: Path) -> None:
    found = lineage_of(filtered, "A")
    assert found["verdict"].startswith("in, part sft (video_training_dataset.json from row 1 on: 3)")
    assert list(found["stages"]) == ["quality filter", "best view", "data set"]
    assert "chosen of 2, score 0.7000, +0.2000 before the next" in found["stages"]["best view"][0]
    (row, *_) = json.loads((filtered / "out" / "video_training_dataset.json").read_text())
    assert row["photo"]["name"] == "a_2.jpg"  # the best one by the filter's table
    assert row["photo"]["score"] == 0.7
    assert row["photo"]["sha256"] == files.sha256(filtered / "filtered" / "best_views" / "a_2.jpg")


@pytest.mark.parametrize(
    ("vase", "verdict", "status"),
    [
        ("b", "not in: it ends at the quality filter (b_1.jpg: rejected, quality -0.2000", 0),
        ("C", "not in: it ends at the quality filter (c_1.jpg: can't be read (empty file)", 0),
        ("e", "not in: it ends at the classifier (e_1.jpg: sorted out, probability 0.100", 0),
        ("D", "not in: it ends at the records (no record names d_1.jpg or its vase)", 0),
        ("nobody", "not in: no stage has seen a photograph of it", 2),
    ],
)
def test_lineage_says_why_a_vase_is_not_in(filtered: Path, vase: str, verdict: str, status: int) -> None:
    command = [sys.executable, "-m", "vasekit.lineage", vase, "--data", str(filtered / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.startswith(f"{vase}: {verdict}"), done.stdout + done.stderr
    assert done.returncode == status


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--questions", "colour"), "colour given, there are fabric"),
        (("--questions", "shape=2"), "shape=2 given, needs NAME or NAME=SHARE"),
        (("--questions", ""), "none given"),
        (("--caption_fields", "size"), "size given, there are fabric"),
        (("--test_share", "1"), "needs a share from 0 to below 1"),
        (("--test_share", ".6", "--val_share", ".5"), "leave nothing to train on"),
        (("--turntables", "/no/such"), "no such folder"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(collection: Path, flags: tuple[str, ...], said: str) -> None:
    where = ("--images", collection / "photos", "--records", collection / "records.csv", "--output", collection / "out")
    done = build(*where, *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (collection / "out").exists()
