"""Sort photographs into TARGET_DIR/0 (low quality) and TARGET_DIR/1 (high quality) with the trained classifier."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, devices, files, images, pipeline, quality, stages

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
    add("--confidence_threshold", type=cli.share, default=0.5, help="probability from which an image is high quality")
    stages.add_flags(parser, BATCH_SIZE, DEFAULT_GPU)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    root = cli.need_dir(args.source_dir, "--source_dir")
    paths = images.need_images(root, "--source_dir")
    cli.need_apart(root, args.target_dir, "--source_dir --target_dir")
    files.claim_dir(args.target_dir, "--target_dir", (REPORT,), (*quality.CLASSES, "errors"))
    cli.need_file(args.model_path, "--model_path")
    key = stages.fingerprint(args, paths)
    if done := stages.unchanged(args.target_dir / REPORT, key, partial(placed, args)):
        print(f"classifier: unchanged, {done['high_quality_images']:,} high quality -> {args.target_dir}")
        return 0
    stages.may_replace(args, args.target_dir / REPORT, "--target_dir")
    watch = cli.Stopwatch()
    using = devices.pick_all(args.device, args.gpu)
    scorer = quality.Scorer(args.model_path)
    _, settings = quality.load(args.model_path, "--model_path", "cpu")  # refuse what is no checkpoint before reading
    outcomes = pipeline.score(paths, scorer, using, args.scores, args.batch_size, args.workers)
    results = [
        {
            "filename": images.target_name(outcome.path, root).as_posix(),
            "probability": float(outcome.value[0]),
            "label": int(outcome.value[0] >= args.confidence_threshold),
            "sha256": outcome.sha256,
        }
        for outcome in pipeline.readable(outcomes, "--source_dir")
    ]
    high = sum(row["label"] for row in results)
    report = {
        "total_images": len(paths),
        "high_quality_images": high,
        "low_quality_images": len(results) - high,
        "error_images": len(paths) - len(results),
        "confidence_threshold": args.confidence_threshold,
        "results": results,
        "errors": pipeline.errors(outcomes, root),
        "model": {**scorer.identity, **vars(settings), "devices": using},
        "settings": cli.settings(args),
        "versions": cli.versions("torch", "torchvision", "pillow"),
        "processing_time_seconds": round(watch.seconds, 3),
        "fingerprint": key,
    }
    what = f"{high:,} high quality, {len(results) - high:,} low, {report['error_images']:,} unreadable"
    if args.dry_run:
        return stages.finish("classifier", f"{what}; dry run, nothing written", report, args, watch)
    write(report, args)
    return stages.finish("classifier", f"{what} -> {args.target_dir}", report, args, watch)


def placed(args: argparse.Namespace, report: dict) -> Iterator[Path]:
    """Where the photographs of a report lie."""
    return (args.target_dir / str(row["label"]) / row["filename"] for row in report["results"])


def write(report: dict, args: argparse.Namespace) -> None:
    """Build the new folder aside and swap it in: nothing of an earlier threshold stays."""
    with files.staging_dir(args.target_dir) as stage:
        for name in quality.CLASSES:
            (stage / name).mkdir()
        for row in report["results"]:
            name = row["filename"]
            files.place(args.source_dir / name, stage / str(row["label"]) / name, args.link)
        stages.write_errors(stage, report["errors"])
        files.write_json(stage / REPORT, report)


if __name__ == "__main__":
    sys.exit(cli.run(main))
