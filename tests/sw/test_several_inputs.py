"""Networks that take several tensors: parts of the one that the machine reads."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import celosia
from celosia.cli import app
from celosia.noise import against_float
from celosia.passes import optimise
from celosia.widths import widths
from celosia_spec import container
from celosia_spec.errors import CelosiaError, CompileError
from celosia_spec.network_inputs import joined
from float_graph import interpret
from stream.compared import compare

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from celosia.frontend import import_model  # noqa: E402

TARGET = "ulx3s-85f"


class Two(nn.Module):
    """A forward pass given as a function of layers, a and b."""

    def __init__(self, function, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, a, b):
        return self.function(*self.layers, a, b)


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(4, 4)

    def forward(self, left, right, more):
        return {"y": self.a(left) + self.b(right), "z": self.c(F.relu(self.a(left))) + more}


def conv(rows: int, channels: int, kernel: int = 3, **fields) -> nn.Module:
    return nn.Conv2d(channels, rows, kernel, padding=kernel // 2, **fields)


MAP = (1, 3, 8, 8)
class Cell(nn.Module):
    """A recurrent layer's step: its state is an input."""

    def __init__(self, cell: nn.Module, states: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cell, self.states = cell, states

    def forward(self, x, h, c=None):
        found = self.cell(x, (h, c) if self.states > 1 else h)
        return torch.cat(found, 1) if self.states > 1 else found


NETWORKS = {    # the network, the shapes of its inputs, the shape of the one that the machine has
    "vectors": (lambda: Two(lambda l, m, a, b: l(a) + m(b), nn.Linear(16, 4), nn.Linear(10, 4)),
                [(1, 16), (1, 10)], (26,)),
    "vectors, joined": (lambda: Two(lambda l, a, b: l(torch.cat([b, a], 1)), nn.Linear(26, 4)),
                        [(1, 16), (1, 10)], (26,)),
    "a pair for one layer": (lambda: Two(lambda l, a, b: l(a) - l(b), nn.Linear(16, 4)),
                             [(1, 16), (1, 16)], (32,)),
    "maps": (lambda: Two(lambda l, m, a, b: l(a) + m(b), conv(4, 3), conv(4, 2)),
             [MAP, (1, 2, 8, 8)], (5, 8, 8)),
    "maps, joined": (lambda: Two(lambda l, a, b: l(torch.cat([a, b], 1)), conv(4, 5)),
                     [MAP, (1, 2, 8, 8)], (5, 8, 8)),
    "maps, added": (lambda: Two(lambda l, a, b: l(a + b), conv(4, 3)), [MAP, MAP], (6, 8, 8)),
    "maps, pooled": (lambda: Two(lambda l, a, b: l(F.max_pool2d(b, 2)) + a, conv(3, 2)),
                     [(1, 3, 4, 4), (1, 2, 8, 8)], (5, 8, 8)),
    "lines": (lambda: Two(lambda l, m, a, b: l(a) + m(b), nn.Conv1d(3, 4, 3), nn.Conv1d(2, 4, 3)),
              [(1, 3, 16), (1, 2, 16)], (5, 16)),
    "one is not read": (lambda: Two(lambda l, a, b: l(b), nn.Linear(10, 4)), [(1, 16), (1, 10)],
                        (26,)),
    "a map and a vector": (lambda: Two(
        lambda l, m, o, a, b: o(torch.cat([F.relu(l(a)).mean((2, 3)), F.relu(m(b))], 1)),
        conv(6, 1), nn.Linear(10, 5), nn.Linear(11, 3)), [(1, 1, 8, 8), (1, 10)], (2, 8, 8)),
    "a long vector and a map": (lambda: Two(
        lambda l, m, o, a, b: o(torch.cat([F.relu(l(a)), F.relu(m(b)).flatten(1)], 1)),
        nn.Linear(100, 5), conv(6, 1), nn.Linear(6 * 64 + 5, 3)), [(1, 100), (1, 1, 8, 8)],
        (3, 8, 8)),
    "maps of two sizes": (lambda: Two(lambda l, m, a, b: l(a) + m(b), conv(4, 1, stride=2),
                                      conv(4, 2)), [(1, 1, 16, 16), (1, 2, 8, 8)], (3, 16, 16)),
    "high and wide": (lambda: Two(
        lambda l, m, a, b: l(a).mean((2, 3)) + m(b).mean((2, 3)), conv(4, 1), conv(4, 1)),
        [(1, 1, 12, 4), (1, 1, 4, 12)], (2, 12, 12)),
    "a map and a line": (lambda: Two(
        lambda l, m, a, b: l(a).mean((2, 3)) + m(b).mean(2), conv(4, 1), nn.Conv1d(2, 4, 3)),
        [(1, 1, 8, 8), (1, 2, 8)], (3, 8, 8)),
    "three, and two outputs": (Three, [(1, 6), (1, 5), (1, 4)], (15,)),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(4)
    return NETWORKS[name][0]().eval()


def inputs(shapes: list[tuple[int, ...]], count: int = 4) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    return tuple(rng.normal(size=(count, *shape[1:])).astype(np.float32) for shape in shapes)


def wanted(model: nn.Module, x: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Return the tensors that a model returns, of N inputs one by one."""
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        found = [[leaf.numpy() for leaf in tree_leaves(
            model(*(torch.from_numpy(part[at:at + 1]) for part in x)))] for at in range(len(x[0]))]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def decibels(right: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(right).sum() / np.square(found - right).sum()))


@pytest.mark.parametrize("name", NETWORKS)
def test_several_inputs_give_what_pytorch_gives(name: str, tmp_path: Path) -> None:
    _, shapes, whole = NETWORKS[name]
    model, x = made(name), inputs(shapes)
    program = celosia.compile(model, tuple(part[:1] for part in x), target=TARGET)
    assert program.graph.tensors[program.graph.input].user_shape == whole
    assert [one.shape for one in program.inputs] == [shape[1:] for shape in shapes]
    result = celosia.run(program, x)
    for answer, right in zip(result.answers.values(), wanted(model, x), strict=True):
        assert decibels(right, answer) > 30
    by_name = {one.name: part for one, part in zip(program.takes, x, strict=True)}
    for given in (list(x), dict(reversed(by_name.items())), tuple(map(torch.from_numpy, x)),
                  joined(program.takes, x, whole)):
        assert np.array_equal(celosia.run(program, given).values, result.values)
    program.save(tmp_path / "a.celo")
    loaded = celosia.load(tmp_path / "a.celo")
    assert loaded.takes == program.takes
    assert np.array_equal(celosia.run(loaded, x).values, result.values)
    compare(program.graph, program.array, joined(program.takes, x, whole)[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_optimised_graph_computes_the_same(name: str) -> None:
    _, shapes, whole = NETWORKS[name]
    model, x = made(name), inputs(shapes, 1)
    graph = optimise(import_model(model, tuple(shapes)))
    values = interpret(graph, joined(graph.takes, x, whole)[0].astype(np.float64))[None]
    bits = graph.raised.get(graph.output, (0,))
    assert len(set(bits)) == 1
    for output, right in zip(graph.outputs, wanted(
            model.double(), tuple(part.astype(np.float64) for part in x)), strict=True):
        np.testing.assert_allclose(output.answer(np.ldexp(values, -bits[0])).ravel(),
                                   right.ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "states"), [
    (nn.RNNCell, 1), (nn.GRUCell, 1), (nn.LSTMCell, 2)])
def test_steps_of_recurrent_layers(kind: type[nn.Module], states: int) -> None:
    """Their state is an input and an output."""
    torch.manual_seed(0)
    model = Cell(kind(8, 8), states)
    x = tuple(np.random.default_rng(at).normal(size=(16, 8)).astype(np.float32)
              for at in range(1 + states))
    program = celosia.compile(model, x, target=TARGET, calibration=x)
    with torch.no_grad():
        right = model(*map(torch.from_numpy, x)).numpy()
    found = celosia.run(program, x).answer
    assert 10 * np.log10((right**2).sum() / ((found - right)**2).sum()) > 25


def test_names_are_those_of_the_forward_pass() -> None:
    shapes = {"right": (1, 5), "more": (1, 4), "left": (1, 6)}
    graph = import_model(made("three, and two outputs"), shapes)
    assert [(one.name, one.shape) for one in graph.takes] == [
        ("left", (6,)), ("right", (5,)), ("more", (4,))]


def test_examples_may_be_batches_or_lack_their_batch_axis() -> None:
    model = made("vectors")
    for given, remark in ((((7, 16), (7, 10)), "example_input (7, 16), (7, 10) is 7 inputs, of "
                                               "which the first counts"),
                          (((16,), (10,)), "example_input (16,), (10,) is one input without the "
                                           "batch axis; the network takes (N, 16), (N, 10)")):
        graph = import_model(model, given)
        assert (graph.remarks, graph.input_shape) == ((remark,), (26,))


INPUT = "the network takes a (N, 16), b (N, 10)"
A, B = np.zeros((2, 16), np.float32), np.zeros((2, 10), np.float32)


@pytest.mark.parametrize(("given", "message"), [
    (A, f"input: one array, {INPUT}; give them in a tuple, or by their names"),
    ((A,), f"input: 1 arrays, {INPUT}"), ({"a": A}, f"input: arrays a, {INPUT}"),
    ((B, A), "input a: shape (2, 10), the network takes (N, 16)"),
    ((A, B[:1]), "input: 2 of a, 1 of b; give as many of each"),
    ((A[:0], B[:0]), "input: no inputs in it, the network takes (N, 26) with N > 0"),
    ((A, B * np.nan), "input b: element (0, 0) is nan; remove NaN and infinity first"),
])
def test_what_does_not_fit_is_refused(given: object, message: str) -> None:
    program = celosia.compile(made("vectors"), ((1, 16), (1, 10)), target=TARGET)
    with pytest.raises(CelosiaError) as caught:
        celosia.run(program, given)
    assert str(caught.value) == message


def test_another_number_of_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="make its forward pass accept 3 float32 tensors of th"):
        import_model(made("vectors"), ((1, 16),) * 3)
    with pytest.raises(CompileError, match=(
            "the model takes 2 inputs, and example_input has 1; give one example of each, in a "
            "tuple, or by their names; on the command line --input-shape with colons between, "
            "such as 3,8,8:10")):
        import_model(made("vectors"), (1, 16))
    exported = torch.export.export(made("vectors"), (torch.zeros(1, 16), torch.zeros(1, 10)))
    with pytest.raises(CompileError, match="the model takes 2 inputs, and example_input has 1; "):
        import_model(exported, (1, 16))
    torch.export.save(exported, tmp_path / "net.pt2")
    assert [one.name for one in import_model(tmp_path / "net.pt2").takes] == ["a", "b"]
    with pytest.raises(CelosiaError, match="^example_input has a, c, the network takes a, b$"):
        import_model(exported, {"a": (1, 16), "c": (1, 10)})


def test_inputs_of_an_onnx_file_have_its_names(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    x = inputs([(1, 16), (1, 10)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(made("vectors"), tuple(torch.zeros(1, n) for n in (16, 10)),
                          tmp_path / "net.onnx", dynamo=False, input_names=["left.1", "right.1"],
                          dynamic_axes={"left.1": {1: "n"}})
    with pytest.raises(CelosiaError, match="its input left.1 leaves sizes open"):
        celosia.compile(tmp_path / "net.onnx", target=TARGET)
    program = celosia.compile(tmp_path / "net.onnx", ((1, 16), (1, 10)), target=TARGET)
    assert [one.name for one in program.takes] == ["left.1", "right.1"]
    again = celosia.compile(tmp_path / "net.onnx", {"right.1": (1, 10), "left.1": (1, 16)},
                            target=TARGET)
    assert again.takes == program.takes
    plain = celosia.compile(made("vectors"), ((1, 16), (1, 10)), target=TARGET)
    assert np.array_equal(celosia.run(program, x).values, celosia.run(plain, x).values)
    with pytest.raises(CelosiaError, match="its inputs are left.1, right.1, not a, b; give these"):
        celosia.compile(tmp_path / "net.onnx", {"a": (1, 16), "b": (1, 10)}, target=TARGET)


def test_pixels_of_several_inputs_are_refused() -> None:
    """Only one of them may be a picture, and the others have no pixels."""
    x = inputs([(1, 16), (1, 10)])
    known = celosia.Preprocessing(scale=1 / 255, labels=("a", "b", "c", "d", "e"))
    with pytest.raises(CelosiaError, match=(
            "^scale, mean and deviation are those of pictures, and the network takes a, b; leave "
            "them out, and give numbers as it was trained$")):
        celosia.compile(made("vectors"), x, target=TARGET, preprocessing=known)
    model = Two(lambda l, a, b: l(torch.cat([a, b], 1)), nn.Linear(26, 5)).eval()
    named = celosia.compile(model, x, target=TARGET,
                            preprocessing=celosia.Preprocessing(labels=known.labels))
    assert named.preprocessing is not None and named.preprocessing.labels == known.labels


def test_calibration_has_each_input_too() -> None:
    x = inputs([(1, 16), (1, 10)], 12)
    model = made("vectors")
    given = [celosia.compile(model, x, target=TARGET, exponents="static", calibration=one)
             for one in (x, {"b": x[1], "a": x[0]})]
    assert given[0].graph.tensors == given[1].graph.tensors
    assert decibels(wanted(model, x)[0], celosia.run(given[0], x).answer) > 30
    with pytest.raises(CelosiaError, match=r"^calibration a: shape \(12, 10\)"):
        celosia.compile(model, x, target=TARGET, calibration=x[::-1])
    assert celosia.check(model, x, TARGET, calibration=x).fits
    [width] = widths(model, x, bits=[(8, 8)], calibration=x, target=TARGET).widths
    assert width.ratio > 30
    assert against_float(given[0], model, joined(given[0].takes, x, (26,))).output_ratio > 30
    positive = celosia.compile(model, x, target=TARGET, calibration=tuple(map(np.abs, x)))
    assert not positive.graph.tensors[positive.graph.input].signed


def scaled(factor: float, *, apart: bool) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    """Return a network, and inputs of which the first are so many times larger, and count as much:
    each input in a layer of its own, or both in one."""
    torch.manual_seed(1)
    model = Two(lambda l, m, a, b: (F.relu(l(a)), F.relu(m(b))), nn.Linear(16, 8),
                nn.Linear(16, 8)) if apart else Two(
        lambda l, a, b: l(torch.cat([a, b], 1)), nn.Linear(32, 8))
    model.layers[0].weight.data[:, :16] /= factor
    a, b = inputs([(1, 16), (1, 16)], 64)
    return model.eval(), ((factor * a).astype(np.float32), b)


@pytest.mark.parametrize("factor", [0.01, 100])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("settings", [
    {}, {"accuracy": "none"}, {"exponents": "static"},
    {"exponents": "static", "accuracy": "best"}], ids=str)
def test_inputs_of_any_scale_are_as_good_where_calibration_tells_it(
        factor: float, apart: bool, settings: dict, tmp_path: Path) -> None:
    model, x = scaled(factor, apart=apart)
    program = celosia.compile(model, x, target=TARGET, calibration=tuple(p[:32] for p in x),
                              **settings)
    bits = program.graph.tensors[program.graph.input].raised
    assert sorted(set(bits)) == [0, 7] and len(bits) == 32
    for answer, right in zip(celosia.run(program, x).answers.values(), wanted(model, x),
                             strict=True):
        assert decibels(right, answer) > 35
    whole = joined(program.takes, x, (32,))
    found = against_float(program, model, whole)
    assert found.layers[0].ratio > 35 and found.output_ratio > 35
    compare(program.graph, program.array, whole[0])
    program.save(tmp_path / "a.celo")
    again = celosia.run(celosia.load(tmp_path / "a.celo"), x)
    assert np.array_equal(again.values, celosia.run(program, x).values)


def test_scales_that_nobody_tells_are_told_of() -> None:
    model, x = scaled(100, apart=True)
    program = celosia.compile(model, [(1, 16)] * 2, target=TARGET)
    assert program.remarks[0] == ("the inputs share one block exponent: give calibration inputs "
                                  "if one is much smaller than another")
    faint = [decibels(right, answer) for answer, right in zip(
        celosia.run(program, x).answers.values(), wanted(model, x), strict=True)][1]
    wide = celosia.compile(model, x, target=TARGET, input_bits=15)
    better = decibels(wanted(model, x)[1], celosia.run(wide, x).answers["1"])
    assert faint < 10 and better > 35
    both = celosia.compile(model, x, target=TARGET, input_bits=15, calibration=x)
    assert len(both.graph.tensors[both.graph.input].raised) == 64
    assert decibels(wanted(model, x)[1], celosia.run(both, x).answers["1"]) > better


def test_copies_of_a_larger_input_are_rounded_by_themselves() -> None:
    """Layers that would keep the input's exponent take its scale away."""
    model = Two(lambda l, a, b: l(a + b), conv(4, 3)).eval()
    x = inputs([MAP, MAP], 12)
    x = x[0], x[1] * np.float32(0.01)
    program = celosia.compile(model, x, target=TARGET, calibration=x)
    assert any(program.graph.tensors[program.graph.input].raised)
    assert decibels(wanted(model, x)[0], celosia.run(program, x).answer) > 30


def test_a_flat_picture_is_scaled_element_by_element() -> None:
    model = Two(lambda l, a, b: l(torch.cat([a, b], 1).flatten(1)), nn.Linear(128, 4)).eval()
    x = inputs([(1, 1, 8, 8)] * 2, 12)
    x = x[0], x[1] * np.float32(0.01)
    program = celosia.compile(model, x, target=TARGET, calibration=x)
    source = program.graph.tensors[program.graph.input]
    assert source.shape == (128, 1, 1) and set(source.raised[:64]) == {0} != set(source.raised[64:])
    assert decibels(wanted(model, x)[0], celosia.run(program, x).answer) > 30


DAMAGE = {      # what a file says of its inputs and outputs, and the refusal
    "an axis more": ("takes", 0, "shape", [3, 8, 8, 1], "parts of the input are no input of the"),
    "a narrower map": ("takes", 0, "shape", [3, 8, 1], "parts of the input are no input of the"),
    "no axis": ("takes", 1, "shape", [], "parts of the input are no input of the"),
    "a longer vector": ("takes", 1, "shape", [65], "parts of the input are no input of the"),
    "an input's path": ("takes", 0, "name", "../x", "input '../x' must have none of /"),
    "an output's path": ("returns", 1, "name", r"a\b", "output .* must have none of /"),
    "a longer output": ("returns", 1, "shape", [5], "are no part of 260"),
    "an output further on": ("returns", 1, "first", 257, "are no part of 260"),
}


@pytest.fixture(scope="module")
def sound() -> celosia.Program:
    """A program of a map and a vector, with a map and a vector as outputs."""
    model = Two(lambda l, m, a, b: (l(a), m(b)), conv(4, 3), nn.Linear(10, 4)).eval()
    return celosia.compile(model, (MAP, (1, 10)), target=TARGET)


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_with_other_inputs_or_outputs_is_refused(what: str, sound: celosia.Program,
                                                        tmp_path: Path) -> None:
    entry, at, field, value, message = DAMAGE[what]
    manifest, arrays = sound.sections()
    container.write(tmp_path / "sound.celo", manifest, arrays)
    assert celosia.load(tmp_path / "sound.celo").takes == sound.takes
    manifest[entry][at][field] = value
    container.write(tmp_path / "p.celo", manifest, arrays)
    with pytest.raises(CelosiaError, match=f"not a valid program, .*{message}"):
        celosia.load(tmp_path / "p.celo")


def test_an_input_of_more_axes_than_a_map_is_refused() -> None:
    model = Two(lambda a, b: a.flatten(1) + b)
    with pytest.raises(CelosiaError, match=r"example_input 0 must have the shape .*, not \(1, 2"):
        celosia.compile(model, ((1, 2, 2, 2, 2), (1, 16)), target=TARGET)


def test_paths_are_no_names_of_inputs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info
    names = ["left/x", "right"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", names, ["y"])], "graph",
        [info(name, onnx.TensorProto.FLOAT, (1, 4)) for name in names],
        [info("y", onnx.TensorProto.FLOAT, (1, 4))])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]),
              tmp_path / "net.onnx")
    with pytest.raises(CelosiaError, match="input 'left/x' must have none of / .*; rename it in"):
        celosia.compile(tmp_path / "net.onnx", target=TARGET)


