"""The promise of equal outputs: noted before a change, checked after it, or all is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from celosia.compress.layers import evaluating
from celosia.compress.outputs import returned_tensors
from celosia_spec.errors import ArgumentError, CelosiaError, said
from celosia_spec.inputs import as_tensor

__all__ = ["Promise", "example_for", "restoring", "run_once", "running"]

_TRIALS = 4
"""Runs with rounded weights that tell how far rounding alone moves the outputs."""
_MARGIN = 8.0
"""A difference may be so many times what the trials moved: an exact change of a layer rounds each
new weight once, as a trial does, but a folded layer sums other numbers in another order too."""


class Promise:
    """What a network computes, to be compared with what it computes after a change.

    It runs in eval mode, without gradients, on the example and, where that is floating point, on
    as many normal random numbers too: an example of zeros would hide a difference. The tolerance
    is the network's own: how far its outputs move when each weight and input is moved by up to
    a unit in its last place, in `_TRIALS` runs, times `_MARGIN`.

    Parameters
    ----------
    model
        Any module. Its tensors are moved and put back bit for bit.
    example_input
        Inputs (N, ...), tensor or array; moved to the model's device and, where floating point,
        to its floating type.

    Raises
    ------
    ArgumentError
        The network does not run on the example, or gives other outputs each time; the example is
        empty, or the network returns nothing on it that can be compared: no tensor (see
        `returned_tensors`), or one without a finite number.
    """

    def __init__(self, model: nn.Module, example_input: Any) -> None:
        self.inputs = _inputs(model, example_input)
        _refuse_vacuous(run_once(model, self.inputs[0]))
        self._outputs = self._run(model)
        again = self._run(model)
        if len(again) != len(self._outputs) or not all(map(_equal, self._outputs, again)):
            raise ArgumentError(
                "the network gives other outputs each time that it runs on the same input, in "
                "eval mode too, so equal outputs cannot be checked; remove what is random in it")
        self._allowed = self._tolerance(model)

    def broken_by(self, model: nn.Module) -> float | None:
        """Return the largest difference of the outputs if the promise is broken, else None.

        It is infinite where the number of outputs, a shape, or what is finite differs, or where
        the network does not run any more.
        """
        try:
            found = self._run(model)
        except ArgumentError:
            return float("inf")
        if len(found) != len(self._outputs):
            return float("inf")
        worst = 0.0
        for before, after, allowed in zip(self._outputs, found, self._allowed, strict=True):
            if before.shape != after.shape or not _same_kinds(before, after):
                return float("inf")
            differences = (before - after).abs()[before.isfinite()]
            largest = float(differences.max()) if differences.numel() else 0.0
            if largest > allowed:
                worst = max(worst, largest)
        return worst or None

    def check(self, model: nn.Module, what: str) -> None:
        """Raise CelosiaError where the promise is broken; `what` begins the sentence."""
        difference = self.broken_by(model)
        if difference is not None:
            raise CelosiaError(_words(what, difference))

    def keep(self, model: nn.Module, steps: Mapping[str, Callable[[], None]], what: str) -> None:
        """Do all steps, {layer: change}, and check; or put the model back and name the layer.

        Each step is done alone after a failure, to tell which of them it is; the error says so.
        ``what`` takes the layer's name: "folding {layer!r}".
        """
        snapshot = _Snapshot(model)
        with restoring(model, snapshot):
            for step in steps.values():
                step()
            difference = self.broken_by(model)
            if difference is None:
                return
            for layer, step in steps.items():
                snapshot.restore()
                step()
                alone = self.broken_by(model)
                if alone is not None:
                    raise CelosiaError(_words(what.format(layer=layer), alone))
            raise CelosiaError(_words(what.format(layer=", ".join(steps)), difference))

    def _run(self, model: nn.Module) -> list[torch.Tensor]:
        return [output for x in self.inputs for output in run_once(model, x)]

    def _tolerance(self, model: nn.Module) -> list[float]:
        """Return the largest difference that rounding explains, for each output."""
        moved = [0.0] * len(self._outputs)
        tensors = [tensor for tensor in (*model.parameters(), *model.buffers())
                   if tensor.is_floating_point()]
        generator = torch.Generator().manual_seed(0)
        with restoring(model, always=True), torch.no_grad():
            kept = [tensor.detach().clone() for tensor in tensors]
            inputs = self.inputs
            for _ in range(_TRIALS):
                for tensor, value in zip(tensors, kept, strict=True):
                    tensor.data.copy_(_nudged(value, generator))
                self.inputs = [_nudged(x, generator) for x in inputs]
                try:
                    found = self._run(model)
                finally:
                    self.inputs = inputs
                for i, (a, b) in enumerate(zip(self._outputs, found, strict=True)):
                    finite = a.isfinite() & b.isfinite() if a.shape == b.shape else None
                    if finite is not None and finite.any():
                        moved[i] = max(moved[i], float((a - b)[finite].abs().max()))
        epsilon = _epsilon(tensors)
        largest = [float(y[y.isfinite()].abs().max()) if y.isfinite().any() else 0.0
                   for y in self._outputs]
        return [_MARGIN * (m + epsilon * y) for m, y in zip(moved, largest, strict=True)]


def run_once(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return every tensor of a model's outputs, in float64 on the CPU.

    In eval mode, without gradients, with fixed random generators; modes and buffers are as before
    afterwards. The model gets a copy of x, which it may change in place. Outputs may be packed as
    `returned_tensors` knows. ArgumentError where the network does not run.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(), evaluating(model), torch.no_grad(), running(x):
            torch.manual_seed(0)
            found = returned_tensors(model(x.clone()))
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
    return found


@contextmanager
def running(x: torch.Tensor) -> Iterator[None]:
    """Turn whatever a network's forward raises on an input into a refusal in words."""
    try:
        yield
    except ArgumentError:
        raise
    except Exception as problem:
        raise ArgumentError(
            f"the network does not run on the example input of shape {tuple(x.shape)} "
            f"({said(problem)}); give one that it takes") from problem


