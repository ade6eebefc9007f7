"""Sort photographs into TARGET_DIR/0 (low quality) and TARGET_DIR/1 (high quality) with the trained classifier."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, devices, files, images, pipeline, quality

# The documented settings; each is the default of a flag. DEFAULT_GPU was 2: None takes the first there is.
DEFAULT_GPU = None
MODEL_PATH = "best_image_quality_model.pth"
SOURCE_DIR = "images"
TARGET_DIR = "images3"
BATCH_SIZE = 32

REPORT = "classification_report.json"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--model_path", type=cli.user_path, default=cli.default_path(MODEL_PATH), help="made by filter/model.py")
    add("--source_dir", type=cli.user_path, default=cli.default_path(SOURCE_DIR), help="photographs, searched through")
    add("--target_dir", type=cli.user_path, default=cli.default_path(TARGET_DIR), help="replaced as a whole")
    add("--batch_size", type=cli.positive_int, default=BATCH_SIZE, help="images classified at a time")
    add("--confidence_threshold", type=cli.share, default=0.5, help="probability from which an image is high quality")
    add("--workers", type=cli.positive_int, default=pipeline.DEFAULT_WORKERS, help="threads that decode")
    add("--link", choices=("copy", "hard", "sym"), default="copy", help="how files get into 0/ and 1/")
    devices.add_flags(parser, DEFAULT_GPU)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    paths = images.need_images(cli.need_dir(args.source_dir, "--source_dir"), "--source_dir")
    cli.need_apart(args.source_dir, args.target_dir, "--source_dir --target_dir")
    files.claim_dir(args.target_dir, "--target_dir", (REPORT,), quality.CLASSES)
    cli.need_file(args.model_path, "--model_path")
    device = devices.pick(args.device, args.gpu)
    model, settings = quality.load(args.model_path, "--model_path", device)
    watch = cli.Stopwatch()
    prepare = partial(quality.to_pixels, size=settings.image_size)
    scorer = partial(quality.probabilities, model, device=device)
    outcomes = pipeline.score(paths, prepare, scorer, args.batch_size, args.workers)
    good = pipeline.readable(outcomes, "--source_dir")
    results = [
        {
            "filename": images.target_name(outcome.path, args.source_dir).as_posix(),
            "probability": outcome.value,
            "label": int(outcome.value >= args.confidence_threshold),
        }
        for outcome in good
    ]
    high = sum(row["label"] for row in results)
    report = {
        "total_images": len(paths),
        "high_quality_images": high,
        "low_quality_images": len(results) - high,
        "error_images": len(paths) - len(results),
        "confidence_threshold": args.confidence_threshold,
        "results": results,
        "errors": pipeline.errors(outcomes, args.source_dir),
        "model": {"sha256": files.sha256(args.model_path), "device": device, **vars(settings)},
        "settings": cli.settings(args),
        "versions": cli.versions("torch", "torchvision", "pillow"),
        "processing_time_seconds": round(watch.seconds, 3),
    }
    with files.staging_dir(args.target_dir) as stage:
        for name in quality.CLASSES:
            (stage / name).mkdir()
        for row in results:
            name = row["filename"]
            files.place(args.source_dir / name, stage / str(row["label"]) / name, args.link)
        files.write_json(stage / REPORT, report)
    what = (
        f"{high:,} high quality, {len(results) - high:,} low, {report['error_images']:,} unreadable"
        f" -> {args.target_dir}"
    )
    watch.close("classifier", what, len(paths), "images")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
