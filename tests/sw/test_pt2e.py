"""Quantised programs of PyTorch: what torch computes of them, and what is done with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia import original
from celosia.accuracy import decibels_of
from celosia.cli import app
from celosia.compiler import Compiler
from celosia.compress import in_format
from celosia.fit import check
from celosia.float_values import outputs
from celosia.frontend import import_model
from celosia.passes import optimise
from celosia_spec.errors import ArgumentError, CompileError
from quantisers import (
    INT8,
    OPS,
    Body,
    Weights,
    X,
    exponents,
    imported,
    rounded,
    static,
    torch_outputs,
)

DATA = Path(__file__).parent / "data"

RNG = np.random.default_rng(3)


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


def test_whole_numbers_at_the_end() -> None:
    class Net(nn.Module):
        def forward(self, x):
            return OPS.quantize_per_tensor(F.relu(x), .01, 0, *INT8)

    with pytest.raises(CompileError, match="its result is whole numbers; dequantise it"):
        imported(Net())


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
