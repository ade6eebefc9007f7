"""The quality classifier: training, what it leaves behind, and sorting with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from filter_entry import broken, entry, module
from PIL import Image

from vasekit import quality
from vasekit.cli import UserError
from vasekit.quality import History, Recipe, Settings

train, classify = entry("model"), entry("classifier")
TINY = ("--backbone", "resnet18", "--image_size", "32", "--weights", "none", "--device", "cpu", "--workers", "1")


def sort_by_hand(folder: Path, vases: int, views: int = 2) -> Path:
    """Class 1: a dark upright shape in the middle; class 0: none. `views` photographs of each vase."""
    rng = np.random.default_rng(5)
    for label in (0, 1):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for vase in range(vases):
            for view in range(views):
                pixels = rng.integers(170, 256, (40, 40, 3), np.uint8)
                if label:
                    pixels[5:35, 12:28] //= 6
                Image.fromarray(pixels).save(folder / str(label) / f"v{label}{vase}_{view}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with images2/ and what training on it wrote."""
    folder = tmp_path_factory.mktemp("trained")
    broken(sort_by_hand(folder / "images2", 24) / "0/broken_1.jpg")
    flags = ("--data_dir", folder / "images2", "--output", folder / "best.pth", *TINY, "--batch_size", 16)
    recipe = ("--epochs", 3, "--optimizer", "adamw", "--schedule", "onecycle", "--learning_rate", 2e-3)
    assert train([str(flag) for flag in (*flags, *recipe)]) == 0
    return folder


def test_published_settings_are_the_defaults():
    args = module("model").parse([])
    assert (args.batch_size, args.epochs, args.image_size, args.seed) == (256, 200, 224, 42)
    assert (args.backbone, args.weights, args.optimizer, args.schedule) == ("resnet50", "imagenet", "adam", "step")
    assert (args.learning_rate, args.weight_decay) == (1e-3, 1e-4)
    assert (args.data_dir.name, args.output.name) == ("images2", "best_image_quality_model.pth")
    assert args.gpu is args.device is None, "a hidden GPU 2 fails on most machines"
    args = module("classifier").parse([])
    assert (args.source_dir.name, args.target_dir.name, args.batch_size) == ("images", "images3", 32)
    assert args.model_path.name == "best_image_quality_model.pth"


def test_the_head_is_the_published_one():
    with torch.device("meta"):  # the layers without their weights
        head = quality.build(Settings("resnet50", 224)).fc
    assert [type(layer).__name__ for layer in head] == [*["Linear", "ReLU", "Dropout"] * 2, "Linear"]
    assert [(m.in_features, m.out_features) for m in head if hasattr(m, "in_features")] == [
        (2048, 512),
        (512, 256),
        (256, 2),
    ]
    assert [m.p for m in head if hasattr(m, "p")] == [0.5, 0.3]


def test_training_learns_and_reports(trained):
    results = json.loads((trained / "training_results.json").read_text())
    assert results["test_metrics"]["balanced_accuracy"] >= 0.75
    assert {"accuracy", "precision", "recall", "f1", "confusion_matrix", "n"} <= set(results["test_metrics"])
    assert {len(results[key]) for key in ("train_losses", "val_losses", "train_accs", "val_accs")} == {3}
    assert results["errors"][0]["filename"] == "0/broken_1.jpg"
    counts = results["counts"]
    assert sum(split["images"] for split in counts.values()) == 96
    assert [counts[name]["vases"] for name in ("train", "val", "test")] == [40, 4, 4]
    assert {split["low_quality"] - split["high_quality"] for split in counts.values()} == {0}
    assert results["settings"]["learning_rate"] == 2e-3
    assert "torch" in results["versions"]
    with Image.open(trained / "training_history.png") as picture:
        assert picture.format == "PNG"


def test_the_checkpoint_holds_weights_and_settings_only(trained):
    checkpoint = torch.load(trained / "best.pth", weights_only=True)
    assert checkpoint["settings"] == {"backbone": "resnet18", "image_size": 32, "letterbox": True}
    assert checkpoint["classes"] == ["0", "1"]


