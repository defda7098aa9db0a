"""LeNet-5 on the virtual board, by frames alone."""

import math

import numpy as np
import pytest

from celosia.bands.simulate import job_of, results
from celosia_boards.host.job import Record
from celosia_boards.host.link import LINE_BITS
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Decoder, Kind, Reply
from celosia_spec.isa.memories import Space
from host_frames import encode_read, encode_start, encode_status, encode_write_run

TARGET = "upduino"
BAUD = 3_000_000
"""Of the line: bits are few cycles long, and loading takes a third of those at a million."""
LONGEST = 10 ** 9
"""Cycles within which all is done."""


def replies(data: bytes) -> list[Reply]:
    return Decoder().feed(data)


def ask(board: VirtualBoard, *requests: bytes) -> list[Reply]:
    board.send(b"".join(map(protocol.paced, requests)))
    return replies(board.run_until_quiet(LONGEST))


def test_lenet5_loaded_and_run_gives_golden_outputs():
    """20 kB of program, then images, over frames alone; every answer is the golden model's."""
    pytest.importorskip("torch")
    import celosia
    from celosia.datasets import load_fashion_mnist, preprocess
    from celosia.models.lenet5 import load_lenet5

    inputs = preprocess(load_fashion_mnist("test")[0][:3])
    program = celosia.compile(load_lenet5(pruned=True), inputs[:1], target=TARGET)
    golden = celosia.run(program, inputs)
    job = job_of(program.program, inputs)
    record = Record.empty(job)
    with VirtualBoard(TARGET, program.array, byte_level=True) as stream:
        record.reads[:] = reads(stream, program, job)
        assert stream.starts == 3 and stream.seen_lights().busy and not stream.lights.busy
        padding_bridges_a_run(stream, program)
    with VirtualBoard(TARGET, program.array, baud=BAUD) as line:
        np.testing.assert_array_equal(reads(line, program, job.first(1)), record.reads[:1])
        padding_bridges_a_run(line, program)
    found = results(program.program, job, record)
    np.testing.assert_array_equal(found.output.reshape(golden.mantissa.shape), golden.mantissa)
    np.testing.assert_array_equal(found.exponent, golden.exponent)


def reads(board, program, job):
    """Load the program, run every image of the job; return its reads, uint32 (images, reads)."""
    load(board, program, job.setup[:, :2], job.setup[:, 2])
    rows = []
    for values in job.input_values:
        load(board, program, job.input_at, values)
        [started] = ask(board, encode_start(program.program.list_at))
        assert started.kind is Kind.RUNNING
        assert ask(board, encode_status()) == [Reply(tag=0, kind=Kind.IDLE)]
        found = ask(board, *(encode_read(Space(space), address & ~3, element_bytes=2)
                             for space, address in job.read_at.tolist()))
        rows.append([reply.elements(2)[address & 3] for reply, (_, address) in zip(
            found, job.read_at.tolist(), strict=True)])
    return np.array(rows, np.uint32)


def padding_bridges_a_run(board, program):
    """What comes behind as much padding as a run takes on the line is answered; sooner is not."""
    start = encode_start(program.program.list_at)
    read = protocol.paced(encode_read(Space.MAIN, 0, element_bytes=2))
    bytes_long = math.ceil(program.predicted_cycles / (LINE_BITS * board.bit_cycles))
    for padding, kind in ((bytes_long - 20, Kind.REJECTED), (bytes_long + 2, Kind.DATA)):
        board.send(start + b"\xff" * padding + read)
        assert replies(board.run_until_quiet(LONGEST))[-1].kind is kind


def load(board, program, at, values):
    """Write words in runs of consecutive addresses; every frame is answered."""
    frames = []
    next_run = (np.diff(at[:, 0]) != 0) | (np.diff(at[:, 1].astype(int)) != 1)
    for run in np.split(np.arange(len(at)), 1 + np.flatnonzero(next_run)):
        space, address = at[run[0]].tolist()
        frames += encode_write_run(Space(space), address, values[run].tolist(), element_bytes=2)
    found = ask(board, *frames)
    assert len(found) == len(frames) and {reply.kind for reply in found} == {Kind.IDLE}


def test_the_driver_runs_lenet5():
    """Loaded, run and counted as a user does it; what is on the line is in tests/stream."""
    pytest.importorskip("torch")
    import celosia
    from celosia.board import Board
    from celosia.datasets import load_fashion_mnist, preprocess
    from celosia.models.lenet5 import load_lenet5

    inputs = preprocess(load_fashion_mnist("test")[0][:3])
    program = celosia.compile(load_lenet5(pruned=True), inputs[:1])
    golden = celosia.run(program, inputs)
    with VirtualBoard(program.target, program.array, byte_level=True) as virtual:
        board = Board(SimulatedLine(virtual))
        board.load(program)
        found = board.run(inputs)
    np.testing.assert_array_equal(found.mantissa, golden.mantissa)
    np.testing.assert_array_equal(found.exponent, golden.exponent)
    assert found.cycles.tolist() == [program.predicted_cycles] * 3
