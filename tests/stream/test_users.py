# amaranth: UnusedElaboratable=no
"""What users call, for a target with little main memory."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia.bands import session
from celosia.bands.report import main_memory
from celosia.board import Board
from celosia.cli import app
from celosia.cli.common import find_model
from celosia.compare import compare, count
from celosia.compress import prune_to_cycles
from celosia.compress.weights.prediction import Predictor
from celosia.verify import verify
from celosia_sim import golden
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine
from celosia_spec.errors import CelosiaError
from registered import registered
from stream.conftest import ARRAY

pytestmark = pytest.mark.usefixtures("target")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((3, 1, 28, 28)).astype(np.float32)


def test_the_simulated_machine_is_the_golden_model(program, images):
    found = verify(program, images)
    assert found.passed
    assert found.tensors == ("conv1", "conv2", "fc1", "fc2", "fc3", "x")
    assert found.values > 3 * 2000
    golden, simulated = celosia.run(program, images), celosia.run(program, images, "verilator")
    assert np.array_equal(golden.answer, simulated.answer)
    assert simulated.cycles.tolist() == [program.predicted_cycles] * 3


def test_every_lane_cycle_is_accounted_for(program):
    for layer in program.layers:
        assert sum(layer.lane_cycles.values()) == ARRAY.lanes * layer.predicted_cycles
        assert min(layer.lane_cycles.values()) >= 0
        assert layer.lane_cycles["useful"] == layer.macs <= ARRAY.lanes * layer.bound_cycles


def test_a_file_is_read_back(program, tmp_path):
    path = tmp_path / "net.celo"
    program.save(path)
    found = celosia.load(path)
    assert repr(found) == repr(program)
    assert found.layers == program.layers
    assert found.memory_use == program.memory_use
    assert found.fits


def test_a_file_for_another_array_is_refused(program, tmp_path):
    path = tmp_path / "net.celo"
    replace(program, target="ecp5-25f").save(path)
    with pytest.raises(CelosiaError, match=(
            r"its array's main_words is 4096, that of ecp5-25f \d+; compile the model again")):
        celosia.load(path)


def test_dense_and_sparse_side_by_side(program):
    found = compare(program)
    assert found.total.cycles_sparse == program.predicted_cycles
    assert found.total.cycles_dense > 2 * found.total.cycles_sparse
    assert all(layer.cycles_bound < layer.cycles_sparse for layer in found.layers)


def test_every_backend_tells_every_tensor_and_a_board_every_layers_cycles(program, target, images):
    """Its layers have several bands, and so lists of which single chunks are read."""
    names, wanted = ["x", "conv1", "conv2", "fc1", "fc2", "fc3"], golden.run(program.graph, images)

    def check(found, names=names):
        assert list(found.tensors) == names
        for name, tensor in found.tensors.items():
            assert np.array_equal(tensor.mantissa, wanted.mantissas[name]), name
            assert np.array_equal(tensor.exponent, wanted.exponents[name]), name
        assert np.array_equal(found.tensors[names[-1]].values, found.values) == ("fc3" in names)

    check(celosia.run(program, images, tensors=True))
    done = []
    check(celosia.run(program, images, "verilator", tensors=True,
                      progress=lambda *at: done.append(at)))
    assert done == sorted(done) and done[0] == (0, 3) and done[-1] == (3, 3)
    with VirtualBoard(target, byte_level=True) as virtual, Board(SimulatedLine(virtual)) as board:
        board.load(program)
        done.clear()
        check(board.run(images, tensors=True, progress=lambda *at: done.append(at)))
        assert done == sorted(done) and done[-1] == (3, 3)
        check(board.run(images, tensors=("fc1", "conv2")), ["conv2", "fc1"])
        *layers, total = count(program, board)
        assert [entry.name for entry in layers] == [layer.name for layer in program.layers]
        for entry, layer in zip(layers, program.layers, strict=True):
            assert entry.predicted == layer.predicted_cycles and entry.agrees
        assert total.predicted == program.predicted_cycles and total.agrees
        assert board.run(images).cycles.tolist() == [program.predicted_cycles] * 3


def test_a_layer_that_takes_longer_is_found(program, target, monkeypatch):
    """One cycle more of the second layer: on the board alone, and as the Verilog has it, too."""
    late = np.array([0, 1, 1, 1, 1])

    def count_late(board):
        return known(board) + late

    known = Board.count_to_each_end
    with VirtualBoard(target, byte_level=True) as virtual, Board(SimulatedLine(virtual)) as board:
        board.load(program)
        with monkeypatch.context() as patch:
            patch.setattr(Board, "count_to_each_end", count_late)
            found = count(program, board)
        assert [entry.name for entry in found if not entry.agrees] == ["conv2", "total"]
        patched = session.count_to_each_end
        monkeypatch.setattr(session, "count_to_each_end",
                            lambda *arguments: patched(*arguments) + late)
        found = count(program, board)
        assert [entry.simulated - entry.predicted for entry in found] == [0, 1, 0, 0, 0, 1]
        assert [entry.counted for entry in found] == [entry.simulated for entry in found]


def test_check_and_compile_tell_the_same(program, tmp_path):
    module, example = find_model("lenet5-pruned")
    # Mantissas for one machine are not taken for the other.
    for names in (["small"], ["ecp5-85f", "small"]):
        found = celosia.check(module, example[:1], targets=names)
        assert found.targets[-1].cycles == program.predicted_cycles
        if len(names) > 1:
            assert all((entry.layers, entry.memory) == ((), None) for entry in found.targets)
            continue
        [entry] = found.targets
        assert [(layer.name, layer.cycles) for layer in entry.layers] == [
            (layer.name, layer.predicted_cycles) for layer in program.layers]
        assert all(sum(layer.spent.values()) == layer.cycles for layer in entry.layers)
        assert entry.memory == main_memory(program.program)
        first, conv1, *_ = str(found).splitlines()
        assert first.startswith("small: ") and f"\n{entry.memory}" in str(found)
        assert conv1.startswith(f"conv1: {program.layers[0].predicted_cycles:,} cycles, steps ")
        assert f"fullest at {program.fullest_moment}" in str(entry.memory)
    result = CliRunner().invoke(app, ["compile", "lenet5-pruned", "--target", "small", "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["predicted_cycles"] <= program.predicted_cycles     # its pixels have no sign
    assert told["memory"]["main memory"]["available"] == ARRAY.main_words
    moment = told["main_memory"]["fullest"]
    assert moment["layer"] == "conv1" and moment["available"] == ARRAY.main_words
    assert moment["used"] == moment["maps"] + moment["stream"]
    assert told["main_memory"]["flash_bytes"] == {}
    shown = CliRunner().invoke(app, ["compile", "lenet5-pruned", "--target", "small"]).stdout
    assert "what cycles were spent on" in shown
    assert "main memory is fullest at conv1: maps" in shown
    assert "fullest: main memory, at conv1: maps" in repr(program)


def test_what_does_not_fit_is_told_with_what_helps():
    module, example = find_model("lenet5")
    found = celosia.check(module, example[:1], targets="small")
    [entry] = found.targets
    assert not entry.fits
    assert "main memory: 63.6 KiB, room for 32" in str(found)
    assert any("prune it" in way for way in entry.remedies)
    assert not any("static" in way for way in entry.remedies)      # they take no less room
    assert entry.layers == () and not entry.memory.fits
    [needed] = (problem.needed for problem in entry.problems)
    assert entry.memory.needed * 8 / 1024 == needed
    call = ["check", "lenet5", "--target", "small"]
    shown = CliRunner().invoke(app, call, env={"COLUMNS": "80"}).stdout
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    begun = lines.index("main memory, 32 KiB as far as the |: a mark is 892 bytes")
    assert all(line.startswith(name) and line.index("|") == 6 + 73 * 4096 // entry.memory.needed
               for name, line in zip(("conv1", "conv2", "fc1", "fc2", "fc3"),
                                     lines[begun + 1:begun + 6], strict=True))
    assert "most is needed at conv1: maps" in shown and "map conv1: " in shown
    assert "map fc1: " not in shown                                # it is not there then
    assert shown.index("most is needed") < shown.index("it fits if you prune it")
    [told] = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)["targets"]
    assert told["main_memory"]["fullest"]["used"] > told["main_memory"]["fullest"]["available"]
    assert [piece["name"] for piece in told["memory"]][:3] == ["stream", "x", "conv1"]


class Wide(nn.Module):
    """A kernel with more taps than the array has, maps of which no line fits its banks, and more
    weights than main memory holds."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 400, 20), nn.Conv2d(400, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.c(self.b(torch.relu(self.a(x))))


