"""Collect what the steps measured: one table on the screen, results.json, and the page."""

from __future__ import annotations

import json
from pathlib import Path

from vasekit import files
from vasekit.demo import page
from vasekit.demo.page import Picture, mark_up
from vasekit.metrics import paired_gain

FIELDS = ("shape", "technique", "date")
# (measure, what it is): the order of the table.
MEASURES = {
    "classifier.balanced_accuracy": "classifier: balanced accuracy, good photographs against all that is wrong",
    "filter.auc_sherds": "quality filter: ROC-AUC, whole vases against sherds",
    "filter.auc_damage": "quality filter: ROC-AUC, whole vases against sherds, missing parts and cracks",
    "view.top1": "best view: the front comes first among seven views",
    **{f"sft.{field}": f"after SFT: {field} answered exactly" for field in FIELDS},
    **{f"sft_permuted.{field}": f"the same with exchanged images: {field}" for field in FIELDS},
    "grpo.reward_before": "reward of sampled captions (T = 1) before GRPO",
    "grpo.reward_after": "reward of sampled captions (T = 1) after GRPO",
    "grpo.exact_before": "greedy captions with shape, technique and date right before GRPO",
    "grpo.exact_after": "greedy captions with shape, technique and date right after GRPO",
    "grpo.exact_gain": "gain of these, vase by vase",
}


def collect(out: Path) -> dict[str, dict]:
    """The measures, each {value, low, high, n}."""

    sft, permuted, grpo = (_evaluation(out, name)["measures"] for name in ("sft", "sft_permuted", "grpo"))
    before, after = (_captions_of(out, name) for name in ("sft", "grpo"))
    return {
        **files.read_json(out / "judge" / "measures.json", "demo"),
        **{f"sft.{field}": sft[field] for field in FIELDS},
        **{f"sft_permuted.{field}": permuted[field] for field in FIELDS},
        "grpo.reward_before": sft["reward_sampled"],
        "grpo.reward_after": grpo["reward_sampled"],
        "grpo.exact_before": sft["caption_exact"],
        "grpo.exact_after": grpo["caption_exact"],
        "grpo.exact_gain": paired_gain([before[v]["right"] for v in before], [after[v]["right"] for v in before]),
    }


def _evaluation(out: Path, name: str) -> dict:
    return files.read_json(out / "eval" / f"{name}.json", "demo")


def _captions_of(out: Path, name: str) -> dict[str, dict]:
    """Greedy captions by vase."""
    return {row["vase"]: row for row in _evaluation(out, name)["answers"] if row["field"] == "caption"}


def write(out: Path, seconds: dict[str, float]) -> None:
    """Write results.json and index.html; print the table."""
    results = collect(out)
    files.write_json(out / "results.json", results | {"seconds": {k: round(v, 1) for k, v in seconds.items()}})
    rows = [_row(name, results[name]) for name in MEASURES]
    _print_table(rows)
    print("seconds  " + "  ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    page.write(
        out / "index.html", "VaseVQA-3D training kit: the chain on the built-in world", _sections(out, rows, seconds)
    )
    print(f"demo: {len(rows)} measures; {sum(seconds.values()):.0f} s of work; look at {out / 'index.html'}")


