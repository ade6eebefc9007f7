"""What is refused before a GPU is touched, and the recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from vasekit import builtin, doctor, flags, gpus, lengths, plan, recipes
from vasekit.cli import ROOT, UserError
from vasekit.files import write_json

GIB = 1 << 30
RECIPES = sorted(recipes.FOLDER.glob("*.yaml"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight rows for SFT and eight for GRPO."""
    rows = []
    for number in range(8):
        Image.new("RGB", (112, 112), (30 * number, 90, 40)).save(tmp_path / f"{number}.jpg")
        asked = {"role": "user", "content": "<image>What is the shape name of the vase?"}
        rows.append(
            {
                "messages": [asked, {"role": "assistant", "content": "kylix"}],
                "images": [str(tmp_path / f"{number}.jpg")],
            }
        )
    write_json(tmp_path / "sft.json", rows)
    targets = [
        {"messages": row["messages"][:1], "images": row["images"], "solution": "red-figure kylix."} for row in rows
    ]
    write_json(tmp_path / "grpo.json", targets)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    env = {
        k: v for k, v in os.environ.items() if k not in ("GPUS", "NPROC_PER_NODE", "RECIPE", "MASTER_PORT", "NNODES")
    }
    return env | {"PYTHON": sys.executable, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""} | more


def script(name: str, data: Path, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    usual = ("--model", "builtin", "--dataset", data / f"{name}.json", "--output_dir", data / "out")
    command = [str(ROOT / "model" / f"{name}.sh"), *map(str, (*usual, *words))]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**more), cwd=data, check=False)


def examined(stage: str, data: Path, *words: object, **more: str) -> dict[str, doctor.Check]:
    """The checks of a run of that stage, by name."""
    usual = ["--model", str(builtin.VLM), "--dataset", str(data / f"{stage}.json"), "--output_dir", str(data / "out")]
    run = plan.draft(stage, "paper", flags.parse([*usual, *map(str, words)]), environment(**more))
    return {check.name: check for check in doctor.examine(run)}


# ---- recipes ----


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_has_a_header_and_flags_that_ms_swift_knows(path: Path) -> None:
    stage = doctor.stage_of(path.stem)
    name = path.stem.removeprefix(f"{stage}-").removesuffix(f"-{stage}")
    recipe = recipes.load(stage, name)
    assert recipe.path == path
    flags.check_known(plan.COMMANDS[stage], recipe.flags)
    header = path.read_text().split("ENV:")[0]
    assert f"model/{stage}.sh" in header
    assert "Hardware" in header or "CPU" in header
    assert recipe.environment["MAX_PIXELS"].isdigit()
    assert recipe.flags["external_plugins"] == [str(ROOT / "plugin" / "plugin.py")]


def test_the_paper_to_the_letter() -> None:
    sft, grpo = recipes.load("sft", "paper").flags, recipes.load("grpo", "paper").flags
    said = {"lora_rank": "8", "lora_alpha": "32", "target_modules": "all-linear", "freeze_vit": "true"}
    said |= {
        "torch_dtype": "bfloat16",
        "num_train_epochs": "2",
        "gradient_accumulation_steps": "16",
        "max_length": "4096",
    }
    said |= {"warmup_ratio": "0.05", "split_dataset_ratio": "0.01", "eval_steps": "100", "save_steps": "100"}
    said |= {"save_total_limit": "5", "logging_steps": "5", "per_device_train_batch_size": "1", "tuner_type": "lora"}
    assert {name: sft[name][0] for name in said} == said
    assert float(sft["learning_rate"][0]) == 1e-4
    said = {
        "tuner_type": "full",
        "num_train_epochs": "1",
        "num_generations": "4",
        "temperature": "1.0",
        "beta": "0.001",
    }
    said |= {"max_completion_length": "256", "gradient_accumulation_steps": "4", "warmup_ratio": "0.01"}
    said |= {"save_steps": "300", "eval_steps": "1000", "save_total_limit": "10", "num_iterations": "1"}
    said |= {"logging_steps": "1", "log_completions": "true", "report_to": "tensorboard"}
    assert {name: grpo[name][0] for name in said} == said
    assert float(grpo["learning_rate"][0]) == 1e-6
    assert recipes.load("sft", "paper").environment == {"MAX_PIXELS": "1003520"}


