"""curves.png of a training run, from ms-swift's log: `python -m vasekit.curves FOLDER`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasekit import cli, files, runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "curves.png"
# Below so many points a running mean hides more than it shows.
_SMOOTHED_FROM = 50
_COLOURS = ("#b5532a", "#2c6e8f", "#4f7f3a", "#8a5a9e", "#a0812a", "#5c5c5c")
_INK, _FAINT = "#222222", "#8c8c8c"

# Step -> value, by name.
Series = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Panel:
    """One small chart. lines: the log's name and the legend's; band: the log's names of what to shade between."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    band: tuple[str, str] | None = None
    log_scale: bool = False
    smooth: bool = True


_REWARD_PARTS = "rewards/"
# GRPO's loss is a surrogate whose height says nothing, so it comes last there.
_GRPO = (
    Panel("Reward", "mean of a batch", (("reward", "training"), ("eval_reward", "held out"))),
    Panel("Parts of the reward", "mean of a batch", ((_REWARD_PARTS, ""),)),
    Panel("Spread within a group", "standard deviation of reward", (("reward_std", "training"),)),
    Panel(
        "Wasted",
        "share",
        (
            ("frac_reward_zero_std", "groups of equal rewards: no gradient"),
            ("completions/clipped_ratio", "answers cut off at the limit"),
        ),
    ),
    Panel("Distance from the reference", "KL divergence (nats per token)", (("kl", "training"),)),
    Panel(
        "Length of an answer",
        "tokens",
        (("completions/mean_length", "mean (shaded: shortest to longest)"),),
        band=("completions/min_length", "completions/max_length"),
    ),
    Panel("Loss", "surrogate loss", (("loss", "training"), ("eval_loss", "held out"))),
)
_SFT = (
    Panel("Loss", "cross-entropy (nats per token)", (("loss", "training"), ("eval_loss", "held out"))),
    Panel("Token accuracy", "share of tokens predicted", (("token_acc", "training"), ("eval_token_acc", "held out"))),
)
_BOTH = (
    Panel("Learning rate", "per step", (("learning_rate", "training"),), smooth=False),
    Panel("Gradient norm", "before clipping", (("grad_norm", "training"),), log_scale=True),
)


# ---- reading ----


def series(entries: Sequence[dict[str, Any]]) -> tuple[Series, list[int]]:
    """Values by name and step, and the steps from which the run was resumed.

    A run that goes on from a checkpoint logs again what it had done since: those steps, and all that came after them
    in the first attempt, are taken from the later lines.
    """
    found: Series = {}
    resumed, last = [], 0
    for entry in entries:
        step = runs.step_of(entry)[0]
        if step < last:
            resumed.append(step)
            found = {name: {s: v for s, v in points.items() if s < step} for name, points in found.items()}
        last = step
        if "train_runtime" not in entry:  # the summary at the end: means over the whole run
            for name, value in entry.items():
                if isinstance(value, int | float):
                    found.setdefault(name, {})[step] = float(value)
    return {name: points for name, points in found.items() if points}, resumed


def _panels(found: Series) -> list[Panel]:
    """The charts for which there are points; the parts of a reward are those in the log, if it has several."""
    parts = [name for name in found if name.startswith(_REWARD_PARTS) and name.endswith("/mean")]
    named = tuple((name, name.removeprefix(_REWARD_PARTS).removesuffix("/mean")) for name in parts)
    panels = []
    for panel in (*(_GRPO if "reward" in found else _SFT), *_BOTH):
        if panel.lines[0][0] == _REWARD_PARTS:
            lines = named if len(named) > 1 else ()
        else:
            lines = tuple(line for line in panel.lines if line[0] in found)
        if lines:
            panels.append(replace(panel, lines=lines))
    return panels


# ---- drawing ----


def draw(folder: Path) -> Path | None:
    """Write curves.png beside a run's log; None where there is no log, or fewer than two points in it."""
    log = runs.log_file(folder)
    entries = runs.log(folder)
    found, resumed = series(entries)
    panels = _panels(found)
    if log is None or not any(len(found[name]) > 1 for panel in panels for name, _ in panel.lines):
        return None
    from matplotlib.figure import Figure

    columns = 2 if len(panels) <= 4 else 3
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows + 0.5), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, found, resumed)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    step, steps = runs.step_of(entries[-1])
    figure.suptitle(f"{folder.name}: {step:,} of {steps:,} steps", fontsize=13, fontweight="bold", color=_INK)
    if notes := _notes(found, resumed):
        figure.supxlabel(notes, fontsize=8.5, color=_INK)
    path = log.with_name(CURVES)
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


