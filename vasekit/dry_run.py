"""Try a reward before anything is trained with it: `python -m vasekit.rewards --completions FILE.jsonl`.

FILE is what ms-swift logs with --log_completions true (completions.jsonl), or one object a line with `completion` and
`solution` (and `group`, if several answer one prompt), or a training file with `solution` alone: then only the
adversarial answers are scored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vasekit import cli, files, questions, rewards, vases
from vasekit.rewards import Reward, Target
from vasekit.vases import VaseRecord
from vasekit.vocabulary import vocabulary

_BINS = 10
_EQUAL = 1e-9


@dataclass(frozen=True)
class Completion:
    """An answer (None: there is none to score), what it is compared with, and the prompt it belongs to."""

    text: str | None
    target: VaseRecord
    group: str


# ---- reading ----


def read(path: Path) -> list[Completion]:
    """The completions of a .json or .jsonl file. Raises UserError with the line of what can't be read."""
    cli.need_file(path, "--completions")
    found: list[Completion] = []
    for where, row in _rows(path):
        try:
            found += _of_row(row, where)
        except ValueError as error:
            raise cli.UserError(f"--completions {path}, {where}: {error}") from None
    if not found:
        raise cli.UserError(f"--completions {path}: holds no row")
    return found


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    if path.suffix == ".json":
        rows = files.read_json(path, "--completions")
        yield from ((f"row {k}", row) for k, row in enumerate(rows if isinstance(rows, list) else [rows], 1))
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for k, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield f"line {k}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise cli.UserError(f"--completions {path}, line {k}: not valid JSON ({error})") from None


def _of_row(row: object, where: str) -> Iterator[Completion]:
    if not isinstance(row, dict):
        raise ValueError("needs an object with completion and solution")
    if "solution" not in row:
        raise ValueError("lacks 'solution', which the reward compares with")
    if not isinstance(row.get("completion"), list):  # one answer a line
        row = {
            "completion": [row.get("completion")],
            "solution": [row["solution"]],
            "prompt": [str(row.get("group", where))],
            "step": [""],  # the group says it all
        }
    columns = [row["completion"], row["solution"], row.get("prompt") or row["solution"]]
    if not all(isinstance(column, list) for column in columns):
        raise ValueError("solution and prompt need a list, as completion is one")
    if len({len(column) for column in columns}) != 1:
        raise ValueError("completion, solution and prompt differ in length")
    # A prompt's pictures are not in its text: the target tells prompts of one step apart.
    steps = row.get("step")
    step = str(steps[0]) if isinstance(steps, list) and steps else where
    for text, solution, prompt in zip(*columns, strict=True):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"completion {text!r} is no text")
        yield Completion(text, Target.parse(solution).record, f"{step}\0{prompt}\0{solution}")


# ---- adversarial answers ----


def _wrong(record: VaseRecord) -> VaseRecord:
    """Every field of the record with another value."""
    words = vocabulary()
    other = {
        name: next(
            term for term in reversed(words.terms[name].values()) if not _alike(name, term, getattr(record, name))
        )
        for name in vases.TERMS
    }
    return VaseRecord(**other, date="300-275 BCE", decoration="a chimaera", attribution="NIKOSTHENES")


def _alike(name: str, term: str, true: str) -> bool:
    return bool(true) and rewards.SCORES[name](term, true) != 0


def _keywords(record: VaseRecord) -> str:
    terms = [" ".join(dict.fromkeys(vocabulary().terms[name].values())) for name in vases.TERMS]
    figures = "Herakles, lion, Athena, warrior, horse, youth, satyr, maenad, owl, ship, palmette, sphinx"
    return f"{' '.join(terms)}, 600-300 BCE, by Exekias, {figures}."


_PADDING = (
    "The vase is a wonderful testimony of ancient craftsmanship, and visitors of every museum admire how carefully its"
    " maker balanced the proportions of body, neck and foot, while the surface still shines after so many centuries."
)
_GREEK = (
    "\u0391\u03b8\u03b7\u03bd\u03b1\u03ca\u03ba\u03cc\u03c2"
    " \u03bc\u03b5\u03bb\u03b1\u03bd\u03cc\u03bc\u03bf\u03c1\u03c6\u03bf\u03c2"
    " \u03b1\u03bc\u03c6\u03bf\u03c1\u03ad\u03b1\u03c2."
)


