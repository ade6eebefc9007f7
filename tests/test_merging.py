"""The proof of a merge: right merges pass, wrong ones are refused with the tensor's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vasekit import builtin, merging
from vasekit.cli import UserError
from vasekit.files import write_json

LANGUAGE = r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|up_proj|down_proj)"
LAYER, PLAIN = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.gate_proj.weight"


def make(folder: Path, kind: torch.dtype = torch.float32, size: float = 0.05, **lora: Any) -> Path:
    """folder/adapter with random weights, and folder/merged as peft merges it in `kind`, in shards."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(builtin.VLM, dtype=kind)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": LANGUAGE} | lora
    model = get_peft_model(model, LoraConfig(**settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:  # B starts as zeros
                value.add_(torch.randn_like(value) * (size if "lora_" in name else 0.01))
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged", max_shard_size="1MB")
    AutoProcessor.from_pretrained(builtin.VLM).save_pretrained(folder / "merged")
    return folder


def check(folder: Path) -> merging.Checked:
    return merging.check(builtin.VLM, folder / "adapter", folder / "merged")


def edit(model: Path, change: Callable[[dict[str, torch.Tensor]], object], tensor: str = LAYER) -> None:
    """Change the shard that holds `tensor`, and the index with it."""
    index = json.loads((model / "model.safetensors.index.json").read_text())
    shard = index["weight_map"][tensor]
    held = load_file(model / shard)
    change(held)
    save_file(held, model / shard, metadata={"format": "pt"})
    names = {name: file for name, file in index["weight_map"].items() if file != shard} | dict.fromkeys(held, shard)
    tensors = [value for file in set(names.values()) for value in load_file(model / file).values()]
    total = sum(value.numel() * value.element_size() for value in tensors)
    write_json(model / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": names})


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("half"), torch.bfloat16)


@pytest.fixture
def copied(single: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(single, tmp_path / "copy"))


def test_a_right_merge_in_single_precision_passes(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(path) for path in (builtin.VLM, single / "adapter", single / "merged")]
    assert merging.main([*words, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("merging: right; 18 LoRA layers within ")
    done = check(single)
    assert (done.tensors, done.lora_layers, done.why) == (92, 18, "")
    assert done.rounding <= 0.5
    assert done.logits is not None
    assert 0 < done.logits < 1e-4


def test_a_right_merge_in_bfloat16_passes(half: Path) -> None:
    done = check(half)
    assert done.rounding <= 1
    assert done.logits is not None
    assert done.logits <= 1e-2


def test_patterns_rslora_convolutions_and_saved_modules_are_honoured(tmp_path: Path) -> None:
    targets = [*("q_proj", "v_proj", "down_proj"), "patch_embed.proj"]
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 3, "v_proj": 32}}
    saved = {"modules_to_save": ["merger.mlp.2"]}
    done = check(make(tmp_path, target_modules=targets, use_rslora=True, **patterns, **saved))
    # Three in each of three layers, down_proj in each of four blocks of the vision tower, and its first layer.
    assert done.lora_layers == 3 * 3 + 4 + 1
    assert done.logits is not None


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft warns of just this
def test_lora_on_shared_embeddings_changes_the_output_layer_when_merged(tmp_path: Path) -> None:
    folder = make(tmp_path, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(UserError, match=r"weights are right, but logits of a text differ .* shared embeddings"):
        check(folder)


def unchanged(held: dict[str, torch.Tensor]) -> None:
    held[LAYER] = load_file(builtin.VLM / "model.safetensors")[LAYER].to(held[LAYER].dtype)


def scaled(held: dict[str, torch.Tensor], by: float = 1.5) -> None:
    before = load_file(builtin.VLM / "model.safetensors")[LAYER].float()
    held[LAYER] = (before + by * (held[LAYER].float() - before)).to(held[LAYER].dtype)


WRONG: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "unchanged": (unchanged, f"{LAYER} is not base"),
    "zeroed": (lambda held: held[LAYER].zero_(), f"{LAYER} is not base"),
    "scaling": (scaled, f"{LAYER} is not base"),
    "one number": (lambda held: held[LAYER][3].view(-1)[5].mul_(1.01), f"{LAYER} is not base"),
    "not a number": (lambda held: held[LAYER].view(-1)[5].fill_(float("nan")), f"{LAYER} is not base"),
    "other tensor": (lambda held: held[PLAIN].view(-1)[0].mul_(1.01), f"{PLAIN} differs from the base's"),
    "shape": (lambda held: held.update({PLAIN: held[PLAIN][1:].clone()}), f"{PLAIN} has shape"),
    "lost": (lambda held: held.pop(PLAIN), "layers.1.mlp.gate_proj.weight is missing"),
    "lost layer": (lambda held: held.pop(LAYER), "layers.1.mlp.up_proj.weight is missing"),
    "added": (lambda held: held.update(more=torch.ones(3)), "more is neither in the base"),
    "twice": (lambda held: held.update({LAYER[6:]: torch.ones(3)}), "look like one tensor"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_merge_is_refused_by_name(
    copied: Path, change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    edit(copied / "merged", change, PLAIN if PLAIN in said or "gate" in said else LAYER)
    with pytest.raises(UserError) as refused:
        check(copied)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [unchanged, scaled], ids=["unchanged", "scaled"])
def test_wrong_merges_in_bfloat16_are_refused_too(
    half: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "copy"))
    edit(folder / "merged", change)
    with pytest.raises(UserError, match=f"{LAYER} is not base"):
        check(folder)


def test_a_lost_change_below_the_rounding_of_bfloat16_is_seen(tmp_path: Path) -> None:
    folder = make(tmp_path, torch.bfloat16, size=0.001)
    assert check(folder).rounding <= 1
    edit(folder / "merged", unchanged)
    with pytest.raises(UserError, match=f"{LAYER} is not base"):
        check(folder)


def test_a_lost_shard_is_named_with_its_first_tensor(copied: Path) -> None:
    index = json.loads((copied / "merged" / "model.safetensors.index.json").read_text())
    shard = index["weight_map"][LAYER]
    (copied / "merged" / shard).unlink()
    first = min(name for name, file in index["weight_map"].items() if file == shard)
    with pytest.raises(UserError, match=rf"{shard} is missing .*{first} the first"):
        check(copied)


def test_a_wrong_configuration_shows_in_the_logits(copied: Path) -> None:
    path = copied / "merged" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["rope_parameters"]["rope_theta"] = 50.0
    write_json(path, config)
    with pytest.raises(UserError, match="weights are right, but logits of a text differ"):
        check(copied)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"use_dora": True}, "use_dora can't be checked"),
        ({"peft_type": "LOHA"}, "LOHA can't be checked"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa can't be checked"),
    ],
)
def test_other_tuners_are_refused(copied: Path, setting: dict[str, object], said: str) -> None:
    path = copied / "adapter" / "adapter_config.json"
    write_json(path, json.loads(path.read_text()) | setting)
    with pytest.raises(UserError, match=said):
        check(copied)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.up_proj.weight",
        "model.language_model.layers.0.mlp.up_proj.weight",
        "language_model.model.layers.0.mlp.up_proj.weight",
        "base_model.model.model.language_model.layers.0.mlp.up_proj.weight",
        "base_model.model.model.layers.0.mlp.up_proj.weight",
    ],
)
def test_names_of_every_version_meet(name: str) -> None:
    assert merging._canonical(name) == "layers.0.mlp.up_proj.weight"


def test_an_output_layer_of_its_own_must_not_get_lost(copied: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(builtin.VLM, tmp_path / "base"))
    held = load_file(base / "model.safetensors")
    save_file(held | {"lm_head.weight": held["model.embed_tokens.weight"].clone()}, base / "model.safetensors")
    assert merging.check(base, copied / "adapter", copied / "merged").lora_layers == 18  # shared: the same numbers
    save_file(held | {"lm_head.weight": held["model.embed_tokens.weight"] + 1}, base / "model.safetensors")
    with pytest.raises(UserError, match=r"embed_tokens\.weight differs"):
        merging.check(base, copied / "adapter", copied / "merged")


def test_large_models_are_compared_by_weights_alone_on_the_cpu() -> None:
    assert "too many for the CPU" in merging._no_room(7_600_000_000, "cpu")
    assert merging._no_room(900_000_000, "cpu") == ""
