"""The host's side of a run: inputs as elements of main memory, and sums as the network's output."""

from dataclasses import replace

import numpy as np

from celosia.bands.program import StreamProgram
from celosia.bands.regions import Region
from celosia_sim import golden
from celosia_spec.block import floor_log2
from celosia_spec.epilogue import highest
from celosia_spec.floats import finish, joined, to_odd
from celosia_spec.isa.entries import elements_of
from celosia_spec.isa.numbers import EXPONENT_MIN
from celosia_spec.qgraph import QTensor, as_made
from celosia_spec.steps import Ring, first_line


def addresses(tensor: QTensor, place: Region, line: int = 0) -> np.ndarray:
    """Return where the elements of a map lie in main memory, int64 of its shape; of sums the lower
    halves.   line : at which they begin, if more is stored."""
    count, height, width = tensor.shape
    channel = place.element(0) + np.arange(count) * place.stride + line * width
    at = channel[:, None] + (np.arange(height * width) << place.wide)
    return at.reshape(tensor.shape)


def stored_addresses(program: StreamProgram, name: str, step: int = 0) -> np.ndarray:
    """Return where the elements of a stored map lie in main memory, int64 of its shape; of a ring
    those of the lines that a step makes."""
    tensors = program.graph.tensors
    return addresses(tensors[name], program.places[name], first_line(tensors, name, step))


def input_addresses(program: StreamProgram, step: int = 0) -> np.ndarray:
    """Return where the input's elements lie in main memory, those that are new in a step."""
    return stored_addresses(program, program.graph.input, step)


def ring_addresses(program: StreamProgram, name: str) -> np.ndarray:
    """Return where all lines of a ring lie in main memory, int64 (C, lines, W)."""
    ring = program.graph.tensors[name]
    assert isinstance(ring, Ring)
    count, _, width = ring.shape
    return addresses(replace(ring, shape=(count, ring.lines, width)), program.places[name])


def prepare(program: StreamProgram, x: np.ndarray, main: np.ndarray, step: int = 0) -> int:
    """Put the stream and one input, (*user_shape), into the elements of main memory; return the
    input's exponent.   step : which takes the input, of a network in steps."""
    graph = program.graph
    words = elements_of(program.entries)
    main[:words.size] = words.ravel()
    mantissas, exponents = golden.quantise_input(graph, x[None])
    tensor, exponent = graph.tensors[graph.input], int(exponents[0])
    at = input_addresses(program, step)
    main[at] = to_odd(mantissas[0], exponent - tensor.format.fraction, signed=tensor.signed)
    return exponent


def stored(program: StreamProgram, name: str, elements: np.ndarray, exponent: int) -> np.ndarray:
    """Return the mantissas of a stored map, as who reads it at an exponent sees them, int64 of its
    shape.

    elements : of `stored_addresses`.
    """
    tensor = program.graph.tensors[name]
    return finish(elements, exponent, tensor.bits, signed=tensor.signed)[0]


def output(program: StreamProgram, main: np.ndarray,
           exponents: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """Return the network's output, int64 mantissas of its shape, its exponent, and whether a value
    was clipped: its sums, pooled, and rounded by section 4 of the numerics.

    main : elements.   exponents : of every slot.
    """
    graph = program.graph
    tensor = graph.tensors[graph.output]
    node = next(node for node in graph.nodes if node.output == tensor.name)
    at = addresses(tensor, program.places[tensor.name])
    sums = joined(main[at], main[at + 1])
    if (pool := program.pool) is not None:
        down, across = pool.stride
        windows = np.lib.stride_tricks.sliding_window_view(sums, pool.window, (1, 2))
        sums = windows[:, ::down, ::across].max((-2, -1))
    s_x = int(exponents[program.reads[node.name]]) - graph.tensors[node.input].format.fraction
    unit = (node.sw + s_x).reshape(-1, 1, 1)
    if as_made(graph.tensors, node) is not tensor:
        unit = unit.reshape(tensor.shape)
    exponent = tensor.exponent.given(
        int((floor_log2(sums) + unit).max(initial=EXPONENT_MIN)),
        highest(node.epilogue.activation, tensor.exponent.least),
        lambda name: int(exponents[program.slots[name]]))
    right = exponent - tensor.format.fraction - unit
    largest = tensor.format.largest
    # All numbers are below 2^53 and powers of two apart, so that float64 is exact.
    rounded = np.rint(np.ldexp(sums.astype(np.float64), -right))
    low, high = node.epilogue.activation.bounds
    if node.epilogue.activation.clamps:
        bound = np.rint(np.ldexp(high, tensor.format.fraction - exponent))
        rounded = rounded.clip(None if low == 0 else -bound, bound)
    mantissas = rounded.clip(-largest, largest)
    return mantissas.astype(np.int64), exponent, bool((mantissas != rounded).any())
