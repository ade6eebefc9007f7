"""Published flags against the fast recipe, on the same rows in one run: `python bench/train.py [--stage grpo] [flags]`.

Every recipe trains through model/sft.sh or model/grpo.sh, with the same rows in the same order (no shuffling but ours),
as many rows a step, and the same seed; flags that are not ours go to all of them. LoRA's dropout is off unless
`--lora_dropout` is given: its draws depend on the shape of the batch, and losses could not be compared.

Speed is that of the steady state. ms-swift logs every step (`--logging_steps 1`) with the mean seconds of a step since
training began, `train_speed(s/it)`; times the step that is when it ended. What came before training (imports, weights)
is not in it. The first steps are left out: two, and as many as the rows that loaders read ahead. The data has so many
rows more than are trained on, so that loaders have as much to do at the end as before.

samples: rows of the data set, in GRPO completions. tokens: those of the rows, images included, padding not.

MFU (Chowdhery et al. 2022, "PaLM", appendix B: model FLOPs, recomputed ones not counted, over the peak) of a language
model with P parameters in its layers, A in adapters, T of both trained, queries q wide, a head with E parameters:

    row of t tokens, y of them trained     (4 (P + A) + 2 T) t + (4 + 2 [full]) E y + 6 layers q t^2
    p patches that see each other          (2 V + 2 M / 4) p + 4 v p (full layers p + other layers min(window, p))

that is 2 FLOPs per parameter and token on the way there, 2 on the way back to the inputs, 2 more to trained weights;
scores and sums of attention the same way, half of them as it is causal. The frozen vision tower (V, width v, merger M)
has no way back. The peak is bfloat16's without sparsity from NVIDIA's data sheets, times GPUs, or --peak_tflops.

Repeats alternate between the recipes; a recipe's numbers are those of its run of median speed.

Memory: of the GPU what ms-swift logs (the most that torch reserved), of the host the sum over all processes, pages
that they share counted once, looked at twice a second. Exit status 1 where losses differ by more than the tolerance.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, doctor, files, flags, memory, runs, validation
from vasekit.cli import UserError
from vasekit.flags import Flags
from vasekit.lengths import Lengths

# The built-in world: vases, and the share of them that is for reinforcement.
VASES, GRPO_SHARE = 80, {"sft": 0, "grpo": 0.9}
DATA = {"sft": "video_training_dataset.json", "grpo": "grpo_video_dataset.json"}
# What makes the runs comparable, and leaves nothing behind but what model/*.sh want to see.
FIXED = {
    "logging_steps": "1",
    "split_dataset_ratio": "0",
    "dataset_shuffle": "false",
    "train_dataloader_shuffle": "false",
    "save_only_model": "true",
    "report_to": "none",
}
OURS = {*FIXED, "max_steps", "save_steps", "output_dir", "recipe", "fresh", "dry_run"}
# Relative difference of two losses that learn the same, by the precision of the arithmetic. In float32 sums are taken
# in another order; for half precision the number is a guess.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}
# Dense bfloat16 with sums in float32, in 10^12 per second; the first name that is in the card's counts.
PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H200 NVL": 835,
    "H100": 989,
    "H200": 989,
    "H800": 989,
    "H20": 148,
    "A100": 312,
    "A800": 312,
    "A40": 150,
    "A30": 165,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 6000 Ada": 364,
    "RTX A6000": 155,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
WARMUP = 2


def positive(text: str) -> float:
    """argparse type: a number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} given, needs a number above 0")
    return value


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Flags]:
    """Our flags, and those for every recipe."""
    parser = cli.Parser(f"{__doc__.splitlines()[0]} Further flags are ms-swift's, for all recipes.")
    add = parser.add_argument
    add("--stage", choices=tuple(DATA), default="sft", help="fine-tuning or reinforcement")
    add("--recipes", nargs="+", default=["paper", "fast"], help="of model/recipes/, or .yaml files; the first is the 1")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default="builtin", help="a model folder, or builtin")
    model.add_argument("--config", type=cli.user_path, help="such a folder without weights: they are drawn (bfloat16)")
    add("--dataset", type=cli.user_path, help="a training file (default: the built-in world, rendered for this)")
    add("--samples", type=cli.positive_int, default=256, help="to train on, a multiple of the rows a step")
    add("--repeats", type=cli.positive_int, default=1, help="runs of each recipe")
    add("--peak_tflops", type=positive, help="of one device, for MFU (default: by the GPU's name)")
    add("--tolerance", type=positive, help="relative difference of losses (default: 1e-4 in float32, else 2e-2)")
    add("--output", type=cli.user_path, help="JSON file to write")
    args, rest = parser.parse_known_args(argv)
    own = flags.parse(rest)
    if taken := sorted(OURS & own.keys()):
        raise UserError(f"--{taken[0]}: is set here; the flags of this program are in --help")
    return args, {"lora_dropout": ["0"]} | own


