"""Prove that a merge is right: `python -m vasekit.merging BASE ADAPTER MERGED`.

Every tensor of the merged model is compared with what base and adapter make of it, read piece by piece; then, where
there is room, both are loaded and their logits compared, which also covers configuration, names and processor.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasekit import cli, devices, files, runs
from vasekit.cli import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Elements of a tensor that are compared at a time: a few 64 MiB pieces in single precision.
_PIECE = 1 << 24
# Sums of few products in another order, and a rounding that falls just the other way, move a weight by one step at
# most. With an adapter in 16 bits peft may also round product and scaling, hence one step more.
_STEPS = {4: 1.0, 2: 2.0}  # by bytes of the adapter's numbers
# What is left of the change after merging, as a share of the change, where single steps say nothing: changes below
# the rounding of bfloat16 are lost in a right merge too, and a wrong one must not hide there.
_LEFT = 0.25
# Largest difference of logits, absolute, or relative to the largest logit where that is above 1.
_LOGITS = 1e-4
# 16-bit weights that differ by a rounding here and there (measured: none on one machine) move logits a little more.
_LOGITS_16 = 1e-2
# On the CPU: both models of a billion parameters in single precision load and run within a minute or two.
_CPU_PARAMETERS = 1e9
# LoRA as it is defined: W + scaling * B @ A. What changes the formula, or the base's own weights, is listed here.
_VARIANTS = ("use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters")
_VARIANTS += (
    "alora_invocation_tokens",
    "trainable_token_indices",
    "arrow_config",
    "monteclora_config",
    "velora_config",
)
_KINDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_INITIAL = (True, False, None, "gaussian")  # others (pissa, olora, loftq, ...) also change the base's weights


@dataclass(frozen=True)
class Checked:
    """tensors: how many were compared, `lora_layers` of them changed by LoRA; rounding: the largest difference of
    these, in rounding steps of the merged numbers; logits: the largest difference, None for the reason in `why`.
    """

    tensors: int
    lora_layers: int
    rounding: float
    logits: float | None
    why: str = ""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str

    def rows(self, start: int, stop: int) -> Tensor:
        """Part of the tensor along its first dimension; a number is a tensor of one."""
        from safetensors import safe_open

        with safe_open(self.path, "pt", device=self.device) as stream:
            if not self.shape:
                return stream.get_tensor(self.name)[None]
            return stream.get_slice(self.name)[start:stop]

    def whole(self) -> Tensor:
        return self.rows(0, self.shape[0] if self.shape else 1)


@dataclass(frozen=True)
class Change:
    """What LoRA adds to a weight: scaling * B @ A, transposed for embeddings."""

    a: Stored
    b: Stored
    scaling: float
    transposed: bool

    def factors(self) -> tuple[Tensor, Tensor]:
        """left, right with left @ right the change without its scaling. Convolutions count as flat matrices."""
        a, b = (stored.whole().float().flatten(1) for stored in (self.a, self.b))
        return (a.T, b.T) if self.transposed else (b, a)


def check(base: Path, adapter: Path, merged: Path, device: str = "cpu") -> Checked:
    """Compare a merged model with its base and adapter; UserError, with the tensor's name, where it is wrong."""
    config = files.read_json(adapter / "adapter_config.json", "ADAPTER")
    _check_kind(config, adapter)
    for folder, flag in ((base, "BASE"), (merged, "MERGED")):
        if problems := runs.model_problems(folder):
            raise UserError(f"{flag} {folder}: {problems[0]}")
    bases, made = _model(base, "BASE", device), _model(merged, "MERGED", device)
    changes, replaced = _adapter(adapter, config, device)
    pairs = _paired(bases | replaced, made, changes, merged)
    rounding = max(_compare(source, target, changes.get(name)) for name, source, target in pairs)
    logits, why = _compare_logits(base, adapter, merged, made, device)
    return Checked(len(made), len(changes), rounding, logits, why)


