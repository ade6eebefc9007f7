"""The quality classifier: a ResNet with a small head that tells whole vases (1) from everything else (0)."""

from __future__ import annotations

import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vasekit import clip, decide, hub, images, pipeline
from vasekit.cli import UserError
from vasekit.files import atomic_path

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

CLASSES = ("0", "1")  # low quality, high quality
# builtin: the image tower of tiny-clip, a ResNet of one block per stage; trains in a minute on a CPU.
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "builtin")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Decoded pictures up to here are kept in memory, more of them in an unnamed file beside the output.
MEMORY_BYTES = 2 * 2**30
MIN_VASES = 3  # of each class: one each to learn from, to choose the checkpoint by and to test on


# ---- data ----


@dataclass
class Photos:
    """Labelled pictures, decoded once: `pixels` is (n, 3, size, size) uint8."""

    pixels: np.ndarray
    labels: np.ndarray
    paths: list[Path]
    errors: list[dict[str, str]] = field(default_factory=list)

    def split(self, seed: int) -> dict[str, np.ndarray]:
        """Indices of train, val and test: 8:1:1 by vase, stratified."""
        return decide.split_groups([images.parse_name(path).key for path in self.paths], self.labels.tolist(), seed)

    def count(self, indices: np.ndarray) -> dict[str, int]:
        """Images, vases, and images of each class among `indices`."""
        vases = {images.parse_name(self.paths[i]).key for i in indices}
        low, high = np.bincount(self.labels[indices], minlength=2).tolist()
        return {"images": len(indices), "vases": len(vases), "low_quality": low, "high_quality": high}


def load_photos(folder: Path, size: int, workers: int, spill: Path) -> Photos:
    """Read `folder`/0 and `folder`/1. Raises UserError when a class is missing or too small to be split."""
    paths, labels = [], []
    for label, name in enumerate(CLASSES):
        found = images.find(folder / name)
        if not found:
            raise UserError(f"--data_dir {folder}: no images in {folder / name}; needs {folder}/0 (low) and /1 (high)")
        paths += found
        labels += [label] * len(found)
    shape = (len(paths), 3, size, size)
    if np.prod(shape) <= MEMORY_BYTES:
        pixels = np.empty(shape, np.uint8)
    else:
        pixels = np.memmap(tempfile.TemporaryFile(dir=spill), np.uint8, "w+", shape=shape)  # noqa: SIM115
    kept, errors = [], []
    outcomes = (o for batch in pipeline.read(paths, partial(to_pixels, size=size), 256, workers) for o in batch)
    for index, outcome in enumerate(outcomes):
        if outcome.error:
            errors.append({"filename": outcome.path.relative_to(folder).as_posix(), "reason": outcome.error})
        else:
            pixels[len(kept)] = outcome.value
            kept.append(index)
    photos = Photos(pixels[: len(kept)], np.array(labels)[kept], [paths[i] for i in kept], errors)
    _need_vases(photos, folder)
    return photos


def _need_vases(photos: Photos, folder: Path) -> None:
    for label, name in enumerate(CLASSES):
        vases = {images.parse_name(p).key for p, own in zip(photos.paths, photos.labels, strict=True) if own == label}
        if len(vases) < MIN_VASES:
            raise UserError(
                f"--data_dir {folder}: readable images of {len(vases)} vases in class {name}, needs at least"
                f" {MIN_VASES} (one each for training, validation and test)"
            )


def to_pixels(image: Image.Image, size: int) -> np.ndarray:
    """(3, size, size) uint8, letterboxed."""
    return np.array(images.letterbox(image, size)).transpose(2, 0, 1)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 -> float32 of the ImageNet mean and spread, channels last; the letterbox's padding becomes zero."""
    import torch

    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return pixels.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def augment(batch: Tensor, generator) -> Tensor:
    """Flip (half of them), turn by up to 10 degrees, shift and zoom a little, brightness and contrast +-20 %.

    batch: normalised (n, 3, h, w); what is moved in from outside is zero, like the padding.
    """
    import torch
    import torch.nn.functional as F

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(len(batch)).uniform_(low, high, generator=generator).to(batch.device)

    angle, zoom = uniform(-np.pi / 18, np.pi / 18), uniform(0.9, 1.1)
    flip = uniform(-1, 1).sign()
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos * flip, -sin, uniform(-0.08, 0.08), sin * flip, cos, uniform(-0.08, 0.08)], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, align_corners=False)
    contrast, brightness = uniform(0.8, 1.2).view(-1, 1, 1, 1), uniform(-0.4, 0.4).view(-1, 1, 1, 1)
    return (moved * contrast + brightness).contiguous(memory_format=torch.channels_last)


