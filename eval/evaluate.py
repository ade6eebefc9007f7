"""Let a checkpoint answer test questions and score the answers: exact per field, captions, and their reward."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import builtin, cli, devices, files, metrics, questions, rewards, runs
from vasekit.metrics import Measure
from vasekit.vases import VaseRecord

CAPTION = "caption"
# A caption is right when it says these three rightly.
CAPTION_FIELDS = ("shape", "technique", "date")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="model folder, a run with whole models, or builtin")
    add("--adapter", type=cli.user_path, help="LoRA adapter folder on top of it")
    add("--data", type=cli.user_path, required=True, help="test.json: rows with messages, images, field, solution")
    add("--output", type=cli.user_path, required=True, help="JSON file with measures and answers")
    add("--sample", type=int, default=0, help="sampled captions per vase (temperature 1) for the mean reward")
    add("--permute_images", action="store_true", help="show each question another vase: what text alone would tell")
    add("--system", type=cli.user_path, help="file with a system prompt for the captions")
    add("--max_new_tokens", type=cli.positive_int, default=64, help="longest answer")
    add("--batch_size", type=cli.positive_int, default=64, help="questions at a time")
    add("--limit", type=cli.positive_int, help="only so many vases")
    add("--seed", type=int, default=0, help="of sampling and of the exchange of images")
    devices.add_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    rows = load(args.data, args.limit)
    system = cli.need_file(args.system, "--system").read_text(encoding="utf-8").strip() if args.system else None
    watch = cli.Stopwatch()
    from vasekit.generate import Generator, Request

    shown = exchanged(rows, args.seed) if args.permute_images else [row["images"][0] for row in rows]
    requests = [
        Request(Path(image), question(row), system if row["field"] == CAPTION else None)
        for row, image in zip(rows, shown, strict=True)
    ]
    model = builtin.VLM if args.model == "builtin" else runs.find_model(cli.user_path(args.model), "--model")
    generator = Generator(model, args.adapter, devices.pick(args.device, args.gpu))
    ask = {"max_new_tokens": args.max_new_tokens, "batch_size": args.batch_size}
    answers = [
        {**kept(row), "image": image, "answer": said, "right": is_right(row, said), "truth": truth(row)}
        for row, image, said in zip(rows, shown, by_length(generator, requests, ask), strict=True)
    ]
    measures = score(rows, answers)
    captions = [(row, request) for row, request in zip(rows, requests, strict=True) if row["field"] == CAPTION]
    if args.sample:
        rounds = [
            generator.answer([r for _, r in captions], temperature=1.0, seed=args.seed + k, **ask)
            for k in range(args.sample)
        ]
        means = [
            sum(rewards.total(said[i], target(row)) for said in rounds) / args.sample
            for i, (row, _) in enumerate(captions)
        ]
        measures["reward_sampled"] = metrics.bootstrap_mean(means)
    seconds = round(watch.seconds, 2)
    settings = {"settings": cli.settings(args), "versions": cli.versions("torch", "transformers")}
    files.write_json(args.output, {"measures": measures, "seconds": seconds, **settings, "answers": answers})
    shown_measures = ", ".join(f"{name} {value['value']:.3f}" for name, value in measures.items())
    watch.close("evaluation", shown_measures, len(requests) + args.sample * len(captions), "answers")
    return 0


def load(path: Path, limit: int | None) -> list[dict]:
    """The test rows; a row without what is needed is a UserError with its number."""
    rows = files.read_json(path, "--data")
    if not isinstance(rows, list) or not rows:
        raise cli.UserError(f"--data {path}: needs a list of at least one row")
    for number, row in enumerate(rows, 1):
        missing = [name for name in ("messages", "images", "field", "vase", "solution") if name not in row]
        if missing:
            raise cli.UserError(f"--data {path}: row {number} lacks {', '.join(missing)}")
        if not Path(row["images"][0]).is_file():
            raise cli.UserError(f"--data {path}: row {number} names {row['images'][0]}, which is not there")
    vases_shown = set(list(dict.fromkeys(row["vase"] for row in rows))[:limit])
    return [row for row in rows if row["vase"] in vases_shown]


def question(row: dict) -> str:
    return row["messages"][0]["content"].replace("<image>", "")


def kept(row: dict) -> dict:
    return {"vase": row["vase"], "field": row["field"]}


def by_length(generator, requests: list, ask: dict) -> list[str]:
    """Answers in order; equal questions go together, so that no batch holds padding."""
    order = sorted(range(len(requests)), key=lambda i: requests[i].question)
    said = generator.answer([requests[i] for i in order], **ask)
    answers = [""] * len(order)
    for place, text in zip(order, said, strict=True):
        answers[place] = text
    return answers


def exchanged(rows: list[dict], seed: int) -> list[str]:
    """For each row the picture of another vase: a random cycle through all vases."""
    pictures = {row["vase"]: row["images"][0] for row in rows}
    order = list(pictures)
    random.Random(seed).shuffle(order)
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [pictures[following[row["vase"]]] for row in rows]


def target(row: dict) -> VaseRecord:
    return rewards.Target.parse(row["solution"]).record


def truth(row: dict) -> str:
    return questions.answer(target(row), row["field"])


def is_right(row: dict, said: str) -> bool:
    """Exact after normalisation; a caption or description when `CAPTION_FIELDS` of the record are."""
    record, field = target(row), row["field"]
    if field in questions.FIELDS:
        said_value = questions.value(questions.claim(field, said), field)
        return bool(said_value) and said_value == questions.value(record, field)
    scores = rewards.score_fields(said, record)
    return all(scores[name] == 1 for name in CAPTION_FIELDS if scores[name] is not None)


def score(rows: list[dict], answers: list[dict]) -> dict[str, Measure]:
    """Exact answers per field; of captions also each dimension and the mean reward."""
    measures: dict[str, Measure] = {}
    for field in dict.fromkeys(row["field"] for row in rows):
        right = [a["right"] for a in answers if a["field"] == field]
        measures["caption_exact" if field == CAPTION else field] = metrics.proportion(sum(right), len(right))
    captions = [(target(row), a["answer"]) for row, a in zip(rows, answers, strict=True) if row["field"] == CAPTION]
    if captions:
        for name in rewards.WEIGHTS:
            values = [rewards.score_fields(said, record)[name] for record, said in captions]
            if known := [value for value in values if value is not None]:
                measures[f"caption_{name}"] = metrics.bootstrap_mean(known)
        measures["reward_greedy"] = metrics.bootstrap_mean([rewards.total(said, r) for r, said in captions])
    return measures


if __name__ == "__main__":
    sys.exit(cli.run(main))
