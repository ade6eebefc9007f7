"""The entry points in filter/ for tests: in this process (fast), or through the shell as people start them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from vasekit import cli

FILTER = Path(__file__).resolve().parents[1] / "filter"


def module(name: str) -> ModuleType:
    """filter/NAME.py as a module of its own, without putting filter/ on sys.path."""
    spec = importlib.util.spec_from_file_location(f"filter_{name}", FILTER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def entry(name: str) -> Callable[[Sequence[str]], int]:
    """`main` of filter/NAME.py as the shell would see it: arguments in, exit status out."""
    return partial(cli.run, module(name).main)


def shell(name: str, *flags: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Start filter/NAME in a process of its own, without a terminal."""
    start = [sys.executable] if name.endswith(".py") else []
    command = [*start, str(FILTER / name), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL, check=False)


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 60)) -> Path:
    """A small photograph of nothing, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 10, size[0] // 10, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR).save(path)
    return path


def broken(path: Path) -> Path:
    """A photograph of which only the first half arrived."""
    picture(path, 7, (200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path
