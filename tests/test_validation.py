"""The check of training files: what it refuses, what it counts, and that ms-swift counts the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import pytest
from PIL import Image

from vasekit import builtin, doctor, lengths, validation
from vasekit.cli import ROOT, UserError

QUESTION = {"role": "user", "content": "<image>What is the shape of the vase?"}
ANSWER = {"role": "assistant", "content": "A lekythos."}
SAID = [{"from": "human", "value": "<image>\n What is the shape of the vase?"}, {"from": "gpt", "value": "A lekythos."}]
TARGET = json.dumps({"fabric": "Athenian", "shape": "lekythos"})


def row(*messages: dict, **columns: object) -> dict:
    return {"messages": list(messages or (QUESTION, ANSWER)), "images": ["a.jpg"]} | columns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in {"a": (100, 60), "b": (60, 100), "wide": (300, 20), "needle": (4000, 10)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def write(path: Path, rows: Iterable[object]) -> Path:
    rows = list(rows)
    text = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))
    path.write_text(text, encoding="utf-8")
    return path


def check(*paths: Path, reward: bool = False, limit: int = 4096, against: Iterable[Path] = ()) -> validation.Report:
    flags = {"model": [str(builtin.VLM)], "max_length": [str(limit)]}
    return validation.check(paths, doctor.settings(flags, {}, reward), list(against))


def found(report: validation.Report) -> list[tuple[int | None, str]]:
    return [(finding.row, finding.kind) for finding in report.problems]


def script(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "data" / "validate.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_every_documented_form_passes(folder: Path, name: str) -> None:
    video = [{"role": "user", "content": "<video>Describe it."}, ANSWER]
    rows = [
        row(),
        row(QUESTION | {"content": "<image>Another?"}, images="a.jpg", vase="698", photo={"sha256": "0", "view": "1"}),
        {"messages": video, "videos": [[str(folder / "a.jpg")] * 3]},
    ]
    rows[1]["messages"].append(ANSWER)
    report = check(write(folder / name, rows))
    assert report.problems == report.warnings == []
    assert report.files[0] | {"tokens": 0} == {
        "path": str(folder / name),
        "rows": 3,
        "tokens": 0,
        "images": 1,
        "relative_paths": True,
    }
    documented = {"id": 0, "images": ["a.jpg"], "caption": "Athenian lekythos.", "conversations": SAID}
    assert not check(write(folder / name, [documented, documented | {"images": "b.jpg"}])).problems


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (5, "no object"),
        ({"images": ["a.jpg"], "caption": "Athenian lekythos."}, "no messages"),
        (row() | {"messages": "text"}, "no list"),
        (row({"role": "User", "content": "<image>?"}, ANSWER), "the role 'User' in message 1"),
        (row(QUESTION, {"role": "assistant", "content": None}), "no text in message 2"),
        (row(QUESTION, {"role": "assistant", "content": " "}), "no text in message 2"),
        (row(QUESTION, {"role": "assistant"}), "no text in message 2"),
        (row(ANSWER), "take turns"),
        (row(QUESTION, QUESTION, ANSWER), "take turns"),
        (row(QUESTION), "lacks the assistant's answer"),
        (row({"role": "system", "content": "Be brief."}), "no question"),
        (row(system=5), "no text"),
        (row(images=[5]), "no file names"),
        (row(images=[], videos=["turn.mp4"]), "lists of frames"),
        (row(images=[], videos=[[]]), "lists of frames"),
    ],
)
def test_what_ms_swift_would_drop_or_choke_on_is_refused(folder: Path, wrong: object, said: str) -> None:
    report = check(write(folder / "d.json", [row(), wrong]))
    assert found(report) == [(2, "schema")]
    assert said in report.problems[0].message


def test_two_names_for_one_column_lose_rows(folder: Path) -> None:
    """ms-swift 4.6 renames `conversations` only where no row of the file has `messages`."""
    report = check(write(folder / "d.json", [{"conversations": SAID, "images": ["b.jpg"]}, row(), row(image="b.jpg")]))
    assert found(report) == [(1, "schema")]
    assert "'messages'" in report.problems[0].message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.jpg", "is not there"),
        ("text.jpg", "not an image"),
        ("empty.jpg", "is empty"),
        ("folder.jpg", "not a file"),
        ("needle.jpg", "200 times"),
    ],
)
def test_pictures_that_cant_be_used(folder: Path, name: str, said: str) -> None:
    report = check(write(folder / "d.jsonl", [row(), row(images=[name])]))
    assert found(report) == [(2, "image")]
    assert said in report.problems[0].message


def test_a_frame_list_needs_one_size(folder: Path) -> None:
    turns = [{"role": "user", "content": "<video>?"}, ANSWER]
    uneven = {"messages": turns, "videos": [[str(folder / "a.jpg"), str(folder / "wide.jpg")]]}
    relative = {"messages": turns, "videos": [["a.jpg", "a.jpg"]]}
    report = check(write(folder / "d.json", [uneven, relative]))
    assert found(report) == [(1, "image")]
    assert "different sizes" in report.problems[0].message


def test_relative_paths_are_found_as_ms_swift_finds_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(folder / "d.json", [row()])
    monkeypatch.chdir(folder)
    assert not check(data).problems
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert not check(data).problems
    Image.new("RGB", (9, 9)).save(elsewhere / "a.jpg")  # ms-swift looks in the current folder first
    assert "current folder" in check(data).problems[0].message
    (elsewhere / "a.jpg").unlink()
    flags = {"model": [str(builtin.VLM)]}
    report = validation.check([data], doctor.settings(flags, {"ROOT_IMAGE_DIR": str(elsewhere)}, False))
    assert found(report) == [(1, "image")]


def test_a_tag_for_each_picture(folder: Path) -> None:
    bare = {"role": "user", "content": "What?"}
    rows = [row(bare, ANSWER), row(images=["a.jpg", "b.jpg"]), row(images=[]), row(QUESTION, QUESTION | ANSWER)]
    assert found(check(write(folder / "d.json", rows))) == [(1, "tags"), (2, "tags"), (3, "tags")]


def test_long_rows_are_refused_and_listed(folder: Path) -> None:
    rows = [row(), row(QUESTION, {"role": "assistant", "content": "word " * 200}), row()]
    report = check(write(folder / "d.json", rows), limit=100)
    assert found(report) == [(2, "length")]
    assert report.files[0]["tokens"]["max"] > 200
    # The answer is left out where there is a reward.
    rows = [r | {"solution": TARGET} for r in rows]
    assert not check(write(folder / "d.json", rows), limit=100, reward=True).problems


def test_targets_of_the_reward(folder: Path) -> None:
    asked = [QUESTION | {"content": f"<image>{k}"} for k in range(5)]
    solutions = [TARGET, None, '{"fabric": ', '{"provenance": "Vulci"}', {"shape": "kylix"}]
    rows = [row(turn, solution=solution) for turn, solution in zip(asked, solutions, strict=True)]
    report = check(write(folder / "d.jsonl", rows), reward=True)
    assert found(report) == [(2, "solution"), (3, "solution"), (4, "solution")]
    assert "lacks the column 'solution'" in validation.lines(report.problems)[0]


def test_repeated_rows_and_two_answers_are_warnings(folder: Path) -> None:
    rows = [row(), row(images="b.jpg"), row(), row(QUESTION, ANSWER | {"content": "A kylix."})]
    report = check(write(folder / "d.json", rows))
    assert not report.problems
    assert [(finding.row, finding.kind) for finding in report.warnings] == [(3, "duplicate"), (4, "answers")]
    twice = check(write(folder / "a.json", [row()]), write(folder / "b.jsonl", [row()]))
    assert [(Path(finding.file).name, finding.message) for finding in twice.warnings] == [
        ("b.jsonl", "(as a.json row 1)")
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (row(vase="ABC"), row(images="b.jpg", vase="abc")),
        (row(), row(vase="other")),
        (row(photo={"sha256": "1f"}), row(images="b.jpg", photo={"sha256": "1f"})),
        (row(images="b.jpg", vase="698"), row(images="698_front.jpg")),
    ],
)
def test_what_is_in_two_files_leaks(folder: Path, ours: dict, theirs: dict) -> None:
    train = write(folder / "train.json", [row(images="wide.jpg", vase="x"), ours])
    test = write(folder / "test.jsonl", [{"caption": "of no interest"}, theirs])
    report = check(train, against=[test])
    assert found(report) == [(2, "leakage")]
    assert "test.jsonl row 2" in report.problems[0].message
    assert not check(train, against=[write(folder / "none.json", [row(images="needle.jpg", vase="y")])]).problems


def test_a_list_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    for text, rows in {"[]": 0, "[ ]": 0, "": 0, "[1]": 1, '[ {"a": [1]} ,\n2 ]\n': 2}.items():
        path.write_text(text)
        items = list(validation.read(path))
        assert [value for number, value in items if number] == (json.loads(text) if rows else [])
    for text in ("[", "[1,", "[1,]", "[1 2]", "[1]]", "[1", "[{]", '{"a": 1}', "\ufeff[1]", " [1]"):
        path.write_text(text, encoding="utf-8")
        assert isinstance(list(validation.read(path))[-1][1], ValueError), text


def test_the_script_as_a_new_user_meets_it(folder: Path) -> None:
    use = ("--model", "builtin")
    good = write(folder / "good.json", [row()])
    done = script(good, *use)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("validate: 0 errors, 0 warnings; 1 images, ")
    (folder / "empty.jsonl").touch()
    (folder / "broken.jsonl").write_text(json.dumps(row()) + "\n{]\n")
    (folder / "latin.json").write_bytes(b'["\xe9"]')
    for name, said in {
        "nothing.json": "no such file",
        "folder.jpg": "is no file",
        "a.jpg": ".jsonl file",
        "empty.jsonl": "holds no row",
        "broken.jsonl": "row 2 not valid JSON",
        "latin.json": "not UTF-8",
    }.items():
        done = script(folder / name, *use)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
    assert "no such folder" in script(good, "--model", "missing/model").stderr


def test_json_goes_to_a_program(folder: Path) -> None:
    bad = write(folder / "bad.json", [row(), row(images="nothing.jpg")])
    done = script("bad.json", folder / "none.json", "--model", "builtin", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (2, "")
    report = json.loads(done.stdout)
    assert not report["ok"]
    assert [file["rows"] for file in report["files"]] == [2, 0]
    assert report["files"][1]["tokens"] is None
    assert [(p["file"], p["row"], p["kind"]) for p in report["problems"]] == [
        (str(bad), 2, "image"),
        (str(folder / "none.json"), None, "file"),
    ]


def test_budgets_are_read_as_ms_swift_reads_them() -> None:
    assert lengths.Budget.of({}) == lengths.Budget((4, 16384), (128, 768), 128000 * 784 * 0.9)
    assert lengths.Budget.of({"MAX_PIXELS": "1003520", "VIDEO_MAX_PIXELS": "100352"}).image == (4, 1280)
    assert lengths.Budget.of({"MAX_PIXELS": "1003520", "IMAGE_MAX_TOKEN_NUM": "9"}).image == (4, 9)
    with pytest.raises(UserError):
        lengths.Budget.of({"MAX_PIXELS": "1.5"})


def test_a_model_folder_in_the_published_layout(tmp_path: Path) -> None:
    """Qwen2.5-VL's own files: a flat configuration, and the image processor's settings in a file of their own."""
    (tmp_path / "tokenizer.json").write_bytes((builtin.VLM / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text('{"vocab_size": 152064, "max_position_embeddings": 128000}')
    settings = '{"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "max_pixels": 12845056}'
    (tmp_path / "preprocessor_config.json").write_text(settings)
    assert doctor.settings({"model": [str(tmp_path)]}, {}, reward=False).limit == 128000
    counter = doctor.settings({"model": [str(tmp_path)]}, {"MAX_PIXELS": "1003520"}, reward=False).lengths
    assert counter.image((3000, 2000)) <= 1280
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        doctor.settings({"model": [str(tmp_path)]}, {}, reward=False)


def test_the_answer_of_reinforcement_must_fit_the_model() -> None:
    flags = {"model": [str(builtin.VLM)], "max_completion_length": ["256"]}
    assert doctor.settings(flags, {}, reward=False).limit == 4096
    assert doctor.settings(flags, {}, reward=True).limit == 4096 - 256
    assert doctor.settings(flags | {"max_length": ["100"]}, {}, reward=True).limit == 100
    assert doctor.settings(flags | {"vllm_max_model_len": ["1024"]}, {}, reward=True).limit == 768


# ---- against the installed ms-swift ----

ENCODE = """
import importlib.util, json, sys
from swift.model import get_processor
from swift.template import get_template
from swift.utils import remove_response
plugin, model, rows, options = sys.argv[1:]
spec = importlib.util.spec_from_file_location("plugin", plugin)
spec.loader.exec_module(importlib.util.module_from_spec(spec))
options = json.loads(options)
mode = options.pop("mode")
processor = get_processor(model, model_type="qwen2_5_vl", template_type="qwen2_5_vl")
template = get_template(processor, template_type="qwen2_5_vl", max_length=100000, **options)
template.set_mode(mode)
counts = []
for row in json.load(open(rows)):
    if mode != "train":
        remove_response(row["messages"])
    counts.append(len(template.encode(row)["input_ids"]))
