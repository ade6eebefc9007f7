"""Make the two built-in models again: `make builtin`. Seeded; prints how long it took; rewrites the model cards."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from vasekit import builtin, cli, files

_CLIP_CARD = """# tiny-clip

An [open_clip](https://github.com/mlfoundations/open_clip) model of 1.5 million parameters: a ResNet with one block per
stage for {size} x {size} pixels, a two-layer text tower with a vocabulary of 700 pieces, 64 shared dimensions.

**It knows only rendered vases.** It was trained from nothing on photographs that `vasekit/synth` renders. Its verdicts
on real photographs mean nothing; it exists so that the chain runs, and is tested, without a download.

Made by `make builtin` in {seconds:.0f} s ({machine}): {images:,} renders of {vases:,} vases, {epochs} epochs, a CLIP
loss whose target is spread over all pairs that fit. Captions come from `vasekit/builtin/captions.py`; the prompts of
`vasekit/prompts.yaml`, which the filter scores with, never occur among them.

Scores on vases never trained on, with the prompts of `vasekit/prompts.yaml`:

{scores}

Licence: MIT, as the kit.
"""

_VLM_CARD = """# tiny-qwen2.5-vl

A base checkpoint in Hugging Face format: the architecture of Qwen2.5-VL with {parameters:,} parameters, a vocabulary of
{vocabulary} pieces and {size} x {size} pixels, in bfloat16. Image and video tokens have ids of their own, read from
`tokenizer.json` (`plugin/plugin.py` tells ms-swift).

**It knows only rendered vases, and only plain words for them** ("slim tall bottle, dark on orange"). Shape names,
techniques and dates are what supervised fine-tuning teaches it in `make demo`. It is of no use on real photographs.

Made by `make builtin` in {seconds:.0f} s ({machine}): {images:,} renders of as many vases; {vision} steps for the
vision tower on the traits of a vase, {language} steps for the language model on plain questions and repeating phrases.

Share of unseen vases whose traits the tower's own heads tell right (`vision`), and share of plain answers that are
right in every token (`language`):

{scores}

Licence: MIT, as the kit.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(__doc__)
    parser.add_argument("model", nargs="?", choices=("clip", "vlm", "all"), default="all", help="which to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument(
        "--output", type=cli.user_path, default=builtin.FOLDER, help="folder that gets the model folders"
    )
    flags = parser.parse_args(argv)
    makers = {"clip": (builtin.CLIP.name, _clip), "vlm": (builtin.VLM.name, _vlm)}
    if flags.model == "all":
        return _side_by_side(list(makers), sys.argv[1:] if argv is None else list(argv))
    folder, maker = makers[flags.model]
    _make(flags.output / folder, maker, flags.seed)
    return 0


def _side_by_side(names: list[str], words: list[str]) -> int:
    """One process for each model: two small trainings share the cores better than one spreads over them."""
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(names)))}
    flags = [word for word in words if word != "all"]
    commands = [[sys.executable, "-m", "vasekit.builtin.make", name, *flags] for name in names]
    processes = [subprocess.Popen(command, env=os.environ | threads) for command in commands]
    return max(process.wait() for process in processes)


def _make(folder: Path, maker: Callable[[Path, int], tuple[str, dict]], seed: int) -> None:
    watch = cli.Stopwatch()
    with files.staging_dir(folder) as stage:
        card, facts = maker(stage, seed)
        facts |= {
            "seconds": watch.seconds,
            "machine": f"{platform.machine()}, torch {version('torch')}",
            "scores": _score_table(facts["scores"]),
        }
        (stage / "README.md").write_text(card.format(**facts))
        size = sum(path.stat().st_size for path in stage.iterdir())
    watch.close(folder.name, f"{size / 1e6:.2f} MB in {folder}", facts["images"], "renders")


def _score_table(scores: dict) -> str:
    return "```json\n" + json.dumps(scores, indent=2) + "\n```"


def _clip(folder: Path, seed: int) -> tuple[str, dict]:
    from vasekit.builtin import make_clip, renders

    scores = make_clip.make(folder, seed)
    count = make_clip.TRAIN_IMAGES
    facts = {"size": renders.SIZE, "images": count, "vases": count // 2, "epochs": make_clip.EPOCHS}
    return _CLIP_CARD, facts | {"scores": scores}


def _vlm(folder: Path, seed: int) -> tuple[str, dict]:
    from vasekit.builtin import make_vlm, renders

    scores = make_vlm.make(folder, seed)
    facts = {
        "size": renders.SIZE,
        "images": make_vlm.TRAIN_IMAGES,
        "vocabulary": make_vlm.VOCABULARY,
        "vision": make_vlm.VISION_STEPS,
        "language": make_vlm.LANGUAGE_STEPS,
    }
    return _VLM_CARD, facts | scores.pop("size") | {"scores": scores}


if __name__ == "__main__":
    sys.exit(cli.run(main))
