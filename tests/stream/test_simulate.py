# amaranth: UnusedElaboratable=no
"""Programs on the Verilog of the machine, in all simulators: bits and cycles."""

from dataclasses import replace

import numpy as np
import pytest

from celosia.bands.program import stream_program
from celosia.bands.report import report
from celosia.bands.session import run
from celosia.bands.simulate import SIMULATORS, job_of, simulate, simulated
from celosia_boards.cache import unseen
from celosia_sim import golden
from celosia_sim.flash import Contents
from celosia_sim.simulators.rtl import FLASH, FLASH_HZ, machine_design
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import COMMAND
from celosia_spec.isa.image import pack
from celosia_spec.isa.memories import UPPER_HALF, Space
from celosia_spec.isa.registers import Register
from stream.networks import residual_network, shrinking_network
from stream.test_flash_rtl import ARRAY

FROM_FLASH = stream_program(shrinking_network(), ARRAY)
EVERY_SIMULATOR = ["verilator", pytest.param("icarus", marks=pytest.mark.icarus)]


def test_many_images():
    program = stream_program(residual_network(), Array(main_words=1024))
    rng = np.random.default_rng(1)
    images = rng.random((40, *program.graph.tensors["x"].user_shape)).astype(np.float32)
    images *= rng.choice([0.01, 1.0, 40.0], (40, 1, 1, 1))
    done = []
    found = simulate(program, images, progress=lambda *at: done.append(at))
    wanted, name = golden.run(program.graph, images), program.graph.output
    assert np.array_equal(found.output, wanted.mantissas[name])
    assert np.array_equal(found.exponent, wanted.exponents[name])
    assert np.array_equal(found.saturated, wanted.saturated)
    assert len(set(found.cycles)) == 1
    assert done == [(count, 40) for count in range(1, 41)]


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
@pytest.mark.parametrize("flash", [False, True])
def test_every_simulator_is_the_golden_model(flash, simulator):
    program = FROM_FLASH if flash else stream_program(residual_network(8), Array(main_words=1024))
    assert any(len(layer.bands) > 1 for layer in program.layers)
    name = program.graph.input
    images = np.random.default_rng(2).random((2, *program.graph.tensors[name].user_shape)).astype(
        np.float32)
    done = []
    execute = simulated(program, simulator=simulator, progress=lambda *at: done.append(at))
    found = run(program, images, execute, tensors=() if flash else program.places)
    wanted = golden.run(program.source, images)
    output = program.graph.output
    assert np.array_equal(found.output, wanted.mantissas[output])
    assert np.array_equal(found.exponent, wanted.exponents[output])
    assert found.cycles.tolist() == [sum(layer.predicted_cycles for layer in report(program))] * 2
    assert len(found.tensors) == (0 if flash else len(program.layers))
    for name, (mantissas, exponents) in found.tensors.items():
        assert np.array_equal(mantissas, wanted.mantissas[name]), name
        assert np.array_equal(exponents, wanted.exponents[name]), name
    assert done[-1] == (2, 2)


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_a_run_that_takes_too_long_is_stopped(simulator):
    program = stream_program(residual_network(), Array(main_words=1024))
    x = np.zeros((1, *program.graph.tensors[program.graph.input].user_shape), np.float32)
    job = replace(job_of(program, x), max_cycles=np.array(2000))
    with pytest.raises(SimulationError, match=(
            r"^no end after 2,000 cycles \(image 0\); compile the program again for this array$")):
        simulated(program, simulator=simulator)(job)


def test_an_error_of_the_machine_is_told():
    program = stream_program(residual_network(), Array(main_words=1024))
    x = np.zeros((1, *program.graph.tensors[program.graph.input].user_shape), np.float32)
    job = job_of(program, x)
    setup = job.setup.copy()
    setup[0, 2] = COMMAND.pack(command=1, op=127)
    with pytest.raises(SimulationError, match=(
            r"^the machine stopped with error COMMAND \(image 0\); a word of the stream is no "
            r"command; compile the program again for this array$")):
        simulated(program)(replace(job, setup=setup))


@pytest.mark.parametrize("half", [0, UPPER_HALF])
def test_a_counter_that_is_wrong_is_told(half, monkeypatch):
    program = stream_program(residual_network(), Array(main_words=1024))
    x = np.zeros((2, *program.graph.tensors[program.graph.input].user_shape), np.float32)
    carried = SIMULATORS["verilator"]

    def wrong(design, job, *more):
        record = carried(design, job, *more)
        counter = Space.REGISTERS, Register.EVENTS + half
        [at] = np.flatnonzero((job.read_at == counter).all(axis=1))
        record.reads[1, at] += 1
        return record

    cycles = sum(layer.predicted_cycles for layer in report(program))
    counts = cycles + (1 << 16 if half else 1)
    monkeypatch.setitem(SIMULATORS, "verilator", wrong)
    with pytest.raises(SimulationError, match=(
            rf"^the machine counts {counts:,} cycles of a run that takes {cycles:,} \(image 1\); "
            r"its counter is wrong, report it$")):
        simulate(program, x)


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_what_the_flash_does_not_allow_is_told(simulator):
    """A chip that sees a clock of ten times the machine's."""
    program = FROM_FLASH
    x = np.zeros((1, *program.graph.tensors[program.graph.input].user_shape), np.float32)
    flash = Contents(part=FLASH.part, element=ARRAY.flash, clock_hz=10 * FLASH_HZ,
                     memory=bytes(FLASH.base) + pack(ARRAY, program.sections))
    job = job_of(program, x)
    with pytest.raises(SimulationError, match=(
            r"^the flash at \d+ ns: .*; its reader is wrong, report it$")):
        SIMULATORS[simulator](machine_design(ARRAY), replace(job, setup=job.setup[:0]), flash,
                              None, unseen)
