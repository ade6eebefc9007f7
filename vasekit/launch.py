"""Start ms-swift for one of the scripts in model/: `python -m vasekit.launch STAGE [defaults] -- [the user's flags]`.

Everything that can be refused is refused before ms-swift's half minute of imports. Started again, a run that was
interrupted goes on from its last complete checkpoint, and a finished one says so.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vasekit import cli, doctor, files, flags, lengths, runs
from vasekit.cli import UserError
from vasekit.flags import Flags

# Flags of our own; everything else is ms-swift's.
OWN = ("fresh", "dry_run")
# Neither changes what is learned: a run may be started again with others.
_INCIDENTAL = {"output_dir", "report_to", "logging_steps", "dataloader_num_workers", "dataset_num_proc", "use_cpu"}
# The plug-in also makes image token ids come from the tokenizer, so every command loads it.
_ALWAYS = {
    "model_type": ["qwen2_5_vl"],
    "template": ["qwen2_5_vl"],
    "external_plugins": [str(cli.ROOT / "plugin" / "plugin.py")],
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in STAGES:
        raise UserError(f"{' '.join(words[:1]) or 'no stage'}: stages are {', '.join(STAGES)}")
    stage, rest = words[0], words[1:]
    cut = rest.index("--") if "--" in rest else len(rest)
    if any(word in ("-h", "--help") for word in rest[cut:]):
        print(f"model/{stage}.sh [--fresh] [--dry_run] [any flag of ms-swift]\ndefaults: {shlex.join(rest[:cut])}")
        return 0
    return STAGES[stage](flags.parse(rest[:cut]), flags.parse(rest[cut + 1 :]))


# ---- training ----


def sft(defaults: Flags, user: Flags) -> int:
    """Supervised fine-tuning."""
    return _train("sft", "sft", defaults, user)


def grpo(defaults: Flags, user: Flags) -> int:
    """Reinforcement with the vase reward."""
    return _train("grpo", "rlhf", defaults, user)


def _train(stage: str, command: str, defaults: Flags, user: Flags) -> int:
    fresh, dry_run = (user.pop(name, None) is not None for name in OWN)
    environment = dict(os.environ)
    given, facts = _checked(stage, command, defaults, user, environment)
    output = Path(given["output_dir"][0])
    if fresh and runs.read(output).get("identity"):
        shutil.rmtree(output)
    doctor.check_output(output, facts["identity"])
    if finished := runs.read(output).get("finished"):
        print(f"{stage}: done before, {finished['checkpoint']} (--fresh starts over)")
        return 0
    saved = runs.checkpoints(output) if output.exists() else []
    if saved and "resume_from_checkpoint" not in given:
        print(f"{stage}: going on from {saved[-1]}")
        given["resume_from_checkpoint"] = [str(saved[-1])]
    argv = _swift(command, given)
    if dry_run:
        root = environment.get("ROOT_IMAGE_DIR")
        print(shlex.join([*([f"ROOT_IMAGE_DIR={root}"] if root else []), *argv]))
        return 0
    note = facts | {"command": argv, "versions": cli.versions("ms-swift", "torch", "transformers", "peft", "trl")}
    files.write_json(output / runs.RUN, note)
    watch = cli.Stopwatch()
    if status := _run(argv, environment):
        raise UserError(
            f"swift {command} ended with status {status}; the same command again goes on from the last checkpoint"
        )
    final = runs.checkpoints(output)
    if not final:
        raise UserError(f"--output_dir {output}: swift {command} left no complete checkpoint")
    finished = {"checkpoint": str(final[-1]), "seconds": round(watch.seconds, 2)}
    files.write_json(output / runs.RUN, note | {"finished": finished})
    watch.close(stage, f"{final[-1]}", facts["rows"], "rows")
    return 0


def _checked(
    stage: str, command: str, defaults: Flags, user: Flags, environment: dict[str, str]
) -> tuple[Flags, dict[str, Any]]:
    """All flags of a run, and what run.json says of it; refuses what can't work. Changes `environment` to fit."""
    gpus, processes = doctor.devices(environment)
    given = defaults | _ALWAYS | user
    flags.check_known(command, given)
    doctor.check_model(given)
    if stage == "grpo":
        doctor.check_generations(given, processes)
    rows = doctor.check_dataset(given, environment, reward=stage == "grpo")
    output = Path(given["output_dir"][0]).expanduser().absolute()
    doctor.writable(output)
    _own_port(processes, environment)
    fitting = _for_device(gpus, processes, environment)
    given |= {name: values for name, values in fitting.items() if name not in user} | {"output_dir": [str(output)]}
    _for_model(given, user, environment)
    facts = {"stage": stage, "identity": _identity(given), "rows": rows, "processes": processes, "gpus": gpus}
    return given, facts


def _own_port(processes: int, environment: dict[str, str]) -> None:
    """A free port for this run's processes to meet on: two runs on one machine can't share torchrun's default."""
    if processes > 1 and environment.get("NNODES", "1") == "1" and "MASTER_PORT" not in environment:
        with socket.socket() as probe:
            probe.bind(("", 0))
            environment["MASTER_PORT"] = str(probe.getsockname()[1])


