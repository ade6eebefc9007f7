"""DATASET_CARD.md: what a data set holds, what it lacks, whose it is, and how it was split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vasekit.dataset import Entry, unpublishable
from vasekit.vocabulary import licence_of

_SHOWN = 40


def write(manifest: Mapping[str, Any], entries: Sequence[Entry], parts: Sequence[str]) -> str:
    """The card as Markdown, with the front matter that the hub reads."""
    sections = [
        ("Counts", _counts(manifest, entries, parts)),
        ("Vocabulary", _vocabulary(manifest, entries)),
        ("What the records lack", _gaps(manifest, len(entries))),
        ("Rights", _rights(manifest, entries)),
        ("Splits", _splits(manifest)),
        ("Provenance", _provenance(manifest)),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"{_front(entries)}\n# Greek vases: photographs, questions and answers\n\n{body}\n"


def _front(entries: Sequence[Entry]) -> str:
    names = {licence.name for entry in entries if (licence := licence_of(entry.record.licence))}
    lines = ["---", "task_categories: [visual-question-answering, image-to-text]", "language: [en]", "license: other"]
    return "\n".join([*lines, f"license_name: {', '.join(sorted(names)) or 'unknown'}", "---"])


def _counts(manifest: Mapping[str, Any], entries: Sequence[Entry], parts: Sequence[str]) -> str:
    rows = [(name, manifest["vases"][name], manifest["rows"].get(name, 0)) for name in manifest["vases"]]
    kinds = manifest["rows_by_question"]
    names = list(dict.fromkeys(kind for own in kinds.values() for kind in own))
    asked = [(kind, *(own.get(kind, 0) for own in kinds.values())) for kind in names]
    shapes = Counter((entry.record.shape or "(not recorded)", part) for entry, part in zip(entries, parts, strict=True))
    order = [name for name, _ in Counter(shape for shape, _ in shapes.elements()).most_common(_SHOWN)]
    spread = [(name, *(shapes[name, part] for part in manifest["vases"])) for name in order]
    return "\n\n".join(
        (
            _table(("part", "vases", "rows"), rows),
            _table(("question", *kinds), asked),
            _table(("vases by shape", *manifest["vases"]), spread),
        )
    )


def _vocabulary(manifest: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    found = []
    for name in ("fabric", "technique", "shape"):
        counts = Counter(getattr(entry.record, name) for entry in entries if getattr(entry.record, name))
        found.append((name, len(counts), ", ".join(f"{term} {n}" for term, n in counts.most_common(_SHOWN))))
    unknown = [(name, word, n) for name, words in manifest["unknown_words"].items() for word, n in words.items()]
    text = _table(("field", "different", "the commonest"), found)
    if not unknown:
        return f"{text}\n\nThe vocabulary knows every word."
    more = f"\n\n{len(unknown) - _SHOWN:,} more are in manifest.json." if len(unknown) > _SHOWN else ""
    head = "Words that the vocabulary does not know; they are kept as they are:"
    return f"{text}\n\n{head}\n\n{_table(('field', 'word', 'vases'), unknown[:_SHOWN])}{more}"


def _gaps(manifest: Mapping[str, Any], count: int) -> str:
    silent = manifest["records_silent_about"]
    return _table(("field", "records without it"), [(name, _share(n, count)) for name, n in silent.items()])


def _rights(manifest: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    licences = Counter(entry.record.licence or "(none stated)" for entry in entries)
    credits = Counter(entry.record.credit for entry in entries if entry.record.credit)
    reasons = Counter(filter(None, (unpublishable(entry.record) for entry in entries)))
    text = _table(("licence", "vases"), licences.most_common())
    if credits:
        text += "\n\n" + _table(("credit", "vases"), credits.most_common(_SHOWN))
        text += "\n\nmanifest.json has the credit of every vase."
    left = [row for row in manifest["left_out"] if row["stage"] == "rights"]
    if left:
        text += f"\n\n{len(left):,} vases were left out for their rights; manifest.json names them."
    if reasons:
        why = "; ".join(f"{reason}: {n:,}" for reason, n in reasons.most_common())
        return f"{text}\n\n**Not to be published as it is**: {why} vases. `--publish` leaves these out."
    return f"{text}\n\nEvery picture may be handed on under its licence."


def _splits(manifest: Mapping[str, Any]) -> str:
    groups = manifest["near_duplicates"]
    shares = ", ".join(f"{name} {share:.3g}" for name, share in manifest["shares"].items())
    text = f"Whole vases, spread evenly by shape and century, seed {manifest['settings']['seed']}: {shares}."
    if not groups:
        return f"{text} No two vases share a picture."
    linked = sum(len(own) for own in groups)
    return f"{text} {linked:,} vases share a picture, or nearly the same one, with another and went to its part."


def _provenance(manifest: Mapping[str, Any]) -> str:
    rows = [("photographs", manifest["photographs"]), ("records", manifest["records_sha256"])]
    rows += [(f"report of the {stage}", digest) for stage, digest in manifest["reports_sha256"].items()]
    rows += [(f"vocabulary, file {k}", digest) for k, digest in enumerate(manifest["vocabulary_sha256"], 1)]
    rows += [(f"version of {name}", version) for name, version in manifest["versions"].items()]
    return _table(("input", "count or SHA-256"), rows)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.0f} %)" if whole else "0"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return "\n".join([line(head), line("---" for _ in head), *(line(row) for row in rows)])


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("|", "\\|")
