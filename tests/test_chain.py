"""The chain through the real scripts and the real ms-swift, with the built-in model on the CPU."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tiny_runs import ENVIRONMENT, QUICK, killed, make_world, run, same, sft_flags, weights

from vasekit import runs
from vasekit.cli import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def tuned(world: Path) -> Path:
    output = world / "sft"
    said = run(ROOT / "model" / "sft.sh", *sft_flags(world, output))
    assert said.splitlines()[-1].startswith("sft: ")
    return output


@pytest.fixture(scope="module")
def merged(tuned: Path) -> Path:
    said = run(ROOT / "model" / "merge.sh", "--adapters", tuned)
    assert said.splitlines()[-1].startswith("merge: ")
    return tuned.with_name("sft-merged")


def test_a_finished_run_is_not_repeated_and_another_one_is_refused(world: Path, tuned: Path) -> None:
    started = time.monotonic()
    assert "done before" in run(ROOT / "model" / "sft.sh", *sft_flags(world, tuned))
    other = [str(w) for w in (ROOT / "model" / "sft.sh", *sft_flags(world, tuned), "--learning_rate", "2e-3")]
    done = subprocess.run(other, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert "holds another run (other learning_rate)" in done.stderr
    assert time.monotonic() - started < 15


def test_merging_keeps_the_logits_and_the_base_differs(tuned: Path, merged: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    from vasekit import builtin

    adapter = runs.find_adapter(tuned, "--adapters")
    base = Model.from_pretrained(builtin.VLM, dtype=torch.float32)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, adapter)(input_ids=ids).logits
        whole = Model.from_pretrained(merged, dtype=torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(whole, adapted, atol=1e-4, rtol=1e-4)
    assert (whole - plain).abs().max() > 1e-3
    assert "done before" in run(ROOT / "model" / "merge.sh", "--adapters", tuned)


def test_a_run_killed_twice_goes_on_to_the_same_weights(world: Path, tuned: Path) -> None:
    output = world / "killed"
    command = [str(word) for word in (ROOT / "model" / "sft.sh", *sft_flags(world, output))]
    moments = random.Random(time.time_ns())
    killed(command, output, moments.uniform(0, 0.3))
    # What a crash in the middle of writing would leave.
    torn = output / "checkpoint-3"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    killed(command, output, moments.uniform(0, 0.3))
    said = run(*command)
    assert "going on from" in said or "done before" in said
    same(output, tuned)
    assert (output / "incomplete" / "checkpoint-3").is_dir()
    note = runs.read(output)
    assert len(note["attempts"]) == 3
    assert note["attempts"][-1]["status"] == 0
    assert note["differs_from_paper"]["learning_rate"] == ["1e-4", "1e-3"]
    assert note["finished"]["result"]["loss"] > 0
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_full_reinforcement_that_was_killed_goes_on_with_its_own_weights_and_reference(
    world: Path, merged: Path
) -> None:
    """The Trainer alone would go on from the base model, whose names on disk are not those in memory."""
    data, whole, output = world / "data" / "grpo_video_dataset.json", world / "grpo-whole", world / "grpo-killed"
    flags = ["--model", merged, "--dataset", data, "--max_steps", 4, "--save_steps", 2, "--num_generations", 4]
    flags += ["--per_device_train_batch_size", 8, "--max_completion_length", 16, "--learning_rate", "1e-3", *QUICK]
    command = [str(word) for word in (ROOT / "model" / "grpo.sh", *flags)]
    run(*command, "--output_dir", whole)
    killed([*command, "--output_dir", str(output)], output, 0.1)
    assert "going on from" in run(*command, "--output_dir", output) or runs.read(output)["attempts"][1:]
    same(output, whole)
    assert runs.read(output)["flags"]["ref_model"] == [str(merged)]


def test_two_runs_do_not_write_into_one_folder(world: Path) -> None:
    output = world / "busy"
    command = [str(word) for word in (ROOT / "model" / "sft.sh", *sft_flags(world, output))]
    process = psutil.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (output / runs.RUN).is_file():
        time.sleep(0.02)
    process.kill()  # ms-swift lives on and holds the lock
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert "a run goes on there" in done.stderr
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if str(output) in one.cmdline():
                one.kill()


@pytest.fixture(scope="module")
def alone(world: Path) -> Path:
    """Trained by one process, in a way that does not depend on their number.

    Dropout's draws do, and the order of rows that the number does not divide.
    """
    output = world / "one"
    run(ROOT / "model" / "sft.sh", *sft_flags(world, output), *still(world))
    return output


def still(world: Path) -> list[object]:
    return ["--lora_dropout", 0, "--dataset", f"{world / 'data' / 'video_training_dataset.json'}#64"]


def trained_as_one(output: Path, alone: Path) -> None:
    log = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    steps = [entry["global_step/max_steps"] for entry in log if "loss" in entry]
    assert len(steps) == len(set(steps))  # each rank training alone would log every step twice
    ours, theirs = (weights(runs.checkpoints(folder)[-1]) for folder in (output, alone))
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-4


def test_two_processes_on_the_cpu_train_one_model(world: Path, alone: Path) -> None:
    output = world / "two"
    flags = [*sft_flags(world, output), *still(world), "--per_device_train_batch_size", 2]
    run(ROOT / "model" / "sft.sh", *flags, NPROC_PER_NODE="2")
    trained_as_one(output, alone)


def test_two_machines_train_one_model_in_one_folder(world: Path, alone: Path) -> None:
    output = world / "machines"
    flags = [*sft_flags(world, output), *still(world), "--per_device_train_batch_size", 2]
    command = [str(word) for word in (ROOT / "model" / "sft.sh", *flags)]
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    where = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    nodes = [subprocess.Popen(command, env=ENVIRONMENT | where | {"NODE_RANK": rank}, **pipes) for rank in ("0", "1")]
    said = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], [error[-2000:] for _, error in said]
    assert "sft: machine 1 of 2 is done" in said[1][0]
    assert len(runs.read(output)["attempts"]) == 1
    trained_as_one(output, alone)


def test_reinforcement_and_evaluation(world: Path, merged: Path) -> None:
    data, output = world / "data" / "grpo_video_dataset.json", world / "grpo"
    flags = ("--model", merged, "--dataset", data, "--output_dir", output, "--max_steps", 2, "--num_generations", 4)
    more = ("--per_device_train_batch_size", 8, "--max_completion_length", 24, "--learning_rate", "1e-4")
    run(ROOT / "model" / "grpo.sh", *flags, *more, *QUICK)
    log = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    assert any("reward" in entry and "rewards/VaseReward/mean" in entry for entry in log)
    assert "nothing to merge" in run(ROOT / "model" / "merge.sh", "--adapters", output)
    asked = ("--data", world / "data" / "test.json", "--output", world / "scores.json", "--sample", 1)
    run(sys.executable, ROOT / "eval" / "evaluate.py", "--model", output, *asked)
    measures = json.loads((world / "scores.json").read_text())["measures"]
    assert {"shape", "date", "caption_exact", "reward_sampled"} <= measures.keys()
    assert all(0 <= m["low"] <= m["value"] <= m["high"] <= 1 and m["n"] > 0 for m in measures.values())


def test_answers_in_batches_equal_answers_one_by_one(world: Path, merged: Path) -> None:
    from vasekit.generate import Generator, Request

    photos = sorted((world / "museum" / "photos").iterdir())[:5]
    questions = ("What is the shape name of the vase?", "What is the date of the vase?")
    requests = [Request(photo, questions[k % 2]) for k, photo in enumerate(photos)]
    generator = Generator(merged)
    together = generator.answer(requests, max_new_tokens=12)
    assert together == [generator.answer([request], max_new_tokens=12)[0] for request in requests]
