"""Start ms-swift for one of the scripts in model/: `python -m vasekit.launch STAGE [defaults] -- [the user's flags]`.

Everything that can be refused is refused before ms-swift's half minute of imports (`doctor`). Started again, a run that
was interrupted goes on from its last complete checkpoint, and a finished one says so.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from vasekit import cli, curves, doctor, files, flags, lengths, merging, plan, recipes, runs
from vasekit.cli import UserError
from vasekit.flags import Flags
from vasekit.plan import Plan

# Flags of our own; everything else is ms-swift's.
OWN = ("recipe", "fresh", "dry_run", "force")
# Recipes name these themselves.
_ALWAYS = {"model_type": ["qwen2_5_vl"], "template": ["qwen2_5_vl"]}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in STAGES:
        raise UserError(f"{' '.join(words[:1]) or 'no stage'}: stages are {', '.join(STAGES)}")
    stage, rest = words[0], words[1:]
    cut = rest.index("--") if "--" in rest else len(rest)
    if any(word in ("-h", "--help") for word in rest[cut:]):
        print(_help(stage, rest[:cut]))
        return 0
    return STAGES[stage](flags.parse(rest[:cut]), flags.parse(rest[cut + 1 :]))


def _help(stage: str, defaults: Sequence[str]) -> str:
    if stage not in plan.COMMANDS:
        return f"model/{stage}.sh [any flag of ms-swift's export]\ndefaults: {shlex.join(defaults)}"
    recipe = recipes.load(stage, flags.parse(defaults)["recipe"][0])
    return (
        f"model/{stage}.sh [--recipe NAME] [--fresh] [--dry_run] [--force] [any flag of swift {plan.COMMANDS[stage]}]\n"
        f"recipes: {', '.join(recipes.names(stage))}, or a .yaml file of yours\n"
        f"{recipe.path.name}: {shlex.join(flags.render(recipe.flags))}"
    )


# ---- training ----


def sft(defaults: Flags, user: Flags) -> int:
    """Supervised fine-tuning."""
    return _train("sft", defaults, user)


def grpo(defaults: Flags, user: Flags) -> int:
    """Reinforcement with the vase reward."""
    return _train("grpo", defaults, user)


def _train(stage: str, defaults: Flags, user: Flags) -> int:
    recipe, fresh, dry_run, force = (user.pop(name, defaults.get(name)) for name in OWN)
    run = plan.draft(stage, (recipe or [""])[0], user, os.environ)
    run.forced = force is not None
    checks = doctor.examine(run)
    doctor.refuse(checks)
    identity = plan.identity(run)
    if fresh is None:
        doctor.check_output(run.output, identity)
    if dry_run is not None:
        _go_on(run, fresh is not None)
        print(plan.shown(run))
        return 0
    if run.node:
        return _follow(run, fresh is not None)
    with _alone(run.output) as lock:
        if fresh is not None and runs.read(run.output).get("identity"):
            _empty(run.output)
        doctor.check_output(run.output, identity)
        if finished := runs.read(run.output).get("finished"):
            print(f"{stage}: done before, {finished['checkpoint']} (--fresh starts over)")
            return 0
        return _attempt(run, identity, checks, lock)


def _follow(run: Plan, fresh: bool) -> int:
    """Train along with machine 0, which holds the lock and writes run.json; the output folder is one that both see."""
    _go_on(run, fresh)
    if status := _run(plan.swift(run.command, run.flags), run.environment):
        raise UserError(f"swift {run.command} ended with status {status} on machine {run.node}; see machine 0")
    print(f"{run.stage}: machine {run.node} of {run.nodes} is done, {run.output}")
    return 0


def _attempt(run: Plan, identity: dict[str, object], checks: Sequence[doctor.Check], lock: IO[str]) -> int:
    """Start ms-swift once, and note in run.json how it went."""
    differs = run.differences()
    for line in _said(run, checks, differs):
        print(line, file=sys.stderr)
    for moved in runs.set_aside(run.output):
        print(f"{run.stage}: half-written checkpoint set aside: {moved}", file=sys.stderr)
    resumed = _go_on(run, fresh=False)
    if resumed:
        print(f"{run.stage}: going on from {resumed}")
    argv = plan.swift(run.command, run.flags)
    note = _note(run, identity, differs) | {"command": argv}
    attempt: dict[str, Any] = {"started": _now(), "resumed_from": str(resumed) if resumed else None}
    note["attempts"] = [*runs.read(run.output).get("attempts", []), attempt]
    files.write_json(run.output / runs.RUN, note)
    watch = cli.Stopwatch()
    status = _run(argv, run.environment, lock)
    attempt |= {"ended": _now(), "status": status, "seconds": round(watch.seconds, 2)}
    final = runs.checkpoints(run.output)
    if status:
        with suppress(OSError):  # a full disk, which ended the run as well, must not have the last word
            files.write_json(run.output / runs.RUN, note)
        raise UserError(_failure(run, status, final))
    files.write_json(run.output / runs.RUN, note)
    if not final:
        raise UserError(f"--output_dir {run.output}: swift {run.command} left no complete checkpoint")
    note["finished"] = {
        "checkpoint": str(final[-1]),
        "seconds": round(sum(one.get("seconds", 0) for one in note["attempts"]), 2),
        "peak_memory_gib": _peak(run.output),
        "result": _result(run.output),
    }
    files.write_json(run.output / runs.RUN, note)
    curves.draw(run.output)
    watch.close(run.stage, f"{final[-1]}", run.rows, "rows")
    return 0


def _failure(run: Plan, status: int, whole: Sequence[Path]) -> str:
    """What became of a run, and what to do."""
    full = doctor.free_bytes(run.output) < doctor.checkpoint_bytes(run)
    room = ", and the disk has no room for another checkpoint" if full else ""
    last = f"{whole[-1]} is whole" if whole else "there is no whole checkpoint"
    again = "goes on from there" if whole else "starts over"
    return f"swift {run.command} ended with status {status}{room}; {last}, the same command {again}"


def _said(run: Plan, checks: Sequence[doctor.Check], differs: dict[str, list[str | None]]) -> Iterator[str]:
    """Warnings, what was changed to fit, and what differs from the paper."""
    yield from (f"warning: {check.text}" for check in checks if check.status == "warning")
    yield from (f"{run.stage}: {note}" for note in run.notes)
    if differs:
        named = ", ".join(f"{name} {old or '-'} -> {new or '-'}" for name, (old, new) in differs.items())
        yield f"{run.stage}: recipe {run.recipe.name}, differs from the paper in {named}"


def _go_on(run: Plan, fresh: bool) -> Path | None:
    """Let the run start from its last complete checkpoint; None where there is none.

    Of a fully tuned Qwen2.5-VL the Trainer restores optimizer and random numbers but not the weights, whose names on
    disk are others than in memory (transformers 5.19): it would go on from the base model, with a line in the log. So
    the checkpoint is loaded as the model, and in reinforcement the base stays the reference.
    """
    saved = runs.checkpoints(run.output) if run.output.is_dir() and not fresh else []
    if "resume_from_checkpoint" in run.user or not saved:
        return None
    run.flags["resume_from_checkpoint"] = [str(saved[-1])]
    if run.one("tuner_type", "lora") == "full":
        if run.stage == "grpo" and float(run.one("beta", "0.04")):
            run.flags.setdefault("ref_model", run.flags["model"])
        run.flags["model"] = [str(saved[-1])]
    return saved[-1]


def _note(run: Plan, identity: dict[str, object], differs: dict[str, list[str | None]]) -> dict[str, Any]:
    """What run.json says of a run, whatever becomes of it."""
    manifest = Path(run.flags["dataset"][0].partition("#")[0]).with_name("manifest.json")
    return {
        "stage": run.stage,
        "identity": identity,
        "recipe": {"name": run.recipe.name, "path": str(run.recipe.path), "sha256": files.sha256(run.recipe.path)},
        "flags": run.flags,
        "environment": {name: run.environment.get(name) for name in ("MAX_PIXELS", *run.recipe.environment)},
        "differs_from_paper": differs,
        "versions": cli.versions("ms-swift", "torch", "transformers", "peft", "trl"),
        "commit": _commit(),
        "data": {"sha256": identity["data_sha256"], "manifest_sha256": _sha256(manifest)},
        "rows": run.rows,
        "processes": run.processes,
        "gpus": [{"name": gpu.name, "memory": gpu.total} for gpu in run.gpus],
        "started": runs.read(run.output).get("started") or _now(),
    }


def _sha256(path: Path) -> str | None:
    return files.sha256(path) if path.is_file() else None


def _commit() -> str | None:
    """The kit's own commit, where it is a checkout or an image."""
    if commit := os.environ.get("VASE_COMMIT"):
        return commit
    command = ["git", "-C", str(cli.ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _peak(output: Path) -> dict[str, float]:
    """Gibibytes: of the largest process, and of the GPU as ms-swift logs it."""
    logged = [float(entry["memory(GiB)"]) for entry in runs.log(output) if "memory(GiB)" in entry]
    host = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"host": round(host, 3)} | ({"gpu": max(logged)} if logged else {})


def _result(output: Path) -> dict[str, float]:
    """The last loss, evaluation loss and reward that were logged."""
    found: dict[str, float] = {}
    for entry in runs.log(output):
        found |= {name: float(entry[name]) for name in ("loss", "eval_loss", "reward") if name in entry}
    return found


@contextmanager
def _alone(output: Path, folder: Path | None = None) -> Iterator[IO[str]]:
    """Hold the lock in `folder`, or in the output folder itself, while writing there.

    ms-swift inherits it: it is held until the last of both has ended, even by kill -9.
    """
    folder = folder or output
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / doctor.LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output_dir {output}: a run goes on there; wait for it, or stop it") from None
        yield lock


def _empty(folder: Path) -> None:
    """Remove everything but the lock that is held."""
    for path in folder.iterdir():
        if path.name != doctor.LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# ---- merging and converting ----


def merge(defaults: Flags, user: Flags) -> int:
    """Merge the newest adapter into its base model; written aside, checked, then renamed."""
    given = defaults | _ALWAYS | user
    flags.check_known("export", given)
    source = Path(given["adapters"][0]).expanduser().absolute()
    adapter = runs.find_adapter(source, "--adapters")
    if adapter is None:
        print(f"merge: nothing to merge, {source} holds a full model and no adapter")
        return 0
    output = Path(given.get("output_dir", [f"{source}-merged"])[0]).expanduser().absolute()
    identity = {"adapter": str(adapter), "sha256": files.sha256(next(adapter.glob("adapter_model.*")))}
    if _done("merge", output, identity):
        return 0
    environment = dict(os.environ)
    seen, _ = doctor.devices(environment)
    base = Path(files.read_json(adapter / "args.json", "--adapters").get("model", ""))
    given = {"torch_dtype": ["bfloat16" if seen and not lengths.is_builtin(base) else "float32"]} | given
    given |= {"adapters": [str(adapter)], "merge_lora": ["true"]}

    def check(made: Path) -> dict[str, Any]:
        if problems := runs.model_problems(made):
            raise UserError(f"swift export wrote no whole model ({problems[0]}); {output} is as it was")
        if not base.is_dir():
            return {"base": str(base), "check": "the base model is no folder"}
        checked = merging.check(base, adapter, made, "cuda:0" if seen else "cpu")
        return {"base": str(base), "check": dataclasses.asdict(checked)}

    _export("merge", given, output, identity, environment, check)
    print(f"merge: {adapter} -> {output}")
    return 0


def hf2megatron(defaults: Flags, user: Flags) -> int:
    """Convert a Hugging Face checkpoint to Megatron's format, or back with --to_hf true --mcore_model FOLDER."""
    given = defaults | _ALWAYS | user
    back = user.get("to_hf", [""])[-1].lower() == "true"
    if back:
        given = {name: values for name, values in given.items() if name in user or name not in ("to_mcore", "model")}
    flags.check_known("export", given)
    environment = dict(os.environ)
    doctor.devices(environment)
    doctor.check_megatron(environment)
    source = given.get("mcore_model", [""])[0] if back else ""
    if back and not Path(source).expanduser().is_dir():
        raise UserError(f"--mcore_model {source}: no such folder; give what model/hf2megatron.sh wrote")
    if "model" in given:
        doctor.check_model(given)
    output = user.get("output_dir", [f"{source}-hf"] if back else given["output_dir"])[0]
    output = Path(output).expanduser().absolute()
    identity = {"flags": {name: values for name, values in given.items() if name != "output_dir"}}
    if _done("hf2megatron", output, identity):
        return 0
    _export("hf2megatron", given, output, identity, environment, lambda made: {})
    print(f"hf2megatron: {source or given['model'][0]} -> {output}")
    return 0


def _done(stage: str, output: Path, identity: dict[str, Any]) -> bool:
    """Whether the folder holds this very result. Raises UserError for a folder of somebody else."""
    before = runs.read(output)
    if output.exists() and any(output.iterdir()) and before.get("stage") != stage:
        raise UserError(f"--output_dir {output}: not empty and not made by {stage}.sh; name another folder")
    doctor.writable(output)
    done = before.get("identity") == identity and bool(before.get("finished"))
    if done:
        print(f"{stage}: done before, {output}")
    return done


def _export(
    stage: str,
    given: Flags,
    output: Path,
    identity: dict[str, Any],
    environment: dict[str, str],
    check: Callable[[Path], dict[str, Any]],
) -> None:
    """Run `swift export` into a folder aside, check what it made, and put it in place of an earlier result.

    The folder always has the same name, so that one that was killed leaves its gigabytes only until the next.
    """
    watch = cli.Stopwatch()
    aside = output.with_name(f".{output.name}.aside")
    with _alone(output, aside) as lock:
        _empty(aside)
        target = aside / "model"
        argv = plan.swift("export", given | {"output_dir": [str(target)], "external_plugins": plan.plugins(given)})
        try:
            if status := _run(argv, environment, lock):
                raise UserError(f"swift export ended with status {status}; {output} is as it was")
            note = {"stage": stage, "identity": identity, "command": argv, "commit": _commit()} | check(target)
            finished = {"checkpoint": str(output), "seconds": round(watch.seconds, 2)}
            files.write_json(target / runs.RUN, note | {"finished": finished})
            if output.exists():
                output.rename(aside / "old")
            target.rename(output)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


STAGES: dict[str, Callable[[Flags, Flags], int]] = {
    "sft": sft,
    "grpo": grpo,
    "merge": merge,
    "hf2megatron": hf2megatron,
}


# ---- the process ----


def _run(argv: list[str], environment: dict[str, str], lock: IO[str] | None = None) -> int:
    """Run and wait; Ctrl-C and SIGTERM reach ms-swift, which gets time to end by itself."""
    kept_open = (lock.fileno(),) if lock else ()
    process = subprocess.Popen(argv, env=environment, start_new_session=True, pass_fds=kept_open)

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
