"""Runs on disk: run.json, complete checkpoints, and which of them the next stage takes.

`python -m vasekit.runs [FOLDER]` shows all runs below a folder in a table.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vasekit import cli
from vasekit.cli import UserError

RUN = "run.json"
LOG = "logging.jsonl"
# Half-written checkpoints go into a folder of this name beside the whole ones.
INCOMPLETE = "incomplete"
_WEIGHTS = ("model*.safetensors", "adapter_model.safetensors", "pytorch_model*.bin", "adapter_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# safetensors itself refuses a longer header.
_MAX_HEADER = 100_000_000


def read(folder: Path) -> dict[str, Any]:
    """run.json of a folder, empty where there is none."""
    path = folder / RUN
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def log(folder: Path) -> list[dict[str, Any]]:
    """Lines of ms-swift's log, oldest first; those of a run that was killed while it wrote are left out."""
    path = log_file(folder)
    return [entry for line in _lines(path) if "global_step/max_steps" in (entry := _parsed(line))] if path else []


def log_file(folder: Path) -> Path | None:
    """The log of a run: in its folder, or newest in a version folder of ms-swift's."""
    found = [folder / LOG] if (folder / LOG).is_file() else list(folder.glob(f"*/{LOG}"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def step_of(entry: dict[str, Any]) -> tuple[int, int]:
    """Steps done and steps in all, of a line of the log (`"40/60"`)."""
    done, _, steps = str(entry["global_step/max_steps"]).partition("/")
    return int(done), int(steps or 0)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _parsed(text: str) -> dict[str, Any]:
    """A JSON object, empty where the text is none or only half of one."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}


# ---- whole files ----


def tensors(path: Path) -> dict[str, dict[str, Any]]:
    """dtype, shape and data_offsets by tensor, from a safetensors file's header alone.

    Raises ValueError where the file is shorter or longer than the header says.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(size - 8, _MAX_HEADER):
            raise ValueError("no whole header")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("no header")
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        raise ValueError(f"{size:,} bytes, its header says {end:,}")
    return header


def _torn(path: Path) -> list[str]:
    """What is wrong with a file that a killed process, a full disk or a broken download left."""
    if not path.stat().st_size:
        return [f"{path.name} is empty"]
    try:
        if path.suffix == ".safetensors":
            tensors(path)
        elif path.suffix in (".pt", ".pth", ".bin"):  # torch.save writes a zip, its table of contents last
            zipfile.ZipFile(path).close()
    except (ValueError, zipfile.BadZipFile) as error:
        return [f"{path.name} is cut off or damaged ({error})"]
    return []


def _weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))


def _weight_map(index: Path) -> dict[str, str]:
    """Shard by tensor; empty where there is no index, or none that can be read."""
    value = _json(index).get("weight_map")
    return value if isinstance(value, dict) else {}


def _broken_weights(folder: Path) -> Iterator[str]:
    """What is wrong with the weights that are there, or that an index names."""
    for index in (folder / name for name in _INDEXES):
        shards = _weight_map(index)
        if index.is_file() and not shards:
            yield f"{index.name} is cut off or damaged"
        for shard in sorted(set(shards.values())):
            if not (folder / shard).is_file():
                lost = sorted(name for name, file in shards.items() if file == shard)
                yield f"{shard} is missing ({len(lost)} tensors, {lost[0]} the first)"
    for path in _weights(folder):
        yield from _torn(path)


# ---- models and adapters ----


def is_model(folder: Path) -> bool:
    """A whole Hugging Face model: configuration and all weights."""
    whole = (folder / "config.json").is_file() and bool(_weights(folder))
    return whole and not any(_broken_weights(folder))


def model_problems(folder: Path) -> list[str]:
    """What a model folder lacks to be loaded, empty for a whole one. Reads headers, no weights: milliseconds for 7B."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    problems = [] if _json(folder / "config.json") else ["config.json is missing or cut off"]
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        problems.append("no tokenizer (tokenizer.json, or vocab.json and merges.txt)")
    if not {"preprocessor_config.json", "processor_config.json"} & names:
        problems.append("no processor configuration (preprocessor_config.json or processor_config.json)")
    if not _weights(folder):
        problems.append("no weights (model*.safetensors)")
    broken = list(_broken_weights(folder))
    return problems + (broken or list(_index_problems(folder)))


def _index_problems(folder: Path) -> Iterator[str]:
    """Where the index and the headers of its shards, all of them whole, say different things."""
    index = folder / _INDEXES[0]
    shards = _weight_map(index)
    held = {shard: tensors(folder / shard) for shard in sorted(set(shards.values()))}
    lost = sorted(name for name, shard in shards.items() if name not in held[shard])
    if lost:
        yield f"{shards[lost[0]]} lacks {lost[0]}, which {index.name} says it has ({len(lost)} such tensors)"
    spans = [entry["data_offsets"] for header in held.values() for entry in header.values()]
    total, said = sum(end - start for start, end in spans), (_json(index).get("metadata") or {}).get("total_size")
    if said is not None and said != total:
        yield f"{index.name} says {said:,} bytes of tensors, the shards hold {total:,}"


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


# ---- checkpoints ----


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below `folder`, oldest first: at any depth, since ms-swift may add a version folder."""
    found = [path for path in _candidates(folder) if is_complete(path)]
    return sorted(found, key=lambda path: (path.stat().st_mtime, _step(path)))


