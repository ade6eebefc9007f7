"""Build training data from photographs and records: questions for SFT, caption targets for GRPO, val and test."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import card, cli, dataset, files, images, lineage, pipeline, records, vases, views, vocabulary
from vasekit.dataset import Entry, Facts
from vasekit.questions import QUESTIONS

# Part -> file; the first two have their documented names.
FILES = {
    "sft": "video_training_dataset.json",
    "grpo": "grpo_video_dataset.json",
    "val": "val.json",
    "test": "test.json",
}
CARD, PICTURES = "DATASET_CARD.md", "images"
# So many vases with one picture are hardly copies of each other.
PLACEHOLDER = 10


def kinds(text: str) -> dict[str, float]:
    """argparse type: questions, separated by commas, each with the share of vases that are asked it (NAME=SHARE)."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, share = part.partition("=")
        if name not in QUESTIONS:
            raise argparse.ArgumentTypeError(f"{name} given, there are {', '.join(QUESTIONS)}")
        try:
            found[name] = cli.share(share or "1")
        except (ValueError, argparse.ArgumentTypeError):
            raise argparse.ArgumentTypeError(f"{part} given, needs NAME or NAME=SHARE such as shape=0.5") from None
    if not found:
        raise argparse.ArgumentTypeError(f"none given, there are {', '.join(QUESTIONS)}")
    return found


def fraction(text: str) -> float:
    """argparse type: a share, 0 <= value < 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{value} given, needs a share from 0 to below 1")
    return value


def caption_fields(text: str) -> tuple[str, ...]:
    """argparse type: what a caption says, separated by commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or set(names) - set(vases.CAPTION_FIELDS):
        raise argparse.ArgumentTypeError(f"{text} given, there are {', '.join(vases.CAPTION_FIELDS)}")
    return names


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--images", type=cli.user_path, default=cli.default_path("filtered_vases/best_views"), help="photographs")
    add("--records", type=cli.user_path, default=cli.default_path("data/records.csv"), help=" ".join(records.SUFFIXES))
    add("--output", type=cli.user_path, default=cli.default_path("data"), help="folder for the training files")
    add("--turntables", type=cli.user_path, help="folder of folders VASE/ with the frames of a turn: rows of videos")
    add("--max_frames", type=cli.positive_int, default=16, help="frames of a turn, evenly chosen")
    add("--max_pixels", type=cli.positive_int, help="store larger pictures scaled down to this, in OUTPUT/images")
    add("--all_views", action="store_true", help="rows for every photograph of a vase, not for the best one only")
    add(
        "--questions",
        type=kinds,
        default=dict.fromkeys(QUESTIONS, 1.0),
        help="NAME[=SHARE],... of " + ", ".join(QUESTIONS),
    )
    add("--caption_fields", type=caption_fields, default=vases.CAPTION_FIELDS, help="what a caption says")
    add("--plain", action="store_true", help="the documented questions and bare answers only, no paraphrases")
    add("--grpo_share", type=fraction, default=0.3, help="share of the training vases kept for reinforcement")
    add("--val_share", type=fraction, default=0.05, help="share of the vases in val.json")
    add("--test_share", type=fraction, default=0.1, help="share of the vases kept out of training, in test.json")
    add("--publish", action="store_true", help="only what may be handed on, with its pictures, in OUTPUT/images")
    add("--seed", type=int, default=42, help="of split and wordings")
    add("--workers", type=cli.positive_int, default=pipeline.DEFAULT_WORKERS, help="threads that read photographs")
    views.add_flags(parser)
    args = parser.parse_args(argv)
    if args.val_share + args.test_share >= 1:
        parser.error(f"--val_share {args.val_share} --test_share {args.test_share}: leave nothing to train on")
    return args


@dataclass(frozen=True)
class Build:
    """What became of a collection: its vases, the part of each, what they may not be parted from, and the rows."""

    photos: int
    joined: dataset.Joined
    facts: Mapping[Path, Facts]
    entries: Sequence[Entry]
    left_out: list[dict[str, str]]
    groups: Sequence[Sequence[int]]
    parts: Sequence[str]
    rows: Mapping[str, list[dict]]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    watch = cli.Stopwatch()
    rows = records.read_rows(args.records)
    photos = images.need_images(cli.need_dir(args.images, "--images"), "--images")
    reports = lineage.reports(args.images)
    made = make(args, photos, rows, reports)
    manifest = manifest_of(made, args, reports)
    with files.together(args.output) as stage:
        for name, own in made.rows.items():
            files.write_json(stage / FILES[name], own)
        files.write_text(stage / CARD, card.write(manifest, made.entries, made.parts))
        manifest["files_sha256"] = {path.name: files.sha256(path) for path in sorted(stage.iterdir())}
        manifest["seconds"] = round(watch.seconds, 3)
        files.write_json(stage / lineage.MANIFEST, manifest)
    for name in FILES.keys() - made.rows.keys():  # of an earlier split, whose vases are now elsewhere
        (args.output / FILES[name]).unlink(missing_ok=True)
    return finish(manifest, args, watch)


