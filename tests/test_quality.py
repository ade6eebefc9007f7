"""The quality classifier: training, what it leaves behind, and sorting with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filter_entry import FILTER, broken, entry, module
from PIL import Image

from vasekit import decide, quality, training
from vasekit.cli import UserError
from vasekit.quality import Photos, Settings
from vasekit.training import Recipe, Trainer

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


def photos_in(folder: Path) -> Photos:
    return quality.load_photos(quality.find_labelled(folder), folder, Settings("resnet18", 32), 1, folder.parent)


def trainer_on(photos: Photos, **recipe: object) -> Trainer:
    chosen = Recipe(**{"batch_size": 4, "epochs": 2} | recipe)
    model = quality.make(Settings("resnet18", 32), "none", chosen.seed)
    return Trainer(model, photos, photos.split(chosen.seed), chosen, "cpu")


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
    assert (args.learning_rate, args.weight_decay, args.squash) == (1e-3, 1e-4, False)
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
    assert set(results["test_metrics"]["roc_auc"]) == {"value", "low", "high", "n"}
    assert 0 <= results["test_metrics"]["expected_calibration_error"]["value"] <= 1
    assert results["test_metrics"]["expected_calibration_error"]["bins"] == 15
    assert len(results["data_sha256"]) == 64
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
    monkeypatch.setattr(training, "evaluate", lambda *_: (9.0, {"accuracy": 0.0, "balanced_accuracy": 0.0}))
    trainer = trainer_on(photos_in(sort_by_hand(tmp_path / "d", 3, 1)), epochs=1)
    training.fit(trainer, Settings("resnet18", 32), tmp_path / "m.pth", {})
    assert (tmp_path / "m.pth").is_file()


def test_equal_seeds_train_equal_models(tmp_path):
    photos = photos_in(sort_by_hand(tmp_path / "d", 4, 1))

    def loss(seed: int) -> float:
        trainer = trainer_on(photos, seed=seed)
        trainer.epoch()
        return trainer.history.train_losses[0]

    assert loss(1) == loss(1) != loss(2)


def test_the_best_epoch_is_the_most_accurate_then_the_surest_then_the_first():
    history = training.History(val_balanced_accs=[0.5, 0.8, 0.8, 0.8, 0.7], val_losses=[0.1, 0.4, 0.3, 0.3, 0.1])
    assert history.best_epoch == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_goes_on(tmp_path, precision):
    photos = photos_in(sort_by_hand(tmp_path / "d", 3, 1))
    trainer, other = (trainer_on(photos, precision=precision, learning_rate=1e-4) for _ in range(2))
    trainer.epoch()
    other.restore(trainer.state())
    assert other.scaler.state_dict() == trainer.scaler.state_dict()
    assert np.isfinite(other.history.train_losses[0])
    assert next(other.model.parameters()).dtype == torch.float32


def test_a_training_that_diverges_is_no_result(tmp_path):
    trainer = trainer_on(photos_in(sort_by_hand(tmp_path / "d", 3, 1)), learning_rate=1e30)
    with pytest.raises(UserError, match="lower --learning_rate"):
        training.fit(trainer, Settings("resnet18", 32), tmp_path / "m.pth", {})


@pytest.mark.parametrize("flag", ["learning_rate=nan", "weight_decay=-1", "batch_size=1", "patience=-1", "seed=-1"])
def test_numbers_that_torch_would_stumble_over(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        module("model").parse([f"--{flag}"])
    assert ended.value.code == 2
    assert "needs at least" in capsys.readouterr().err


def test_calibration_error_by_hand():
    """Two bins: four answers of confidence .8, three right, and two of .6, one right: (4*.05 + 2*.1) / 6."""
    labels, chances = [1, 1, 0, 1, 1, 1], [0.8, 0.8, 0.2, 0.2, 0.6, 0.4]
    assert decide.expected_calibration_error(labels, chances, bins=10) == pytest.approx(0.4 / 6)
    assert decide.expected_calibration_error(labels, chances, bins=1) == pytest.approx(abs(4 / 6 - 4.4 / 6))
    assert decide.expected_calibration_error([1, 0], [1.0, 0.0]) == 0
    assert decide.expected_calibration_error([1, 0], [0.0, 1.0]) == 1
    assert decide.expected_calibration_error([1, 0], [0.5, 0.5]) == 0
    with pytest.raises(ValueError, match="no predictions"):
        decide.expected_calibration_error([], [])


def test_one_image_of_a_class_is_enough_to_measure(tmp_path):
    trainer = trainer_on(photos_in(sort_by_hand(tmp_path / "d", 3, 1)))
    assert [len(part) for part in trainer.split.values()] == [2, 2, 2]
    trainer.epoch()
    loss, measured = training.evaluate(trainer.model, trainer.photos, trainer.split["test"], 4, "cpu")
    assert np.isfinite(loss)
    assert measured["roc_auc"]["n"] == 2


def test_augmentation_touches_training_images_only(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "augment", lambda batch, generator: seen.append(len(batch)) or batch)
    trainer = trainer_on(photos_in(sort_by_hand(tmp_path / "d", 5, 1)))
    for _ in range(2):
        trainer.epoch()
    assert sum(seen) == 2 * len(trainer.split["train"])


def test_augmentation_keeps_shape_and_leaves_padding_zero():
    batch = torch.zeros(8, 3, 32, 32)
    batch[:, :, 8:24, 12:20] = 1
    moved = training.augment(batch, torch.Generator().manual_seed(0))
    assert moved.shape == batch.shape
    assert not torch.equal(moved[0], moved[1])
    padding = torch.from_numpy(np.full((1, 3, 4, 4), 0, np.uint8) + np.array([[124, 116, 104]]).reshape(1, 3, 1, 1))
    assert quality.normalise(padding.to(torch.uint8)).abs().max() < 0.02


def test_the_learning_rate_never_becomes_nothing():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)
    scheduler = training._schedule(optimizer, Recipe(epochs=200), steps=2)
    rates = []
    for _ in range(400):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == rates[19] == 1e-3
    assert rates[20] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-6)


def test_a_last_batch_of_one_is_not_left_alone():
    parts = [len(part) for part in training.batches(np.arange(9), 4)]
    assert parts == [4, 5]
    assert [len(part) for part in training.batches(np.arange(10), 4)] == [4, 4, 2]
    assert [len(part) for part in training.batches(np.arange(3), 4)] == [3]


def test_many_pictures_go_to_disk(tmp_path, monkeypatch):
    folder = sort_by_hand(tmp_path / "d", 3)
    small = photos_in(folder)
    monkeypatch.setattr(quality, "MEMORY_BYTES", 0)
    large = photos_in(folder)
    assert isinstance(large.pixels, np.memmap)
    assert np.array_equal(small.pixels, large.pixels)


def test_squashing_fills_the_square():
    image = Image.new("RGB", (20, 40), "black")
    assert quality.to_pixels(image, 32).max() > 100, "padded"
    assert quality.to_pixels(image, 32, letterbox=False).max() == 0


def test_the_data_hash_sees_names_labels_and_contents(tmp_path):
    folder = sort_by_hand(tmp_path / "d", 3, 1)

    def digest() -> str:
        return quality.data_sha256(quality.find_labelled(folder), folder)

    digests = [digest()]
    (folder / "0/v00_0.png").rename(folder / "0/v09_0.png")
    digests.append(digest())
    (folder / "0/v09_0.png").rename(folder / "1/v09_0.png")
    digests.append(digest())
    (folder / "0/v01_0.png").write_bytes((folder / "0/v02_0.png").read_bytes())
    digests.append(digest())
    (folder / "0/gone.png").symlink_to("nowhere")
    digests.append(digest())
    assert len(set(digests)) == 5
    assert digest() == digests[-1]


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


def test_images_of_which_none_can_be_read(tmp_path, capsys):
    for path in sort_by_hand(tmp_path / "d", 3, 1).rglob("*.png"):
        path.write_bytes(b"no image")
    assert train(["--data_dir", str(tmp_path / "d"), "--output", str(tmp_path / "m.pth"), *TINY]) == 2
    error = capsys.readouterr().err
    assert "none of 6 images can be read" in error
    assert len(error.splitlines()) == 1


def test_a_class_of_which_none_can_be_read(tmp_path, capsys):
    for path in (sort_by_hand(tmp_path / "d", 3, 1) / "1").iterdir():
        path.write_bytes(b"no image")
    assert train(["--data_dir", str(tmp_path / "d"), "--output", str(tmp_path / "m.pth"), *TINY]) == 2
    assert "0 vases in class 1" in capsys.readouterr().err


def test_vases_in_both_classes_are_split_too(tmp_path):
    """Good and bad photographs of the same three vases: each split gets one vase, and so both classes."""
    folder = sort_by_hand(tmp_path / "d", 3, 1)
    for path in (folder / "1").iterdir():
        path.rename(path.with_name(path.name.replace("v1", "v0").replace("_0", "_1")))
    photos = photos_in(folder)
    assert all(photos.count(part)["vases"] == 1 for part in photos.split(0).values())


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
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="not a file of weights"):
        quality.make(Settings("resnet18", 32), str(tmp_path / "list.pth"), 0)
    with pytest.raises(UserError, match="imagenet, builtin, none, or a file"):
        quality.make(Settings("resnet18", 32), "nowhere", 0)


# ---- interrupted, finished, others' ----


def run(folder: Path, output: str, *flags: object) -> int:
    """Three epochs on folder/images2."""
    start = ("--data_dir", folder / "images2", "--output", folder / output / "best.pth", *TINY)
    return train([str(flag) for flag in (*start, "--batch_size", 2, "--epochs", 3, *flags)])


def outcome(folder: Path) -> tuple[bytes, dict]:
    """The checkpoint and what was reported, without the places and times of the run."""
    results = json.loads((folder / "training_results.json").read_text())
    own = ("checkpoint", "settings", "seconds")
    return (folder / "best.pth").read_bytes(), {name: value for name, value in results.items() if name not in own}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """A folder with images2/ and, in a/, what an undisturbed run on it wrote."""
    folder = tmp_path_factory.mktemp("runs")
    sort_by_hand(folder / "images2", 4, 1)
    assert run(folder, "a") == 0
    assert sorted(path.name for path in (folder / "a").iterdir()) == [
        "best.pth",
        "training_history.png",
        "training_results.json",
    ]
    return folder


@pytest.mark.parametrize(("name", "call"), [("augment", 4), ("save", 2), ("evaluate", 4), ("draw_history", 1)])
def test_interrupted_and_run_again_it_ends_the_same(uninterrupted, monkeypatch, capsys, name, call):
    """In the middle of an epoch; between state and checkpoint; after the last epoch; after the test."""
    calls, original = [], getattr(training, name)

    def interrupt(*args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, name, interrupt)
        assert run(uninterrupted, name) == 130
    assert training.resume_path(uninterrupted / name / "best.pth").is_file()
    assert run(uninterrupted, name) == 0
    assert "going on after epoch" in capsys.readouterr().out
    assert outcome(uninterrupted / name) == outcome(uninterrupted / "a")
    assert not training.resume_path(uninterrupted / name / "best.pth").exists()


def test_the_same_command_again_says_done_before(uninterrupted, monkeypatch, capsys):
    monkeypatch.setattr(quality, "load_photos", None)
    assert run(uninterrupted, "a") == 0
    assert "done before" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [("--learning_rate", 0.1), ("--squash",), ("--patience", 5), ("--seed", 1)])
def test_another_finished_run_is_not_replaced_unasked(uninterrupted, capsys, flags):
    before = outcome(uninterrupted / "a")
    assert run(uninterrupted, "a", *flags) == 2
    error = capsys.readouterr().err
    assert "holds another run" in error
    assert "--fresh" in error
    assert len(error.splitlines()) == 1
    assert outcome(uninterrupted / "a") == before


def test_another_interrupted_run_is_not_replaced_unasked(tmp_path, monkeypatch, capsys):
    folder = sort_by_hand(tmp_path / "images2", 3, 1).parent
    with monkeypatch.context() as patch:
        patch.setattr(training, "draw_history", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(folder, "b", "--epochs", 1) == 130
    assert run(folder, "b", "--epochs", 2) == 2
    assert "interrupted run (other epochs)" in capsys.readouterr().err
    next((folder / "images2/0").iterdir()).unlink()
    sort_by_hand(folder / "images2", 4, 1)
    assert run(folder, "b", "--epochs", 1) == 2
    assert "interrupted run (other data_sha256)" in capsys.readouterr().err
    assert run(folder, "b", "--epochs", 1, "--fresh") == 0


def test_a_checkpoint_from_elsewhere_is_not_replaced_unasked(tmp_path, capsys):
    folder = sort_by_hand(tmp_path / "images2", 3, 1).parent
    (tmp_path / "b").mkdir()
    (tmp_path / "b/best.pth").write_text("mine")
    assert run(folder, "b", "--epochs", 1) == 2
    assert "replace it with --fresh" in capsys.readouterr().err
    assert run(folder, "b", "--epochs", 1, "--fresh") == 0


def test_squash_is_recorded_and_obeyed(uninterrupted):
    assert run(uninterrupted, "squashed", "--squash", "--epochs", 1) == 0
    checkpoint = uninterrupted / "squashed/best.pth"
    assert torch.load(checkpoint, weights_only=True)["settings"]["letterbox"] is False
    image = Image.new("RGB", (20, 40), "black")
    assert quality.Classifier(checkpoint, "cpu").prepare(image).max() == 0
    assert quality.Classifier(uninterrupted / "a/best.pth", "cpu").prepare(image).max() > 100


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (0, 3)])
def test_training_stops_when_nothing_improves(uninterrupted, monkeypatch, patience, epochs):
    same = {"accuracy": 0.5, "balanced_accuracy": 0.5, "n": 2}
    monkeypatch.setattr(training, "evaluate", lambda *_: (9.0, same))
    assert run(uninterrupted, f"patience{patience}", "--patience", patience) == 0
    results = json.loads((uninterrupted / f"patience{patience}/training_results.json").read_text())
    assert (len(results["train_losses"]), results["best_epoch"]) == (epochs, 1)


def through_the_shell(*flags: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(FILTER / "model.py"), *map(str, flags)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env=os.environ | environment)


@pytest.mark.slow
def test_killed_and_run_again_it_ends_the_same(tmp_path):
    """Three processes, one of them killed with SIGKILL as soon as it reports its second epoch."""
    sort_by_hand(tmp_path / "images2", 6, 1)
    flags = ("--data_dir", tmp_path / "images2", *TINY, "--batch_size", 4, "--epochs", 4, "--patience", 0)
    whole = through_the_shell(*flags, "--output", tmp_path / "a/best.pth")
    assert whole.wait() == 0, whole.stderr.read()
    with through_the_shell(*flags, "--output", tmp_path / "b/best.pth") as killed:
        assert any(line.startswith("epoch 2/") for line in killed.stdout)
        killed.kill()
    assert not (tmp_path / "b/training_results.json").exists()
    again = through_the_shell(*flags, "--output", tmp_path / "b/best.pth")
    said, complaints = again.communicate()
    assert again.returncode == 0, complaints
    assert "going on after epoch" in said
    assert outcome(tmp_path / "b") == outcome(tmp_path / "a")


@pytest.mark.slow
def test_imagenet_weights_without_a_network(tmp_path):
    sort_by_hand(tmp_path / "images2", 3, 1)
    dead = "http://127.0.0.1:9"
    flags = ("--data_dir", tmp_path / "images2", "--output", tmp_path / "best.pth", "--backbone", "resnet18")
    process = through_the_shell(*flags, TORCH_HOME=str(tmp_path), https_proxy=dead, HTTPS_PROXY=dead)
    said, complaints = process.communicate()
    assert (process.returncode, said) == (2, "")
    assert "--weights none" in complaints
    assert len(complaints.splitlines()) == 1


# ---- sorting ----


def sort(trained: Path, source: Path, target: Path, *flags: object) -> int:
    flags = ("--model_path", trained / "best.pth", "--source_dir", source, "--target_dir", target, *flags)
    return classify([str(flag) for flag in (*flags, "--device", "cpu", "--scores", target.parent / "scores")])


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
        assert files_in(tmp_path / "images3") == placed | {"classification_report.json", "errors/errors.csv"}, (
            "nothing stale"
        )


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


def test_sorting_fetches_no_weights(trained, tmp_path, monkeypatch):
    """The published script fetches ImageNet's only to overwrite them, and fails without a network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were fetched")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    assert sort(trained, trained / "images2", tmp_path / "images3") == 0