def main(argv: Sequence[str] | None = None) -> int:
    args, own = parse(argv)
    if args.output:
        can_write(args.output)
    with tempfile.TemporaryDirectory(prefix="bench-train.") as folder:
        report = bench(args, own, Path(folder))
    print("\n".join(table(report)))
    if args.output:
        files.write_json(args.output, report)
    if report["losses"].get("agree") is False:
        print("error: the recipes do not learn the same", file=sys.stderr)
        return 1
    return 0


def can_write(path: Path) -> None:
    """Fail now where the report could not be written at the end."""
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder, needs a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path.parent).close()


def bench(args: argparse.Namespace, own: Flags, folder: Path) -> dict[str, Any]:
    """All recipes, one after the other, and what they took."""
    source = cli.need_file(args.dataset, "--dataset") if args.dataset else world(args.stage, folder)
    model = str(drawn(args.config, folder / "model")) if args.config else args.model
    own = own | {"model": [model], "dataset": [str(source)], "output_dir": [str(folder / "run")]}
    jobs = [examine(args.stage, recipe, own) for recipe in args.recipes]
    _, processes = doctor.devices(dict(os.environ))
    batch, most_ahead = same_batch(jobs, processes), max(ahead(job, processes) for job in jobs)
    skipped = WARMUP + most_ahead
    steps = str(count_steps(args.samples, batch, skipped))
    rows = pick(source, args.samples + batch * most_ahead)
    own |= {"dataset": [str(write_rows(folder / "rows.jsonl", rows))], "max_steps": [steps], "save_steps": [steps]}
    trained = [] if args.stage == "grpo" else rows[: args.samples]
    works = [count_work(trained, job, source) for job in jobs]
    repeats: list[list[dict[str, Any]]] = [[] for _ in jobs]
    for _ in range(args.repeats):
        for job, work, own_runs in zip(jobs, works, repeats, strict=True):
            with tempfile.TemporaryDirectory(dir=folder) as output:
                host = train(job, own | {"output_dir": [f"{output}/run"]})
                measured = measure(job, Path(output) / "run", work, batch, skipped, args.peak_tflops)
            own_runs.append(measured | {"host_memory_gib": host})
    done = [median(own_runs) for own_runs in repeats]
    return {
        "stage": args.stage,
        "model": str(args.config or jobs[0].flags["model"][0]),
        "dataset": str(args.dataset or "built-in world"),
        "samples": args.samples,
        "samples_a_step": batch,
        "skipped_steps": skipped,
        "repeats": args.repeats,
        "processes": processes,
        "cores": os.cpu_count(),
        "versions": cli.versions("ms-swift", "torch", "transformers", "peft"),
        "recipes": done,
        "ratios": [ratios(one, done[0]) for one in done[1:]],
        "losses": compare(args, jobs, done),
    }


# ---- what is trained on ----