def _notes(found: Series, resumed: Sequence[int]) -> str:
    smoothed = any(len(points) >= _SMOOTHED_FROM for points in found.values())
    notes = ["thin: every logged value, thick: running mean"] if smoothed else []
    return "; ".join([*notes, "dotted: resumed from a checkpoint"] if resumed else notes)


def _draw(axis: Axes, panel: Panel, found: Series, resumed: Sequence[int]) -> None:
    if panel.band and all(name in found for name in panel.band):
        steps = sorted(found[panel.band[0]].keys() & found[panel.band[1]].keys())
        low, high = (_smooth([found[name][step] for step in steps]) for name in panel.band)
        axis.fill_between(steps, low, high, color=_COLOURS[0], alpha=0.12, linewidth=0)
    for k, (name, label) in enumerate(panel.lines):
        _line(axis, found[name], label, _COLOURS[k % len(_COLOURS)], panel.smooth)
    for step in resumed:
        axis.axvline(step, color=_FAINT, linestyle=":", linewidth=1, zorder=0)
    if panel.log_scale and any(value > 0 for name, _ in panel.lines for value in found[name].values()):
        axis.set_yscale("log")
    _dress(axis, panel)


def _line(axis: Axes, points: dict[int, float], label: str, colour: str, smooth: bool) -> None:
    """All points; over many of them, thin, the running mean. matplotlib leaves a gap where a value isn't a number."""
    steps = sorted(points)
    values = [points[step] if math.isfinite(points[step]) else math.nan for step in steps]
    if smooth and len(steps) >= _SMOOTHED_FROM:
        axis.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
        axis.plot(steps, _smooth(values), color=colour, linewidth=2, label=label)
        return
    # A dozen evaluations among thousands of steps would be invisible as a bare line.
    marker = "o" if len(steps) <= 15 else None
    axis.plot(steps, values, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=label)


def _smooth(values: Sequence[float]) -> list[float]:
    """Running mean over a twentieth of the curve, cut off at both ends; short curves as they are, gaps stay gaps."""
    if len(values) < _SMOOTHED_FROM:
        return list(values)
    reach = max(1, len(values) // 40)
    means = []
    for k, value in enumerate(values):
        window = [v for v in values[max(0, k - reach) : k + reach + 1] if not math.isnan(v)]
        means.append(math.nan if math.isnan(value) else math.fsum(window) / len(window))
    return means


def _dress(axis: Axes, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator

    axis.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold", color=_INK)
    axis.set_xlabel("optimizer step", fontsize=8.5, color=_INK)
    axis.set_ylabel(panel.unit, fontsize=8.5, color=_INK)
    axis.tick_params(which="both", labelsize=8, colors=_INK, length=3)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_formatter("{x:g}")
    if axis.get_yscale() == "log":  # what lies within one power of ten needs names too
        axis.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 5, 7)))
        axis.yaxis.set_minor_formatter("{x:g}")
    axis.grid(color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    _legend(axis, panel)


def _legend(axis: Axes, panel: Panel) -> None:
    """Names of the lines where there are several; many get a strip of their own above the curves."""
    style = {"fontsize": 7.5, "facecolor": "white", "edgecolor": "none", "framealpha": 0.8}
    if len(panel.lines) > 2:
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.12 * (high - low) * math.ceil(len(panel.lines) / 3))
        axis.legend(loc="upper left", ncols=3, **style)
    elif len(panel.lines) == 2 or panel.band:
        axis.legend(loc="best", **style)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("Draw the curves of a training run from ms-swift's log.")
    parser.add_argument("folder", type=cli.user_path, help="a run's output folder (output/sft, output/grpo)")
    args: argparse.Namespace = parser.parse_args(argv)
    path = draw(cli.need_dir(args.folder, "FOLDER"))
    if path is None:
        raise cli.UserError(f"FOLDER {args.folder}: no {runs.LOG} with two points in it; let the run log more steps")
    print(f"curves: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
