"""overrides.csv: what a person decided on the review page."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vasekit import files
from vasekit.cli import UserError

COLUMNS = ("filename", "decision")
DECISIONS = {"quality": ("accept", "reject"), "views": ("best",)}


def read_overrides(path: Path, flag: str, stage: str, known: Collection[str]) -> dict[str, str]:
    """The decision for each file name.

    known: the names that there are. Raises UserError for a file that is not as the page writes it.
    """
    names, allowed = frozenset(known), DECISIONS[stage]
    decisions: dict[str, str] = {}
    for line, row in files.read_csv(path, flag, COLUMNS):
        where = f"{flag} {path}, line {line}"
        name, decision = row[0], row[1].strip().lower()
        if decision not in allowed:
            raise UserError(f"{where}: decision {row[1]!r}, here it is {' or '.join(allowed)}; mend or remove the line")
        if name not in names:
            raise UserError(
                f"{where}: no image {name!r} in the input folder; write its path below it, or remove the line"
            )
        if decisions.setdefault(name, decision) != decision:
            raise UserError(f"{where}: {name!r} was decided otherwise further up; keep one of the two lines")
    return decisions
