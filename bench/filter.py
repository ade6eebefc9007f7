"""How fast photographs are scored, as ratios within one run: `python bench/filter.py [--images 192] [--device cpu]`.

naive: one picture at a time, float32, decoded on the main thread, as the published script does. ours: filter/'s own
path. The limit is what the forward pass alone and decoding alone allow together: their sum where both need the same
cores, the slower of the two where the model has a GPU. Weights are random: speed does not depend on them.
`--memory` compares the peak memory of 2,000 and 20,000 images instead.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, clip, devices, filtering, images, pipeline
from vasekit.synth import world

MODEL = "ViT-B-32-quickgelu"
SIDES = (500, 2400)


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("--images", type=cli.positive_int, default=192, help="photographs of each size")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--precision", choices=clip.PRECISIONS, default="auto", help="as of filter/clipfilter1.py")
    parser.add_argument("--batch_size", type=cli.positive_int, default=64, help="of ours and of the forward pass")
    parser.add_argument("--memory", action="store_true", help="measure memory, with the built-in model")
    parser.add_argument("--peak", type=cli.positive_int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.peak:
            print(peak(Path(folder), args.peak))
        elif args.memory:
            memory()
        else:
            speed(Path(folder), args)
    return 0


def speed(folder: Path, args: argparse.Namespace) -> None:
    precision = devices.fast_precision(args.device) if args.precision == "auto" else args.precision
    weights = save_random(folder / "weights.pt")
    exact = clip.Scorer(MODEL, str(weights), None, "fp32")
    fast = clip.Scorer(MODEL, str(weights), None, precision, draft=args.precision == "auto")
    print(f"{MODEL} on {args.device}, {precision}, batch {args.batch_size}, {os.cpu_count()} cores; images/s")
    print("side   naive    ours   x  | forward  decode/thread   limit   share of it")
    for side in SIDES:
        paths = photographs(folder / str(side), args.images, side)
        slow = rate(lambda paths=paths: naive(exact, paths[: max(8, len(paths) // 8)], args.device))
        encoder = fast.open(args.device)
        forward = rate(lambda encoder=encoder: forwards(encoder, args.batch_size))
        decode = rate(lambda paths=paths, encoder=encoder: decodes(encoder, paths[: max(8, len(paths) // 8)]))
        table = folder / f"table{side}"
        ours = rate(lambda paths=paths, table=table: score(fast, paths, table, args))
        cores = os.cpu_count() or 1
        limit = 1 / (1 / forward + 1 / (decode * cores)) if args.device == "cpu" else min(forward, decode * cores)
        print(
            f"{side:4} {slow:7.1f} {ours:7.1f} {ours / slow:4.1f} | {forward:7.1f} {decode:14.1f} {limit:7.1f}"
            f" {ours / limit:8.2f}",
            flush=True,
        )


def rate(work: Callable[[], int]) -> float:
    """Items per second of `work`, which returns how many it did."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def naive(scorer: clip.Scorer, paths: list[Path], device: str) -> int:
    encoder = scorer.open(device)
    for path in paths:
        encoder(encoder.prepare(images.read(path))[None])
    return len(paths)


def forwards(encoder: clip.Encoder, batch_size: int) -> int:
    batch = np.stack([encoder.prepare(Image.new("RGB", (300, 300)))] * batch_size)
    encoder(batch[:2])
    for _ in range(3):
        encoder(batch)
    return 3 * batch_size


def decodes(encoder: clip.Encoder, paths: list[Path]) -> int:
    for path in paths:
        encoder.prepare(images.decode(images.contents(path), encoder.at_least)[0])
    return len(paths)


def score(scorer: clip.Scorer, paths: list[Path], table: Path, args: argparse.Namespace) -> int:
    pipeline.score(paths, scorer, [args.device], table, args.batch_size, pipeline.DEFAULT_WORKERS)
    return len(paths)


def save_random(path: Path) -> Path:
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(MODEL).state_dict(), path)
    return path


def photographs(folder: Path, count: int, side: int) -> list[Path]:
    """Rendered vases with the noise of a sensor, which is what makes real photographs slow to decode."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    kept = []
    for photo in islice(world.plan(8_998, 12, 1), 12):
        picture = photo.take(448).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(picture, np.float32) + rng.normal(0, 6, (side, side, 1))
        kept.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    for k in range(count):
        kept[k % len(kept)].save(folder / f"{k}.jpg", quality=80 + k % 15)  # no two files of equal content
    return sorted(folder.iterdir())


def memory() -> None:
    """Peak memory of a small and of a large collection, each in a process of its own."""
    few, many = (
        int(subprocess.run([sys.executable, __file__, "--peak", str(n)], check=True, capture_output=True).stdout)
        for n in (2_000, 20_000)
    )
    print(
        f"peak memory: {few / 1024:.0f} MiB with 2,000 images, {many / 1024:.0f} MiB with 20,000 ({many / few:.2f} x)"
    )


def peak(folder: Path, count: int) -> int:
    """Kilobytes that a run of the filter's own path needs at most; the pictures are small, the work is the same."""
    rng = np.random.default_rng(0)
    for k in range(count):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).resize((128, 128)).save(folder / f"{k}.jpg")
    scorer = clip.Scorer(clip.resolve("builtin"), None, None, "fp32")
    features = clip.kept_text_features(scorer, clip.load_prompts(), folder / "table")
    outcomes = pipeline.score(images.find(folder), scorer, ["cpu"], folder / "table", 64, pipeline.DEFAULT_WORKERS)
    filtering.collect(outcomes, features, folder, images.parse_name)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(cli.run(main))