def test_later_flags_win_and_what_differs_from_the_paper_is_known() -> None:
    run = plan.draft("sft", "fast", flags.parse(["--learning_rate", "5e-5"]), {"MAX_PIXELS": "501760"})
    differs = run.differences()
    assert differs["learning_rate"] == ["1e-4", "5e-5"]
    assert differs["per_device_train_batch_size"] == ["1", "4"]
    assert differs["MAX_PIXELS"] == ["1003520", "501760"]
    assert "lora_rank" not in differs
    assert not plan.draft("sft", "paper", flags.parse(["--learning_rate", "0.0001"]), {}).differences()
    assert recipes.load("grpo", "demo").path.name == "demo-grpo.yaml"


def test_video_has_limits_of_pixels_and_frames() -> None:
    """Without them a turntable of 100 frames is 100 pictures: out of memory after hours, in the vision tower."""
    recipe = recipes.load("sft", "video")
    assert recipe.environment["FPS_MAX_FRAMES"] == "16"  # of video files; frames in a list all count
    turn = [(2000, 2000)] * 100

    def tokens(variables: dict[str, str]) -> int:
        return lengths.Lengths(builtin.VLM, lengths.Budget.of(variables, None), "").video(turn)

    most = int(recipe.flags["max_length"][0])
    assert tokens(recipe.environment) <= 50 * 100352 // 28**2 < most < tokens({})


