# amaranth: UnusedElaboratable=no
"""Whole networks through the host port: loaded, run, read back, and stopped anywhere."""

import re
from collections import Counter

import numpy as np
import pytest
from amaranth.back import rtlil

from celosia.bands.entries import controls
from celosia.bands.host import output, prepare
from celosia.bands.program import stream_program
from celosia_boards.families.ice40 import ULTRA_PLUS_FABRIC
from celosia_hw.machine import Machine
from celosia_sim import golden
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import CHUNK, COMMAND, Op
from celosia_spec.isa.entries import elements_of
from celosia_spec.isa.fabric import GENERIC
from celosia_spec.isa.frames import Kind, Reason, encode_abort
from celosia_spec.isa.memories import Space, blocks, main_blocks
from celosia_spec.isa.numbers import EXPONENT_MIN, EXPONENT_SLOTS
from celosia_spec.isa.registers import Error
from host_frames import encode_read, encode_status, encode_write
from stream.hosted import Host, start
from stream.networks import residual_network

ARRAY = Array(main_words=1024)
MOST = 50_000


@pytest.fixture(scope="module")
def host():
    return Host(ARRAY)


@pytest.fixture(scope="module")
def program():
    return stream_program(residual_network(), ARRAY)


@pytest.fixture(scope="module")
def images(program):
    """Inputs, and what the golden model makes of them."""
    rng = np.random.default_rng(1)
    found = []
    for scale in (1.0, 30.0):
        x = rng.random(program.graph.tensors["x"].user_shape).astype(np.float32) * scale
        found.append((x, golden.run(program.graph, x[None])))
    return found


def load(host, program, x, *, whole=True):
    """Write stream, input, and exponents; where the stream is there, only the last two."""
    main = np.zeros(ARRAY.main_words * ENTRY_WORDS, np.int64)
    exponents = np.full(EXPONENT_SLOTS, EXPONENT_MIN)
    name = program.graph.input
    exponents[program.slots[name]] = prepare(program, x, main)
    place = program.places[name]
    first, count = (0, len(main)) if whole else (place.word * ENTRY_WORDS,
                                                 place.words * ENTRY_WORDS)
    host.write(Space.MAIN, main[first:first + count], first)
    host.write(Space.EXPONENTS, exponents)


def check(host, program, wanted):
    """Compare the output with the golden model's."""
    name = program.graph.output
    place, main = program.places[name], np.zeros(ARRAY.main_words * ENTRY_WORDS, np.int64)
    first, count = place.word * ENTRY_WORDS, place.words * ENTRY_WORDS
    main[first:first + count] = host.read(Space.MAIN, count, first)
    mantissas, exponent, _ = output(program, main, host.read(Space.EXPONENTS, EXPONENT_SLOTS))
    assert exponent == wanted.exponents[name][0]
    assert np.array_equal(mantissas, wanted.mantissas[name][0])


def test_two_images(host, program, images):
    found, status, _ = host.registers()
    assert found == ARRAY.hash
    assert not any(status.values())
    took = []
    for x, wanted in images:
        load(host, program, x)
        host.start(program.list_at)
        reply = host.finish(MOST)
        assert not reply.failed
        assert not reply.saturated
        check(host, program, wanted)
        _, status, cycles = host.registers()
        assert not status["busy"]
        assert status["error"] == Error.NONE
        took.append(cycles)
    assert took[0] == took[1] > 1000


def test_memories_keep_what_is_written(host):
    """Single elements and whole frames; what is beside them stays."""
    rng = np.random.default_rng(2)
    model = rng.integers(0, 1 << 16, ARRAY.main_words * ENTRY_WORDS)
    host.write(Space.MAIN, model)
    for at in rng.integers(0, len(model), 50):
        model[at] = rng.integers(0, 1 << 16)
        reply, = host.ask([encode_write(Space.MAIN, int(at), [int(model[at])], element_bytes=8)])
        assert reply.kind is Kind.IDLE
        first = int(at) // 4 * 4
        assert np.array_equal(host.read(Space.MAIN, 4, first), model[first:first + 4])
    assert np.array_equal(host.read(Space.MAIN, len(model)), model)
    exponents = rng.integers(-16, 16, EXPONENT_SLOTS)
    host.write(Space.EXPONENTS, exponents)
    assert np.array_equal(host.read(Space.EXPONENTS, EXPONENT_SLOTS), exponents)


def test_a_run_is_left_alone(host, program, images):
    """While it runs, the machine takes neither a start nor accesses."""
    x, wanted = images[0]
    load(host, program, x)
    host.start(program.list_at)
    busy = [encode_read(Space.MAIN, 0, element_bytes=2), start(0),
            encode_write(Space.MAIN, 0, [0] * 4, element_bytes=2),
            encode_write(Space.EXPONENTS, 0, [0] * 4, element_bytes=2)]
    for reply in host.ask(busy):
        assert reply.kind is Kind.REJECTED
        assert reply.reason is Reason.BUSY
    reply, = host.ask([encode_status()])
    assert reply.kind is Kind.RUNNING
    host.finish(MOST)
    check(host, program, wanted)


def test_a_run_is_stopped_anywhere(host, program, images):
    """Wherever a run is stopped, the next one is right, and takes as long."""
    x, wanted = images[1]
    load(host, program, x)
    host.start(program.list_at)
    host.finish(MOST)
    cycles = host.registers()[2]
    rng = np.random.default_rng(4)
    for stop in [*range(5, 40), *rng.integers(40, cycles, 40).tolist()]:
        host.interrupt(program.list_at, stop)
        reply, = host.ask([encode_abort()])[-1:]
        assert reply.kind is Kind.IDLE
        assert not any(host.registers()[1].values())
        load(host, program, x, whole=False)
        host.start(program.list_at)
        host.finish(MOST)
        assert host.registers()[2] == cycles
        check(host, program, wanted)


@pytest.mark.parametrize("word", [1 | op << 1 for op in (Op.COPY, 0, 5, 127)])
def test_a_word_that_is_no_command(host, program, images, word):
    """It ends the run with an error, which the next start clears."""
    x, wanted = images[0]
    entries = controls([COMMAND.pack(command=1, op=Op.WAIT, argument=1), word])
    chunk = CHUNK.pack(first=0, entries=1, final=1)
    host.write(Space.MAIN, elements_of(np.append(entries, np.uint64(chunk))).ravel())
    host.start(1)
    assert host.finish(MOST).failed
    assert host.registers()[1]["error"] == Error.COMMAND
    load(host, program, x)
    host.start(program.list_at)
    assert not host.finish(MOST).failed
    check(host, program, wanted)


@pytest.mark.parametrize(("array", "fabric"), [
    (ARRAY, GENERIC), (Array(lanes=8, main_words=256, residual=False), ULTRA_PLUS_FABRIC),
    *((Array(main_words=256, residual=False, drain=1), fabric)
      for fabric in (GENERIC, ULTRA_PLUS_FABRIC))])
def test_the_table_of_memories_is_what_is_built(array, fabric):
    text = rtlil.convert(Machine(array, fabric=fabric), emit_src=False)
    built = Counter((int(depth), int(width)) for width, depth in re.findall(
        r"memory width (\d+) size (\d+)", text))
    told = Counter()
    for memory in (*blocks(array, fabric), main_blocks(array)):
        told[memory.depth, memory.width] += memory.count
    assert built == told