def _candidates(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("checkpoint-*")) if _step(p) and p.is_dir() and p.parent.name != INCOMPLETE]


def _step(path: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match else 0


def is_complete(checkpoint: Path) -> bool:
    """Whether Trainer wrote this checkpoint to the end, and every file is as long as it should be."""
    return not any(_checkpoint_problems(checkpoint))


def _checkpoint_problems(checkpoint: Path) -> Iterator[str]:
    """What a checkpoint lacks to go on from.

    The order of writing, from Trainer._save_checkpoint (transformers 5.19) and _save (ms-swift 4.6), seen in the times
    of real ones: weights (shards, then their index), adapter_config.json, training_args.bin, args.json, tokenizer and
    processor (full models only); then, unless save_only_model, optimizer.pt and scheduler.pt (DeepSpeed:
    global_stepN/, then `latest`), and rng_state.pth; trainer_state.json last. Nothing is written aside and renamed but
    the safetensors. With several processes each writes its own rng_state_N.pth and waits for nobody, so that
    trainer_state.json, by the first of them, may come before the others' files.
    """
    if not _weights(checkpoint):
        yield "no weights"
    yield from _broken_weights(checkpoint)
    if _json(checkpoint / "trainer_state.json").get("global_step") != _step(checkpoint):
        yield "trainer_state.json is missing, cut off or of another step"
    args = _json(checkpoint / "args.json")
    if not args.get("save_only_model"):
        # A node without a shared disk holds the states of its own processes only.
        yield from _resume_problems(checkpoint, args.get("local_world_size") or 1)


def _resume_problems(checkpoint: Path, processes: int) -> Iterator[str]:
    """What is missing of optimizer, schedule and random states."""
    states = _optimizer(checkpoint)
    if not states:
        yield "no optimizer state (optimizer.pt, or DeepSpeed's `latest` and its folder)"
    schedule = checkpoint / "scheduler.pt"
    if schedule.is_file():
        states = [*states, schedule]
    elif not (checkpoint / "latest").is_file():  # DeepSpeed may keep the schedule with the optimizer
        yield "scheduler.pt is missing"
    random = list(checkpoint.glob("rng_state*.pth"))
    if len(random) < processes:
        yield f"{len(random)} files of random states for {processes} processes"
    for path in (*states, *random):
        yield from _torn(path)


def _optimizer(checkpoint: Path) -> list[Path]:
    """Files of the optimizer's state. DeepSpeed writes `latest`, which names their folder, after all of them."""
    latest = checkpoint / "latest"
    if latest.is_file():
        return sorted((checkpoint / latest.read_text(encoding="utf-8").strip()).glob("*.pt"))
    names = ("optimizer.pt", "optimizer.bin", "optimizer_*/*")  # plain, FSDP, FSDP in shards
    return sorted(path for name in names for path in checkpoint.glob(name))


def set_aside(folder: Path) -> list[Path]:
    """Rename half-written checkpoints below `folder` to incomplete/checkpoint-N beside them; where each one went.

    There, neither a resume nor Trainer's rotation takes them for one of the newest `save_total_limit`. Nothing is
    deleted. Not while a run writes into `folder`: what it is writing is half-written.
    """
    moved = []
    for path in _candidates(folder):
        if not path.is_symlink() and not is_complete(path):
            target = _free(path.parent / INCOMPLETE / path.name)
            target.parent.mkdir(exist_ok=True)
            moved.append(path.rename(target))
    return moved


def _free(path: Path) -> Path:
    """`path`, with a number behind it if the name is taken."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


# ---- what the next stage takes ----


def find_model(path: Path, flag: str) -> Path:
    """`path` if it is a model, else the newest whole model among its checkpoints."""
    if is_model(path):
        return path
    models = [c for c in checkpoints(path) if is_model(c)] if path.is_dir() else []
    if models:
        return models[-1]
    if not path.is_dir():
        raise UserError(f"{flag} {path}: no such folder; give a Hugging Face model folder, or builtin")
    if broken := list(_broken_weights(path)):
        raise UserError(f"{flag} {path}: incomplete, {broken[0]}; fetch the folder again")
    if any(is_adapter(c) for c in (path, *checkpoints(path))):
        raise UserError(f"{flag} {path}: holds an adapter, not a whole model; merge it first (model/merge.sh)")
    raise UserError(f"{flag} {path}: no model in it (config.json and weights); give another folder, or builtin")


def find_adapter(path: Path, flag: str) -> Path | None:
    """`path` if it is an adapter, else the newest among its checkpoints; None where full models are all there is."""
    if is_adapter(path):
        broken = list(_broken_weights(path))
        if broken or not _weights(path):
            raise UserError(f"{flag} {path}: incomplete, {(*broken, 'no weights')[0]}; give another checkpoint")
        return path
    found = checkpoints(path) if path.is_dir() else []
    adapters = [c for c in found if is_adapter(c)]
    if adapters:
        return adapters[-1]
    if is_model(path) or any(is_model(c) for c in found):
        return None
    raise UserError(f"{flag} {path}: no complete checkpoint in it; train one first (model/sft.sh) or give another")


# ---- the table of runs ----

# 128 + SIGINT, 128 + SIGTERM: stopped by a person or by the queue.
_STOPPED = (130, 143)


def overview(root: Path) -> list[dict[str, Any]]:
    """All runs below `root`, oldest first; what older runs did not write down is None."""
    folders = [path.parent for path in root.rglob(RUN) if not _hidden(path.relative_to(root))]
    rows = [_row(folder, root) for folder in folders if _json(folder / RUN).get("stage")]
    return sorted(rows, key=lambda row: (row["started"] or "", row["name"]))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _row(folder: Path, root: Path) -> dict[str, Any]:
    record, entries = _json(folder / RUN), log(folder)
    finished = record.get("finished") or {}
    step, steps = step_of(entries[-1]) if entries else (None, None)
    measure = "reward" if record["stage"] == "grpo" else "loss"
    logged = [entry[measure] for entry in entries if measure in entry]
    result = (finished.get("result") or {}).get(measure)
    return {
        "name": str(folder.relative_to(root)) if folder != root else folder.name,
        "stage": record["stage"],
        "recipe": (record.get("recipe") or {}).get("name"),
        "state": _state(record),
        "step": step,
        "steps": steps,
        "rows": record.get("rows"),
        "measure": measure,
        "value": logged[-1] if logged else result,
        "seconds": finished.get("seconds", record.get("seconds")),
        "peak_memory_gib": _largest(finished.get("peak_memory_gib")),
        "started": record.get("started"),
        "gpus": _gpus(record.get("gpus")),
    }


def _state(record: dict[str, Any]) -> str:
    """finished, failed, interrupted; a run that wrote no end is one of the last two, or runs now."""
    if record.get("finished") or (record["stage"] == "hf2megatron" and "seconds" in record):
        return "finished"
    last = (record.get("attempts") or [{}])[-1]
    if "started" in last and last.get("status") is None:
        return "running or killed"
    status = last.get("status") or 0
    return "failed" if status > 0 and status not in _STOPPED else "interrupted"


def _largest(memory: dict[str, float] | float | None) -> float | None:
    return max(memory.values(), default=None) if isinstance(memory, dict) else memory


def _gpus(gpus: list[dict[str, Any]] | int | None) -> str | None:
    if gpus is None or isinstance(gpus, int):  # older runs wrote their number
        return None if gpus is None else str(gpus or "cpu")
    names = [gpu.get("name", "GPU") for gpu in gpus]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "cpu"


_HEAD = ("name", "stage", "recipe", "state", "rows", "steps", "last", "seconds", "GiB", "started", "GPUs")
_NUMBERS = ("rows", "steps", "seconds", "GiB")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    unfinished = row["state"] != "finished" and row["step"] is not None
    state = row["state"] + (f" at step {row['step']} of {row['steps']}" if unfinished else "")
    last = None if row["value"] is None else f"{row['measure']} {row['value']:.4f}"
    seconds, memory = (None if row[name] is None else f"{row[name]:,.1f}" for name in ("seconds", "peak_memory_gib"))
    started = row["started"] and row["started"][:16].replace("T", " ")
    cells = (row["name"], row["stage"], row["recipe"], state, row["rows"], row["step"])
    return tuple("-" if cell is None else str(cell) for cell in (*cells, last, seconds, memory, started, row["gpus"]))


def _print(rows: list[dict[str, Any]]) -> None:
    table = [_HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = zip(_HEAD, line, widths, strict=True)
        print("  ".join(c.rjust(w) if head in _NUMBERS else c.ljust(w) for head, c, w in cells).rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("Show the runs below a folder in a table.")
    default = cli.default_path("output")
    parser.add_argument("folder", nargs="?", type=cli.user_path, default=default, help="where to look")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    args: argparse.Namespace = parser.parse_args(argv)
    if args.folder != default:
        cli.need_dir(args.folder, "FOLDER")
    rows = overview(args.folder) if args.folder.is_dir() else []
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    elif rows:
        _print(rows)
    else:
        print(f"runs: none below {args.folder}; model/sft.sh or model/grpo.sh starts one")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
