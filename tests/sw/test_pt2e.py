"""Quantised programs of PyTorch: what torch computes of them, and what their scales become."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia import original
from celosia.accuracy import decibels_of, values_of
from celosia.cli import app
from celosia.compiler import Compiler
from celosia.compress import in_format
from celosia.fit import check
from celosia.float_values import outputs
from celosia.frontend import import_model
from celosia.passes import optimise
from celosia.range_exponents import ranges
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError

DATA = Path(__file__).parent / "data"
MODEL = "models/model.json"
RNG = np.random.default_rng(3)
X = RNG.standard_normal((8, 2, 6, 6)).astype(np.float32)
OPS = torch.ops.quantized_decomposed
INT8, UINT8 = (-128, 127, torch.int8), (0, 255, torch.uint8)


def torch_outputs(model, x: np.ndarray = X) -> np.ndarray:
    with torch.no_grad():
        found = [model(torch.from_numpy(one[None])).numpy() for one in x]
    return np.concatenate(found).astype(float)


def rounded(x: torch.Tensor, scale: float, zero: int = 0, kind: tuple = INT8) -> torch.Tensor:
    """Return a tensor behind a quantiser and its dequantiser."""
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, scale, zero, *kind),
                                     scale, zero, *kind)


def imported(model: nn.Module, x: np.ndarray = X):
    return import_model(model.eval(), x[:1])


def static(graph, x: np.ndarray | None = None):
    return Compiler(exponents="static").quantised(optimise(graph), x)


def exponents(quantised) -> dict[str, int]:
    return {name: tensor.exponent.fixed for name, tensor in quantised.tensors.items()
            if tensor.exponent.fixed is not None}


# Programs that torchao wrote

@pytest.mark.parametrize(("name", "weights", "tensors"), [("xnnpack", 4, 8), ("x86", 4, 4)])
def test_programs_of_torchao(name: str, weights: int, tensors: int) -> None:
    """Compiled without calibration inputs, and as near to the original as 8 bits are to float."""
    path = DATA / f"pt2e_{name}.pt2"
    wanted = torch_outputs(torch.export.load(path).module())
    graph = import_model(path)
    assert decibels_of(original.outputs(graph, X).reshape(wanted.shape), wanted) > 120
    program = celosia.compile(path, exponents="static")
    assert decibels_of(celosia.run(program, X).answer.astype(float), wanted) > 28
    assert [remark for remark in program.remarks if "quantised" in remark] == [
        f"the network is quantised: the array rounds to its own format, takes {weights} constants "
        f"with their quantised values, and makes static exponents of the scales of {tensors} "
        "tensors; dynamic ones leave scales out"]
    dynamic = celosia.compile(path)
    assert decibels_of(celosia.run(dynamic, X).answer.astype(float), wanted) > 28
    assert dynamic.predicted_cycles == program.predicted_cycles


def test_exponents_are_those_that_scales_need() -> None:
    graph = import_model(DATA / "pt2e_xnnpack.pt2")
    tensors = static(graph).tensors
    assert {"x", "first", "deep", "side", "mean.1", "mean.2", "last"} <= tensors.keys()
    for name, (low, high) in optimise(graph).ranges.items():
        if name in tensors and tensors[name].exponent.fixed is not None:
            largest = max(-low, high) if tensors[name].signed else high
            assert tensors[name].exponent.fixed in (
                int(np.floor(np.log2(largest))), tensors[name].exponent.least), name


def test_a_scale_that_each_input_has_of_its_own() -> None:
    path = DATA / "pt2e_dynamic.pt2"
    program = celosia.compile(path)
    assert any("takes 1 constant with their quantised values; left out are the scales of 1 tensor, "
               "found from each input" in remark for remark in program.remarks)
    wanted = torch_outputs(torch.export.load(path).module())
    assert decibels_of(celosia.run(program, X).answer.astype(float), wanted) > 35
    with pytest.raises(ArgumentError, match="static exponents need calibration inputs"):
        celosia.compile(path, exponents="static")
    assert celosia.compile(path, exponents="static", calibration=X).exponents == "static"


def test_the_loss_against_the_quantised_network_is_told(tmp_path: Path) -> None:
    path = DATA / "pt2e_xnnpack.pt2"
    wanted = torch_outputs(torch.export.load(path).module())
    program = celosia.compile(path, exponents="static", calibration=X)
    made = celosia.run(program, X).values.astype(float)
    found = program.quantised
    assert found.inputs == len(X)
    assert found.ratio == pytest.approx(decibels_of(made.reshape(wanted.shape), wanted), abs=.01)
    floats = Compiler().graph(path)
    exact = outputs(floats, X).reshape(wanted.shape)
    assert found.original == pytest.approx(decibels_of(wanted, exact), abs=.01)
    assert found.float_ratio == pytest.approx(decibels_of(made.reshape(wanted.shape), exact))
    np.save(tmp_path / "x.npy", X)
    arguments = ["compile", str(path), "--calibration", str(tmp_path / "x.npy"), "--exponents",
                 "static"]
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["quantised"]
    assert told == {"inputs": 8, "ratio": found.ratio, "float_ratio": found.float_ratio,
                    "original": found.original}
    text = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert f"{found.ratio:.1f} dB against the quantised network" in text
    assert celosia.compile(path).quantised is None
    assert celosia.compile(nn.Linear(4, 3), (1, 4), calibration=X[:, 0, 0, :4]).quantised is None


# Constants

class Weights(nn.Module):
    """Layers whose weights and biases stand as whole numbers."""

    def __init__(self, kind: str, ends: tuple[int, int], zero: int, of_rows: bool) -> None:
        super().__init__()
        self.kind, self.ends, self.zero, self.of_rows = kind, ends, zero, of_rows
        m = torch.from_numpy(RNG.integers(ends[0], ends[1] + 1, (4, 2, 3, 3)))
        self.register_buffer("m", m.to(getattr(torch, kind)))
        self.register_buffer("scales", torch.tensor([.02, .03, .01, .04]))
        self.register_buffer("zeros", torch.full((4,), zero))
        self.register_buffer("bias", torch.tensor([900, -400, 70, -5], dtype=torch.int32))

    def forward(self, x):
        kind = (*self.ends, getattr(torch, self.kind))
        if self.of_rows:
            weight = OPS.dequantize_per_channel(self.m, self.scales, self.zeros, 0, *kind)
        else:
            weight = OPS.dequantize_per_tensor(self.m, .02, self.zero, *kind)
        bias = OPS.dequantize_per_tensor(self.bias, .001, 0, -2**31, 2**31 - 1, torch.int32)
        return F.conv2d(x, weight, bias)


@pytest.mark.parametrize("of_rows", [False, True])
@pytest.mark.parametrize(("kind", "ends", "zero"), [
    ("int8", (-128, 127), 0), ("int8", (-127, 127), 0), ("int8", (-128, 127), 5),
    ("uint8", (0, 255), 128), ("int8", (-8, 7), 0), ("int8", (-8, 7), -3), ("uint8", (0, 15), 7),
    ("int16", (-32768, 32767), 0)])
def test_constants_are_what_they_stand_for(kind: str, ends: tuple, zero: int, of_rows: bool
                                           ) -> None:
    model = Weights(kind, ends, zero, of_rows)
    node, = imported(model).nodes
    scales = np.array([.02, .03, .01, .04]) if of_rows else np.full(4, .02)
    wanted = (model.m.numpy().astype(float) - zero) * scales[:, None, None, None]
    np.testing.assert_allclose(node.weight, wanted, rtol=1e-6)
    np.testing.assert_allclose(node.bias, model.bias.numpy() * .001, rtol=1e-6)
    assert decibels_of(original.outputs(imported(model), X), torch_outputs(model)) > 120


class Groups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", torch.from_numpy(RNG.integers(-8, 8, (3, 8)).astype(np.int8)))
        self.register_buffer("scales", torch.rand(3, 2) + .1)

    def forward(self, x):
        return F.linear(x, OPS.dequantize_per_channel_group(
            self.m, self.scales, None, -8, 7, torch.int8, 4, torch.float32))


def test_constants_with_a_scale_for_each_group() -> None:
    model, x = Groups(), RNG.standard_normal((4, 8)).astype(np.float32)
    assert decibels_of(original.outputs(imported(model, x), x)[:, :, 0, 0],
                       torch_outputs(model, x)) > 120


# Tensors on the way

class Body(nn.Module):
    """A network around some part of it that takes and gives (1, 4, 6, 6)."""

    def __init__(self, part: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3)
        self.side, self.each = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_var *= 2
        self.part = part
        self.eval()

    def forward(self, x):
        x = rounded(F.relu(self.first(rounded(x, .03))), .01, -128)
        return rounded(self.last(self.part(self, x)), .02, 3)


def residual(net: Body, x: torch.Tensor) -> torch.Tensor:
    return rounded(F.relu(rounded(net.side(x), .02, 9) + x), .03, 0, UINT8)


def joined(net: Body, x: torch.Tensor) -> torch.Tensor:
    side = rounded(F.relu(net.side(x)), .02, 0, UINT8)
    return rounded(torch.cat([x[:, :2], side[:, 2:]], 1), .023, -128)


def shuffled(net: Body, x: torch.Tensor) -> torch.Tensor:
    """With quantisers between views that are no maps."""
    x = rounded(x.reshape(1, 2, 2, 6, 6), .01, -128)
    return rounded(rounded(x.transpose(1, 2), .01, -128).reshape(1, 4, 6, 6), .01, -128)


def pooled(net: Body, x: torch.Tensor) -> torch.Tensor:
    x = F.avg_pool2d(rounded(net.side(x), .02), 3, stride=1, padding=1)
    return rounded(F.max_pool2d(rounded(x, .01), 3, stride=1), .01)[:, :, :3, :3]


def curved(net: Body, x: torch.Tensor) -> torch.Tensor:
    """SiLU, with its factors rounded."""
    x = rounded(net.side(x), .02)
    return rounded(x * rounded(torch.sigmoid(x), 1 / 256, 0, UINT8), .02)


def by_channel(net: Body, x: torch.Tensor) -> torch.Tensor:
    scales, zeros = torch.tensor([.01, .02, .02, .01]), torch.tensor([0, 3, -3, 0])
    args = scales, zeros, 1, *INT8
    return OPS.dequantize_per_channel(OPS.quantize_per_channel(net.side(x), *args), *args)


def among_whole_numbers(net: Body, x: torch.Tensor) -> torch.Tensor:
    """Moved and pooled while they are whole numbers."""
    args = .02, 130, 0, 255, torch.uint8
    m = OPS.quantize_per_tensor(net.side(x), *args)
    m = torch.cat([m[:, 2:], m[:, :2]], 1)
    return OPS.dequantize_per_tensor(m, *args)


def joined_before(net: Body, x: torch.Tensor) -> torch.Tensor:
    """What is joined goes through a ReLU and a depthwise layer, which work on each part."""
    side = rounded(net.side(x), .02)
    x = rounded(F.relu(torch.cat([side[:, :2], -x[:, 2:]], 1)), .011, -128)
    return rounded(F.relu(net.each(x)), .008, -128)


def normalised(net: Body, x: torch.Tensor) -> torch.Tensor:
    return rounded(F.relu(net.norm(net.side(x))), .02, -128)


PARTS = {part.__name__: part for part in (
    residual, joined, joined_before, normalised, shuffled, pooled, curved, by_channel,
    among_whole_numbers)}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_rounded_on_the_way(name: str) -> None:
    """The original as torch computes it; and static exponents that clip no more than it does."""
    model = Body(PARTS[name])
    wanted, graph = torch_outputs(model), imported(model)
    near = decibels_of(original.outputs(graph, X).reshape(wanted.shape), wanted)
    assert near > (25 if name == "curved" else 100)     # a curve is pieces, rounded at its end
    if name != "curved":        # whose pieces have scales of their own
        found = values_of(static(graph), X).reshape(wanted.shape)
        assert decibels_of(found, wanted) > 23
    dynamic = Compiler().quantised(optimise(graph), None)
    assert decibels_of(values_of(dynamic, X).reshape(wanted.shape), wanted) > 25


def test_a_range_that_is_all_that_is_left_of_a_relu() -> None:
    model = Body(lambda net, x: rounded(net.side(x), .02, 0, UINT8))
    graph = optimise(imported(model))
    side = next(node for node in graph.nodes if node.name == "side")
    assert side.epilogue.activation.bounds[0] == 0
    assert decibels_of(values_of(static(imported(model)), X), torch_outputs(model)) > 28


def test_unknown_ranges_are_named_or_follow() -> None:
    """A mean lies within its input, a clamp within its bounds, the output's sums within what its
    weights make of its input; what else has no scale is refused by name."""
    class Net(nn.Module):
        def __init__(self, between: nn.Module) -> None:
            super().__init__()
            self.a, self.between, self.b = nn.Conv2d(2, 4, 3), between, nn.Linear(4, 3)

        def forward(self, x):
            x = self.between(rounded(self.a(rounded(x, .03)), .02))
            return self.b(x.mean((2, 3)))

    torch.manual_seed(0)
    plain = imported(Net(nn.Identity()))
    found = exponents(static(plain))
    assert (found["x"], found["a"]) == (1, 1)       # 3.84 and 2.56
    assert found["mean"] == 1
    linear = next(node for node in optimise(plain).nodes if node.name == "b")
    most = (np.abs(linear.weight).sum(axis=(1, 2, 3)) * 2.56 + np.abs(linear.bias)).max()
    assert found["b"] == int(np.floor(np.log2(most)))
    clamped = Net(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6()))
    assert exponents(static(imported(clamped)))["between.0"] == 2
    unknown = Net(nn.Conv2d(4, 4, 1))
    with pytest.raises(CompileError, match=r"^between \(tensor\): the network has no scale for it, "
                                           r"which .*; give calibration inputs, or use "
                                           r"exponents='dynamic' \["):
        celosia.compile(unknown.eval(), (1, 2, 6, 6), exponents="static")
    report = check(unknown, (1, 2, 6, 6), targets="icebreaker", exponents="static").targets[0]
    assert "no scale for it" in report.problems[0].problem
    calibrated = exponents(static(imported(unknown), X))
    assert calibrated["between"] in range(-3, 2) and calibrated["a"] == 1


def rounded_before_the_sum(net: Body, x: torch.Tensor) -> torch.Tensor:
    return rounded(net.side(x), .002) + rounded(x, .01)


def rounded_before_the_norm(net: Body, x: torch.Tensor) -> torch.Tensor:
    return net.norm(rounded(net.side(x), .002))


@pytest.mark.parametrize("part", [rounded_before_the_sum, rounded_before_the_norm])
def test_a_scale_is_not_that_of_what_comes_after(part: Callable) -> None:
    """Nothing is stored before the sum, and what is stored behind it has no scale."""
    with pytest.raises(CompileError, match=r"^side \(tensor\): the network has no scale for it"):
        static(imported(Body(part)))


def test_programs_in_steps_of_time_and_wide_inputs() -> None:
    model = Body(lambda net, x: x)
    model.first.padding = (0, 0)
    program = celosia.compile(model, (1, 2, 6, 6), exponents="static", stream="time")
    assert program.steps is not None
    plain, wide = (celosia.compile(model, (1, 2, 6, 6), exponents="static", input_bits=bits)
                   for bits in (8, 15))
    exact = outputs(Compiler().graph(model, X[:1]), X)
    coarse, fine = (decibels_of(celosia.run(found, X).values.astype(float), exact)
                    for found in (plain, wide))
    assert fine > coarse + .2 and wide.low_sums == {"first.low"}


def test_calibration_decides_where_no_scale_does() -> None:
    """Of a float network with a clamp, too: its bound may be far away."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.Conv2d(4, 2, 3)).eval()
    assert ranges(optimise(imported(model)))["0"] == (0, 6)
    assert exponents(static(imported(model), X))["0"] < 2
    with pytest.raises(ArgumentError, match="static exponents need calibration inputs"):
        celosia.compile(model, X[:1], exponents="static")
    with pytest.raises(ArgumentError, match="static exponents need calibration inputs"):
        check(model, X[:1], exponents="static")