def _long(record: VaseRecord) -> str:
    truth = vases.caption(record)
    return " ".join([truth, *[_PADDING] * (9 * len(truth.split()) // len(_PADDING.split()) + 1)])


def _wide(record: VaseRecord) -> str:
    """The truth, but for a date that covers everything."""
    body = vases.caption(record, [name for name in vases.CAPTION_FIELDS if name != "date"])
    return f"{body.rstrip('.')}, -1000 to 0."


def _template(record: VaseRecord) -> str:
    return " ".join(questions.ANSWERS[field][1].format("") for field in questions.FIELDS)


# What no reward should pay, and the truth to compare with.
ANSWERS: dict[str, Callable[[VaseRecord], str]] = {
    "the truth": vases.caption,
    "empty": lambda record: "",
    "the question again": lambda record: questions.QUESTIONS["overall"][0],
    "template words alone": _template,
    "every keyword at once": _keywords,
    "ten times too long": _long,
    "the truth ten times": lambda record: " ".join([vases.caption(record)] * 10),
    "right form, wrong values": lambda record: vases.caption(_wrong(record)),
    "dated -1000 to 0": _wide,
    "another language": lambda record: _GREEK,
}


# ---- the report ----


def report(completions: Sequence[Completion], reward: Reward) -> dict:
    """Histograms per part, groups of equal rewards, and what adversarial answers earn; ready for JSON."""
    targets = list(dict.fromkeys(c.target for c in completions))
    answers = [c for c in completions if c.text is not None]
    scored = [reward.score(c.text, c.target) for c in answers]
    found: dict = {"completions": len(answers), "targets": len(targets)}
    if scored:
        parts = {name: [s.parts[name] for s in scored if s.parts[name] is not None] for name in reward.weights}
        values = parts | {"penalty": [s.penalty for s in scored], "total": [s.total for s in scored]}
        found["parts"] = {name: _histogram(own) for name, own in values.items()}
        found["groups"] = _groups([c.group for c in answers], [s.total for s in scored])
    found["adversarial"] = {name: _earned(reward, make, targets) for name, make in ANSWERS.items()}
    return found


def _histogram(values: Sequence[float]) -> dict:
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(value * _BINS))] += 1
    return {"n": len(values), "mean": fmean(values) if values else None, "counts": counts}


def _groups(names: Sequence[str], totals: Sequence[float]) -> dict:
    groups: dict[str, list[float]] = {}
    for name, total in zip(names, totals, strict=True):
        groups.setdefault(name, []).append(total)
    several = [own for own in groups.values() if len(own) > 1]
    equal = sum(max(own) - min(own) < _EQUAL for own in several)
    return {"groups": len(several), "equal": equal, "equal_share": equal / len(several) if several else None}


def _earned(reward: Reward, make: Callable[[VaseRecord], str], targets: Sequence[VaseRecord]) -> dict[str, float]:
    totals = [reward.score(make(target), target).total for target in targets]
    return {"mean": fmean(totals), "max": max(totals)}


def show(found: dict) -> None:
    """The report as tables."""
    print(f"{found['completions']:,} completions, {found['targets']:,} different targets")
    if parts := found.get("parts"):
        print(f"\n{'part':<14}{'n':>7}{'mean':>7}  share of answers by score, .0 to 1")
        for name, row in parts.items():
            shares = (
                " ".join(f"{count / row['n']:.2f}"[1:] if count < row["n"] else " 1." for count in row["counts"])
                if row["n"]
                else ""
            )
            mean = "" if row["mean"] is None else f"{row['mean']:.3f}"
            print(f"{name:<14}{row['n']:>7,}{mean:>7}  {shares}")
        groups = found["groups"]
        if groups["groups"]:
            share = f"{100 * groups['equal_share']:.1f} %"
            print(
                f"\n{groups['equal']:,} of {groups['groups']:,} groups ({share}) have equal rewards and teach nothing"
            )
    print(f"\n{'answer':<26}{'mean':>7}{'max':>7}")
    for name, row in found["adversarial"].items():
        print(f"{name:<26}{row['mean']:>7.3f}{row['max']:>7.3f}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--completions", type=cli.user_path, required=True, help="completions.jsonl of a run, or a training file")
    add("--reward", choices=("strict", "paper"), default="strict", help="which preset")
    add("--encoder", default="", help="sentence encoder of the preset paper: a folder, a hub name, or builtin")
    add("--limit", type=cli.positive_int, help="only so many rows")
    add("--json", action="store_true", help="print the report as JSON")
    args: argparse.Namespace = parser.parse_args(argv)
    completions = read(args.completions)[: args.limit]
    found = report(completions, rewards.preset(args.reward, args.encoder))
    if args.json:
        print(json.dumps({"settings": cli.settings(args), **found}, indent=1))
    else:
        show(found)
    return 0
