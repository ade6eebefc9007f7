"""How many tokens ms-swift makes of a row for Qwen2.5-VL, counted without torch and without decoding a picture.

What is counted is what its template does (ms-swift 4.6, qwen_vl_utils 0.0.14); a slow test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vasekit import builtin, files
from vasekit.cli import UserError

Size = tuple[int, int]  # width, height in pixels

# The template's own default; the model's chat template has the same.
SYSTEM = "You are a helpful assistant."
IMAGE, VIDEO = "<image>", "<video>"
# qwen_vl_utils: sides are multiples of 28 pixels (patches of 14, merged two by two), budgets count such squares.
SQUARE = 28
MAX_RATIO = 200
IMAGE_TOKENS, VIDEO_TOKENS = (4, 16384), (128, 768)
# 112 x 112 pixels: what the built-in model was made for.
BUILTIN_PIXELS = "12544"


# ---- the model ----


def is_builtin(model: Path) -> bool:
    """Whether this folder holds the built-in model or a descendant: it has the same vocabulary."""
    config = files.read_json(model / "config.json", "--model")
    size = config.get("text_config", config).get("vocab_size")
    return size == files.read_json(builtin.VLM / "config.json", "--model")["text_config"]["vocab_size"]


def model_folder(given: str) -> Path:
    """A folder with the model's small files: the given one, or what the hub (or its cache) holds under that name."""
    if Path(given).is_dir():
        return Path(given)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        names = ["config.json", "tokenizer.json", "*processor_config.json"]
        return Path(snapshot_download(given, allow_patterns=names))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"--model {given}: the hub gave no files ({reason}); give a local model folder") from None


def context(model: Path) -> int:
    """The positions a model has, prompt and answer together."""
    config = files.read_json(model / "config.json", "--model")
    return (config | config.get("text_config", {}))["max_position_embeddings"]


def system_text(given: str) -> str:
    r"""ms-swift's --system: the text itself, with \n for a new line, or a .txt file."""
    if not given.endswith(".txt"):
        return given.replace("\\n", "\n")
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--system {given}: can't be read ({error}); give an existing text file") from None


# ---- pictures ----


@dataclass(frozen=True)
class Budget:
    """Pixels that pictures may have, as ms-swift and qwen_vl_utils read them from the environment.

    image, video: fewest and most squares of an image, and of a frame. total: pixels of a whole video. rescale: most
    pixels before all that (ms-swift's --max_pixels).
    """

    image: tuple[int, int]
    video: tuple[int, int]
    total: float
    rescale: int | None = None

    @staticmethod
    def of(environment: Mapping[str, str], rescale: int | None = None) -> Budget:
        def squares(kind: str, end: str, default: int) -> int:
            if own := environment.get(f"{kind or 'IMAGE_'}{end}_TOKEN_NUM"):
                return int(own)
            pixels = environment.get(f"{kind}{end}_PIXELS")
            return int(pixels) // SQUARE**2 if pixels else default

        try:
            image = squares("", "MIN", IMAGE_TOKENS[0]), squares("", "MAX", IMAGE_TOKENS[1])
            video = squares("VIDEO_", "MIN", VIDEO_TOKENS[0]), squares("VIDEO_", "MAX", VIDEO_TOKENS[1])
            total = int(float(environment.get("MODEL_SEQ_LEN", 128000))) * SQUARE**2 * 0.9
            return Budget(image, video, total, rescale)
        except ValueError as error:
            raise UserError(f"MAX_PIXELS and its like need whole numbers ({error})") from None


def smart_resize(size: Size, factor: int, low: float, high: float) -> Size:
    """The size a picture is scaled to: multiples of `factor`, between `low` and `high` pixels, proportions kept.

    Raises ValueError for a picture that is too narrow. The rule of qwen_vl_utils, with its roundings.
    """
    width, height = size
    if max(size) / min(size) > MAX_RATIO:
        raise ValueError(f"{width} x {height} pixels, more than {MAX_RATIO} times as long as wide")
    w, h = (max(factor, round(side / factor) * factor) for side in size)
    if h * w > high:
        beta = math.sqrt((height * width) / high)
        w, h = (math.floor(side / beta / factor) * factor for side in size)
    elif h * w < low:
        beta = math.sqrt(low / (height * width))
        w, h = (math.ceil(side * beta / factor) * factor for side in size)
    if not w or not h:
        raise ValueError(f"{width} x {height} pixels, too narrow to be scaled down")
    return w, h


