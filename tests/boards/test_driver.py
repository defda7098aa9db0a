"""The driver of a board, on the virtual one: right answers over lines that damage, boards that are
reset, hosts that die, and the words for what cannot be mended."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

import celosia
from celosia.board import Board
from celosia.program import Program
from celosia_boards.arrays import array_for
from celosia_boards.host.exchange import SILENCE
from celosia_boards.host.machine import Machine
from celosia_boards.host.requests import Access
from celosia_boards.targets import target
from celosia_sim.golden import run as golden_run
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import Killed, SimulatedLine
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.array import ENTRY_WORDS, VERSION, Array, array_hash
from celosia_spec.isa.memories import MEMORIES, Space, memory_of
from compiled import SMALL
from host_frames import encode_read, encode_write
from registered import carrying

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


def net() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(64, 6)).eval()


@pytest.fixture(scope="module")
def program() -> Program:
    return celosia.compile(net(), np.zeros((1, 1, 8, 8), np.float32))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(24, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def golden(program: Program, images: np.ndarray) -> celosia.RunResult:
    return celosia.run(program, images)


@pytest.fixture
def machine(program: Program) -> Iterator[VirtualBoard]:
    with VirtualBoard(program.target, program.array, byte_level=True) as board:
        yield board


def damaging(kind: str, rate: float, seed: int) -> Callable[[bytes], bytes]:
    """Return what damages bytes: loses, changes, doubles or adds some of them."""
    rng = random.Random(seed)

    def damage(data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if rng.random() >= rate:
                out.append(byte)
            elif kind == "flip":
                out.append(byte ^ 1 << rng.randrange(8))
            elif kind == "double":
                out += bytes([byte, byte])
            elif kind == "noise":
                out += bytes([rng.randrange(256), byte])
        return bytes(out)

    return damage


def same(result: celosia.RunResult, golden: celosia.RunResult) -> None:
    count = len(result.mantissa)
    assert np.array_equal(result.mantissa, golden.mantissa[:count])
    assert np.array_equal(result.exponent, golden.exponent[:count])
    assert np.array_equal(result.saturated, golden.saturated[:count])
    assert np.array_equal(result.answer, golden.answer[:count])


def test_answers_are_golden_and_cycles_are_those_predicted(machine, program, images, golden):
    line = SimulatedLine(machine)
    with Board(line) as board:
        done = board.load(program)
        assert done.bytes == 8 * done.frames >= program.program.entries.nbytes
        result = board.run(images)
        same(result, golden)
        assert set(result.cycles) == {program.predicted_cycles}
        assert result.layer_cycles.tolist() == [
            [layer.predicted_cycles for layer in program.layers]] * len(images)
        assert board.counters() == {"cycle": program.predicted_cycles}
        tensors = board.simulate(images[:2], tensors=True).tensors
        assert set(tensors) == set(program.program.places) - {program.graph.output}
        status = board.status()
        assert not status.busy and not status.error
        board.abort()
        same(board.run(images[:1]), golden)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.a(x).relu()
        return self.c((self.b(x) + x).relu())


def test_maps_residuals_and_nine_bits():
    torch.manual_seed(1)
    program = celosia.compile(Residual().eval(), np.zeros((1, 2, 8, 8), np.float32),
                              target="ecp5-25f", activation_bits=9)
    images = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    golden = golden_run(program.graph, images, keep_tensors=True)
    with VirtualBoard(program.target, program.array, byte_level=True) as machine, Board(
            SimulatedLine(machine)) as board:
        board.load(program)
        same(board.run(images), celosia.run(program, images))
        tensors = board.simulate(images, tensors=True).tensors
    assert set(tensors) == {program.graph.input, "a", "b"}
    for name, (mantissa, exponent) in tensors.items():
        assert np.array_equal(mantissa, golden.mantissas[name])
        assert np.array_equal(exponent, golden.exponents[name])


def nets() -> Iterator[tuple[nn.Module, tuple[int, int, int]]]:
    """Networks whose layers read zeros around maps: strides, kernels, pooling, several channels."""
    def conv(here: int, there: int, kernel: int, **options: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(here, there, kernel, padding=kernel // 2, **options),
                             nn.ReLU())

    yield nn.Sequential(conv(1, 4, 5), nn.MaxPool2d(2), conv(4, 6, 3), nn.MaxPool2d(2),
                        nn.Flatten(), nn.Linear(54, 5)), (1, 12, 12)
    yield nn.Sequential(conv(3, 5, 3, stride=2), conv(5, 7, 3), conv(7, 4, 5),
                        nn.Flatten(), nn.Linear(96, 3)), (3, 11, 7)
    yield nn.Sequential(conv(2, 9, 5), nn.AvgPool2d(2), conv(9, 9, 3), conv(9, 2, 1),
                        nn.Flatten(), nn.Linear(32, 3)), (2, 8, 8)


@pytest.mark.parametrize(("of", "bits"), [("upduino", {}), ("ecp5-25f", {"activation_bits": 9})])
def test_what_the_memories_held_before_does_no_harm(of, bits):
    """With a small main memory, all of which is written."""
    rng = np.random.default_rng(8)
    array = replace(array_for(of, **bits), main_words=1024)
    with carrying(array, "small", of), VirtualBoard(of, array, byte_level=True) as machine:
        board = Board(SimulatedLine(machine))
        there = Machine(SimulatedLine(machine), array, 1e6)
        there.greet()
        for number, (net, shape) in enumerate(nets()):
            torch.manual_seed(number)
            depth = memory_of(Space.MAIN).depth(array)
            at = np.stack([np.full(depth, Space.MAIN), np.arange(depth)], axis=1)
            there.write(at.astype(np.uint32), rng.integers(0, 1 << 16, depth).astype(np.uint32))
            program = celosia.compile(net.eval(), np.zeros((1, *shape), np.float32),
                                      target="small", **bits)
            images = rng.normal(size=(3, *shape)).astype(np.float32)
            board.load(program)
            same(board.run(images), celosia.run(program, images))


@pytest.mark.parametrize("byte_level", [False, True])
def test_every_layer_is_counted(program, byte_level):
    from celosia.compare import count

    with VirtualBoard(program.target, program.array, byte_level=byte_level) as machine, Board(
            SimulatedLine(machine)) as board:
        board.load(program)
        counts = count(program, board)
    assert [entry.name for entry in counts] == [layer.name for layer in program.layers] + ["total"]
    assert all(entry.agrees for entry in counts)


def test_the_line_is_busy(program, images):
    """In simulated time, with a link that delays a millisecond each way."""
    with VirtualBoard(program.target, program.array) as machine:
        line = SimulatedLine(machine)
        board = Board(line)
        for work in (lambda: board.load(program), lambda: board.run(images)):
            sent, start = line.sent, line.now()
            work()
            busy = 10 * (line.sent - sent) / line.baud / (line.now() - start)
            assert busy > 0.75      # of so small a network; LeNet-5's is in benchmarks/board_link


@pytest.mark.parametrize("rate", [0.0003, 0.003, 0.01])
@pytest.mark.parametrize("kind", ["drop", "flip", "double", "noise"])
def test_a_damaging_line_costs_time_and_nothing_else(machine, program, images, golden, kind, rate):
    line = SimulatedLine(machine, to_board=damaging(kind, rate, 1),
                         to_host=damaging(kind, rate, 2))
    board = Board(line)
    board.load(program)
    same(board.run(images), golden)
    same(board.run(images[:2]), golden)


@pytest.mark.parametrize("down_s", [0.0, 0.1])
def test_a_reset_at_any_moment(program, images, golden, down_s, impatient):
    """At moments spread over connecting, loading and running, in one session each."""
    def session(resets):
        words: list[str] = []
        with VirtualBoard(program.target, program.array, byte_level=True) as machine:
            line = SimulatedLine(machine, latency_s=0.0002, resets=resets, down_s=down_s)
            board = Board(line, on_notice=words.append)
            board.load(program)
            same(board.run(images[:8]), golden)
            return line.now(), words

    whole, words = session([])
    assert not words
    told = 0
    for part in range(16):
        _, words = session([whole * (part + 0.5) / 16])
        told += len(words)
        assert all("loaded again, going on with image" in line or "loading it again" in line
                   for line in words)
    assert told     # those while it ran


def test_a_host_that_dies_leaves_nothing_behind(machine, program, images, golden):
    line = SimulatedLine(machine)
    Board(line).load(program)
    rng = random.Random(4)
    for _ in range(12):
        dying = SimulatedLine(machine, dies_after=rng.randrange(line.sent))
        with pytest.raises(Killed):
            Board(dying).load(program)
        board = Board(SimulatedLine(machine))
        board.load(program)
        same(board.run(images[:2]), golden)


def test_a_host_that_is_slow(machine, program):
    """A byte a millisecond: the machine waits for the rest of a frame."""
    there = Machine(SimulatedLine(machine, byte_s=0.001), program.array, machine.clock_hz)
    there.greet()
    at = np.stack([np.full(64, Space.MAIN), np.arange(64)], axis=1).astype(np.uint32)
    there.write(at, at[:, 1])
    assert np.array_equal(there.read(at), at[:, 1])


def test_garbage_between_sessions(machine, program, images, golden):
    rng = random.Random(5)
    for _ in range(4):
        machine.send(rng.randbytes(5_000))
        machine.run_until_quiet(10_000_000)
        board = Board(SimulatedLine(machine))
        board.load(program)
        same(board.run(images[:2]), golden)


def test_wrong_weights_are_found_by_their_answers(machine, program, images, golden):
    """What a damaged write leaves that passed its CRC: here another host's."""
    line = SimulatedLine(machine)
    board = Board(line)
    board.load(program)
    other = net()
    with torch.no_grad():
        other[4].weight[:, :8] *= -1
    other = celosia.compile(other, np.zeros((1, 1, 8, 8), np.float32))
    here, there = (made.program.entries.view("<u2").reshape(-1, ENTRY_WORDS)
                   for made in (program, other))
    frames = [protocol.paced(encode_write(
        Space.MAIN, ENTRY_WORDS * int(word), there[word].tolist(), element_bytes=2))
        for word in np.flatnonzero((here != there).any(axis=1))]
    assert frames
    line.write(b"".join(frames), 1)
    while line.read(0.01):
        pass
    driver = board._driver
    assert not driver._right(whole=True)
    words = []
    driver.notice = words.append
    line._to_board = damaging("flip", 0.003, 9)
    same(board.run(images), golden)
    assert words


