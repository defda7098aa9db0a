"""A program of the second machine on N inputs, whatever carries out its jobs."""

from dataclasses import replace

import numpy as np

from celosia.bands.host import addresses, stored
from celosia.bands.program import StreamProgram
from celosia.bands.simulate import Execute, job_of, results
from celosia_boards.host.job import Job
from celosia_boards.host.session import SimResult
from celosia_spec.stream.array import ENTRY_WORDS
from celosia_spec.stream.controls import CHUNK
from celosia_spec.stream.memories import Space


def run(program: StreamProgram, images: np.ndarray, execute: Execute, *,
        tensors: bool = False) -> SimResult:
    """Return what N images, floats (N, *user_shape), give.

    execute : carries out a job.
    tensors : also run to each layer, and read what it has stored, and the network's input.
    """
    job = job_of(program, images)
    found = results(program, job, execute(job))
    held = {}
    if tensors:
        held[program.graph.input] = _read(program, job, execute, None)
        for at in range(len(program.layers) - 1):
            held[program.layers[at].node.output] = _read(program, job, execute, at)
    return SimResult(
        output=found.output.astype(np.int32), exponent=found.exponent.astype(np.int32),
        saturated=found.saturated, cycles=found.cycles, counter_cycles=found.cycles,
        layer_cycles=None, tensors=held)


def _read(program: StreamProgram, job: Job, execute: Execute,
          layer: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Run to the end of a layer, and return its output as it is stored, mantissas int32
    (N, C, H, W) and exponents int32 (N,); without one, of the input."""
    graph = program.graph
    name = graph.input if layer is None else program.layers[layer].node.output
    stop = _stop(program, -1 if layer is None else layer)
    at = addresses(graph.tensors[name], program.places[name])
    at = np.concatenate([
        np.column_stack([np.full(at.size, Space.MAIN), at.ravel()]),
        [[Space.EXPONENTS, program.slots[name]]]]).astype(np.uint32)
    # What stops it is written behind the stream, and before each run.
    values = np.tile(stop[:, 2], (job.images, 1))
    record = execute(replace(
        job, input_at=np.concatenate([job.input_at, stop[:, :2]]),
        input_values=np.concatenate([job.input_values, values], axis=1),
        read_at=at, read_ends=np.array([len(at)])))
    main = np.zeros(program.array.main_words * ENTRY_WORDS, np.int64)
    mantissas, exponents = [], []
    for *elements, exponent in record.reads.astype(np.int64):
        main[at[:-1, 1]] = elements
        exponents.append((int(exponent) & 0xFF ^ 0x80) - 0x80)
        mantissas.append(stored(program, name, main, exponents[-1]))
    return np.array(mantissas, np.int32), np.array(exponents, np.int32)


def _stop(program: StreamProgram, layer: int) -> np.ndarray:
    """Return what is written to the list of chunks so that the machine halts behind a layer, before
    the first one for -1: uint32 (words, 3), space, address, value."""
    halt = program.list_at - 1          # the stream's last entry
    end, last = program.ends[layer] if layer >= 0 else (-1, 0)
    words = {end + 1: CHUNK.pack(first=halt, last=halt, final=1)}
    if layer >= 0:
        words[end] = CHUNK.pack(first=int(program.chunks[end, 0]), last=last,
                                copied=int(end in program.copied))
    return np.array([
        (Space.MAIN, (program.list_at + at) * ENTRY_WORDS + k, int(word) >> 16 * k & 0xFFFF)
        for at, word in words.items() for k in range(ENTRY_WORDS)], np.uint32)