def world(stage: str, folder: Path) -> Path:
    """A training file of the built-in world, made by the kit's own scripts."""
    museum, data = folder / "museum", folder / "data"
    shares = ("--val_share", 0, "--test_share", 0, "--grpo_share", GRPO_SHARE[stage])
    for script, *words in (
        ("make_world.py", "--vases", VASES, "--views", 2, "--output", museum),
        ("build.py", "--images", museum / "photos", "--records", museum / "records.csv", "--output", data, *shares),
    ):
        command = [sys.executable, str(cli.ROOT / "data" / script), *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return data / DATA[stage]


def drawn(config: Path, folder: Path) -> Path:
    """A model of random weights with the configuration, tokenizer and processor in `config`."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    files.read_json(cli.need_dir(config, "--config") / "config.json", "--config")
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(config), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for path in config.iterdir():
        if path.is_file() and path.suffix not in (".safetensors", ".bin") and not path.name.endswith(".index.json"):
            files.place(path, folder / path.name)
    return folder


def pick(source: Path, count: int) -> list[dict]:
    """Rows in a random order that is always the same; again from the start where there are too few."""
    rows = [value for _, value in validation.read(source)]  # all of them good: the script has looked
    draw, chosen = random.Random(7), []
    while len(chosen) < count:
        chosen += draw.sample(rows, len(rows))
    return chosen[:count]


def write_rows(path: Path, rows: Sequence[dict]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


# ---- the runs ----


@dataclass(frozen=True)
class Job:
    """A recipe as the script would start it: final flags, and the variables that it sets."""

    stage: str
    recipe: str
    flags: Flags
    variables: dict[str, str]

    @property
    def name(self) -> str:
        return Path(self.recipe).stem

    @property
    def model(self) -> Path:
        return Path(self.flags["model"][0])

    def number(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if not value.isdigit():
            raise UserError(f"--{name} {value}: needs a whole number")
        return int(value)

    def text(self, name: str, default: str) -> str:
        return self.flags.get(name, [default])[-1].lower()


def start(stage: str, recipe: str, own: Flags) -> list[str]:
    fixed = {name: [value] for name, value in FIXED.items()}
    return [str(cli.ROOT / "model" / f"{stage}.sh"), "--recipe", recipe, *flags.render(own | fixed)]


def examine(stage: str, recipe: str, own: Flags) -> Job:
    """What `--dry_run` says of a recipe. Raises UserError with the script's own refusal."""
    command, environment = [*start(stage, recipe, own), "--dry_run"], os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{stage} --recipe {recipe}: {last_line(done.stderr).removeprefix('error: ')}")
    return Job(stage, recipe, *shown(last_line(done.stdout)))


def last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[-1:]), "no output")


def shown(line: str) -> tuple[Flags, dict[str, str]]:
    """Flags and variables of `NAME=VALUE ... swift COMMAND --flag value ...`."""
    words = shlex.split(line)
    first = next(place for place, word in enumerate(words) if "=" not in word)
    return flags.parse(words[first + 2 :]), dict(word.split("=", 1) for word in words[:first])


def rows_a_step(job: Job, processes: int) -> int:
    return job.number("per_device_train_batch_size", 1) * job.number("gradient_accumulation_steps", 1) * processes


def same_batch(jobs: Sequence[Job], processes: int) -> int:
    """Samples a step. Raises UserError where the recipes differ in them, or rows are packed."""
    if packs := [job.name for job in jobs if job.text("packing", "false") == "true"]:
        raise UserError(f"--recipes {packs[0]}: packs rows, so that a step has no fixed number; --packing false")
    sizes = {job.name: rows_a_step(job, processes) for job in jobs}
    if len(set(sizes.values())) > 1:
        named = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"--recipes: samples a step differ ({named}); compare recipes with the same effective batch")
    return next(iter(sizes.values()))


def ahead(job: Job, processes: int) -> int:
    """Steps whose rows the loaders hold ready."""
    batches = job.number("dataloader_num_workers", 0) * job.number("dataloader_prefetch_factor", 2)
    rows = batches * job.number("per_device_train_batch_size", 1) * processes
    return math.ceil(rows / rows_a_step(job, processes))


def count_steps(samples: int, batch: int, skipped: int) -> int:
    """Raises UserError where the samples are no whole steps, or too few to measure."""
    least = batch * (skipped + 2)
    if samples % batch or samples < least:
        raise UserError(
            f"--samples {samples}: needs a multiple of {batch} (the effective batch), at least {least} as the first"
            f" {skipped} steps are not measured (fewer with --dataloader_num_workers 0)"
        )
    return samples // batch


