"""Where a program runs: the golden model, the simulated gateware, a board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia.extras import names_extra
from celosia.program import Program
from celosia.results import (
    Notice,
    Progress,
    RunResult,
    Stages,
    as_images,
    from_parts,
    joined,
    result_of,
)
from celosia_spec.errors import CelosiaError, refusals

if TYPE_CHECKING:
    from celosia.bands.session import SimResult
    from celosia.stepwise import Stream

GOLDEN, SIMULATORS, BOARD = "golden", ("verilator", "icarus"), "board"
NAMES = f"{GOLDEN}, {', '.join(SIMULATORS)}, or {BOARD}:PORT"
"""All of them, in words."""

CHUNK = 250
"""Inputs that the golden model computes between two reports of progress."""


@names_extra
def run(program: Program, x: Any, backend: str = GOLDEN, *, progress: Progress | None = None,
        stages: Stages | None = None, notice: Notice | None = None,
        baud: int | None = None) -> RunResult:
    """Run N inputs on a backend.

    x       : float32 (N, ...), shaped as the network's input. Of a program in steps of time N
              steps of one stream, of which those give results that end a whole window.
    backend : "golden" (NumPy), "verilator" or "icarus" (the simulated gateware), "board:PORT" (a
              flashed board, which gets the program first; see `celosia.connect` for PORT), "board"
              (the port that CELOSIA_PORT names, else "board:auto").
    progress, stages : what to call meanwhile: as inputs are done, and as a simulator is built or a
              board loaded.
    notice  : called with a line where something went wrong on a board and was mended.
    baud    : of a board's port; None is what its target is built for.

    CelosiaError where the shape is wrong, a value is not finite, or the backend is not there.
    """
    images = as_images(program, x)
    check_backend(backend)
    if program.steps is not None:
        return _run_steps(program, images, backend, progress=progress, stages=stages,
                          notice=notice, baud=baud)
    if backend == GOLDEN:
        return _run_golden(program, images, progress)
    if on_board(backend):
        from celosia.board import loaded

        with loaded(program, port_of(backend), baud=baud, stages=stages, notice=notice) as board:
            return board.run(images, progress=progress)
    simulation = simulate(program, images, backend, progress=progress, stages=stages)
    return result_of(program, simulation)


@contextmanager
def stream(program: Program, backend: str = GOLDEN, *, stages: Stages | None = None,
           notice: Notice | None = None, baud: int | None = None) -> Iterator[Stream]:
    """Yield a stream of a program that was compiled with ``stream="time"``: with ``run`` it takes
    one step, and keeps what the next ones need.

    backend, stages, notice, baud : as `run` takes them.

    CelosiaError where the program does not run in steps, or the backend is not there.
    """
    from celosia.stepwise import on_golden, on_machine

    check_backend(backend)
    if program.steps is None:
        raise CelosiaError("the program computes whole windows: run it with celosia.run, or "
                           "compile the model with stream='time'")
    if backend == GOLDEN:
        yield on_golden(program)
    elif on_board(backend):
        from celosia.board import loaded

        with loaded(program, port_of(backend), baud=baud, stages=stages, notice=notice) as board:
            yield board.stream()
    elif backend == SIMULATORS[0]:
        from celosia.bands.stepping import simulated_steps
        from celosia_boards.cache import unseen

        with refusals(), simulated_steps(program.program, stages=stages or unseen) as machine:
            yield on_machine(program, machine)
    else:
        raise CelosiaError(f"backend {backend!r} keeps no machine between two steps; use "
                           f"{SIMULATORS[0]}, {GOLDEN} or {BOARD}:PORT")


def _run_steps(program: Program, images: np.ndarray, backend: str, *, progress: Progress | None,
               stages: Stages | None, notice: Notice | None, baud: int | None) -> RunResult:
    """Return the results of those of N steps that end a whole window."""
    assert program.steps is not None
    if len(images) < program.steps.first:
        raise CelosiaError(f"input: {len(images)} steps of {program.steps.hop} lines, and the "
                           f"first window is whole with {program.steps.first}; give it more steps")
    parts = []
    with stream(program, backend, stages=stages, notice=notice, baud=baud) as opened:
        for number, x in enumerate(images, 1):
            if (found := opened.run(x)) is not None:
                parts.append(found)
            if progress:
                progress(number, len(images))
    return joined(parts)


def on_board(backend: str) -> bool:
    """Tell whether a backend is a board: "board" or "board:PORT"."""
    return backend == BOARD or backend.startswith(f"{BOARD}:")


def port_of(backend: str) -> str | None:
    """Return the port that a board's backend names; None where it names none."""
    return backend.removeprefix(BOARD).removeprefix(":") or None


def check_backend(backend: str) -> None:
    """CelosiaError unless ``backend`` is one that there is."""
    if backend not in (GOLDEN, *SIMULATORS) and not on_board(backend):
        raise CelosiaError(f"unknown backend {backend!r}; use {NAMES} such as "
                           f"{BOARD}:auto")


def simulate(program: Program, images: np.ndarray, simulator: str, *, tensors: bool = False,
             progress: Progress | None = None, stages: Stages | None = None) -> SimResult:
    """Return the ``SimResult`` of images (N, ...), quantised as the host does.

    ``saturated`` then also tells of the input, which the machine does not see.
    """
    from celosia.bands.session import run as run_stream
    from celosia.bands.simulate import simulated
    from celosia_boards.cache import unseen
    from celosia_sim.golden import input_saturated

    with refusals():
        execute = simulated(program.program, simulator=simulator, progress=progress,
                            stages=stages or unseen)
        result = run_stream(program.program, images, execute, tensors=tensors)
    return replace(result, saturated=result.saturated | input_saturated(program.graph, images))


def _run_golden(program: Program, images: np.ndarray, progress: Progress | None) -> RunResult:
    from celosia_sim.golden import run as run_golden

    output, parts = program.graph.output, []
    for start in range(0, len(images), CHUNK):
        with refusals():
            golden = run_golden(program.graph, images[start:start + CHUNK], keep_tensors=False)
        parts.append((golden.mantissas[output], golden.exponents[output], golden.saturated))
        if progress:
            progress(min(start + CHUNK, len(images)), len(images))
    mantissa, exponent, saturated = (np.concatenate(part) for part in zip(*parts, strict=True))
    return from_parts(program, mantissa, exponent, saturated, None)