def test_several_tensors_are_returned() -> None:
    """One of them much smaller, which is stored larger; with and without scales of their own."""
    class Heads(nn.Module):
        def __init__(self, scaled: bool) -> None:
            super().__init__()
            torch.manual_seed(4)
            self.first, self.one, self.other = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1), nn.Conv2d(
                4, 2, 1)
            self.other.weight.data /= 64
            self.other.bias.data /= 64
            self.scaled = scaled

        def forward(self, x):
            x = rounded(F.relu(self.first(rounded(x, .03))), .01, -128)
            one, other = self.one(x), self.other(x)
            return (rounded(one, .02), rounded(other, .0003)) if self.scaled else (one, other)

    for scaled in (True, False):
        model = Heads(scaled).eval()
        program = celosia.compile(model, X[:1], exponents="static", calibration=X, accuracy="none")
        assert program.quantised.ratio > 30, scaled
        assert program.quantised.float_ratio > 30, scaled
        celosia.compile(model, X[:1], exponents="static")


def test_several_tensors_are_taken() -> None:
    """One of them much smaller: with calibration inputs it is made larger, and the range of both is
    that of none."""
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.one, self.other = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
            self.other.weight.data *= 200

        def forward(self, x, y):
            x, y = self.one(rounded(x, .03)), self.other(rounded(y, .0001))
            return rounded(F.relu(rounded(x, .03) + rounded(y, .03)), .03, -128)

    model, inputs = Both().eval(), (X, X[::-1].copy() / 300)
    graph = import_model(model, tuple(x[:1] for x in inputs))
    assert optimise(graph).ranges[graph.input] == pytest.approx((-3.84, 3.81))
    program = celosia.compile(model, tuple(x[:1] for x in inputs), exponents="static",
                              calibration=inputs, accuracy="none")
    assert program.quantised.ratio > 28 and program.quantised.float_ratio > 30
    celosia.compile(model, tuple(x[:1] for x in inputs), exponents="static")


