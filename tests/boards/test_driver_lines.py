"""The driver where replies come that nobody waits for any more, or registers are lost: every number
that it returns is right all the same."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import celosia
from celosia.board import Board
from celosia.program import Program
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import Killed, SimulatedLine

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

pytestmark = pytest.mark.usefixtures("impatient")


class Stop(Exception):
    """What a user's own code raises, or Ctrl-C."""


class Trickle(SimulatedLine):
    """Gives the host a few bytes at a time, as serial ports do."""

    kept = b""

    def read(self, timeout_s: float) -> bytes:
        self.kept = self.kept or super().read(timeout_s)
        some, self.kept = self.kept[:4], self.kept[4:]
        return some


def compiled(net: nn.Module, *shape: int, **settings: Any) -> Program:
    return celosia.compile(net.eval(), np.zeros((1, *shape), np.float32),
                           **{"target": "hx8k"} | settings)


def drawn(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, *shape)).astype(np.float32)


def small(seed: int, **settings: Any) -> Program:
    torch.manual_seed(seed)
    return compiled(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                                  nn.Flatten(), nn.Linear(64, 6)), 1, 8, 8, **settings)


@pytest.fixture(scope="module")
def program() -> Program:
    return small(7)


@pytest.fixture(scope="module")
def wide() -> Program:
    """Of so many outputs that there are reads of every tag on their way at once."""
    torch.manual_seed(1)
    return compiled(nn.Sequential(nn.Linear(16, 100)), 16)


@pytest.fixture
def machine(program: Program) -> Iterator[VirtualBoard]:
    with VirtualBoard(program.target, program.array, byte_level=True) as board:
        yield board


def flipping(rate: float, seed: int) -> Callable[[bytes], bytes]:
    rng = random.Random(seed)
    return lambda data: bytes(byte ^ (rng.random() < rate) << rng.randrange(8) for byte in data)


def damage(board: Board, rate: float, seed: int) -> None:
    board._line._to_board, board._line._to_host = flipping(rate, seed), flipping(rate, seed + 99)


def same(result: celosia.RunResult, golden: celosia.RunResult) -> None:
    assert np.array_equal(result.mantissa, golden.mantissa)
    assert np.array_equal(result.exponent, golden.exponent)
    assert np.array_equal(result.saturated, golden.saturated)


def test_reads_on_their_way_are_not_taken_for_a_greeting(machine, wide):
    """One damaged byte of what the board sends, at moments all over a run."""
    x = drawn(6, 16)
    golden, line = celosia.run(wide, x), SimulatedLine(machine)
    board = Board(line)
    board.load(wide)
    begun = line.received
    same(board.run(x), golden)
    for part in range(24):
        at, seen = begun + (line.received - begun) * part // 24, 0

        def once(data: bytes, at: int = at) -> bytes:
            nonlocal seen
            place, seen = at - seen, seen + len(data)
            if 0 <= place < len(data):
                data = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1:]
            return data

        board = Board(SimulatedLine(machine, to_host=once, most=16))
        board.load(wide)
        same(board.run(x), golden)
        assert seen > at and board._machine.damages


