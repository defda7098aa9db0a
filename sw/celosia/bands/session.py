"""A program on N inputs, whatever carries out its jobs."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from celosia.bands.cuts import Cut, cut
from celosia.bands.host import stored, stored_addresses
from celosia.bands.program import StreamProgram
from celosia.bands.report import clocked
from celosia.bands.simulate import Execute, in_main, job_of, results
from celosia_boards.host.job import Job
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.isa.entries import elements_of
from celosia_spec.isa.memories import Space, exponents_of


@dataclass(frozen=True, eq=False, kw_only=True)
class SimResult:
    """What N images gave.

    output       : int32 (N, C, H, W), output mantissas.   exponent : int32 (N,).
    saturated    : bool (N,), the machine's sticky flag.
    cycles       : int64 (N,), from the clock edge that accepts ``start`` to the one that raises
                   ``done``, by the machine's own counter; of a simulated one also at its ports.
    tensors      : name -> (mantissa int32 (N, C, H, W), exponent int32 (N,)) of those asked for,
                   but the output, each from another run of every image, to the end of its layer.
    """

    output: np.ndarray
    exponent: np.ndarray
    saturated: np.ndarray
    cycles: np.ndarray
    tensors: dict[str, tuple[np.ndarray, np.ndarray]]


def run(program: StreamProgram, images: np.ndarray, execute: Execute, *,
        tensors: Collection[str] = ()) -> SimResult:
    """Return what N images, floats (N, *user_shape), give.

    execute : carries out a job.
    tensors : names of layers to run to, too, to read what they have stored; or of the network's
              input.
    """
    job = job_of(program, images)
    found = results(program, job, execute(job))
    stored = (program.graph.input, *(layer.node.output for layer in program.layers[:-1]))
    held = {name: _read(program, job, execute, at, name)
            for at, name in enumerate(stored, -1) if name in tensors}
    return SimResult(
        output=found.output.astype(np.int32), exponent=found.exponent.astype(np.int32),
        saturated=found.saturated, cycles=found.cycles, tensors=held)


def count_to_each_end(program: StreamProgram, execute: Execute) -> np.ndarray:
    """Return the cycles of an input of zeros from the start until the machine has halted behind
    each layer, int64 (layers,); the last one's are the whole program's."""
    shape = program.graph.tensors[program.graph.input].user_shape
    job = job_of(program, np.zeros((1, *shape), np.float32))
    lists = [_list(cut(program, layer)) for layer in range(len(program.layers) - 1)]
    lists.append(_written(program, program.entries[program.list_at:]))
    values = np.tile(job.input_values, (len(lists), 1))
    return execute(replace(
        job, input_at=np.concatenate([job.input_at, lists[0][:, :2]]),
        input_values=np.concatenate([values, [words[:, 2] for words in lists]], axis=1),
        read_at=job.read_at[:1])).cycles


def ends(program: StreamProgram) -> np.ndarray:
    """Return what `count_to_each_end` finds, as it is predicted."""
    return np.array([*(cut(program, layer).cycles() for layer in range(len(program.layers) - 1)),
                     clocked(program)[0].cycles])


def _read(program: StreamProgram, job: Job, execute: Execute, layer: int,
          name: str) -> tuple[np.ndarray, np.ndarray]:
    """Run to the end of a layer, before the first one for -1, and return a tensor as it is stored
    then, mantissas int32 (N, C, H, W) and exponents int32 (N,)."""
    stop = _list(cut(program, layer))
    places = stored_addresses(program, name)
    at = np.concatenate([in_main(places.ravel()),
                         [[Space.EXPONENTS, program.slots[name]]]]).astype(np.uint32)
    # What stops it is written behind the stream, and before each run.
    values = np.tile(stop[:, 2], (job.images, 1))
    record = execute(replace(
        job, input_at=np.concatenate([job.input_at, stop[:, :2]]),
        input_values=np.concatenate([job.input_values, values], axis=1),
        read_at=at))
    mantissas, exponents = [], []
    for *elements, exponent in record.reads.astype(np.int64):
        exponents.append(int(exponents_of(exponent)))
        mantissas.append(stored(program, name, np.reshape(elements, places.shape), exponents[-1]))
    return np.array(mantissas, np.int32), np.array(exponents, np.int32)


def _list(found: Cut) -> np.ndarray:
    return _written(found.program, found.words)


def _written(program: StreamProgram, words: np.ndarray) -> np.ndarray:
    """Return what writes a list of chunks, uint32 (elements, 3): space, address, value."""
    first = program.list_at * ENTRY_WORDS
    return np.array([(Space.MAIN, first + at, value)
                     for at, value in enumerate(elements_of(words).ravel().tolist())], np.uint32)
