"""Train the image quality classifier on DATA_DIR/0 (low quality) and DATA_DIR/1 (high quality).

Interrupted at any moment, the same command goes on after the last finished epoch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, devices, files, pipeline, quality, training

# The published settings; each is the default of a flag. DEFAULT_GPU was 2: None takes the first there is.
DEFAULT_GPU = None
BATCH_SIZE = 256
NUM_EPOCHS = 200
DATA_DIR = "images2"

# What torch would only refuse in the middle of the work. Batch norm needs two images.
LEAST = {"batch_size": 2, "learning_rate": 0, "weight_decay": 0, "patience": 0, "seed": 0}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--data_dir", type=cli.user_path, default=cli.default_path(DATA_DIR), help="folder with 0/ and 1/")
    add("--output", type=cli.user_path, default=cli.default_path("best_image_quality_model.pth"), help="checkpoint")
    add("--backbone", choices=quality.BACKBONES, default="resnet50", help="network below the head")
    add("--image_size", type=cli.positive_int, default=224, help="pixels; pictures are letterboxed to a square")
    add("--squash", action="store_true", help="squash pictures to the square instead, as published")
    add("--weights", default="imagenet", help="to start from: imagenet, builtin, none, or a file")
    add("--batch_size", type=int, default=BATCH_SIZE, help="images per step")
    add("--epochs", type=cli.positive_int, default=NUM_EPOCHS, help="passes over the training images, at most")
    add("--patience", type=int, default=20, help="stop after so many epochs without improvement; 0: never")
    add("--learning_rate", type=float, default=1e-3, help="highest of the schedule")
    add("--weight_decay", type=float, default=1e-4, help="of the optimizer")
    add("--optimizer", choices=("adam", "adamw"), default="adam", help="adam as published")
    add("--schedule", choices=("step", "onecycle"), default="step", help="step: x0.1 every 10 epochs, as published")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="auto: half on a GPU only")
    add("--workers", type=cli.positive_int, default=pipeline.DEFAULT_WORKERS, help="threads that decode")
    add("--seed", type=int, default=42, help="of the split, the order and the augmentation")
    add("--fresh", action="store_true", help="replace an earlier run instead of going on; leave it out to resume")
    devices.add_flags(parser, DEFAULT_GPU)
    args = parser.parse_args(argv)
    for name, least in LEAST.items():
        if not getattr(args, name) >= least:  # so that nan is refused too
            parser.error(f"argument --{name}: {getattr(args, name)} given, needs at least {least}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    cli.need_dir(args.data_dir, "--data_dir")
    if args.output.is_dir():
        raise cli.UserError(f"--output {args.output}: is a folder, needs the name of a file")
    watch = cli.Stopwatch()
    paths = quality.find_labelled(args.data_dir)
    device = devices.pick(args.device, args.gpu)
    settings, recipe = quality.Settings(args.backbone, args.image_size, not args.squash), chosen_recipe(args, device)
    identity = {
        **asdict(settings),
        **asdict(recipe),
        "weights": files.sha256(Path(args.weights)) if Path(args.weights).is_file() else args.weights,
        "device": device.split(":")[0],
        "data_sha256": quality.data_sha256(paths, args.data_dir),
    }
    if args.fresh:
        training.resume_path(args.output).unlink(missing_ok=True)
    elif training.finished(args.output, identity):
        print(f"classifier: done before, {args.output} (--fresh starts over)")
        return 0
    state = training.unfinished(args.output, identity)
    model = quality.make(settings, "none" if state else args.weights, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    photos = quality.load_photos(paths, args.data_dir, settings, args.workers, args.output.parent)
    trainer = training.Trainer(model, photos, photos.split(args.seed), recipe, device)
    if state:
        trainer.restore(state)
    before = trainer.history.epochs
    training.fit(trainer, settings, args.output, identity)
    results = finish(trainer, args, identity, watch)
    test, epochs = results["test_metrics"], trainer.history.epochs - before
    what = (
        f"balanced accuracy {test['balanced_accuracy']:.3f} on {test['n']} test images, best of epoch"
        f" {results['best_epoch']}, {len(photos.errors)} unreadable -> {args.output}"
    )
    watch.close("classifier", what, results["counts"]["train"]["images"] * epochs, "training images")
    return 0


def chosen_recipe(args: argparse.Namespace, device: str) -> training.Recipe:
    """The flags, with `auto` resolved: on a CPU fp32, which is the same on every machine."""
    given = {name: getattr(args, name) for name in asdict(training.Recipe())}
    if args.precision == "auto":
        given["precision"] = "fp32" if device == "cpu" else devices.fast_precision(device)
    return training.Recipe(**given)


def finish(
    trainer: training.Trainer, args: argparse.Namespace, identity: dict[str, Any], watch: cli.Stopwatch
) -> dict[str, Any]:
    """Judge the best checkpoint on the test images, write all that is worth knowing, and end the run."""
    photos, split, history = trainer.photos, trainer.split, trainer.history
    best, _ = quality.load(args.output, "--output", trainer.device)
    results = {
        "test_metrics": training.evaluate(best, photos, split["test"], args.batch_size, trainer.device)[1],
        **asdict(history),
        "best_epoch": history.best_epoch,
        "counts": {name: photos.count(indices) for name, indices in split.items()},
        "errors": photos.errors,
        "device": trainer.device,
        "checkpoint": str(args.output),
        "checkpoint_sha256": files.sha256(args.output),
        "data_sha256": identity["data_sha256"],
        "identity": identity,
        "settings": cli.settings(args),
        "versions": cli.versions("torch", "torchvision", "pillow"),
        "seconds": round(watch.seconds, 2),
    }
    training.draw_history(history, args.output.parent / "training_history.png")
    files.write_json(args.output.parent / training.RESULTS, results)
    training.resume_path(args.output).unlink(missing_ok=True)
    return results


if __name__ == "__main__":
    sys.exit(cli.run(main))
