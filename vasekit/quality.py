"""The quality classifier: a ResNet with a small head that tells whole vases (1) from everything else (0)."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from vasekit import clip, decide, hub, images, pipeline
from vasekit.cli import UserError
from vasekit.files import atomic_path, sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASSES = ("0", "1")  # low quality, high quality
# builtin: the image tower of tiny-clip, a ResNet of one block per stage; trains in a minute on a CPU.
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "builtin")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Decoded pictures up to here are kept in memory, more of them in an unnamed file beside the output.
MEMORY_BYTES = 2 * 2**30
# Whatever else lies under the name of a file of weights fails to load in one of these ways.
UNREADABLE = (RuntimeError, OSError, LookupError, TypeError, ValueError, EOFError, pickle.UnpicklingError)


# ---- data ----


@dataclass
class Photos:
    """Labelled pictures, decoded once: `pixels` is (n, 3, size, size) uint8."""

    pixels: np.ndarray
    labels: np.ndarray
    paths: list[Path]
    errors: list[dict[str, str]] = field(default_factory=list)

    def split(self, seed: int) -> dict[str, np.ndarray]:
        """Indices of train, val and test: 8:1:1 by vase, stratified. Raises UserError when one lacks a class."""
        vases = [images.parse_name(path).key for path in self.paths]
        split = decide.split_groups(vases, self.labels.tolist(), seed)
        for part, indices in split.items():
            for label, name in enumerate(CLASSES):
                if label not in self.labels[indices]:
                    own = {vase for vase, its in zip(vases, self.labels, strict=True) if its == label}
                    raise UserError(
                        f"--data_dir: readable images of {len(own)} vases in class {name} leave none for {part}; needs"
                        f" 3 vases with images of class {name} alone, or 3 with images of both"
                    )
        return split

    def count(self, indices: np.ndarray) -> dict[str, int]:
        """Images, vases, and images of each class among `indices`."""
        vases = {images.parse_name(self.paths[i]).key for i in indices}
        low, high = np.bincount(self.labels[indices], minlength=2).tolist()
        return {"images": len(indices), "vases": len(vases), "low_quality": low, "high_quality": high}


def find_labelled(folder: Path) -> list[Path]:
    """All images in `folder`/0 and `folder`/1. Raises UserError when a class has none."""
    found = {name: images.find(folder / name) for name in CLASSES}
    for name, paths in found.items():
        if not paths:
            raise UserError(f"--data_dir {folder}: no images in {folder / name}; needs {folder}/0 (low) and /1 (high)")
    return [path for paths in found.values() for path in paths]


def data_sha256(paths: Sequence[Path], folder: Path) -> str:
    """Hex digest over names below `folder`, which begin with the label, and contents."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = hashlib.sha256(images.contents(path)).hexdigest()
        except images.ImageError as error:
            content = str(error)
        digest.update(os.fsencode(path.relative_to(folder)) + f"\0{content}\n".encode())
    return digest.hexdigest()


def load_photos(paths: Sequence[Path], folder: Path, settings: Settings, workers: int, spill: Path) -> Photos:
    """Decode the images of `find_labelled`. Raises UserError when none can be read.

    spill: where the unnamed file of a large collection is made.
    """
    labels = np.array([CLASSES.index(path.relative_to(folder).parts[0]) for path in paths])
    shape = (len(paths), 3, settings.image_size, settings.image_size)
    if np.prod(shape) <= MEMORY_BYTES:
        pixels = np.empty(shape, np.uint8)
    else:
        pixels = np.memmap(tempfile.TemporaryFile(dir=spill), np.uint8, "w+", shape=shape)  # noqa: SIM115
    prepare = partial(to_pixels, size=settings.image_size, letterbox=settings.letterbox)
    kept, errors = [], []
    outcomes = (outcome for batch in pipeline.read(paths, prepare, 256, workers) for outcome in batch)
    for index, outcome in enumerate(outcomes):
        if outcome.error:
            errors.append({"filename": outcome.path.relative_to(folder).as_posix(), "reason": outcome.error})
        else:
            pixels[len(kept)] = outcome.value
            kept.append(index)
    if not kept:
        first = f"{errors[0]['filename']}: {errors[0]['reason']}"
        raise UserError(f"--data_dir {folder}: none of {len(paths)} images can be read ({first})")
    return Photos(pixels[: len(kept)], labels[kept], [paths[i] for i in kept], errors)


def to_pixels(image: Image.Image, size: int, letterbox: bool = True) -> np.ndarray:
    """(3, size, size) uint8: letterboxed, or squashed to the square as published (torchvision's Resize)."""
    squashed = partial(image.resize, (size, size), Image.Resampling.BILINEAR)
    return np.array(images.letterbox(image, size) if letterbox else squashed()).transpose(2, 0, 1)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 -> float32 of the ImageNet mean and spread, channels last; the letterbox's padding becomes zero."""
    import torch

    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return pixels.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


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
            state = state.get("model", state)
        except (*UNREADABLE, AttributeError) as error:
            raise UserError(f"--weights {weights}: not a file of weights ({type(error).__name__})") from None
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
    instead = "name a file with --weights FILE, or train from scratch with --weights none"
    if not cached.is_file() and not hub.Probe(url).answered():
        raise UserError(
            f"--weights imagenet: {cached} is not there and {url} can't be reached; put the file there, {instead}"
        )
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
    except UNREADABLE as error:
        raise UserError(
            f"--weights imagenet: {cached} can't be fetched or read ({type(error).__name__}); remove it and try again,"
            f" {instead}"
        ) from None


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights on the CPU."""
    import torch

    state = model.state_dict()
    return {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state.items()}


def save(weights: dict[str, Tensor], settings: Settings, path: Path) -> None:
    """Write weights and settings, loadable with weights_only=True; equal weights make equal files."""
    import torch

    # Given a name, torch.save would write it into the file, and this one is temporary.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save({"model": weights, "settings": asdict(settings), "classes": list(CLASSES)}, stream)


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
    except UNREADABLE as error:
        raise UserError(f"{flag} {path}: not a checkpoint of filter/model.py ({type(error).__name__})") from None
    return model.to(device, memory_format=torch.channels_last).eval(), settings


def probabilities(model: nn.Module, pixels: Tensor, device: str) -> Tensor:
    """(n, 3, size, size) uint8 -> (n,) probability of class 1, float32 on the CPU."""
    import torch

    with torch.inference_mode():
        return model(normalise(pixels.to(device))).float().softmax(1)[:, 1].cpu()


@dataclass(frozen=True)
class Scorer:
    """A checkpoint of filter/model.py to score photographs with; the model itself comes with `open`."""

    path: Path
    column: ClassVar[str] = "probability"

    @property
    def identity(self) -> dict[str, Any]:
        """All that a probability depends on."""
        return {"classifier_sha256": sha256(self.path), "torchvision": metadata.version("torchvision")}

    def open(self, device: str) -> Classifier:
        """The model on a device. Raises UserError when the file is no checkpoint."""
        return Classifier(self.path, device)


class Classifier:
    """A trained classifier on a device: pictures in, probabilities of high quality out."""

    at_least = 0  # pictures are read as in training

    def __init__(self, path: Path, device: str) -> None:
        self._model, self.settings = load(path, "--model_path", device)
        self._device = device

    def prepare(self, image: Image.Image) -> np.ndarray:
        """(3, size, size) uint8."""
        return to_pixels(image, self.settings.image_size, self.settings.letterbox)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(n, 3, size, size) uint8 -> (n, 1) float32."""
        import torch

        return probabilities(self._model, torch.from_numpy(batch), self._device).numpy()[:, None]
