"""How many bytes one GPU needs at the peak of a training run, from config.json and the flags. Imports no framework.

What is held all the time is weights, a reference model and Adam's states; on top come the moments of a step, and the
largest counts: the picture's way through the vision tower, the loss, the way back through the layers, and in GRPO the
rollout. With s bytes per number, h the hidden size, a and k the widths of queries and of keys, f the MLP's inner size,
a token leaves in every layer for the way back

    full     8h + 4sh + s(2a + 2k) + 4sf      norms (float32 input, normed, output); q, k, v, attention; MLP
    frozen   8h       + s(2a + 2k) + 3sf      a frozen weight needs no input kept; LoRA keeps its own: s + 1 per input,
                                              in every linear it adapts (a copy, and dropout's mask)

or, with gradient checkpointing, sh, and one such layer at a time. These are the sums of Korthikanti et al. 2022
("Reducing Activation Recomputation in Large Transformer Models", section 4: sbh(34 + 5as/h)), made anew for RMSNorm,
SwiGLU, grouped keys and attention that never holds the matrix of scores. They were compared with what autograd keeps
of transformers 5.19's Qwen2.5-VL (7B's sizes, fake tensors, bfloat16 autocast and float32): within 1 %.

Gigabytes are 10^9 bytes. Not modelled: quantized weights, FSDP, sequence parallelism, --device_map; tuner types other
than lora and full are refused. float32 counts as float32, though ms-swift then computes in float16 on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vasekit import files
from vasekit.cli import UserError
from vasekit.flags import Flags

Parts = dict[str, float]

PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "reference",
    "activations",
    "logits",
    "vision",
    "rollout",
    "context + fragmentation",
)
_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Bytes per logit when the loss turns around, measured with fake tensors (torch 2.13, trl 0.29): cross entropy holds its
# float32 log-probabilities, their gradient and the logits' gradient; GRPO's logsumexp two temporaries more.
_SFT_LOGIT, _GRPO_LOGIT = 12, 16
# A CUDA context with cuBLAS, NCCL's buffers, vLLM asleep or without its cache, and the share of a step's tensors that
# the allocator loses to fragments: guesses, no GPU was at hand.
_CUDA, _NCCL, _VLLM, _FRAGMENTS = 0.6e9, 0.4e9, 1.5e9, 0.05
# DeepSpeed's defaults in ms-swift's zero2.json and zero3.json: numbers in a bucket, and parameters that are whole.
_BUCKET, _LIVE = 2e8, 1e9
# MAX_PIXELS of model/sft.sh and model/grpo.sh; a patch has 14 x 14 pixels, and budgets count squares of 28 x 28.
_PIXELS, _PATCH, _SQUARE = 1003520, 14**2, 28**2


# ---- the model ----


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2.5-VL: widths of hidden states, queries, keys; v: the same of the vision tower."""

    hidden: int
    layers: int
    queries: int
    keys: int
    inner: int
    vocabulary: int
    tied: bool
    v_hidden: int = 1280
    v_layers: int = 32
    v_inner: int = 3420
    v_out: int = 2048
    merge: int = 2
    pixels: int = 1176  # numbers in a patch: 3 colours x 2 frames x 14 x 14
    dtype: str = "bfloat16"

    @staticmethod
    def of(model: Path) -> Shape:
        """From config.json, flat as transformers 4 writes it or nested as transformers 5 does. Raises UserError."""
        config = files.read_json(model / "config.json", "--model")
        text, vision = config | config.get("text_config", {}), config.get("vision_config", {})
        try:
            return _shape(config, text, vision)
        except KeyError as error:
            raise UserError(f"--model {model}: config.json has no {error}; give a Qwen2.5-VL model folder") from None

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def llm(self) -> int:
        """Parameters of the language model, with its head."""
        h, q, k = self.hidden, self.queries, self.keys
        layer = (h + 1) * q + 2 * (h + 1) * k + q * h + 3 * h * self.inner + 2 * h
        return self.embedding * (1 if self.tied else 2) + self.layers * layer + h

    @property
    def vision(self) -> int:
        """Parameters of the vision tower, without the merger."""
        v, f = self.v_hidden, self.v_inner
        return self.pixels * v + self.v_layers * (4 * v * v + 4 * v + 3 * v * f + 2 * f + v + 2 * v)

    @property
    def aligner(self) -> int:
        """Parameters of the merger, which makes one token of 2 x 2 patches."""
        wide = self.v_hidden * self.merge**2
        return self.v_hidden + wide * wide + wide + wide * self.v_out + self.v_out

    @property
    def all(self) -> int:
        return self.llm + self.vision + self.aligner


