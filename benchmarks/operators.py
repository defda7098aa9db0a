"""Every method of a tensor, and every function of torch, on a map in a network: what is wrong?

Each is called with some twenty lists of arguments (numbers, axes, parameters, another map) on the
output of a convolution. Calls that torch takes, and that return floating-point numbers, the same
each time, are compiled for the ULX3S with 12 calibration inputs; the outputs are compared with
torch's in float32. What does not compile has to be refused: no other error may come out.
"""

import argparse
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from harness.command import main
from harness.result import Check, Result, Table
from torch import nn
from torch.nn import functional as F

import celosia
from celosia.cli.progress import progress
from celosia_spec.errors import CelosiaError

TARGET, INPUTS, SHAPE, LEAST = "ulx3s-85f", 12, (3, 8, 8), 20.0
SPACES = {"torch.Tensor": torch.Tensor, "torch": torch, "torch.nn.functional": F}
ARGUMENTS: tuple[tuple, ...] = (
    (), (0,), (1,), (2,), (-1,), (0.5,), (2.0,), (1, 2), (2, 3), (0, 1), (1, 1, 2), (1, True),
    ((2, 3),), ((1,),), ((2, 2),), ("channels",), ("number",), ("line",), ("map",), ("itself",),
    ("other",), (2, "channels"))
"""Those that are words stand for a constant, or for a map of the network."""

LEFT_OUT = frozenset({
    "apply_", "map_", "map2_", "backward", "register_hook", "retain_grad", "share_memory_",
    "storage", "untyped_storage", "cuda", "xpu", "ipu", "hpu", "mtia", "cpu", "pin_memory",
    "record_stream", "resize_", "compile", "load", "save", "wait", "fork", "seed", "manual_seed",
    "from_file", "autocast", "inference_mode", "handle_torch_function", "import_ir_module",
    "init_num_threads", "use_deterministic_algorithms", "empty", "empty_like", "new_empty",
    "empty_strided", "new_empty_strided", "empty_permuted", "module_load"})
"""What leaves the process another one, or computes nothing."""


class Net(nn.Module):
    """What a call makes of a convolution's output; a second one's stands beside it."""

    def __init__(self, call: Callable[..., Any], arguments: tuple) -> None:
        super().__init__()
        self.call, self.arguments = call, arguments
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.channels = nn.Parameter(torch.tensor([1.0, 2.0, -3.0, 0.5]).view(4, 1, 1))
        self.number = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("line", torch.arange(1.0, 7.0))
        self.register_buffer("map", torch.randn(4, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        given = {"channels": self.channels, "number": self.number, "line": self.line,
                 "map": self.map, "itself": y, "other": y}
        if "other" in self.arguments:
            given["other"] = self.second(x)
        found = self.call(y, *(given.get(one, one) if isinstance(one, str) else one
                               for one in self.arguments))
        return found[0] if isinstance(found, tuple | list) else found


def calls() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Yield each space's name, a name there, and the function."""
    for space, owner in SPACES.items():
        for name in dir(owner):
            call = getattr(owner, name, None)
            if (callable(call) and not inspect.isclass(call) and name not in LEFT_OUT
                    and not name.startswith(("_", "set_", "get_", "is_", "has_", "sym_", "clear"))):
                yield space, name, call


def measure(arguments: argparse.Namespace) -> Result:
    """Try every call with all arguments."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    x = np.random.default_rng(0).standard_normal((INPUTS, *SHAPE)).astype(np.float32)
    tried, wrong = list(calls()), []
    counts = {space: [0, 0, 0] for space in SPACES}
    names: dict[str, set[str]] = {space: set() for space in SPACES}
    with progress("functions") as report:
        for done, (space, name, call) in enumerate(tried):
            if report:
                report(done, len(tried))
            for given in ARGUMENTS:
                found = _tried(call, given, x)
                if found is None:
                    continue
                counts[space][0] += 1
                counts[space][1] += found != ""
                counts[space][2] += found == ""
                if isinstance(found, float):
                    names[space].add(name)
                if (isinstance(found, float) and found < LEAST) or (
                        isinstance(found, str) and found):
                    wrong.append(f"{space}.{name}{given}: {found}")
    table = Table.of("Calls that torch takes, ULX3S 85F",
                     {"of": "", "functions that compile": ",d", "calls": ",d", "compiled": ",d",
                      "refused": ",d"},
                     [[space, len(names[space]), *numbers] for space, numbers in counts.items()])
    return Result(title="Every function of torch", tables=(table,), checks=(
        Check.at_most(f"calls with less than {LEAST:g} dB, or with an error that is no refusal",
                      len(wrong), 0, "d"),), notes=tuple(wrong))


def _tried(call: Callable[..., Any], arguments: tuple, x: np.ndarray) -> float | str | None:
    """Return the ratio of the outputs to torch's, dB; "" where it is refused, the error where it
    fails otherwise, None where torch does not take the call or its results are not to be compared.
    """
    torch.manual_seed(0)
    model = Net(call, arguments).eval()
    try:
        with torch.no_grad():
            first = model(torch.from_numpy(x[:1]))
            wanted = [model(torch.from_numpy(x[at:at + 1])).detach() for at in range(INPUTS)]
            same = torch.equal(first, wanted[0])
    except Exception:           # torch does not take it
        return None
    if not same or not first.is_floating_point() or not any(map(torch.any, wanted)):
        return None
    try:
        program = celosia.compile(model, (1, *SHAPE), target=TARGET, calibration=x,
                                  accuracy="none")
        found = celosia.run(program, x).answer
    except CelosiaError:
        return ""
    except Exception as error:
        return type(error).__name__
    right = np.concatenate([one.double().numpy().reshape(1, -1) for one in wanted])
    noise = found.reshape(right.shape) - right
    return float(10 * np.log10(np.square(right).sum() / np.square(noise).sum())
                 if noise.any() else np.inf)


if __name__ == "__main__":
    main(measure, __doc__)
