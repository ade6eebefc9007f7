"""What a run will be: the recipe, the user's flags on top, and what the machine and the model make necessary."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vasekit import cli, flags, lengths, recipes
from vasekit.cli import UserError
from vasekit.flags import Flags
from vasekit.gpus import Gpu
from vasekit.recipes import Recipe

# Stage -> command of `swift`.
COMMANDS = {"sft": "sft", "grpo": "rlhf"}
# None of these changes what is learned: a run may be started again with others.
_INCIDENTAL = {"output_dir", "report_to", "logging_steps", "dataloader_num_workers", "dataset_num_proc", "use_cpu"}
_INCIDENTAL |= {"save_total_limit", "resume_from_checkpoint", "ddp_timeout"}
# Seconds that processes wait for one that does not answer (ms-swift's own default is 208 days).
_PATIENCE = "7200"
# The vase reward, and what makes the template right for every tokenizer.
PLUGIN = cli.ROOT / "plugin" / "plugin.py"
# Flag and value -> the package it needs, and what to do without; None: the run can't do without.
_NEEDS = (
    ("attn_impl", "flash", "flash_attn", {"attn_impl": "sdpa", "padding_free": "false", "packing": "false"}),
    ("use_liger_kernel", "true", "liger_kernel", {"use_liger_kernel": "false"}),
    ("use_vllm", "true", "vllm", None),
    ("deepspeed", "", "deepspeed", None),
)


@dataclass
class Plan:
    """A run before it is started. notes: what was changed to fit; longest: of the rows, in tokens; forced: --force."""

    stage: str
    recipe: Recipe
    flags: Flags
    user: Flags
    environment: dict[str, str]
    gpus: list[Gpu] = field(default_factory=list)
    processes: int = 1
    rows: int = 0
    longest: int = 0
    forced: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        return COMMANDS[self.stage]

    @property
    def output(self) -> Path:
        return Path(self.one("output_dir"))

    @property
    def nodes(self) -> int:
        """Machines that train together."""
        return int(self.environment.get("NNODES", "1"))

    @property
    def node(self) -> int:
        """This machine's number among them; number 0 keeps the run's notes."""
        return int(self.environment.get("NODE_RANK", "0")) if self.nodes > 1 else 0

    def one(self, name: str, default: str = "") -> str:
        return one(self.flags, name, default)

    def is_on(self, name: str) -> bool:
        return self.flags.get(name, [""])[-1].lower() == "true"

    def differences(self) -> dict[str, list[str | None]]:
        """From the paper's recipe."""
        return recipes.differences(self.flags, self.environment, recipes.load(self.stage, recipes.PAPER))


def one(given: Flags, name: str, default: str = "") -> str:
    """The value of a flag. Raises UserError where it has none or several."""
    values = given.get(name) or ([default] if default else [])
    if len(values) != 1:
        raise UserError(f"--{name}: needs one value, got {' '.join(values) or 'none'}")
    return values[0]


def plugins(given: Flags) -> list[str]:
    """--external_plugins with the kit's before all others: a flag or a recipe of one's own must not lose it."""
    others = [name for name in given.get("external_plugins", []) if Path(name).expanduser().resolve() != PLUGIN]
    return [str(PLUGIN), *others]


def draft(stage: str, recipe: str, user: Flags, environment: Mapping[str, str]) -> Plan:
    """The recipe with the user's flags on top; variables that are set count more than the recipe's."""
    found = recipes.load(stage, recipe)
    given = {name: list(values) for name, values in (found.flags | user).items()}
    given["external_plugins"] = plugins(given)
    variables = found.environment | dict(environment)
    # nvidia-smi's numbering, by which the checks go, shall be CUDA's too.
    variables.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if report := environment.get("REPORT_TO"):
        given["report_to"] = user.get("report_to", report.replace(",", " ").split())
    if "output_dir" in user:
        given["output_dir"] = [str(Path(user["output_dir"][0]).expanduser().absolute())] if user["output_dir"] else []
    return Plan(stage, found, given, user, variables)


def fit(plan: Plan) -> None:
    """What machine and model make necessary, once both are known; a flag of the user's own stays."""
    fitting = _for_packages(plan)
    if not plan.gpus:
        fitting |= _for_cpu(plan)
    if lengths.is_builtin(Path(plan.one("model"))):
        # Larger pictures than these the built-in model, and what was made from it, never learned to read.
        plan.environment["MAX_PIXELS"] = lengths.BUILTIN_PIXELS
        fitting["torch_dtype"] = "float32"
    if plan.processes * plan.nodes > 1:
        fitting |= {"ddp_timeout": _PATIENCE}
    plan.flags |= {name: [value] for name, value in fitting.items() if name not in plan.user}
    own_port(plan.processes, plan.environment)


def _for_packages(plan: Plan) -> dict[str, str]:
    """What to leave out where a package is not installed. Raises UserError where nothing else will do."""
    fitting: dict[str, str] = {}
    for name, value, package, without in _NEEDS:
        given = plan.flags.get(name, [""])[-1]
        wanted = given.lower().startswith(value) if value else bool(given)
        if not wanted or importlib.util.find_spec(package):
            continue
        if without is None or name in plan.user:
            raise UserError(
                f"--{name} {given}: needs the package {package}, which is not installed; add it or leave the flag out"
            )
        fitting |= {flag: new for flag, new in without.items() if flag in plan.flags}
        plan.notes.append(f"{package} is not installed: without {name.replace('_', ' ')}")
    return fitting


def _for_cpu(plan: Plan) -> dict[str, str]:
    """Without the backend each of several processes would train alone."""
    plan.environment["ACCELERATE_USE_CPU"] = "true"
    threads = max(1, (os.cpu_count() or 1) // plan.processes)
    plan.environment.setdefault("OMP_NUM_THREADS", str(threads))
    several = {"ddp_backend": "gloo"} if plan.processes * plan.nodes > 1 else {}
    return {"use_cpu": "true", "torch_dtype": "float32", **several}


def own_port(processes: int, environment: dict[str, str]) -> None:
    """A free port for this run's processes to meet on: two runs on one machine can't share torchrun's default."""
    if processes > 1 and environment.get("NNODES", "1") == "1" and "MASTER_PORT" not in environment:
        with socket.socket() as probe:
            probe.bind(("", 0))
            environment["MASTER_PORT"] = str(probe.getsockname()[1])


def identity(plan: Plan) -> dict[str, object]:
    """What makes two runs the same: every flag that bears on the result, the pixels, and the bytes of the data."""
    digest = hashlib.sha256()
    for name in plan.flags["dataset"]:
        digest.update(Path(name.partition("#")[0]).read_bytes())
    kept = {name: values for name, values in plan.flags.items() if name not in _INCIDENTAL}
    return kept | {"MAX_PIXELS": plan.environment.get("MAX_PIXELS"), "data_sha256": digest.hexdigest()}


def swift(command: str, given: Flags) -> list[str]:
    """The command line."""
    beside = Path(sys.executable).with_name("swift")
    program = str(beside) if beside.is_file() else shutil.which("swift")
    if program is None:
        raise UserError("swift is not installed; run `make setup`, or install requirements/base.txt")
    return [program, command, *flags.render(given)]


def shown(plan: Plan) -> str:
    """The final command, with the variables that the recipe and the checks set."""
    names = [*plan.recipe.environment, "ROOT_IMAGE_DIR", "MASTER_PORT"]
    variables = [f"{name}={plan.environment[name]}" for name in dict.fromkeys(names) if name in plan.environment]
    return shlex.join([*variables, *swift(plan.command, plan.flags)])
