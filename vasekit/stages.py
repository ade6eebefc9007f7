"""What the filter's stages share: flags, when a result is up to date, errors as a third outcome."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vasekit import cli, devices, files, pipeline, scores
from vasekit.cli import ROOT, UserError
from vasekit.scores import Stamp

# None of these bears on a result: a run may be repeated with others.
_INCIDENTAL = {"batch_size", "workers", "device", "gpu", "auto_select_device", "strict", "yes", "dry_run", "scores"}
_CODE = ("vasekit/*.py", "vasekit/*.yaml", "vasekit/review/*", "filter/*.py")
ERRORS = "errors/errors.csv"


def add_flags(parser: argparse.ArgumentParser, batch_size: int, gpu: int | None = None) -> None:
    """Flags of every stage that scores photographs."""
    add = parser.add_argument
    add("--batch_size", type=cli.positive_int, default=batch_size, help="images scored at a time")
    add("--workers", type=cli.positive_int, default=pipeline.DEFAULT_WORKERS, help="threads that decode")
    add("--scores", type=cli.user_path, default=cli.default_path(scores.FOLDER), help="the score table")
    add("--link", choices=("copy", "hard", "sym"), default="copy", help="how files get into the output folder")
    add("--strict", action="store_true", help="exit status 3 when an image can't be read")
    add("--yes", action="store_true", help="replace an earlier result without asking")
    add("--dry_run", action="store_true", help="score and say what would happen; write nothing but scores")
    devices.add_flags(parser, gpu)


def fingerprint(args: argparse.Namespace, paths: Sequence[Path], **more: Any) -> str:
    """What a result depends on: the input files as they are, the settings, the files named in them, the code.

    more: what the flags stand for beyond their words, JSON-ready, such as the weights of a local model.
    """
    settings = {name: value for name, value in cli.settings(args).items() if name not in _INCIDENTAL}
    named = [Path(str(value)) for value in settings.values()]
    contents = {str(path): files.sha256(path) for path in named if path.is_file()}
    digest = hashlib.sha256(json.dumps([settings, contents, more], sort_keys=True, default=str).encode())
    for path in sorted(path for pattern in _CODE for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(path.read_bytes())
    for path in paths:
        stamp = Stamp.of(path)
        digest.update(f"{stamp.path}\0{stamp.bytes}\0{stamp.mtime_ns}\n".encode())
    return digest.hexdigest()


def unchanged(report: Path, key: str, placed: Callable[[dict], Iterable[Path]]) -> dict | None:
    """The report of an earlier run with the same fingerprint, if all the files that it `placed` are still there."""
    if not report.is_file():
        return None
    found = files.read_json(report, "--output_dir")
    current = found.get("fingerprint") == key and all(path.exists() for path in placed(found))
    return found if current else None


def may_replace(args: argparse.Namespace, report: Path, flag: str) -> None:
    """On a terminal, ask before an earlier result is replaced. Raises UserError when the answer is no."""
    if report.exists() and not (args.yes or args.dry_run) and sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{report.parent} holds an earlier result; replace it? [y/N] ", end="", file=sys.stderr, flush=True)
        if input().strip().lower() not in ("y", "yes"):
            raise UserError(f"{flag} {report.parent}: left as it is; name another folder, or say --yes")


def write_errors(folder: Path, errors: Sequence[Mapping[str, str]]) -> None:
    """The list of files that could not be read, with the reason of each; no file when there are none."""
    if errors:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("filename", "reason"), *((row["filename"], row["reason"]) for row in errors)])
        files.write_text(folder / ERRORS, text.getvalue())


def finish(stage: str, what: str, report: Mapping[str, Any], args: argparse.Namespace, watch: cli.Stopwatch) -> int:
    """Print the closing line, and a warning for unreadable images; return the exit status."""
    watch.close(stage, what, report["total_images"], "images")
    if not report["errors"]:
        return 0
    first = report["errors"][0]
    named = f"{first['filename']}: {first['reason']}"
    print(f"warning: {len(report['errors']):,} images can't be read, among them {named}", file=sys.stderr)
    return 3 if args.strict else 0