class Lengths:
    """Counts tokens with the tokenizer and the processor's settings in `model`."""

    def __init__(self, model: Path, budget: Budget, system: str = SYSTEM) -> None:
        from tokenizers import Tokenizer

        if not (model / "tokenizer.json").is_file():
            raise UserError(f"--model {model}: no tokenizer.json in it; give a whole Hugging Face model folder")
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._patch, self._merge, self._frames = _processor(model)
        self._budget, self._system = budget, system
        # Questions come again and again, sizes too.
        self._text = lru_cache(1 << 16)(self._text)
        self.image = lru_cache(1 << 16)(self.image)

    def row(
        self, turns: Sequence[str], system: str | None, images: Sequence[Size], videos: Sequence[list[Size]]
    ) -> int:
        """Tokens of a conversation: user and assistant in turn; one that ends with the user is a prompt.

        Raises ValueError for pictures that ms-swift can't scale or stack.
        """
        system = self._system if system is None else system
        text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        count = 0
        for place, turn in enumerate(turns):
            if place % 2 == 0:
                # The template hands prompt and answer to the tokenizer apart, so that no token reaches over.
                count += self._text(f"{text}<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n")
                text = "<|im_end|>\n"
            else:
                count += self._text(turn + text if place == len(turns) - 1 else turn)
        # Each tag has become one pad token so far.
        return count + sum(self.image(size) - 1 for size in images) + sum(self.video(sizes) - 1 for sizes in videos)

    def _text(self, text: str) -> int:
        for tag, pad in ((IMAGE, "image_pad"), (VIDEO, "video_pad")):
            text = text.replace(tag, f"<|vision_start|><|{pad}|><|vision_end|>")
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def image(self, size: Size) -> int:
        """Tokens of one image. Raises ValueError."""
        return self._squares(smart_resize(self._rescaled(size), SQUARE, *(n * SQUARE**2 for n in self._budget.image)))

    def video(self, sizes: Sequence[Size]) -> int:
        """Tokens of one list of frames, which qwen_vl_utils scales twice and fills up to an even number.

        Raises ValueError where the frames don't come to one size.
        """
        # Frame by frame it takes squares of 56 pixels, as it multiplies by two what it multiplied before.
        limits = [n * (2 * SQUARE) ** 2 for n in self._budget.image]
        scaled = {smart_resize(size, 2 * SQUARE, *limits) for size in set(sizes)}
        if len(scaled) > 1:
            shapes = ", ".join(f"{w} x {h}" for w, h in sorted(set(sizes))[:3])
            raise ValueError(f"frames of different sizes ({shapes})")
        frames = math.ceil(len(sizes) / 2) * 2
        low, high = (n * SQUARE**2 for n in self._budget.video)
        high = max(min(high, self._budget.total / frames * 2), int(low * 1.05))
        return math.ceil(frames / self._frames) * self._squares(smart_resize(scaled.pop(), SQUARE, low, high))

    def _rescaled(self, size: Size) -> Size:
        most, (width, height) = self._budget.rescale, size
        if not most or most < 0 or width * height <= most:
            return size
        scaled = math.sqrt(most / (width / height))
        return int(scaled * (width / height)), int(scaled)

    def _squares(self, size: Size) -> int:
        return (size[0] // self._patch) * (size[1] // self._patch) // self._merge**2


def _processor(model: Path) -> tuple[int, int, int]:
    """Patch size, merge size and frames per patch; what the files leave out is as in Qwen2.5-VL."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (model / name).is_file():
            config = files.read_json(model / name, "--model")
            config = config.get("image_processor", config)
            return config.get("patch_size", 14), config.get("merge_size", 2), config.get("temporal_patch_size", 2)
    raise UserError(f"--model {model}: no preprocessor_config.json in it; give a whole Hugging Face model folder")