def test_a_range_beyond_all_exponents() -> None:
    model = Body(lambda net, x: rounded(net.side(x), 1e6))
    with pytest.raises(CompileError, match=r"up to 1\.28e\+08 through, .* exponent 26, above 15; "):
        static(imported(model))
    celosia.compile(model.eval(), X[:1])


def test_passes_for_accuracy_take_a_quantised_network() -> None:
    x = RNG.standard_normal((16, 2, 6, 6)).astype(np.float32)
    plain = celosia.compile(DATA / "pt2e_xnnpack.pt2", exponents="static")
    better = celosia.compile(DATA / "pt2e_xnnpack.pt2", exponents="static", calibration=x,
                             accuracy="default")
    assert better.quantised.float_ratio > 30
    assert plain.graph.tensors["x"].exponent == better.graph.tensors["x"].exponent


def test_training_in_the_format_finds_exponents_of_its_own() -> None:
    path = DATA / "pt2e_xnnpack.pt2"
    with pytest.raises(ArgumentError, match="need calibration"):
        in_format(path, X[:1], exponents="static")
    made = in_format(path, X[:1], exponents="static", calibration=X / 16)
    assert exponents(made.quantised())["x"] < static(import_model(path)).tensors["x"].exponent.fixed


# What is refused

def other_scale(net: Body, x: torch.Tensor) -> torch.Tensor:
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, .01, 0, *INT8), .02, 0, *INT8)