# ---- model ----


@dataclass(frozen=True)
class Settings:
    """What a checkpoint says of its own model."""

    backbone: str = "resnet50"
    image_size: int = 224
    letterbox: bool = True


def build(settings: Settings) -> nn.Module:
    """The backbone with the published head: features-512-256-2, ReLU, dropout .5 and .3."""
    import torchvision
    from torch import nn

    if settings.backbone == "builtin":
        tower = clip.builtin_tower()
        return nn.Sequential(OrderedDict(tower=tower, fc=_head(tower.output_dim)))
    model = getattr(torchvision.models, settings.backbone)(weights=None)
    model.fc = _head(model.fc.in_features)
    return model


def _head(features: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Linear(features, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, len(CLASSES)),
    )


def make(settings: Settings, weights: str, seed: int) -> nn.Module:
    """A model to train, starting from `weights`; what they don't hold is drawn with `seed`."""
    import torch

    torch.manual_seed(seed)
    model = build(settings)
    start_from(model, settings, weights)
    return model


def start_from(model: nn.Module, settings: Settings, weights: str) -> None:
    """Load the weights to start from: `imagenet` (from torch's cache, else fetched), `builtin`, `none`, or a file."""
    import torch

    if weights == "none":
        return
    if (weights == "builtin") != (settings.backbone == "builtin") and weights in ("builtin", "imagenet"):
        raise UserError(f"--weights {weights}: does not go with --backbone {settings.backbone}")
    if weights == "builtin":
        state = {f"tower.{name}": value for name, value in clip.builtin_tower(trained=True).state_dict().items()}
    elif weights == "imagenet":
        state = _imagenet(settings.backbone)
    elif Path(weights).is_file():
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(f"--weights {weights}: not a file of weights ({type(error).__name__})") from None
        state = state.get("model", state)
    else:
        raise UserError(f"--weights {weights}: no such file; give imagenet, builtin, none, or a file of weights")
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    missing = [name for name in own if name not in fitting and not name.startswith("fc.")]
    if missing:
        raise UserError(f"--weights {weights}: does not fit {settings.backbone} ({len(missing)} tensors missing)")
    model.load_state_dict(fitting, strict=False)


def _imagenet(backbone: str) -> dict[str, Tensor]:
    import torch
    import torchvision

    url = torchvision.models.get_model_weights(backbone).IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not cached.is_file() and not hub.Probe(url).answered():
        raise UserError(
            f"--weights imagenet: {cached} is not there and {url} can't be reached; put the file there, name a file"
            " with --weights FILE, or train from scratch with --weights none"
        )
    return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)


def save(model: nn.Module, settings: Settings, path: Path) -> None:
    """Write weights and settings, loadable with weights_only=True."""
    import torch

    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save({"model": state, "settings": asdict(settings), "classes": list(CLASSES)}, temporary)


