"""What is refused before time is spent: models, data sets, batches, devices. Imports neither torch nor ms-swift."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from vasekit import builtin, lengths, runs, validation
from vasekit.cli import UserError
from vasekit.flags import Flags


def gpu_count(environment: Mapping[str, str]) -> int:
    """GPUs that the environment lets a process see; the driver is asked through NVML."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    present = _nvml_count()
    if visible is None:
        return present
    return min(present, len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"]))


def _nvml_count() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 0


def check_model(flags: Flags) -> None:
    """Resolve --model: `builtin`, a folder (or the newest model in it), or a hub name that can be fetched."""
    given = _one(flags, "model")
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
    model = lengths.model_folder(_one(flags, "model"))
    if lengths.is_builtin(model):
        environment = {**environment, "MAX_PIXELS": lengths.BUILTIN_PIXELS}
    rescale = _number(flags, "max_pixels") if "max_pixels" in flags else None
    system = lengths.system_text(_one(flags, "system", lengths.SYSTEM))
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


def check_dataset(flags: Flags, environment: dict[str, str], reward: bool) -> int:
    """Rows of all local files of --dataset, after these and --val_dataset have been checked.

    Sets ROOT_IMAGE_DIR in `environment`, where paths are relative: ms-swift would look in the current folder only.
    """
    rules = settings(flags, environment, reward)
    _many(flags, "dataset")
    count, roots = 0, set()
    for flag in ("dataset", "val_dataset"):
        for place, name in enumerate(flags.get(flag, [])):
            text, _, sampled = name.partition("#")
            path = Path(text).expanduser().absolute()
            report = validation.check([path], rules)
            _refuse(f"--{flag}", report)
            rows, relative = report.files[0]["rows"], report.files[0]["relative_paths"]
            flags[flag][place] = f"{path}#{sampled}" if sampled else str(path)
            roots |= {path.parent} if relative else set()
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
    return count


def _refuse(flag: str, report: validation.Report) -> None:
    for line in validation.lines(report.warnings):
        print(f"warning: {flag} {line}", file=sys.stderr)
    if problems := validation.lines(report.problems):
        more = f" (and {len(problems) - 1} more kinds of problems: see data/validate.py)" if problems[1:] else ""
        raise UserError(f"{flag} {problems[0]}{more}")


def check_generations(flags: Flags, processes: int) -> None:
    """The batch of one step must hold whole groups of generations."""
    per_step = processes
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        per_step *= _number(flags, name, 1)
    generations = _number(flags, "num_generations", 8)
    if per_step % generations:
        raise UserError(
            f"--num_generations {generations}: the batch of a step ({per_step} = per_device_train_batch_size x"
            " gradient_accumulation_steps x processes) must be a multiple of it"
        )


def check_megatron(environment: Mapping[str, str]) -> None:
    """Conversion needs Transformer Engine, which needs CUDA."""
    if not gpu_count(environment):
        raise UserError("no CUDA GPU here: the conversion to Megatron needs one (Transformer Engine); run it on a GPU")
    for package in ("megatron", "transformer_engine"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{package} is not installed: pip install megatron-core==0.16.1 mcore-bridge==1.6.5"
                " 'transformer-engine[core_cu13]==2.20.2' transformer-engine-torch==2.20.2"
            )


def devices(environment: dict[str, str]) -> tuple[int, int]:
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
    gpus = gpu_count(environment)
    if wanted not in ("", "cpu") and gpus < len(wanted.split(",")):
        raise UserError(f"GPUS={wanted}: {gpus} of these GPUs can be seen here; name those there are, or GPUS=cpu")
    return gpus, int(processes)


def check_output(folder: Path, identity: Mapping[str, object]) -> None:
    """Refuse an output folder that holds another run, or files of somebody else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
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


def _one(flags: Flags, name: str, default: str | None = None) -> str:
    values = flags.get(name) or ([default] if default is not None else [])
    if len(values) != 1:
        raise UserError(f"--{name}: needs one value, got {' '.join(values) or 'none'}")
    return values[0]


def _number(flags: Flags, name: str, default: int | None = None) -> int:
    value = _one(flags, name, None if default is None else str(default))
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
