"""What every entry point shares: one-line errors, exit statuses, paths, the closing line."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Where the stages read and write by default: the repository, or another folder (in a container, what is mounted there).
HOME = Path(os.environ.get("VASE_HOME") or ROOT).expanduser().absolute()


class UserError(Exception):
    """Something the person at the keyboard can mend: the message says what was given, what is allowed, what to do."""


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call an entry point's `main` and turn its outcome into an exit status: 2 for bad input, 130 for Ctrl-C."""
    try:
        return main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was kept; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno is None:
            raise
        print(f"error: {error.strerror}: {error.filename or 'no file named'}", file=sys.stderr)
        return 2


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse with the kit's habits: defaults shown in --help, no abbreviated flags, one-line errors."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=_Help, allow_abbrev=False)

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def positive_int(text: str) -> int:
    """argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} given, needs at least 1")
    return value


def share(text: str) -> float:
    """argparse type: a share, 0 < value <= 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{value} given, needs a share above 0 and at most 1")
    return value


def user_path(text: str) -> Path:
    """argparse type: a path that a person typed, relative to where they stand."""
    return Path(text).expanduser().absolute()


def default_path(relative: str) -> Path:
    """A documented default, relative to HOME wherever the command was started.

    Links are followed: a stage that replaces a folder as a whole shall replace what lies behind the link.
    """
    return (HOME / relative).resolve()


def need_dir(path: Path, flag: str) -> Path:
    """The folder itself, or a UserError that names the flag to change."""
    if not path.exists():
        raise UserError(f"{flag} {path}: no such folder; give an existing one with {flag}")
    if not path.is_dir():
        raise UserError(f"{flag} {path}: is a file, needs a folder")
    return path


def need_file(path: Path, flag: str) -> Path:
    """The file itself, or a UserError that names the flag to change."""
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file; give an existing one with {flag}")
    return path


def need_apart(source: Path, target: Path, flags: str) -> None:
    """Refuse an output folder inside the input folder or around it: the next run would read or remove the wrong one."""
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise UserError(f"{flags}: {source} and {target} lie in each other; name folders apart")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as they go into a report."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of `packages` and of Python, for a report; read without importing them."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


class Stopwatch:
    """Times a stage and prints its closing line."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def close(self, stage: str, what: str, count: int, unit: str) -> float:
        """Print `stage: what, N unit in S s (N/S unit/s)`; return the seconds."""
        seconds = self.seconds
        print(f"{stage}: {what}; {count:,} {unit} in {seconds:.1f} s ({count / max(seconds, 1e-9):.1f} {unit}/s)")
        return seconds