def load(path: Path, flag: str, device: str) -> tuple[nn.Module, Settings]:
    """The trained classifier; nothing is downloaded for it."""
    import torch

    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file; train one with filter/model.py or give another with {flag}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        settings = Settings(**checkpoint["settings"])
        model = build(settings)
        model.load_state_dict(checkpoint["model"])
    # Whatever else was saved under that name fails in one of these ways.
    except (RuntimeError, OSError, LookupError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{flag} {path}: not a checkpoint of filter/model.py ({type(error).__name__})") from None
    return model.to(device, memory_format=torch.channels_last).eval(), settings


def probabilities(model: nn.Module, pixels: Tensor, device: str) -> Tensor:
    """(n, 3, size, size) uint8 -> (n,) probability of class 1, float32 on the CPU."""
    import torch

    with torch.inference_mode():
        return model(normalise(pixels.to(device))).float().softmax(1)[:, 1].cpu()


# ---- training ----


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the published ones."""

    batch_size: int = 256
    epochs: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    schedule: str = "step"
    precision: str = "auto"
    seed: int = 42


@dataclass
class History:
    """One value per epoch."""

    train_losses: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    train_accs: list[float] = field(default_factory=list)
    val_accs: list[float] = field(default_factory=list)
    val_balanced_accs: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    best_epoch: int = 0


def batches(indices: np.ndarray, size: int, order: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Slices of `indices`, in `order`; a last batch of one joins the one before (batch norm needs two)."""
    shuffled = indices if order is None else indices[order]
    ends = list(range(size, len(shuffled), size))
    if ends and len(shuffled) - ends[-1] == 1:
        ends.pop()
    yield from np.split(shuffled, ends)


def _schedule(optimizer, recipe: Recipe, steps: int):
    """A scheduler stepped once per batch; `steps` is the number of batches in an epoch."""
    from torch.optim import lr_scheduler

    if recipe.schedule == "onecycle":
        return lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.2
        )
    # x0.1 every 10 epochs as published, but not below a thousandth: at epoch 200 it would be 1e-22.
    return lr_scheduler.LambdaLR(optimizer, lambda step: max(0.1 ** (step // steps // 10), 1e-3))


def fit(
    model: nn.Module,
    photos: Photos,
    split: dict[str, np.ndarray],
    settings: Settings,
    recipe: Recipe,
    device: str,
    output: Path,
) -> History:
    """Train, and keep at `output` the checkpoint of the best balanced accuracy in validation (ties: lower loss)."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    model.to(device, memory_format=torch.channels_last)
    algorithm = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    optimizer = algorithm(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    train, labels = split["train"], torch.from_numpy(photos.labels)
    counts = np.bincount(photos.labels[train], minlength=2)
    weight = torch.tensor(len(train) / (2 * counts), dtype=torch.float32, device=device)
    scheduler = _schedule(optimizer, recipe, len(list(batches(train, recipe.batch_size))))
    half = recipe.precision == "bf16" or (recipe.precision == "auto" and device != "cpu")
    history, best = History(), (-1.0, 0.0)
    for epoch in range(recipe.epochs):
        model.train()
        total = hits = 0.0
        order = torch.randperm(len(train), generator=generator).numpy()
        for index in batches(train, recipe.batch_size, order):
            target = labels[index].to(device)
            batch = augment(normalise(torch.from_numpy(photos.pixels[index]).to(device)), generator)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                logits = model(batch).float()
            loss = F.cross_entropy(logits, target, weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.item() * len(index)
            hits += (logits.argmax(1) == target).sum().item()
        history.train_losses.append(total / len(train))
        history.train_accs.append(hits / len(train))
        history.learning_rates.append(optimizer.param_groups[0]["lr"])
        loss, metrics = evaluate(model, photos, split["val"], recipe.batch_size, device)
        history.val_losses.append(loss)
        history.val_accs.append(metrics["accuracy"])
        history.val_balanced_accs.append(metrics["balanced_accuracy"])
        if (metrics["balanced_accuracy"], -loss) > best:
            best = (metrics["balanced_accuracy"], -loss)
            history.best_epoch = epoch + 1
            save(model, settings, output)
        print(
            f"epoch {epoch + 1}/{recipe.epochs}: loss {history.train_losses[-1]:.3f}, validation loss {loss:.3f},"
            f" balanced accuracy {metrics['balanced_accuracy']:.3f}",
            flush=True,
        )
    return history


def evaluate(
    model: nn.Module, photos: Photos, indices: np.ndarray, batch_size: int, device: str
) -> tuple[float, dict[str, Any]]:
    """Mean loss and metrics on the photos at `indices`, without augmentation."""
    import torch

    model.eval()
    chances = torch.cat(
        [probabilities(model, torch.from_numpy(photos.pixels[i]), device) for i in batches(indices, batch_size)]
    )
    labels = torch.from_numpy(photos.labels[indices])
    loss = torch.nn.functional.binary_cross_entropy(chances.double(), labels.double()).item()
    return loss, decide.classification_metrics(labels.tolist(), (chances >= 0.5).long().tolist())


def draw_history(history: History, path: Path) -> None:
    """The two curves that tell overfitting: loss and accuracy, training and validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    panels = (
        (left, "loss", history.train_losses, history.val_losses),
        (right, "accuracy", history.train_accs, history.val_accs),
    )
    for axis, name, train, validation in panels:
        epochs = range(1, len(train) + 1)
        axis.plot(epochs, train, label="training")
        axis.plot(epochs, validation, label="validation")
        axis.set(xlabel="epoch", ylabel=name)
        axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)