def test_the_array_is_kept_busy(program):
    with VirtualBoard(program.target, program.array) as machine:
        board = Board(SimulatedLine(machine))
        board.load(program)
        starts = machine.starts
        done = board.repeat(0.1)
    assert machine.starts - starts == done.runs
    assert done.busy == pytest.approx(
        done.runs * program.predicted_cycles / machine.clock_hz / done.seconds)
    assert 0.1 < done.busy < 1


def test_silence_is_not_waited_for_long(machine):
    line = SimulatedLine(machine, to_host=lambda data: b"")
    with pytest.raises(celosia.CelosiaError, match="nothing answers at 1,000,000 baud"):
        Board(line)
    assert SILENCE <= line.now() < 3 * SILENCE


def test_what_is_no_celosia_is_told_from_silence(machine):
    line = SimulatedLine(machine, to_host=lambda data: b"U-Boot 2026.10\r\n")
    with pytest.raises(celosia.CelosiaError, match="no Celosia sends them"):
        Board(line)


def test_another_array_is_named(machine, program):
    board = Board(SimulatedLine(machine))
    other = celosia.compile(net(), np.zeros((1, 1, 8, 8), np.float32), target="hx8k-b-evn")
    with pytest.raises(celosia.CelosiaError, match="holds that of icebreaker.*--target"):
        board.load(other)
    with VirtualBoard("icebreaker", SMALL, byte_level=True) as own:
        board = Board(SimulatedLine(own))
        with pytest.raises(celosia.CelosiaError, match="holds one that this Celosia does not know"):
            board.load(program)


