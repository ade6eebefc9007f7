"""Rows checked per second and memory at the peak: `python bench/validate.py [--rows 100000]`.

Makes a file of rows with a picture each in a temporary folder: 300 small JPEGs, the rest hard links to them, so that
every row names a file of its own. Questions repeat, answers differ. The page cache is warm.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from vasekit import builtin, cli, doctor, validation

PICTURES = 300
ASKED = ("fabric", "technique", "shape name", "date", "attribution", "decoration")
WORDS = "Athenian black-figure red-figure lekythos kylix amphora Herakles boar Athena satyr maenad chariot youth c. BCE"


def pictures(folder: Path, rows: int) -> None:
    folder.mkdir()
    draw = random.Random(7)
    for number in range(rows):
        target = folder / f"{number}_1_ac001001.jpg"
        if number < PICTURES:
            Image.new("RGB", (draw.randint(80, 640), draw.randint(80, 640)), "white").save(target)
        else:
            os.link(folder / f"{number % PICTURES}_1_ac001001.jpg", target)


def rows(count: int) -> Iterator[str]:
    draw = random.Random(7)
    for number in range(count):
        question = {"role": "user", "content": f"<image>What is the {ASKED[number % len(ASKED)]} of the vase?"}
        answer = {"role": "assistant", "content": " ".join(draw.choices(WORDS.split(), k=20))}
        image = f"photos/{number}_1_ac001001.jpg"
        yield json.dumps({"messages": [question, answer], "images": [image], "vase": str(number)})


def main() -> int:
    parser = cli.Parser(__doc__)
    parser.add_argument("--rows", type=cli.positive_int, default=100_000, help="rows of the file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder / "photos", args.rows)
        with (folder / "data.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(f"{row}\n" for row in rows(args.rows))
        size = (folder / "data.jsonl").stat().st_size / 2**20
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        started = time.perf_counter()
        settings = doctor.settings({"model": [str(builtin.VLM)], "max_length": ["4096"]}, {}, reward=False)
        report = validation.check([folder / "data.jsonl"], settings)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert not report.problems, validation.lines(report.problems)
    print(f"{args.rows:,} rows ({size:.0f} MiB), a file each: {seconds:.1f} s, {args.rows / seconds:,.0f} rows/s on")
    print(f"{os.cpu_count()} cores; memory {peak:,.0f} MiB at the peak, {before:,.0f} MiB before; tokens", end=" ")
    print(json.dumps(report.files[0]["tokens"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
