"""Which activation function follows a layer: seen while the network runs, module or function.

Each tensor that is made of one layer's output alone is followed, with what was done to it. The
layer's *answer* is what the first activation function makes of the output. What is not known is
refused by name, for a score before the activation function is another method than one behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from celosia.compress.operators import ACTIVATIONS, UNCHANGED, also_in_place
from celosia_spec.errors import ArgumentError

__all__ = ["Follow", "Use"]

_ACTIVATIONS = also_in_place(ACTIVATIONS) | {"prelu", "_threshold"}
"""Functions of torch that are activation functions, by their name in Python."""

_SAME = UNCHANGED | {"requires_grad_", "batch_norm", "instance_norm", "group_norm", "layer_norm",
                     "rms_norm"}
"""Functions whose result stands for the output itself: copies, normalisations, and dropout, which
does nothing in evaluation mode."""

_CHOOSING = frozenset({
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t",
    "movedim", "swapaxes", "swapdims", "flip", "roll", "expand", "expand_as", "pad", "max_pool1d",
    "max_pool2d", "max_pool3d", "__getitem__", "narrow", "select", "index_select", "chunk",
    "split", "tensor_split", "unbind", "repeat", "pixel_shuffle", "channel_shuffle",
})  # fmt: skip
"""Functions whose result holds numbers of their argument, none changed."""

_CHANGING = frozenset({
    "softmax", "log_softmax", "normalize", "local_response_norm", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean",
    "cumsum", "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "neg_", "__neg__",
    "__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__",
    "__imul__", "__truediv__", "__itruediv__", "rsub", "true_divide", "subtract", "multiply",
    "divide", "interpolate", "upsample",
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full",
})  # fmt: skip
"""Functions that change the numbers and are no activation functions."""

_JOINING = frozenset({"glu", "maximum", "minimum", "fmax", "fmin", "where", "heaviside", "lerp"})
"""Functions that are activation functions where one operand is, or is made of, a layer's output."""

_ANSWER = "its activation function"

Use = Callable[[str, nn.Module, torch.Tensor, torch.Tensor], None]


class _Run:
    """A layer's run.   answered : whether its answer was shown."""

    def __init__(self, name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        self.name, self.layer, self.x, self.output = name, layer, x.clone(), output.clone()
        self.answered = False

    def show(self, use: Use, answer: torch.Tensor) -> None:
        """Show the answer, once, and let the tensors go."""
        use(self.name, self.layer, self.x, answer)
        self.answered = True
        del self.x, self.output


@dataclass(frozen=True)
class _Trace:
    """A tensor that is made of one run's output alone.

    version : that the tensor had; an operation in place makes another thing of it.
    by      : what was done to the output: "" nothing; "chosen"; _ANSWER and more; else the
              function that changed it.
    """

    tensor: torch.Tensor
    version: int
    run: _Run
    by: str


class Follow(TorchFunctionMode):
    """While active, finds the activation function that takes a layer's output.

    wait : False shows a layer's output at once.   seen : names of the layers that ran.
    """

    def __init__(self, use: Use, *, wait: bool) -> None:
        super().__init__()
        self.use, self.wait = use, wait
        self.seen: set[str] = set()
        self._runs: list[_Run] = []
        self._traces: dict[int, _Trace] = {}    # by identity of the tensor

    def hook(self, name: str) -> Callable[..., None]:
        """Return the forward hook of a layer."""

        def take(layer: nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> None:
            self.seen.add(name)
            x = args[0] if args else kwargs["input"]
            if not self.wait:
                self.use(name, layer, x, output)
                return
            run = _Run(name, layer, x, output)
            self._runs.append(run)
            self._trace(output, run, "")

        return take

    def finish(self) -> None:
        """Show the outputs that no activation function took; call after each run of the model."""
        for run in self._runs:
            if not run.answered:
                run.show(self.use, run.output)
        self._runs.clear()
        self._traces.clear()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch; see whether it follows a layer."""
        kwargs = kwargs or {}
        tensors = list(_tensors((*args, *kwargs.values())))
        traces = [found for tensor in tensors if (found := self._known(tensor))]
        result = function(*args, **kwargs)
        if traces:
            self._note(function, args, kwargs, tensors, traces, result)
        return result

    def _known(self, tensor: torch.Tensor) -> _Trace | None:
        found = self._traces.get(id(tensor))
        return found if found and found.version == tensor._version else None

    def _trace(self, tensor: Any, run: _Run, by: str) -> None:
        if isinstance(tensor, torch.Tensor):
            self._traces[id(tensor)] = _Trace(tensor, tensor._version, run, by)

    def _note(self, function: Callable[..., Any], args: Any, kwargs: Any,
              tensors: list[torch.Tensor], traces: list[_Trace], result: Any) -> None:
        """Follow what a function made of tensors that are followed."""
        name = getattr(function, "__name__", "")
        run, source = traces[0].run, traces[0].tensor
        known = name in _ACTIVATIONS or name in _SAME
        alone = all(trace.run is run for trace in traces) and (known or all(
            self._known(tensor) or tensor.numel() == 1 for tensor in tensors))
        if name in _JOINING and not run.answered:
            raise _refusal(run, f"followed by {name}, after which its neurons have no known answer")
        if not alone or (known and source is not tensors[0]):
            return      # it meets other data: a sum, a product, the next layer
        like = (isinstance(result, torch.Tensor) and result.shape == source.shape
                and result.is_floating_point())
        if len(traces) > 1 and like and any(trace.by != _ANSWER for trace in traces):
            raise _refusal(run, f"followed by an activation function written out with "
                                f"{name.strip('_')}; use torch's own (nn.SiLU for x * sigmoid(x))")
        by = traces[0].by
        if by == _ANSWER:
            pass
        elif name in _ACTIVATIONS:
            self._answer(function, args, kwargs, tensors, run, by, result)
            by = _ANSWER
        elif name in _CHOOSING:
            by = by or "chosen"
        elif name in _CHANGING or not like:
            by = name.strip("_") or "a function"
        elif name not in _SAME:
            raise _refusal(run, f"followed by {name.strip('_')}, which is not known as an "
                                "activation function")
        for part in result if isinstance(result, tuple | list) else [result]:
            self._trace(part, run, by)

    def _answer(self, function: Callable[..., Any], args: Any, kwargs: Any,
                tensors: list[torch.Tensor], run: _Run, by: str, result: torch.Tensor) -> None:
        """Show what the first activation function makes of an output."""
        if run.answered:
            return
        if by not in ("", "chosen"):
            raise _refusal(run, f"followed by {function.__name__.strip('_')} behind {by}")
        answer = result
        if by:
            if len(tensors) > 1:
                raise _refusal(run, f"followed by {function.__name__.strip('_')}, with parameters "
                                    "of its own, in another shape")
            others = {key: value for key, value in kwargs.items() if key != "input"}
            answer = function(run.output.clone(), *args[1:], **others)
        run.show(self.use, answer)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _refusal(run: _Run, problem: str) -> ArgumentError:
    return ArgumentError(f"layer {run.name!r} is {problem}; take activation='pre', the score "
                         "before it")
