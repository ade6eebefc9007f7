"""The two models that ship with the kit: small, loadable by the libraries users have, trained as their cards say."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from vasekit import builtin, clip, metrics
from vasekit.builtin import captions, renders
from vasekit.synth import world


@pytest.mark.parametrize("folder", [builtin.CLIP, builtin.VLM], ids=lambda f: f.name)
def test_each_model_is_small_and_has_a_card(folder) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 4_000_000
    card = (folder / "README.md").read_text()
    for words in ("knows only rendered vases", "make builtin", "Licence"):
        assert words in card


def test_captions_never_are_the_prompts_that_the_filter_scores_with() -> None:
    prompts = frozenset(p.lower() for group in clip.load_prompts() for p in group)
    rng = random.Random(0)
    photos = [captions.traits_of(p.truth()) for p in world.plan(3, 60, 3)]
    made = {captions.caption(photo, rng, prompts).text.lower() for photo in photos for _ in range(20)}
    assert len(made) > 500
    assert not made & prompts


def test_a_caption_fits_the_photograph_it_was_made_for() -> None:
    rng = random.Random(1)
    photos = [captions.traits_of(p.truth()) for p in world.plan(3, 60, 7)]
    for photo in photos:
        assert captions.caption(photo, rng, frozenset()).fits(photo)


def test_renders_for_training_and_judging_share_no_vase_and_are_never_delivered() -> None:
    worlds = [renders.CLIP_TRAIN, renders.CLIP_TEST, renders.CLIP_VIEWS, renders.VLM_TRAIN, renders.VLM_TEST]
    assert len(set(worlds)) == len(worlds)
    assert min(worlds) >= world.RESERVED


@pytest.fixture(scope="module")
def sample() -> renders.Renders:
    return renders.mixed(renders.CLIP_TEST, 300)


def test_tiny_clip_tells_whole_vases_from_broken_ones(sample: renders.Renders) -> None:
    from vasekit.builtin import make_clip

    complete, fragments = make_clip.similarities(
        clip.Scorer(clip.resolve("builtin"), None, None, "fp32"), sample.images
    ).T
    quality, condition = complete - fragments, np.array([t["condition"] for t in sample.traits])
    assert metrics.auc(quality[condition == "whole"], quality[condition == "sherds"])["value"] > 0.95
    assert metrics.auc(quality[condition == "whole"], quality[np.isin(condition, world.BROKEN)])["value"] > 0.85


def test_own_patches_and_vision_pass_equal_those_of_transformers(sample: renders.Renders) -> None:
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from vasekit.builtin import make_vlm

    images = sample.images[:3]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(builtin.VLM, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(builtin.VLM)
    theirs = processor.image_processor(images=[Image.fromarray(i) for i in images], return_tensors="pt")
    ours = make_vlm.patches(torch.from_numpy(images))
    torch.testing.assert_close(ours, theirs["pixel_values"], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        seen = model.model.visual(theirs["pixel_values"], grid_thw=theirs["image_grid_thw"]).pooler_output
        torch.testing.assert_close(make_vlm.see(model.model.visual, ours).flatten(0, 1), seen, atol=1e-4, rtol=1e-4)


def test_tiny_vlm_is_a_real_qwen_with_token_ids_of_its_own() -> None:
    from transformers import AutoTokenizer

    config = json.loads((builtin.VLM / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(builtin.VLM)
    assert config["model_type"] == "qwen2_5_vl"
    assert config["image_token_id"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert config["video_token_id"] == tokenizer.convert_tokens_to_ids("<|video_pad|>")
    text = "Athenian red-figure bell-krater, 500-475 BCE, owl. \u03b1\u03c9"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    generation = json.loads((builtin.VLM / "generation_config.json").read_text())
    assert {config["image_token_id"], config["video_token_id"]} <= set(generation["suppress_tokens"])


def test_the_tokenizer_splits_words_after_loading_as_it_did_in_training(tmp_path) -> None:
    """transformers replaces a saved pre-tokenizer by Qwen's own: with another one, training would see other tokens."""
    from transformers import AutoTokenizer

    from vasekit.builtin import make_vlm

    made = make_vlm.make_tokenizer(random.Random(0))
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    phrases = [make_vlm.catalogue_phrase(random.Random(k)) for k in range(100)]
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert [loaded.encode(p) for p in phrases] == [made.encode(p) for p in phrases]
