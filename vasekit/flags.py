"""ms-swift's flags: a table of those that the pinned version knows, and the command line as a mapping.

`python -m vasekit.flags` writes the table again after a change of version; a test compares it with what is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

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


def check_known(command: str, flags: Flags) -> None:
    """Refuse a flag that `swift COMMAND` does not have: it would say so itself, half a minute later."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    for name in flags:
        if name not in table[command]:
            near = _nearest(name, table[command])
            hint = f"; did you mean --{near}?" if near else ""
            raise UserError(f"--{name}: swift {command} of ms-swift {table['version']} has no such flag{hint}")


def _nearest(name: str, known: Sequence[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, known, 1)), None)


def installed() -> dict[str, list[str] | str]:
    """The table of the installed ms-swift (imports it: some ten seconds)."""
    from dataclasses import fields
    from importlib.metadata import version

    from swift.arguments import ExportArguments, InferArguments, RLHFArguments, SftArguments

    classes = {"sft": SftArguments, "rlhf": RLHFArguments, "export": ExportArguments, "infer": InferArguments}
    names = {command: sorted(f.name for f in fields(kind) if f.init) for command, kind in classes.items()}
    return {"version": version("ms-swift"), **names}


if __name__ == "__main__":
    from vasekit.files import write_json

    write_json(TABLE, installed())
    sys.exit(0)
