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
from tiny_runs import ENVIRONMENT, QUICK, make_world, run, same, sft_flags, weights

from vasekit import builtin, runs
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


# A plug-in that breaks its own run: BREAK="STEP FILE HOW", when FILE of that step's checkpoint is about to be written.
BREAKING = """
import os, time
from pathlib import Path
import psutil, torch
from transformers import Trainer

me = psutil.Process()
above = me.parents()
launcher = next(k for k, one in enumerate(above) if "vasekit.launch" in one.cmdline())

def kill():
    for one in (*reversed(above[: launcher + 1]), me):
        one.kill()
    time.sleep(60)

def fill():
    for one in (me, *above[: launcher + 1]):
        one.rlimit(psutil.RLIMIT_FSIZE, (500_000 if one == me else 0, psutil.RLIM_INFINITY))

def watch(owner, name, place):
    inner = getattr(owner, name)
    def outer(*words, **named):
        if os.environ.get("BREAK", "").split()[:2] == list(map(str, place(*words))):
            {"kill": kill, "fill": fill}[os.environ["BREAK"].split()[2]]()
        return inner(*words, **named)
    setattr(owner, name, outer)

watch(Trainer, "_save_checkpoint", lambda self, *_: (self.state.global_step, "weights"))
watch(torch, "save", lambda _, path, *__: (Path(path).parent.name.rpartition("-")[2], Path(path).name))
"""


def test_full_tuning_that_is_broken_again_and_again_ends_with_the_weights_of_one_that_was_not(
    world: Path, tmp_path: Path
) -> None:
    """Each time in the middle of a checkpoint, and at a step of its own, however fast the machine is.

    No file can grow beyond a limit, which is what a full disk looks like to a program, and needs no right to mount. The
    run's own log and notes can't be written either. Of the one checkpoint that is kept the last must never be removed
    before the next is whole, though it is the folder that the model was loaded from.
    """
    whole, output = tmp_path / "whole", tmp_path / "broken"
    (tmp_path / "breaking.py").write_text(BREAKING)
    full = ("--tuner_type", "full", "--max_steps", 11, "--save_steps", 2, "--save_total_limit", 1)
    command = [SFT, *sft_flags(world, output), *full, "--external_plugins", tmp_path / "breaking.py"]
    run(*command, "--output_dir", whole)
    last = None
    for step, file, how in ((4, "weights", "fill"), (6, "optimizer.pt", "fill"), (8, "optimizer.pt", "kill")):
        process = start(*command, BREAK=f"{step} {file} {how}")
        _, said = process.communicate(timeout=240)
        assert runs.read(output)["attempts"][-1]["resumed_from"] == last
        assert {path.name for path in output.glob("checkpoint-*")} == {f"checkpoint-{step - 2}", f"checkpoint-{step}"}
        last = str(output / f"checkpoint-{step - 2}")
        assert [str(path) for path in runs.checkpoints(output)] == [last]
        if how == "kill":
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 2
            end = said.strip().splitlines()[-1]
            assert end == f"error: swift sft ended with status 1; {last} is whole, the same command goes on from there"
    assert f"going on from {last}" in run(*command)
    same(output, whole)
    for folder in (whole, output):  # eleven is no multiple of two
        assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-11"]
    assert {path.name for path in (output / "incomplete").iterdir()} == {f"checkpoint-{step}" for step in (4, 6, 8)}


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


# A plug-in that lets each answer be drawn with random numbers of its own place in the global batch.
DRAWING = """
import os
import torch
from transformers import GenerationMixin

rank, at, sample = int(os.environ.get("RANK", 0)), [0, 0], GenerationMixin._sample

def counted(*words, **named):
    at[:] = at[0] + 1, 0
    return sample(*words, **named)

def draw(shares, *_, **__):
    at[1] += 1
    noise = torch.empty_like(shares)
    for row in range(len(shares)):
        seed = hash((*at, rank * len(shares) + row))
        noise[row].exponential_(generator=torch.Generator().manual_seed(seed))
    return (shares / noise).argmax(-1, keepdim=True)

GenerationMixin._sample, torch.multinomial = counted, draw
"""


def test_reinforcement_by_two_processes_is_that_by_one(world: Path, tmp_path: Path) -> None:
    """By default the answers differ, as each process has random numbers of its own. Drawn by their place in the batch
    they are the same, and then rewards, advantages and weights must be, too.
    """
    (tmp_path / "drawing.py").write_text(DRAWING)
    flags = ("--model", "builtin", "--dataset", world / "data" / "grpo_video_dataset.json", "--max_steps", 3)
    flags += ("--num_generations", 4, "--max_completion_length", 16, "--learning_rate", "1e-3", *QUICK)
    flags += ("--external_plugins", tmp_path / "drawing.py")
    found = {}
    for name, batch, processes in (("one", 8, {}), ("two", 4, {"NPROC_PER_NODE": "2"})):
        output = tmp_path / name
        words = (*flags, "--output_dir", output, "--per_device_train_batch_size", batch)
        run(ROOT / "model" / "grpo.sh", *words, **processes)
        logged = [entry for entry in runs.log(output) if "reward" in entry]
        found[name] = [(e["global_step/max_steps"], e["reward"], e["completions/mean_length"]) for e in logged]
    assert [step for step, *_ in found["two"]] == ["1/3", "2/3", "3/3"]  # a rank training alone would log each twice
    for ours, theirs in zip(found["two"], found["one"], strict=True):
        assert ours[1:] == pytest.approx(theirs[1:], abs=1e-5)
    ours, theirs = (weights(runs.checkpoints(tmp_path / name)[-1]) for name in ("two", "one"))
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-5
    base = weights(builtin.VLM)
    assert max((ours[name] - base[name]).abs().max() for name in ours) > 1e-4  # and it did learn
