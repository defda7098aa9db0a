"""A plain loop for training a network, and for retraining it between rounds of pruning.

`prune` accepts any ``callable(model, round)``; `FineTune` is the one to start from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real

import torch
from torch import nn
from torch.nn import functional

from celosia.compress.entry import entry
from celosia.compress.layers import evaluating
from celosia.compress.promise import example_for, restoring
from celosia.compress.words import OPTIMIZERS
from celosia_spec.errors import ArgumentError, CelosiaError, said
from celosia_spec.inputs import as_tensor

__all__ = ["FineTune", "flip_and_shift"]

_CHECKED = 4096
"""Inputs that are looked at together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTune:
    """Train a network on inputs and targets; ``FineTune(...)(model, round)`` does one round.

    The learning rate rises over the first tenth of a round's steps and falls to zero along a
    half cosine. All parameters that are not frozen (`requires_grad`) are trained; a masked weight
    stays zero because the mask is part of the layer (`celosia.compress.masks.weights`). A model in
    eval mode trains as a whole; in one that is in train mode, parts in eval mode stay so, such as
    normalisations with frozen statistics. Every part is left in the mode that it was in. Order of
    inputs and augmentation depend on `seed` and the round only. Batches go to the device and the
    floating type of the model's first parameter.

    inputs, labels   : (N, ...) tensor or array, and (N,) classes, whole numbers of any type, or
                       float (N, classes) probabilities, or whatever targets `loss` takes.
    epochs           : passes over the inputs, one number or one for each round (the last one
                       then also stands for further rounds).
    learning_rate    : the peak.
    batch_size       : inputs a step. The last, smaller batch counts too; a single input that is
                       left over joins the batch before, for a batch normalisation needs two.
    weight_decay     : as torch's optimiser applies it.
    optimizer        : "adamw", or "sgd" with Nesterov momentum `momentum`.
    label_smoothing  : of the cross entropy, 0 to 1.
    loss             : callable(outputs, targets) -> scalar; None is the cross entropy.
    penalty          : callable(model) -> scalar that is added to the loss, or None.
    rate_factors     : {start of a parameter's name: factor on its learning rate}; 1 for the rest.
    after_step       : callable(model, learning rate), called after each step of the optimiser (for
                       a proximal step), or None.
    teacher          : a network to distil from, or None; it runs in eval mode. The loss is then
                       ``(1 - teacher_weight)`` times the cross entropy plus ``teacher_weight *
                       temperature**2`` times the Kullback-Leibler divergence at that temperature
                       (Hinton, Vinyals, Dean, arXiv 1503.02531).
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
        inputs, labels = as_tensor(self.inputs, "inputs"), as_tensor(self.labels, "labels")
        counts = [part.shape[0] if part.ndim else 1 for part in (inputs, labels)]
        if 0 in (inputs.ndim, labels.ndim) or counts[0] != counts[1] or counts[0] == 0:
            raise ArgumentError(f"{counts[0]} inputs and {counts[1]} labels; give one label for "
                                "each input, and at least one")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "labels", labels if self.loss else _classes(labels))
        if not all(bool(part.isfinite().all()) for part in inputs.split(_CHECKED)):
            raise ArgumentError("inputs hold NaN or infinity; remove them first")
        if self.optimizer not in OPTIMIZERS:
            raise ArgumentError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, "
                                f"not {self.optimizer!r}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Refuse numbers out of their ranges."""
        epochs = [self.epochs] if isinstance(self.epochs, int | float | str) else list(self.epochs)
        if not epochs:
            raise ArgumentError("epochs is an empty sequence; give one number for each round")
        for name, count, least in (*(("epochs", count, 0) for count in epochs),
                                   ("batch_size", self.batch_size, 1)):
            if not isinstance(count, Integral) or count < least:
                raise ArgumentError(f"{name} must be at least {least}, a whole number, "
                                    f"not {count!r}")
        momentum = self.momentum if self.optimizer == "sgd" else 0.5
        for name, value, allowed in (
                ("learning_rate", self.learning_rate, "above 0"),
                ("weight_decay", self.weight_decay, "0 or above"),
                ("temperature", self.temperature, "above 0"), ("momentum", momentum, "above 0"),
                ("label_smoothing", self.label_smoothing, "0 to 1"),
                ("teacher_weight", self.teacher_weight, "0 to 1")):
            if (not isinstance(value, Real) or not 0 <= value < math.inf
                    or (allowed == "above 0" and value == 0)
                    or (allowed == "0 to 1" and value > 1)):
                raise ArgumentError(f"{name} must be {allowed}, not {value!r}")

    @entry
    def __call__(self, model: nn.Module, round: int) -> None:
        """Train `model` in place for the epochs of round `round` (0, 1, ...).

        ArgumentError, before anything is trained, where nothing in the model trains, a batch
        normalisation would get a single value, labels and outputs do not go together, or the loss
        is no number that can be trained on; CelosiaError where it is none any more, or where a
        weight or statistic is not finite at the end.
        """
        epochs = self._epochs_of(round)
        order = torch.Generator().manual_seed(self.seed * 1_000_003 + round)
        optimizer = self._make_optimizer(model)
        batches = len(self._split(torch.arange(len(self.inputs))))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _rate(step, epochs * batches))
        finite = _finite(model)
        with _training(model):
            self._try(model)
            for epoch in range(epochs):
                total = 0.0
                for chosen in self._split(torch.randperm(len(self.inputs), generator=order)):
                    loss = self._loss(model, chosen, order)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if self.after_step is not None:
                        self.after_step(model, schedule.get_last_lr()[-1])
                    schedule.step()
                    total += float(loss.detach()) * len(chosen)
                if not math.isfinite(total):
                    raise CelosiaError(
                        f"the loss of round {round}, epoch {epoch} is {total}; lower the learning "
                        f"rate from {self.learning_rate:g}, or look for bad inputs")
                if self.on_epoch is not None:
                    self.on_epoch(round, epoch, total / len(self.inputs))
        broken = sorted(finite - _finite(model))
        if broken:
            raise CelosiaError(
                f"{broken[0]!r} is not finite after round {round}; lower the learning rate from "
                f"{self.learning_rate:g}, or look for bad inputs")

    def _split(self, order: torch.Tensor) -> list[torch.Tensor]:
        """Return the batches of an epoch: indices of their inputs."""
        batches = list(order.split(self.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1 and self.batch_size > 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _try(self, model: nn.Module) -> None:
        """Find the loss of the smallest batch, and leave no trace; ArgumentError where it fails."""
        chosen = min(self._split(torch.arange(len(self.inputs))), key=len)
        try:
            with restoring(model, always=True), torch.random.fork_rng():
                loss = self._loss(model, chosen, torch.Generator().manual_seed(self.seed),
                                  trial=True)
        except CelosiaError:
            raise
        except Exception as problem:    # whatever the user's modules and functions raise
            raise ArgumentError(
                f"the network does not train on a batch of {len(chosen)} ({said(problem)}); "
                "give other inputs, or a larger batch_size") from problem
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise ArgumentError("loss does not return one number; take its mean")
        if not loss.requires_grad:
            raise ArgumentError("no parameter of the model has a share in the loss, so nothing "
                                "trains; look for detach() and no_grad() in its forward")

    def _batch(self, model: nn.Module, chosen: torch.Tensor) -> torch.Tensor:
        first = next(model.parameters())
        batch = self.inputs[chosen]
        return batch.to(first.device, first.dtype if batch.is_floating_point() else batch.dtype)

    def _epochs_of(self, round: int) -> int:
        if isinstance(self.epochs, int):
            return self.epochs
        return self.epochs[min(round, len(self.epochs) - 1)]

    def _make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        rate, decay = self.learning_rate, self.weight_decay
        groups: dict[float, list[nn.Parameter]] = {}
        names = [name for name, _ in model.named_parameters()]
        for start in self.rate_factors:
            if not any(name.startswith(start) for name in names):
                raise ArgumentError(f"rate_factors: no parameter's name begins with {start!r}; "
                                    f"names are {', '.join(names[:6])}"
                                    f"{', ...' if len(names) > 6 else ''}")
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            factor = next((factor for start, factor in self.rate_factors.items()
                           if name.startswith(start)), 1.0)
            groups.setdefault(factor, []).append(parameter)
        if not groups:
            raise ArgumentError("every parameter of the model is frozen, so nothing trains; set "
                                "requires_grad_() on the layers that should")
        # The plain rate comes last: `after_step` is told that one.
        parts = [{"params": groups[factor], "lr": rate * factor}
                 for factor in sorted(groups, key=lambda factor: factor == 1.0)]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parts, lr=rate, weight_decay=decay, fused=True)
        return torch.optim.SGD(
            parts, lr=rate, weight_decay=decay, momentum=self.momentum, nesterov=True, fused=True
        )

    def _loss(
        self, model: nn.Module, chosen: torch.Tensor, generator: torch.Generator, *,
        trial: bool = False,
    ) -> torch.Tensor:
        """Return the loss of the inputs with indices `chosen`, a scalar.

        trial : check first that the outputs go with all labels.
        """
        batch = self._batch(model, chosen)
        targets = self.labels[chosen].to(batch.device)
        if self.augment is not None:
            batch = self.augment(batch, generator)
        outputs = model(batch.clone())      # which it may change in place
        if trial and self.loss is None:
            _check_outputs(outputs, self.labels)
        if self.loss is not None:
            loss = self.loss(outputs, targets)
        else:
            loss = functional.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)
        if self.penalty is not None:
            loss = loss + self.penalty(model)
        if self.teacher is None:
            return loss
        with evaluating(self.teacher), torch.no_grad():
            wanted = self.teacher(example_for(self.teacher, batch).clone()).to(outputs)
        heat = self.temperature
        distance = functional.kl_div(
            functional.log_softmax(outputs / heat, dim=1),
            functional.log_softmax(wanted / heat, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.teacher_weight) * loss + self.teacher_weight * heat**2 * distance


def _finite(model: nn.Module) -> set[str]:
    """Return the names of the parameters and buffers whose numbers are all finite."""
    return {name for name, tensor in (*model.named_parameters(), *model.named_buffers())
            if bool(tensor.isfinite().all())}


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Put a model that is in eval mode into train mode; put every part back afterwards."""
    modes = {module: module.training for module in model.modules()}
    if not model.training:
        model.train()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _classes(labels: torch.Tensor) -> torch.Tensor:
    """Return targets as the cross entropy takes them; ArgumentError where it cannot."""
    if labels.is_floating_point() and labels.ndim == 2:
        if not bool((labels >= 0).all()) or not bool(labels.isfinite().all()):
            raise ArgumentError("labels of two axes are probabilities, and some of them are below "
                                "0 or no numbers; give softmax(logits, 1), or the classes (N,)")
        return labels
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise ArgumentError(
            f"labels are {str(labels.dtype).removeprefix('torch.')} of shape "
            f"{tuple(labels.shape)}; give the classes as whole numbers (N,), or probabilities "
            "(N, classes), or a loss= that takes other targets")
    return labels.to(torch.int64)


def _check_outputs(outputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse labels that are no class of the outputs (N, classes, ...)."""
    if not isinstance(outputs, torch.Tensor) or outputs.ndim < 2:
        raise ArgumentError("the network does not return one tensor (N, classes); give a loss= "
                            "that takes what it returns")
    classes = outputs.shape[1]
    if labels.ndim == 2 and labels.shape[1] != classes:
        raise ArgumentError(f"probabilities of {labels.shape[1]} classes, and the network gives "
                            f"{classes}; make them equal")
    wrong = labels[((labels < 0) | (labels >= classes)) & (labels != -100)]
    if labels.ndim == 1 and len(wrong):
        raise ArgumentError(f"label {int(wrong[0])} is not one of the network's {classes} classes, "
                            f"0 to {classes - 1}; number them so")


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