def make(args: argparse.Namespace, photos: Sequence[Path], rows: Sequence[dict], reports: Mapping[str, Path]) -> Build:
    """Join, examine, split, and make the rows; writes nothing but OUTPUT/images, where that is asked for."""
    read_view = views.reader(args)

    def view_of(photo: Path) -> images.View:
        return read_view(images.target_name(photo, args.images).as_posix())

    joined = dataset.join(photos, rows, view_of)
    if not joined.entries:
        raise cli.UserError(
            f"--images {args.images} --records {args.records}: no photograph has a record; records need a column"
            " 'Image GUID' with the vase's part of the file name, or 'image' with the file name (or see --view_pattern)"
        )
    scores = lineage.scores({stage: files.read_json(path, "--images") for stage, path in reports.items()})
    known = [photo for entry in joined.entries for photo in entry.photos]
    facts = dataset.examine(known, args.images, view_of, scores, args.workers)
    entries, left_out = chosen(joined.entries, facts, args)
    groups = dataset.alike(entries, facts)
    parts = dataset.split(entries, groups, shares_of(args), args.seed)
    where = place_pictures(entries, facts, args)
    say = tuple(args.caption_fields)
    writer = dataset.Writer(args.questions, facts, args.seed, args.plain, args.all_views, say, where)
    made = make_rows(entries, parts, writer, left_out)
    return Build(len(photos), joined, facts, entries, left_out, groups, parts, made)


def manifest_of(made: Build, args: argparse.Namespace, reports: Mapping[str, Path]) -> dict[str, Any]:
    """What manifest.json says, but for the files themselves."""
    alone = [images.target_name(photo, args.images).as_posix() for photo in made.joined.photos_without_record]
    kinds = {name: Counter(row.get("field", "caption") for row in own) for name, own in made.rows.items()}
    return {
        "vases": {name: list(made.parts).count(name) for name in FILES},
        "rows": {name: len(own) for name, own in made.rows.items()},
        "rows_by_question": {name: dict(own) for name, own in kinds.items()},
        "shares": shares_of(args),
        "photographs": made.photos,
        "pictures": bool(args.publish or args.max_pixels),
        "photographs_without_record": alone,
        "unreadable": [{"name": fact.name, "reason": fact.error} for fact in made.facts.values() if fact.error],
        "records_without_photograph": made.joined.records_without_photo,
        "records_silent_about": dataset.gaps(made.entries),
        "unknown_words": dataset.unknown_words(made.entries),
        "near_duplicates": [[made.entries[k].key for k in group] for group in made.groups if len(group) > 1],
        "left_out": made.left_out,
        "records_sha256": files.sha256(args.records),
        "vocabulary_sha256": [files.sha256(path) for path in vocabulary.files()],
        "reports": {stage: str(path) for stage, path in reports.items()},
        "reports_sha256": {stage: files.sha256(path) for stage, path in reports.items()},
        "versions": cli.versions("pillow", "numpy"),
        "settings": cli.settings(args),
        "lineage": lineage_of(made),
    }


def shares_of(args: argparse.Namespace) -> dict[str, float]:
    """Part -> share of all vases."""
    training = 1 - args.val_share - args.test_share
    grpo = training * args.grpo_share
    return {"test": args.test_share, "val": args.val_share, "grpo": grpo, "sft": training - grpo}


def chosen(
    joined: Sequence[Entry], facts: Mapping[Path, Facts], args: argparse.Namespace
) -> tuple[list[Entry], list[dict[str, str]]]:
    """The entries to make rows of, and the others with the reason: unreadable, nothing recorded, rights."""
    entries = dataset.readable(joined, facts)
    if args.turntables:
        entries = dataset.turntables(entries, cli.need_dir(args.turntables, "--turntables"), args.max_frames)
    kept = {entry.key for entry in entries}
    left_out = [
        {"vase": entry.key, "stage": "photographs", "reason": f"unreadable: {facts[entry.photos[0]].error}"}
        for entry in joined
        if entry.key not in kept
    ]
    found = []
    for entry in entries:
        reason = dataset.unpublishable(entry.record) if args.publish else ""
        if not entry.record.stated():
            left_out.append({"vase": entry.key, "stage": "record", "reason": "its record says nothing"})
        elif reason:
            left_out.append({"vase": entry.key, "stage": "rights", "reason": reason})
        else:
            found.append(entry)
    if not found:
        first = left_out[0]
        raise cli.UserError(
            f"--images {args.images}: nothing is left of {len(joined):,} vases, such as {first['vase']}"
            f" ({first['reason']}); see --records" + (" and its columns Licence and Credit" if args.publish else "")
        )
    return found, left_out


