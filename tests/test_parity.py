"""The scores are those of a plain transformers CLIP loop with the same weights, as the published script has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from filter_entry import entry
from PIL import Image
from tiny_models import make_clip

from vasekit import clip, images

VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("vit") / "clip", vision=VIT, quick_gelu=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures of many sizes, upright and lying, some much larger than what the model sees."""
    where = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k in range(24):
        size = (int(rng.integers(40, 900)), int(rng.integers(40, 900)))
        few = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8))
        few.resize(size, Image.Resampling.BICUBIC).save(where / f"v{k}_1.jpg", quality=90)
    return where


def transformers_scores(folder: Path, photos: Path) -> dict[str, tuple[float, float]]:
    """One image at a time, float32, with the image processor and the model of transformers."""
    import torch
    from torch.nn.functional import normalize
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    weights = clip._network(clip.Scorer(f"local-dir:{folder}", None, None, "fp32"))[0].state_dict()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shape = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    vision, text = shape["vision_cfg"], shape["text_cfg"]
    sides = {
        "vision_config": {
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        "text_config": {
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "eos_token_id": tokenizer.eos_token_id,
        },
    }
    model = CLIPModel(CLIPConfig(**sides, projection_dim=shape["embed_dim"])).eval()
    model.load_state_dict(renamed(weights), strict=False)
    side = vision["image_size"]
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    found = {}
    with torch.no_grad():
        means = []
        for group in clip.load_prompts():
            ids = tokenizer(list(group), padding="max_length", max_length=text["context_length"], return_tensors="pt")
            pooled = model.text_model(ids["input_ids"]).pooler_output
            means.append(normalize(model.text_projection(pooled).mean(0), dim=0))
        for path in images.find(photos):
            pixels = processor(images.read(path), return_tensors="pt")["pixel_values"]
            feature = normalize(model.visual_projection(model.vision_model(pixels).pooler_output)[0], dim=0)
            found[path.name] = ((feature @ means[0]).item(), (feature @ means[1]).item())
    return found


def renamed(weights: dict) -> dict:
    """open_clip's names and shapes of weights as transformers has them."""
    import torch

    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "visual.transformer.resblocks": "vision_model.encoder.layers",
        "transformer.resblocks": "text_model.encoder.layers",
        "token_embedding": "text_model.embeddings.token_embedding",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final": "text_model.final_layer_norm",
        "visual.proj": "visual_projection.weight",
        "text_projection": "text_projection.weight",
    }
    inside = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    inside |= {"attn.out_proj": "self_attn.out_proj"}
    found = {"logit_scale": weights["logit_scale"]}
    for name, value in weights.items():
        old = next((old for old in names if name == old or name.startswith(f"{old}.")), None)
        if old is None:
            continue
        new = names[old] + name.removeprefix(old)
        for before, after in inside.items():
            new = new.replace(f".{before}.", f".{after}.")
        if "attn.in_proj_" in new:
            for letter, part in zip("qkv", torch.chunk(value, 3), strict=True):
                found[new.replace("attn.in_proj_", f"self_attn.{letter}_proj.")] = part
        else:
            found[new] = value.T.contiguous() if name in ("visual.proj", "text_projection") else value
    return found


def our_scores(folder: Path, photos: Path, out: Path, *flags: str) -> dict:
    common = ["--model", f"local-dir:{folder}", "--device", "cpu", "--scores", str(out / "scores"), *flags]
    assert entry("clipfilter1")(["--input_dir", str(photos), "--output_dir", str(out / "sorted"), *common]) == 0
    return json.loads((out / "sorted/filtering_report.json").read_text())


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("auto", 5e-3), ("bf16", 5e-3)])
def test_parity_with_transformers(folder: Path, photos: Path, tmp_path: Path, precision: str, tolerance: float) -> None:
    theirs = transformers_scores(folder, photos)
    report = our_scores(folder, photos, tmp_path, "--precision", precision)
    assert report["model"]["draft"] == (precision == "auto"), "the report says which path ran"
    for row in report["results"]:
        complete, fragments = theirs[row["filename"]]
        assert row["high_quality_similarity"] == pytest.approx(complete, abs=tolerance)
        assert row["low_quality_similarity"] == pytest.approx(fragments, abs=tolerance)
        borderline = abs(complete - fragments - report["threshold"]) <= 2 * tolerance
        assert borderline or row["accepted"] == (complete - fragments >= report["threshold"])
    spread = [complete - fragments for complete, fragments in theirs.values()]
    assert max(spread) - min(spread) > 20 * 1e-4, "the pictures must differ by more than what is tolerated"