def _shape(config: dict[str, Any], text: dict[str, Any], vision: dict[str, Any]) -> Shape:
    head, keys = text["hidden_size"] // text["num_attention_heads"], text.get("num_key_value_heads")
    temporal, side = vision.get("temporal_patch_size", 2), vision.get("patch_size", 14)
    return Shape(
        text["hidden_size"],
        text["num_hidden_layers"],
        text["num_attention_heads"] * head,
        (keys or text["num_attention_heads"]) * head,
        text["intermediate_size"],
        text["vocab_size"],
        config.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False),
        vision["hidden_size"],
        vision["depth"],
        vision["intermediate_size"],
        vision["out_hidden_size"],
        vision.get("spatial_merge_size", 2),
        vision.get("in_channels", vision.get("in_chans", 3)) * temporal * side**2,
        str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "bfloat16"),
    )


# Qwen2.5-VL-3B-Instruct, the next smaller model.
SMALLER = Shape(2048, 36, 2048, 256, 11008, 151936, True)


@dataclass(frozen=True)
class _Linear:
    part: str
    name: str
    inputs: int
    outputs: int
    count: int


def _linears(shape: Shape) -> list[_Linear]:
    """What all-linear adapts: not the head, and not patch_embed.proj, which is a convolution."""
    h, f, v, g = shape.hidden, shape.inner, shape.v_hidden, shape.v_inner
    wide = v * shape.merge**2
    llm = [("q_proj", h, shape.queries), ("k_proj", h, shape.keys), ("v_proj", h, shape.keys)]
    llm += [("o_proj", shape.queries, h), ("gate_proj", h, f), ("up_proj", h, f), ("down_proj", f, h)]
    vit = [("qkv", v, 3 * v), ("proj", v, v), ("gate_proj", v, g), ("up_proj", v, g), ("down_proj", g, v)]
    return [
        *(_Linear("llm", *sizes, shape.layers) for sizes in llm),
        *(_Linear("vit", *sizes, shape.v_layers) for sizes in vit),
        _Linear("aligner", "0", wide, wide, 1),
        _Linear("aligner", "2", wide, shape.v_out, 1),
    ]


# ---- the flags ----


def _text(flags: Flags, name: str, default: str) -> str:
    return next(iter(flags.get(name) or [default]), default)


def _on(flags: Flags, name: str, default: bool = False) -> bool:
    values = flags.get(name)
    return default if values is None else (values or ["true"])[0].lower() in ("true", "1", "yes")


def _number(flags: Flags, name: str, default: float) -> float:
    value = _text(flags, name, str(default))
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--{name} {value}: needs a number") from None


def _zero(flags: Flags) -> tuple[int, bool, bool]:
    """DeepSpeed's stage, and whether optimizer and parameters lie in host memory. A name, a JSON file, or JSON."""
    name = _text(flags, "deepspeed", "zero0")
    stage, _, offload = name.removeprefix("zero").partition("_")
    if name.startswith("zero") and stage in "0123" and offload in ("", "offload"):
        return int(stage), bool(offload), bool(offload) and stage == "3"
    try:
        config = json.loads(name) if name.startswith("{") else files.read_json(Path(name), "--deepspeed")
    except json.JSONDecodeError:
        raise UserError(f"--deepspeed {name}: needs zero0 to zero3, zero2_offload, zero3_offload or JSON") from None
    zero = config.get("zero_optimization", {})
    where = [zero.get(f"offload_{what}", {}).get("device", "none") != "none" for what in ("optimizer", "param")]
    return zero.get("stage", 0), where[0], where[1]


