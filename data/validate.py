"""Check training files before time is spent: rows, images, tags, token lengths, targets, leakage. Decodes no picture.

model/sft.sh and model/grpo.sh make the same check when they start. Exit status 2 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, doctor, lengths, validation

# As in model/sft.sh and model/grpo.sh.
MAX_PIXELS, MAX_COMPLETION_LENGTH = "1003520", "256"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("files", nargs="+", type=cli.user_path, metavar="FILE", help=".json (a list of rows) or .jsonl")
    add("--model", default=str(cli.default_path("models/Qwen2.5-VL-7B-Instruct")), help="folder, or builtin")
    add("--max_length", type=cli.positive_int, default=4096, help="most tokens of a row; of a prompt with --reward")
    add("--system", default=lengths.SYSTEM, help="what the training uses: text, or a .txt file")
    add("--reward", action="store_true", help="rows for reinforcement: a target in 'solution', the answer left out")
    add("--against", nargs="+", type=cli.user_path, default=[], metavar="FILE", help="files to share no vase with")
    add("--json", action="store_true", help="print everything that was found as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    watch = cli.Stopwatch()
    flags = {"model": [args.model], "system": [args.system], "max_length": [str(args.max_length)]}
    flags["max_completion_length"] = [MAX_COMPLETION_LENGTH]
    doctor.check_model(flags)
    environment = {"MAX_PIXELS": MAX_PIXELS} | os.environ
    settings = doctor.settings(flags, environment, args.reward)
    report = validation.check(args.files, settings, args.against)
    if args.json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
        return 2 if report.problems else 0
    for word, findings in (("error", report.problems), ("warning", report.warnings)):
        for line in validation.lines(findings):
            print(f"{word}: {line}", file=sys.stderr)
    watch.close("validate", summary(report), sum(file["rows"] for file in report.files), "rows")
    return 2 if report.problems else 0


def summary(report: validation.Report) -> str:
    lengths = [file["tokens"] for file in report.files if file["tokens"]]
    reach = f"{min(t['min'] for t in lengths):,} to {max(t['max'] for t in lengths):,}" if lengths else "no"
    images = sum(file["images"] for file in report.files)
    found = f"{len(report.problems):,} errors, {len(report.warnings):,} warnings"
    return f"{found}; {images:,} images, {reach} tokens a row"


if __name__ == "__main__":
    sys.exit(cli.run(main))