def _check_kind(config: dict[str, Any], adapter: Path) -> None:
    """Refuse what is not W + scaling * B @ A."""
    kind = config.get("peft_type")
    odd = [name for name in _VARIANTS if config.get(name)]
    if config.get("init_lora_weights") not in _INITIAL:
        odd.append(f"init_lora_weights {config['init_lora_weights']}")
    if kind != "LORA" or odd:
        raise UserError(f"ADAPTER {adapter}: {odd[0] if odd else kind} can't be checked, only plain LoRA can")


# ---- names ----


def _canonical(name: str) -> str:
    """A tensor's name without the frames around the model, which differ between hub, transformers and peft.

    model.layers.0.x (files), model.language_model.layers.0.x (modules since transformers 4.52),
    language_model.model.layers.0.x and base_model.model.model.language_model.layers.0.x (adapters) are all layers.0.x;
    visual.x and model.visual.x are visual.x.
    """
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in ("base_model", "model", "language_model"):
        parts = parts[1:]
    return ".".join(parts)


def _stored(path: Path, flag: str, device: str) -> Iterator[Stored]:
    try:
        for name, entry in runs.tensors(path).items():
            yield Stored(path, name, tuple(entry["shape"]), entry["dtype"], device)
    except ValueError as error:
        raise UserError(f"{flag} {path}: cut off or damaged ({error})") from None


def _model(folder: Path, flag: str, device: str) -> dict[str, Stored]:
    """A model's tensors by canonical name."""
    if files.read_json(folder / "config.json", flag).get("quantization_config"):
        raise UserError(f"{flag} {folder}: quantized, can't be checked; give the weights before quantization")
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise UserError(f"{flag} {folder}: no model*.safetensors, can't be checked; save it as safetensors")
    found: dict[str, Stored] = {}
    for stored in (stored for path in paths for stored in _stored(path, flag, device)):
        other = found.setdefault(_canonical(stored.name), stored)
        if other is not stored:
            raise UserError(f"{flag} {folder}: {stored.name} and {other.name} look like one tensor, can't be checked")
    return found


def _adapter(folder: Path, config: dict[str, Any], device: str) -> tuple[dict[str, Change], dict[str, Stored]]:
    """What the adapter adds to weights, and which it replaces (modules_to_save, biases), by canonical name."""
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise UserError(f"ADAPTER {folder}: no adapter_model.safetensors in it; name a checkpoint that LoRA left")
    pairs: dict[tuple[str, bool], dict[str, Stored]] = {}
    replaced: dict[str, Stored] = {}
    for stored in _stored(path, "ADAPTER", device):
        found = re.fullmatch(r"(.+)\.lora_(embedding_)?([AB])(\.default)?(\.weight)?", stored.name)
        if found:
            pairs.setdefault((found[1], bool(found[2])), {})[found[3]] = stored
        elif "lora_" in stored.name or "token_adapter" in stored.name:
            raise UserError(f"ADAPTER {folder}: {stored.name} is not of plain LoRA, can't be checked")
        else:
            plain = re.sub(r"\.(modules_to_save(\.default)?|base_layer)(?=\.)", "", stored.name)
            replaced[_canonical(plain)] = stored
    changes = {}
    for (module, embedding), sides in pairs.items():
        if sides.keys() != {"A", "B"}:
            raise UserError(f"ADAPTER {folder}: {module} has only one of lora_A and lora_B")
        transposed = embedding or bool(config.get("fan_in_fan_out"))
        changes[_canonical(f"{module}.weight")] = Change(
            sides["A"],
            sides["B"],
            _scaling(module.removeprefix("base_model.model."), sides["A"].shape[0], config),
            transposed,
        )
    return changes, replaced


