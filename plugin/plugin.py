"""What the kit adds to ms-swift: the vase reward, its parts, and image token ids that come from the tokenizer.

ms-swift imports this file by its base name: --external_plugins plugin/plugin.py --reward_funcs external_vase_acc
Parts to log beside it, without effect: --reward_funcs external_vase_acc vase_shape vase_date --reward_weights 1 0 0
VASE_REWARD=paper takes the published formula instead of `strict`, VASE_ENCODER names its sentence encoder.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from swift.rewards import ORM, orms
from swift.template.templates.qwen import Qwen2VLTemplate
from swift.template.vision_utils import _check_path

from vasekit import rewards
from vasekit.rewards import external_vase_acc  # noqa: F401 - the documented name, for those who import this file
from vasekit.vases import VaseRecord

_REWARD = rewards.preset(os.environ.get("VASE_REWARD", "strict"), os.environ.get("VASE_ENCODER", ""))
# One answer is asked for by the total and by every part that is logged beside it.
_score = lru_cache(maxsize=4096)(_REWARD.score)


def _scored(completions: list[str], solution: list | None) -> list[rewards.Scored]:
    if solution is None:
        raise ValueError("the data set lacks the column 'solution', which the vase reward compares with")
    if len(solution) != len(completions):
        raise ValueError(f"{len(completions)} completions but {len(solution)} values in the column 'solution'")
    targets: list[VaseRecord] = [rewards.Target.parse(value).record for value in solution]
    return [_score(completion, target) for completion, target in zip(completions, targets, strict=True)]


class VaseReward(ORM):
    """The total of all dimensions, from the column `solution`."""

    def __call__(self, completions: list[str], solution: list | None = None, **_: object) -> list[float]:
        return [scored.total for scored in _scored(completions, solution)]


def _part(name: str) -> type[ORM]:
    def score(self: ORM, completions: list[str], solution: list | None = None, **_: object) -> list[float | None]:
        return [scored.parts[name] for scored in _scored(completions, solution)]

    return type(f"Vase{name.title()}", (ORM,), {"__call__": score, "__doc__": f"The {name} dimension alone."})


orms["external_vase_acc"] = VaseReward
for _name in rewards.WEIGHTS:
    orms[f"vase_{_name}"] = _part(_name)

# ms-swift fixes these two ids to those of the published Qwen2.5-VL. Read from the tokenizer they are the same for that
# model, and right for one with another vocabulary.
Qwen2VLTemplate.image_token_id = property(lambda self: self.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
Qwen2VLTemplate.video_token_id = property(lambda self: self.tokenizer.convert_tokens_to_ids("<|video_pad|>"))

_replace_tag = Qwen2VLTemplate.replace_tag


def _with_found_frames(self: Qwen2VLTemplate, media_type: str, index: int, inputs: Any) -> list:
    """ms-swift finds pictures and video files below ROOT_IMAGE_DIR, but not the frames of a list."""
    if media_type == "video" and isinstance(inputs.videos[index], list):
        frames = inputs.videos[index]
        inputs.videos[index] = [(_check_path(f) or f) if isinstance(f, str) else f for f in frames]
    return _replace_tag(self, media_type, index, inputs)


Qwen2VLTemplate.replace_tag = _with_found_frames
