"""Training the quality classifier: epochs, the best checkpoint, and going on after an interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vasekit import decide, files, metrics
from vasekit.cli import UserError
from vasekit.files import atomic_path
from vasekit.quality import UNREADABLE, Photos, Settings, normalise, probabilities, save, weights_of

if TYPE_CHECKING:
    from torch import Tensor, nn

RESULTS = "training_results.json"


def augment(batch: Tensor, generator) -> Tensor:
    """Flip (half of them), turn by up to 10 degrees, shift and zoom a little, brightness and contrast +-20 %.

    batch: normalised (n, 3, h, w); what is moved in from outside is zero, like the padding.
    """
    import torch
    import torch.nn.functional as F

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(len(batch)).uniform_(low, high, generator=generator).to(batch.device)

    angle, zoom = uniform(-np.pi / 18, np.pi / 18), uniform(0.9, 1.1)
    flip = uniform(-1, 1).sign()
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos * flip, -sin, uniform(-0.08, 0.08), sin * flip, cos, uniform(-0.08, 0.08)], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, align_corners=False)
    contrast, brightness = uniform(0.8, 1.2).view(-1, 1, 1, 1), uniform(-0.4, 0.4).view(-1, 1, 1, 1)
    return (moved * contrast + brightness).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the published ones, but for `patience`."""

    batch_size: int = 256
    epochs: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    schedule: str = "step"
    precision: str = "fp32"  # of forward and backward; weights and optimizer are fp32 always
    seed: int = 42
    patience: int = 20  # epochs without improvement until training ends; 0: it goes on to the last epoch


@dataclass
class History:
    """One value per epoch."""

    train_losses: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    train_accs: list[float] = field(default_factory=list)
    val_accs: list[float] = field(default_factory=list)
    val_balanced_accs: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """How many are done."""
        return len(self.train_losses)

    @property
    def best_epoch(self) -> int:
        """From 1: the highest balanced accuracy in validation, ties decided by the lower loss, then the earlier one."""
        ranks = [(accuracy, -loss) for accuracy, loss in zip(self.val_balanced_accs, self.val_losses, strict=True)]
        return ranks.index(max(ranks)) + 1