@contextmanager
def restoring(model: nn.Module, snapshot: _Snapshot | None = None, *,
              always: bool = False) -> Iterator[None]:
    """Put a model back as it was, bit for bit, if the body raises; or in any case.

    Modules, their classes and attributes, parameters, buffers and hooks come back by identity.
    """
    snapshot = snapshot or _Snapshot(model)
    try:
        yield
    except BaseException:
        snapshot.restore()
        raise
    if always:
        snapshot.restore()


class _Snapshot:
    """Every module of a model with its attributes, and every tensor's bits."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [(module, type(module), _shallow(vars(module)))
                         for module in model.modules()]
        held = {id(value): value for _, _, attributes in self._modules
                for value in _tensors(attributes) if not value.is_inference()}
        self._tensors = [(tensor, tensor.data, tensor.detach().clone(), tensor.requires_grad)
                         for tensor in held.values()]

    def restore(self) -> None:
        """Put all back. May be called more than once."""
        for module, kind, attributes in self._modules:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(_shallow(attributes))
        with torch.no_grad():
            for tensor, data, value, trained in self._tensors:
                tensor.data = data
                tensor.data.copy_(value)
                if tensor.is_leaf:
                    tensor.requires_grad_(trained)


def _shallow(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes, containers copied: adding to them does not change the copy."""
    kinds = (dict, list, set)
    return {name: value.copy() if isinstance(value, kinds) else value
            for name, value in attributes.items()}


def _tensors(attributes: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    for value in attributes.values():
        parts = value.values() if isinstance(value, dict) else [value]
        yield from (part for part in parts if isinstance(part, torch.Tensor))


def example_for(model: nn.Module, example_input: Any) -> torch.Tensor:
    """Return an example as a tensor on the model's device, and of its type where floating.

    ArgumentError for what is no tensor or array of numbers (`celosia_spec.inputs`), or is empty.
    """
    x = as_tensor(example_input, "example_input")
    if x.numel() == 0:
        raise ArgumentError(f"example_input of shape {tuple(x.shape)} holds no numbers; give at "
                            "least one input")
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is None:
        return x
    return x.to(first.device, first.dtype if x.is_floating_point() else x.dtype)


def _inputs(model: nn.Module, example_input: Any) -> list[torch.Tensor]:
    """Return what to run: the example, and random numbers of its shape where it is floating."""
    x = example_for(model, example_input)
    if not x.is_floating_point():
        return [x]
    generator = torch.Generator().manual_seed(0)
    return [x, torch.randn(x.shape, generator=generator).to(x)]


def _nudged(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the tensor with each number moved by up to a unit in its last place."""
    if not tensor.is_floating_point():
        return tensor
    share = torch.rand(tensor.shape, generator=generator).to(tensor.device, torch.float64) * 2 - 1
    # A rounding moves by half a unit only; a whole one is what still changes a number once rounded.
    return (tensor.double() * (1 + torch.finfo(tensor.dtype).eps * share)).to(tensor.dtype)


def _epsilon(tensors: list[torch.Tensor]) -> float:
    """Return the coarsest machine epsilon among the types."""
    epsilon: float = max((torch.finfo(tensor.dtype).eps for tensor in tensors),
                         default=torch.finfo(torch.float32).eps)
    return epsilon


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and _same_kinds(a, b) and torch.equal(a.nan_to_num(), b.nan_to_num())


def _same_kinds(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether NaN and either infinity stand at the same places of two tensors of a shape."""
    return all(torch.equal(is_kind(a), is_kind(b)) for is_kind in
               (torch.isnan, torch.isposinf, torch.isneginf))


def _refuse_vacuous(outputs: list[torch.Tensor]) -> None:
    """Raise ArgumentError where outputs would be equal whatever a change did."""
    if not any(output.numel() for output in outputs):
        raise ArgumentError("the network returns no tensor that can be compared, so equal outputs "
                            "cannot be checked; let it return tensors, also in tuples, lists, "
                            "dictionaries or dataclasses")
    if any(output.numel() and not output.isfinite().any() for output in outputs):
        raise ArgumentError("the network returns nothing but NaN or infinity on the example input, "
                            "so equal outputs cannot be checked; give one on which its outputs are "
                            "numbers")


def _words(what: str, difference: float) -> str:
    how = ("makes the network fail or gives outputs of another form" if difference == float("inf")
           else f"changes the outputs by {difference:.3g}")
    return f"{what} {how}, so the network was put back as it was; leave the layer out"