@dataclass(frozen=True)
class _Job:
    """The flags as the sums need them; ms-swift's defaults where a flag is missing."""

    shape: Shape
    flags: Flags
    processes: int
    tokens: int  # of a row, what GRPO generates included
    generated: int  # most tokens of an answer, 0 where not known
    patches: int
    batch: int
    grpo: bool
    size: int  # bytes of a weight
    card: int

    @property
    def full(self) -> bool:
        return _text(self.flags, "tuner_type", "lora") == "full"

    @property
    def flat(self) -> bool:
        """Rows lie end to end: nothing is padded, and ms-swift computes logits for trained tokens alone."""
        return self.batch == 1 or any(_on(self.flags, name) for name in ("packing", "padding_free"))

    @property
    def all_tokens(self) -> int:
        return self.batch * self.tokens

    @property
    def all_patches(self) -> int:
        return self.batch * self.patches

    @property
    def colocated(self) -> bool:
        return self.grpo and _on(self.flags, "use_vllm") and _text(self.flags, "vllm_mode", "") == "colocate"

    def frozen(self, part: str) -> bool:
        return _on(self.flags, f"freeze_{part}", part != "llm")

    def adapted(self, *parts: str) -> list[_Linear]:
        """Linears with an adapter. ms-swift heeds freeze_* in all-linear only: other names match in every part."""
        names = set(self.flags.get("target_modules") or ["all-linear"])
        linears = _linears(self.shape)
        everywhere = names.isdisjoint(linear.name for linear in linears)
        return [
            linear
            for linear in linears
            if linear.part in parts and (not self.frozen(linear.part) if everywhere else linear.name in names)
        ]

    def trains(self, *parts: str) -> bool:
        return any(not self.frozen(part) for part in parts) if self.full else bool(self.adapted(*parts))


def _job(shape: Shape, flags: Flags, processes: int, tokens: int, patches: int, answer: int, card: int) -> _Job:
    kind = _text(flags, "tuner_type", "lora")
    if kind not in ("lora", "full"):
        raise UserError(f"--tuner_type {kind}: memory is estimated for lora and full only")
    size = _SIZES.get(_text(flags, "torch_dtype", shape.dtype))
    if size is None:
        raise UserError(f"--torch_dtype {flags['torch_dtype'][0]}: needs {', '.join(_SIZES)}")
    grpo = _text(flags, "rlhf_type", "") == "grpo"
    row = min(tokens, int(_number(flags, "max_length", tokens)))
    if _on(flags, "packing"):
        # A packed row holds as many rows as fit, and their pictures.
        row = int(_number(flags, "packing_length", _number(flags, "max_length", tokens)))
        patches, answer = patches * max(1, row // max(1, tokens)), 0
    if grpo:
        answer = int(_number(flags, "max_completion_length", 512))
        row += answer
    batch = int(_number(flags, "per_device_train_batch_size", 1))
    return _Job(shape, flags, processes, row, answer, patches, batch, grpo, size, card)


# ---- what is held all the time ----


def trainable(shape: Shape, flags: Flags) -> int:
    """Parameters that are trained."""
    return _trainable(_job(shape, flags, 1, 1, 0, 0, 0))


def _trainable(job: _Job) -> int:
    if not job.full:
        return int(_number(job.flags, "lora_rank", 8)) * sum(
            linear.count * (linear.inputs + linear.outputs) for linear in job.adapted("llm", "vit", "aligner")
        )
    sizes = {"llm": job.shape.llm, "vit": job.shape.vision, "aligner": job.shape.aligner}
    return sum(size for part, size in sizes.items() if not job.frozen(part))


def _held(job: _Job) -> Parts:
    """Weights, gradients, Adam's states, reference model.

    ms-swift 4.6 with --torch_dtype bfloat16 sets bf16, so accelerate computes under autocast, but neither keeps a
    float32 copy: full tuning has weights, gradients and both moments in bfloat16 (8 bytes a parameter). LoRA's weights
    are float32, as peft's cast_adapter_dtype makes them (--lora_dtype is unset), and so are gradients and moments.
    DeepSpeed casts all to bfloat16 and keeps a float32 master copy and float32 moments (16 bytes).
    """
    stage, offload, host = _zero(job.flags)
    speed = "deepspeed" in job.flags
    count = _trainable(job)
    own = job.size if job.full or speed else 4
    base = job.size * job.shape.all
    weights = base + (0 if job.full else own * count)
    if stage == 3:
        weights = weights * (0 if host else 1 / job.processes) + job.size * min(job.shape.all, _LIVE)
    held: Parts = {"weights": weights, "gradients": _gradients(job, stage, offload, own * count)}
    held["optimizer"] = 0 if offload else _optimizer(job, own, count) / (job.processes if stage else 1)
    if job.grpo and job.full and _number(job.flags, "beta", 0.04):
        # A second copy, in shards with ZeRO-3 alone; LoRA switches its adapter off instead.
        held["reference"] = base if stage < 3 else 0 if host else base / job.processes
    return held


def _gradients(job: _Job, stage: int, offload: bool, size: float) -> float:
    if stage < 2:
        # DDP's buckets are a second copy, as its documentation says (gradient_as_bucket_view is off); not measured.
        return size * (2 if job.processes > 1 and "deepspeed" not in job.flags else 1)
    bucket = min(size, job.size * (_BUCKET if stage == 2 else job.shape.hidden**2))
    return (0 if offload else size / job.processes) + bucket


def _optimizer(job: _Job, own: int, count: int) -> float:
    name = _text(job.flags, "optim", "adamw_torch_fused")
    master = 4 if "deepspeed" in job.flags and job.size == 2 else 0
    if "paged" in name:
        return master * count  # moves to host memory when the card is full
    if "8bit" not in name:
        return (master + 2 * (4 if master else own)) * count
    # bitsandbytes keeps a float32 scale per 256 numbers; transformers has it keep embeddings in 32 bits.
    wide = job.shape.embedding if job.full and not job.frozen("llm") else 0
    return master * count + 2 * (1 + 4 / 256) * (count - wide) + 8 * wide


# ---- the moments of a step ----


def _layer(job: _Job) -> float:
    """Bytes that a token leaves in a layer of the language model for the way back; see the top of the file."""
    shape, s = job.shape, job.size
    # Padded rows need a mask, and attention with a mask needs a key and a value for every query's head.
    attention = s * (2 * shape.queries + 2 * (shape.keys if job.flat else shape.queries))
    if job.full and not job.frozen("llm"):
        return (8 + 4 * s) * shape.hidden + attention + 4 * s * shape.inner
    mask = 1 if _number(job.flags, "lora_dropout", 0.05) else 0
    copies = 0 if job.full else sum(linear.inputs for linear in job.adapted("llm")) * (s + mask)
    return 8 * shape.hidden + attention + 3 * s * shape.inner + copies


def _block(job: _Job) -> float:
    """The same for a patch in a block of the vision tower, whose queries and keys exist twice (views of one tensor)."""
    v, g, s = job.shape.v_hidden, job.shape.v_inner, job.size
    mask = 1 if _number(job.flags, "lora_dropout", 0.05) else 0
    copies = 0 if job.full else sum(linear.inputs for linear in job.adapted("vit")) * (s + mask)
    return (8 + 11 * s) * v + 4 * s * g + copies


def _passing(job: _Job, hidden: int, inner: int) -> float:
    """Bytes per token that come and go on the way back through a layer, measured with fake tensors.

    LoRA under autocast makes float32 of the bfloat16 input, and dropout another copy.
    """
    copies = 2
    if not job.full and job.size == 2:
        copies = 6 if _number(job.flags, "lora_dropout", 0.05) else 4
    return max(20 * hidden, copies * job.size * inner)


def _kept(job: _Job) -> float:
    """Bytes of activations when the forward pass is done: of all layers, or of their inputs; and the final norm's."""
    shape = job.shape
    per_layer = job.size * shape.hidden if _on(job.flags, "gradient_checkpointing", True) else _layer(job)
    mask = 0 if job.flat else (1 + job.size) * job.tokens
    return job.all_tokens * (shape.layers * per_layer + (4 + 2 * job.size) * shape.hidden + mask)


def _vision_kept(job: _Job) -> float:
    """Bytes of the vision tower when its forward pass is done: pixels in float32, merged tokens, and for the way back.

    A tower that is wholly frozen runs without autograd in ms-swift (patch_frozen_module).
    """
    v, s = job.shape.v_hidden, job.size
    kept = 4 * job.shape.pixels + s * job.shape.v_out / job.shape.merge**2
    if job.trains("vit", "aligner"):
        layers = job.shape.v_layers * (s * v if _vit_checkpoints(job) else _block(job))
        kept += layers + (10 + 3 * s) * v
    return job.all_patches * kept


def _vit_checkpoints(job: _Job) -> bool:
    return _on(job.flags, "vit_gradient_checkpointing", _on(job.flags, "gradient_checkpointing", True))


def _vision_passing(job: _Job) -> float:
    """What comes and goes in a block, on the way there: rotary embeddings in float32, or the MLP; measured."""
    v, g, s = job.shape.v_hidden, job.shape.v_inner, job.size
    there = max((26 + 5 * s) * v, 3 * s * g + (2 + 3 * s) * v)
    if not job.trains("vit", "aligner"):
        return job.all_patches * there
    back = _passing(job, v, g) + (_block(job) if _vit_checkpoints(job) else 0)
    return job.all_patches * max(there, back)


def _trained_tokens(job: _Job) -> int:
    """Tokens whose logits are computed: from the first trained one of the batch on, or just the trained ones."""
    if job.grpo:
        return job.batch * (job.generated + 1)
    if not job.flat:
        return job.all_tokens
    seen = job.all_patches // job.shape.merge**2  # no picture is ever trained on
    return min(max(1, job.all_tokens - seen), job.batch * job.generated or job.all_tokens)


def _logits(job: _Job) -> float:
    """Bytes of logits and what the loss makes of them. Liger computes them in chunks (a guess, from its source)."""
    count, vocabulary = _trained_tokens(job), job.shape.vocabulary
    each = _GRPO_LOGIT if job.grpo else _SFT_LOGIT
    if not _on(job.flags, "use_liger_kernel"):
        return each * count * vocabulary
    # Cross entropy: chunks as long as makes them no larger than the hidden states. GRPO: one row at a time.
    rows = count / job.batch if job.grpo else max(1, 2 * count * job.shape.hidden / vocabulary)
    return min(rows, count) * each * vocabulary + count * job.shape.hidden * job.size


def _moments(job: _Job, held: Parts) -> Iterator[Parts]:
    """What each moment of a step needs beyond weights, optimizer and reference."""
    shape, s = job.shape, job.size
    grads, kept, seen = held["gradients"], _kept(job), _vision_kept(job)
    # Gradients wait from micro-batch to micro-batch; with one alone they come into being as activations go.
    waiting = grads if _accumulation(job) > 1 or job.processes > 1 else 0
    full = job.full and not job.frozen("llm")
    yield {"gradients": waiting, "vision": seen + _vision_passing(job)}
    yield {"gradients": waiting, "activations": kept, "logits": _logits(job), "vision": seen}
    if full:
        # The head's gradient, before it is added to what waits.
        head = s * (_trained_tokens(job) * shape.vocabulary + shape.embedding)
        yield {"gradients": grads, "activations": kept, "logits": head, "vision": seen}
    layer = _layer(job) if _on(job.flags, "gradient_checkpointing", True) else 0
    back = job.all_tokens * (layer + _passing(job, shape.hidden, shape.inner))
    # A weight's gradient before it is added; with tied embeddings the head's waits until the end for the
    # other, and autograd makes a third of their sum (measured with fake tensors).
    tied = s * shape.embedding if full and shape.tied else 0
    weight = s * shape.hidden * shape.inner if full else 0
    yield {"gradients": grads, "activations": kept + back + weight + tied, "vision": seen}
    yield {"gradients": grads, "activations": 3 * tied, "vision": seen}
    if job.trains("vit", "aligner"):
        yield {"gradients": grads, "vision": seen + _vision_passing(job)}
    if job.grpo:
        yield _rollout(job, held)


def _accumulation(job: _Job) -> float:
    # ms-swift makes a batch of 16 where the flag is missing, and takes 1 for GRPO.
    default = 1 if job.grpo else max(1, 16 / job.batch / job.processes)
    return _number(job.flags, "gradient_accumulation_steps", default)


def _cache(job: _Job) -> float:
    """Bytes of keys and values of all rows that a process generates at once."""
    rows = job.batch * _number(job.flags, "steps_per_generation", _accumulation(job))
    return rows * job.tokens * job.shape.layers * 2 * job.shape.keys * job.size


def _vllm(job: _Job) -> float:
    """Bytes that vLLM takes on this card: its share of it, or the least it works with where the card isn't known."""
    if job.card:
        return _number(job.flags, "vllm_gpu_memory_utilization", 0.9) * job.card
    shards = _number(job.flags, "vllm_tensor_parallel_size", 1)
    return job.size * job.shape.all / shards + _cache(job) + _VLLM


def _rollout(job: _Job, held: Parts) -> Parts:
    """The moment of generation, without gradients; what it moves to host memory or gathers counts with its sign."""
    if not job.colocated:
        if _on(job.flags, "use_vllm"):  # on other cards
            return {}
        rows = job.batch * _number(job.flags, "steps_per_generation", _accumulation(job))
        shape, s = job.shape, job.size
        prompt = (job.tokens - job.generated) * (3 * s * shape.inner + 20 * shape.hidden)
        pictures = _vision_kept(replace(job, batch=1)) + _vision_passing(replace(job, batch=1))
        gathered = s * shape.all - held["weights"] if _zero(job.flags)[0] == 3 else 0
        return {"rollout": _cache(job) + rows * (prompt + 4 * shape.vocabulary + pictures), "weights": max(0, gathered)}
    away: Parts = {"rollout": _vllm(job)}
    if _on(job.flags, "offload_model"):
        away |= {name: -held[name] for name in ("weights", "reference") if name in held}
    if _on(job.flags, "offload_optimizer"):
        away["optimizer"] = -held["optimizer"]
    return away


# ---- the answer ----


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak by name (see PARTS); parts that the peak has not are zero."""

    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def tensors(self) -> int:
        """Without what is no tensor: what torch.cuda.max_memory_allocated says."""
        return self.total - self.parts[PARTS[-1]]

    def __str__(self) -> str:
        named = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.parts.items() if size >= 5e7)
        return f"{named} = {self.total / 1e9:.1f} GB"


def estimate(
    model: Path, flags: Flags, processes: int, tokens: int, patches: int = 0, answer: int = 0, card: int = 0
) -> Estimate:
    """What one of `processes` GPUs needs at the peak of `swift sft` or `swift rlhf --rlhf_type grpo`.

    tokens, patches: of the longest row (in GRPO the prompt alone) and of the row with the most 14 x 14 px patches.
    answer: trained tokens of a row at most; 0: not known, all but the pictures may be. card: bytes of the whole GPU, of
    which vLLM takes its share. Raises UserError for flags that it can't read.
    """
    return _estimate(Shape.of(model), flags, processes, tokens, patches, answer, card)


def _estimate(
    shape: Shape, flags: Flags, processes: int, tokens: int, patches: int, answer: int, card: int
) -> Estimate:
    job = _job(shape, flags, processes, tokens, patches, answer, card)
    held = _held(job)
    awake = job.colocated and not _number(flags, "sleep_level", 0)
    constant = {name: size for name, size in held.items() if name != "gradients"} | {"rollout": 0.0}
    sums = []
    for moment in _moments(job, held):
        if job.colocated and "rollout" not in moment:
            moment["rollout"] = _vllm(job) if awake else _VLLM
        sums.append({name: constant.get(name, 0) + moment.get(name, 0) for name in PARTS})
    peak = max(sums, key=lambda parts: sum(parts.values()))
    moving = sum(peak[name] for name in ("activations", "logits", "vision"))
    peak[PARTS[-1]] = _CUDA + (_NCCL if processes > 1 else 0) + _FRAGMENTS * moving
    return Estimate({name: round(size) for name, size in peak.items()})


# ---- what would make it fit ----


@dataclass(frozen=True)
class Lever:
    """One change: what to type, what it means, and bytes per GPU with it and all before it."""

    flags: str
    why: str
    total: int


@dataclass(frozen=True)
class _Case:
    shape: Shape
    flags: Flags
    processes: int
    tokens: int
    patches: int


_Change = tuple[str, str, _Case]
_Step = Callable[[_Case], _Change]


def _set(case: _Case, why: str, **values: str) -> _Change:
    flags = case.flags | {name: [value] for name, value in values.items()}
    return " ".join(f"--{name} {value}" for name, value in values.items()), why, replace(case, flags=flags)


def _checkpoints(case: _Case) -> _Change:
    values = {"gradient_checkpointing": "true", "vit_gradient_checkpointing": "true"}
    return _set(case, "layers are computed again on the way back, a third slower", **values)


def _sleep(case: _Case) -> _Change:
    return _set(case, "vLLM leaves the card while training", sleep_level="1")


def _share(case: _Case) -> _Change:
    return _set(
        case, "vLLM takes less of the card, and generates fewer rows at once", vllm_gpu_memory_utilization="0.4"
    )


def _micro_batch(case: _Case) -> _Change:
    batch = int(_number(case.flags, "per_device_train_batch_size", 1))
    grpo = "rlhf_type" in case.flags
    steps = _number(case.flags, "gradient_accumulation_steps", 1 if grpo else max(1, 16 / batch / case.processes))
    values = {"per_device_train_batch_size": "1", "gradient_accumulation_steps": str(int(steps * batch))}
    return _set(case, "the same batch in smaller pieces", **values)


def _liger(case: _Case) -> _Change:
    return _set(
        case, "the loss in chunks, without the logits of the whole batch (liger-kernel)", use_liger_kernel="true"
    )


def _zero2(case: _Case) -> _Change:
    return _set(case, "gradients and Adam's states spread over the GPUs (deepspeed)", deepspeed="zero2")


def _zero3(case: _Case) -> _Change:
    return _set(case, "weights too spread over the GPUs (deepspeed)", deepspeed="zero3")


def _less_picture(case: _Case) -> _Change:
    most = min(_PIXELS, case.patches * _PATCH) // 2 // _SQUARE * _SQUARE
    fewer = case.patches // 2
    tokens = max(1, case.tokens - (case.patches - fewer) // case.shape.merge**2)
    return f"MAX_PIXELS={most}", "half the pixels", replace(case, patches=fewer, tokens=tokens)


def _shorter(case: _Case) -> _Change:
    if _on(case.flags, "packing"):
        return _set(case, "packed rows as long as the longest row", max_length=str(case.tokens))
    least = case.patches // case.shape.merge**2 + 256  # a picture can't be cut, and wants some words
    return _set(case, "longer rows have to be left out", max_length=str(max(case.tokens // 2, least)))


def _lora(case: _Case) -> _Change:
    return _set(case, "an adapter instead of all weights; wants a higher learning rate", tuner_type="lora")


def _no_reference(case: _Case) -> _Change:
    return _set(case, "no reference model, and nothing that holds the model near it", beta="0")


def _adam8(case: _Case) -> _Change:
    return _set(case, "Adam's states in 8 bits (bitsandbytes)", optim="adamw_8bit")


def _more_gpus(case: _Case) -> _Change:
    text, _, changed = _zero3(case)
    return f"GPUS=0,1,2,3,4,5,6,7 {text}", "everything spread over eight GPUs", replace(changed, processes=8)


def _offload(case: _Case) -> _Change:
    return _set(case, "weights and Adam's states in host memory, several times slower", deepspeed="zero3_offload")


def _smaller(case: _Case) -> _Change:
    name = "models/Qwen2.5-VL-3B-Instruct"
    return f"--model {name}", "a smaller model", replace(case, shape=replace(SMALLER, dtype=case.shape.dtype))


def _changes(flags: Flags, processes: int) -> list[_Step]:
    """In the order to try them: what leaves alone what is learned, what changes it little, what costs most."""
    vllm = _text(flags, "vllm_mode", "") == "colocate"
    several = processes > 1
    full = _text(flags, "tuner_type", "lora") == "full"
    return [
        _checkpoints,
        *([_sleep, _share] if vllm else []),
        _micro_batch,
        _liger,
        *([_zero2, _zero3] if several else []),
        _less_picture,
        _shorter,
        _adam8,
        *([_no_reference, _lora] if full else []),
        *([] if several else [_more_gpus]),
        _offload,
        _smaller,
    ]


def levers(
    model: Path, flags: Flags, processes: int, tokens: int, patches: int, available: int, answer: int = 0
) -> list[Lever]:
    """Changes, each on top of those before, up to the first with which `available` bytes per GPU are enough.

    Empty where nothing is needed. Left out are changes that save nothing, and those that the later ones make needless.
    Where all together are not enough, the last total is above `available`.
    """
    start = _Case(Shape.of(model), flags, processes, tokens, patches)
    tried: list[_Step] = []
    for change in _changes(flags, processes):
        if (now := _pull(start, tried, answer, available)[1]) <= available:
            break
        if _pull(start, [*tried, change], answer, available)[1] < now:
            tried.append(change)
    for change in reversed(tried[:-1]):
        fewer = [other for other in tried if other is not change]
        if _pull(start, fewer, answer, available)[1] <= available:
            tried = fewer
    return _pull(start, tried, answer, available)[0]


def _pull(case: _Case, steps: list[_Step], answer: int, available: int) -> tuple[list[Lever], int]:
    """What `steps` do one after the other, and the total at the end."""

    def total() -> int:
        return _estimate(case.shape, case.flags, case.processes, case.tokens, case.patches, answer, available).total

    found = []
    for step in steps:
        text, why, case = step(case)
        found.append(Lever(text, why, total()))
    return found, found[-1].total if found else total()