def test_another_version_is_named(machine, program):
    board = Board(SimulatedLine(machine))
    board.array_hash = array_hash(program.array, VERSION + 1)
    with pytest.raises(celosia.CelosiaError, match=(
            f"holds that of icebreaker.* in version {VERSION + 1} of the gateware, where this "
            f"Celosia has version {VERSION};")):
        board.load(program)
    board.array_hash = array_hash(target("hx8k").array, VERSION + 1)
    with pytest.raises(celosia.CelosiaError, match=f"that of hx8k in version {VERSION + 1} of"):
        board.load(program)


def test_nothing_runs_before_a_program_is_loaded(machine, images):
    board = Board(SimulatedLine(machine))
    assert not board.status().busy
    with pytest.raises(celosia.CelosiaError, match="no program was loaded"):
        board.run(images)


def test_words_of_any_width_come_back(machine, program):
    """Writes and reads of a block's part."""
    board = Board(SimulatedLine(machine))
    board.load(program)
    comes_back(board._machine, Space.MAIN, 16, np.random.default_rng(1))


def comes_back(there: Machine, space: Space, bits: int,
               rng: np.random.Generator) -> None:
    at = np.stack([np.full(64, space, np.uint32), np.arange(64, dtype=np.uint32)], axis=1)
    values = rng.integers(0, 1 << bits, 64).astype(np.uint32)
    there.write(at, values)
    assert np.array_equal(there.read(at), values)
    some = rng.permutation(64)[:9]
    assert np.array_equal(there.read(at[some]), values[some])


