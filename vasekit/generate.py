"""Answers of a Qwen2.5-VL checkpoint, in batches, greedy or sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasekit import images
from vasekit.cli import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Request:
    """One picture and what to ask of it."""

    image: Path
    question: str
    system: str | None = None

    def messages(self) -> list[dict[str, Any]]:
        head = [{"role": "system", "content": [{"type": "text", "text": self.system}]}] if self.system else []
        user = [{"type": "image"}, {"type": "text", "text": self.question}]
        return [*head, {"role": "user", "content": user}]


class Generator:
    """A checkpoint (and an adapter on it), ready to answer."""

    def __init__(self, model: Path, adapter: Path | None = None, device: str = "cpu") -> None:
        import torch
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

        if not (model / "config.json").is_file():
            raise UserError(f"--model {model}: no config.json in it; needs a Hugging Face model folder")
        kind = torch.float32 if device == "cpu" else torch.bfloat16
        # Left padding: answers start where the longest prompt ends.
        self.processor = AutoProcessor.from_pretrained(model, padding_side="left")
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(model, dtype=kind).to(device).eval()
        if adapter:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter).eval()
        self.device = device

    def answer(
        self,
        requests: Sequence[Request],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 64,
    ) -> list[str]:
        """One answer per request, in order. temperature 0 is greedy; otherwise the whole distribution is sampled."""
        import torch

        torch.manual_seed(seed)
        sampling = {"do_sample": False} if temperature == 0 else {"do_sample": True, "temperature": temperature}
        # The checkpoint's own top_k and top_p would cut the distribution that is to be measured.
        limits = {"max_new_tokens": max_new_tokens, "top_k": None, "top_p": None} | sampling
        if temperature == 0:
            limits["temperature"] = None
        answers: list[str] = []
        for start in range(0, len(requests), batch_size):
            inputs = self._encode(requests[start : start + batch_size])
            with torch.inference_mode():
                made = self.model.generate(**inputs, **limits)
            answers += self._decode(made[:, inputs["input_ids"].shape[1] :])
        return answers

    def _encode(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        render = self.processor.apply_chat_template
        texts = [render(r.messages(), tokenize=False, add_generation_prompt=True) for r in requests]
        pictures = [images.read(r.image) for r in requests]
        return self.processor(text=texts, images=pictures, padding=True, return_tensors="pt").to(self.device)

    def _decode(self, ids: Tensor) -> list[str]:
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]