def _scaling(module: str, rank: int, config: dict[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) with rslora; alpha_pattern as peft matches it (get_pattern_key), the rank of
    a rank_pattern is that of the tensors themselves.
    """
    patterns = config.get("alpha_pattern") or {}
    own = [alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module)]
    alpha = own[0] if own else config["lora_alpha"]
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _tied(found: dict[str, Stored], name: str) -> Stored | None:
    """A tensor; for an output layer that shares the embeddings' weights, these."""
    return found.get(name) or (found.get("embed_tokens.weight") if name == "lm_head.weight" else None)


def _paired(
    sources: dict[str, Stored], made: dict[str, Stored], changes: dict[str, Change], merged: Path
) -> list[tuple[str, Stored, Stored]]:
    """Name, what a tensor comes from, and the merged one, for all of both; UserError for one without its partner."""
    if homeless := changes.keys() - made.keys():
        raise UserError(f"MERGED {merged}: {min(homeless)} is missing, the adapter has a change for it")
    pairs = []
    for name in sorted(sources.keys() | made.keys()):
        source, target = _tied(sources, name), _tied(made, name)
        if target is None:
            raise UserError(f"MERGED {merged}: {name} is missing, base or adapter has it")
        if source is None:
            raise UserError(f"MERGED {merged}: {target.name} is neither in the base nor in the adapter")
        pairs.append((name, source, target))
    return pairs


# ---- weights ----


def _compare(source: Stored, made: Stored, change: Change | None) -> float:
    """Largest difference of a merged tensor from what it should be, in rounding steps; 0 without a change."""
    if source.shape != made.shape:
        raise UserError(f"{made.path}: {made.name} has shape {made.shape}, should have {source.shape}")
    rows = made.shape[0] if made.shape else 1
    step = max(1, _PIECE // max(1, math.prod(made.shape[1:])))
    factors = change.factors() if change else None
    worst, moved, left = 0.0, 0.0, 0.0
    for start in range(0, rows, step):
        now, before = made.rows(start, start + step), source.rows(start, start + step).to(_torch_type(made))
        if factors is None or change is None:
            if not bool((now == before).all()):
                raise UserError(f"{made.path}: {made.name} differs from the base's, and the adapter does not touch it")
            continue
        part = _differences(now, before, factors[0][start : start + step], factors[1], change.scaling)
        worst, moved, left = max(worst, part[0]), moved + part[1], left + part[2]
    if change:
        _judge(made, change, worst, moved, left)
    return worst


def _torch_type(stored: Stored) -> Any:
    import torch

    if stored.dtype not in _KINDS:
        raise UserError(f"{stored.path}: {stored.name} holds {stored.dtype}, can't be checked")
    return getattr(torch, _KINDS[stored.dtype])


def _differences(
    now: Tensor, before: Tensor, left: Tensor, right: Tensor, scaling: float
) -> tuple[float, float, float]:
    """Of rows of a weight: largest difference in rounding steps; squared change that should be, and that is left.

    now, before: rows of the merged and of the base's weight, in the merged type; left @ right * scaling: the change.
    A rounding step is that of the largest number on the way to the sum, which may be far above the sum itself.
    """
    import torch

    limits = torch.finfo(now.dtype)
    plain = before.float()
    wanted = (plain + (left @ right).mul_(scaling).view_as(plain)).to(now.dtype).float()
    size = (left.abs() @ right.abs()).mul_(abs(scaling)).view_as(plain).add_(plain.abs())
    exponent = torch.frexp(size.clamp_(min=limits.tiny)).exponent
    unit = torch.ldexp(torch.full_like(size, limits.eps), exponent - 1)
    error = now.float().sub_(wanted)
    # max() gives NaN where there is one; as infinity it is refused like any large difference.
    worst = (error.abs() / unit).max().nan_to_num(math.inf)
    return float(worst), float((plain - wanted).double().square().sum()), float(error.double().square().sum())


def _judge(made: Stored, change: Change, worst: float, moved: float, left: float) -> None:
    limit = _STEPS[2 if change.a.dtype in ("F16", "BF16") else 4]
    if worst <= limit and left <= _LEFT**2 * moved:
        return
    off = f"{worst:.3g} rounding steps off, at most {limit:g}" if worst > limit else "its change is not the adapter's"
    raise UserError(f"{made.path}: {made.name} is not base + {change.scaling:g} * B @ A ({off}); merge again")


# ---- logits ----


def _compare_logits(
    base: Path, adapter: Path, merged: Path, made: dict[str, Stored], device: str
) -> tuple[float | None, str]:
    """Largest difference of logits, or None and why they were not computed."""
    parameters = sum(math.prod(stored.shape) for stored in made.values())
    if why := _no_room(parameters, device):
        return None, why
    kind = next((stored.dtype for stored in made.values() if stored.dtype != "F32"), "F32")
    probes = _probes(merged, device)
    wanted, got = (_logits(*loaded, _KINDS[kind], probes, device) for loaded in ((base, adapter), (merged, None)))
    worst = 0.0
    for probe, one, other in zip(probes, wanted, got, strict=True):
        limit = (_LOGITS if kind == "F32" else _LOGITS_16) * max(1.0, float(one.abs().max()))
        difference = float((one - other).abs().max().nan_to_num(math.inf))
        if difference > limit:
            raise UserError(
                f"MERGED {merged}: weights are right, but logits of {probe} differ by {difference:.3g} (at most"
                f" {limit:.3g}); look at config.json, and whether LoRA changed shared embeddings"
            )
        worst = max(worst, difference)
    return worst, ""


def _no_room(parameters: int, device: str) -> str:
    """Why a model of so many parameters isn't run here, empty where it is."""
    if device == "cpu":
        small = parameters <= _CPU_PARAMETERS
        return "" if small else f"{parameters / 1e9:.1f}e9 parameters are too many for the CPU"
    import torch

    # Weights in single precision, one model at a time, with a fifth more for its activations and the adapter.
    need, free = 4.8 * parameters, torch.cuda.mem_get_info(device)[0]
    return "" if need <= free else f"needs {need / 2**30:.0f} GiB on {device}, {free / 2**30:.0f} GiB are free"


def _probes(model: Path, device: str) -> dict[str, Any]:
    """The processor's tensors for a text, and for a picture with a text."""
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model)
    picture = Image.linear_gradient("L").resize((112, 112)).convert("RGB")
    text = {"type": "text", "text": "What is the shape name of the vase?"}
    made = {}
    for kind, content, pictures in (("a text", [text], None), ("a picture", [{"type": "image"}, text], [picture])):
        turns = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        made[kind] = processor(text=[prompt], images=pictures, return_tensors="pt").to(device)
    return made


def _logits(folder: Path, adapter: Path | None, kind: str, probes: dict[str, Any], device: str) -> list[Tensor]:
    """Logits of each probe, in single precision; kind: the type that the merged weights are stored in.

    A merge in 16 bits rounds weights, which moves logits by far more than 1e-4; its base gets peft's own merge in
    the same type, so that what is compared are the same weights.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, kind)).to(device)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
        model = model if kind == "float32" else model.merge_and_unload()
    model = model.float().eval()
    with torch.inference_mode():
        return [model(**inputs).logits.cpu() for inputs in probes.values()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("Prove that a merged model is its base with the adapter, tensor by tensor and by its logits.")
    for name, text in (("base", "model before"), ("adapter", "LoRA checkpoint"), ("merged", "model after merging")):
        parser.add_argument(name, type=cli.user_path, help=text)
    devices.add_flags(parser)
    args: argparse.Namespace = parser.parse_args(argv)
    for name in ("base", "adapter", "merged"):
        cli.need_dir(getattr(args, name), name.upper())
    watch = cli.Stopwatch()
    done = check(args.base, args.adapter, args.merged, devices.pick(args.device, args.gpu))
    logits = f"not compared, {done.why}" if done.logits is None else f"within {done.logits:.2g}"
    what = f"{done.lora_layers} LoRA layers within {done.rounding:.2g} rounding steps, logits {logits}"
    watch.close("merging", f"right; {what}", done.tensors, "tensors")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
