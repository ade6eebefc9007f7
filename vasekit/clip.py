"""The CLIP scorer: pictures in, their similarity to "a complete vase" and to "fragments" out."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from vasekit import builtin, cli, devices, files, hub, scores
from vasekit.cli import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

PROMPTS = Path(__file__).with_name("prompts.yaml")
DEFAULT_MODEL, DEFAULT_PRETRAINED = "ViT-B-32-quickgelu", "openai"
LOCAL = "local-dir:"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".json")
ALTERNATIVE = "use --model builtin, or --model local-dir:FOLDER with an open_clip folder on this disk"


class Prompts(NamedTuple):
    """Two groups of sentences, each averaged to one text feature."""

    complete: tuple[str, ...]
    fragments: tuple[str, ...]


def load_prompts(path: Path = PROMPTS) -> Prompts:
    """Read the two lists of a prompt bank. Raises UserError when it does not hold them."""
    import yaml

    try:
        lists = yaml.safe_load(cli.need_file(path, "--prompts").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {path}: not valid YAML ({_first_line(error)}); mend the file") from None
    groups = [lists.get(name) if isinstance(lists, dict) else None for name in Prompts._fields]
    if not all(isinstance(group, list) and group and all(isinstance(p, str) for p in group) for group in groups):
        raise UserError(f"--prompts {path}: needs two lists of sentences, `complete:` and `fragments:`")
    return Prompts(*map(tuple, groups))


PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Scorer:
    """Which open_clip model to embed pictures with; light: the model itself comes with `open`.

    model: an open_clip name (then `pretrained` is a tag or a weight file), `hf-hub:...` or `local-dir:FOLDER`.
    draft: JPEGs much larger than what the model sees are decoded at a half, a quarter or an eighth of their size.
    """

    model: str
    pretrained: str | None
    cache_dir: Path | None
    precision: str
    draft: bool = False
    column: ClassVar[str] = "embedding"

    @property
    def identity(self) -> dict[str, Any]:
        """All that an embedding depends on."""
        return {
            "model": self.model,
            "pretrained": self.pretrained,
            "files_sha256": _weights_digest(self),
            "precision": self.precision,
            "draft": self.draft,
            "open_clip_torch": metadata.version("open_clip_torch"),
        }

    def open(self, device: str) -> Encoder:
        """The model on a device. Raises UserError when the weights can't be had."""
        return Encoder(self, device)