def place_pictures(
    entries: Sequence[Entry], facts: Mapping[Path, Facts], args: argparse.Namespace
) -> Callable[[Path], str]:
    """Store what the rows show in OUTPUT/images where that is asked for; the path that a row gives for a file."""
    if not (args.publish or args.max_pixels):
        return str
    claim_pictures(args)
    shown = [photo for entry in entries for photo in (entry.photos if args.all_views else entry.photos[:1])]
    roots = dict.fromkeys(shown, args.images) | {f: args.turntables for entry in entries for f in entry.frames}
    names: dict[Path, str] = {}
    with files.staging_dir(args.output / PICTURES) as stage:
        for path, root in roots.items():
            name = images.target_name(path, root)
            small = name if name.suffix.lower() in (".jpg", ".jpeg") else name.with_name(f"{name.name}.jpg")
            large = args.max_pixels and images.pixels(path) > args.max_pixels
            if large:
                images.shrink(path, stage / small, args.max_pixels)
            elif args.publish:
                files.place(path, stage / name, "copy")
            if large or args.publish:
                stored = f"{PICTURES}/{(small if large else name).as_posix()}"
                names[path] = stored if args.publish else str(args.output / stored)
    return lambda path: names.get(path, str(path))


def claim_pictures(args: argparse.Namespace) -> None:
    """Refuse to replace pictures that are not of an earlier build, above all the photographs themselves."""
    target = args.output / PICTURES
    for flag, source in (("--images", args.images), ("--turntables", args.turntables)):
        if source:
            cli.need_apart(source, target, f"{flag} and --output, whose {PICTURES}/ is replaced")
    known = args.output / lineage.MANIFEST
    ours = known.is_file() and files.read_json(known, "--output").get("pictures")
    if target.exists() and any(target.iterdir()) and not ours:
        raise cli.UserError(
            f"--output {args.output}: its {PICTURES}/ was not written by this script; name another folder"
        )


def make_rows(
    entries: Sequence[Entry], parts: Sequence[str], writer: dataset.Writer, left_out: list[dict[str, str]]
) -> dict[str, list[dict]]:
    """Part -> rows, for the parts that have a share; a vase that can't be rewarded is noted in `left_out`."""
    made: dict[str, list[dict]] = {name: [] for name in FILES if name in parts or name in ("sft", "grpo")}
    for entry, part in zip(entries, parts, strict=True):
        if part == "grpo" and not dataset.is_scorable(entry):
            left_out.append({"vase": entry.key, "stage": "reward", "reason": "nothing in its record can be rewarded"})
            continue
        write = {"sft": writer.training, "grpo": writer.targets}.get(part, writer.held_out)
        made[part] += write(entry)
    return made


def lineage_of(made: Build) -> dict[str, dict]:
    """Vase -> part, photographs, record, and where its rows are."""
    part_of = {entry.key: part for entry, part in zip(made.entries, made.parts, strict=True)}
    keys = [entry.key for entry in made.entries]
    together = {keys[k]: [keys[j] for j in group if j != k] for group in made.groups for k in group}
    reason_of = {row["vase"]: row["reason"] for row in made.left_out}
    rows: dict[str, dict[str, list[int]]] = {}
    for part, own in made.rows.items():
        for number, row in enumerate(own, 1):
            rows.setdefault(row["vase"], {}).setdefault(FILES[part], [number, 0])[1] += 1
    return {
        entry.key: {
            "part": part_of.get(entry.key),
            "left_out": reason_of.get(entry.key),
            "record": entry.record.stated(),
            "photos": [made.facts[photo].lineage() for photo in entry.photos],
            "frames": len(entry.frames),
            "together_with": together.get(entry.key, []),
            "rows": rows.get(entry.key, {}),
        }
        for entry in made.joined.entries
    }


def finish(manifest: Mapping, args: argparse.Namespace, watch: cli.Stopwatch) -> int:
    """What was left out on stderr, the closing line on stdout."""
    for stage in ("photographs", "rights"):
        rows = [row for row in manifest["left_out"] if row["stage"] == stage]
        if rows:
            named = "; ".join(f"{row['vase']}: {row['reason']}" for row in rows[:5])
            more = f"; {len(rows) - 5:,} more in {lineage.MANIFEST}" if len(rows) > 5 else ""
            print(f"warning: {len(rows):,} vases left out for their {stage}: {named}{more}", file=sys.stderr)
    largest = max(manifest["near_duplicates"], key=len, default=[])
    if len(largest) >= PLACEHOLDER:
        print(
            f"warning: {len(largest):,} vases, such as {largest[0]}, share a picture or nearly the same one and stay in"
            " one part; is it a placeholder, or a wrong --view_pattern?",
            file=sys.stderr,
        )
    if not manifest["rows"]["sft"]:
        print("warning: no rows for fine-tuning: more vases, or smaller shares for the other parts", file=sys.stderr)
    count = sum(manifest["vases"].values())
    rows = ", ".join(f"{manifest['rows'].get(name, 0):,} {name}" for name in FILES)
    what = (
        f"{count:,} vases: {rows} rows; {len(manifest['photographs_without_record']):,} photographs without a record"
        f" -> {args.output}"
    )
    watch.close("data", what, manifest["photographs"], "photographs")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
