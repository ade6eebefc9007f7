"""What vasekit/memory.py says a run needs against what it took: `python bench/memory.py [--device cuda] [--fake]`.

Every row is a process of its own that trains a random Qwen2.5-VL: two steps of two micro-batches, AdamW, one picture
and text a row; the vision tower is frozen and runs without autograd, and logits are those of the text, as in ms-swift.
On the CPU (float32) the peak is VmHWM over what was resident after the imports, on a GPU (bfloat16 under autocast)
torch.cuda.max_memory_allocated. `--fake` runs one micro-batch of 7B's real sizes in bfloat16 on fake tensors instead,
which have sizes and no contents: it needs no memory, and shows what a step adds to weights and states.

Measured on 2 CPU cores (torch 2.13, transformers 5.19, peft 0.20): ratios of .92 to .99, with 50 MB of the process that
are no tensors in all of them; fake tensors 1.00 to 1.01. The path on a GPU has not been run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit import cli, memory

GRID = 32  # patches along each side of the picture, which becomes 16 x 16 tokens
LORA = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
# One arena that gives back what is freed: what is resident is then what is held. torch asks for large blocks by mmap.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def small() -> dict[str, Any]:
    """110 million parameters; the GPU's dimensions don't matter for the sums, the CPU's time does."""
    return config(768, 10, 6, 2, 3072, 32000, True, {"hidden_size": 320, "depth": 8, "intermediate_size": 856})


def real() -> dict[str, Any]:
    vision = {"hidden_size": 1280, "depth": 32, "intermediate_size": 3420}
    return config(3584, 28, 28, 4, 18944, 152064, False, vision)


def config(
    hidden: int, layers: int, heads: int, keys: int, inner: int, words: int, tied: bool, vision: dict
) -> dict[str, Any]:
    text = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "intermediate_size": inner,
        "vocab_size": words,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
    }
    marks = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
    vision = vision | {"num_heads": vision["hidden_size"] // 80, "out_hidden_size": hidden}
    return {"text_config": text, "vision_config": vision, "tie_word_embeddings": tied, **marks}


CASES = [
    {"tuner_type": kind, "gradient_checkpointing": point, "tokens": tokens}
    for kind in ("full", "lora")
    for point in ("true", "false")
    for tokens in (512, 1536)
]


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--fake", action="store_true", help="7B's sizes on fake tensors")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.case:
        print(fake(args.case) if args.fake else train(args.case, args.device))
        return 0
    what = "7B on fake tensors, what a step adds" if args.fake else f"random model on {args.device}, whole"
    print(f"{what}; MB\ntuner  checkpointing  tokens  estimate  measured  ratio")
    for case in CASES:
        said, measured = expected(case, args), child(case, args)
        names = f"{case['tuner_type']:5}  {case['gradient_checkpointing']:13}  {case['tokens']:6}"
        print(f"{names}  {said / 1e6:8.0f}  {measured / 1e6:8.0f}  {said / measured:5.2f}", flush=True)
    return 0


def expected(case: dict[str, Any], args: argparse.Namespace) -> float:
    """Bytes of tensors by the estimate; of a fake step without what is held all the time."""
    low = args.fake or args.device != "cpu"
    flags = {name: [case[name]] for name in ("tuner_type", "gradient_checkpointing")}
    flags |= {"torch_dtype": ["bfloat16" if low else "float32"], "gradient_accumulation_steps": ["2"]}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(real() if args.fake else small()))
        said = memory.estimate(Path(folder), flags, 1, case["tokens"], 0 if args.fake else GRID**2)
    if not args.fake:
        return said.tensors
    return sum(said.parts[name] for name in ("activations", "logits", "vision"))


