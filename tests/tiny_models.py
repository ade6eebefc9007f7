"""Random models of the real architectures, small enough to be made within a test run."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = ("a", "the", "of", "in", "with", "vase", "whole", "complete", "broken", "piece", "fragments", "front", "view")


RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "patch_size": None}


def make_clip(folder: Path, vision: dict = RESNET, quick_gelu: bool = False, seed: int = 0) -> Path:
    """An open_clip folder (read it as local-dir:FOLDER): small image tower, two text layers, random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    # Whole words are enough here; end of text has the highest id, by which open_clip finds it.
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<start>", "<unknown>", *WORDS, "<end>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ids = [(name, vocabulary[name]) for name in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ids)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)
    text = {"context_length": 32, "vocab_size": len(vocabulary), "width": 64, "heads": 4, "layers": 2}
    config = {
        "embed_dim": 64,
        "vision_cfg": vision,
        "text_cfg": text | {"hf_tokenizer_name": "tiny"},
        "quick_gelu": quick_gelu,
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder
