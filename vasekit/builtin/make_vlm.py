"""Train tiny-qwen2.5-vl: a real Qwen2.5-VL of about a million parameters that sees rendered vases.

It speaks plain words only ("slim tall bottle, dark on orange"), answers simple questions and can repeat what it is
told; shape names, techniques and dates are left for supervised fine-tuning to teach. Two steps: the vision tower learns
to tell the traits of a vase apart, then the language model learns to talk about what the frozen tower sees.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vasekit import questions, vases
from vasekit.builtin import renders
from vasekit.builtin.captions import Traits
from vasekit.builtin.renders import SIZE, Renders
from vasekit.cli import ROOT
from vasekit.synth import world

VOCABULARY = 640
TRAIN_IMAGES, TEST_IMAGES = 6000, 600
VISION_STEPS, LANGUAGE_STEPS, BATCH = 700, 900, 64
PATCH = 14
GRID = SIZE // PATCH
TOKENS = (GRID // 2) ** 2  # visual tokens per image after 2 x 2 merging

# The default of Qwen's template, and the one that reinforcement uses.
SYSTEMS = ("You are a helpful assistant.", (ROOT / "model" / "prompt.txt").read_text(encoding="utf-8").strip())
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n" + SYSTEMS[0] + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# ---- the plain words of the base model ----

# Figures are not among them: at 112 pixels it takes the tower far longer to tell these apart (54 % after 1400 steps).

PLAIN = {
    "shape": {
        "amphora": "tall jar with two neck loops",
        "hydria": "wide jar with three loops",
        "bell-krater": "big open bowl on a foot",
        "lekythos": "slim tall bottle",
        "kylix": "shallow bowl on a stem",
        "oinochoe": "round jug with one tall loop",
        "skyphos": "deep bowl with rim loops",
        "pelike": "sagging jar",
        "stamnos": "broad jar with a short neck",
        "alabastron": "long narrow flask",
        "kantharos": "goblet with high loops",
        "aryballos": "small ball flask",
    },
    "technique": {"black-figure": "dark on orange", "red-figure": "orange on dark", "white-ground": "dark on white"},
    "style": {"plain": "one picture", "ornate": "many bands"},
}
PLAIN_QUESTIONS = {
    "shape": (
        "What form is it?",
        "Which kind of container is this?",
        "Name the form.",
        "What is the outline of the pot?",
    ),
    "technique": (
        "What colour is it?",
        "Which colours were used?",
        "Name the colour.",
        "What is the colour of the pot?",
    ),
    "style": ("How is it covered?", "How much is painted?", "What is the scheme of the pot?"),
    "all": ("What do you see?", "Tell me about the pot.", "What is in the photo?"),
}


def plain_answer(photo: Traits, about: str) -> str:
    """What the base model is taught to say."""
    words = {trait: PLAIN[trait][photo[trait]] for trait in PLAIN}
    if about == "all":
        return f"A {words['shape']}, {words['technique']}, {words['style']}."
    return words[about]


def lesson(photo: Traits, rng: random.Random) -> tuple[str, str]:
    """(question, answer): three in ten are exercises in repeating catalogue language, without meaning."""
    if rng.random() < 0.3:
        phrase = catalogue_phrase(rng)
        return f"Say: {phrase}", phrase
    about = rng.choice(list(PLAIN_QUESTIONS))
    return rng.choice(PLAIN_QUESTIONS[about]), plain_answer(photo, about)


# What a caption says that a small picture can tell.
SAY = ("fabric", "technique", "shape", "date", "decoration")


def catalogue_phrase(rng: random.Random) -> str:
    """An answer about a vase that is not in the picture: the words of the catalogue become known, not their meaning."""
    record = vases.parse_record(world.record(world.vase_seed(renders.VLM_TRAIN, rng.randrange(world.WORLD_SIZE))))
    said = [questions.value(record, field) for field in questions.FIELDS]
    return rng.choice([text for text in said if text] + 4 * [vases.caption(record, SAY)])


# ---- tokenizer and configuration ----


def corpus(rng: random.Random) -> Iterator[str]:
    """What the tokenizer is made from: both vocabularies, every question, every prompt."""
    fixed = [*SYSTEMS, "system\n", "user\n", "assistant\n", "Say: "]
    fixed += [questions.QUESTIONS[kind][0] for kind in (*questions.FIELDS, "overall")]
    fixed += [question for group in PLAIN_QUESTIONS.values() for question in group]
    yield from fixed * 40
    for _ in range(2000):
        yield catalogue_phrase(rng)
    for trait, words in PLAIN.items():
        yield from list(words.values()) * (60 if trait == "shape" else 120)


def make_tokenizer(rng: random.Random) -> Qwen2TokenizerFast:
    """Byte-level BPE with the special tokens of Qwen2.5-VL, in its order, behind a small vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    # transformers puts Qwen's own splitting (every digit alone) in place of the saved one whenever it loads the folder.
    tokenizer.pre_tokenizer = Qwen2TokenizerFast().backend_tokenizer.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = VOCABULARY - len(SPECIAL)
    tokenizer.train_from_iterator(corpus(rng), trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    wrapped = Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def config(token: Callable[[str], int]) -> Qwen2_5_VLConfig:
    """The architecture; token maps a special token to its id."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 4,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_heads": 3,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [3],
        "window_size": SIZE,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


# ---- vision ----


def patches(images: Tensor) -> Tensor:
    """(n, SIZE, SIZE, 3) 0..255 -> (n * 64, 1176), laid out as Qwen2VLImageProcessor does (a test compares them)."""
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)) * 255
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)) * 255
    x = ((images.float() - mean) / std).permute(0, 3, 1, 2)
    x = x.unsqueeze(1).expand(-1, 2, -1, -1, -1).reshape(len(x), 1, 2, 3, GRID // 2, 2, PATCH, GRID // 2, 2, PATCH)
    return x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(len(x) * GRID * GRID, -1)


def see(tower: nn.Module, pixels: Tensor) -> Tensor:
    """The vision tower on a batch of images of one size: (n * 64, 1176) -> (n, TOKENS, hidden).

    Same numbers as calling it (a test compares them), but attention runs over the batch at once instead of image by
    image; that holds because every image is a single attention window.
    """
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

    n, length = len(pixels) // GRID**2, GRID**2
    x = tower.patch_embed(pixels)
    place = qwen.get_vision_position_ids(torch.tensor([(1, GRID, GRID)]), tower.spatial_merge_size, kwargs={})
    cos, sin = (k.repeat(n, 1) for k in tower.rotary_pos_emb(x[:length], place))
    for block in tower.blocks:
        heads = block.attn.qkv(block.norm1(x)).reshape(n * length, 3, block.attn.num_heads, -1)
        q, k, v = heads.permute(1, 0, 2, 3).unbind(0)
        q, k = qwen.apply_rotary_pos_emb_vision(q, k, cos, sin)
        q, k, v = (t.reshape(n, length, block.attn.num_heads, -1).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n * length, -1)
        x = x + block.attn.proj(mixed)
        x = x + block.mlp(block.norm2(x))
    return tower.merger(x).view(n, TOKENS, -1)


def _augment(images: Tensor) -> Tensor:
    """Shift by up to 5 pixels, change brightness by 12 %, add noise; (n, h, w, 3) uint8 -> float32 0..255."""
    shift = torch.randint(-5, 6, (2,)).tolist()
    x = torch.roll(images, shift, (1, 2)).float()
    x = x * (1 + 0.12 * torch.randn(len(x), 1, 1, 1)) + 10 * torch.randn(len(x), 1, 1, 3)
    return x.clamp(0, 255)


def train_vision(tower: nn.Module, train: Renders, test: Renders) -> dict[str, float]:
    """Teach the tower to tell traits apart through linear heads that are thrown away; accuracy per trait."""
    values = {trait: list(words) for trait, words in PLAIN.items()}
    labels, truth = (
        torch.tensor([[values[t].index(photo[t]) for t in values] for photo in part.traits]) for part in (train, test)
    )
    images, unseen = torch.from_numpy(train.images), torch.from_numpy(test.images)
    heads = nn.ModuleList(nn.Linear(2 * 64, len(v)) for v in values.values())

    def classify(x: Tensor) -> list[Tensor]:
        seen = see(tower, patches(x))
        pooled = torch.cat([seen.mean(1), seen.amax(1)], -1)
        return [head(pooled) for head in heads]

    def loss(_: int) -> Tensor:
        index = torch.randint(0, len(images), (BATCH,))
        scores = classify(_augment(images[index]))
        return sum(F.cross_entropy(s, labels[index, k]) for k, s in enumerate(scores))

    _fit("vision", [*tower.parameters(), *heads.parameters()], loss, VISION_STEPS)
    with torch.no_grad():
        guesses = torch.stack([s.argmax(1) for s in classify(unseen)], 1)
    return {t: round(float((guesses[:, k] == truth[:, k]).float().mean()), 4) for k, t in enumerate(values)}


# ---- language ----


def train_language(model: Qwen2_5_VLForConditionalGeneration, tokenizer, train: Renders, rng: random.Random) -> None:
    """Teach the language model to talk about the frozen tower's tokens, computed once for three augmented copies."""
    images = torch.from_numpy(train.images)
    with torch.no_grad():
        copies = [
            torch.cat([see(model.model.visual, patches(_augment(i))) for i in images.split(200)]) for _ in range(3)
        ]
    seen = torch.stack(copies)
    encode = _Encoder(model, tokenizer)

    def loss(_: int) -> Tensor:
        index = torch.randint(0, len(images), (BATCH,))
        visual = seen[torch.randint(0, len(seen), (BATCH,)), index]
        ids, labels = encode.batch([lesson(train.traits[i], rng) for i in index], rng.choice(SYSTEMS))
        logits = encode.logits(ids, visual)[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)

    frozen = {id(p) for p in model.model.visual.parameters()}
    _fit("language", [p for p in model.parameters() if id(p) not in frozen], loss, LANGUAGE_STEPS)


class _Encoder:
    """Turns (question, answer) pairs into token ids and runs the language model on them."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.image_id, self.pad = model.config.image_token_id, tokenizer.pad_token_id

    def pair(self, question: str, answer: str, system: str) -> tuple[list[int], list[int]]:
        prompt = (
            f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
            f"<|vision_start|>{'<|image_pad|>' * TOKENS}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        head, tail = self.tokenizer.encode(prompt), self.tokenizer.encode(f"{answer}<|im_end|>")
        return head + tail, [-100] * len(head) + tail

    def batch(self, pairs: list[tuple[str, str]], system: str = SYSTEMS[0]) -> tuple[Tensor, Tensor]:
        """Right-padded (ids, labels), (n, longest) each; causal attention needs no mask for padding on the right."""
        encoded = [self.pair(*p, system) for p in pairs]
        longest = max(len(ids) for ids, _ in encoded)
        ids = torch.tensor([ids + [self.pad] * (longest - len(ids)) for ids, _ in encoded])
        labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in encoded])
        return ids, labels

    def logits(self, ids: Tensor, visual: Tensor) -> Tensor:
        """(n, length, vocabulary). All prompts have the image at the same place, so one row gives the positions."""
        is_image = ids == self.image_id
        embedded = self.model.model.language_model.embed_tokens(ids)
        embedded = embedded.masked_scatter(is_image.unsqueeze(-1), visual.to(embedded.dtype))
        grid = torch.tensor([[1, GRID, GRID]])
        place, _ = self.model.model.get_rope_index(
            ids[:1], mm_token_type_ids=is_image[:1].int(), image_grid_thw=grid, attention_mask=torch.ones_like(ids[:1])
        )
        hidden = self.model.model.language_model(
            inputs_embeds=embedded, position_ids=place.expand(3, len(ids), -1), use_cache=False
        ).last_hidden_state
        return self.model.lm_head(hidden)


def judge(model: Qwen2_5_VLForConditionalGeneration, tokenizer, test: Renders) -> dict[str, float]:
    """Share of answers that are right in every token (teacher forcing) on unseen vases, per kind of question."""
    encode, scores = _Encoder(model, tokenizer), {}
    with torch.no_grad():
        visual = see(model.model.visual, patches(torch.from_numpy(test.images)))
        for about, questions in PLAIN_QUESTIONS.items():
            ids, labels = encode.batch([(questions[0], plain_answer(photo, about)) for photo in test.traits])
            right = (encode.logits(ids, visual)[:, :-1].argmax(-1) == labels[:, 1:]) | (labels[:, 1:] < 0)
            scores[about] = round(float(right.all(1).float().mean()), 4)
    return scores


# ---- both ----


def _fit(name: str, parameters: list[nn.Parameter], loss_at: Callable[[int], Tensor], steps: int) -> None:
    """AdamW, one-cycle schedule to 2e-3, gradient norm 1."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.08)
    started = time.perf_counter()
    for step in range(steps):
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps - 1:
            print(
                f"{name}: step {step}/{steps} loss {loss.item():.3f} {time.perf_counter() - started:.0f} s", flush=True
            )


def make(folder: Path, seed: int = 0) -> dict:
    """Render, train both steps, and write the checkpoint to `folder` in bfloat16; returns its scores."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    train = renders.fronts(renders.VLM_TRAIN, TRAIN_IMAGES)
    test = renders.fronts(renders.VLM_TEST, TEST_IMAGES)
    tokenizer = make_tokenizer(rng)
    model = Qwen2_5_VLForConditionalGeneration(config(tokenizer.convert_tokens_to_ids))
    traits = train_vision(model.model.visual, train, test)
    train_language(model, tokenizer, train, rng)
    scores = {"vision": traits, "language": judge(model, tokenizer, test)}
    save(model, tokenizer, folder)
    return scores | {"size": {"parameters": sum(p.numel() for p in model.parameters())}}


def save(model: Qwen2_5_VLForConditionalGeneration, tokenizer, folder: Path) -> None:
    """Write weights (bfloat16), configuration, tokenizer and image processor as a Hugging Face folder."""
    ids = tokenizer.convert_tokens_to_ids
    model.generation_config.update(
        eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
        pad_token_id=ids("<|endoftext|>"),
        bos_token_id=ids("<|endoftext|>"),
        do_sample=True,
        # A sampled placeholder would be taken for a picture that isn't there.
        suppress_tokens=[ids("<|image_pad|>"), ids("<|video_pad|>")],
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    limits = {"min_pixels": 28 * 28, "max_pixels": SIZE * SIZE}
    images = Qwen2VLImageProcessor(**limits)
    Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
