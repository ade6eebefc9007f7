"""Which vase a photograph shows, and which view of it: from its name, its folder, or a table."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from vasekit import cli, files, images
from vasekit.cli import UserError
from vasekit.images import View

Reader = Callable[[str], View]
# auto: the published names, else VASE_VIEW. folder: one folder per vase, the file name is the view.
PRESETS = ("auto", "published", "name", "folder")
COLUMNS = ("filename", "vase", "view")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--view_pattern and --views."""
    group = parser.add_mutually_exclusive_group()
    presets = ", ".join(PRESETS)
    group.add_argument(
        "--view_pattern",
        default="auto",
        help=f"how names tell vase and view: {presets}, or a regular expression with groups (?P<vase>) and (?P<view>)",
    )
    group.add_argument("--views", type=cli.user_path, help="CSV with the columns filename, vase, view")


def reader(args: argparse.Namespace) -> Reader:
    """What maps a file name below the input folder to its View. Raises UserError for what can't be one."""
    return from_table(args.views) if args.views else from_pattern(args.view_pattern)


def from_pattern(pattern: str) -> Reader:
    """A preset's name, or a regular expression that the name without its suffix matches as a whole."""
    if pattern == "auto":
        return images.parse_name
    if pattern == "folder":
        return _from_folder
    if pattern in ("published", "name"):
        return _matcher(images.PUBLISHED if pattern == "published" else images.GENERAL)
    try:
        expression = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UserError(
            f"--view_pattern {pattern}: no regular expression ({error}); presets: {', '.join(PRESETS)}"
        ) from None
    if not {"vase", "view"} <= expression.groupindex.keys():
        raise UserError(
            f"--view_pattern {pattern}: needs the groups (?P<vase>...) and (?P<view>...), or a preset:"
            f" {', '.join(PRESETS)}"
        )
    return _matcher(expression)


def _matcher(expression: re.Pattern[str]) -> Reader:
    def read(name: str) -> View:
        stem = Path(name).stem
        # With a slash in it the pattern speaks of the folders too.
        whole = str(Path(name).with_suffix("")) if "/" in expression.pattern else stem
        match = expression.fullmatch(whole)
        return View(match["vase"], match["view"] or "") if match else View(stem, "", matched=False)

    return read


def _from_folder(name: str) -> View:
    path = Path(name)
    folder = path.parent.as_posix()
    return View(path.stem, "", matched=False) if folder == "." else View(folder, path.stem)


def from_table(path: Path) -> Reader:
    """A CSV with the columns filename (below the input folder, or the name alone), vase and view."""
    known: dict[str, View] = {}
    for line, row in files.read_csv(path, "--views", COLUMNS):
        name, vase, view = (cell.strip() for cell in row)
        if not name or not vase:
            raise UserError(f"--views {path}, line {line}: needs a file name and a vase")
        if known.setdefault(Path(name).as_posix(), View(vase, view)) != View(vase, view):
            raise UserError(f"--views {path}, line {line}: {name} is named twice, for different views")

    def read(name: str) -> View:
        return known.get(name) or known.get(Path(name).name) or View(Path(name).stem, "", matched=False)

    return read
