"""The two small models that ship with the kit, and how they were made (`make builtin`)."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CLIP = FOLDER / "tiny-clip"  # open_clip, load as local-dir:
VLM = FOLDER / "tiny-qwen2.5-vl"  # Hugging Face checkpoint