def test_all_that_is_in_the_way_is_told():
    found = celosia.check(Wide(), np.zeros((1, 1, 30, 30), np.float32), targets="small")
    [entry] = found.targets
    assert [(problem.layer, problem.what, problem.at_least) for problem in entry.problems] == [
        ("a", "taps", False), ("b", "rows of the banks", False), ("a", "main memory", True)]
    assert "taps: 400, room for 256" in str(found)
    assert not any("static" in (problem.remedy or "") for problem in entry.problems)


def test_inputs_that_are_never_below_zero_have_no_sign(program):
    """By what is known of pixels, or of calibration inputs."""
    module, example = find_model("lenet5-pruned")
    pixels = celosia.Preprocessing(scale=1 / 256)
    known = celosia.compile(module, example[:1], target="small", preprocessing=pixels)
    assert not known.graph.tensors[known.graph.input].signed
    assert known.predicted_cycles <= program.predicted_cycles
    with pytest.raises(CelosiaError, match="reaches down to -1"):
        celosia.run(known, np.full((1, 1, 28, 28), -1, np.float32))
    for values, signed in ((np.ones, False), (lambda shape: -np.ones(shape), True)):
        made = celosia.compile(module, example[:1], target="small", exponents="static",
                               calibration=values((2, 1, 28, 28)).astype(np.float32))
        assert made.graph.tensors[made.graph.input].signed == signed
    centred = replace(pixels, mean=(0.5,))
    assert not centred.unsigned


