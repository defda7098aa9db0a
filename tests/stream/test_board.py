# amaranth: UnusedElaboratable=no
"""Boards with flash, virtual ones: right answers, whatever the line does,
and words for what is wrong with the flash."""

import random

import numpy as np
import pytest

from celosia.bands.program import stream_program
from celosia.bands.schedule import stream_schedule
from celosia.bands.simulate import job_of, results
from celosia.board import Board
from celosia.program import program_of
from celosia_boards.host.driver import Driver, Probe
from celosia_boards.host.exchange import HostError
from celosia_boards.host.machine import Machine
from celosia_sim import golden
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine
from celosia_spec.isa.frames import START, Command, Decoder, Kind, encode_abort, paced, request
from celosia_spec.isa.image import MAGIC, pack
from celosia_spec.isa.memories import Space
from celosia_spec.isa.registers import STATUS, Error, Fault, Register
from host_frames import encode_read
from stream.networks import shrinking_network
from stream.test_flash_rtl import ARRAY


@pytest.fixture(scope="module")
def program():
    program = stream_program(shrinking_network(), ARRAY)
    assert len(program.copied) > 1
    return program


@pytest.fixture(scope="module")
def image(program):
    return pack(ARRAY, program.sections)


def board(image):
    return VirtualBoard("icebreaker", ARRAY, byte_level=True, image=image)


def ask(board, *requests):
    """Return the replies to requests."""
    board.send(b"".join(map(paced, requests)))
    return Decoder().feed(board.run_until_quiet(1_000_000))


def status(board):
    [reply] = ask(board, encode_read(Space.REGISTERS, 0, element_bytes=4))
    return STATUS.unpack(reply.elements(4)[Register.STATUS])


def start(program):
    return request(Command.START, 0, START.pack(list=program.list_at))


@pytest.mark.parametrize("damaged", [False, True])
def test_images_over_a_line(program, image, damaged):
    """Over a line that loses and changes bytes, and a board that is reset in the middle."""
    rng = random.Random(3)

    def damage(data: bytes) -> bytes:
        return bytes(byte ^ (rng.random() < 1e-4) for byte in data if rng.random() > 1e-4)

    generator = np.random.default_rng(1)
    images = generator.random((3, *program.graph.tensors["x"].user_shape)).astype(np.float32)
    images *= generator.choice([0.1, 30], (3, 1, 1, 1))
    job = job_of(program, images)
    wanted, name = golden.run(program.graph, images), program.graph.output
    with board(image) as virtual:
        line = (SimulatedLine(virtual, to_board=damage, to_host=damage, resets=[0.02, 0.06])
                if damaged else SimulatedLine(virtual))
        machine = Machine(line, ARRAY, virtual.clock_hz)
        assert machine.greet() == ARRAY.hash
        driver = Driver(machine)
        driver.load(job.setup, None)
        found = results(program, job, driver.execute(job, 24_541))
        assert np.array_equal(found.output, wanted.mantissas[name])
        assert np.array_equal(found.exponent, wanted.exponents[name])
        assert np.array_equal(found.saturated, wanted.saturated)
        assert len(set(found.cycles)) == 1
        now = machine.status()
        assert (now.busy, now.error) == (False, Error.NONE)


def test_the_board_boots_from_its_flash(program, image):
    """Nothing is loaded but an input; a reset leaves the flash as it is."""
    with board(image) as virtual:
        for _ in range(2):
            virtual.run_until_quiet(100_000)
            [reply] = ask(virtual, start(program))
            while reply.kind is Kind.RUNNING:
                [reply] = ask(virtual, request(Command.STATUS, 0, 0))
            now = status(virtual)
            assert (now["ready"], now["fault"], now["error"]) == (1, Fault.NONE, Error.NONE)
            virtual.reset()


def damaged(image, at):
    return image[:at] + bytes([image[at] ^ 1]) + image[at + 1:]


@pytest.mark.parametrize(("fault", "error", "change"), [
    (Fault.ABSENT, Error.ABSENT, lambda image: b""),
    (Fault.FOREIGN, Error.FOREIGN, lambda image: damaged(
        image, image.rindex(MAGIC.to_bytes(2, "little")) + 2)),
    (Fault.DAMAGED, Error.DAMAGED, lambda image: damaged(image, len(image) - 100))])