def batches(indices: np.ndarray, size: int, order: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Slices of `indices`, in `order`; a last batch of one joins the one before (batch norm needs two)."""
    shuffled = indices if order is None else indices[order]
    ends = list(range(size, len(shuffled), size))
    if ends and len(shuffled) - ends[-1] == 1:
        ends.pop()
    yield from np.split(shuffled, ends)


def _schedule(optimizer, recipe: Recipe, steps: int):
    """A scheduler stepped once per batch; `steps` is the number of batches in an epoch."""
    from torch.optim import lr_scheduler

    if recipe.schedule == "onecycle":
        return lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.2
        )
    # x0.1 every 10 epochs as published, but not below a thousandth: at epoch 200 it would be 1e-22.
    return lr_scheduler.LambdaLR(optimizer, lambda step: max(0.1 ** (step // steps // 10), 1e-3))


class Trainer:
    """A model in training and all that changes with it, so that `restore` can go on from what `state` gave."""

    def __init__(
        self, model: nn.Module, photos: Photos, split: dict[str, np.ndarray], recipe: Recipe, device: str
    ) -> None:
        import torch

        torch.manual_seed(recipe.seed)  # dropout
        self.model = model.to(device, memory_format=torch.channels_last)
        self.photos, self.split, self.recipe, self.device = photos, split, recipe, device
        self.generator = torch.Generator().manual_seed(recipe.seed)  # order and augmentation
        algorithm = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.optimizer = algorithm(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        train = split["train"]
        self.scheduler = _schedule(self.optimizer, recipe, len(list(batches(train, recipe.batch_size))))
        kind = torch.device(device).type
        self.scaler = torch.amp.GradScaler(kind, enabled=recipe.precision == "fp16")
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
        self.autocast = partial(torch.autocast, kind, half, enabled=half is not None)
        counts = np.bincount(photos.labels[train], minlength=2)
        self.class_weights = torch.tensor(len(train) / (2 * counts), dtype=torch.float32, device=device)
        self.history = History()
        self.best: dict[str, Tensor] = {}  # weights after the best epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` of them have brought nothing."""
        done = self.history.epochs
        patience = self.recipe.patience or self.recipe.epochs
        return done >= self.recipe.epochs or (done > 0 and done - self.history.best_epoch >= patience)

    def epoch(self) -> None:
        """One pass over the training images, and validation."""
        import torch

        train, size = self.split["train"], self.recipe.batch_size
        self.model.train()
        order = torch.randperm(len(train), generator=self.generator).numpy()
        sums = np.sum([self._step(index) for index in batches(train, size, order)], axis=0)
        loss, accuracy = (sums / len(train)).tolist()
        _need_numbers(loss)
        val_loss, measured = evaluate(self.model, self.photos, self.split["val"], size, self.device)
        self.history.train_losses.append(loss)
        self.history.train_accs.append(accuracy)
        self.history.learning_rates.append(self.optimizer.param_groups[0]["lr"])
        self.history.val_losses.append(val_loss)
        self.history.val_accs.append(measured["accuracy"])
        self.history.val_balanced_accs.append(measured["balanced_accuracy"])
        if self.history.best_epoch == self.history.epochs:
            self.best = weights_of(self.model)

    def _step(self, index: np.ndarray) -> tuple[float, float]:
        """Learn from one batch: the sum of its losses, and how many were right."""
        import torch
        from torch.nn import functional as F

        target = torch.from_numpy(self.photos.labels[index]).to(self.device)
        batch = augment(normalise(torch.from_numpy(self.photos.pixels[index]).to(self.device)), self.generator)
        with self.autocast():
            logits = self.model(batch).float()
        loss = F.cross_entropy(logits, target, weight=self.class_weights)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else fp16 overflowed, and the optimizer left the step out
            self.scheduler.step()
        return loss.item() * len(index), (logits.argmax(1) == target).sum().item()

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts | ({"scaler": self.scaler} if self.scaler.is_enabled() else {})

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on: tensors and plain values."""
        import torch

        random = {"cpu": torch.get_rng_state(), "generator": self.generator.get_state()}
        if self.device != "cpu":
            random["device"] = torch.cuda.get_rng_state(self.device)
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, "best": self.best, "history": asdict(self.history), "random": random}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`, as if there had been no interrupt: on a CPU, every bit comes out the same."""
        import torch

        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.best, self.history = state["best"], History(**state["history"])
        torch.set_rng_state(state["random"]["cpu"])
        self.generator.set_state(state["random"]["generator"])
        if self.device != "cpu":
            torch.cuda.set_rng_state(state["random"]["device"], self.device)


def fit(trainer: Trainer, settings: Settings, output: Path, identity: dict[str, Any]) -> None:
    """Train to the end, and keep at `output` the checkpoint of the best epoch.

    After each epoch all that an interrupted run needs to go on is written beside `output`, see `unfinished`.
    """
    import torch

    history = trainer.history
    if history.epochs:
        print(f"going on after epoch {history.epochs}", flush=True)
        save(trainer.best, settings, output)
    while not trainer.finished:
        trainer.epoch()
        # The state comes first and holds the best weights too: killed at any moment, a run goes on from it alone.
        with atomic_path(resume_path(output)) as temporary:
            torch.save({"identity": identity, **trainer.state()}, temporary)
        if history.best_epoch == history.epochs:
            save(trainer.best, settings, output)
        print(
            f"epoch {history.epochs}/{trainer.recipe.epochs}: loss {history.train_losses[-1]:.3f}, validation loss"
            f" {history.val_losses[-1]:.3f}, balanced accuracy {history.val_balanced_accs[-1]:.3f}",
            flush=True,
        )


def evaluate(
    model: nn.Module, photos: Photos, indices: np.ndarray, batch_size: int, device: str
) -> tuple[float, dict[str, Any]]:
    """Mean cross-entropy (nats) and measures on the photos at `indices`: without augmentation, in fp32."""
    import torch

    model.eval()
    parts = [
        probabilities(model, torch.from_numpy(photos.pixels[part]), device).numpy()
        for part in batches(indices, batch_size)
    ]
    chances, labels = np.concatenate(parts).astype(float), photos.labels[indices]
    _need_numbers(chances)
    right = np.where(labels == 1, chances, 1 - chances)
    # Where rounding left nothing of the right class, the loss is 100 as in torch's binary cross-entropy.
    return float(-np.log(np.maximum(right, np.exp(-100))).mean()), _measures(labels, chances)


def _measures(labels: np.ndarray, chances: np.ndarray) -> dict[str, Any]:
    """Everything measured on one split; class 1 is predicted from a probability of .5 on."""
    return {
        **decide.classification_metrics(labels, chances >= 0.5),
        "roc_auc": metrics.auc(chances[labels == 1], chances[labels == 0]),
        "expected_calibration_error": {
            "value": decide.expected_calibration_error(labels, chances),
            "bins": decide.CALIBRATION_BINS,
        },
    }


def _need_numbers(values: np.ndarray | float) -> None:
    if not np.isfinite(values).all():
        raise UserError("training diverged, the loss is no number any more; start over: lower --learning_rate, --fresh")


# ---- runs: interrupted, finished, others' ----


def resume_path(output: Path) -> Path:
    """Where an unfinished run keeps its state."""
    return output.with_name(f".{output.name}.resume")


def unfinished(output: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The state that the same run left when it was interrupted, or {}. Raises UserError when it is another run's."""
    import torch

    path = resume_path(output)
    if not path.is_file():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        earlier = state["identity"]
    except UNREADABLE as error:
        raise UserError(
            f"--output {output}: {path} can't be read ({type(error).__name__}); --fresh starts over"
        ) from None
    _need_same(output, "an interrupted run", earlier, identity)
    return state


def finished(output: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The results of the same run if it was finished before, or {}. Raises UserError when `output` is another's."""
    if not output.exists() or resume_path(output).is_file():
        return {}
    report = output.parent / RESULTS
    results = files.read_json(report, "--output") if report.is_file() else {}
    if results.get("checkpoint_sha256") != files.sha256(output):
        raise UserError(f"--output {output}: not of a run in {report}; name another folder, or replace it with --fresh")
    _need_same(output, "another run", results["identity"], identity)
    return results


def _need_same(output: Path, what: str, earlier: dict[str, Any], identity: dict[str, Any]) -> None:
    other = sorted(name for name in {*earlier, *identity} if earlier.get(name) != identity.get(name))
    if other:
        raise UserError(
            f"--output {output}: holds {what} (other {', '.join(other[:4])}); name another folder, or give --fresh to"
            " replace that run"
        )


def draw_history(history: History, path: Path) -> None:
    """The two curves that tell overfitting: loss and accuracy, training and validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    panels = (
        (left, "loss", history.train_losses, history.val_losses),
        (right, "accuracy", history.train_accs, history.val_accs),
    )
    for axis, name, train, validation in panels:
        epochs = range(1, len(train) + 1)
        axis.plot(epochs, train, label="training")
        axis.plot(epochs, validation, label="validation")
        axis.set(xlabel="epoch", ylabel=name)
        axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)