def _for_device(gpus: int, processes: int, environment: dict[str, str]) -> Flags:
    """Flags that a machine without a GPU needs. Without the backend each of several processes would train alone."""
    if gpus:
        return {}
    environment["ACCELERATE_USE_CPU"] = "true"
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    return {"use_cpu": ["true"], "torch_dtype": ["float32"]} | ({"ddp_backend": ["gloo"]} if processes > 1 else {})


def _for_model(given: Flags, user: Flags, environment: dict[str, str]) -> None:
    """The built-in model, or one made from it, sees small pictures; larger ones it never learned to read."""
    if (Path(given["model"][0]) / "config.json").is_file() and lengths.is_builtin(Path(given["model"][0])):
        environment["MAX_PIXELS"] = lengths.BUILTIN_PIXELS
        given["torch_dtype"] = user.get("torch_dtype", ["float32"])


def _identity(given: Flags) -> dict[str, object]:
    """What makes two runs the same: every flag that bears on the result, and the bytes of the data."""
    digest = hashlib.sha256()
    for name in given["dataset"]:
        digest.update(Path(name.partition("#")[0]).read_bytes())
    kept = {name: values for name, values in given.items() if name not in _INCIDENTAL}
    return kept | {"data_sha256": digest.hexdigest()}


# ---- merging and converting ----


def merge(defaults: Flags, user: Flags) -> int:
    """Merge the newest adapter into its base model; written aside, then renamed."""
    given = defaults | _ALWAYS | user
    flags.check_known("export", given)
    source = Path(given["adapters"][0]).expanduser().absolute()
    adapter = runs.find_adapter(source, "--adapters")
    if adapter is None:
        print(f"merge: nothing to merge, {source} holds a full model and no adapter")
        return 0
    output = Path(given.get("output_dir", [f"{source}-merged"])[0]).expanduser().absolute()
    identity = {"adapter": str(adapter), "sha256": files.sha256(next(adapter.glob("adapter_model.*")))}
    before = runs.read(output)
    if output.exists() and any(output.iterdir()) and before.get("stage") != "merge":
        raise UserError(f"--output_dir {output}: not empty and not made by merge.sh; name another folder")
    if before.get("identity") == identity and before.get("finished"):
        print(f"merge: done before, {output}")
        return 0
    environment = dict(os.environ)
    gpus, _ = doctor.devices(environment)
    doctor.writable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    base = files.read_json(adapter / "args.json", "--adapters").get("model", "")
    given = {"torch_dtype": ["bfloat16" if gpus and not lengths.is_builtin(Path(base)) else "float32"]} | given
    watch = cli.Stopwatch()
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as stage:
        target = Path(stage) / "model"
        given |= {"adapters": [str(adapter)], "output_dir": [str(target)], "merge_lora": ["true"]}
        argv = _swift("export", given)
        if status := _run(argv, environment):
            raise UserError(f"swift export ended with status {status}; {output} is as it was")
        if not runs.is_model(target):
            raise UserError(f"swift export wrote no whole model; {output} is as it was")
        note = {"stage": "merge", "identity": identity, "command": argv, "base": base}
        files.write_json(
            target / runs.RUN, note | {"finished": {"checkpoint": str(output), "seconds": round(watch.seconds, 2)}}
        )
        if output.exists():
            output.rename(Path(stage) / "old")
        target.rename(output)
    watch.close("merge", f"{adapter} -> {output}", 1, "model")
    return 0


def hf2megatron(defaults: Flags, user: Flags) -> int:
    """Convert a Hugging Face checkpoint to Megatron's format."""
    given = defaults | _ALWAYS | user
    flags.check_known("export", given)
    environment = dict(os.environ)
    doctor.devices(environment)
    doctor.check_megatron(environment)
    doctor.check_model(given)
    output = Path(given["output_dir"][0]).expanduser().absolute()
    if output.exists():
        raise UserError(f"--output_dir {output}: exists already; remove it or name another folder")
    doctor.writable(output)
    watch = cli.Stopwatch()
    if status := _run(_swift("export", given | {"output_dir": [str(output)]}), environment):
        shutil.rmtree(output, ignore_errors=True)
        raise UserError(f"swift export ended with status {status}; nothing was kept")
    files.write_json(output / runs.RUN, {"stage": "hf2megatron", "seconds": round(watch.seconds, 2), "flags": given})
    watch.close("hf2megatron", f"{given['model'][0]} -> {output}", 1, "model")
    return 0


STAGES: dict[str, Callable[[Flags, Flags], int]] = {
    "sft": sft,
    "grpo": grpo,
    "merge": merge,
    "hf2megatron": hf2megatron,
}


# ---- the process ----


def _swift(command: str, given: Flags) -> list[str]:
    beside = Path(sys.executable).with_name("swift")
    program = str(beside) if beside.is_file() else shutil.which("swift")
    if program is None:
        raise UserError("swift is not installed; run `make setup`, or install requirements/base.txt")
    return [program, command, *flags.render(given)]


def _run(argv: list[str], environment: dict[str, str]) -> int:
    """Run and wait; Ctrl-C and SIGTERM reach ms-swift, which gets time to end by itself."""
    process = subprocess.Popen(argv, env=environment, start_new_session=True)

    def forward(number: int, _: object) -> None:
        os.killpg(process.pid, number)

    kept = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(cli.run(main))
