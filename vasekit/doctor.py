"""What is refused before time is spent: flags, models, data sets, batches, devices, memory, disks.

`python -m vasekit.doctor RECIPE [flags]` examines a run and starts nothing. Imports neither torch nor ms-swift.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vasekit import builtin, cli, flags, gpus, health, lengths, memory, plan, runs, validation
from vasekit.cli import UserError
from vasekit.flags import Flags
from vasekit.plan import Plan

# How far the estimate of GPU memory may be off (a guess).
MEMORY_MARGIN = 0.2
# In an output folder while a run goes on there.
LOCK = ".lock"
_SHM_FEWEST = 1 << 30


# ---- models, data sets, batches, devices, folders ----


def check_model(flags: Flags) -> None:
    """Resolve --model: `builtin`, a folder (or the newest model in it), or a hub name that can be fetched."""
    given = plan.one(flags, "model")
    if given == "builtin":
        flags["model"] = [str(builtin.VLM)]
        return
    path = Path(given).expanduser().absolute()
    if path.exists() or given.count("/") != 1 or given.startswith((".", "/", "~")):
        flags["model"] = [str(runs.find_model(path, "--model"))]
        return
    from huggingface_hub import try_to_load_from_cache

    from vasekit import hub

    flags["use_hf"] = ["true"]
    if not try_to_load_from_cache(given, "config.json") and hub.HuggingFace().offline():
        raise UserError(
            f"--model {given}: no such folder, and no network to fetch it from the hub; give a local model folder,"
            " or builtin"
        )


def settings(flags: Flags, environment: Mapping[str, str], reward: bool) -> validation.Settings:
    """What the rows of a run must fit, from its flags and its environment."""
    model = lengths.model_folder(plan.one(flags, "model"))
    if lengths.is_builtin(model):
        environment = {**environment, "MAX_PIXELS": lengths.BUILTIN_PIXELS}
    rescale = _number(flags, "max_pixels") if "max_pixels" in flags else None
    system = lengths.system_text(plan.one(flags, "system", lengths.SYSTEM))
    counter = lengths.Lengths(model, lengths.Budget.of(environment, rescale), system)
    root = environment.get("ROOT_IMAGE_DIR")
    return validation.Settings(counter, _limit(flags, model, reward), reward, Path(root).absolute() if root else None)


def _limit(flags: Flags, model: Path, reward: bool) -> int:
    """Most tokens of a row. In GRPO --max_length is for the prompt alone, and the answer must fit the model as well."""
    context = lengths.context(model)
    if not reward:
        return _number(flags, "max_length", context)
    context = _number(flags, "vllm_max_model_len", _number(flags, "max_model_len", context))
    return min(_number(flags, "max_length", context), context - _number(flags, "max_completion_length", 512))


def check_dataset(flags: Flags, environment: dict[str, str], reward: bool) -> tuple[int, int]:
    """Rows of all local files of --dataset, and the tokens of the longest, after these and --val_dataset were checked.

    Sets ROOT_IMAGE_DIR in `environment`, where paths are relative: ms-swift would look in the current folder only.
    """
    rules = settings(flags, environment, reward)
    _many(flags, "dataset")
    count, longest, roots = 0, 0, set()
    for flag in ("dataset", "val_dataset"):
        for place, name in enumerate(flags.get(flag, [])):
            text, _, sampled = name.partition("#")
            path = Path(text).expanduser().absolute()
            report = validation.check([path], rules)
            _refuse(f"--{flag}", report)
            rows, relative = report.files[0]["rows"], report.files[0]["relative_paths"]
            flags[flag][place] = f"{path}#{sampled}" if sampled else str(path)
            roots |= {path.parent} if relative else set()
            longest = max(longest, (report.files[0]["tokens"] or {}).get("max", 0))
            if flag == "dataset":
                count += int(sampled) if sampled.isdigit() else rows
    if len(roots) > 1 and rules.root is None:
        named = ", ".join(map(str, sorted(roots)))
        raise UserError(
            f"--dataset: relative paths in files of several folders ({named}), and ms-swift knows one; put the files"
            " into one folder or write whole paths"
        )
    if roots:
        environment.setdefault("ROOT_IMAGE_DIR", str(roots.pop()))
    return count, longest


def _refuse(flag: str, report: validation.Report) -> None:
    for line in validation.lines(report.warnings):
        print(f"warning: {flag} {line}", file=sys.stderr)
    if problems := validation.lines(report.problems):
        more = f" (and {len(problems) - 1} more kinds of problems: see data/validate.py)" if problems[1:] else ""
        raise UserError(f"{flag} {problems[0]}{more}")


def check_megatron(environment: Mapping[str, str]) -> None:
    """Conversion needs Transformer Engine, which needs CUDA."""
    if not gpus.visible(environment):
        raise UserError("no CUDA GPU here: the conversion to Megatron needs one (Transformer Engine); run it on a GPU")
    for package in ("megatron", "transformer_engine"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{package} is not installed: pip install megatron-core==0.16.1 mcore-bridge==1.6.5"
                " 'transformer-engine[core_cu13]==2.20.2' transformer-engine-torch==2.20.2"
            )


def devices(environment: dict[str, str]) -> tuple[list[gpus.Gpu], int]:
    """(GPUs, processes), after `GPUS` has been turned into CUDA_VISIBLE_DEVICES and NPROC_PER_NODE in `environment`.

    A caller's own CUDA_VISIBLE_DEVICES and NPROC_PER_NODE stay.
    """
    wanted = environment.get("GPUS", "").replace(" ", "")
    if wanted and wanted != "cpu" and not all(part.isdigit() for part in wanted.split(",")):
        raise UserError(f"GPUS={wanted}: needs numbers such as GPUS=0,1,2,3, or GPUS=cpu")
    if wanted == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    elif wanted:
        environment.setdefault("CUDA_VISIBLE_DEVICES", wanted)
        environment.setdefault("NPROC_PER_NODE", str(len(wanted.split(","))))
    processes = environment.get("NPROC_PER_NODE", "1")
    if not processes.isdigit() or not int(processes):
        raise UserError(f"NPROC_PER_NODE={processes}: needs a number of processes, at least 1")
    seen = gpus.visible(environment)
    if wanted not in ("", "cpu") and len(seen) < len(wanted.split(",")):
        raise UserError(f"GPUS={wanted}: {len(seen)} of these GPUs can be seen here; name those there are, or GPUS=cpu")
    if seen and int(processes) > len(seen):
        raise UserError(
            f"NPROC_PER_NODE={processes}: {len(seen)} GPUs can be seen; give one process to each, or GPUS=..."
        )
    return seen, int(processes)


def check_output(folder: Path, identity: Mapping[str, object]) -> None:
    """Refuse an output folder that holds another run, or files of somebody else."""
    if not folder.exists() or (folder.is_dir() and all(path.name == LOCK for path in folder.iterdir())):
        return
    before = runs.read(folder).get("identity")
    if before is None:
        raise UserError(f"--output_dir {folder}: not empty and not a run of this kit; name another folder")
    other = sorted(name for name in {*before, *identity} if before.get(name) != identity.get(name))
    if other:
        raise UserError(
            f"--output_dir {folder}: holds another run (other {', '.join(other[:4])}); name another folder, or give"
            " --fresh to remove that run"
        )


def _number(flags: Flags, name: str, default: int | None = None) -> int:
    value = plan.one(flags, name, "" if default is None else str(default))
    if not value.isdigit() or not int(value):
        raise UserError(f"--{name} {value}: needs a whole number, at least 1")
    return int(value)


def _many(flags: Flags, name: str) -> list[str]:
    if not flags.get(name):
        raise UserError(f"--{name}: needs a value")
    return flags[name]


def writable(folder: Path) -> None:
    """Refuse an output folder that can't be written, before anything is computed for it."""
    parent = next(p for p in (folder, *folder.parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--output_dir {folder}: {parent} can't be written; name another folder")


# ---- the examination ----


class Check(NamedTuple):
    """One line of the examination. status: ok, warning, refused, or skipped (what it needs was refused)."""

    name: str
    status: str
    text: str


class Warn(str):
    """What a check says where nothing is wrong yet."""


def _flags(run: Plan) -> str:
    table = flags.check_known(run.command, run.flags)
    return f"{len(run.flags)} flags, all known to ms-swift {table['version']}"


def _devices(run: Plan) -> str:
    run.gpus, run.processes = devices(run.environment)
    nodes = run.environment.get("NNODES", "1")
    if not nodes.isdigit() or not int(nodes):
        raise UserError(f"NNODES={nodes}: needs a number of machines, at least 1")
    if int(nodes) > 1 and (
        missing := [n for n in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in run.environment]
    ):
        raise UserError(
            f"NNODES={nodes}: needs {', '.join(missing)} as well, the same address and port on every machine"
        )
    rank = run.environment.get("NODE_RANK", "0")
    if int(nodes) > 1 and (not rank.isdigit() or int(rank) >= int(nodes)):
        raise UserError(f"NODE_RANK={rank}: needs a number from 0 to {int(nodes) - 1} (NNODES={nodes})")
    named = ", ".join(sorted({gpu.name for gpu in run.gpus})) or "no GPU, trains on the CPU"
    return f"{run.processes} processes, {len(run.gpus)} GPUs: {named}"


def _model(run: Plan) -> str:
    check_model(run.flags)
    folder = Path(run.one("model"))
    if folder.is_dir() and (problems := runs.model_problems(folder)):
        raise UserError(f"--model {folder}: {problems[0]}; fetch the folder again (data/fetch.sh), or give another")
    return str(folder)


def _fitting(run: Plan) -> str:
    plan.fit(run)
    return "; ".join(run.notes) or "nothing to change"


def _plugins(run: Plan) -> str:
    """Files that Python can read: what else is wrong with one ends the run, with a traceback, when it is imported."""
    for name in run.flags["external_plugins"]:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"--external_plugins {name}: no such file; the kit's is plugin/plugin.py")
        try:
            compile(path.read_bytes(), name, "exec")
        except (SyntaxError, ValueError) as error:
            raise UserError(f"--external_plugins {name}: not valid Python ({error}); mend it") from None
    return ", ".join(run.flags["external_plugins"])


def _reward(run: Plan) -> str:
    known = {*flags.table()["rewards"], "external_vase_acc", *(f"vase_{name}" for name in _DIMENSIONS)}
    named = run.flags.get("reward_funcs") or []
    if not named:
        raise UserError("--reward_funcs: names no reward; the kit's is external_vase_acc")
    own = [Path(name).expanduser() for name in run.flags["external_plugins"] if name != str(plan.PLUGIN)]
    said = "".join(path.read_text(encoding="utf-8", errors="replace") for path in own if path.is_file())
    if unknown := [name for name in named if name not in known and name not in said]:
        besides = f", and {', '.join(path.name for path in own)} does not name it" if own else ""
        raise UserError(f"--reward_funcs {unknown[0]}: not registered; there are {', '.join(sorted(known))}{besides}")
    weights = run.flags.get("reward_weights")
    if weights and len(weights) != len(named):
        raise UserError(f"--reward_weights: {len(weights)} weights for {len(named)} rewards; give one each")
    return ", ".join(named)


_DIMENSIONS = ("fabric", "technique", "shape", "date", "decoration", "attribution")


def _dataset(run: Plan) -> str:
    run.rows, run.longest = check_dataset(run.flags, run.environment, reward=run.stage == "grpo")
    return f"{run.rows:,} rows, the longest {run.longest:,} tokens"


def _batches(run: Plan) -> str:
    """A step, and an evaluation, must hold whole groups of generations."""
    per_step = _per_step(run)
    if run.stage != "grpo":
        return f"{per_step} rows a step"
    generations = _number(run.flags, "num_generations", 8)
    if generations < 2:
        raise UserError(f"--num_generations {generations}: needs at least 2, rewards are compared within a group")
    if per_step % generations:
        raise UserError(
            f"--num_generations {generations}: the batch of a step ({per_step} = per_device_train_batch_size x"
            " gradient_accumulation_steps x processes) must be a multiple of it"
        )
    held_out = run.flags.get("val_dataset") or float(run.one("split_dataset_ratio", "0")) > 0
    per_evaluation = _number(run.flags, "per_device_eval_batch_size", 8) * _all_processes(run)
    if held_out and per_evaluation % generations:
        raise UserError(
            f"--num_generations {generations}: the batch of an evaluation ({per_evaluation} ="
            " per_device_eval_batch_size x processes) must be a multiple of it, or --split_dataset_ratio 0"
        )
    return f"{per_step // generations} groups of {generations} a step"


def _all_processes(run: Plan) -> int:
    return run.processes * run.nodes


def _per_step(run: Plan) -> int:
    sizes = [_number(run.flags, n, 1) for n in ("per_device_train_batch_size", "gradient_accumulation_steps")]
    return sizes[0] * sizes[1] * _all_processes(run)


def steps(run: Plan) -> int:
    """Optimizer steps of the run, about: rows held out are counted in."""
    if (most := int(run.one("max_steps", "-1"))) > 0:
        return most
    copies = _number(run.flags, "num_generations", 8) if run.stage == "grpo" else 1
    return max(1, int(run.rows * copies / _per_step(run) * float(run.one("num_train_epochs", "3"))))


def _saving(run: Plan) -> str:
    every, most = float(run.one("save_steps", "500")), steps(run)
    if run.one("save_strategy", "steps") == "no":
        return Warn("--save_strategy no: an interrupted run starts over, and nothing is kept at its end")
    if every >= 1 and every > most:
        return Warn(f"--save_steps {every:.0f}: the run has about {most:,} steps; interrupted, it starts over")
    return f"about {most:,} steps, a checkpoint every {every:g}"


def _output(run: Plan) -> str:
    writable(run.output)
    return str(run.output)


def _disk(run: Plan) -> str:
    """Checkpoints that are kept at a time, and the one being written; those that are there already have their room."""
    every = float(run.one("save_steps", "500"))
    kept = max(1, math.ceil(steps(run) / every if every >= 1 else 1 / every))
    if "save_total_limit" in run.flags:  # without it all are kept
        kept = min(kept, _number(run.flags, "save_total_limit"))
    there = len(runs.checkpoints(run.output)) if runs.read(run.output) else 0
    more = max(1, kept + 1 - there)
    need, free = checkpoint_bytes(run) * more, free_bytes(run.output)
    if need > free:
        raise UserError(
            f"--output_dir {run.output}: {more} checkpoints need about {need / 1e9:.1f} GB,"
            f" {free / 1e9:.1f} GB are free; make room, lower --save_total_limit, or add --save_only_model true"
        )
    return f"checkpoints need about {need / 1e9:.1f} GB, {free / 1e9:.0f} GB are free"


def free_bytes(folder: Path) -> int:
    """On the disk that holds a folder, or will."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def checkpoint_bytes(run: Plan) -> int:
    """Weights and Adam's two states of what is trained. An adapter of rank 8 is about 1/200 of a model (7B: 40 MB)."""
    folder = Path(run.one("model"))
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder.is_dir() else 0
    if run.one("tuner_type", "lora") == "full":
        return weights * (1 if run.is_on("save_only_model") else 3)
    return max(weights * _number(run.flags, "lora_rank", 8) // 8 // 200 * 5, 1 << 20)


def _memory(run: Plan) -> str:
    """The estimate against the fullest card. A calculation, not yet compared with a GPU: near misses are warnings."""
    if not run.gpus:
        return "no GPU is used"
    card = min(run.gpus, key=lambda gpu: gpu.free)
    folder = Path(run.one("model"))
    if not (folder / "config.json").is_file():
        return Warn(f"--model {folder}: not on this disk yet, so the memory it needs can't be estimated")
    # Four patches make a token, and a row has no more of them than tokens.
    case = (folder, run.flags, _all_processes(run), run.longest, 4 * run.longest)
    need = memory.estimate(*case, card=card.total)
    if need.total <= card.free:
        return f"{need} of {card.free / 1e9:.1f} GB free on each {card.name}"
    levers = "; then ".join(f"{lever.flags} ({lever.total / 1e9:.1f} GB)" for lever in memory.levers(*case, card.free))
    used = f" ({(card.total - card.free) / 1e9:.1f} GB are used by others)" if card.total - card.free > 1e9 else ""
    has = f"{card.name} has {card.free / 1e9:.1f} GB free{used}"
    text = f"GPU memory: {need}, and {has}; what would make it fit: {levers or 'nothing'}"
    if need.total * (1 - MEMORY_MARGIN) <= card.free or run.forced:
        return Warn(text)
    raise UserError(f"{text} (--force starts all the same)")


def _driver(run: Plan) -> str:
    """The driver must run the CUDA that torch was built for; its major version decides."""
    if not run.gpus:
        return "no GPU is used"
    driver, built = gpus.cuda_of_driver(), _cuda_of_torch()
    if driver and built and driver[0] < built[0]:
        raise UserError(
            f"GPU driver: runs CUDA {driver[0]}.{driver[1]} at most, torch was built for {built[0]}.{built[1]}; update"
            " the driver, or train in the container on a newer host"
        )
    return f"driver runs CUDA {driver}, torch wants {built}"


def _cuda_of_torch() -> tuple[int, int] | None:
    """Read from torch's files: importing it would take seconds."""
    spec = importlib.util.find_spec("torch")
    path = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    found = (
        re.search(r"^cuda[^=]*= '(\d+)\.(\d+)'", path.read_text(), re.MULTILINE) if path and path.is_file() else None
    )
    return (int(found[1]), int(found[2])) if found else None


def _shared_memory(run: Plan) -> str:
    workers = int(run.one("dataloader_num_workers", "0"))
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    if workers and free < _SHM_FEWEST:
        return Warn(
            f"/dev/shm: {free / 1e6:,.0f} MB free for {workers} loaders a process, too little; give a container"
            " --shm-size 8g or --ipc host, or --dataloader_num_workers 0"
        )
    return f"{free / 1e9:.1f} GB free"


def _port(run: Plan) -> str:
    port = run.environment.get("MASTER_PORT", "")
    if not port or run.environment.get("NODE_RANK", "0") != "0":
        return "none needed"
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"MASTER_PORT={port}: needs a number from 1 to 65535, or leave it unset for a free one")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError:
            raise UserError(f"MASTER_PORT={port}: in use by another program; give another, or leave it unset") from None
    return port


# In order; a check is skipped when one that it needs was refused.
CHECKS: tuple[tuple[str, Callable[[Plan], str], tuple[str, ...]], ...] = (
    ("flags", _flags, ()),
    ("devices", _devices, ()),
    ("model", _model, ()),
    ("fitting", _fitting, ("devices", "model")),
    ("plug-ins", _plugins, ()),
    ("reward", _reward, ()),
    ("batches", _batches, ("devices",)),
    ("data set", _dataset, ("model", "fitting")),
    ("saving", _saving, ("data set", "batches")),
    ("output", _output, ()),
    ("disk", _disk, ("model", "output", "saving")),
    ("memory", _memory, ("data set",)),
    ("driver", _driver, ("devices",)),
    ("shared memory", _shared_memory, ()),
    ("port", _port, ("devices",)),
)


def examine(run: Plan) -> list[Check]:
    """All checks; on the way the plan is completed: paths are whole, devices known, flags fitted."""
    done: list[Check] = []
    for name, check, needs in CHECKS:
        if name == "reward" and run.stage != "grpo":
            continue
        refused = {other.name for other in done if other.status in ("refused", "skipped")}
        if missing := [need for need in needs if need in refused]:
            done.append(Check(name, "skipped", f"needs: {', '.join(missing)}"))
            continue
        try:
            text = check(run)
        except UserError as error:
            done.append(Check(name, "refused", str(error)))
        except ValueError as error:  # a number that is none
            done.append(Check(name, "refused", f"{name}: {error}; give a number"))
        else:
            done.append(Check(name, "warning" if isinstance(text, Warn) else "ok", str(text)))
    return done


def refuse(checks: Sequence[Check]) -> None:
    """Raise UserError with the first refusal."""
    refused = [check for check in checks if check.status == "refused"]
    if refused:
        more = f" (and {len(refused) - 1} more: python -m vasekit.doctor)" if refused[1:] else ""
        raise UserError(refused[0].text + more)


def stage_of(recipe: str) -> str:
    """ "sft" of "sft-paper" and of "demo-sft". Raises UserError for another name."""
    words = Path(recipe).stem.split("-")
    stage = next((stage for stage in plan.COMMANDS if stage in (words[0], words[-1])), None)
    if stage is None:
        raise UserError(f"{recipe}: needs the name of a recipe such as sft-paper or grpo-fast (model/recipes/)")
    return stage


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("Examine a run before time is spent; further flags are ms-swift's, as for model/sft.sh.")
    recipe = "sft-paper, grpo-fast, ...: a file in model/recipes/, or a .yaml file of yours"
    parser.add_argument("recipe", nargs="?", help=recipe)
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--dry_run", action="store_true", help="print the final command as well")
    parser.add_argument("--health", action="store_true", help="examine the installation alone, for a healthcheck")
    args, rest = parser.parse_known_args(argv)
    if args.health:
        print(health.check(os.environ))
        return 0
    if args.recipe is None:
        parser.error("no recipe given; needs one such as sft-paper, or --health")
    stage = stage_of(args.recipe)
    name = args.recipe
    if not name.endswith((".yaml", ".yml")):
        name = name.removeprefix(f"{stage}-").removesuffix(f"-{stage}")
    run = plan.draft(stage, name, flags.parse(rest), os.environ)
    checks = examine(run)
    refused = any(check.status == "refused" for check in checks)
    if args.json:
        print(json.dumps({"ok": not refused, "checks": [check._asdict() for check in checks]}, indent=1))
    else:
        for check in checks:
            print(f"{check.status:<8} {check.name:<14} {check.text}")
    if args.dry_run and not refused:
        print(plan.shown(run))
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
