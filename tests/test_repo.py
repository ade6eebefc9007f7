"""The repository as a reader meets it: targets, rooms, entry points."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from vasekit.cli import ROOT

ENTRY_POINTS = sorted(p for folder in ("filter", "data", "eval") for p in (ROOT / folder).glob("*.py"))
MAKEFILE = (ROOT / "Makefile").read_text()


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("GPUS", "MAKEFLAGS")} | environment
    return subprocess.run(
        ["make", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True, env=env, check=False
    )


def test_help_is_the_default_and_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
    listed = {line.split()[0] for line in make().stdout.splitlines()}
    assert listed == targets
    assert {"setup", "demo", "test", "test-fast", "lint", "filter", "classifier", "data", "sft", "merge"} <= targets
    assert {"grpo", "hf2megatron", "train", "clean"} <= targets


def test_gpus_reach_the_scripts() -> None:
    shown = "sft: ; @echo $${CUDA_VISIBLE_DEVICES-unset} $${NPROC_PER_NODE-unset}"
    plain = {"CUDA_VISIBLE_DEVICES": "", "NPROC_PER_NODE": ""}

    def variables(*words: str, **environment: str) -> str:
        env = {k: v for k, v in os.environ.items() if k not in (*plain, "GPUS", "MAKEFLAGS")} | environment
        command = ["make", "--no-print-directory", "-f", "Makefile", "-f", "-", *words, "sft"]
        done = subprocess.run(command, cwd=ROOT, input=shown, capture_output=True, text=True, env=env, check=True)
        return done.stdout.splitlines()[-1]

    assert variables() == "unset unset"
    assert variables("GPUS=0,1,2,3") == "0,1,2,3 4"
    assert variables("GPUS=cpu").split() == ["unset"]
    assert variables("GPUS=0,1", NPROC_PER_NODE="1", CUDA_VISIBLE_DEVICES="5") == "5 1"


@pytest.mark.parametrize("path", ENTRY_POINTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_help_is_quick_from_any_folder_and_unknown_flags_are_one_line(path: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert time.monotonic() - started < 3  # half a second when nothing else runs
    wrong = subprocess.run([sys.executable, path.name, "--nonsense"], capture_output=True, text=True, cwd=path.parent)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ENTRY_POINTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_python_without_the_packages_is_told_what_to_do(path: Path) -> None:
    done = subprocess.run([sys.executable, "-S", path], capture_output=True, text=True, check=False)  # no site-packages
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "make setup" in done.stderr


def imports(path: Path, top_level: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


LIBRARY = sorted((ROOT / "vasekit").rglob("*.py"))


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    heavy = ("torch", "open_clip", "torchvision", "transformers", "swift")
    light = [p for p in LIBRARY if not p.name.startswith("make_")]
    for path in [*light, *ENTRY_POINTS]:
        used = {name.split(".")[0] for name in imports(path, top_level=True)}
        assert not used & set(heavy), path


def test_only_the_plugin_and_the_table_of_flags_import_ms_swift() -> None:
    for path in [*LIBRARY, *ENTRY_POINTS]:
        if path.name != "flags.py":
            assert "swift" not in {name.split(".")[0] for name in imports(path, top_level=False)}, path


def test_the_library_imports_no_entry_point_and_has_no_cycles() -> None:
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in LIBRARY}
    graph = {name: (imports(path, top_level=True) & set(modules)) - {name} for name, path in modules.items()}
    for path in LIBRARY:
        used = {name.split(".")[0] for name in imports(path, top_level=False)}
        assert not used & {"filter", "model", "plugin", "data", "eval"}, path
    # A package's own __init__ is no edge: importing a sub-module passes through it anyway.
    state: dict[str, int] = {}

    def visit(name: str) -> None:
        assert state.get(name) != 1, f"import cycle through {name}"
        if name not in state:
            state[name] = 1
            for other in graph[name]:
                if not name.startswith(other + "."):
                    visit(other)
            state[name] = 2

    for name in graph:
        visit(name)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: nothing says what is committed")
def test_nothing_of_the_machine_is_committed() -> None:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    # A checkout in the folder for temporary files: that one may be named.
    here = ROOT if ROOT.parent == Path(tempfile.gettempdir()) else ROOT.parent
    suspects = re.compile(rf"{re.escape(str(here))}/|--(extra-)?index-url|://[^ \"']+/simple(/|\"|'|$)")
    for name in filter(None, files.split("\0")):
        path = ROOT / name
        if path.suffix in (".safetensors", ".jpg", ".png") or not path.is_file() or path.name == "test_repo.py":
            continue
        assert not suspects.search(path.read_text(encoding="utf-8", errors="replace")), name


def test_nothing_trusts_remote_code_or_installs_unasked() -> None:
    folders = ("filter", "data", "model", "plugin", "eval", "vasekit")
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".sh")):
        text = path.read_text()
        assert not re.search(r"trust_remote_code\W+[Tt]rue", text), path
        assert path.suffix != ".sh" or not re.search(r"\bpip3? install", text), path