def child(case: dict[str, Any], args: argparse.Namespace) -> float:
    mode = ["--fake"] if args.fake else ["--device", args.device]
    argv = [sys.executable, __file__, *mode, "--case", json.dumps(case)]
    done = subprocess.run(argv, env=os.environ | MALLOC, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def build(case: dict[str, Any], sizes: dict[str, Any], dtype: Any) -> Any:
    """The model as ms-swift makes it: weights in `dtype`, the tower frozen, LoRA's weights in float32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.set_default_dtype(dtype)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**sizes))
    torch.set_default_dtype(torch.float32)
    # CUDA's dropout keeps a mask of one byte a number, the CPU's one as wide as its input; this one is as CUDA's.
    torch.nn.Dropout.forward = lambda self, x: torch.native_dropout(x, self.p, True)[0]
    model.model.visual.requires_grad_(False)
    visual = model.model.visual
    visual.forward = torch.no_grad()(visual.forward)
    if case["tuner_type"] == "lora":
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, lora_dropout=0.05, target_modules=LORA))
    if case["gradient_checkpointing"] == "true":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        model.enable_input_require_grads()
    return model.train()


def precise(model: Any, device: str, low: bool) -> Any:
    """The forward pass as accelerate wraps it with bf16: autocast, and outputs in float32."""
    import torch
    from accelerate.utils.operations import convert_outputs_to_fp32

    return convert_outputs_to_fp32(torch.autocast(device, torch.bfloat16)(model.forward)) if low else model


def train(case: dict[str, Any], device: str) -> float:
    """Peak bytes of two steps."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    assert Qwen2_5_VLForConditionalGeneration  # imported before memory is read
    low, before = device != "cpu", resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    with torch.device(device):
        model = build(case, small(), torch.bfloat16 if low else torch.float32)
        batch = rows(case["tokens"])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    forward = precise(model, device, low)
    for _ in range(2):
        for _ in range(2):
            forward(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return torch.cuda.max_memory_allocated() if low else resident("VmHWM") - before


def rows(tokens: int) -> dict[str, Any]:
    """One row: a picture, then text, all of which is trained on."""
    import torch

    picture = GRID**2 // 4
    words = tokens - picture
    ids = torch.cat([torch.ones(picture, dtype=torch.long), torch.randint(5, 32000, (words,))])[None]
    return {
        "input_ids": ids,
        "labels": ids[:, -words:],
        "logits_to_keep": words,
        "mm_token_type_ids": (ids == 1).int(),
        "pixel_values": torch.rand(GRID**2, 1176),
        "image_grid_thw": torch.tensor([[1, GRID, GRID]]),
        "use_cache": False,
    }


def resident(name: str) -> float:
    """VmRSS or VmHWM in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line for line in lines if line.startswith(name)).split()[1])


# ---- fake tensors ----


def fake(case: dict[str, Any]) -> float:
    """Bytes that a micro-batch of text adds at the peak to weights and gradients."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    stay()
    with FakeTensorMode():
        model = build(case, real(), torch.bfloat16)
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        ids = torch.zeros(1, case["tokens"], dtype=torch.long)
        forward = precise(model, "cpu", True)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        with tracked([*model.parameters(), *model.buffers(), *grads]) as peak:
            forward(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return peak[0]


def stay() -> None:
    """peft moves each new adapter to its layer's device, which fake tensors refuse; they are there already."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    torch.nn.Module.to = lambda self, *_, **__: self
    BaseTunerLayer._move_adapter_to_device_of_base_layer = lambda *_, **__: None


@contextmanager
def tracked(held: list[Any]) -> Iterator[list[float]]:
    """Peak bytes, in a list of one, of all storage that operators make within the block, but for `held`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    known = {tensor.untyped_storage()._cdata for tensor in held}
    live, peak = [0.0], [0.0]

    def forget(key: int, size: int) -> None:
        known.discard(key)
        live[0] -= size

    class Tracker(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operator(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in known:
                    storage = tensor.untyped_storage()
                    known.add(key)
                    live[0] += storage.nbytes()
                    weakref.finalize(storage, forget, key, storage.nbytes())
            peak[0] = max(peak[0], live[0])
            return result

    with Tracker():
        yield peak


if __name__ == "__main__":
    sys.exit(cli.run(main))