def other_zero(net: Body, x: torch.Tensor) -> torch.Tensor:
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, .01, 0, *INT8), .01, 1, *INT8)


def sum_of_whole(net: Body, x: torch.Tensor) -> torch.Tensor:
    m = OPS.quantize_per_tensor(x, .01, 0, *INT8)
    return OPS.dequantize_per_tensor(m + m, .01, 0, *INT8)


def whole_as_float(net: Body, x: torch.Tensor) -> torch.Tensor:
    return OPS.quantize_per_tensor(x, .01, 0, *INT8).float() * .01


def joined_of_two_scales(net: Body, x: torch.Tensor) -> torch.Tensor:
    m = [OPS.quantize_per_tensor(x[:, :2], scale, 0, *INT8) for scale in (.01, .02)]
    return OPS.dequantize_per_tensor(torch.cat(m, 1), .01, 0, *INT8)


def scale_of_another(net: Body, x: torch.Tensor) -> torch.Tensor:
    found = OPS.choose_qparams(net.side(x), -128, 127, 1e-5, torch.int8)
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, *found, *INT8), *found, *INT8)


def scale_as_a_tensor(net: Body, x: torch.Tensor) -> torch.Tensor:
    return x * OPS.choose_qparams(x, -128, 127, 1e-5, torch.int8)[0].float()


