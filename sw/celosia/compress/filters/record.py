"""What a network does to its tensors: the operators of one run, in order, as torch calls them.

The network runs as it is, so that branches, hooks and a layer's own forward are seen as what they
do. Tensors are numbered; one that is changed in place gets a new number, and so does one that is
read after its memory was changed through another view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils.weak import WeakTensorKeyDictionary

from celosia.compress.outputs import tensors_in
from celosia.compress.promise import run_once
from celosia.compress.readings import ASKING, function_name

__all__ = ["ALIASED", "Record", "Ref", "Step", "record"]

ALIASED = "a change in place through another view"
"""Name of the step that stands for what a tensor's memory became without its being named."""


class Ref:
    """A tensor's place in the arguments of a step.   index : its number."""

    def __init__(self, index: int) -> None:
        self.index = index


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of an operator.

    name   : as torch has it, without the underscores of methods and of changes in place: "relu".
    function, args, kwargs : the call, tensors as `Ref`.
    reads  : numbers of the tensors that it takes.   gives : of those that it returns, in order.
    place  : name of the module in whose forward it stands; "" is the network's own.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reads: tuple[int, ...]
    gives: tuple[int, ...]
    place: str

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that may be given by its position or by its name."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if position < len(self.args) else default


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one run did.

    shapes, types : of all tensors, by number.
    given   : {number: tensor} of those that no step made and that are not the input: parameters,
              buffers, constants.
    outputs : numbers of the tensors that the network returns.
    uses    : how often each number is read by a step or returned.
    """

    steps: tuple[Step, ...]
    shapes: Mapping[int, tuple[int, ...]]
    types: Mapping[int, torch.dtype]
    given: Mapping[int, torch.Tensor]
    outputs: tuple[int, ...]
    uses: Mapping[int, int]


def record(model: nn.Module, x: torch.Tensor) -> Record:
    """Run a model once, in eval mode and without gradients, and return what it did.

    The model is as before afterwards. ArgumentError where it does not run on x.
    """
    recorder = _Recorder()
    watched = _Watched(model, recorder)
    with _places(model, recorder.places):
        run_once(watched, x)
    last = tuple(recorder.number(tensor) for tensor in tensors_in(watched.returned))
    uses = Counter(last)
    for step in recorder.steps:
        uses.update(step.reads)
    return Record(steps=tuple(recorder.steps), shapes=recorder.shapes, types=recorder.types,
                  given=recorder.given, outputs=last, uses=uses)


class _Watched(nn.Module):
    """A network whose forward, and nothing around it, is noted."""

    def __init__(self, model: nn.Module, recorder: _Recorder) -> None:
        super().__init__()
        self.model, self.recorder = model, recorder
        self.returned: list[Any] = []

    def forward(self, x: torch.Tensor) -> Any:
        """Run the network; keep what it returns."""
        self.recorder.begin(x)
        with self.recorder:
            self.returned.append(self.model(x))
        return self.returned[-1]


class _Recorder(TorchFunctionMode):
    """While active, notes every function of torch that is called from Python."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.types: dict[int, torch.dtype] = {}
        self.given: dict[int, torch.Tensor] = {}
        self.places: list[str] = []
        self._known: MutableMapping[torch.Tensor, tuple[int, int]] = (     # (number, version)
            WeakTensorKeyDictionary())

    def begin(self, x: torch.Tensor) -> None:
        """Give the network's input its number, the first."""
        self._new(x)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, and note it."""
        kwargs = kwargs or {}
        name = function_name(function)
        if name in ASKING:
            return function(*args, **kwargs)
        tensors = _tensors((args, kwargs))
        reads = tuple(self.number(tensor) for tensor in tensors)
        as_refs = _pytree.tree_map_only(torch.Tensor, lambda t: Ref(self.number(t)), (args, kwargs))
        before = [_version(tensor) for tensor in tensors]
        result = function(*args, **kwargs)
        changed = [tensor for tensor, version in zip(tensors, before, strict=True)
                   if _version(tensor) != version]
        if not changed and any(result is tensor for tensor in tensors):
            return result       # nothing was done, as by `contiguous` on what is contiguous
        given = _tensors(result)
        for tensor in changed:
            if not any(tensor is other for other in given):
                self._new(tensor)
        self.steps.append(Step(
            name=name.strip("_"), function=function, args=as_refs[0], kwargs=as_refs[1],
            reads=reads, gives=tuple(self._new(tensor) for tensor in given),
            place=self.places[-1] if self.places else ""))
        return result

    def number(self, tensor: torch.Tensor) -> int:
        """Return a tensor's number; a new one if its memory was changed meanwhile."""
        if tensor not in self._known:
            number = self._new(tensor)
            self.given[number] = tensor
            return number
        number, version = self._known[tensor]
        if version == _version(tensor):
            return number
        changed = self._new(tensor)
        self.steps.append(Step(name=ALIASED, function=_nothing, args=(), kwargs={},
                               reads=(number,), gives=(changed,), place=""))
        return changed

    def _new(self, tensor: torch.Tensor) -> int:
        number = len(self.shapes)
        self.shapes[number], self.types[number] = tuple(tensor.shape), tensor.dtype
        self._known[tensor] = (number, _version(tensor))
        return number


@contextmanager
def _places(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the name of the module whose forward runs on top of a stack."""
    handles = []

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        stack.pop()

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue        # takes no hooks, and calls no function of torch from Python
        handles.append(module.register_forward_pre_hook(
            lambda _module, _inputs, name=name: stack.append(name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _version(tensor: torch.Tensor) -> int:
    """Return how often a tensor's memory was changed; tensors of inference mode do not count."""
    return -1 if tensor.is_inference() else tensor._version


def _nothing() -> None:
    """Stand for what no operator did."""
