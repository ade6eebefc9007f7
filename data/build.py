"""Build training data from photographs and records: one row per question for SFT, caption targets for GRPO."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, dataset, files, images, views
from vasekit.vases import QUESTIONS

# The documented names of the training files, and what the test questions are called.
SFT, GRPO, TEST, REPORT = "video_training_dataset.json", "grpo_video_dataset.json", "test.json", "dataset_report.json"


def questions(text: str) -> list[str]:
    """argparse type: names of questions, separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'none'} given, there are {', '.join(QUESTIONS)}")
    return names


def fraction(text: str) -> float:
    """argparse type: a share, 0 <= value < 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{value} given, needs a share from 0 to below 1")
    return value


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--photos", type=cli.user_path, default=cli.default_path("filtered_vases/best_views"), help="photographs")
    add("--records", type=cli.user_path, default=cli.default_path("data/records.csv"), help=".csv .tsv .json .jsonl")
    add("--output", type=cli.user_path, default=cli.default_path("data"), help="folder for the training files")
    add("--questions", type=questions, default=list(QUESTIONS), help="comma-separated: which to ask in SFT")
    add("--grpo_share", type=fraction, default=0.3, help="share of the vases kept for reinforcement")
    add("--test_share", type=fraction, default=0.0, help="share of the vases kept out of training, in test.json")
    add("--seed", type=int, default=42, help="of the split")
    views.add_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    watch = cli.Stopwatch()
    rows = dataset.read_rows(args.records)
    photos = images.need_images(cli.need_dir(args.photos, "--photos"), "--photos")
    read = views.reader(args)
    joined = dataset.join(photos, rows, lambda photo: read(images.target_name(photo, args.photos).as_posix()))
    if not joined.entries:
        raise cli.UserError(
            f"--photos {args.photos} --records {args.records}: no photograph has a record; records need a column"
            " 'Image GUID' with the vase's part of the file name, or 'image' with the file name"
        )
    parts: dict[str, list[dataset.Entry]] = {"sft": [], "grpo": [], "test": []}
    for entry in joined.entries:
        parts[dataset.part_of(entry.key, args.seed, args.grpo_share, args.test_share)].append(entry)
    sft = [row for entry in parts["sft"] for row in dataset.question_rows(entry, args.questions)]
    grpo = [dataset.target_row(entry) for entry in parts["grpo"] if dataset.is_scorable(entry)]
    test = [
        row | {"solution": dataset.target_row(entry)["solution"]}
        for entry in parts["test"]
        for row in dataset.question_rows(entry, args.questions)
    ]
    files.write_json(args.output / SFT, sft)
    files.write_json(args.output / GRPO, grpo)
    if args.test_share:
        files.write_json(args.output / TEST, test)
    report = {
        "vases": {name: len(entries) for name, entries in parts.items()},
        "rows": {"sft": len(sft), "grpo": len(grpo), "test": len(test)},
        "photographs": len(photos),
        "photographs_without_record": joined.photos_without_record,
        "records_without_photograph": joined.records_without_photo,
        "records_silent_about": dataset.gaps(joined.entries),
        "unknown_words": dataset.unknown_words(joined.entries),
        "records_sha256": files.sha256(args.records),
        "settings": cli.settings(args),
        "seconds": round(watch.seconds, 3),
    }
    files.write_json(args.output / REPORT, report)
    what = (
        f"{len(joined.entries):,} vases: {len(sft):,} SFT rows, {len(grpo):,} GRPO rows, {len(test):,} test rows;"
        f" {len(joined.photos_without_record):,} photographs without a record -> {args.output}"
    )
    watch.close("data", what, len(photos), "photographs")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
