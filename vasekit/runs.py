"""Runs on disk: run.json, complete checkpoints, and which of them the next stage takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vasekit.cli import UserError

RUN = "run.json"
_WEIGHTS = ("model*.safetensors", "adapter_model.safetensors", "pytorch_model*.bin", "adapter_model.bin")


def read(folder: Path) -> dict[str, Any]:
    """run.json of a folder, empty where there is none."""
    path = folder / RUN
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below `folder`, oldest first: at any depth, since ms-swift may add a version folder."""
    found = [path for path in folder.rglob("checkpoint-*") if _step(path) and is_complete(path)]
    return sorted(found, key=lambda path: (path.stat().st_mtime, _step(path)))


def _step(path: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match else 0


def is_complete(checkpoint: Path) -> bool:
    """trainer_state.json is written last; and every shard that the index names has to be there."""
    if not (checkpoint / "trainer_state.json").is_file() or not _weights(checkpoint):
        return False
    return not _missing_shards(checkpoint)


def _weights(folder: Path) -> list[Path]:
    return [path for pattern in _WEIGHTS for path in folder.glob(pattern) if path.stat().st_size]


def _missing_shards(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(name for name in names if not (folder / name).is_file())


def is_model(folder: Path) -> bool:
    """A whole Hugging Face model: configuration and all weights."""
    return (folder / "config.json").is_file() and bool(_weights(folder)) and not _missing_shards(folder)


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def find_model(path: Path, flag: str) -> Path:
    """`path` if it is a model, else the newest whole model among its checkpoints."""
    if is_model(path):
        return path
    models = [c for c in checkpoints(path) if is_model(c)] if path.is_dir() else []
    if models:
        return models[-1]
    if not path.is_dir():
        raise UserError(f"{flag} {path}: no such folder; give a Hugging Face model folder, or builtin")
    if missing := _missing_shards(path):
        raise UserError(f"{flag} {path}: incomplete, {missing[0]} is missing; fetch the folder again")
    if any(is_adapter(c) for c in (path, *checkpoints(path))):
        raise UserError(f"{flag} {path}: holds an adapter, not a whole model; merge it first (model/merge.sh)")
    raise UserError(f"{flag} {path}: no model in it (config.json and weights); give another folder, or builtin")


def find_adapter(path: Path, flag: str) -> Path | None:
    """`path` if it is an adapter, else the newest among its checkpoints; None where full models are all there is."""
    if is_adapter(path):
        return path
    found = checkpoints(path) if path.is_dir() else []
    adapters = [c for c in found if is_adapter(c)]
    if adapters:
        return adapters[-1]
    if is_model(path) or any(is_model(c) for c in found):
        return None
    raise UserError(f"{flag} {path}: no complete checkpoint in it; train one first (model/sft.sh) or give another")