def test_a_checkpoint_is_kept_even_if_nothing_is_right(tmp_path, monkeypatch):
    """The best accuracy so far starts below 0, not at it."""
    monkeypatch.setattr(quality, "evaluate", lambda *_: (9.0, {"accuracy": 0.0, "balanced_accuracy": 0.0}))
    photos = quality.load_photos(sort_by_hand(tmp_path / "d", 3, 1), 32, 1, tmp_path)
    model, recipe = quality.make(Settings("resnet18", 32), "none", 0), Recipe(batch_size=2, epochs=1)
    quality.fit(model, photos, photos.split(0), Settings("resnet18", 32), recipe, "cpu", tmp_path / "m.pth")
    assert (tmp_path / "m.pth").is_file()


def test_equal_seeds_train_equal_models(tmp_path):
    photos = quality.load_photos(sort_by_hand(tmp_path / "d", 4, 1), 32, 1, tmp_path)

    def losses(seed: int) -> History:
        settings, recipe = Settings("resnet18", 32), Recipe(batch_size=4, epochs=1, seed=seed)
        model = quality.make(settings, "none", seed)
        return quality.fit(model, photos, photos.split(seed), settings, recipe, "cpu", tmp_path / "m.pth").train_losses

    assert losses(1) == losses(1) != losses(2)


def test_augmentation_touches_training_images_only(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(quality, "augment", lambda batch, generator: seen.append(len(batch)) or batch)
    photos = quality.load_photos(sort_by_hand(tmp_path / "d", 5, 1), 32, 1, tmp_path)
    split = photos.split(0)
    settings = Settings("resnet18", 32)
    model = quality.make(settings, "none", 0)
    quality.fit(model, photos, split, settings, Recipe(batch_size=4, epochs=2), "cpu", tmp_path / "m.pth")
    assert sum(seen) == 2 * len(split["train"])


def test_augmentation_keeps_shape_and_leaves_padding_zero():
    batch = torch.zeros(8, 3, 32, 32)
    batch[:, :, 8:24, 12:20] = 1
    moved = quality.augment(batch, torch.Generator().manual_seed(0))
    assert moved.shape == batch.shape
    assert not torch.equal(moved[0], moved[1])
    padding = torch.from_numpy(np.full((1, 3, 4, 4), 0, np.uint8) + np.array([[124, 116, 104]]).reshape(1, 3, 1, 1))
    assert quality.normalise(padding.to(torch.uint8)).abs().max() < 0.02


def test_the_learning_rate_never_becomes_nothing():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)
    scheduler = quality._schedule(optimizer, Recipe(epochs=200), steps=2)
    rates = []
    for _ in range(400):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == rates[19] == 1e-3
    assert rates[20] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-6)


def test_a_last_batch_of_one_is_not_left_alone():
    parts = [len(part) for part in quality.batches(np.arange(9), 4)]
    assert parts == [4, 5]
    assert [len(part) for part in quality.batches(np.arange(10), 4)] == [4, 4, 2]
    assert [len(part) for part in quality.batches(np.arange(3), 4)] == [3]


def test_many_pictures_go_to_disk(tmp_path, monkeypatch):
    folder = sort_by_hand(tmp_path / "d", 3)
    small = quality.load_photos(folder, 16, 1, tmp_path)
    monkeypatch.setattr(quality, "MEMORY_BYTES", 0)
    large = quality.load_photos(folder, 16, 1, tmp_path)
    assert isinstance(large.pixels, np.memmap)
    assert np.array_equal(small.pixels, large.pixels)


