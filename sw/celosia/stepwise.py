"""A stream of steps of time: a program that is given its input step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from celosia.bands.stepping import Stepping
from celosia.program import Program
from celosia.results import RunResult, as_images, from_parts
from celosia_spec.errors import CelosiaError, refusals
from celosia_spec.qgraph import static_exponent

TakeStep = Callable[[np.ndarray], RunResult]
"""Takes the lines of a step, float32 (*user_shape), and returns what they give, N = 1."""


class Stream:
    """A network that is given its input step by step.

    program : what runs.   taken : steps so far, since the stream began.
    """

    def __init__(self, program: Program, take: TakeStep, forget: Callable[[], None]) -> None:
        assert program.steps is not None
        self.program, self.taken = program, 0
        self._take, self._forget, self._first = take, forget, program.steps.first

    def run(self, x: Any) -> RunResult | None:
        """Take a step.

        x : the new lines of the input, float32, shaped as a window with so many lines alone.

        Return the result, N = 1, of the window that ends with them; None as long as no whole window
        has been given. CelosiaError where the shape is wrong or a value is not finite.
        """
        shape = self.program.graph.tensors[self.program.graph.input].user_shape
        x = np.asarray(x)
        if x.shape != shape:
            raise CelosiaError(f"input: shape {x.shape}, a step takes {shape}; give it the new "
                               f"lines alone")
        found = self._take(as_images(self.program, x[None])[0])
        self.taken += 1
        return found if self.taken >= self._first else None

    def reset(self) -> None:
        """Begin a new stream: what was given so far is forgotten."""
        self.taken = 0
        self._forget()


def on_golden(program: Program, tensors: Collection[str]) -> Stream:
    """Return the stream of a program on the golden model, with the stored tensors of these
    names."""
    from celosia_sim.golden import input_saturated
    from celosia_sim.golden.steps import GoldenSteps

    golden, graph = GoldenSteps(program.graph), program.graph

    def stored(name: str) -> tuple[np.ndarray, np.ndarray]:
        made = graph.tensors[name].shape[1]
        return golden.rings[name][:, :, -made:], np.array([static_exponent(graph.tensors, name)])

    def take(x: np.ndarray) -> RunResult:
        with refusals():
            found = golden.run(x)
        mantissa, exponent = found.mantissas[None], np.array([found.exponent])
        return from_parts(
            program, mantissa, exponent,
            np.array([found.saturated]) | input_saturated(graph, x[None]), None,
            {name: (mantissa, exponent) if name == graph.output else stored(name)
             for name in tensors})

    return Stream(program, take, golden.reset)


def on_machine(program: Program, machine: Stepping, tensors: Collection[str]) -> Stream:
    """Return the stream of a program on a machine, with the stored tensors of these names, which
    the machine reads."""
    from celosia_sim.golden import input_saturated

    def take(x: np.ndarray) -> RunResult:
        with refusals():
            found = machine.run(x)
        made = found.tensors | {program.graph.output: (found.output, found.exponent)}
        return from_parts(program, found.output, found.exponent,
                          found.saturated | input_saturated(program.graph, x[None]), found.cycles,
                          {name: made[name] for name in tensors})

    return Stream(program, take, machine.reset)