def scale_of_the_input(net: Body, x: torch.Tensor) -> torch.Tensor:
    found = x.amax().reshape(1), torch.zeros(1, dtype=torch.int64)
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, *found, *INT8), *found, *INT8)


def scale_of_lines(net: Body, x: torch.Tensor) -> torch.Tensor:
    args = torch.full((6,), .01), torch.zeros(6, dtype=torch.int64), 2, *INT8
    return OPS.dequantize_per_channel(OPS.quantize_per_channel(x, *args), *args)


def scale_of_rows(net: Body, x: torch.Tensor) -> torch.Tensor:
    found = OPS.choose_qparams_per_token_asymmetric(x, torch.int8)
    args = *found, *INT8
    return OPS.dequantize_per_token(OPS.quantize_per_token(x, *args), *args, torch.float32)


@pytest.mark.parametrize(("part", "message"), [
    (other_scale, "its scale or zero point is another than the quantiser's"),
    (other_zero, "its scale or zero point is another than the quantiser's"),
    (sum_of_whole, "it computes with whole numbers"),
    (whole_as_float, "it computes with whole numbers"),
    (joined_of_two_scales, "it computes with whole numbers"),
    (scale_of_another, "its scale is found from another tensor"),
    (scale_as_a_tensor, "it computes with a scale that is found from each input"),
    (scale_of_lines, r"it has 6 scales along axis 2 of \(1, 4, 6, 6\)"),
    (scale_of_rows, "it has a scale for each row"),
], ids=lambda part: getattr(part, "__name__", ""))
def test_what_is_refused(part: Callable, message: str) -> None:
    with pytest.raises(CompileError, match=f": {message}; ") as caught:
        imported(Body(part))
    assert "\n" not in str(caught.value)