def test_reads_of_a_host_that_died_are_not_taken_for_a_greeting(machine, wide):
    x = drawn(6, 16)
    golden, line = celosia.run(wide, x), SimulatedLine(machine)
    board = Board(line)
    board.load(wide)
    begun = line.sent
    board.run(x)
    for part in range(24):
        dying = SimulatedLine(
            machine, dies_after=begun + (line.sent - begun) * (part + 1) // 25)
        with suppress(Killed):
            board = Board(dying)
            board.load(wide)
            board.run(x)
        assert dying.sent < line.sent
        board = Board(SimulatedLine(machine, most=16))
        assert board.array_hash == wide.array.hash
    board.load(wide)
    same(board.run(x), golden)


@pytest.mark.parametrize("outputs", [2, 4, 6, 8])
def test_a_run_that_was_interrupted_leaves_nothing(machine, outputs):
    """The next one must not take the replies of the one before for its own."""
    torch.manual_seed(outputs)
    program = compiled(nn.Sequential(nn.Linear(24, outputs)), 24)
    x, y = drawn(40, 24), drawn(12, 24)
    golden = celosia.run(program, y)
    board = Board(Trickle(machine))
    board.load(program)
    for last in range(1, 16):
        def progress(done: int, of: int, last: int = last) -> None:
            if done == last:
                raise Stop

        with pytest.raises(Stop):
            board.run(x, progress=progress)
        same(board.run(y), golden)


def test_the_board_may_be_asked_while_it_runs(machine, program):
    x = drawn(12, 1, 8, 8)
    board = Board(SimulatedLine(machine))
    board.load(program)
    same(board.run(x, progress=lambda done, of: board.status()), celosia.run(program, x))


def test_a_load_that_was_interrupted_leaves_no_program(machine):
    """Two programs that differ in their weights alone."""
    one, other = small(7, sparse=False), small(8, sparse=False)
    assert len(one.program.entries) == len(other.program.entries)
    x = drawn(4, 1, 8, 8)
    board = Board(SimulatedLine(machine))
    board.load(one)

    def progress(done: int, of: int) -> None:
        if done == of:
            raise Stop

    with pytest.raises(Stop):
        board.load(other, progress=progress)
    with pytest.raises(celosia.CelosiaError, match="no program was loaded"):
        board.run(x)
    assert not board.status().busy
    board.load(other)
    same(board.run(x), celosia.run(other, x))


def test_resets_are_counted_anew_for_every_run(machine, program):
    """A board that is reset now and then goes on for ever, as `celosia live` asks of it."""
    x = drawn(1, 1, 8, 8)
    golden, words = celosia.run(program, x), []
    board = Board(SimulatedLine(machine), on_notice=words.append)
    board.load(program)
    for _ in range(12):
        machine.reset()
        same(board.run(x), golden)
    assert len(words) == 12


@pytest.mark.parametrize("seed", range(5))
def test_counters_are_right_over_a_damaging_line(machine, program, seed):
    board = Board(SimulatedLine(machine))
    board.load(program)
    right = board.counters()
    damage(board, 0.01, seed)
    assert board.counters() == right
    assert board._machine.damages


@pytest.mark.parametrize("seed", range(3))
def test_layers_are_counted_right_over_a_damaging_line(machine, program, seed):
    board = Board(SimulatedLine(machine))
    board.load(program)
    right = board.count_to_each_end().tolist()
    damage(board, 0.01, seed)
    assert board.count_to_each_end().tolist() == right
    assert board._machine.damages


def test_counters_are_right_after_a_reset_at_any_moment(program):
    def session(resets: list[float]) -> tuple[dict[str, int], float, float]:
        with VirtualBoard(program.target, program.array, byte_level=True) as machine:
            line = SimulatedLine(machine, latency_s=0.0002, resets=resets)
            board = Board(line)
            board.load(program)
            begun = line.now()
            return board.counters(), begun, line.now()

    right, begun, end = session([])
    for part in range(40):
        assert session([begun + (end - begun) * (part + 0.5) / 40])[0] == right


@pytest.mark.parametrize("seed", range(6))
def test_every_tensor_is_right_over_a_damaging_line(machine, program, seed):
    x = drawn(3, 1, 8, 8)
    board = Board(SimulatedLine(machine))
    board.load(program)
    right = board.simulate(x, tensors=True).tensors
    damage(board, 0.01, seed)
    found = board.simulate(x, tensors=True).tensors
    for name, (mantissa, exponent) in right.items():
        assert np.array_equal(found[name][0], mantissa)
        assert np.array_equal(found[name][1], exponent)


@pytest.mark.parametrize("seed", range(3))
def test_many_outputs_over_a_damaging_line(machine, wide, seed):
    x = drawn(3, 16)
    board = Board(SimulatedLine(machine))
    board.load(wide)
    damage(board, 0.01, seed)
    same(board.run(x), celosia.run(wide, x))


@pytest.mark.parametrize("baud", [0, -5, 2.5, float("nan"), "fast", 10 ** 30])
def test_baud_rates_that_are_none(baud):
    with pytest.raises(celosia.CelosiaError, match="give a whole number of bits a second"):
        celosia.connect("/dev/null", baud=baud)


def test_energy_takes_what_a_meter_shows(tmp_path, program):
    from typer.testing import CliRunner

    from celosia.cli import app

    program.save(tmp_path / "p.celo")
    done = CliRunner().invoke(app, ["energy", str(tmp_path / "p.celo"), "--idle", "inf", "--busy",
                                    "inf"])
    assert done.exit_code == 1 and "such as 12.5" in done.stderr


def test_cycles_that_are_not_those_predicted_are_a_result(machine, program):
    """And every tensor is read, all the same."""
    x = drawn(2, 1, 8, 8)
    board = Board(SimulatedLine(machine))
    board.load(program)
    right = board.simulate(x, tensors=True)
    first, *others = program.layers
    wrong = replace(first, predicted_cycles=first.predicted_cycles + 5)
    board._program = replace(program, layers=(wrong, *others))
    found = board.simulate(x, tensors=True)
    assert np.array_equal(found.cycles, right.cycles)
    for name, (mantissa, _) in right.tensors.items():
        assert np.array_equal(found.tensors[name][0], mantissa)