def test_the_command_line_takes_arrays_by_their_names(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net_of_two.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        torch.manual_seed(1)\n"
        "        self.l, self.m = torch.nn.Linear(16, 4), torch.nn.Linear(10, 4)\n"
        "    def forward(self, a, b):\n        return self.l(a) + self.m(b)\n")
    monkeypatch.chdir(tmp_path)
    a, b = inputs([(1, 16), (1, 10)], 12)
    np.savez("x.npz", a=a, b=b, labels=np.zeros(12, np.int64))
    np.savez("inputs.npz", a=a, b=b)
    np.savez("half.npz", a=a)

    def invoke(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == status, result.output
        return result.output

    told = json.loads(invoke("compile", "net_of_two:Net", "--input-shape", "16:10", "-o", "p.celo",
                             "--json"))
    assert told["inputs"] == [{"name": "a", "shape": [16]}, {"name": "b", "shape": [10]}]
    assert "takes a (16,), b (10,)" in invoke(
        "compile", "net_of_two:Net", "--calibration", "inputs.npz", "--exponents", "static")
    assert "takes a (16,), b (10,)" in invoke("compile", "net_of_two:Net", "--calibration", "x.npz")
    assert ("on the command line --input-shape with colons between, such as 3,8,8:10" in invoke(
        "compile", "net_of_two:Net", "--input-shape", "16", status=1))
    found = json.loads(invoke("run", "p.celo", "--input", "x.npz", "--json", "--limit", "3"))
    right = celosia.run(celosia.load("p.celo"), (a[:3], b[:3])).answer
    assert [one["class"] for one in found["answers"]] == right.argmax(1).tolist()
    assert found["accuracy"] is not None
    assert "half.npz: has no array b; write it with numpy.savez(file, a=..., b=...)" in invoke(
        "run", "p.celo", "--input", "half.npz", status=1)
    assert "fits" in invoke("check", "net_of_two:Net", "--input-shape", "16:10", "--target", TARGET)
