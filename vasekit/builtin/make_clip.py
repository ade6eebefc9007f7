"""Train tiny-clip: an open_clip model that knows rendered vases, whole or not, from every side."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from vasekit import clip
from vasekit.builtin import renders
from vasekit.builtin.captions import Caption, Traits, caption
from vasekit.builtin.renders import Renders
from vasekit.metrics import auc
from vasekit.synth import world

VOCABULARY, CONTEXT = 700, 40
MEAN, STD = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
TRAIN_IMAGES, EPOCHS, BATCH, LEARNING_RATE = 9000, 9, 128, 3e-3
TEST_IMAGES, TEST_VASES = 1600, 150


def config() -> dict:
    """open_clip_config.json: a ResNet with one block per stage and a two-layer text tower, 64 dimensions shared."""
    vision = {"image_size": renders.SIZE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "patch_size": None}
    text = {
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "width": 64,
        "heads": 4,
        "layers": 2,
        "hf_tokenizer_name": "tiny-clip",
    }
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "longest"}
    return {"model_cfg": {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": preprocess}


def make_tokenizer(texts: list[str], folder: Path) -> None:
    """Byte-level BPE over the captions. End of text has the highest id: open_clip finds it by that."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1, initial_alphabet=alphabet, special_tokens=["<pad>", "<start>"]
    )
    tokenizer.train_from_iterator(texts, trainer)
    while tokenizer.get_vocab_size() < VOCABULARY - 1:
        tokenizer.add_tokens([f"<unused_{tokenizer.get_vocab_size()}>"])
    tokenizer.add_special_tokens(["<end>"])
    ids = [(name, tokenizer.token_to_id(name)) for name in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ids)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", model_max_length=CONTEXT
    )
    wrapped.save_pretrained(folder)


def make(folder: Path, seed: int = 0) -> dict:
    """Render, train, judge, and write the model to `folder`; returns its scores."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    forbidden = frozenset(p.lower() for group in clip.load_prompts() for p in group)
    train = renders.mixed(renders.CLIP_TRAIN, TRAIN_IMAGES)
    make_tokenizer([caption(t, rng, forbidden).text for t in train.traits for _ in range(3)], folder)
    (folder / "open_clip_config.json").write_text(json.dumps(config(), indent=2) + "\n")
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).to(memory_format=torch.channels_last)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    _fit(model, tokenize, train, rng, forbidden)
    # Half precision halves the file; open_clip converts back on loading.
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return judge(folder)


def _fit(model: nn.Module, tokenize, train: Renders, rng: random.Random, forbidden: frozenset[str]) -> None:
    images = torch.from_numpy(train.images).permute(0, 3, 1, 2)  # channels last in memory: twice as fast on a CPU
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    plain = [p for n, p in model.named_parameters() if not (p.ndim > 1 and "embedding" not in n)]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    model.train()
    started = time.perf_counter()
    for step in range(steps):
        index = torch.randint(0, len(images), (BATCH,))
        photos = [train.traits[i] for i in index]
        captions = [caption(p, rng, forbidden) for p in photos]
        image = model.encode_image(_augment(images[index]), normalize=True)
        text = model.encode_text(tokenize([c.text for c in captions]), normalize=True)
        loss = soft_clip_loss(model.logit_scale.exp() * image @ text.T, captions, photos)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        if step % 100 == 0 or step == steps - 1:
            print(
                f"tiny-clip: step {step}/{steps} loss {loss.item():.3f} {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    model.eval()


def soft_clip_loss(logits: Tensor, captions: list[Caption], photos: list[Traits]) -> Tensor:
    """CLIP loss whose target is spread over every pair that fits: "a whole vase" is true of half the batch.

    logits: (images, captions).
    """
    fits = torch.tensor([[c.fits(p) for c in captions] for p in photos], dtype=torch.float32)
    by_image = -(fits / fits.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    by_text = -(fits / fits.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (by_image + by_text) / 2


def _augment(images: Tensor) -> Tensor:
    """(n, 3, h, w) uint8 -> normalised float32: mirrored, shifted by up to 5 pixels, brighter or darker, noisy."""
    shift = torch.randint(-5, 6, (2,)).tolist()
    mirrored = (torch.rand(len(images)) < 0.5).view(-1, 1, 1, 1)
    x = torch.where(mirrored, images.flip(3), images)
    x = torch.roll(x, shift, (2, 3)).float() / 255
    x = x * (1 + 0.15 * torch.randn(len(x), 1, 1, 1)) + 0.02 * torch.randn(len(x), 1, *x.shape[2:])
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def judge(folder: Path) -> dict[str, float]:
    """Scores with the kit's own prompts on vases never trained on."""
    scorer = clip.Scorer(f"local-dir:{folder}", None, None, "fp32")
    test, views = renders.mixed(renders.CLIP_TEST, TEST_IMAGES), renders.all_views(renders.CLIP_VIEWS, TEST_VASES)
    complete, fragments = similarities(scorer, test.images).T
    quality, condition = complete - fragments, np.array([t["condition"] for t in test.traits])
    whole = quality[condition == "whole"]
    scores = {f"auc_{name}": auc(whole, quality[condition == name])["value"] for name in world.BROKEN}
    scores["auc_damage"] = auc(whole, quality[np.isin(condition, world.BROKEN)])["value"]
    front = similarities(scorer, views.images)[:, 0].reshape(-1, len(world.VIEWS))
    scores["view_top1"] = float((front.argmax(1) == 0).mean())
    return {name: round(score, 4) for name, score in scores.items()}


def similarities(scorer: clip.Scorer, images: np.ndarray) -> np.ndarray:
    """(n, 2): cosine with the complete and with the fragment prompts."""
    encoder, directions = scorer.open("cpu"), clip.text_features(scorer, clip.load_prompts())
    batches = np.array_split(images, max(1, len(images) // 200))
    embeddings = [encoder(np.stack([encoder.prepare(Image.fromarray(i)) for i in batch])) for batch in batches]
    return directions.similarities(np.concatenate(embeddings))
