"""bench/train.py: its formulas, what it refuses, and that the recipes it compares learn the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from vasekit import memory
from vasekit.cli import ROOT, UserError


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "bench"))
    import train

    yield train
    sys.path.remove(str(ROOT / "bench"))


def test_flops_of_a_row_are_those_of_a_count_by_hand(bench: ModuleType) -> None:
    shape = memory.Shape(hidden=4, layers=2, queries=4, keys=2, inner=8, vocabulary=10, tied=True)
    # A layer: q 5 x 4, k and v 5 x 2, o 4 x 4, three of 4 x 8, two norms; and one norm at the end.
    layers = 2 * (20 + 2 * 10 + 16 + 96 + 8) + 4
    row = bench.Work(tokens=3, trained=1, groups=())
    head, attention = 10 * 4, 6 * 2 * 4 * 3**2
    assert bench.language_flops(shape, 0, row) == 6 * layers * 3 + 6 * head * 1 + attention
    adapter = 7
    assert bench.language_flops(shape, adapter, row) == (4 * (layers + 7) + 2 * 7) * 3 + 4 * head * 1 + attention


def test_patches_see_their_window_or_all_others(bench: ModuleType) -> None:
    shape = memory.Shape(1, 1, 1, 1, 1, 1, True, v_hidden=8, v_layers=4)
    weights = 2 * shape.vision * 128 + 2 * shape.aligner * 128 / 4
    assert bench.vision_flops(shape, 1, 64, 128) == weights + 4 * 8 * 128 * (128 + 3 * 64)
    assert bench.vision_flops(shape, 4, 64, 128) == weights + 4 * 8 * 128 * 4 * 128


def test_the_peak_is_that_of_the_card_or_absent_with_a_reason(bench: ModuleType) -> None:
    assert bench.peak(["NVIDIA H100 80GB HBM3"], None) == (989e12, "")
    assert bench.peak(["NVIDIA H100 PCIe"] * 2, None) == (756e12, "")
    assert bench.peak(["NVIDIA A100-SXM4-80GB"], None)[0] == 312e12
    assert bench.peak([], None) == (None, "no GPU; give --peak_tflops")
    assert bench.peak(["NVIDIA A100", "NVIDIA L40S"], None)[0] is None
    assert bench.peak(["Another card"], None) == (None, "no peak known for Another card; give --peak_tflops")
    assert bench.peak(["Another card"], 2.0) == (2e12, "")


def test_losses_agree_step_by_step_or_not(bench: ModuleType) -> None:
    assert bench.verdict([[2.0, 1.0], [2.0001, 1.0]], 1e-4)["agree"]
    apart = bench.verdict([[2.0, 1.0], [2.0, 1.01]], 1e-4)
    assert not apart["agree"]
    assert apart["largest_difference"] == pytest.approx(0.01)
    assert not bench.verdict([[2.0], [float("nan")]], 1e-4)["agree"]


def test_the_command_that_is_shown_is_read_back(bench: ModuleType) -> None:
    flags, variables = bench.shown("MAX_PIXELS=1 A='b c' /bin/swift sft --model m --lora_rank 8 --dataset 'a b' c")
    assert flags == {"model": ["m"], "lora_rank": ["8"], "dataset": ["a b", "c"]}
    assert variables == {"MAX_PIXELS": "1", "A": "b c"}


def test_samples_are_whole_steps_enough_to_measure(bench: ModuleType) -> None:
    assert bench.count_steps(64, 16, 2) == 4
    for wrong in (60, 48):
        with pytest.raises(UserError, match="multiple of 16"):
            bench.count_steps(wrong, 16, 2)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("NPROC_PER_NODE", "MAX_PIXELS")} | {"GPUS": "cpu"}
    command = [sys.executable, str(ROOT / "bench" / "train.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--save_steps", 3], "--save_steps: is set here"),
        (["--dataset", "nothing.json"], "--dataset"),
        (["--output", ROOT], "is a folder, needs a file"),
        (["--samples", 0], "needs at least 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(words: list[object], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_fast_recipe_learns_what_the_paper_s_does(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run("--samples", 64, "--dataloader_num_workers", 0, "--output", report)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["samples_a_step"] == 16
    assert found["losses"]["agree"] is True
    paper, fast = found["recipes"]
    assert len(paper["losses"]) == len(fast["losses"]) == 4
    assert paper["losses"][0] > 0
    assert min(one["samples_per_second"] for one in (paper, fast)) > 0
    assert min(one["tokens_per_second"] for one in (paper, fast)) > 0
    assert paper["mfu"] is None
    assert "no GPU" in paper["without_mfu"]
    assert "losses of all steps agree" in done.stdout


@pytest.mark.slow
def test_reinforcement_without_vllm_is_refused_before_anything_is_trained() -> None:
    done = run("--stage", "grpo", "--samples", 64)
    assert done.returncode == 2
    assert "needs the package vllm" in done.stderr
