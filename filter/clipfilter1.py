"""Sort photographs of vases into complete ones (accepted/) and fragments (rejected/) by their CLIP score."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import (
    audit,
    calibrate,
    cli,
    clip,
    decide,
    devices,
    files,
    filtering,
    images,
    pipeline,
    records,
    review,
    stages,
    views,
)
from vasekit.filtering import Collection

REPORT, ANALYSIS, PAGE = "filtering_report.json", "quality_analysis.json", "review.html"
FOLDERS = ("accepted", "rejected")
# The second stage writes its results into the same folder; they are made from accepted/ and go when it is replaced.
OTHERS = (*FOLDERS, "errors", PAGE, "best_views", "best_views_report.json", "filtering_stats.json", "best_views.html")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--input_dir", type=cli.user_path, default=cli.default_path("images3/1"), help="photographs, searched through")
    add("--output_dir", type=cli.user_path, default=cli.default_path("filtered_vases"), help="replaced as a whole")
    add("--threshold", type=float, help="accept scores from here on (default: found from --keep on a sample)")
    add("--keep", type=cli.share, default=0.75, help="share to keep when no threshold is given; the paper's run: 0.465")
    add("--analyze_only", action="store_true", help="show the scores of a sample and what thresholds would keep")
    add("--sample_size", type=cli.positive_int, default=500, help="images the threshold is found on")
    add("--seed", type=int, default=42, help="of the sample")
    add("--auto_select_device", action="store_true", help="choose the device from a list")
    add("--dedup", action="store_true", help="of near-duplicates within a vase accept the best only")
    add("--overrides", type=cli.user_path, help="CSV of what a person decided, downloaded from review.html")
    add("--labels", type=cli.user_path, help="CSV path,label (1 complete, 0 fragment) to calibrate the threshold with")
    add("--target_precision", type=cli.share, help="with --labels: the threshold that reaches it")
    add("--target_recall", type=cli.share, help="with --labels: the threshold that reaches it")
    add("--records", type=cli.user_path, help="records to audit by: what does the filter remove, by fabric, shape, ...")
    clip.add_flags(parser)
    views.add_flags(parser)
    stages.add_flags(parser, batch_size=64)
    args = parser.parse_args(argv)
    targets = [name for name in ("threshold", "target_precision", "target_recall") if getattr(args, name) is not None]
    if len(targets) > 1:
        raise cli.UserError(f"--{targets[0]} --{targets[1]}: one of them decides; leave the other out")
    if "target" in " ".join(targets) and not args.labels:
        raise cli.UserError(f"--{targets[0]}: needs labels to reach it with; give them with --labels")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    root = cli.need_dir(args.input_dir, "--input_dir")
    paths = images.need_images(root, "--input_dir")
    cli.need_apart(root, args.output_dir, "--input_dir --output_dir")
    files.claim_dir(args.output_dir, "--output_dir", (REPORT, ANALYSIS, "filtering_stats.json"), OTHERS)
    names = [images.target_name(path, root).as_posix() for path in paths]
    overrides = review.read_overrides(args.overrides, "--overrides", "quality", names) if args.overrides else {}
    labels = calibrate.read_labels(args.labels, "--labels", names) if args.labels else {}
    rows = records.read_rows(args.records) if args.records else []
    view_of, prompts = views.reader(args), clip.load_prompts(args.prompts or clip.PROMPTS)
    key = stages.fingerprint(args, paths, model=clip.files_of(args))
    if not args.analyze_only and (done := stages.unchanged(args.output_dir / REPORT, key, partial(placed, args))):
        print(f"quality filter: unchanged, {done['accepted_images']:,} accepted -> {args.output_dir}")
        return 0
    if args.analyze_only:
        paths = [paths[i] for i in decide.sample(len(paths), args.sample_size, args.seed)]
    else:
        stages.may_replace(args, args.output_dir / REPORT, "--output_dir")
    watch = cli.Stopwatch()
    using = [devices.ask()] if args.auto_select_device else devices.pick_all(args.device, args.gpu)
    scorer = clip.from_flags(args, using[0])
    features = clip.kept_text_features(scorer, prompts, args.scores)
    outcomes = pipeline.score(paths, scorer, using, args.scores, args.batch_size, args.workers)
    photos = filtering.collect(outcomes, features, root, view_of)
    about = clip.provenance(scorer, features, prompts, using, args) | {
        "processing_time_seconds": round(watch.seconds, 3)
    }
    if args.analyze_only:
        return analyse(photos, about, args, watch)
    return sort(photos, overrides, labels, rows, about | {"fingerprint": key}, args, watch)


def analyse(photos: Collection, about: dict, args: argparse.Namespace, watch: cli.Stopwatch) -> int:
    """Show the distribution of a sample and what thresholds would keep; sort nothing."""
    report = filtering.analysis(photos, args.keep) | about
    files.write_json(args.output_dir / ANALYSIS, report)
    values = report["quality_statistics"]
    print("score   " + "  ".join(f"{name} {values[name]:+.4f}" for name in ("min", "p25", "median", "p75", "max")))
    for share, threshold in report["thresholds"].items():
        print(f"keep {float(share):5.1%}: --threshold {threshold:.4f}")
    what = f"recommended threshold {report['recommended_threshold']:.4f}, {report['error_images']:,} unreadable"
    return stages.finish("quality filter", f"{what} -> {args.output_dir / ANALYSIS}", report, args, watch)


def sort(
    photos: Collection,
    overrides: dict[str, str],
    labels: dict[str, int],
    rows: list[dict],
    about: dict,
    args: argparse.Namespace,
    watch: cli.Stopwatch,
) -> int:
    """Decide, and put every photograph in its place."""
    threshold, source = args.threshold, "given"
    if threshold is None:
        threshold, source = filtering.automatic_threshold(photos, args.keep, args.sample_size, args.seed), "sample"
    more = {}
    if labels:
        more["calibration"] = filtering.calibration(
            photos, labels, threshold, args.target_precision, args.target_recall, args.seed
        )
        if args.target_precision or args.target_recall:
            threshold, source = more["calibration"]["threshold"], "labels"
    report = filtering.verdicts(photos, threshold, source, overrides, args.dedup) | about
    if rows:
        more["audit"] = audit.audit(audit.judged(report["results"]), rows, args.seed)
        for sentence in more["audit"]["flagged"]:
            print(sentence)
    report |= more
    what = (
        f"{report['accepted_images']:,} accepted, {report['rejected_images']:,} rejected,"
        f" {report['error_images']:,} unreadable at threshold {report['threshold']:.4f}"
    )
    if args.dry_run:
        return stages.finish("quality filter", f"{what}; dry run, nothing written", report, args, watch)
    write(report, args)
    return stages.finish("quality filter", f"{what} -> {args.output_dir}", report, args, watch)


def folder_of(row: dict) -> str:
    return "accepted" if row["accepted"] else "rejected"


def placed(args: argparse.Namespace, report: dict) -> Iterator[Path]:
    """Where the photographs of a report lie."""
    return (args.output_dir / folder_of(row) / row["filename"] for row in report["results"])


def write(report: dict, args: argparse.Namespace) -> None:
    """Build the new folder aside and swap it in: nothing of an earlier threshold stays."""
    with files.staging_dir(args.output_dir) as stage:
        for name in FOLDERS:
            (stage / name).mkdir()
        for row in report["results"]:
            files.place(args.input_dir / row["filename"], stage / folder_of(row) / row["filename"], args.link)
        stages.write_errors(stage, report["errors"])
        review.write(stage / PAGE, filtering.quality_review(report, args.input_dir))
        files.write_json(stage / REPORT, report)


if __name__ == "__main__":
    sys.exit(cli.run(main))
