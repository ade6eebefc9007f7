"""Render a small world of vases: photographs, records and truth, as a museum would deliver them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Tiny matrix products gain nothing from threads; the photographs are spread over processes instead.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, files  # noqa: E402


def parse(argv: Sequence[str] | None) -> dict:
    """The flags as a dictionary."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--output", type=cli.user_path, required=True, help="folder to write")
    parser.add_argument("--vases", type=cli.positive_int, default=100, help="vases in the collection, at most 50000")
    parser.add_argument("--seed", type=int, default=1, help="number of the world, 0 to 8999; worlds share no vase")
    parser.add_argument("--views", type=int, default=7, choices=range(1, 8), help="photographs of each whole vase")
    parser.add_argument("--size", type=cli.positive_int, default=224, help="width and height in pixels, at least 32")
    parser.add_argument("--labelled", type=int, default=0, help="size of a hand-sorted sample in labelled/{0,1}")
    parser.add_argument("--turntable", type=int, default=0, help="frames of one turn per whole vase, in turntable/")
    return vars(parser.parse_args(argv))


def check(flags: dict) -> None:
    """Refuse what would break later on."""
    from vasekit.synth import world

    if not 0 <= flags["seed"] < world.RESERVED:
        raise cli.UserError(f"--seed {flags['seed']}: worlds go from 0 to {world.RESERVED - 1}")
    for name in ("vases", "labelled"):
        if not 0 <= flags[name] <= world.WORLD_SIZE // 2:
            raise cli.UserError(f"--{name} {flags[name]}: at most {world.WORLD_SIZE // 2} in one world")
    if flags["size"] < 32 or flags["turntable"] < 0:
        raise cli.UserError(f"--size {flags['size']} --turntable {flags['turntable']}: at least 32 pixels and 0 frames")


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse(argv)
    check(flags)
    from vasekit.synth import world

    output = flags.pop("output")
    report = output / "world.json"
    if report.is_file():
        if files.read_json(report, "--output")["settings"] == flags:
            print(f"world: {output} holds this world already")
            return 0
        raise cli.UserError(f"--output {output}: holds a world with other settings; remove it or name another folder")
    if output.exists() and any(output.iterdir()):
        raise cli.UserError(f"--output {output}: not empty and not a world; name a new folder")
    watch = cli.Stopwatch()
    with files.staging_dir(output) as stage:
        counts = world.deliver(
            flags["seed"], flags["vases"], flags["views"], flags["labelled"], flags["turntable"], flags["size"], stage
        )
        photos = sum(counts.values()) + flags["labelled"] + counts["whole"] // flags["views"] * flags["turntable"]
        summary = {"settings": flags, "counts": dict(counts), "photographs": photos, "seconds": round(watch.seconds, 2)}
        files.write_json(stage / "world.json", summary)
    watch.close("world", f"{flags['vases']:,} vases in {output}", photos, "photographs")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