def test_what_has_too_little_room_is_predicted_and_pruned_until_it_fits(target):
    torch.manual_seed(0)
    module, example = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 10)).eval(), \
        np.zeros((1, 300), np.float32)
    found = Predictor(example, target="small")(module)
    assert re.search(r"words of main memory, the array has 4096; prune more", found.problem)
    assert found.cycles == sum(plan.cycles for plan in found.layers.values()) + found.fixed
    with pytest.raises(CelosiaError, match="of main memory, the array has 4096; "):
        celosia.compile(module, example, target="small")
    prune_to_cycles(module, example_input=example, budget=10**6, target="small")
    assert celosia.compile(module, example, target="small").memory_use[0].used > 0.85 * 4096


def test_predictions_are_those_of_the_program(program):
    module, example = find_model("lenet5-pruned")
    found = Predictor(example[:1], target="small")(module)
    assert found.cycles == program.predicted_cycles
    assert found.macs == sum(layer.macs for layer in program.layers)
    assert 0 < found.fixed < found.cycles / 2


def test_rows_are_narrowed_where_sums_have_24_bits(target, tmp_path):
    """As `check`, prediction, program and machine agree, also when the network is pruned; where
    sums may have 32 bits, they have."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(600, 9), nn.ReLU(), nn.Linear(9, 4)).eval()
    with torch.no_grad():
        model[0].weight[::2] += 0.03
    x = np.random.default_rng(3).random((2, 600)).astype(np.float32)
    remark = "weights have 7 bits in 5 of 9 rows of 0, so that sums fit 24-bit accumulators"
    array = replace(ARRAY, drain=1, fill=2)
    with registered(replace(target, name="narrow", device=replace(target.device, array=array))):
        program = celosia.compile(model, x[:1], target="narrow")
        assert program.remarks == (remark,)
        assert verify(program, x).passed
        found = celosia.check(model, x[:1], targets=["narrow", "small"])
        assert str(found).endswith(f"\nnarrow\n  {remark}")
        assert found.targets[0].cycles == program.predicted_cycles
        program.save(tmp_path / "net.celo")
        assert celosia.load(tmp_path / "net.celo").remarks == (remark,)
        predict = Predictor(x[:1], target="narrow").imported(model)
        assert predict({}).cycles == program.predicted_cycles
        kept = model[0].weight.detach().abs().numpy() > 0.02
        predicted = predict({"0": kept})
        with torch.no_grad():
            model[0].weight *= torch.from_numpy(kept)
        pruned = celosia.compile(model, x[:1], target="narrow")
        assert (predicted.cycles, predicted.macs) == (
            pruned.predicted_cycles, sum(layer.macs for layer in pruned.layers))
        assert pruned.remarks == (remark.replace("5 of", "4 of"),)
    wide = celosia.compile(model, x[:1], target="small")
    assert (wide.accumulator_bits, wide.remarks) == (32, ())


@pytest.mark.icarus
def test_icarus_agrees(program, images):
    wanted, simulated = (celosia.run(program, images[:1], name) for name in ("golden", "icarus"))
    assert np.array_equal(wanted.answer, simulated.answer)
    assert simulated.cycles.tolist() == [program.predicted_cycles]
