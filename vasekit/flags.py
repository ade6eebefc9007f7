"""ms-swift's flags: a table of those that the pinned version knows, and the command line as a mapping.

`python -m vasekit.flags` writes the table again after a change of version; a test compares it with what is installed.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vasekit.cli import UserError

TABLE = Path(__file__).with_name("swift_flags.json")
# What ms-swift 4 calls a flag that documents and older versions call otherwise.
ALIASES = {"train_type": "tuner_type"}

Flags = dict[str, list[str]]


def parse(words: Sequence[str]) -> Flags:
    """`--name value ...` pairs in order; a later flag replaces an earlier one. Raises UserError on a stray word."""
    flags: Flags = {}
    name = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, _, value = word[2:].partition("=")
            name = ALIASES.get(name, name)
            flags.pop(name, None)
            flags[name] = [value] if value else []
        elif name:
            flags[name].append(word)
        else:
            raise UserError(f"{word}: flags look like --name value")
    return flags


def render(flags: Flags) -> list[str]:
    """The mapping as a command line again."""
    return [word for name, values in flags.items() for word in (f"--{name}", *values)]


def table() -> dict[str, Any]:
    """What the pinned ms-swift knows: version, flags by command, choices by flag, rewards."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def check_known(command: str, flags: Flags) -> dict[str, Any]:
    """Refuse a flag that `swift COMMAND` does not have, or a value that it has no choice of: it would say so itself,
    half a minute later. Returns the table.
    """
    known = table()
    for name, values in flags.items():
        if name not in known[command]:
            near = _nearest(name, known[command])
            hint = f"; did you mean --{near}?" if near else ""
            raise UserError(f"--{name}: swift {command} of ms-swift {known['version']} has no such flag{hint}")
        choices = known["choices"].get(name)
        if choices and (wrong := [value for value in values if value not in choices]):
            raise UserError(f"--{name} {wrong[0]}: there are {', '.join(choices)}")
        if not values:
            raise UserError(f"--{name}: needs a value")
    return known


def _nearest(name: str, known: Sequence[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, known, 1)), None)


def installed() -> dict[str, Any]:
    """The table of the installed ms-swift (imports it: some ten seconds)."""
    from dataclasses import fields
    from importlib.metadata import version

    from swift.arguments import ExportArguments, InferArguments, RLHFArguments, SftArguments
    from swift.rewards import orms

    classes = {"sft": SftArguments, "rlhf": RLHFArguments, "export": ExportArguments, "infer": InferArguments}
    names = {command: sorted(f.name for f in fields(kind) if f.init) for command, kind in classes.items()}
    hints = typing.get_type_hints(RLHFArguments)
    choices = {f.name: found for f in fields(RLHFArguments) if f.init and (found := _literals(hints[f.name]))}
    rewards = sorted(name for name in orms if name != "external_vase_acc" and not name.startswith("vase_"))
    return {"version": version("ms-swift"), **names, "choices": dict(sorted(choices.items())), "rewards": rewards}


def _literals(kind: object) -> list[str]:
    """The choices of a Literal, or of an optional one."""
    inner = [part for part in typing.get_args(kind) if part is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return [str(part) for part in inner]
    return _literals(inner[0]) if typing.get_origin(kind) is typing.Union and len(inner) == 1 else []


if __name__ == "__main__":
    from vasekit.files import write_json

    write_json(TABLE, installed())
    sys.exit(0)
