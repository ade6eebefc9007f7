"""Choose the best view of every vase: the photograph that looks most like a complete vase seen from the front."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, clip, devices, files, filtering, images, pipeline, review, stages, views

VIEWS, REPORT, STATISTICS = "best_views", "best_views_report.json", "filtering_stats.json"
PAGE = "best_views.html"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--input_dir", type=cli.user_path, default=cli.default_path("filtered_vases/accepted"), help="several views")
    add("--output_dir", type=cli.user_path, default=cli.default_path("filtered_vases"), help="gets best_views/")
    add("--overrides", type=cli.user_path, help="CSV of the views that a person chose, downloaded from the page")
    clip.add_flags(parser)
    views.add_flags(parser)
    stages.add_flags(parser, batch_size=64)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    root = cli.need_dir(args.input_dir, "--input_dir")
    paths = images.need_images(root, "--input_dir")
    target = args.output_dir / VIEWS
    cli.need_apart(root, target, "--input_dir --output_dir")
    if target.exists() and any(target.iterdir()) and not (args.output_dir / REPORT).is_file():
        raise cli.UserError(f"--output_dir {args.output_dir}: its {VIEWS}/ has no {REPORT} beside it; name another")
    names = [images.target_name(path, root).as_posix() for path in paths]
    chosen = review.read_overrides(args.overrides, "--overrides", "views", names) if args.overrides else {}
    view_of, prompts = views.reader(args), clip.load_prompts(args.prompts or clip.PROMPTS)
    key = stages.fingerprint(args, paths, model=clip.files_of(args))
    if done := stages.unchanged(args.output_dir / REPORT, key, partial(placed, target)):
        print(f"best view: unchanged, {done['total_vases']:,} vases -> {target}")
        return 0
    stages.may_replace(args, args.output_dir / REPORT, "--output_dir")
    watch = cli.Stopwatch()
    using = devices.pick_all(args.device, args.gpu)
    scorer = clip.from_flags(args, using[0])
    features = clip.kept_text_features(scorer, prompts, args.scores)
    outcomes = pipeline.score(paths, scorer, using, args.scores, args.batch_size, args.workers)
    photos = filtering.collect(outcomes, features, root, view_of)
    choices = filtering.choices(photos, chosen)
    report = filtering.views_report(choices, photos, view_of) | clip.provenance(scorer, features, prompts, using, args)
    report |= {"processing_time_seconds": round(watch.seconds, 3), "fingerprint": key}
    what = (
        f"{len(choices):,} vases, {report['unmatched_images']:,} files without a view in their name,"
        f" {report['error_images']:,} unreadable"
    )
    if args.dry_run:
        return stages.finish("best view", f"{what}; dry run, nothing written", report, args, watch)
    # Killed between the folder and its report, the next run must not take the one for the other's.
    files.write_json(args.output_dir / REPORT, {"fingerprint": "unfinished"})
    with files.staging_dir(target) as stage:
        for row in report["results"]:
            files.place(root / row["selected_filename"], stage / row["selected_filename"], args.link)
    review.write(args.output_dir / PAGE, filtering.views_review(choices, report, root))
    files.write_json(args.output_dir / STATISTICS, filtering.views_summary(choices, report))
    files.write_json(args.output_dir / REPORT, report)
    return stages.finish("best view", f"{what} -> {target}", report, args, watch)


def placed(target: Path, report: dict) -> Iterator[Path]:
    """Where the photographs of a report lie."""
    return (target / row["selected_filename"] for row in report["results"])


if __name__ == "__main__":
    sys.exit(cli.run(main))