def test_a_plug_in_of_ones_own_does_not_lose_the_kit_s(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("from swift.rewards import orms")
    run = plan.draft("grpo", "paper", flags.parse(["--external_plugins", str(own)]), {})
    assert run.flags["external_plugins"] == [str(ROOT / "plugin" / "plugin.py"), str(own)]


def test_report_to_comes_from_the_environment() -> None:
    assert plan.draft("sft", "paper", {}, {"REPORT_TO": "wandb,swanlab"}).flags["report_to"] == ["wandb", "swanlab"]
    assert plan.draft("sft", "paper", {"report_to": ["none"]}, {"REPORT_TO": "wandb"}).flags["report_to"] == ["none"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [", "not valid YAML"), ("- a", "needs flags as NAME"), ("ENV: 3\nmodel: x", "needs flags as NAME")],
)
def test_a_broken_recipe_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        recipes.load("sft", str(tmp_path / "own.yaml"))


# ---- thirty wrong configurations ----

SFT, GRPO = "sft", "grpo"
WRONG = [
    (SFT, ["--lerning_rate", "1"], {}, "did you mean --learning_rate"),
    (SFT, ["--learning_rate"], {}, "--learning_rate: needs a value"),
    (SFT, ["--torch_dtype", "bf16"], {}, "--torch_dtype bf16: there are bfloat16, float16"),
    (SFT, ["--padding_side", "middle"], {}, "there are left, right"),
    (SFT, ["--recipe", "quick"], {}, "there are demo, fast, full, paper, paper-3b, video for sft"),
    (SFT, ["--recipe", "own.yaml"], {}, "no such file"),
    (SFT, [], {"RECIPE": "nonsense"}, "--recipe nonsense"),
    (SFT, ["--model", "nowhere/at/all"], {}, "no such folder"),
    (SFT, ["--model", "empty"], {}, "no model in it"),
    (SFT, ["--model", "torn"], {}, "cut off or damaged"),
    (SFT, ["--model", "untold"], {}, "tokenizer"),
    (SFT, ["--dataset", "missing.json"], {}, "no such file"),
    (SFT, ["--dataset", "grpo.json"], {}, "lacks the assistant's answer"),
    (SFT, ["--max_length", "20"], {}, "too long"),
    (SFT, ["--max_length", "many"], {}, "--max_length many: needs a whole number"),
    (SFT, ["--per_device_train_batch_size", "0"], {}, "needs a whole number, at least 1"),
    (SFT, ["--gradient_accumulation_steps", "1.5"], {}, "needs a whole number, at least 1"),
    (SFT, ["--save_steps", "often"], {}, "give a number"),
    (SFT, ["--output_dir", "sft.json"], {}, "can't be written"),
    (SFT, ["--output_dir", "foreign"], {}, "not a run of this kit"),
    (SFT, ["--use_liger_kernel", "true"], {}, "needs the package liger_kernel"),
    (SFT, ["--attn_impl", "flash_attn"], {}, "needs the package flash_attn"),
    (SFT, ["--deepspeed", "zero3"], {}, "needs the package deepspeed"),
    (SFT, [], {"GPUS": "all"}, "needs numbers such as GPUS=0,1,2,3"),
    (SFT, [], {"GPUS": "0,1"}, "0 of these GPUs can be seen here"),
    (SFT, [], {"NPROC_PER_NODE": "two"}, "needs a number of processes"),
    (SFT, [], {"NNODES": "2"}, "needs NODE_RANK, MASTER_ADDR, MASTER_PORT as well"),
    (SFT, [], {"NODE_RANK": "2", "NNODES": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "a number from 0 to 1"),
    (SFT, [], {"MASTER_PORT": "99999"}, "needs a number from 1 to 65535"),
    (GRPO, ["--num_generations", "3"], {}, "must be a multiple of it"),
    (GRPO, ["--num_generations", "1"], {}, "needs at least 2"),
    (GRPO, ["--per_device_eval_batch_size", "3"], {}, "the batch of an evaluation (3"),
    (GRPO, ["--reward_funcs", "external_vase"], {}, "not registered; there are accuracy"),
    (GRPO, ["--reward_weights", "1", "0"], {}, "2 weights for 1 rewards"),
    (GRPO, ["--external_plugins", "plugin.py"], {}, "no such file; the kit's is plugin/plugin.py"),
    (GRPO, ["--external_plugins", "broken.py"], {}, "not valid Python"),
    (SFT, ["--external_plugins", "plugin.py"], {}, "no such file; the kit's is plugin/plugin.py"),
    (GRPO, ["--external_plugins", "own.py", "--reward_funcs", "mine", "yours"], {}, "and own.py does not name it"),
    (GRPO, ["--dataset", "sft-only.json"], {}, "lacks the column 'solution'"),
    (GRPO, ["--use_vllm", "true"], {}, "needs the package vllm"),
]


@pytest.mark.parametrize(
    ("stage", "words", "variables", "said"), WRONG, ids=[" ".join(row[1]) or str(row[2]) for row in WRONG]
)
def test_wrong_configurations_are_refused_within_seconds(
    data: Path, stage: str, words: list[str], variables: dict[str, str], said: str
) -> None:
    for name in ("empty", "foreign", "torn", "untold"):
        (data / name).mkdir()
    (data / "foreign" / "mine.txt").write_text("mine")
    (data / "broken.py").write_text("def reward(:")
    (data / "own.py").write_text("from swift.rewards import orms; orms['mine'] = orms['accuracy']")
    for name in ("torn", "untold"):
        for path in builtin.VLM.iterdir():
            (data / name / path.name).write_bytes(path.read_bytes())
    weights = data / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (data / "untold" / "tokenizer.json").unlink()
    write_json(data / "sft-only.json", json.loads((data / "sft.json").read_text()))
    started = time.monotonic()
    done = script(stage, data, *words, **variables)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - started < 3
    assert not (data / "out").exists()


# ---- what only a machine with GPUs, or little room, would see ----


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> gpus.Gpu:
    """One card of 24 GB."""
    made = gpus.Gpu(0, "GPU-0", "a card", 24 * GIB, 23 * GIB)
    monkeypatch.setattr(gpus, "present", lambda: [made])
    monkeypatch.setattr(gpus, "cuda_of_driver", lambda: (13, 0))
    return made


def test_a_small_model_fits_and_a_full_disk_is_noticed(
    data: Path, card: gpus.Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(SFT, data, CUDA_VISIBLE_DEVICES="0")
    assert {check.status for name, check in found.items() if name != "saving"} == {"ok"}
    assert "of 24.7 GB free on each a card" in found["memory"].text
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1, 1, 1000))
    found = examined(GRPO, data, CUDA_VISIBLE_DEVICES="0")
    assert "lower --save_total_limit" in found["disk"].text
    assert found["disk"].status == "refused"
    assert found["shared memory"].status == "warning"


def test_checkpoints_that_are_there_have_their_room_and_without_a_limit_all_are_kept(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_recipe = data / "own.yaml"  # the kit's all have a limit
    own_recipe.write_text("max_steps: 100\nsave_steps: 10")

    def free(checkpoints: float, recipe: str, *words: object) -> str:
        usual = ["--model", str(builtin.VLM), "--dataset", str(data / "sft.json"), "--output_dir", str(data / "out")]
        run = plan.draft(SFT, recipe, flags.parse([*usual, *map(str, words)]), environment())
        room = int(checkpoints * doctor.checkpoint_bytes(run))
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(room, 0, room))
        return next(check.status for check in doctor.examine(run) if check.name == "disk")

    assert (free(10, str(own_recipe)), free(11, str(own_recipe))) == ("refused", "ok")
    limited = ("paper", "--max_steps", 100, "--save_steps", 10, "--save_total_limit", 3)
    assert (free(3, *limited), free(4, *limited)) == ("refused", "ok")
    monkeypatch.setattr(doctor.runs, "read", lambda folder: {"identity": {}})
    monkeypatch.setattr(doctor.runs, "checkpoints", lambda folder: [folder] * 3)
    assert (free(0.5, *limited), free(1, *limited)) == ("refused", "ok")


class Usage(NamedTuple):
    """What shutil.disk_usage returns."""

    total: int
    used: int
    free: int


def test_full_reinforcement_of_7b_does_not_fit_one_card(data: Path, card: gpus.Gpu) -> None:
    """Weights, gradients, Adam states and the reference alone are about 75 GB in bf16."""
    folder = data / "7b"
    folder.mkdir()
    for path in builtin.VLM.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064,
    }  # fmt: skip
    config["vision_config"] |= {"hidden_size": 1280, "depth": 32, "intermediate_size": 3420, "out_hidden_size": 3584}
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    write_json(folder / "config.json", config)
    found = examined(GRPO, data, "--model", folder, CUDA_VISIBLE_DEVICES="0")
    assert found["memory"].status == "refused"
    assert "what would make it fit: " in found["memory"].text
    assert "--tuner_type lora" in found["memory"].text
    assert "--force" in found["memory"].text


def test_an_old_driver_and_a_taken_port(data: Path, card: gpus.Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "cuda_of_driver", lambda: (12, 4))
    assert "update the driver" in examined(SFT, data, CUDA_VISIBLE_DEVICES="0")["driver"].text
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        found = examined(SFT, data, CUDA_VISIBLE_DEVICES="0", MASTER_PORT=str(taken.getsockname()[1]))
    assert "in use by another program" in found["port"].text


def test_where_a_package_is_missing_a_recipe_does_without(data: Path) -> None:
    done = script(SFT, data, "--recipe", "fast", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "--attn_impl sdpa" in done.stdout
    assert "--padding_free false" in done.stdout
    assert "--use_liger_kernel false" in done.stdout


# ---- the command ----


def test_the_doctor_examines_and_starts_nothing(data: Path) -> None:
    usual = ["--model", "builtin", "--dataset", str(data / "sft.json"), "--output_dir", str(data / "out")]
    command = [sys.executable, "-m", "vasekit.doctor", "sft-paper", *usual]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - started < 3
    assert "warning  saving" in done.stdout
    assert not (data / "out").exists()
    wrong = [*command, "--torch_dtype", "half", "--output_dir", str(data / "sft.json"), "--json"]
    done = subprocess.run(wrong, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    assert done.returncode == 2
    refused = [check["name"] for check in json.loads(done.stdout)["checks"] if check["status"] == "refused"]
    assert refused == ["flags", "output"]
    shown = subprocess.run(
        [*command, "--dry_run"], capture_output=True, text=True, cwd=ROOT, env=environment(), check=False
    )
    assert "swift sft --model" in shown.stdout