print(json.dumps(counts))
"""
Conversation = tuple[list[str], "str | None", list[lengths.Size], list[list[lengths.Size]]]


def conversations() -> list[Conversation]:
    ask, answer = (
        "  <image>What is the fabric?\n",
        "\n Athenian black-figure \u03ba\u03cd\u03bb\u03b9\u03be, c. 525\u2013475 BCE.",
    )
    stills = [(112, 112), (100, 60), (13, 40), (640, 480), (3000, 2000), (1999, 1001), (28, 28), (300, 15)]
    several = ["<image><image>compare\n\n", "\n\nA.", "now <image>? ", "yes  "]
    return [
        *(([ask, answer], None, [size], []) for size in stills),
        (several, "Be  brief.\n", [(640, 480), (13, 40), (100, 60)], []),
        *((["<video>\nturn", "a lekythos"], None, [], [[(112, 112)] * frames]) for frames in (1, 2, 3, 8)),
        (["<video>turn<image>", "a lekythos"], None, [(640, 480)], [[(640, 480)] * 24]),
        (["<video>turn<video>", "a"], None, [], [[(1999, 1001)] * 5, [(100, 60)] * 16]),
        (["text only", "ok"], None, [], []),
    ]


def as_row(folder: Path, turns: list[str], system: str | None, images: list, videos: list) -> dict:
    def file(size: lengths.Size) -> str:
        path = folder / f"{size[0]}x{size[1]}.jpg"
        if not path.exists():
            Image.new("RGB", size).save(path)
        return str(path)

    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": r, "content": t} for r, t in zip(cycle(("user", "assistant")), turns, strict=False)]
    return {"messages": messages, "images": [file(s) for s in images], "videos": [[file(s) for s in v] for v in videos]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({"MAX_PIXELS": "12544"}, {"mode": "train"}),
        (
            {"MAX_PIXELS": "1003520", "MIN_PIXELS": "50176", "VIDEO_MAX_PIXELS": "150000", "MODEL_SEQ_LEN": "3000"},
            {"mode": "transformers", "default_system": "Describe.\n\n", "max_pixels": 400000},
        ),
        ({"VIDEO_MIN_TOKEN_NUM": "16"}, {"mode": "train", "default_system": ""}),
    ],
    ids=["sft", "grpo", "no limits"],
)
def test_lengths_are_those_of_ms_swift(tmp_path: Path, environment: dict[str, str], options: dict) -> None:
    talks = conversations()
    rows = write(tmp_path / "rows.json", [as_row(tmp_path, *talk) for talk in talks])
    plain = {k: v for k, v in os.environ.items() if not k.endswith(("_PIXELS", "_TOKEN_NUM"))}
    words = [str(ROOT / "plugin" / "plugin.py"), str(builtin.VLM), str(rows), json.dumps(options)]
    env = plain | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"} | environment
    done = subprocess.run([sys.executable, "-c", ENCODE, *words], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    budget = lengths.Budget.of(environment, options.get("max_pixels"))
    counter = lengths.Lengths(builtin.VLM, budget, options.get("default_system", lengths.SYSTEM))
    kept = slice(None) if options["mode"] == "train" else slice(-1)
    assert [counter.row(turns[kept], *rest) for turns, *rest in talks] == theirs
    assert len(set(theirs)) > 10


@pytest.mark.slow
def test_ms_swift_trains_on_the_documented_form_with_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    rows = []
    for number in range(4):
        Image.new("RGB", (112, 112), (60 * number, 90, 40)).save(tmp_path / "data" / "images" / f"{number}.jpg")
        rows.append({"images": [f"images/{number}.jpg"], "caption": "A lekythos.", "conversations": SAID})
    turn = [{"from": "human", "value": "<video>Describe."}, {"from": "gpt", "value": "A lekythos."}]
    rows[3] = {"videos": [[f"images/{number}.jpg" for number in range(4)]], "conversations": turn}
    data = write(tmp_path / "data" / "train.json", rows)
    environment = {k: v for k, v in os.environ.items() if k not in ("NPROC_PER_NODE", "MAX_PIXELS", "ROOT_IMAGE_DIR")}
    environment |= {"GPUS": "cpu", "HF_HUB_OFFLINE": "1", "PYTHON": sys.executable}
    command = [ROOT / "model" / "sft.sh", "--model", "builtin", "--dataset", data, "--output_dir", tmp_path / "out"]
    command += ["--max_steps", 1, "--gradient_accumulation_steps", 1, "--per_device_train_batch_size", 4]
    command += ["--split_dataset_ratio", 0, "--dataloader_num_workers", 0, "--report_to", "none", "--strict", "true"]
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/", env=environment, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    log = [json.loads(line) for line in (tmp_path / "out" / "logging.jsonl").read_text().splitlines()]
    assert any(entry.get("loss", 0) > 0 for entry in log)