class Encoder:
    """An open_clip image tower on a device: pictures in, unit vectors out."""

    def __init__(self, scorer: Scorer, device: str) -> None:
        import torch
        from torchvision.transforms import CenterCrop, Compose, ToTensor

        network, transform = _network(scorer)
        place = next(k for k, step in enumerate(transform.transforms) if isinstance(step, ToTensor))
        steps = transform.transforms[:place]
        self._shape = Compose([partial(_crop, step.size) if isinstance(step, CenterCrop) else step for step in steps])
        (normalize,) = transform.transforms[place + 1 :]
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[scorer.precision]
        # A copy: the network itself is kept, single precision, for texts and for its fingerprint.
        tower = copy.deepcopy(network.visual).to(device, self._dtype, memory_format=torch.channels_last)
        self._tower, self._device = tower, device
        # Twice what the model sees: what the decoder leaves out on the way there can't be told from the whole.
        side = network.visual.image_size
        self.at_least = 2 * (side if isinstance(side, int) else max(side)) if scorer.draft else 0

    def prepare(self, image: Image.Image) -> np.ndarray:
        """(3, size, size) uint8: scaled and cut as the model's own preprocessing does."""
        return np.asarray(self._shape(image)).transpose(2, 0, 1)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(n, 3, size, size) uint8 -> (n, dim) float32 of unit length."""
        import torch
        import torch.nn.functional as F

        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device).float() * self._scale + self._shift
            pixels = pixels.to(self._dtype, memory_format=torch.channels_last)
            return F.normalize(self._tower(pixels), dim=-1).float().cpu().numpy()


def resolve(model: str) -> str:
    """`builtin` and a plain folder as the local-dir: name that open_clip reads; other names as they are."""
    if model == "builtin":
        return f"{LOCAL}{builtin.CLIP}"
    name = model.removeprefix(LOCAL)
    if model.startswith(LOCAL) or ("/" in model and Path(name).expanduser().is_dir()):
        folder = Path(name).expanduser().absolute()
        if not (folder / "open_clip_config.json").is_file():
            raise UserError(f"--model {model}: no open_clip_config.json in {folder}; needs an open_clip model folder")
        return f"{LOCAL}{folder}"
    return model


def builtin_tower(trained: bool = False) -> nn.Module:
    """The image tower of tiny-clip alone: (n, 3, 112, 112) -> (n, output_dim); random weights unless `trained`."""
    import open_clip

    with _quiet():
        return open_clip.create_model(f"{LOCAL}{builtin.CLIP}", load_weights=trained).visual


def _crop(size: tuple[int, int], image: Image.Image) -> Image.Image:
    """The middle, an odd margin's larger half to the right and below, as transformers (and the published script) does.

    torchvision's CenterCrop rounds to even, which shifts some pictures by a pixel.
    """
    height, width = size
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class TextFeatures:
    """The two directions that pictures are compared with, and the model they come from."""

    features: np.ndarray  # (2, dim) float32 of unit length: complete, fragments
    weights_sha256: str

    def similarities(self, embeddings: Sequence[np.ndarray]) -> np.ndarray:
        """(n, dim) embeddings -> (n, 2) cosines with complete and with fragments."""
        found = np.empty((len(embeddings), 2), np.float32)
        for start in range(0, len(found), 4096):  # so that not all of them lie in memory a second time
            part = np.stack(embeddings[start : start + 4096]).astype(np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)  # float16 is off by its rounding
            found[start : start + 4096] = part @ self.features.T
        return found


def text_features(scorer: Scorer, prompts: Prompts) -> TextFeatures:
    """Per group the features of the prompts are averaged, then normalised, as in the paper.

    Raises UserError when the model can't be had.
    """
    means = np.stack([encode_texts(scorer, group).mean(0) for group in prompts])
    network, _ = _network(scorer)
    return TextFeatures(means / np.linalg.norm(means, axis=1, keepdims=True), fingerprint(network))


def encode_texts(scorer: Scorer, texts: Sequence[str]) -> np.ndarray:
    """(n, dim) float32 features of texts, of the length that the model gives them.

    Raises UserError when the model can't be had.
    """
    import open_clip
    import torch

    network, _ = _network(scorer)
    with _quiet(), torch.inference_mode():
        tokenize = open_clip.get_tokenizer(scorer.model, **_cache(scorer))
        return network.encode_text(tokenize(list(texts))).float().numpy()


def kept_text_features(scorer: Scorer, prompts: Prompts, table: Path) -> TextFeatures:
    """The same, kept beside the scorer's rows in the score table: a second run loads no model for them."""
    words = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16]
    kept = scores.folder_of(table, scorer.identity) / f"prompts-{words}.json"
    if not kept.exists():
        found = text_features(scorer, prompts)
        files.write_json(kept, {**vars(found), "features": found.features.tolist(), **prompts._asdict()})
    note = files.read_json(kept, "--scores")
    return TextFeatures(np.array(note["features"], np.float32), note["weights_sha256"])


