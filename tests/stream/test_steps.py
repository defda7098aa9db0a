"""Networks in steps of time: each step's results are those of the window that ends with it, on the
golden model, the machine of words, the gateware and boards."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia.bands.schedule import stream_schedule
from celosia.bands.stepping import Stepping, simulated_steps
from celosia.bands.steps import steps
from celosia.board import Board
from celosia.cli import app
from celosia.compare import compare
from celosia.program import program_of
from celosia.verify import verify
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError, SimulationError
from celosia_spec.isa.array import Array
from celosia_spec.steps import Ring
from stream.compared import compare_steps
from stream.temporal import read_together, stream_for, temporal
from stream.test_flash_rtl import ARRAY as FLASH_ARRAY

ARRAYS = (Array(clamp=True), Array(lanes=8, bank_rows=256, ring=64, clamp=True),
          Array(clamp=True, drain=1, fill=2))


@settings(max_examples=80, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_golden_steps_are_golden_windows(data):
    graph = data.draw(temporal())
    least = steps(graph).hop
    most = graph.tensors["x"].shape[1] // least
    found = steps(graph, least * data.draw(st.integers(1, most)))
    compare_steps(graph, found, stream_for(graph, found.first + 6, found.hop))


@pytest.mark.parametrize("array", ARRAYS, ids=["16", "8", "one lane"])
@settings(max_examples=25, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_machine_of_words(array, data):
    graph = data.draw(temporal())
    least = steps(graph).hop
    found = steps(graph, least * data.draw(st.integers(
        1, graph.tensors["x"].shape[1] // least)))
    compare_steps(graph, found, stream_for(graph, found.first + found.period, found.hop), array)


def test_maps_that_are_read_together():
    graph = read_together()
    found = steps(graph)
    assert {name for name, tensor in found.graph.tensors.items()
            if isinstance(tensor, Ring)} == {"x", "a", "b", "c"}
    compare_steps(graph, found, stream_for(graph, 40, 1), ARRAYS[0])


# What users call

WINDOW = 12


class Listener(nn.Module):
    """Separable convolutions over time, and a head over what is left of the window."""

    def __init__(self, across=False):
        super().__init__()
        torch.manual_seed(0)
        self.across = across

        def conv(before, after, kernel, groups=1, stride=1):
            sizes = (1, kernel) if across else (kernel, 1)
            return nn.Conv2d(before, after, sizes, groups=groups,
                             stride=(1, stride) if across else (stride, 1))

        self.layers = nn.Sequential(
            conv(6, 6, 3, 6), conv(6, 12, 1), nn.ReLU(), conv(12, 12, 4, 12), conv(12, 8, 1),
            nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7, 5))

    def forward(self, x):
        return self.layers(x)


def windows(stream, hop=1):
    """Return all windows of steps (N, C, hop, W)."""
    lines = np.concatenate(list(stream), axis=1)
    return np.stack([lines[:, end - WINDOW:end]
                     for end in range(hop, lines.shape[1] + 1, hop) if end >= WINDOW])


@pytest.fixture(scope="module")
def calibration():
    return np.random.default_rng(0).random((8, 6, WINDOW, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def listener(target, calibration):
    return celosia.compile(Listener(), calibration[:1], target="small", exponents="static",
                           calibration=calibration, stream="time")


@pytest.fixture(scope="module")
def whole(target, calibration):
    return celosia.compile(Listener(), calibration[:1], target="small", exponents="static",
                           calibration=calibration)


@pytest.fixture(scope="module")
def sound():
    return np.random.default_rng(1).random((34, 6, 1, 1)).astype(np.float32)


def test_steps_are_windows_on_the_gateware(listener, whole, sound):
    assert (listener.steps.hop, listener.steps.lines, listener.steps.first) == (1, WINDOW, WINDOW)
    right = celosia.run(whole, windows(sound))
    for backend in ("golden", "verilator"):
        found = celosia.run(listener, sound, backend)
        assert len(found.mantissa) == 23
        assert np.array_equal(found.mantissa, right.mantissa)
        assert np.array_equal(found.exponent, right.exponent)
        assert np.array_equal(found.answer, right.answer)
    period = len(listener.step_cycles)
    assert period == listener.steps.period == 7
    assert found.cycles.tolist() == [listener.step_cycles[step % period] for step in range(11, 34)]
    assert listener.predicted_cycles == max(listener.step_cycles)


KEPT = ["x", "layers.1", "layers.4", "layers.7"]


def newest(right, name, made):
    """Return the lines that each window has more than the one before."""
    return right.tensors[name].mantissa[:, :, -made:]


def test_what_is_kept_is_what_windows_store(listener, whole, sound):
    right = celosia.run(whole, windows(sound), tensors=True)
    for backend in ("golden", "verilator"):
        found = celosia.run(listener, sound, backend, tensors=True)
        assert list(found.tensors) == KEPT
        for name, tensor in found.tensors.items():
            assert np.array_equal(tensor.mantissa, newest(right, name, 1)), name
            assert np.array_equal(tensor.exponent, right.tensors[name].exponent), name
    with celosia.stream(listener, "verilator", tensors=["layers.4"]) as stream:
        *_, last = map(stream.run, sound)
    assert list(last.tensors) == ["layers.4"]
    assert np.array_equal(last.tensors["layers.4"].values, found.tensors["layers.4"].values[-1:])


def test_what_is_not_kept_is_told_of_windows(listener, whole, sound):
    with pytest.raises(CelosiaError, match=(
            r"^tensors: of a step x, layers\.1, layers\.4, layers\.7 are kept, and layers\.0 is "
            r"not; leave it out, or compile the model without stream$")):
        celosia.run(listener, sound, tensors=["x", "layers.0"])
    assert "layers.0" in celosia.run(whole, windows(sound), tensors=["layers.0"]).tensors


def test_one_step_at_a_time(listener, whole, sound):
    right = celosia.run(whole, windows(sound)).mantissa
    with celosia.stream(listener, "verilator") as stream:
        for _ in range(2):
            found = [stream.run(x) for x in sound[:20]]
            assert found[:11] == [None] * 11
            assert np.array_equal([own.mantissa[0] for own in found[11:]], right[:9])
            stream.reset()
        with pytest.raises(CelosiaError, match=r"a step takes \(6, 1, 1\); give it the new lines"):
            stream.run(sound)


def test_an_error_amid_what_is_taken_again(listener, whole, sound):
    """What the machine kept was lost, and taking it again broke off: it is taken again from the
    begin."""
    right = celosia.run(whole, windows(sound)).mantissa
    with simulated_steps(listener.program) as machine:
        for x in sound[:15]:
            machine.run(x)
        carried = machine._execute
        other = Stepping(listener.program, carried)
        for x in sound[20:27]:
            other.run(x)
        calls = []

        def breaks(job, step):
            calls.append(step)
            if len(calls) == 4:
                raise SimulationError("the line broke")
            return carried(job, step)

        machine._execute = breaks
        with pytest.raises(SimulationError, match="the line broke"):
            machine.run(sound[15])
        for step in (15, 16):
            assert np.array_equal(machine.run(sound[step]).output.ravel(), right[step - 11].ravel())


def test_verify_compares_every_step(listener, sound):
    found = verify(listener, sound)
    assert found.passed
    assert found.images == 23
    assert found.tensors == tuple(sorted(KEPT))
    assert found.values == 23 * (6 + 12 + 8 + 5 + 4)


def test_verify_names_what_a_step_kept_wrong(listener, sound, monkeypatch):
    def wrong(*arguments):
        found, calls[0] = read(*arguments), calls[0] + 1
        if calls[0] == 15:
            found["layers.4"][0][0, 2] += 3
        return found

    read, calls = Stepping._read, [0]
    monkeypatch.setattr(Stepping, "_read", wrong)
    first = verify(listener, sound).first_mismatch
    assert (first.tensor, first.image, first.element) == ("layers.4", 15 - WINDOW, (2, 0, 0))
    assert first.got - first.expected == 3


@pytest.mark.parametrize("hop", [3, 12])
def test_steps_of_several_lines(hop, target, calibration, whole):
    made = celosia.compile(Listener(), calibration[:1], target="small", exponents="static",
                           calibration=calibration, stream="time", hop=hop)
    stream = np.random.default_rng(2).random((9, 6, hop, 1)).astype(np.float32)
    right = celosia.run(whole, windows(stream, hop), tensors=True)
    for backend in ("golden", "verilator"):
        found = celosia.run(made, stream, backend, tensors=True)
        assert np.array_equal(found.mantissa, right.mantissa)
        for name, tensor in found.tensors.items():
            assert np.array_equal(tensor.mantissa, newest(right, name, tensor.mantissa.shape[2]))
    assert made.steps.first == -(-WINDOW // hop)


def test_time_along_columns(target, calibration, listener, sound):
    across = np.swapaxes(calibration, 2, 3)
    made = celosia.compile(Listener(across=True), across[:1], target="small", exponents="static",
                           calibration=across, stream="time")
    assert made.step_cycles == listener.step_cycles
    assert np.array_equal(celosia.run(made, sound.reshape(-1, 6, 1, 1)).mantissa,
                          celosia.run(listener, sound).mantissa)


def test_a_file_is_read_back(listener, tmp_path):
    path = tmp_path / "net.celo"
    listener.save(path)
    found = celosia.load(path)
    assert repr(found) == repr(listener)
    assert (found.steps.hop, found.step_cycles) == (1, listener.step_cycles)
    assert np.array_equal(found.program.entries, listener.program.entries)


def test_a_sparse_step_beside_a_dense_one(listener):
    found = compare(listener)
    assert found.total.cycles_sparse == listener.predicted_cycles <= found.total.cycles_dense


@pytest.mark.parametrize("damaged", [False, True])
def test_a_board_keeps_its_state(damaged, listener, whole, sound):
    """A board that is reset in the middle, and boots what is in its flash, but nothing of what was
    kept; also over a line that loses and changes bytes."""
    rng, damages = random.Random(3), []

    def damage(data: bytes) -> bytes:
        kept = bytes(byte ^ (rng.random() < 6e-5) for byte in data if rng.random() > 6e-5)
        damages.append(kept != data)
        return kept

    program = program_of(stream_schedule(
        listener.program.source, FLASH_ARRAY, listener.steps), target="small", exponents="static")
    right = celosia.run(whole, windows(sound), tensors=True)
    with VirtualBoard("icebreaker", FLASH_ARRAY, byte_level=True, image=program.image) as virtual:
        line = SimulatedLine(virtual, to_board=damage, to_host=damage) if damaged else (
            SimulatedLine(virtual))
        with Board(line) as board:
            board.load(program)
            stream = board.stream(tensors=True)
            found = []
            for x in sound:
                if len(found) in (15, 25):
                    virtual.reset()
                    virtual.run_until_quiet(100_000)
                found.append(stream.run(x))
            assert np.array_equal([own.mantissa[0] for own in found[11:]], right.mantissa)
            for name in KEPT:
                assert np.array_equal([own.tensors[name].mantissa[0] for own in found[11:]],
                                      newest(right, name, 1)), name
            assert any(damages) == damaged
            with pytest.raises(CelosiaError, match=r"give them to board.stream\(\)"):
                board.run(sound)


def test_the_commands(target, calibration, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "listening.py").write_text(
        "from stream.test_steps import Listener\ndef make():\n    return Listener().eval()\n")
    inputs, path = str(tmp_path / "x.npy"), str(tmp_path / "net.celo")
    np.save(inputs, calibration)
    call = ["compile", "listening:make", "--target", "small", "--calibration", inputs,
            "--exponents", "static", "--stream", "time", "-o", path]
    told = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)["steps"]
    assert (told["hop"], told["lines"], told["first"], told["period"]) == (1, 12, 12, 7)
    assert len(told["cycles"]) == 7
    assert told["window_cycles"] > 0
    shown = " ".join(CliRunner().invoke(app, call).stdout.split())
    assert f"a step of 1 line takes {min(told['cycles']):,} to {max(told['cycles']):,}" in shown
    assert f"a window of 12 lines in one go takes {told['window_cycles']:,}" in shown
    assert "the first result comes with step 12" in shown
    np.save(inputs, np.zeros((11, 6, 1, 1), np.float32))
    result = CliRunner().invoke(app, ["run", path, "--input", inputs])
    assert result.exit_code == 1
    assert "11 steps of 1 lines, and the first window is whole with 12" in result.output


class Strided(nn.Module):
    def __init__(self, padding=0):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(2, 4, (3, 1), stride=(2, 1)), nn.Conv2d(4, 3, (3, 1))
        self.c = nn.Conv2d(3, 2, (2, 1), padding=(padding, 0))

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"exponents": "dynamic"}, ArgumentError, "dynamic exponents are found for each window anew"),
    ({"stream": "space"}, ArgumentError, "stream must be 'time' or None, not 'space'"),
    ({"stream": None, "hop": 2}, ArgumentError, "hop is the lines of a step of time"),
    ({"hop": 13}, ArgumentError, "hop must be 1 to 12, the lines of a window, not 13"),
    ({"hop": 3}, CompileError, r"a.*: a step of 3 lines brings it 3, and it takes every 2th; take "
                               r"steps of 2 lines, or a multiple \(hop=2\)"),
    ({"padding": 1}, CompileError, "c.*: it pads time by 1 lines before and 1 behind, and in a "
                                   "stream other lines stand there; pad no time")])
def test_what_cannot_be_is_refused_in_one_line(changes, error, message, target):
    inputs = np.random.default_rng(0).random((2, 2, 12, 1)).astype(np.float32)
    padding = changes.pop("padding", 0)
    settings = {"target": "small", "exponents": "static", "calibration": inputs,
                "stream": "time"} | changes
    with pytest.raises(error, match=message):
        celosia.compile(Strided(padding), inputs[:1], **settings)


def test_a_stride_makes_steps_longer(target):
    inputs = np.random.default_rng(0).random((20, 2, 12, 1)).astype(np.float32)
    made, right = (celosia.compile(Strided(), inputs[:1], target="small", exponents="static",
                                   calibration=inputs, stream=stream) for stream in ("time", None))
    assert made.steps.hop == 2
    stream = np.concatenate(list(inputs), axis=1)[:, :40].reshape(2, 20, 2, 1).swapaxes(0, 1)
    found, wanted = celosia.run(made, stream), celosia.run(right, windows(stream, 2))
    assert found.mantissa.shape == (15, 2, 1, 1)
    assert np.array_equal(found.mantissa, wanted.mantissa[:, :, -1:])


def test_a_program_of_whole_windows_has_no_steps(whole):
    with pytest.raises(CelosiaError, match="computes whole windows"), celosia.stream(whole):
        pass
