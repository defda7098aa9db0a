"""Several tensors that a network returns, as parts of the one that the array makes.

They lie one behind another in it: along the channels where they are maps of one size or vectors,
else flattened, in the order c, y, x.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from celosia_spec.host_layers import AXES_MAX, HostLayer, Scoring, check_host, compute, scoring

__all__ = ["ONLY", "OUTPUTS_MAX", "Output", "check_outputs", "outputs_of"]

ONLY = "output"
"""Name of a tensor that a network returns alone."""

OUTPUTS_MAX = 64
"""Most tensors that a network returns."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One of the tensors that a network returns.

    name  : as its forward pass has it: the key of a dictionary, a field, else the number in a
            tuple; of nested ones with points between, "heads.0".
    first : number of its first element in the values of which it is a part.
    shape : of its part, without the batch axis.   host : what the host makes of that.
    """

    name: str
    first: int
    shape: tuple[int, ...]
    host: tuple[HostLayer, ...] = ()

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Shape of what the network returns, without the batch axis."""
        return self.host[-1].shape if self.host else self.shape

    @property
    def scoring(self) -> Scoring:
        """How it tells classes apart."""
        return scoring(self.host, self.shape)

    def part(self, values: np.ndarray) -> np.ndarray:
        """Return its part of values (N, ...), (N, *shape)."""
        end = self.first + math.prod(self.shape)
        return values.reshape(len(values), -1)[:, self.first:end].reshape(-1, *self.shape)

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Return what the network returns, of float64 values (N, ...)."""
        return compute(self.host, self.part(values))


def outputs_of(returns: Sequence[Output], host: Sequence[HostLayer],
               shape: tuple[int, ...]) -> tuple[Output, ...]:
    """Return the tensors that a network returns: several, or the only one.

    host : what the host makes of the array's output, of that shape without the batch axis.
    """
    return tuple(returns) or (Output(name=ONLY, first=0, shape=shape, host=tuple(host)),)


def check_outputs(outputs: Sequence[Output], elements: int) -> None:
    """ValueError unless the outputs are several, each with a name of its own, and parts of a tensor
    of so many elements. Names themselves are checked by who reads them."""
    if not 2 <= len(outputs) <= OUTPUTS_MAX:
        raise ValueError(f"{len(outputs)} parts of the output, 2 to {OUTPUTS_MAX} can be")
    if len({output.name for output in outputs}) < len(outputs):
        raise ValueError("two parts of the output have one name")
    for output in outputs:
        if (len(output.shape) > AXES_MAX or min(output.shape, default=1) < 1 or output.first < 0
                or output.first + math.prod(output.shape) > elements):
            raise ValueError(f"{output.name[:40]!r}: elements {output.first} and up of the shape "
                             f"{str(output.shape)[:60]} are no part of {elements}")
        check_host(output.host, output.shape)
