"""Recipes: a YAML file per intent in model/recipes/, in the form that `swift` itself reads, `ENV:` for variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vasekit.cli import HOME, ROOT, UserError
from vasekit.flags import Flags

FOLDER = ROOT / "model" / "recipes"
PAPER = "paper"
# Flags whose values are paths: in a recipe they are relative to the repository's root.
PATHS = ("model", "ref_model", "dataset", "val_dataset", "output_dir", "external_plugins", "system")
# What lies in these folders is the user's, and stays where the stages read and write (cli.HOME).
_AT_HOME = ("models", "output", "data")
# Where a run reads and writes, and what it says meanwhile, is no difference to the paper.
_INCIDENTAL = {*PATHS, "report_to", "logging_steps", "dataloader_num_workers", "use_cpu", "ddp_backend", "ddp_timeout"}


@dataclass(frozen=True)
class Recipe:
    """Flags and variables of a run; paths are whole."""

    name: str
    path: Path
    flags: Flags
    environment: dict[str, str]


def names(stage: str) -> list[str]:
    """The recipes there are for a stage."""
    found = [path.stem.removeprefix(f"{stage}-") for path in FOLDER.glob(f"{stage}-*.yaml")]
    return sorted([*found, *(path.stem.removesuffix(f"-{stage}") for path in FOLDER.glob(f"*-{stage}.yaml"))])


def load(stage: str, name: str) -> Recipe:
    """The recipe of that name, or in that YAML file. Raises UserError for another."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser().absolute()
        if not path.is_file():
            raise UserError(f"--recipe {name}: no such file; give one, or {', '.join(names(stage))}")
    else:
        paths = [FOLDER / f"{stage}-{name}.yaml", FOLDER / f"{name}-{stage}.yaml"]
        path = next((path for path in paths if path.is_file()), paths[0])
        if not path.is_file():
            raise UserError(f"--recipe {name}: there are {', '.join(names(stage))} for {stage}, or a .yaml file")
    return _read(name, path)


def _read(name: str, path: Path) -> Recipe:
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--recipe {path}: not valid YAML ({' '.join(str(error).split())})") from None
    environment = loaded.pop("ENV", None) or {} if isinstance(loaded, dict) else None
    if not isinstance(environment, dict):
        raise UserError(f"--recipe {path}: needs flags as NAME: VALUE, and variables below ENV:")
    flags = {str(flag): _words(value) for flag, value in loaded.items()}
    for flag in PATHS:
        flags |= {flag: [_whole(value) for value in flags[flag]]} if flag in flags else {}
    return Recipe(name, path, flags, {str(key): _words(value)[0] for key, value in environment.items()})


def _words(value: object) -> list[str]:
    """As `swift` puts them on its command line."""
    if isinstance(value, list):
        return [word for item in value for word in _words(item)]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def _whole(value: str) -> str:
    """A path below the root or the home; a name on the hub, which does not exist there, stays as it is."""
    if value.split("/")[0] in _AT_HOME:
        return str(HOME / value)
    on_hub = value.count("/") == 1 and not (ROOT / value).exists()
    return value if on_hub else str(ROOT / value)


def differences(flags: Flags, environment: Mapping[str, str], paper: Recipe) -> dict[str, list[str | None]]:
    """Flag or variable -> [the paper's value, ours], where they differ; None: not given. The model counts by name."""
    ours, theirs = (
        {
            **{name: " ".join(values) for name, values in given.items() if name not in _INCIDENTAL},
            "MAX_PIXELS": variables.get("MAX_PIXELS"),
        }
        for given, variables in ((flags, environment), (paper.flags, paper.environment))
    )
    names = dict.fromkeys([*theirs, *ours])
    return {name: [theirs.get(name), ours.get(name)] for name in names if not _same(theirs.get(name), ours.get(name))}


def _same(one: str | None, other: str | None) -> bool:
    try:
        return float(one) == float(other)  # 1e-4 and 0.0001
    except (TypeError, ValueError):
        return one == other
