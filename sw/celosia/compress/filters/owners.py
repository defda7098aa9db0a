"""Whose tensors they are: the layers of a network behind the tensors of a recorded run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from celosia.compress.filters.record import Record, Ref
from celosia.compress.layers import obstacle

__all__ = ["READERS", "Owners"]

READERS = frozenset({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                     "conv_transpose3d", "linear"})
"""Operators that read all channels with weights."""

_CALLS = READERS | {"batch_norm", "prelu"}
_Conv = nn.modules.conv._ConvNd
_Transposed = nn.modules.conv._ConvTransposeNd


class Owners:
    """The layers of a network, by name, and what a run did with their tensors.

    modules : {name: module}, each once, under its first name.
    """

    def __init__(self, model: nn.Module, record: Record) -> None:
        self.record = record
        self.modules = dict(model.named_modules())
        self._held = {name: {attribute: tensor for attribute, tensor in
                             (*module._parameters.items(), *module._buffers.items())
                             if tensor is not None}
                      for name, module in self.modules.items()}
        self._holders: dict[int, list[tuple[str, str]]] = {}
        for name, tensors in self._held.items():
            for attribute, tensor in tensors.items():
                self._holders.setdefault(id(tensor), []).append((name, attribute))
        self._numbers = {id(tensor): number for number, tensor in record.given.items()}
        self._called = Counter(number for step in record.steps if step.name in _CALLS
                               for number in set(step.reads))

    def outputs(self) -> dict[str, int]:
        """Return {convolution or linear layer: its number of outputs}."""
        return {name: module.weight.shape[0] if not isinstance(module, _Transposed)
                else module.weight.shape[1] * module.groups
                for name, module in self.modules.items()
                if isinstance(module, _Conv | nn.Linear)}

    def stays(self, name: str) -> str | None:
        """Return why a convolution or linear layer cannot lose filters, or None."""
        layer = self.modules[name]
        if not isinstance(layer, nn.Conv2d):
            return f"is a {type(layer).__name__}; filters go from Conv2d layers"
        if layer.groups > 1:
            return ("depthwise: loses channels with the layer before it"
                    if layer.groups == layer.out_channels else "grouped convolution")
        problem = self._problem(name)
        if problem is None and layer.weight.shape[0] == 1:
            return "has one filter"
        return problem

    def of(self, tensor: Any) -> tuple[str, str | None]:
        """Return the layer of a tensor that a step takes, and why it cannot be cut, or None.

        The layer of a tensor that is no layer's is "".
        """
        given = self.record.given.get(tensor.index) if isinstance(tensor, Ref) else None
        holders = [] if given is None else self._holders_of(given)
        if not holders:
            return "", "has weights that are no layer's or are computed"
        return holders[0][0], self._problem(holders[0][0])

    def obstacle(self, name: str) -> str | None:
        """Return why a layer's output is not what its class says (`layers.obstacle`), or None."""
        return obstacle(self.modules[name])

    def last(self) -> frozenset[str]:
        """Return the convolutions and linear layers that reach an output through no other one."""
        made = {number: step for step in self.record.steps for number in step.gives}
        found, seen, ahead = set(), set(), list(self.record.outputs)
        while ahead:
            number = ahead.pop()
            step = made.get(number)
            if step is None or number in seen:
                continue
            seen.add(number)
            name = self.of(step.argument(1, "weight"))[0] if step.name in READERS else ""
            if name:
                found.add(name)
            else:
                ahead.extend(step.reads)
        return frozenset(found)

    def describe(self, place: str) -> str:
        """Return words for the module in whose forward a step stands."""
        if not place:
            return "the network's own forward"
        return f"{place!r} ({type(self.modules[place]).__name__})"

    def tensor(self, number: int) -> str:
        """Return words for a tensor that is given to an operator."""
        held = self._holders_of(self.record.given[number]) if number in self.record.given else []
        if not held:
            return "a tensor"
        name, attribute = held[0]
        kind = "parameter" if attribute in self.modules[name]._parameters else "buffer"
        return f"the {kind} {f'{name}.{attribute}'.lstrip('.')!r}"

    def is_held(self, number: int) -> bool:
        """Tell whether a tensor is a parameter or buffer, which training may change."""
        return number in self.record.given and bool(self._holders_of(self.record.given[number]))

    def _holders_of(self, tensor: torch.Tensor) -> list[tuple[str, str]]:
        return self._holders.get(id(tensor), [])

    def _problem(self, name: str) -> str | None:
        """Return why a layer cannot be cut to the channels that one call needs, or None."""
        for attribute, tensor in self._held[name].items():
            others = [other for other, _ in self._holders_of(tensor) if other != name]
            if others:
                return f"shares its {attribute} with {others[0]!r}"
        numbers = {attribute: self._numbers.get(id(tensor), -1)
                   for attribute, tensor in self._held[name].items()}
        calls = self._called[next(iter(numbers.values()))]      # of the weight, if it has one
        if calls != 1:
            words = None if calls else obstacle(self.modules[name])
            return words or f"is called {calls} times"
        for attribute, number in numbers.items():
            if self.record.uses.get(number, 0) > 1:
                return f"has its {attribute} used elsewhere too"
        return None
