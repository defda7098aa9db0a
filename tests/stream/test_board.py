# amaranth: UnusedElaboratable=no
"""Boards with the second machine, virtual ones: right answers, whatever the line does."""

import random

import numpy as np
import pytest

from celosia.bands.program import stream_program
from celosia.bands.simulate import job_of, results
from celosia_boards.host.driver import Driver
from celosia_boards.host.machine import Machine
from celosia_sim import golden
from celosia_sim.clock.cycles import cycles
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine
from celosia_spec.stream.array import Array
from celosia_spec.stream.registers import Error
from stream.networks import residual_network

ARRAY = Array(main_words=1024)


@pytest.fixture(scope="module")
def program():
    return stream_program(residual_network(), ARRAY)


@pytest.fixture(scope="module")
def images(program):
    rng = np.random.default_rng(1)
    shape = program.graph.tensors["x"].user_shape
    return rng.random((3, *shape)).astype(np.float32) * rng.choice([0.1, 30], (3, 1, 1, 1))


@pytest.fixture
def board():
    with VirtualBoard("icebreaker", ARRAY, byte_level=True) as board:
        yield board


@pytest.mark.parametrize("damaged", [False, True])
def test_images_over_a_line(program, images, board, damaged):
    """Over a line that loses and changes bytes, and a board that is reset in the middle."""
    rng = random.Random(3)

    def damage(data: bytes) -> bytes:
        return bytes(byte ^ (rng.random() < 1e-4) for byte in data if rng.random() > 1e-4)

    job = job_of(program, images)
    wanted, name = golden.run(program.graph, images), program.graph.output
    took = cycles(ARRAY, program.entries.tolist(), program.chunks.tolist()).cycles
    line = (SimulatedLine(board, to_board=damage, to_host=damage, resets=[0.02, 0.06])
            if damaged else SimulatedLine(board))
    machine = Machine(line, ARRAY, board.clock_hz)
    assert machine.greet() == ARRAY.hash
    told = []
    driver = Driver(machine, told.append)
    driver.load(job.setup, None)
    found = results(program, job, driver.execute(job, np.array([took])))
    assert np.array_equal(found.mantissas, wanted.mantissas[name])
    assert np.array_equal(found.exponents, wanted.exponents[name])
    assert np.array_equal(found.saturated, wanted.saturated)
    assert (found.cycles == took).all()
    assert bool(told) == damaged
    status = machine.status()
    assert (status.busy, status.error, status.descriptor) == (False, Error.NONE, 0)
