"""The CLIP scorer: pictures in, their similarity to "a complete vase" and to "fragments" out."""

from __future__ import annotations

import argparse
import hashlib
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vasekit import builtin, cli, hub, pipeline
from vasekit.cli import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

PROMPTS = Path(__file__).with_name("prompts.yaml")
DEFAULT_MODEL, DEFAULT_PRETRAINED = "ViT-B-32-quickgelu", "openai"
LOCAL = "local-dir:"
ALTERNATIVE = "use --model builtin, or --model local-dir:FOLDER with an open_clip folder on this disk"


class Prompts(NamedTuple):
    """Two groups of sentences, each averaged to one text feature."""

    complete: tuple[str, ...]
    fragments: tuple[str, ...]


def load_prompts(path: Path = PROMPTS) -> Prompts:
    """Read the two lists of a prompt bank."""
    import yaml

    lists = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Prompts(tuple(lists["complete"]), tuple(lists["fragments"]))


@dataclass(frozen=True)
class Scorer:
    """An open_clip model with the features of its prompts, ready to score batches."""

    model: nn.Module
    prepare: Callable[[Image.Image], Tensor]  # RGB picture -> (3, size, size), normalised
    features: Tensor  # (2, dim): complete, fragments; unit length
    device: str
    about: dict[str, Any]  # what a report says of the model

    def __call__(self, batch: Tensor) -> Tensor:
        """(n, 3, size, size) -> (n, 2) cosines with complete and with fragments, float32 on the CPU."""
        import torch

        with torch.inference_mode():
            return (self.model.encode_image(batch.to(self.device), normalize=True) @ self.features.T).float().cpu()


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


def load(
    model: str = DEFAULT_MODEL,
    pretrained: str | None = DEFAULT_PRETRAINED,
    device: str = "cpu",
    cache_dir: Path | None = None,
    prompts: Prompts | None = None,
) -> Scorer:
    """The scorer for an open_clip name (weights `pretrained`: a tag or a file), `hf-hub:`, `local-dir:` or `builtin`.

    Weights are fetched into `cache_dir` (default: the user's cache). Raises UserError when they can't be had.
    """
    name = resolve(model)
    local = name.startswith(LOCAL) or (pretrained is not None and Path(pretrained).is_file())
    hugging_face = None if local else hub.HuggingFace()
    import open_clip

    prompts = prompts or load_prompts()
    if ":" in name:
        pretrained = None  # such a name brings its own weights
    elif name not in open_clip.list_models():
        raise UserError(f"--model {model}: open_clip has no model of that name; {ALTERNATIVE}")
    if not local and pretrained and pretrained not in open_clip.list_pretrained_tags_by_model(name):
        raise UserError(f"--pretrained {pretrained}: neither a file nor weights that open_clip has for {name}")
    unreachable = hugging_face is not None and hugging_face.offline()
    cache = {"cache_dir": str(cache_dir)} if cache_dir else {}
    try:
        with _quiet():
            network, prepare = open_clip.create_model_from_pretrained(name, pretrained, device=device, **cache)
            tokenize = open_clip.get_tokenizer(name, **cache)
    # open_clip wraps every failure in RuntimeError; file, parse and shape errors come from the local folder's contents.
    except (RuntimeError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        if unreachable:
            source = f"{model} ({pretrained})" if pretrained else model
            raise UserError(
                f"--model {source}: weights not in the cache, and no network to fetch them from; {ALTERNATIVE}"
            ) from None
        raise UserError(f"--model {model}: can't be loaded ({_first_line(error)}); {ALTERNATIVE}") from None
    network.eval()
    about = {"name": name, "pretrained": pretrained, "weights_sha256": fingerprint(network), "device": device}
    return Scorer(
        network, prepare, text_features(network, tokenize, prompts, device), device, about | prompts._asdict()
    )


def builtin_tower(trained: bool = False) -> nn.Module:
    """The image tower of tiny-clip alone: (n, 3, 112, 112) -> (n, output_dim); random weights unless `trained`."""
    import open_clip

    with _quiet():
        return open_clip.create_model(f"{LOCAL}{builtin.CLIP}", load_weights=trained).visual


def text_features(network: nn.Module, tokenize: Callable, prompts: Prompts, device: str) -> Tensor:
    """(2, dim): per group the text features are averaged, then normalised, as in the paper."""
    import torch
    import torch.nn.functional as F

    with torch.inference_mode():
        means = [network.encode_text(tokenize(list(group)).to(device)).mean(0) for group in prompts]
        return F.normalize(torch.stack(means), dim=-1)


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
    add("--batch_size", type=cli.positive_int, default=64, help="images scored at a time")
    add("--workers", type=cli.positive_int, default=pipeline.DEFAULT_WORKERS, help="threads that decode")


def load_from(args: argparse.Namespace, device: str) -> Scorer:
    """The scorer that the flags ask for."""
    return load(args.model, args.pretrained, device, args.model_cache_dir)


def provenance(scorer: Scorer, args: argparse.Namespace) -> dict[str, Any]:
    """What a report says of how its scores came about."""
    packages = ("torch", "open_clip_torch", "pillow")
    return {"model": scorer.about, "settings": cli.settings(args), "versions": cli.versions(*packages)}
