"""Train the image quality classifier on DATA_DIR/0 (low quality) and DATA_DIR/1 (high quality)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, devices, files, pipeline, quality

# The published settings; each is the default of a flag. DEFAULT_GPU was 2: None takes the first there is.
DEFAULT_GPU = None
BATCH_SIZE = 256
NUM_EPOCHS = 200
DATA_DIR = "images2"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--data_dir", type=cli.user_path, default=cli.default_path(DATA_DIR), help="folder with 0/ and 1/")
    add("--output", type=cli.user_path, default=cli.default_path("best_image_quality_model.pth"), help="checkpoint")
    add("--backbone", choices=quality.BACKBONES, default="resnet50", help="network below the head")
    add("--image_size", type=cli.positive_int, default=224, help="pixels; pictures are letterboxed to a square")
    add("--weights", default="imagenet", help="to start from: imagenet, builtin, none, or a file")
    add("--batch_size", type=cli.positive_int, default=BATCH_SIZE, help="images per step")
    add("--epochs", type=cli.positive_int, default=NUM_EPOCHS, help="passes over the training images")
    add("--learning_rate", type=float, default=1e-3, help="highest of the schedule")
    add("--weight_decay", type=float, default=1e-4, help="of the optimizer")
    add("--optimizer", choices=("adam", "adamw"), default="adam", help="adam as published")
    add("--schedule", choices=("step", "onecycle"), default="step", help="step: x0.1 every 10 epochs, as published")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 on a GPU, fp32 on a CPU")
    add("--workers", type=cli.positive_int, default=pipeline.DEFAULT_WORKERS, help="threads that decode")
    add("--seed", type=int, default=42, help="of the split, the order and the augmentation")
    devices.add_flags(parser, DEFAULT_GPU)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    cli.need_dir(args.data_dir, "--data_dir")
    watch = cli.Stopwatch()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    photos = quality.load_photos(args.data_dir, args.image_size, args.workers, args.output.parent)
    device = devices.pick(args.device, args.gpu)
    settings = quality.Settings(args.backbone, args.image_size)
    recipe = quality.Recipe(**{name: getattr(args, name) for name in asdict(quality.Recipe())})
    split = photos.split(args.seed)
    model = quality.make(settings, args.weights, args.seed)
    history = quality.fit(model, photos, split, settings, recipe, device, args.output)
    best, _ = quality.load(args.output, "--output", device)
    test = quality.evaluate(best, photos, split["test"], args.batch_size, device)[1]
    results = {
        "test_metrics": test,
        **asdict(history),
        "counts": {name: photos.count(indices) for name, indices in split.items()},
        "errors": photos.errors,
        "device": device,
        "checkpoint": str(args.output),
        "settings": cli.settings(args),
        "versions": cli.versions("torch", "torchvision", "pillow"),
        "seconds": round(watch.seconds, 2),
    }
    quality.draw_history(history, args.output.parent / "training_history.png")
    files.write_json(args.output.parent / "training_results.json", results)
    what = (
        f"balanced accuracy {test['balanced_accuracy']:.3f} on {test['n']} test images, best of epoch"
        f" {history.best_epoch}, {len(photos.errors)} unreadable -> {args.output}"
    )
    watch.close("classifier", what, len(split["train"]) * args.epochs, "training images")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
