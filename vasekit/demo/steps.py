"""Run a list of commands once: finished steps are kept, interrupted ones go on, changed ones are redone."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vasekit import files
from vasekit.cli import ROOT, UserError

# A change in any of these makes every step's result stale.
_SOURCES = ("vasekit", "filter", "data", "model", "plugin", "eval")
_SUFFIXES = {".py", ".sh", ".yaml", ".txt", ".json", ".safetensors"}


@dataclass(frozen=True)
class Step:
    """One command of the chain. outputs: what it writes, removed before it is redone for another command."""

    name: str
    title: str
    command: Sequence[str]
    outputs: Sequence[Path]


def source_digest() -> str:
    """SHA-256 of the kit's own code and models."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            # The demo's own code shows up in the commands, but for the judge, which is one.
            shown = path.parent.name == "demo" and path.name != "judge.py"
            if path.suffix in _SUFFIXES and path.is_file() and "__pycache__" not in path.parts and not shown:
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


class Runner:
    """Runs steps in order; the notes of finished ones are in `folder`/steps/."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, source_digest()

    def run(self, steps: Sequence[Step]) -> dict[str, float]:
        """Seconds of each step, also of those that were done before."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        return {step.name: self._once(step, f"[{k}/{len(steps)}]") for k, step in enumerate(steps, 1)}

    def _once(self, step: Step, number: str) -> float:
        # Chained: a step is stale when its own command or any earlier one changed.
        self.key = hashlib.sha256((self.key + "\0".join(step.command)).encode()).hexdigest()
        note = self.folder / "steps" / f"{step.name}.json"
        before = files.read_json(note, "demo") if note.is_file() else {}
        if before.get("key") == self.key and "seconds" in before:
            print(f"{number} {step.title}: done before ({before['seconds']:.0f} s)", flush=True)
            return before["seconds"]
        if before.get("key") != self.key:
            for path in step.outputs:
                _remove(path)
            files.write_json(note, {"key": self.key})
        print(f"{number} {step.title} ...", flush=True)
        seconds = self._execute(step)
        files.write_json(note, {"key": self.key, "seconds": round(seconds, 2)})
        return seconds

    def _execute(self, step: Step) -> float:
        log = self.folder / "logs" / f"{step.name}.log"
        started = time.perf_counter()
        with log.open("w", encoding="utf-8") as handle:
            command = [str(part) for part in step.command]
            handle.write(f"$ {shlex.join(command)}\n")
            handle.flush()
            status = _wait(
                subprocess.Popen(
                    command,
                    stdout=handle,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                )
            )
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if status:
            tail = "\n".join(f"    {line}" for line in lines[-12:])
            raise UserError(f"step '{step.name}' ended with status {status}; its log is {log}:\n{tail}")
        print(f"    {lines[-1][:200]}", flush=True)
        return time.perf_counter() - started


def _wait(process: subprocess.Popen) -> int:
    """Its exit status. Ctrl-C reaches the process too: give it time to clean up."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        raise


def _environment() -> dict[str, str]:
    """The demo needs neither a network nor a GPU, and says so to every library."""
    fixed = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "GPUS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | fixed | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
