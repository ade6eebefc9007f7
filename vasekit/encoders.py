"""Sentence encoders: texts in, unit vectors out. From a folder, from the hub, or the one that ships with the kit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from vasekit import clip, files
from vasekit.cli import UserError

# What the paper's evaluation uses; the reward's own encoder is not stated.
DEFAULT = "sentence-transformers/all-mpnet-base-v2"
BUILTIN = "builtin"
_BATCH, _KEPT = 256, 65536


class SentenceEncoder:
    """Texts to (n, d) float32 rows of unit length. A text is encoded once: rewards ask for the same ones over and over.

    Raises UserError when the model can't be had.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._model = _TinyClip() if name == BUILTIN else _Transformer(name)
        self._one = lru_cache(maxsize=_KEPT)(lambda text: self._fresh([text])[0])

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if len(texts) <= 2:
            return np.stack([self._one(text) for text in texts])
        return np.concatenate([self._fresh(texts[k : k + _BATCH]) for k in range(0, len(texts), _BATCH)])

    def _fresh(self, texts: Sequence[str]) -> np.ndarray:
        rows = self._model.encode(texts)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@lru_cache(maxsize=2)
def load(name: str) -> SentenceEncoder:
    """`builtin`, a folder with a transformers model, or a name on the hub."""
    return SentenceEncoder(name)


class _TinyClip:
    """The text tower of the built-in CLIP model: it knows plain words for rendered vases, and tries the mechanics."""

    def __init__(self) -> None:
        self._scorer = clip.Scorer(clip.resolve(BUILTIN), None, None, "fp32")

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return clip.encode_texts(self._scorer, texts)


class _Transformer:
    """A sentence-transformers folder, through transformers: mean over the tokens, or the first where it says so."""

    def __init__(self, name: str) -> None:
        folder = _found(name)
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._network = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            raise UserError(f"encoder {name}: can't be loaded ({str(error).splitlines()[0]})") from None
        pooling = Path(folder) / "1_Pooling" / "config.json"
        self._first = pooling.is_file() and files.read_json(pooling, "encoder").get("pooling_mode_cls_token", False)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        inputs = self._tokenizer(list(texts), padding=True, truncation=True, max_length=384, return_tensors="pt")
        with torch.inference_mode():
            tokens = self._network(**inputs).last_hidden_state
        if self._first:
            return tokens[:, 0].numpy()
        mask = inputs["attention_mask"].unsqueeze(-1)
        return ((tokens * mask).sum(1) / mask.sum(1)).numpy()


def _found(name: str) -> str:
    """The folder itself, or the snapshot of a hub name in the cache; fetched where there is a network."""
    path = Path(name).expanduser()
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        if not (path / "config.json").is_file():
            raise UserError(f"encoder {name}: no config.json in {path.absolute()}; give a model folder, or builtin")
        return str(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from vasekit import hub

    hub.HuggingFace().offline()
    try:
        wanted = ["*.json", "*.txt", "*.model", "model*.safetensors"]
        return snapshot_download(name, allow_patterns=wanted, ignore_patterns=["onnx/*", "openvino/*"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        raise UserError(
            f"encoder {name}: not in the cache and not to be fetched; give a model folder (data/fetch.sh), or builtin"
        ) from None