@lru_cache(maxsize=1)
def _network(scorer: Scorer) -> tuple[nn.Module, Any]:
    """The open_clip model, float32 on the CPU, and its preprocessing. Raises UserError when it can't be had."""
    local = scorer.model.startswith(LOCAL) or (scorer.pretrained is not None and Path(scorer.pretrained).is_file())
    hugging_face = None if local else hub.HuggingFace()
    import open_clip

    name, pretrained = scorer.model, scorer.pretrained
    if ":" not in name and name not in open_clip.list_models():
        raise UserError(f"--model {name}: open_clip has no model of that name; {ALTERNATIVE}")
    if not local and pretrained and pretrained not in open_clip.list_pretrained_tags_by_model(name):
        raise UserError(f"--pretrained {pretrained}: neither a file nor weights that open_clip has for {name}")
    unreachable = hugging_face is not None and hugging_face.offline()
    try:
        with _quiet():
            network, transform = open_clip.create_model_from_pretrained(name, pretrained, **_cache(scorer))
    # open_clip wraps every failure in RuntimeError; file, parse and shape errors come from the local folder's contents.
    except (RuntimeError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        source = f"{name} ({pretrained})" if pretrained else name
        if unreachable:
            raise UserError(
                f"--model {source}: weights not in the cache, and no network to fetch them from; {ALTERNATIVE}"
            ) from None
        raise UserError(f"--model {source}: can't be loaded ({_first_line(error)}); {ALTERNATIVE}") from None
    return network.eval(), transform


def _cache(scorer: Scorer) -> dict[str, str]:
    return {"cache_dir": str(scorer.cache_dir)} if scorer.cache_dir else {}


def _weights_digest(scorer: Scorer) -> str:
    """SHA-256 of the files that hold the weights, when they are the user's own; a published name stands for itself."""
    if scorer.model.startswith(LOCAL):
        paths = sorted(p for p in Path(scorer.model.removeprefix(LOCAL)).iterdir() if p.suffix in WEIGHT_SUFFIXES)
    else:
        paths = [Path(scorer.pretrained)] if scorer.pretrained and Path(scorer.pretrained).is_file() else []
    return " ".join(files.sha256(path) for path in paths)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 over all weights in order, 16 digits: names the model whatever file it came from."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs each failure before it raises it; one line is enough."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---- what the two CLIP stages share ----


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--model and its companions."""
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="an open_clip name, hf-hub:..., local-dir:FOLDER, or builtin")
    add("--pretrained", default=DEFAULT_PRETRAINED, help="weights for an open_clip name: a tag or a file")
    add("--model_cache_dir", type=cli.user_path, help="where weights are kept (default: the user's cache)")
    add("--prompts", type=cli.user_path, help="YAML with two lists, complete and fragments (default: for Greek vases)")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: fast, big JPEGs read reduced; fp32: exact")


def files_of(args: argparse.Namespace) -> str:
    """The model that the flags name, as it is on this disk, without loading it."""
    return " ".join((resolve(args.model), _weights_digest(Scorer(resolve(args.model), args.pretrained, None, "fp32"))))


def from_flags(args: argparse.Namespace, device: str) -> Scorer:
    """The scorer that the flags ask for, on such a device."""
    name = resolve(args.model)
    pretrained = None if ":" in name else args.pretrained  # such a name brings its own weights
    if pretrained and Path(pretrained).expanduser().is_file():
        pretrained = str(Path(pretrained).expanduser().absolute())
    fast = args.precision == "auto"
    precision = devices.fast_precision(device) if fast else args.precision
    return Scorer(name, pretrained, args.model_cache_dir, precision, draft=fast)


def provenance(
    scorer: Scorer, features: TextFeatures, prompts: Prompts, using: Sequence[str], args: argparse.Namespace
) -> dict[str, Any]:
    """What a report says of how its scores came about."""
    model = {"name": scorer.model, "pretrained": scorer.pretrained, "weights_sha256": features.weights_sha256}
    model |= {"precision": scorer.precision, "draft": scorer.draft, "devices": list(using), **prompts._asdict()}
    packages = ("torch", "open_clip_torch", "pillow")
    return {"model": model, "settings": cli.settings(args), "versions": cli.versions(*packages)}
