"""Why is a vase in the data set, or why not: `python -m vasekit.lineage VASE`, from the filter's tables to the rows."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vasekit import cli, files, vases, views
from vasekit.vases import VaseRecord

MANIFEST = "manifest.json"
# Stage -> the report that it writes beside its output.
REPORTS = {
    "classifier": "classification_report.json",
    "filter": "filtering_report.json",
    "views": "best_views_report.json",
}


# ---- the reports that photographs came through ----


def reports(photos: Path) -> dict[str, Path]:
    """Where the stages before this folder of photographs wrote their reports; those that there are."""
    found = {
        stage: folder / name
        for stage, name in REPORTS.items()
        for folder in (photos, photos.parent)
        if (folder / name).is_file()
    }
    for later, earlier in (("views", "filter"), ("filter", "classifier")):
        if later in found and earlier not in found:
            source = Path(files.read_json(found[later], "--images")["settings"]["input_dir"]).parent / REPORTS[earlier]
            found |= {earlier: source} if source.is_file() else {}
    return {stage: found[stage] for stage in REPORTS if stage in found}


def scores(read: Mapping[str, dict]) -> dict[str, float]:
    """File name -> what the last stage that scored it said of it."""
    found: dict[str, float] = {}
    for row in read.get("classifier", {}).get("results", ()):
        found[row["filename"]] = row["probability"]
    for row in read.get("filter", {}).get("results", ()):
        found[row["filename"]] = row["quality_score"]
    for row in read.get("views", {}).get("results", ()):
        found |= row["all_view_scores"]
    return found


# ---- one vase ----


def explain(key: str, manifest: Mapping[str, Any], read: Mapping[str, dict], view_of: views.Reader) -> dict[str, Any]:
    """{verdict, stages: {stage: lines}} of the vase with that key (in lower case); no stages: nothing knows it."""
    stages = {
        "classifier": list(_classifier(key, read.get("classifier", {}), view_of)),
        "quality filter": list(_filter(key, read.get("filter", {}), view_of)),
        "best view": list(_views(key, read.get("views", {}))),
        "data set": list(_data(manifest["lineage"].get(key))),
        "records": list(_alone(key, manifest["photographs_without_record"], view_of)),
    }
    stages = {name: lines for name, lines in stages.items() if lines}
    return {"vase": key, "verdict": _verdict(manifest["lineage"].get(key), stages), "stages": stages}


def _verdict(entry: Mapping[str, Any] | None, stages: Mapping[str, Sequence[str]]) -> str:
    if entry and entry["rows"]:
        rows = ", ".join(f"{name} from row {first} on: {count}" for name, (first, count) in entry["rows"].items())
        return f"in, part {entry['part']} ({rows})"
    if entry:
        return f"not in: {entry['left_out'] or 'no question was drawn for it'}"
    if not stages:
        return "not in: no stage has seen a photograph of it"
    last = list(stages)[-1]
    return f"not in: it ends at the {last} ({stages[last][0]})"


def _classifier(key: str, report: Mapping[str, Any], view_of: views.Reader) -> Iterator[str]:
    for row in report.get("results", ()):
        if view_of(row["filename"]).key == key:
            kept = "kept" if row["label"] else "sorted out"
            at = report["confidence_threshold"]
            yield f"{row['filename']}: {kept}, probability {row['probability']:.3f}, threshold {at:g}"
    yield from _errors(key, report, view_of)


def _filter(key: str, report: Mapping[str, Any], view_of: views.Reader) -> Iterator[str]:
    for row in report.get("results", ()):
        if row["vase_id"].casefold() == key:
            verdict = "accepted" if row["accepted"] else "rejected"
            at = f"quality {row['quality_score']:+.4f}, threshold {report['threshold']:+.4f}"
            yield f"{row['filename']}: {verdict}, {at} (by {row['reason']})"
    yield from _errors(key, report, view_of)


def _errors(key: str, report: Mapping[str, Any], view_of: views.Reader) -> Iterator[str]:
    for row in report.get("errors", ()):
        if view_of(row["filename"]).key == key:
            yield f"{row['filename']}: can't be read ({row['reason']})"


def _views(key: str, report: Mapping[str, Any]) -> Iterator[str]:
    for row in report.get("results", ()):
        if row["vase_id"].casefold() == key:
            lead = "" if row["margin"] is None else f", {row['margin']:+.4f} before the next"
            chosen = f"{row['selected_filename']}: chosen of {row['total_views']}"
            yield f"{chosen}, score {row['clip_score']:.4f}{lead} ({row['reason']})"


def _data(entry: Mapping[str, Any] | None) -> Iterator[str]:
    if not entry:
        return
    record = VaseRecord(**entry["record"])
    silent = [name for name in ("fabric", *vases.CAPTION_FIELDS[1:-1]) if not getattr(record, name)]
    if record.stated():
        yield f"record: {vases.caption(record)}" + (f" Silent about {', '.join(silent)}." if silent else "")
        yield f"rights: {record.licence or 'no licence stated'}; {record.credit or 'no credit line'}"
    for photo in entry["photos"]:
        score = "not scored" if photo["score"] is None else f"score {photo['score']:.4f}"
        yield f"photograph: {photo['name']}, view {photo['view'] or '-'}, {score}, SHA-256 {photo['sha256'][:12]}"
    if entry["together_with"]:
        yield f"split together with {', '.join(entry['together_with'])}: they share a picture, or nearly the same one"


def _alone(key: str, photographs: Sequence[str], view_of: views.Reader) -> Iterator[str]:
    for name in photographs:
        if view_of(name).key == key:
            yield f"no record names {name} or its vase"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("Say why a vase is in the data set, or why not, from the filter's tables to the rows.")
    add = parser.add_argument
    add("vase", help="the vase's part of the file names")
    add("--data", type=cli.user_path, default=cli.default_path("data"), help="folder that data/build.py wrote")
    add("--json", action="store_true", help="print it as JSON")
    args: argparse.Namespace = parser.parse_args(argv)
    path = args.data / MANIFEST
    if not path.is_file():
        raise cli.UserError(f"--data {args.data}: no {MANIFEST} in it; name the folder that data/build.py wrote")
    manifest = files.read_json(path, "--data")
    if not isinstance(manifest, dict) or "lineage" not in manifest:
        raise cli.UserError(f"--data {args.data}: its {MANIFEST} was not written by data/build.py; name another folder")
    read = {
        stage: files.read_json(Path(name), "--data")
        for stage, name in manifest["reports"].items()
        if Path(name).is_file()
    }
    settings = argparse.Namespace(**manifest["settings"])
    settings.views = Path(settings.views) if settings.views else None
    found = explain(args.vase.casefold(), manifest, read, views.reader(settings))
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{args.vase}: {found['verdict']}")
        for stage, lines in found["stages"].items():
            for k, line in enumerate(lines):
                print(f"  {stage if k == 0 else '':<16}{line}")
    return 0 if found["stages"] else 2


if __name__ == "__main__":
    sys.exit(cli.run(main))
