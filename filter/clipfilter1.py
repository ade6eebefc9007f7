"""Sort photographs of vases into complete ones (accepted/) and fragments (rejected/) by their CLIP score."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, clip, decide, devices, files, images, pipeline
from vasekit.pipeline import Outcome

REPORT, ANALYSIS = "filtering_report.json", "quality_analysis.json"
# The second stage writes its results into the same folder; they are made from accepted/ and go when it is replaced.
OTHERS = ("accepted", "rejected", "best_views", "best_views_report.json", "filtering_stats.json")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--input_dir", type=cli.user_path, default=cli.default_path("images3/1"), help="photographs, searched through")
    add("--output_dir", type=cli.user_path, default=cli.default_path("filtered_vases"), help="replaced as a whole")
    add("--threshold", type=float, help="accept scores from here on (default: found from --keep on a sample)")
    add("--keep", type=cli.share, default=0.75, help="share to keep when no threshold is given; the paper's run: 0.465")
    add("--analyze_only", action="store_true", help="show the scores of a sample and what thresholds would keep")
    add("--sample_size", type=cli.positive_int, default=500, help="images the threshold is found on")
    add("--auto_select_device", action="store_true", help="choose the device from a list")
    add("--link", choices=("copy", "hard", "sym"), default="copy", help="how files get into accepted/ and rejected/")
    add("--seed", type=int, default=42, help="of the sample")
    clip.add_flags(parser)
    devices.add_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    paths = images.need_images(cli.need_dir(args.input_dir, "--input_dir"), "--input_dir")
    cli.need_apart(args.input_dir, args.output_dir, "--input_dir --output_dir")
    if not args.analyze_only:
        files.claim_dir(args.output_dir, "--output_dir", (REPORT, ANALYSIS, "filtering_stats.json"), OTHERS)
    if args.analyze_only:
        paths = [paths[i] for i in decide.sample(len(paths), args.sample_size, args.seed)]
    device = devices.ask() if args.auto_select_device else devices.pick(args.device, args.gpu)
    scorer = clip.load_from(args, device)
    watch = cli.Stopwatch()
    outcomes = pipeline.score(paths, scorer.prepare, scorer, args.batch_size, args.workers)
    report = analyse(outcomes, args) if args.analyze_only else decide_all(outcomes, args)
    report |= clip.provenance(scorer, args) | {"processing_time_seconds": round(watch.seconds, 3)}
    if args.analyze_only:
        files.write_json(args.output_dir / ANALYSIS, report)
        what = f"{show(report)} -> {args.output_dir / ANALYSIS}"
    else:
        write(report, args)
        what = (
            f"{report['accepted_images']:,} accepted, {report['rejected_images']:,} rejected,"
            f" {report['error_images']:,} unreadable at threshold {report['threshold']:.4f} -> {args.output_dir}"
        )
    watch.close("quality filter", what, len(paths), "images")
    return 0


def quality(outcome: Outcome) -> float:
    """cos(image, complete) - cos(image, fragments)."""
    complete, fragments = outcome.value
    return complete - fragments


def analyse(outcomes: list[Outcome], args: argparse.Namespace) -> dict:
    """The distribution of a sample, and the threshold for each share that one might keep."""
    scores = [quality(outcome) for outcome in pipeline.readable(outcomes, "--input_dir")]
    return {
        "total_images": len(outcomes),
        "error_images": len(outcomes) - len(scores),
        "recommended_threshold": decide.threshold_to_keep(scores, args.keep),
        "thresholds": {str(share): decide.threshold_to_keep(scores, share) for share in decide.SHARES},
        "quality_statistics": decide.statistics(scores),
        "errors": pipeline.errors(outcomes, args.input_dir),
    }


def decide_all(outcomes: list[Outcome], args: argparse.Namespace) -> dict:
    """A verdict for every readable image; unreadable ones are listed apart and enter no statistics."""
    good = pipeline.readable(outcomes, "--input_dir")
    scores = [quality(outcome) for outcome in good]
    threshold = args.threshold
    if threshold is None:
        picked = [scores[i] for i in decide.sample(len(scores), args.sample_size, args.seed)]
        threshold = decide.threshold_to_keep(picked, args.keep)
    results = [
        {
            "filename": images.target_name(outcome.path, args.input_dir).as_posix(),
            "quality_score": score,
            "high_quality_similarity": outcome.value[0],
            "low_quality_similarity": outcome.value[1],
            "accepted": score >= threshold,
        }
        for outcome, score in zip(good, scores, strict=True)
    ]
    accepted = sum(row["accepted"] for row in results)
    return {
        "total_images": len(outcomes),
        "accepted_images": accepted,
        "rejected_images": len(results) - accepted,
        "error_images": len(outcomes) - len(results),
        "acceptance_rate": accepted / len(results),
        "threshold": threshold,
        "threshold_source": "sample" if args.threshold is None else "given",
        "quality_statistics": decide.statistics(scores),
        "results": results,
        "errors": pipeline.errors(outcomes, args.input_dir),
    }


def write(report: dict, args: argparse.Namespace) -> None:
    """Build the new folder aside and swap it in: nothing of an earlier threshold stays."""
    with files.staging_dir(args.output_dir) as stage:
        for name in ("accepted", "rejected"):
            (stage / name).mkdir()
        for row in report["results"]:
            folder = stage / ("accepted" if row["accepted"] else "rejected")
            files.place(args.input_dir / row["filename"], folder / row["filename"], args.link)
        files.write_json(stage / REPORT, report)


def show(report: dict) -> str:
    """Print the distribution; return the recommendation for the closing line."""
    values = report["quality_statistics"]
    print("score   " + "  ".join(f"{name} {values[name]:+.4f}" for name in ("min", "p25", "median", "p75", "max")))
    for share, threshold in report["thresholds"].items():
        print(f"keep {float(share):5.1%}: --threshold {threshold:.4f}")
    return f"recommended threshold {report['recommended_threshold']:.4f}, {report['error_images']:,} unreadable"


if __name__ == "__main__":
    sys.exit(cli.run(main))
