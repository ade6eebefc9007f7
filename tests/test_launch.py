"""The training scripts: what they refuse before ms-swift starts, and what they hand to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from vasekit import builtin, doctor, flags, gpus, launch, plan, runs
from vasekit.cli import ROOT, UserError
from vasekit.files import write_json

STAGES = ("sft", "merge", "grpo")
SCRIPTS = sorted((ROOT / "model").glob("*.sh"))


def script(name: str, *words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start model/NAME as a person would, without GPU and network."""
    env = {k: v for k, v in os.environ.items() if k not in ("GPUS", "NPROC_PER_NODE", "CUDA_VISIBLE_DEVICES")}
    env |= {"PYTHON": sys.executable, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
    command = [str(ROOT / "model" / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False)


def dataset(folder: Path, rows: int = 4, solution: bool = True) -> Path:
    picture = folder / "p.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (112, 112)).save(picture)
    target = {"solution": "Athenian red-figure kylix."} if solution else {}
    asked = [{"role": "user", "content": f"<image>What is {number}?"} for number in range(rows)]
    answer = {"role": "assistant", "content": "A kylix."}
    data = [{"messages": [turn, answer], "images": [str(picture)]} | target for turn in asked]
    write_json(folder / "data.json", data)
    return folder / "data.json"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_strict_short_and_executable(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "conda" not in text
    assert len(text.splitlines()) <= 40
    assert os.access(path, os.X_OK)


def test_published_parameters_are_the_defaults(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    common = ("--dry_run", "--model", "builtin", "--dataset", data, "--output_dir", tmp_path / "out")
    done = script("sft.sh", *common, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "swift sft",
        "--tuner_type lora",
        "--lora_rank 8",
        "--lora_alpha 32",
        "--target_modules all-linear",
        f"--model {builtin.VLM}",
        "--num_train_epochs 2",
        "--learning_rate 1e-4",
        "--gradient_accumulation_steps 16",
        "--max_length 4096",
        "--use_cpu true",
        "--torch_dtype float32",
    ):
        assert words in done.stdout
    done = script("grpo.sh", *common)
    assert done.returncode == 0, done.stderr
    for words in (
        "swift rlhf",
        "--rlhf_type grpo",
        "--reward_funcs external_vase_acc",
        "--tuner_type full",
        "--learning_rate 1e-6",
        "--num_generations 4",
        "--beta 0.001",
        "--max_completion_length 256",
        "--save_steps 300",
    ):
        assert words in done.stdout
    assert not (tmp_path / "out").exists()


def test_what_one_stage_writes_the_next_one_reads() -> None:
    said = (script(f"{name}.sh", "--help").stdout.splitlines()[-1] for name in STAGES)
    sft, merge, grpo = (flags.parse(defaults.split()[1:]) for defaults in said)
    assert merge["adapters"] == sft["output_dir"]
    assert grpo["model"] == [f"{merge['adapters'][0]}-merged"]


def test_later_flags_win_and_the_old_name_of_tuner_type_is_accepted(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    words = ("--dry_run", "--model", "builtin", "--dataset", data, "--output_dir", tmp_path / "out")
    done = script("sft.sh", *words, "--train_type", "full", "--learning_rate", "5e-5", "--learning_rate=7e-5")
    assert "--tuner_type full" in done.stdout
    assert "train_type" not in done.stdout
    assert re.findall(r"--learning_rate (\S+)", done.stdout) == ["7e-5"]


def test_several_processes_on_the_cpu_train_together(tmp_path: Path) -> None:
    words = ("--dry_run", "--model", "builtin", "--dataset", dataset(tmp_path), "--output_dir", tmp_path / "out")
    done = script("sft.sh", *words, GPUS="cpu", NPROC_PER_NODE="2")
    assert "--ddp_backend gloo" in done.stdout
    assert "--use_cpu true" in done.stdout
    assert "--ddp_timeout 7200" in done.stdout  # for a lost machine; by default it would be waited for 208 days


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("sft.sh", ["--lerning_rate", "1"], "did you mean --learning_rate"),
        ("merge.sh", ["stray"], "flags look like"),
        ("sft.sh", ["--model", "missing/../folder"], "no such folder"),
        ("sft.sh", ["--model", "."], "no model in it"),
        ("sft.sh", ["--model", "Qwen/Qwen2.5-VL-7B-Instruct"], "no network"),
        ("sft.sh", ["--dataset", "nothing.json"], "data/build.py"),
        ("sft.sh", ["--dataset", "empty.json"], "holds no row"),
        ("sft.sh", ["--dataset", "broken.json"], "not valid JSON"),
        ("sft.sh", ["--output_dir", "foreign"], "not a run of this kit"),
        ("grpo.sh", ["--dataset", "unsolved.json"], "lacks the column 'solution'"),
        ("sft.sh", ["--dataset", "bare.json"], "row 1 has 0 <image> for 1"),
        ("sft.sh", ["--val_dataset", "broken.json"], "--val_dataset"),
        ("sft.sh", ["--max_length", "40"], "4 rows that are too long: row 1"),
        ("grpo.sh", ["--max_length", "30"], "4 rows that are too long: row 1"),
        ("grpo.sh", ["--num_generations", "3"], "must be a multiple"),
        ("merge.sh", ["--adapters", "foreign"], "no complete checkpoint"),
        ("hf2megatron.sh", [], "no CUDA GPU here"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_ms_swift_starts(
    tmp_path: Path, name: str, words: list[str], said: str
) -> None:
    data = dataset(tmp_path)
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "broken.json").write_text("[{]")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    dataset(tmp_path / "unsolved", solution=False).rename(tmp_path / "unsolved.json")
    bare = data.read_text(encoding="utf-8").replace("<image>", "")
    (tmp_path / "bare.json").write_text(bare, encoding="utf-8")
    usual = ["--model", "builtin", "--dataset", data, "--output_dir", "out"] if name in ("sft.sh", "grpo.sh") else []
    started = time.monotonic()
    done = script(name, *usual, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert time.monotonic() - started < 10
    assert not (tmp_path / "out").exists()


def test_relative_paths_are_below_the_data_file(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    rows = [row | {"images": ["p.jpg"]} for row in json.loads(data.read_text())]
    write_json(data, rows)
    words = ("--dry_run", "--model", "builtin", "--output_dir", tmp_path / "out", "--dataset")
    done = script("sft.sh", *words, f"{data}#2", "--val_dataset", data, cwd=tmp_path)
    assert f"ROOT_IMAGE_DIR={tmp_path / 'data'} " in done.stdout, done.stderr
    assert f"--dataset '{data}#2' " in done.stdout
    own = script("sft.sh", *words, data, cwd=tmp_path, ROOT_IMAGE_DIR=str(tmp_path))
    assert "which is not there" in own.stderr
    other = dataset(tmp_path / "other")
    write_json(other, rows)
    assert "several folders" in script("sft.sh", *words, data, other, cwd=tmp_path).stderr


def test_a_script_starts_quickly(tmp_path: Path) -> None:
    data = dataset(tmp_path, rows=3000)
    started = time.monotonic()
    done = script("sft.sh", "--dry_run", "--model", "builtin", "--dataset", data, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 3


def test_gpus_are_named_and_a_callers_own_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    four = [gpus.Gpu(k, f"GPU-{k}", "card", 1, 1) for k in range(4)]
    monkeypatch.setattr(gpus, "present", lambda: four)
    environment = {"GPUS": "0,1,3"}

    def found(environment: dict[str, str]) -> tuple[list[int], int]:
        seen, processes = doctor.devices(environment)
        return [gpu.index for gpu in seen], processes

    assert found(environment) == ([0, 1, 3], 3)
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1,3"
    assert found({"GPUS": "cpu"}) == ([], 1)
    assert found({"CUDA_VISIBLE_DEVICES": "2,GPU-3", "NPROC_PER_NODE": "2"}) == ([2, 3], 2)
    assert found({}) == ([0, 1, 2, 3], 1)
    for wrong in ({"GPUS": "all"}, {"GPUS": "0,1,2,3,4"}, {"NPROC_PER_NODE": "none"}, {"NPROC_PER_NODE": "5"}):
        with pytest.raises(UserError):
            doctor.devices(wrong)


def checkpoint(folder: Path, step: int, *names: str) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    for name in names:
        # A safetensors file without tensors: the length of its header, and the header.
        (made / name).write_bytes((2).to_bytes(8, "little") + b"{}" if name.endswith(".safetensors") else b"{}")
    if "trainer_state.json" in names:
        write_json(made / "trainer_state.json", {"global_step": step})
    write_json(made / "args.json", {"save_only_model": True})
    return made


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 10, "trainer_state.json", "adapter_config.json", "adapter_model.safetensors")
    checkpoint(tmp_path, 20, "adapter_config.json", "adapter_model.safetensors")
    shard = checkpoint(tmp_path, 30, "trainer_state.json", "config.json", "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    write_json(shard / "model.safetensors.index.json", index)
    assert runs.checkpoints(tmp_path) == [whole]
    assert runs.find_adapter(tmp_path, "--adapters") == whole
    with pytest.raises(UserError, match="merge it first"):
        runs.find_model(tmp_path, "--model")
    with pytest.raises(UserError, match="is missing"):
        runs.find_model(shard, "--model")


def test_after_full_tuning_there_is_nothing_to_merge(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5, "trainer_state.json", "config.json", "model.safetensors")
    done = script("merge.sh", "--adapters", tmp_path)
    assert done.returncode == 0
    assert "nothing to merge" in done.stdout


def test_no_requirement_is_open_at_its_upper_end_and_none_is_a_redirection() -> None:
    for path in (ROOT / "requirements").glob("*.in"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith(("#", "-r "))]
        assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?(==[\w.]+|(>=[\w.]+,)?<[\w.]+)", line) for line in lines), path
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for path in (ROOT / name for name in tracked):
        assert not path.name.startswith("="), path
        if path.suffix in (".md", ".sh", ".py", ".yaml") or path.name.startswith(("Makefile", "Dockerfile")):
            unquoted = re.search(r"pip install [^'\"\n]*\w[<>]=?\d", path.read_text(encoding="utf-8"))
            assert path == Path(__file__) or not unquoted, path


@pytest.mark.slow
def test_the_table_of_flags_is_that_of_the_installed_ms_swift() -> None:
    assert json.loads(flags.TABLE.read_text()) == flags.installed()


def test_two_runs_on_one_machine_meet_on_ports_of_their_own() -> None:
    first, second, set_by_user, cluster = {}, {}, {"MASTER_PORT": "29501"}, {"NNODES": "2"}
    for environment in (first, second, set_by_user, cluster):
        plan.own_port(2, environment)
    assert first["MASTER_PORT"] != second["MASTER_PORT"]
    assert set_by_user == {"MASTER_PORT": "29501"}
    assert "MASTER_PORT" not in cluster  # every node must know it


def test_a_run_that_failed_before_its_first_checkpoint_says_so_in_one_line(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    run = plan.draft("sft", "paper", flags.parse(["--model", str(builtin.VLM), "--dataset", str(data)]), {})
    run.flags["output_dir"] = [str(tmp_path / "out")]
    none, some = (launch._failure(run, 3, whole) for whole in ([], [tmp_path / "checkpoint-2"]))
    assert none == "swift sft ended with status 3; there is no whole checkpoint, the same command starts over"
    assert some.endswith("checkpoint-2 is whole, the same command goes on from there")


# ---- to Megatron, with `swift export` played: the conversion itself needs a GPU ----


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, list[str]]]:
    """The flags of each `swift export`, which writes one file; it fails where the folder `tmp_path`/fails is there."""
    seen: list[dict[str, list[str]]] = []

    def play(argv: list[str], environment: dict[str, str], lock: object = None) -> int:
        given = flags.parse(argv[2:])
        seen.append(given)
        made = Path(given["output_dir"][0])
        made.mkdir(parents=True)
        (made / "weights.distcp").write_text(f"made {len(seen)}")
        return 1 if (tmp_path / "fails").exists() else 0

    card = gpus.Gpu(0, "GPU-0", "card", 1, 1)
    monkeypatch.setattr(launch, "_run", play)
    monkeypatch.setattr(doctor, "devices", lambda environment: ([card], 1))
    monkeypatch.setattr(doctor, "check_megatron", lambda environment: None)
    return seen


def test_a_conversion_is_done_once_and_a_failed_one_changes_nothing(
    tmp_path: Path, exports: list[dict[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mcore"
    command = ["hf2megatron", "--to_mcore", "true", "--torch_dtype", "bfloat16", "--test_convert_precision", "true"]
    command += ["--model", "nothing", "--output_dir", "nothing", "--", "--model", "builtin"]
    command += ["--output_dir", str(output)]
    assert launch.main(command) == 0
    given = exports[0]
    assert (given["to_mcore"], given["torch_dtype"], given["test_convert_precision"]) == (
        ["true"],
        ["bfloat16"],
        ["true"],
    )
    assert given["model"] == [str(builtin.VLM)]
    assert given["output_dir"] != [str(output)]  # written aside
    assert (output / "weights.distcp").read_text() == "made 1"
    assert launch.main(command) == 0
    assert "done before" in capsys.readouterr().out
    assert len(exports) == 1
    (tmp_path / "fails").touch()
    with pytest.raises(UserError, match=r"ended with status 1; .*mcore is as it was"):
        launch.main([*command, "--seed", "3"])
    assert (output / "weights.distcp").read_text() == "made 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fails", "mcore"]


def test_the_way_back_takes_the_megatron_folder(tmp_path: Path, exports: list[dict[str, list[str]]]) -> None:
    command = ["hf2megatron", "--to_mcore", "true", "--model", "nothing", "--output_dir", "nothing", "--"]
    with pytest.raises(UserError, match="no such folder"):
        launch.main([*command, "--to_hf", "true", "--mcore_model", str(tmp_path / "none")])
    (tmp_path / "mcore").mkdir()
    assert launch.main([*command, "--to_hf", "true", "--mcore_model", str(tmp_path / "mcore")]) == 0
    assert exports[0]["to_hf"] == ["true"]
    assert "to_mcore" not in exports[0]
    assert "model" not in exports[0]
    assert (tmp_path / "mcore-hf" / "weights.distcp").is_file()
