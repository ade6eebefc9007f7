"""Choose the best view of every vase: the photograph that looks most like a complete vase seen from the front."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, clip, decide, devices, files, images, pipeline
from vasekit.decide import Choice
from vasekit.pipeline import Outcome

VIEWS, REPORT, STATISTICS = "best_views", "best_views_report.json", "filtering_stats.json"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--input_dir", type=cli.user_path, default=cli.default_path("filtered_vases/accepted"), help="several views")
    add("--output_dir", type=cli.user_path, default=cli.default_path("filtered_vases"), help="gets best_views/")
    add("--link", choices=("copy", "hard", "sym"), default="copy", help="how files get into best_views/")
    clip.add_flags(parser)
    devices.add_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    paths = images.need_images(cli.need_dir(args.input_dir, "--input_dir"), "--input_dir")
    target = args.output_dir / VIEWS
    cli.need_apart(args.input_dir, target, "--input_dir --output_dir")
    if target.exists() and any(target.iterdir()) and not (args.output_dir / REPORT).is_file():
        raise cli.UserError(f"--output_dir {args.output_dir}: its {VIEWS}/ has no {REPORT} beside it; name another")
    scorer = clip.load_from(args, devices.pick(args.device, args.gpu))
    watch = cli.Stopwatch()
    outcomes = pipeline.score(paths, scorer.prepare, scorer, args.batch_size, args.workers)
    choices = decide.best_views((o.path, o.value[0]) for o in pipeline.readable(outcomes, "--input_dir"))
    report = describe(choices, outcomes, args.input_dir) | clip.provenance(scorer, args)
    report["processing_time_seconds"] = round(watch.seconds, 3)
    with files.staging_dir(target) as stage:
        for row in report["results"]:
            name = row["selected_filename"]
            files.place(args.input_dir / name, stage / name, args.link)
    files.write_json(args.output_dir / STATISTICS, summarise(choices, report))
    files.write_json(args.output_dir / REPORT, report)
    what = (
        f"{len(choices):,} vases, {report['unmatched_images']:,} files without a view in their name,"
        f" {report['error_images']:,} unreadable -> {target}"
    )
    watch.close("best view", what, len(paths), "images")
    return 0


def describe(choices: list[Choice], outcomes: list[Outcome], root: Path) -> dict:
    """best_views_report.json, without what every report says."""
    unmatched = [o.path for o in outcomes if not images.parse_name(o.path).matched]
    chosen = {images.parse_name(choice.views[0][0]).key for choice in choices}
    lost = {images.parse_name(o.path).vase for o in outcomes if images.parse_name(o.path).key not in chosen}
    return {
        "total_vases": len(choices),
        "total_original_images": len(outcomes),
        "total_selected_images": len(choices),
        "reduction_rate": 1 - len(choices) / len(outcomes),
        "average_clip_score": sum(choice.score for choice in choices) / len(choices),
        "unmatched_images": len(unmatched),
        "error_images": sum(1 for o in outcomes if o.error),
        "results": [row(choice, root) for choice in choices],
        "unmatched": [name(path, root) for path in unmatched],
        "errors": pipeline.errors(outcomes, root),
        "vases_without_readable_view": sorted(lost),
    }


def row(choice: Choice, root: Path) -> dict:
    path, view, score = choice.views[0]
    reason = "only view" if choice.margin is None else "highest score" if choice.margin > 0 else "tie, first by name"
    return {
        "vase_id": choice.vase,
        "selected_view": view.view,
        "selected_filename": name(path, root),
        "clip_score": score,
        "margin": choice.margin,
        "total_views": len(choice.views),
        "reason": reason,
        "all_view_scores": {name(path, root): score for path, _, score in choice.views},
    }


def name(path: Path, root: Path) -> str:
    return images.target_name(path, root).as_posix()


def summarise(choices: list[Choice], report: dict) -> dict:
    """filtering_stats.json."""
    keys = ("total_vases", "total_original_images", "total_selected_images", "reduction_rate", "average_clip_score")
    return {
        "summary": {key: report[key] for key in (*keys, "unmatched_images", "error_images")},
        "view_distribution": dict(sorted(Counter(choice.views[0][1].view for choice in choices).items())),
        "clip_score_stats": decide.statistics([choice.score for choice in choices]),
        "views_per_vase": dict(sorted(Counter(len(choice.views) for choice in choices).items())),
    }


if __name__ == "__main__":
    sys.exit(cli.run(main))