def test_whole_numbers_at_the_end() -> None:
    class Net(nn.Module):
        def forward(self, x):
            return OPS.quantize_per_tensor(F.relu(x), .01, 0, *INT8)

    with pytest.raises(CompileError, match="its result is whole numbers; dequantise it"):
        imported(Net())


# Files

def nodes_of(program: dict, target: str) -> list[dict]:
    return [node for node in program["graph_module"]["graph"]["nodes"]
            if target in node["target"]]


def argument(name: str, value: dict, target: str = "tize_per_tensor") -> Callable[[dict], None]:
    """Return what sets an argument of all such operators."""
    def change(program: dict) -> None:
        for node in nodes_of(program, target):
            next(part for part in node["inputs"] if part["name"] == name)["arg"] = value
    return change


@pytest.mark.parametrize(("change", "message"), [
    (argument("scale", {"as_float": 0.0}), "a scale is not above 0, or not finite"),
    (argument("scale", {"as_float": -1.0}), "a scale is not above 0, or not finite"),
    (argument("scale", {"as_float": "NaN"}), "a scale is not above 0, or not finite"),
    (argument("scale", {"as_float": "Infinity"}), "a scale is not above 0, or not finite"),
    (argument("zero_point", {"as_int": 128}), "a zero point is none of -128 to 127"),
    (argument("zero_point", {"as_int": -2**62}), "a zero point is none of -128 to 127"),
    (argument("quant_min", {"as_int": 127}), "its whole numbers are 127 to 127"),
    (argument("quant_max", {"as_int": 2**62}), "its whole numbers are -128 to 461168601842738"),
    (argument("dtype", {"as_scalar_type": 7}), "it quantises to float32"),
    (argument("axis", {"as_int": 7}, "per_channel"), "axis"),
    (argument("axis", {"as_int": 1}, "per_channel"), r"scales (4,) along axis 1 of (4, 2, 3, 3)"),
    (argument("input", {"as_int": 7}), "torch cannot build its program"),
    (lambda program: nodes_of(program, "quantize_per_tensor")[0].update(
        target="torch.ops.quantized_decomposed.load.default"), "not supported by this machine"),
    (lambda program: nodes_of(program, "quantize_per_tensor")[0].update(
        target="torch.ops.torchao.quantize_affine.default"),
     "not supported by this machine; quantise with torchao's pt2e"),
])
def test_files_that_are_not_sound_are_refused(tmp_path: Path, change: Callable[[dict], None],
                                              message: str) -> None:
    with zipfile.ZipFile(DATA / "pt2e_xnnpack.pt2") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    root = next(name for name in content if name.endswith(MODEL))
    program = json.loads(content[root])
    change(program)
    with zipfile.ZipFile(tmp_path / "net.pt2", "w", zipfile.ZIP_STORED) as archive:
        for name, data in (content | {root: json.dumps(program).encode()}).items():
            archive.writestr(name, data)
    with pytest.raises(CelosiaError) as caught:
        import_model(tmp_path / "net.pt2")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_constants_of_no_finite_scale_are_refused(scale: float) -> None:
    model = Weights("int8", (-128, 127), 0, True)
    model.scales[2] = scale
    with pytest.raises(CompileError, match="a scale or zero point is not finite"):
        imported(model)


