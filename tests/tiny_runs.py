"""What the tests of training share: the scripts started as a person starts them, a small data set, kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from vasekit import runs
from vasekit.cli import ROOT

ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if k not in ("NPROC_PER_NODE", "MAX_PIXELS")},
    "GPUS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "PYTHON": sys.executable,
}
QUICK = (
    *("--split_dataset_ratio", "0", "--gradient_checkpointing", "false", "--gradient_accumulation_steps", "1"),
    *("--dataloader_num_workers", "0", "--report_to", "none"),
)


def run(*words: object, **environment: str) -> str:
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | environment, cwd="/", check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def make_world(folder: Path) -> Path:
    """A collection of thirty vases and the training files made of it, by the kit's own scripts."""
    flags = ("--vases", 30, "--views", 2, "--seed", 6, "--size", 112)
    run(sys.executable, ROOT / "data" / "make_world.py", *flags, "--output", folder / "museum")
    data = ("--images", folder / "museum" / "photos", "--records", folder / "museum" / "records.csv")
    run(sys.executable, ROOT / "data" / "build.py", *data, "--output", folder / "data", "--test_share", 0.3)
    return folder


def sft_flags(world: Path, output: Path) -> list[object]:
    data = world / "data" / "video_training_dataset.json"
    flags = ["--model", "builtin", "--dataset", data, "--output_dir", output, "--max_steps", 12, "--save_steps", 2]
    return [*flags, "--per_device_train_batch_size", 4, "--learning_rate", "1e-3", *QUICK]


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def killed(command: list[str], output: Path, seconds: float) -> None:
    """Start a run and kill -9 all its processes, `seconds` after it has written its first checkpoint."""
    before = set(output.glob("checkpoint-*"))
    process = psutil.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 180
    while set(output.glob("checkpoint-*")) <= before and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(seconds)
    tree = [process, *process.children(recursive=True)]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(tree, timeout=10)


def same(one: Path, other: Path) -> None:
    ours, theirs = (weights(runs.checkpoints(folder)[-1]) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 1e-6 for name in ours)
