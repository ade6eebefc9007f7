"""Judge classifier, quality filter and best view on the held-out world, and write the test questions from its truth.

The only place that reads truth.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vasekit import cli, decide, files, images, metrics, questions, vases
from vasekit.cli import ROOT
from vasekit.synth.world import BROKEN


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(__doc__)
    parser.add_argument("demo", type=cli.user_path, help="folder of the demo")
    out = parser.parse_args(argv).demo
    watch = cli.Stopwatch()
    photos = out / "held-out" / "photos"
    truth = {row["image"]: row for row in files.read_json(out / "held-out" / "truth.json", "demo")}
    work = out / "judge"
    classifier = out / "classifier" / "best_image_quality_model.pth"
    both = ("--link", "sym", "--scores", out / "scores")
    _script("filter/classifier.py", *both, "--source_dir", photos, "--target_dir", work / "sorted",
            "--model_path", classifier)  # fmt: skip
    _script("filter/clipfilter1.py", *both, "--input_dir", photos, "--output_dir", work / "filtered",
            "--model", "builtin")  # fmt: skip
    sorted_ = files.read_json(work / "sorted" / "classification_report.json", "demo")["results"]
    scored = files.read_json(work / "filtered" / "filtering_report.json", "demo")["results"]
    measures = {
        "classifier.balanced_accuracy": _balanced_accuracy(sorted_, truth),
        **_areas(scored, truth),
        "view.top1": _front_first(scored, truth),
    }
    files.write_json(work / "measures.json", measures)
    questions = list(_questions(truth.values(), photos))
    files.write_json(out / "test.json", questions)
    watch.close("judge", f"{len(measures)} measures, {len(questions):,} test questions", len(truth), "photographs")
    return 0


def _script(name: str, *flags: object) -> None:
    subprocess.run([sys.executable, str(ROOT / name), *map(str, flags)], check=True)


def _balanced_accuracy(rows: list[dict], truth: dict[str, dict]) -> dict:
    labels = [int(truth[row["filename"]]["condition"] == "whole") for row in rows]
    return metrics.balanced_accuracy(labels, [row["label"] for row in rows])


def _areas(rows: list[dict], truth: dict[str, dict]) -> dict[str, dict]:
    by_condition: dict[str, list[float]] = {}
    for row in rows:
        by_condition.setdefault(truth[row["filename"]]["condition"], []).append(row["quality_score"])
    damaged = [score for condition in BROKEN for score in by_condition[condition]]
    return {
        "filter.auc_sherds": metrics.auc(by_condition["whole"], by_condition["sherds"]),
        "filter.auc_damage": metrics.auc(by_condition["whole"], damaged),
    }


def _front_first(rows: list[dict], truth: dict[str, dict]) -> dict:
    """Share of whole vases whose front scores highest among their seven views."""
    whole = [row for row in rows if truth[row["filename"]]["condition"] == "whole"]
    chosen = decide.best_views(
        (row["filename"], images.parse_name(row["filename"]), row["high_quality_similarity"]) for row in whole
    )
    right = [truth[choice.views[0][0]]["view"] == "front" for choice in chosen]
    return metrics.proportion(sum(right), len(right))


def _questions(rows: Sequence[dict], photos: Path):
    """One row per question and whole vase, about its front."""
    for row in rows:
        if (row["condition"], row["view"]) != ("whole", "front"):
            continue
        traits = {field: row[field] for field in ("fabric", "shape", "technique", "date")}
        record = vases.VaseRecord(**traits, decoration=row["motif"])
        target = json.dumps(traits | {"decoration": row["motif"], "caption": vases.caption(record)})
        for field in ("shape", "technique", "date", "caption"):
            yield {
                "messages": [{"role": "user", "content": "<image>" + questions.QUESTIONS[field][0]}],
                "images": [str(photos / row["image"])],
                "field": field,
                "vase": row["vase"],
                "solution": target,
            }


if __name__ == "__main__":
    sys.exit(cli.run(main))
