"""Run the whole chain on the built-in world, judge it on vases it never saw, and show the result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vasekit import cli
from vasekit.cli import ROOT
from vasekit.demo.steps import Runner, Step

TRAINING_VASES, HELD_OUT_VASES, LABELLED, SIZE = 2600, 620, 2400, 128
PYTHON = sys.executable


def steps(out: Path) -> list[Step]:
    """The chain, in order. Every command is one that a user could type."""
    world, held_out = out / "world", out / "held-out"
    classifier = out / "classifier" / "best_image_quality_model.pth"
    sorted_, filtered, data = out / "images3", out / "filtered_vases", out / "data"
    sft, merged, grpo = out / "sft", out / "sft-merged", out / "grpo"

    def script(name: str, *flags: object) -> list[str]:
        head = [PYTHON] if name.endswith(".py") else []
        return [*head, str(ROOT / name), *map(str, flags)]

    def evaluate(name: str, model: Path, *flags: object) -> list[str]:
        data_flags = ("--data", out / "test.json", "--output", out / "eval" / f"{name}.json")
        # Captions are asked for as in reinforcement: with its system prompt.
        prompt = ("--system", ROOT / "model" / "prompt.txt", "--max_new_tokens", 32)
        return script("eval/evaluate.py", "--model", model, *data_flags, *prompt, *flags)

    def make(name: str, title: str, command: list[str], *outputs: Path) -> Step:
        return Step(name, title, command, outputs)

    def render(vases: int, seed: int, views: int, folder: Path, *flags: object) -> list[str]:
        where = ("--vases", vases, "--seed", seed, "--views", views, "--size", SIZE, "--output", folder)
        return script("data/make_world.py", *where, *flags)

    builtin, kept = ("--model", "builtin"), ("--scores", out / "scores")
    return [
        make("world", "a collection", render(TRAINING_VASES, 1, 2, world, "--labelled", LABELLED), world),
        make("held_out", "vases to judge on", render(HELD_OUT_VASES, 2, 7, held_out), held_out),
        make(
            "classifier",
            "quality classifier",
            script(
                "filter/model.py",
                *("--data_dir", world / "labelled", "--output", classifier, "--backbone", "builtin"),
                *("--weights", "builtin", "--image_size", 112, "--optimizer", "adamw", "--schedule", "onecycle"),
                *("--learning_rate", "1e-3", "--weight_decay", "0.02", "--batch_size", 64, "--epochs", 5),
            ),
            classifier.parent,
        ),
        make(
            "sort",
            "sort by quality",
            script(
                "filter/classifier.py",
                *("--model_path", classifier, "--source_dir", world / "photos", "--target_dir", sorted_),
                *kept,
            ),
            sorted_,
        ),
        make(
            "filter",
            "CLIP quality filter",
            script(
                "filter/clipfilter1.py",
                *("--input_dir", sorted_ / "1", "--output_dir", filtered, "--keep", "0.95", *builtin, *kept),
            ),
            filtered,
        ),
        make(
            "views",
            "best view per vase",
            script(
                "filter/clipfilter2.py",
                *("--input_dir", filtered / "accepted", "--output_dir", filtered, *builtin, *kept),
            ),
        ),
        make(
            "data",
            "training data",
            script(
                "data/build.py",
                *("--images", filtered / "best_views", "--records", world / "records.csv", "--output", data),
                # The small model learns one wording, and what can be seen; the held-out world is the test.
                *("--questions", "shape,technique,date,caption", "--plain", "--val_share", 0, "--test_share", 0),
                *("--caption_fields", "fabric,technique,shape,date,decoration"),
            ),
            data,
        ),
        make(
            "sft",
            "supervised fine-tuning",
            script(
                "model/sft.sh",
                *("--recipe", "demo", "--model", "builtin"),
                *("--dataset", data / "video_training_dataset.json", "--output_dir", sft),
            ),
            sft,
        ),
        make("merge", "merge", script("model/merge.sh", "--adapters", sft, "--output_dir", merged), merged),
        make(
            "grpo",
            "reinforcement learning",
            script(
                "model/grpo.sh",
                *("--recipe", "demo", "--model", merged),
                *("--dataset", data / "grpo_video_dataset.json", "--output_dir", grpo),
            ),
            grpo,
        ),
        make(
            "judge_filters",
            "judge classifier, filter and best view",
            [PYTHON, "-m", "vasekit.demo.judge", str(out)],
            out / "judge",
        ),
        make("eval_sft", "judge after fine-tuning", evaluate("sft", merged, "--sample", 4), out / "eval" / "sft.json"),
        make(
            "eval_permuted",
            "the same with exchanged images",
            evaluate("sft_permuted", merged, "--permute_images"),
            out / "eval" / "sft_permuted.json",
        ),
        make(
            "eval_grpo",
            "judge after reinforcement",
            evaluate("grpo", grpo, "--sample", 4),
            out / "eval" / "grpo.json",
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output", type=cli.user_path, default=cli.default_path("output/demo"), help="folder to write")
    out = parser.parse_args(argv).output
    from vasekit.demo import report

    seconds = Runner(out).run(steps(out))
    report.write(out, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
