"""Inputs of more bits than the machine multiplies, in two parts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia.accuracy import more_accurate, output_ratio
from celosia.cli import app
from celosia.compiler import Compiler
from celosia.float_values import outputs
from celosia.noise import against_float
from celosia_spec.block import Format, bfp
from celosia_spec.epilogue import Dynamic
from celosia_spec.errors import CelosiaError, CompileError
from celosia_spec.qgraph import QTensor
from float_graph import interpret

SHAPE = (3, 8, 8)


def network() -> nn.Sequential:
    """Return a network whose first layer has a pool."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3),
                         nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)).eval()


def inputs(count: int = 24) -> np.ndarray:
    """Return inputs of which one channel is much larger, and counts as much as the others."""
    x = np.random.default_rng(3).normal(size=(count, *SHAPE)).astype(np.float32)
    x[:, 0] = x[:, 0] * 50
    return x


def balanced() -> nn.Sequential:
    model = network()
    with torch.no_grad():
        model[0].weight[:, 0] /= 50
    return model


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "low"), [(8, 7), (8, 1), (4, 3), (9, 5)])
def test_parts_are_mantissas_and_make_the_whole(bits: int, low: int, signed: bool) -> None:
    whole = Format(bits=bits + low, signed=signed)
    m = np.arange(whole.least, whole.largest + 1).reshape(1, 1, 1, -1)
    tensor = QTensor(name="x", shape=(2, 1, m.size), user_shape=(1, m.size), bits=bits,
                     exponent=Dynamic(least=-16), signed=signed, low=low)
    parts = tensor.parts(m)
    assert parts.shape == (1, 2, 1, m.size)
    assert parts.min() >= tensor.format.least
    assert parts.max() <= tensor.format.largest
    assert np.array_equal((parts[:, :1] << low) + parts[:, 1:], m)
    assert np.array_equal(tensor.joined(parts), m)


@pytest.mark.parametrize(("bits", "input_bits"), [(8, 15), (8, 11), (6, 11), (9, 17)])
def test_layer_of_ones_gives_the_input_in_so_many_bits(bits: int, input_bits: int) -> None:
    model = nn.Conv2d(3, 3, 1, groups=3, bias=False)
    with torch.no_grad():
        model.weight.fill_(1)
    x = inputs(4)
    program = celosia.compile(model.eval(), x[:1], target="ulx3s-85f", input_bits=input_bits,
                              activation_bits=bits)
    for image, found in zip(x, celosia.run(program, x).values, strict=True):
        m, exponent = bfp(image, input_bits)
        wanted = np.ldexp(m.astype(np.float64), int(exponent) - (input_bits - 2))
        # Low parts are added in the unit of the sums, that of the weight, 6, below the input's.
        unit = 2.0 ** (int(exponent) - (bits - 2) - 6)
        assert np.abs(found - wanted).max() <= (unit / 2 if input_bits > 14 else 0)


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_outputs_are_nearer_to_the_network(exponents: str) -> None:
    x, model = inputs(), balanced()
    wanted = outputs(Compiler().graph(model, x[:1]), x)
    plain, wide = (celosia.compile(model, x[:1], target="ulx3s-85f", calibration=x,
                                   exponents=exponents, input_bits=bits) for bits in (None, 15))
    ratios = [output_ratio(program.graph, x, wanted) for program in (plain, wide)]
    assert ratios[1] > ratios[0] + 5
    assert wide.low_sums == {f"{plain.layers[0].name}.low"}
    assert plain.low_sums == set()


def test_pools_behind_the_input_stand_alone_and_nothing_changes() -> None:
    x = inputs(3)
    plain, wide = (Compiler(input_bits=bits).graph(network(), x[:1]) for bits in (None, 15))
    assert len(wide.nodes) == len(plain.nodes) + 1
    for image in x:
        assert np.array_equal(interpret(plain, image), interpret(wide, image))


def test_a_file_keeps_it(tmp_path: Path) -> None:
    x = inputs(4)
    program = celosia.compile(network(), x[:1], input_bits=15)
    program.save(tmp_path / "net.celo")
    again = celosia.load(tmp_path / "net.celo")
    assert again.graph.tensors[again.graph.input].low == 7
    assert np.array_equal(celosia.run(program, x).values, celosia.run(again, x).values)


def test_noise_is_that_of_whole_numbers() -> None:
    x = inputs(4)
    found = against_float(celosia.compile(network(), x[:1], input_bits=15), network(), x)
    assert not any(layer.name.endswith(".low") for layer in found.layers)
    m = np.stack([bfp(image, 15)[0] for image in x])
    exponents = np.array([bfp(image, 15)[1] for image in x])[:, None, None, None]
    rounded = np.ldexp(m.astype(np.float64), exponents - 13)
    assert found.layers[0].ratio == pytest.approx(10 * np.log10(
        np.square(x.astype(float)).sum() / np.square(rounded - x).sum()))
    assert found.layers[0].zeros == np.mean(m == 0)
    assert found.layers[0].alone > 60


def test_passes_for_accuracy_help_beside_it() -> None:
    x, compiler = np.abs(inputs(48)), Compiler(weight_bits=4, input_bits=15)
    graph = compiler.graph(network(), x[:1])
    improved = more_accurate(graph, compiler, x[:32])
    assert "correct_bias" in improved.applied
    before, after = (output_ratio(compiler.quantised(one, None), x[32:], outputs(graph, x[32:]))
                     for one in (graph, improved.graph))
    assert after > before + 1
    assert list(improved.noise) == list(graph.shapes)