def test_pruning_asks_for_the_float_network() -> None:
    result = CliRunner().invoke(
        app, ["prune", str(DATA / "pt2e_xnnpack.pt2"), "--rate", "0.5", "-o", "none.pt2"])
    assert result.exit_code == 1 and "quantise" in result.stderr


def test_a_module_of_an_exported_program_compiles() -> None:
    """Such a module, as `convert_pt2e` returns it, refuses `eval` and `train`."""
    own = torch.export.export(nn.Linear(4, 2), (torch.zeros(1, 4),)).module()
    with pytest.raises(NotImplementedError):
        own.eval()
    for model in own, nn.Sequential(own, nn.Dropout(.5), nn.Linear(2, 3)):
        modes = [part.training for part in model.modules()]
        program = celosia.compile(model, (1, 4), target="icebreaker")
        assert [part.training for part in model.modules()] == modes
        x = RNG.standard_normal((8, 4)).astype(np.float32)
        wanted = torch_outputs(nn.Sequential(own, model[2]) if model is not own else own, x)
        assert decibels_of(celosia.run(program, x).answer, wanted) > 30
        assert check(model, (1, 4), ["icebreaker"]).targets[0].fits


def test_pruning_refuses_a_module_of_an_exported_program() -> None:
    own = torch.export.export(nn.Linear(4, 2), (torch.zeros(1, 4),)).module()
    for model, name in ((own, "the model"), (nn.Sequential(own, nn.Linear(2, 3)), "0")):
        with pytest.raises(ArgumentError, match=f"'{name}' was made by torch.export, has one mode"):
            in_format(model, torch.zeros(1, 4))
