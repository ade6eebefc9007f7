"""What the kit adds to ms-swift: the vase reward, its parts, and image token ids that come from the tokenizer.

ms-swift imports this file by its base name: --external_plugins plugin/plugin.py --reward_funcs external_vase_acc
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from swift.rewards import ORM, orms
from swift.template.templates.qwen import Qwen2VLTemplate

from vasekit import rewards
from vasekit.rewards import external_vase_acc  # noqa: F401 - the documented name, for those who import this file


def _targets(solution: list | None, count: int) -> list[rewards.Target]:
    if solution is None:
        raise ValueError("the data set lacks the column 'solution', which the vase reward compares with")
    if len(solution) != count:
        raise ValueError(f"{count} completions but {len(solution)} values in the column 'solution'")
    return [rewards.Target.parse(value) for value in solution]


class VaseReward(ORM):
    """The total of all dimensions, from the column `solution`."""

    def __call__(self, completions: list[str], solution: list | None = None, **_: object) -> list[float]:
        pairs = zip(completions, _targets(solution, len(completions)), strict=True)
        return [rewards.total(completion, target.record) for completion, target in pairs]


def _part(name: str) -> type[ORM]:
    def score(self: ORM, completions: list[str], solution: list | None = None, **_: object) -> list[float | None]:
        pairs = zip(completions, _targets(solution, len(completions)), strict=True)
        return [rewards.score_fields(completion, target.record)[name] for completion, target in pairs]

    return type(f"Vase{name.title()}", (ORM,), {"__call__": score, "__doc__": f"The {name} dimension alone."})


orms["external_vase_acc"] = VaseReward
for _name in rewards.WEIGHTS:
    orms[f"vase_{_name}"] = _part(_name)

# ms-swift fixes these two ids to those of the published Qwen2.5-VL. Read from the tokenizer they are the same for that
# model, and right for one with another vocabulary.
Qwen2VLTemplate.image_token_id = property(lambda self: self.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
Qwen2VLTemplate.video_token_id = property(lambda self: self.tokenizer.convert_tokens_to_ids("<|video_pad|>"))