def train(job: Job, own: Flags) -> float:
    """Run it; gibibytes of host memory at the peak. Raises UserError where it fails, with its last words on stderr."""
    environment = os.environ | {"PYTHON": sys.executable}
    if root := job.variables.get("ROOT_IMAGE_DIR"):  # of relative paths: ours are rows of another file
        environment["ROOT_IMAGE_DIR"] = root
    watch, log = cli.Stopwatch(), Path(own["output_dir"][0]).with_suffix(".log")
    command = start(job.stage, job.recipe, own)
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        try:
            peak = observe(process)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        said = log.read_text(errors="replace")
        print("\n".join(said.splitlines()[-20:-1]), file=sys.stderr)
        reason, _, _ = last_line(said).removeprefix("error: ").partition(";")  # the rest is how to go on, in vain
        raise UserError(f"{job.stage} --recipe {job.recipe}: {reason}")
    print(f"{job.name}: trained, {watch.seconds:.0f} s with imports", file=sys.stderr)
    return round(peak / 2**30, 3)


def observe(process: subprocess.Popen) -> float:
    """Wait for the end; bytes at the peak of the process and all below it, shared pages divided among their users."""
    peak = 0.0
    while True:
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            peak = max(peak, held(process.pid))
        else:
            return peak


def held(pid: int) -> float:
    import psutil

    total = 0.0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended
                total += process.memory_full_info().pss
    return total


# ---- FLOPs ----


@dataclass(frozen=True)
class Work:
    """A row: its tokens, how many of them are trained, and patches by groups that see each other in the tower."""

    tokens: int
    trained: int
    groups: tuple[int, ...]


def count_work(values: Sequence[dict], job: Job, source: Path) -> list[Work]:
    """Of rows in the file `source`, which paths are relative to; counted as the doctor counts tokens."""
    rules = doctor.settings(dict(job.flags), os.environ | job.variables, reward=False)
    pictures, merged = validation.Pictures(rules.root), memory.Shape.of(job.model).merge ** 2
    with ThreadPoolExecutor(1) as pool:
        return [
            _work(validation.parse(value, False), rules.lengths, pictures, source, merged, pool) for value in values
        ]


