"""What ends a run, or its saving: a full disk, a rank that dies, a limit of checkpoints, a kill while merging."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tiny_runs import ENVIRONMENT, QUICK, killed, make_world, run, same, sft_flags, weights

from vasekit import runs
from vasekit.cli import ROOT

pytestmark = pytest.mark.slow
SFT, MERGE = ROOT / "model" / "sft.sh", ROOT / "model" / "merge.sh"
LONG = ("--max_steps", "2000", "--save_steps", "4", "--save_total_limit", "2")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB: nine checkpoints of an adapter."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no program `mount`")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    command = [str(word) for word in words]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=ENVIRONMENT | environment, **pipes)


def wait_for(process: subprocess.Popen, happened: Callable[[], bool], seconds: float = 180) -> None:
    limit = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.stderr.read()[-2000:]
        assert time.monotonic() < limit
        time.sleep(0.05)


def has_checkpoint(output: Path) -> Callable[[], bool]:
    return lambda: output.is_dir() and bool(runs.checkpoints(output))


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    stuff = folder / "stuff"
    with suppress(OSError), stuff.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 16))
    return stuff


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_whole(world: Path, small_disk: Path) -> None:
    output = small_disk / "run"
    command = [SFT, *sft_flags(world, output), *LONG]
    process = start(*command)
    wait_for(process, has_checkpoint(output))
    stuff = fill(small_disk)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: swift sft ended with status 1, and the disk has no room for another checkpoint;")
    whole = runs.checkpoints(output)[-1]
    assert f"{whole} is whole, the same command goes on from there" in last
    assert weights(whole)
    stuff.unlink()
    process = start(*command)
    wait_for(process, lambda: runs.checkpoints(output)[-1] != whole)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert runs.read(output)["attempts"][1]["resumed_from"] == str(whole)


def test_a_rank_that_dies_takes_the_others_with_it(world: Path, tmp_path: Path) -> None:
    """Nobody waits for it until the collective times out, which would be half an hour."""
    output = tmp_path / "run"
    process = start(SFT, *sft_flags(world, output), *LONG, NPROC_PER_NODE="2")
    wait_for(process, has_checkpoint(output))
    tree = psutil.Process(process.pid).children(recursive=True)
    ranks = [one for one in tree if "LOCAL_RANK" in one.environ()]
    rank = next(one for one in ranks if one.environ()["LOCAL_RANK"] == "1")
    rank.kill()
    started = time.monotonic()
    _, said = process.communicate(timeout=90)
    assert time.monotonic() - started < 60
    assert process.returncode == 2
    assert "is whole, the same command goes on from there" in said.strip().splitlines()[-1]
    assert not [one for one in tree if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_the_last_step_is_saved_and_older_checkpoints_go(world: Path, tmp_path: Path) -> None:
    """Also across a kill: what a run goes on from is not what is removed."""
    output = tmp_path / "run"
    command = [str(word) for word in (SFT, *sft_flags(world, output))]
    command += ["--max_steps", "11", "--save_steps", "3", "--save_total_limit", "2"]
    killed(command, output, 0)
    left = {path.name for path in output.glob("checkpoint-*")}
    run(*command)
    assert [path.name for path in runs.checkpoints(output)] == ["checkpoint-9", "checkpoint-11"]
    resumed = runs.read(output)["attempts"][-1]["resumed_from"]
    assert resumed is None or Path(resumed).name in left


def test_a_fully_tuned_model_that_was_killed_goes_on_with_its_own_weights(world: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "killed"
    full = ("--tuner_type", "full", "--max_steps", "6", "--learning_rate", "1e-4")
    run(SFT, *sft_flags(world, whole), *full)
    command = [str(word) for word in (SFT, *sft_flags(world, output), *full)]
    killed(command, output, 0.1)
    run(*command)
    same(output, whole)


def test_a_merge_that_was_killed_leaves_nothing_that_looks_whole(world: Path, tmp_path: Path) -> None:
    tuned, merged = tmp_path / "sft", tmp_path / "sft-merged"
    run(SFT, *sft_flags(world, tuned), "--max_steps", 2)
    process = start(MERGE, "--adapters", tuned)
    aside = merged.with_name(f".{merged.name}.aside")
    wait_for(process, lambda: aside.is_dir() and any(aside.rglob("*.safetensors")))
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(tree, timeout=10)
    process.communicate()
    assert not merged.exists() or not runs.model_problems(merged)
    said = run(MERGE, "--adapters", tuned)
    assert re.search(r"^merge: .* -> |done before", said, re.MULTILINE)
    assert not runs.model_problems(merged)
    assert not aside.exists()
    assert "done before" in run(MERGE, "--adapters", tuned)


def test_reinforcement_by_two_processes_is_one_run(world: Path, tmp_path: Path) -> None:
    """Each process draws answers with random numbers of its own, so weights can't equal those of one process; what can
    be told: they share one global batch, one step for all of it, and one set of weights (a rank that trained alone
    would log each step twice, and count its own batches as steps).
    """
    data, output = world / "data" / "grpo_video_dataset.json", tmp_path / "grpo"
    flags = (
        "--model",
        "builtin",
        "--dataset",
        data,
        "--output_dir",
        output,
        "--num_train_epochs",
        1,
        "--save_steps",
        50,
    )
    more = ("--per_device_train_batch_size", 4, "--num_generations", 4, "--max_completion_length", 8)
    run(ROOT / "model" / "grpo.sh", *flags, *more, "--learning_rate", "1e-4", *QUICK, NPROC_PER_NODE="2")
    logged = [entry["global_step/max_steps"] for entry in runs.log(output) if "reward" in entry]
    assert len(logged) == len(set(logged))
    rows = runs.read(output)["rows"]
    # Eight answers a step, four of each question.
    assert logged[-1].split("/")[1] == str(rows // 2)