def _row(name: str, measure: dict) -> tuple[str, ...]:
    interval = f"{measure['low']:.3f} to {measure['high']:.3f}"
    return MEASURES[name], f"{measure['value']:.3f}", interval, f"{measure['n']:,}"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    head = ("measured on vases never seen in training", "value", "95% interval", "n")
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(4)]
    for row in [head, *rows]:
        print(
            "  ".join(
                cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )


# ---- the page ----


def _sections(out: Path, rows: list[tuple[str, ...]], seconds: dict[str, float]) -> list[tuple[str, str]]:
    head = ("measured on vases never seen in training", "value", "95% interval", "n")
    times = [(name, f"{value:.1f} s") for name, value in seconds.items()]
    return [
        (
            "Results",
            page.table(head, rows) + "<p class=small>All vases are rendered: nothing here speaks of real ones.</p>",
        ),
        ("Photographs in", _photographs(out)),
        ("Quality filter: highest and lowest scores", _filtered(out)),
        ("Best view of a vase: score of each photograph, the chosen one in green", _views(out)),
        ("Training", _curves(out)),
        ("Captions before and after reinforcement learning", _captions(out)),
        ("Seconds per step", page.table(("step", "time"), times)),
    ]


def _truth(out: Path) -> list[dict]:
    return files.read_json(out / "held-out" / "truth.json", "demo")


def _photographs(out: Path) -> str:
    """Three photographs of each condition, with the classifier's verdict."""
    report = files.read_json(out / "judge" / "sorted" / "classification_report.json", "demo")["results"]
    good = {row["filename"]: row["label"] == 1 for row in report}
    shown: dict[str, list[Picture]] = {}
    for row in _truth(out):
        chosen = shown.setdefault(row["condition"], [])
        if len(chosen) < 3 and row["image"] in good:
            verdict = "kept" if good[row["image"]] else "sorted out"
            lines = (
                row["condition"].replace("_", " "),
                mark_up(verdict, good[row["image"]] == (row["condition"] == "whole")),
            )
            path = out / "held-out" / "photos" / row["image"]
            chosen.append(Picture(path, lines, "good" if good[row["image"]] else "bad"))
    return page.gallery(picture for group in shown.values() for picture in group)


def _scores(out: Path) -> list[dict]:
    return files.read_json(out / "judge" / "filtered" / "filtering_report.json", "demo")["results"]


def _filtered(out: Path) -> str:
    conditions = {row["image"]: row["condition"].replace("_", " ") for row in _truth(out)}
    rows = sorted(_scores(out), key=lambda row: -row["quality_score"])
    photos = out / "held-out" / "photos"

    def pictures(part: list[dict], mark: str) -> list[Picture]:
        return [
            Picture(photos / row["filename"], (f"{row['quality_score']:+.3f}", conditions[row["filename"]]), mark)
            for row in part
        ]

    step = max(1, len(rows) // 160)
    return page.gallery(pictures(rows[: 8 * step : step], "good")) + page.gallery(
        pictures(rows[-8 * step :: step], "bad")
    )


def _views(out: Path) -> str:
    similar = {row["filename"]: row["high_quality_similarity"] for row in _scores(out)}
    by_vase: dict[str, list[dict]] = {}
    for row in _truth(out):
        if row["condition"] == "whole" and row["image"] in similar:
            by_vase.setdefault(row["vase"], []).append(row)
    strips = []
    for views in list(by_vase.values())[:4]:
        best = max(views, key=lambda row: similar[row["image"]])
        strips.append(
            page.gallery(
                Picture(
                    out / "held-out" / "photos" / row["image"],
                    (row["view"], f"{similar[row['image']]:.3f}"),
                    "good" if row is best else "",
                )
                for row in views
            )
        )
    return "".join(strips)


def _curves(out: Path) -> str:
    return "".join(
        page.curve(title, _logged(out / folder / "logging.jsonl", key))
        for title, folder, key in (
            ("SFT: training loss", "sft", "loss"),
            ("GRPO: mean reward of a batch", "grpo", "reward"),
        )
    )


def _logged(path: Path, key: str) -> list[tuple[float, float]]:
    """(step, value) of ms-swift's log."""
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if key in entry:
            points.append((float(str(entry["global_step/max_steps"]).split("/")[0]), float(entry[key])))
    return points


def _captions(out: Path) -> str:
    before, after = (_captions_of(out, name) for name in ("sft", "grpo"))
    changed = [vase for vase in before if before[vase]["answer"] != after[vase]["answer"]]
    return page.gallery(
        (
            Picture(
                Path(after[vase]["image"]),
                (
                    f"before: {mark_up(before[vase]['answer'], before[vase]['right'])}",
                    f"after: {mark_up(after[vase]['answer'], after[vase]['right'])}",
                    f"truth: {after[vase]['truth']}",
                ),
            )
            for vase in changed[:12]
        ),
        wide=True,
    )