def test_streams_of_time_take_it() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(2, 4, (3, 1)), nn.ReLU(), nn.Conv2d(4, 3, (4, 1))).eval()
    x = np.random.default_rng(1).normal(size=(3, 2, 8, 1)).astype(np.float32)
    whole, program = (celosia.compile(model, x[:1], calibration=x, exponents="static",
                                      input_bits=15, stream=stream) for stream in (None, "time"))
    assert program.low_sums == whole.low_sums == {f"{whole.layers[1].name}.low"}
    with celosia.stream(program) as stream:
        found = [stream.run(x[0][:, at:at + 1]) for at in range(8)][-1]
    assert np.array_equal(found.values[0][:, -1], celosia.run(whole, x[:1]).values[0][:, -1])


class _Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x) + x)


@pytest.mark.parametrize(("model", "words"), [
    (_Added(), r"conv \(conv\): it adds the input as it is, .* without input_bits, or put a layer "
     "with weights between the input and this"),
    (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)),
     r"it takes elements of the input as they are, .* without input_bits")])
def test_what_else_reads_the_input_is_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(CompileError, match=words):
        celosia.compile(model.eval(), (1, *SHAPE), input_bits=15)
    assert celosia.compile(model.eval(), (1, *SHAPE))


class _Sums(nn.Module):
    """Sums of layers that all read the input, or a layer's copy of it."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.copy = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(torch.relu(self.a(x) + self.b(x))) + self.pool(self.copy(x))


@pytest.mark.parametrize("pool", [False, True])
def test_sums_of_layers_that_read_the_input(pool: bool) -> None:
    """The tensor is added behind the sums of both parts."""
    model, x = _Sums(pool).eval(), inputs(24)
    wanted = model(torch.from_numpy(x)).detach().numpy()
    found, plain = (celosia.run(celosia.compile(model, (1, *SHAPE), target="icebreaker", **options),
                                x).answer for options in ({"input_bits": 15}, {}))
    noise = [np.square(one - wanted).sum() for one in (found, plain)]
    assert noise[0] < noise[1] / 1.5 and noise[0] < np.square(wanted).sum() / 2000


@pytest.mark.parametrize(("settings", "words"), [
    ({"input_bits": 16}, "input_bits must be 8 to 15 with activation_bits=8, not 16"),
    ({"input_bits": 7}, "8 to 15"), ({"input_bits": "many"}, "8 to 15"),
    ({"input_bits": 15, "activation_bits": 6}, "6 to 11 with activation_bits=6, not 15"),
    ({"input_bits": 15, "target": "hx8k"}, "the array of hx8k adds no tensors")])
def test_settings_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(CelosiaError, match=words):
        celosia.compile(network(), (1, *SHAPE), **settings)


def test_as_many_bits_as_activations_are_no_wide_input() -> None:
    program = celosia.compile(network(), (1, *SHAPE), input_bits=8)
    assert program.low_sums == set()


def test_commands_tell_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.export.save(torch.export.export(network(), (torch.zeros(1, *SHAPE),)),
                      tmp_path / "net.pt2")
    monkeypatch.chdir(tmp_path)
    given = ["net.pt2", "--input-bits", "15"]
    found = json.loads(CliRunner().invoke(app, ["compile", *given, "--json"]).stdout)
    layer = found["layers"][0]
    assert found["wide_input"] == {"bits": 15, "layers": [layer["name"]],
                                   "cycles": layer["predicted_cycles"]}
    shown = CliRunner().invoke(app, ["compile", *given]).stdout
    assert (f"input of 15 bits: its low parts take {layer['predicted_cycles']:,} cycles, in "
            f"{layer['name']}\n") in shown
    checked = CliRunner().invoke(app, ["check", *given, "--target", "icebreaker", "--json"]).stdout
    assert json.loads(checked)["targets"][0]["cycles"] == found["predicted_cycles"]
    plain = json.loads(CliRunner().invoke(app, ["compile", "net.pt2", "--json"]).stdout)
    assert plain["wide_input"] is None


def test_it_is_suggested_where_the_input_costs_most() -> None:
    x = inputs(32)
    told = [celosia.compile(balanced(), x[:1], calibration=x, accuracy="default",
                            weight_bits=bits).remarks[-1] for bits in (8, 4)]
    assert "the input's rounding costs most; with input_bits=15" in told[0]
    assert "input_bits" not in told[1]
    before, after = told[0].split("twice, ")[1].split(" dB")[0].split(" -> ")
    assert float(after) > float(before) + 3


@pytest.mark.parametrize("settings", [{"input_bits": 15}, {"target": "hx8k"}])
def test_it_is_not_suggested_where_it_is_or_cannot_be(settings: dict) -> None:
    x, compiler = inputs(16), Compiler(accuracy="default", **settings)
    improved = more_accurate(compiler.graph(balanced(), x[:1]), compiler, x)
    assert not any("input_bits" in remark for remark in improved.graph.remarks)


def test_targets_that_cannot_have_it_are_told() -> None:
    found = celosia.check(network(), (1, *SHAPE), ["hx8k", "icebreaker"], input_bits=15)
    one, other = found.targets
    assert not one.fits
    assert "adds no tensors" in one.problems[0].problem
    assert one.problems[0].remedy.startswith("leave input_bits out")
    assert other.fits
    with pytest.raises(CelosiaError, match="8 to 15"):
        celosia.check(network(), (1, *SHAPE), input_bits="many")
