"""What the two CLIP stages decide and report: pure functions over scores, no image is opened here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vasekit import audit, calibrate, decide, pipeline
from vasekit.cli import UserError
from vasekit.clip import TextFeatures
from vasekit.decide import Choice
from vasekit.images import View, target_name
from vasekit.pipeline import Outcome
from vasekit.review import Curve, Item, Review, Table, VaseViews
from vasekit.views import Reader


@dataclass(frozen=True)
class Scored:
    """A photograph that could be read, its path below the input folder, and its cosines with both groups of prompts."""

    name: str
    view: View
    complete: float
    fragments: float
    sha256: str
    phash: int

    @property
    def quality(self) -> float:
        """cos(image, complete) - cos(image, fragments)."""
        return self.complete - self.fragments


@dataclass(frozen=True)
class Collection:
    """All photographs below one folder."""

    scored: list[Scored]
    errors: list[dict[str, str]]

    @property
    def total(self) -> int:
        return len(self.scored) + len(self.errors)


def collect(outcomes: Sequence[Outcome], features: TextFeatures, root: Path, view_of: Reader) -> Collection:
    """Raises UserError when none of the files could be read."""
    good = pipeline.readable(outcomes, "--input_dir")
    names = [target_name(outcome.path, root).as_posix() for outcome in good]
    cosines = features.similarities([outcome.value for outcome in good]).tolist()
    scored = [
        Scored(name, view_of(name), complete, fragments, outcome.sha256, outcome.phash)
        for name, outcome, (complete, fragments) in zip(names, good, cosines, strict=True)
    ]
    return Collection(scored, pipeline.errors(outcomes, root))


# ---- quality filter ----


def analysis(photos: Collection, keep: float) -> dict:
    """The distribution of a sample, and the threshold for each share that one might keep."""
    scores = [photo.quality for photo in photos.scored]
    return {
        "total_images": photos.total,
        "error_images": len(photos.errors),
        "recommended_threshold": decide.threshold_to_keep(scores, keep),
        "thresholds": {str(share): decide.threshold_to_keep(scores, share) for share in decide.SHARES},
        "quality_statistics": decide.statistics(scores),
        "errors": photos.errors,
    }


def automatic_threshold(photos: Collection, keep: float, sample_size: int, seed: int) -> float:
    """The threshold that keeps a share `keep` of a seeded sample."""
    picked = decide.sample(len(photos.scored), sample_size, seed)
    return decide.threshold_to_keep([photos.scored[i].quality for i in picked], keep)


def verdicts(photos: Collection, threshold: float, source: str, overrides: Mapping[str, str], dedup: bool) -> dict:
    """filtering_report.json: a verdict for every readable image; unreadable ones are apart and in no statistics.

    dedup: of near-duplicates within a vase only the one of the highest score is accepted.
    """
    scored = photos.scored
    names, scores = [photo.name for photo in scored], [photo.quality for photo in scored]
    groups = decide.near_duplicates([photo.phash for photo in scored], [photo.view.key for photo in scored])
    # Best first; equal scores are decided by name.
    ranked = [sorted(group, key=lambda i: (-scores[i], names[i])) for group in groups]
    better = {names[i]: names[group[0]] for group in ranked for i in group[1:]} if dedup else {}
    decided = decide.verdicts(names, scores, threshold, overrides, better)
    accepted = sum(verdict.accepted for verdict in decided)
    return {
        "total_images": photos.total,
        "accepted_images": accepted,
        "rejected_images": len(scored) - accepted,
        "error_images": len(photos.errors),
        "acceptance_rate": accepted / len(scored),
        "threshold": threshold,
        "threshold_source": source,
        "overrides": sum(verdict.reason == "override" for verdict in decided),
        "near_duplicates": [[names[i] for i in group] for group in ranked],
        "quality_statistics": decide.statistics(scores),
        "results": [
            {
                "filename": photo.name,
                "quality_score": photo.quality,
                "high_quality_similarity": photo.complete,
                "low_quality_similarity": photo.fragments,
                "accepted": verdict.accepted,
                "reason": verdict.reason,
                "vase_id": photo.view.vase,
                "sha256": photo.sha256,
            }
            for photo, verdict in zip(scored, decided, strict=True)
        ],
        "errors": photos.errors,
    }


def calibration(
    photos: Collection,
    labels: Mapping[str, int],
    threshold: float,
    precision: float | None,
    recall: float | None,
    seed: int,
) -> dict:
    """What a person's labels say of the threshold, or the threshold with which they reach a precision or a recall.

    Raises UserError when they can't.
    """
    scores = {photo.name: photo.quality for photo in photos.scored}
    groups = {photo.name: photo.view.key for photo in photos.scored}
    known = {name: label for name, label in labels.items() if name in scores}
    wanted = {"precision": precision, "recall": recall} if precision or recall else {"threshold": threshold}
    try:
        return calibrate.report(scores, known, groups, **wanted, seed=seed)
    except ValueError as error:
        raise UserError(f"--labels: {error}") from None


def quality_review(report: dict, root: Path) -> Review:
    """The page to look at what the quality filter did."""
    items = [
        Item(
            row["filename"],
            root / row["filename"],
            "accepted" if row["accepted"] else "rejected",
            row["quality_score"],
            row["reason"],
            row["vase_id"],
        )
        for row in report["results"]
    ]
    items += _error_items(report, root)
    tables, curves = [], []
    if found := report.get("calibration"):
        tables.append(Table("Calibration", "Against the labels given.", calibrate.TABLE, calibrate.rows(found)))
        proposed = [
            (row["filename"], f"{row['score']:.4f}", "yes" if row["inside_interval"] else "")
            for row in found["to_label_next"]
        ]
        note = "Photographs whose labels would say most about the threshold."
        tables.append(
            Table("Label these next", note, ("photograph", "score", "within the threshold's interval"), proposed)
        )
        curves.append(Curve("Precision and recall", "recall", "precision", calibrate.points(found)))
    if found := report.get("audit"):
        note = " ".join([*(f"{sentence}." for sentence in found["flagged"]), f"Method: {found['method']}."])
        tables.append(Table("Who is accepted", note, audit.TABLE, audit.table(found)))
    return Review("Quality filter", "quality", report["threshold"], items, tables=tables, curves=curves)


def _error_items(report: dict, root: Path) -> list[Item]:
    errors = report["errors"]
    return [Item(row["filename"], root / row["filename"], "error", None, row["reason"]) for row in errors]


# ---- best view ----


def choices(photos: Collection, chosen: Sequence[str] = ()) -> list[Choice]:
    """The best view of every vase: the photograph that looks most like a complete vase."""
    return decide.best_views(((photo.name, photo.view, photo.complete) for photo in photos.scored), chosen)


def views_report(taken: Sequence[Choice], photos: Collection, view_of: Reader) -> dict:
    """best_views_report.json."""
    views = {row["filename"]: view_of(row["filename"]) for row in photos.errors}
    unmatched = [photo.name for photo in photos.scored if not photo.view.matched]
    unmatched += [name for name, view in views.items() if not view.matched]
    have = {choice.views[0][1].key for choice in taken}
    return {
        "total_vases": len(taken),
        "total_images": photos.total,
        "total_original_images": photos.total,
        "total_selected_images": len(taken),
        "reduction_rate": 1 - len(taken) / photos.total,
        "average_clip_score": float(np.mean([choice.score for choice in taken])),
        "unmatched_images": len(unmatched),
        "error_images": len(photos.errors),
        "results": [_choice_row(choice) for choice in taken],
        "unmatched": sorted(unmatched),
        "errors": photos.errors,
        "vases_without_readable_view": sorted({view.vase for view in views.values() if view.key not in have}),
    }


def _choice_row(choice: Choice) -> dict:
    name, view, score = choice.views[0]
    return {
        "vase_id": choice.vase,
        "selected_view": view.view,
        "selected_filename": name,
        "clip_score": score,
        "runner_up": choice.views[1][0] if len(choice.views) > 1 else None,
        "margin": choice.margin,
        "total_views": len(choice.views),
        "reason": choice.reason,
        "all_view_scores": {name: score for name, _, score in choice.views},
    }


def views_summary(taken: Sequence[Choice], report: dict) -> dict:
    """filtering_stats.json."""
    keys = ("total_vases", "total_original_images", "total_selected_images", "reduction_rate", "average_clip_score")
    margins = [choice.margin for choice in taken if choice.margin is not None]
    return {
        "summary": {key: report[key] for key in (*keys, "unmatched_images", "error_images")},
        "view_distribution": dict(sorted(Counter(choice.views[0][1].view for choice in taken).items())),
        "clip_score_stats": decide.statistics([choice.score for choice in taken]),
        "margin_stats": decide.statistics(margins) if margins else None,
        "views_per_vase": {str(k): n for k, n in sorted(Counter(len(choice.views) for choice in taken).items())},
    }


def views_review(taken: Sequence[Choice], report: dict, root: Path) -> Review:
    """The page to look at the views that were chosen."""
    rows = [
        VaseViews(
            choice.vase,
            tuple(
                Item(
                    name,
                    root / name,
                    "rejected" if place else "accepted",
                    score,
                    "" if place else choice.reason,
                    view.vase,
                    view.view,
                )
                for place, (name, view, score) in enumerate(choice.views)
            ),
            choice.margin,
        )
        for choice in taken
    ]
    return Review("Best view per vase", "views", None, _error_items(report, root), rows)
