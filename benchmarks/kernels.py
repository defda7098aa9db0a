"""What becomes of operators that are run on a file's values, given what does not belong together.

Every overload that a file may name, of every operator that `celosia.frontend.kernels` lets be
folded, gets sizes, strides, types and numbers drawn at random from those that kernels trip over, in
a process of its own. What `obstacle` refuses is not run, nor what has a result of millions of
elements. A call may raise; it may not end the process.
"""

import argparse
import logging
import mmap
import os
import random
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from harness.command import main
from harness.result import Check, Result, Table
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree

from celosia.cli.progress import progress
from celosia.frontend import kernels
from celosia.frontend.pt2 import operators

NUMBERS = (0, 1, -1, 2, 3, -2, 4, 7, 8, 16, 100, -100, 1000, 65536, 2**31 - 1, -2**31, 2**31, 2**32,
           2**62, -2**63 + 1, 2**63 - 1)
REALS = (0.0, 1.0, -1.0, 0.5, 1e-5, 1e30, 1e-300, float("nan"), float("inf"))
WORDS = ("none", "tanh", "same", "valid", "trunc", "floor", "constant", "reflect", "replicate",
         "circular", "ij", "xy")
KINDS = (*[torch.float32] * 6, *[torch.int64] * 3, torch.int32, torch.bool, torch.float64,
         torch.uint8, torch.float16, torch.bfloat16, torch.int8)
LARGE = 1 << 22
"""Elements of a result that is not computed for real."""
_SHOWN, _SECONDS = 4096, 60


@dataclass(frozen=True)
class Outcome:
    """Of one overload. ended : by which signal, with the call that it was at; "" where by none."""

    name: str
    called: int = 0
    ran: int = 0
    ended: str = ""


def measure(arguments: argparse.Namespace) -> Result:
    """Try every overload."""
    logging.disable(logging.CRITICAL)       # torch logs each size that does not fit
    overloads, found = list(_overloads()), []
    _Trials(torch.ops.aten.add.Tensor, random.Random(0), mmap.mmap(-1, _SHOWN)).run(20)   # imports
    with progress("operators") as report:
        for done, overload in enumerate(overloads):
            found.append(_apart(overload, arguments.trials, arguments.seed))
            if report:
                report(done + 1, len(overloads))
    ended = [outcome for outcome in found if outcome.ended]
    for outcome in ended:
        print(f"{outcome.name}: {outcome.ended}")
    table = Table.of("Operators on values that do not belong together", {
        "operators": ",d", "overloads": ",d", "calls": ",d", "run by a kernel": ",d",
        "ended the process": ",d"}, [[
            len({overload.name().partition(".")[0] for overload in overloads}), len(found),
            sum(outcome.called for outcome in found),
            sum(outcome.ran for outcome in found), len(ended)]])
    checks = (Check.at_most("operators that ended the process", len(ended), 0, "d"),)
    return Result(title="Kernels", tables=(table,), checks=checks)


def _overloads() -> Iterator[Any]:
    for name in sorted(kernels.FOLDED):
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet else ():
            if found := operators.find(f"torch.ops.aten.{name}.{overload}"):
                yield found


def _apart(overload: Any, trials: int, seed: int) -> Outcome:
    """Return the outcome of trials in a child process; counts of one that was ended are lost."""
    shared, name = mmap.mmap(-1, _SHOWN), overload.name()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)        # warnings of torch's
        signal.alarm(_SECONDS)
        try:
            called, ran = _Trials(overload, random.Random(f"{seed} {name}"), shared).run(trials)
            _write(shared, f"{called} {ran}")
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    words = shared[:].rstrip(b"\0").decode(errors="replace")
    if os.WIFSIGNALED(status):
        return Outcome(name, ended=f"{signal.Signals(os.WTERMSIG(status)).name} at {words}")
    called, ran = map(int, words.split())
    return Outcome(name, called, ran)


def _write(shared: mmap.mmap, words: str) -> None:
    shared[:] = words.encode()[:_SHOWN].ljust(_SHOWN, b"\0")