def test_a_start_is_refused_behind_a_bad_image(program, image, fault, error, change):
    with board(change(image)) as virtual:
        [early] = ask(virtual, start(program))
        assert early.kind is Kind.IDLE and early.failed
        now = status(virtual)
        assert (now["ready"], now["checking"], now["fault"]) == (0, 0, fault)
        [reply] = ask(virtual, start(program))
        assert reply.kind is Kind.IDLE and reply.failed
        assert status(virtual)["error"] == error
        # Who loads it needs no flash, until a section is copied.
        job = job_of(program, np.zeros((1, *program.graph.tensors["x"].user_shape), np.float32))
        machine = Machine(SimulatedLine(virtual), ARRAY, virtual.clock_hz)
        machine.greet()
        driver = Driver(machine)
        driver.load(job.setup, None)
        with pytest.raises(HostError, match=f"stops with error {error.name}; .* its flash"):
            driver.execute(job, 24_541)


@pytest.mark.parametrize(("error", "change"), [
    (Error.ABSENT, lambda image: b""),
    (Error.DAMAGED, lambda image: damaged(image, len(image) - 100)),
    (Error.FOREIGN, lambda image: damaged(
        image, image.rindex(MAGIC.to_bytes(2, "little")) + 2))])
def test_who_loads_a_program_is_told_what_its_flash_lacks(program, image, error, change):
    job = job_of(program, np.zeros((1, *program.graph.tensors["x"].user_shape), np.float32))
    words: list[str] = []
    with board(change(image)) as virtual:
        machine = Machine(SimulatedLine(virtual), ARRAY, virtual.clock_hz)
        machine.greet()
        driver = Driver(machine, words.append)
        with pytest.raises(HostError, match=f"stops with error {error.name}; .* celosia flash "
                                            "BUILD --program"):
            driver.load(job.setup, Probe(job=job, right=lambda record: True, cycles=24_541))
    assert len(words) == 1


def test_a_start_is_refused_before_the_image_is_checked(program, image):
    with board(image) as virtual:
        virtual.send(paced(start(program)) + paced(
            encode_read(Space.REGISTERS, 0, element_bytes=4)))
        _, reply = Decoder().feed(virtual.run(2000))
        now = STATUS.unpack(reply.elements(4)[Register.STATUS])
        assert (now["checking"], now["busy"], now["error"]) == (1, 0, Error.EARLY)
        ask(virtual, encode_abort())
        assert status(virtual)["ready"]


@pytest.mark.parametrize("byte_level", [False, True])
def test_leaving_out_what_stands_still_changes_no_byte_and_no_cycle(program, image, byte_level):
    """Cycles are counted in circles while nothing runs."""
    times = []
    for plain in (False, True):
        rng = random.Random(5)
        with VirtualBoard("icebreaker", ARRAY, image=image, byte_level=byte_level,
                          plain=plain) as virtual:
            seen = []
            for frame in [encode_abort(), start(program), *[encode_read(
                    Space.MAIN, 4 * word, element_bytes=2) for word in range(8)]] * 2:
                virtual.send(paced(frame))
                end = virtual.cycles + rng.randrange(40_000)
                while virtual.cycles < end:
                    if data := virtual.run(end - virtual.cycles, until_bytes=1):
                        seen.append((virtual.cycles, data))
            times.append((seen, virtual.cycles))
            assert plain == (virtual.simulated == virtual.cycles)
    assert times[0] == times[1] and len(times[0][0]) > 100


def test_programs_as_users_load_them(image):
    """Loaded, run, and read layer by layer; then the list of chunks is whole again."""
    program = program_of(stream_schedule(shrinking_network(), ARRAY), target="icebreaker",
                         exponents="dynamic")
    images = np.random.default_rng(2).random((2, 3, 8, 8)).astype(np.float32)
    wanted = golden.run(program.graph, images)
    with board(image) as virtual, Board(SimulatedLine(virtual)) as there:
        assert there.load(program).bytes == 8 * len(program.program.entries)
        for _ in range(2):
            found = there.run(images)
            assert np.array_equal(found.mantissa.reshape(2, 12, 2, 2), wanted.mantissas["n3"])
            assert found.cycles.tolist() == [program.predicted_cycles] * 2
            tensors = there.simulate(images, tensors=True).tensors
            assert sorted(tensors) == ["n0", "n1", "n2", "x"]
            for name, (mantissas, exponents) in tensors.items():
                assert np.array_equal(mantissas, wanted.mantissas[name])
                assert np.array_equal(exponents, wanted.exponents[name])
        done = there.repeat(0.02)
        assert done.runs > 3 and 0.1 < done.busy < 1
        assert there.counters() == {"cycle": program.predicted_cycles}