def _work(
    row: validation.Row, count: Lengths, pictures: validation.Pictures, source: Path, merged: int, pool: Executor
) -> Work:
    located = {name: pictures.locate(name, source.parent) for name in row.paths}
    pictures.load(located.values(), pool)
    sizes = [pictures[located[name]] for name in row.images]
    films = [[pictures[located[name]] for name in frames] for frames in row.videos]
    # A picture is one group; two frames of a video are one.
    pairs = [(count.image(size), 1) for size in sizes] + [(count.video(one), math.ceil(len(one) / 2)) for one in films]
    groups = tuple(merged * tokens // parts for tokens, parts in pairs for _ in range(parts))
    ends = [count.row(row.turns[:k], "", [], []) for k in range(1, len(row.turns) + 1)]
    trained = sum(ends[k] - ends[k - 1] for k in range(1, len(ends), 2))
    return Work(count.row(row.turns, row.system, sizes, films), trained, groups)


def language_flops(shape: memory.Shape, adapter: int, row: Work) -> float:
    """There and back of a row through the language model; adapter: its parameters, 0 for full tuning."""
    layers = shape.llm - shape.embedding * (1 if shape.tied else 2)
    per_token = 4 * (layers + adapter) + 2 * (adapter or layers)
    head = (4 if adapter else 6) * shape.embedding
    return per_token * row.tokens + head * row.trained + 6 * shape.layers * shape.queries * row.tokens**2


def vision_flops(shape: memory.Shape, full_layers: int, window: int, patches: int) -> float:
    """The way there of patches that see each other, through tower and merger; window: patches, of the other layers."""
    weights = 2 * shape.vision * patches + 2 * shape.aligner * patches / shape.merge**2
    seen = full_layers * patches + (shape.v_layers - full_layers) * min(window, patches)
    return weights + 4 * shape.v_hidden * patches * seen


def all_flops(model: Path, given: Flags, rows: Sequence[Work]) -> float:
    """Of all rows, there and back."""
    shape, config = memory.Shape.of(model), files.read_json(model / "config.json", "--model")
    vision = config.get("vision_config", {})
    full = given.get("tuner_type", ["lora"])[-1] == "full"
    adapter = 0 if full else memory.trainable(shape, given)
    window = (vision.get("window_size", 112) // vision.get("patch_size", 14)) ** 2
    layers = len(vision.get("fullatt_block_indexes", (7, 15, 23, 31)))
    towers = sum(vision_flops(shape, layers, window, group) for row in rows for group in row.groups)
    return towers + sum(language_flops(shape, adapter, row) for row in rows)


def no_formula(job: Job) -> str:
    """Why FLOPs can't be told, empty where they can."""
    if job.stage == "grpo":
        return "no formula for generation"
    tuner = job.text("tuner_type", "lora")
    if tuner not in ("lora", "full"):
        return f"no formula for --tuner_type {tuner}"
    trained = [part for part in ("vit", "aligner") if job.text(f"freeze_{part}", "true") != "true"]
    if trained or job.text("freeze_llm", "false") == "true" or job.text("target_modules", "all-linear") != "all-linear":
        return "the formula is for a trained language model and a frozen vision tower"
    return ""


def peak(names: Sequence[str], given: float | None) -> tuple[float | None, str]:
    """FLOPs per second of one device, or why they are not known."""
    if given:
        return given * 1e12, ""
    if not names:
        return None, "no GPU; give --peak_tflops"
    known = {next((value for key, value in PEAKS.items() if re.search(rf"\b{key}\b", name)), None) for name in names}
    if len(known) > 1 or None in known:
        return None, f"no peak known for {', '.join(sorted(set(names)))}; give --peak_tflops"
    return known.pop() * 1e12, ""


# ---- what came out ----


def steps_of(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of the log that stand for one step each, in order."""
    return [entry for entry in entries if "loss" in entry]


def ended(entry: dict[str, Any]) -> float:
    """Seconds from the start of training to the end of this step."""
    return runs.step_of(entry)[0] * float(entry["train_speed(s/it)"])


def measure(
    job: Job, output: Path, rows: Sequence[Work], batch: int, skipped: int, tflops: float | None
) -> dict[str, Any]:
    """Speed, memory and losses of a run from its log and its run.json; rows: those trained on, in order."""
    steps, note = steps_of(runs.log(output)), runs.read(output)
    seconds = ended(steps[-1]) - ended(steps[skipped - 1])
    counted = rows[skipped * batch :]
    found = {
        "recipe": job.name,
        "flags": job.flags,
        "measured_seconds": round(seconds, 3),
        "samples_per_second": (len(steps) - skipped) * batch / seconds,
        "tokens_per_second": sum(row.tokens for row in counted) / seconds if rows else None,
        "gpus": [gpu["name"] for gpu in note["gpus"]],
        "gpu_memory_gib": note["finished"]["peak_memory_gib"].get("gpu"),
        "losses": [entry["loss"] for entry in steps],
        "rewards": [entry["reward"] for entry in steps if "reward" in entry],
    }
    return found | utilisation(job, counted, seconds, found["gpus"], note["processes"], tflops)


def utilisation(
    job: Job, rows: Sequence[Work], seconds: float, names: Sequence[str], processes: int, tflops: float | None
) -> dict[str, Any]:
    """mfu, or without_mfu: why there is none; FLOPs of the model per second where there is a formula."""
    if reason := no_formula(job):
        return {"flops_per_second": None, "mfu": None, "without_mfu": reason}
    speed = all_flops(job.model, job.flags, rows) / seconds
    most, reason = peak(names, tflops)
    mfu = speed / most / processes if most else None
    return {"flops_per_second": speed, "mfu": mfu, "without_mfu": reason or None}


def median(own_runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run of median speed (of two in the middle the slower), and the speeds of all."""
    ordered = sorted(own_runs, key=lambda run: run["samples_per_second"])
    speeds = [run["samples_per_second"] for run in own_runs]
    return ordered[(len(ordered) - 1) // 2] | {"repeats_samples_per_second": speeds}


RATIOS = ("samples_per_second", "tokens_per_second", "mfu", "gpu_memory_gib", "host_memory_gib")


def ratios(one: dict[str, Any], base: dict[str, Any]) -> dict[str, float | None]:
    return {name: one[name] / base[name] if one[name] and base[name] else None for name in RATIOS}


def compare(args: argparse.Namespace, jobs: Sequence[Job], done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether all recipes had the first one's losses, step by step; or why that can't be told."""
    if len(jobs) < 2:
        return {"not_compared": "one recipe alone"}
    if args.stage == "grpo":
        return {"not_compared": "answers are sampled"}
    if any(job.text("tuner_type", "lora") == "lora" and float(job.text("lora_dropout", "0.05")) for job in jobs):
        return {"not_compared": "dropout draws by the shape of a batch"}
    allowed = args.tolerance or max(TOLERANCE.get(job.text("torch_dtype", ""), 2e-2) for job in jobs)
    return verdict([one["losses"] for one in done], allowed)


def verdict(losses: Sequence[Sequence[float]], allowed: float) -> dict[str, Any]:
    """The largest relative difference of any step to the first recipe's; NaN agrees with nothing."""
    base, *others = losses
    differences = [abs(a - b) / max(abs(a), 1e-12) for other in others for a, b in zip(base, other, strict=True)]
    agree = all(difference <= allowed for difference in differences)
    return {"agree": agree, "largest_difference": max(differences), "tolerance": allowed}


# ---- the table ----

LINES = (
    ("samples/s", "samples_per_second", "{:,.2f}"),
    ("tokens/s", "tokens_per_second", "{:,.0f}"),
    ("MFU", "mfu", "{:.3f}"),
    ("GPU memory, GiB", "gpu_memory_gib", "{:.2f}"),
    ("host memory, GiB", "host_memory_gib", "{:.2f}"),
)


def table(report: dict[str, Any]) -> list[str]:
    done, unit = report["recipes"], "completions" if report["stage"] == "grpo" else "samples"
    where = ", ".join(sorted(set(done[0]["gpus"]))) or f"CPU, {report['cores']} cores"
    measured = report["samples"] - report["skipped_steps"] * report["samples_a_step"]
    names = [one["recipe"] for one in done]
    heads = [*names, *(f"{name}/{names[0]}" for name in names[1:])]
    return [
        f"{report['stage']}, {Path(report['model']).name}, {where}: {report['samples']} {unit}, "
        f"{report['samples_a_step']} a step; speed of the last {measured}",
        _line("", heads),
        *([_line("  slowest, fastest", [_range(one) for one in done])] if report["repeats"] > 1 else []),
        *(_measured(title.replace("samples", unit), key, form, report) for title, key, form in LINES),
        _line("loss, first step", [f"{one['losses'][0]:.6f}" for one in done]),
        _line("loss, last step", [f"{one['losses'][-1]:.6f}" for one in done]),
        *([_line("reward, mean", [f"{mean(one['rewards']):.4f}" for one in done])] if done[0]["rewards"] else []),
        *(f"no MFU: {reason}" for reason in dict.fromkeys(one["without_mfu"] for one in done) if reason),
        _said(report["losses"]),
    ]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _range(one: dict[str, Any]) -> str:
    speeds = one["repeats_samples_per_second"]
    return f"{min(speeds):,.2f}, {max(speeds):,.2f}"


def _measured(title: str, key: str, form: str, report: dict[str, Any]) -> str:
    values = [form.format(one[key]) if one[key] else "-" for one in report["recipes"]]
    return _line(title, [*values, *(f"{one[key]:.2f}" if one[key] else "-" for one in report["ratios"])])


def _line(title: str, cells: Sequence[str]) -> str:
    return f"{title:<18}" + "".join(f"{cell:>14}" for cell in cells)


def _said(losses: dict[str, Any]) -> str:
    if reason := losses.get("not_compared"):
        return f"losses are not compared: {reason}"
    word = "agree" if losses["agree"] else "DIFFER"
    return (
        f"losses of all steps {word}: by {losses['largest_difference']:.1e} at most, {losses['tolerance']:g} is allowed"
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
