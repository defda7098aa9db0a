"""A plain loop for training a network, and for retraining it between rounds of pruning.

`prune` accepts any ``callable(model, round)``; `FineTune` is the one to start from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from celosia.errors import ArgumentError

__all__ = ["FineTune", "flip_and_shift"]

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTune:
    """Train a network on inputs and targets; ``FineTune(...)(model, round)`` does one round.

    The learning rate rises over the first tenth of a round's steps and falls to zero along a
    half cosine. All parameters are trained; a masked weight stays zero because the mask is part
    of the layer (`celosia.compress.pruning.masks`). The model is left in the mode, train or eval,
    that it was in. Order of inputs and augmentation depend on `seed` and the round only. Batches
    go to the device of the model's first parameter.

    inputs, labels   : float32 (N, ...), and int64 (N,) classes or whatever targets `loss` takes.
    epochs           : passes over the inputs, one number or one for each round (the last one
                       then also stands for further rounds).
    learning_rate    : the peak.   batch_size : inputs a step; the last, smaller batch counts too.
    weight_decay     : as torch's optimiser applies it.
    optimizer        : "adamw", or "sgd" with Nesterov momentum `momentum`.
    label_smoothing  : of the cross entropy, 0 to 1.
    loss             : callable(outputs, targets) -> scalar; None is the cross entropy.
    penalty          : callable(model) -> scalar that is added to the loss, or None.
    rate_factors     : {start of a parameter's name: factor on its learning rate}; 1 for the rest.
    after_step       : callable(model, learning rate), called after each step of the optimiser (for
                       a proximal step), or None.
    teacher          : a network to distil from, or None. The loss is then ``(1 - teacher_weight)``
                       times the cross entropy plus ``teacher_weight * temperature**2`` times the
                       Kullback-Leibler divergence at that temperature (Hinton, Vinyals, Dean,
                       arXiv 1503.02531).
    augment          : callable(batch, torch.Generator) -> batch of the same shape, or None.
    on_epoch         : callable(round, epoch, mean loss), called after each epoch, or None.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    epochs: int | Sequence[int] = 1
    learning_rate: float = 1e-3
    batch_size: int = 128
    weight_decay: float = 1e-4
    optimizer: str = "adamw"
    momentum: float = 0.9
    label_smoothing: float = 0.0
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    penalty: Callable[[nn.Module], torch.Tensor] | None = None
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    after_step: Callable[[nn.Module, float], None] | None = None
    teacher: nn.Module | None = None
    teacher_weight: float = 0.7
    temperature: float = 3.0
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None
    on_epoch: Callable[[int, int, float], None] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        if len(self.inputs) != len(self.labels) or len(self.inputs) == 0:
            raise ArgumentError(
                f"{len(self.inputs)} inputs and {len(self.labels)} labels; give one label for "
                "each input, and at least one"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ArgumentError(f"optimizer must be one of {OPTIMIZERS}, not {self.optimizer!r}")
        if not isinstance(self.epochs, int) and len(self.epochs) == 0:
            raise ArgumentError("epochs is an empty sequence; give one number for each round")

    def __call__(self, model: nn.Module, round: int) -> None:
        """Train `model` in place for the epochs of round `round` (0, 1, ...)."""
        epochs = self._epochs_of(round)
        was_training = model.training
        model.train()
        order = torch.Generator().manual_seed(self.seed * 1_000_003 + round)
        optimizer = self._make_optimizer(model)
        steps = epochs * math.ceil(len(self.inputs) / self.batch_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        for epoch in range(epochs):
            total = 0.0
            for chosen in torch.randperm(len(self.inputs), generator=order).split(self.batch_size):
                loss = self._loss(model, chosen, order)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if self.after_step is not None:
                    self.after_step(model, schedule.get_last_lr()[-1])
                schedule.step()
                total += float(loss.detach()) * len(chosen)
            if self.on_epoch is not None:
                self.on_epoch(round, epoch, total / len(self.inputs))
        model.train(was_training)

    def _epochs_of(self, round: int) -> int:
        if isinstance(self.epochs, int):
            return self.epochs
        return self.epochs[min(round, len(self.epochs) - 1)]

    def _make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        rate, decay = self.learning_rate, self.weight_decay
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            factor = next((factor for start, factor in self.rate_factors.items()
                           if name.startswith(start)), 1.0)
            groups.setdefault(factor, []).append(parameter)
        # The plain rate comes last: `after_step` is told that one.
        parts = [{"params": groups[factor], "lr": rate * factor}
                 for factor in sorted(groups, key=lambda factor: factor == 1.0)]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parts, lr=rate, weight_decay=decay, fused=True)
        return torch.optim.SGD(
            parts, lr=rate, weight_decay=decay, momentum=self.momentum, nesterov=True, fused=True
        )

    def _loss(
        self, model: nn.Module, chosen: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of the inputs with indices `chosen`, a scalar."""
        device = next(model.parameters()).device
        batch, targets = self.inputs[chosen].to(device), self.labels[chosen].to(device)
        if self.augment is not None:
            batch = self.augment(batch, generator)
        outputs = model(batch)
        if self.loss is not None:
            loss = self.loss(outputs, targets)
        else:
            loss = functional.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)
        if self.penalty is not None:
            loss = loss + self.penalty(model)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = self.teacher(batch)
        heat = self.temperature
        distance = functional.kl_div(
            functional.log_softmax(outputs / heat, dim=1),
            functional.log_softmax(wanted / heat, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.teacher_weight) * loss + self.teacher_weight * heat**2 * distance


def flip_and_shift(batch: torch.Tensor, generator: torch.Generator, reach: int = 1) -> torch.Tensor:
    """Mirror every second image (at random) left to right and shift each by up to `reach` pixels.

    Parameters
    ----------
    batch
        (N, C, H, W).
    generator
        Source of the random numbers.
    reach
        Largest shift in each direction; uncovered pixels become zero.

    Returns
    -------
    A new tensor of the same shape and type.
    """
    count, _, height, width = batch.shape
    padded = functional.pad(batch, (reach, reach, reach, reach))
    top, left = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=generator).to(batch.device)
    mirrored = (torch.rand(count, 1, generator=generator) < 0.5).to(batch.device)
    columns = torch.arange(width, device=batch.device)
    columns = left + torch.where(mirrored, width - 1 - columns, columns)
    rows = top + torch.arange(height, device=batch.device)
    image = torch.arange(count, device=batch.device)[:, None, None]
    return padded.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step: linear rise, half-cosine fall."""
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