def test_frames_are_those_of_the_protocol():
    array = target("upduino").array
    at = np.array([[Space.MAIN, 4], [Space.MAIN, 5], [Space.EXPONENTS, 9], [Space.MAIN, 18]],
                  np.uint32)
    requests = Access.of(at, array).writes(np.array([1, 2, 31, 0xBEEF], np.uint32))
    assert requests.frames(first_tag=14) == [protocol.paced(frame) for frame in (
        encode_write(Space.MAIN, 4, [1, 2, 0, 0], element_bytes=2, tag=14),
        encode_write(Space.EXPONENTS, 8, [0, 31, 0, 0], element_bytes=2, tag=15),
        encode_write(Space.MAIN, 16, [0, 0, 0xBEEF, 0], element_bytes=2, tag=0))]
    at = np.array([[Space.MAIN, 4], [Space.REGISTERS, 2]], np.uint32)
    reads = Access.of(at, array).reads().frames(first_tag=3)
    assert reads[1] == protocol.paced(encode_read(Space.REGISTERS, 2, element_bytes=4, tag=4))


@pytest.mark.parametrize("memory", [memory for memory in MEMORIES if memory.depth(Array())],
                         ids=lambda memory: memory.name)
def test_what_a_memory_does_not_have_is_refused(memory):
    """One address beyond its last; writes where the machine alone writes."""
    array = target("upduino").array
    depth = memory.depth(array)
    last = Access.of(np.array([[memory.space, depth - 1]], np.uint32), array)
    with pytest.raises(ValueError, match=f"{memory.name} has {depth} addresses, not {depth + 1}"):
        Access.of(np.array([[memory.space, depth - 1], [memory.space, depth]], np.uint32), array)
    assert len(last.reads().frames(first_tag=0)) == 1
    if memory.writable:
        assert len(last.writes(np.zeros(1, np.uint32)).frames(first_tag=0)) == 1
    else:
        with pytest.raises(ValueError, match=f"{memory.name} cannot be written"):
            last.writes(np.zeros(1, np.uint32))