class _Trials:
    """Calls of one overload. Its tensors mostly have one shape and one type in common."""

    def __init__(self, overload: Any, draw: random.Random, shared: mmap.mmap) -> None:
        self.overload, self.draw, self.shared = overload, draw, shared
        self.fake = FakeTensorMode()
        self.shape, self.kind = self._shape(), torch.float32

    def run(self, trials: int) -> tuple[int, int]:
        """Return how many calls were made, and how many a kernel was run for."""
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        torch.manual_seed(self.draw.randrange(1 << 32))
        called = ran = 0
        for _ in range(trials):
            self.shape, self.kind = self._shape(), self.draw.choice(KINDS)
            try:
                args, kwargs = self._arguments()
                called += 1
                if self._small(args, kwargs) and not kernels.obstacle(self.overload, args, kwargs):
                    _write(self.shared, f"{_told(args)} {_told(kwargs)}")
                    with torch.no_grad():
                        self.overload(*args, **kwargs)
                    ran += 1
            except Exception:       # torch raises whatever its kernels do: that is what they should
                continue
        return called, ran

    def _small(self, args: Any, kwargs: Any) -> bool:
        """Whether all results are small; half of the calls that no result is known of count so."""
        try:
            with torch.no_grad(), self.fake:
                given = _pytree.tree_map_only(torch.Tensor, self.fake.from_tensor, (args, kwargs))
                made = self.overload(*given[0], **given[1])
        except Exception:
            return self.draw.random() < 0.5
        return all(part.numel() <= LARGE for part in _pytree.tree_leaves(made)
                   if isinstance(part, torch.Tensor))

    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = [], {}
        for argument in self.overload._schema.arguments:
            if not argument.kwarg_only:
                args.append(self._value(str(argument.real_type)))
            elif not argument.has_default_value() or self.draw.random() < 0.6:
                kwargs[argument.name] = self._value(str(argument.real_type))
        return args, kwargs

    def _value(self, kind: str) -> Any:
        draw = self.draw
        if kind.startswith("Optional["):
            return None if draw.random() < 0.4 else self._value(kind[9:-1])
        if kind.startswith("List["):
            return [self._value(kind[5:-1]) for _ in range(draw.randint(0, 4))]
        match kind:
            case "Tensor":
                return self._tensor()
            case "int" | "SymInt":
                return draw.choice(NUMBERS) if draw.random() < 0.35 else draw.randint(-1, 4)
            case "float":
                return draw.choice(REALS)
            case "number" | "Scalar":
                return draw.choice((draw.choice(NUMBERS), *REALS, True, 0))
            case "bool":
                return draw.random() < 0.5
            case "str":
                return draw.choice(WORDS)
            case "ScalarType":
                return draw.choice(KINDS)
            case "MemoryFormat":
                return draw.choice((torch.contiguous_format, torch.channels_last,
                                    torch.channels_last_3d, torch.preserve_format))
        return None             # a layout, a device, a generator

    def _shape(self) -> list[int]:
        return [self.draw.choice((0, 1, 1, 2, 2, 3, 4, 5, 8, 16))
                for _ in range(self.draw.choice((0, 1, 1, 2, 2, 3, 4, 4, 5)))]

    def _tensor(self) -> torch.Tensor:
        draw = self.draw
        shape = self.shape if draw.random() < 0.6 else self._shape()
        if shape and draw.random() < 0.15:
            shape = [draw.choice(shape)]
        tensor = self._filled(shape, self.kind if draw.random() < 0.5 else draw.choice(KINDS))
        match draw.randrange(8):
            case 0 if tensor.ndim and tensor.numel():
                return tensor[None].expand(draw.choice((2, 5000)), *tensor.shape)
            case 1 if tensor.ndim > 1:
                return tensor.transpose(0, -1)
            case 2 if tensor.ndim:
                return tensor.flip(0)[::2]
            case 3 if tensor.ndim == 4:
                return tensor.contiguous(memory_format=torch.channels_last)
            case 4 if tensor.ndim and tensor.shape[0] == 1:
                return tensor.expand(1000, *tensor.shape[1:])
        return tensor

    def _filled(self, shape: list[int], kind: torch.dtype) -> torch.Tensor:
        draw = self.draw
        if kind.is_floating_point:
            if draw.random() < 0.6:
                return (torch.randn(shape) * draw.choice((1, 1e3, 1e10, 1e30))).to(kind)
            return torch.full(shape, draw.choice(REALS)).to(kind)
        if kind == torch.bool:
            return torch.rand(shape) > 0.5
        limits = torch.iinfo(kind)
        if draw.random() < 0.6:
            return torch.full(shape, draw.choice((0, 1, 2, limits.min, limits.max,
                                                  max(-1, limits.min))), dtype=kind)
        return torch.randint(max(limits.min, -3), min(limits.max, 9), shape).to(kind)


def _told(values: Any) -> str:
    """Return arguments in words: of tensors type, shape, strides and first value."""
    return str(_pytree.tree_map_only(
        torch.Tensor, lambda tensor: f"{tensor.dtype} {list(tensor.shape)} {tensor.stride()} "
                                     f"{tensor.flatten()[:1].tolist()}", values))


if __name__ == "__main__":
    main(measure, __doc__,
         ("--trials", {"type": int, "default": 300, "help": "of each overload (%(default)s)"}),
         ("--seed", {"type": int, "default": 0, "help": "of the draws (%(default)s)"}))