@pytest.mark.parametrize(("low", "high", "words"), [(0, 3, "no images in"), (2, 5, "2 vases in class 0")])
def test_missing_or_tiny_classes(tmp_path, low, high, words, capsys):
    sort_by_hand(tmp_path / "d", 5)
    for label, keep in enumerate((low, high)):
        for path in (tmp_path / "d" / str(label)).iterdir():
            if int(path.name[2]) >= keep:
                path.unlink()
    assert train(["--data_dir", str(tmp_path / "d"), "--output", str(tmp_path / "m.pth"), *TINY]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_imagenet_weights_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(quality.hub.Probe, "answered", lambda self: False)
    with pytest.raises(UserError, match="--weights none"):
        quality.make(Settings("resnet18", 32), "imagenet", 0)


def test_weights_from_a_file(tmp_path):
    """ImageNet's own head is left out; another backbone is refused."""
    import torchvision

    source = torchvision.models.resnet18(weights=None)
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    made = quality.make(Settings("resnet18", 32), str(tmp_path / "resnet18.pth"), 0)
    assert torch.equal(made.conv1.weight, source.conv1.weight)
    with pytest.raises(UserError, match="does not fit resnet50"):
        quality.make(Settings("resnet50", 32), str(tmp_path / "resnet18.pth"), 0)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="not a file of weights"):
        quality.make(Settings("resnet18", 32), str(tmp_path / "text.pth"), 0)
    with pytest.raises(UserError, match="imagenet, builtin, none, or a file"):
        quality.make(Settings("resnet18", 32), "nowhere", 0)


# ---- sorting ----


def sort(trained: Path, source: Path, target: Path, *flags: object) -> int:
    flags = ("--model_path", trained / "best.pth", "--source_dir", source, "--target_dir", target, *flags)
    return classify([str(flag) for flag in (*flags, "--device", "cpu")])


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_sorting_puts_each_image_in_one_class_and_errors_in_none(trained, tmp_path, capsys):
    source = trained / "images2"
    assert sort(trained, source, tmp_path / "images3") == 0
    report = json.loads((tmp_path / "images3/classification_report.json").read_text())
    low, high = (files_in(tmp_path / "images3" / name) for name in "01")
    assert not low & high
    assert len(low | high) == 96 == len(report["results"])
    assert "broken_1.jpg" not in str(low | high)
    assert [row["filename"] for row in report["errors"]] == ["0/broken_1.jpg"]
    assert report["errors"][0]["reason"]
    assert (report["low_quality_images"], report["high_quality_images"]) == (len(low), len(high))
    right = sum(row["label"] == int(row["filename"][0]) for row in report["results"])
    assert right >= 80, "it has seen most of these"
    assert "1 unreadable" in capsys.readouterr().out


def test_the_confidence_threshold_is_applied(trained, tmp_path):
    for threshold in (0.3, 0.999):
        assert sort(trained, trained / "images2", tmp_path / "images3", "--confidence_threshold", threshold) == 0
        report = json.loads((tmp_path / "images3/classification_report.json").read_text())
        assert report["confidence_threshold"] == threshold
        for row in report["results"]:
            assert row["label"] == int(row["probability"] >= threshold)
        placed = {f"{row['label']}/{row['filename']}" for row in report["results"]}
        assert files_in(tmp_path / "images3") == placed | {"classification_report.json"}, "nothing stale"


def test_batches_and_single_images_agree(trained, tmp_path):
    chances = []
    for size in (1, 32):
        sort(trained, trained / "images2", tmp_path / "images3", "--batch_size", size)
        report = json.loads((tmp_path / "images3/classification_report.json").read_text())
        chances.append([row["probability"] for row in report["results"]])
    assert np.allclose(*chances, atol=1e-5)


def test_what_is_wrong_in_one_line(trained, tmp_path, capsys):
    source, target = trained / "images2", tmp_path / "images3"
    (tmp_path / "text.pth").write_text("no model")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/0").mkdir()
    cases = {
        "no such folder": (tmp_path / "none", target),
        "lie in each other": (source, source / "sorted"),
        "not written by this stage": (source, tmp_path / "mine"),
    }
    for words, folders in cases.items():
        assert sort(trained, *folders) == 2
        error = capsys.readouterr().err
        assert words in error
        assert len(error.splitlines()) == 1
    for model, words in ((tmp_path / "text.pth", "not a checkpoint"), (tmp_path / "none.pth", "no such file")):
        assert sort(trained, source, target, "--model_path", model) == 2
        assert words in capsys.readouterr().err
    assert not target.exists()
