"""A program beside the float network: noise by layer, and the layer that adds most."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia.accuracy import output_ratio
from celosia.backends import simulate
from celosia.cli import app
from celosia.compiler import Compiler
from celosia.float_values import outputs
from celosia.models import LeNet5
from celosia.noise import against_float
from celosia.verify import verify
from celosia.widths import widths
from celosia_spec.block import bfp
from celosia_spec.errors import CelosiaError
from float_graph import interpret
from pages import xml

SHAPE = (2, 8, 8)


def network() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                         nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(96, 4)).eval()


def inputs(count: int = 5) -> np.ndarray:
    return np.random.default_rng(8).normal(size=(count, *SHAPE)).astype(np.float32)


def coarse(model: nn.Sequential, at: int, bits: int) -> nn.Sequential:
    """Return a copy whose layer ``at`` has weights of so few bits."""
    made = copy.deepcopy(model)
    weights = made[at].weight
    m, exponents = bfp(weights.detach().numpy(), bits, axis=0)
    with torch.no_grad():
        weights.copy_(torch.from_numpy(np.ldexp(m.astype(np.float64), (
            exponents - (bits - 2)).reshape(-1, *[1] * (m.ndim - 1)))))
    return made


@pytest.mark.parametrize("at", [0, 2, 4, 6])
def test_layer_with_few_bits_is_named(at: int) -> None:
    program = celosia.compile(coarse(network(), at, 3), (1, *SHAPE))
    found = against_float(program, network(), inputs())
    layer = [0, 2, 4, 6].index(at) + 1
    assert found.worst is found.layers[layer]
    assert all(other.alone > found.worst.alone + 10 for other in found.layers
               if other is not found.worst)


def test_input_with_few_bits_is_named() -> None:
    x = inputs()
    x[:, 0] *= 200          # what counts is in the other channel
    model = network()
    with torch.no_grad():
        model[0].weight[:, 0] = 0
    found = against_float(celosia.compile(model, (1, *SHAPE)), model, x)
    assert found.worst is found.layers[0]


def test_figures_are_those_of_the_tensors() -> None:
    model, x = network(), inputs()
    program = celosia.compile(model, (1, *SHAPE), activation_bits=6)
    found = against_float(program, model, x)
    graph = Compiler().graph(model, (1, *SHAPE))
    wanted = np.stack([interpret(graph, image) for image in x])
    made = celosia.run(program, x).values
    assert found.layers[-1].ratio == pytest.approx(
        10 * np.log10(np.square(wanted).sum() / np.square(made - wanted).sum()))
    assert found.output_ratio == found.layers[-1].ratio
    assert found.layers[-1].ratio == pytest.approx(
        output_ratio(program.graph, x, outputs(graph, x)))
    m, exponents = np.stack([bfp(image, 6)[0] for image in x]), [bfp(image, 6)[1] for image in x]
    rounded = np.ldexp(m.astype(np.float64), np.array(exponents)[:, None, None, None] - 4)
    first = found.layers[0]
    assert first.ratio == pytest.approx(
        10 * np.log10(np.square(x.astype(float)).sum() / np.square(rounded - x).sum()))
    assert first.alone == pytest.approx(10 * np.log10(np.square(wanted).sum() / np.square(
        np.stack([interpret(graph, image) for image in rounded]) - wanted).sum()))
    assert first.zeros == np.mean(m == 0) > 0
    assert first.zeros_float == 0
    assert first.saturated == np.mean(abs(m) == 31)
    hidden = torch.relu(model[0](torch.from_numpy(x))).detach().numpy()
    assert found.layers[1].zeros_float == pytest.approx(np.mean(hidden == 0), abs=1e-3)


def test_noise_of_layers_alone_sums_up_to_about_all() -> None:
    program = celosia.compile(network(), (1, *SHAPE), activation_bits=5)
    found = against_float(program, network(), inputs(32))
    alone = sum(10 ** (-layer.alone / 10) for layer in found.layers)
    assert abs(10 * np.log10(alone) + found.output_ratio) < 1.5


def test_exact_layers_are_without_noise() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)).eval()
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
    found = against_float(celosia.compile(model, (1, *SHAPE)), model, np.round(inputs() * 8))
    assert [layer.alone for layer in found.layers] == [np.inf] * 3


def test_clipped_mantissas_are_counted() -> None:
    x = inputs()
    program = celosia.compile(network(), x[:1], calibration=x / 8, exponents="static")
    found = against_float(program, network(), x)
    assert found.layers[0].saturated > 0.2
    assert found.layers[0].ratio < 10


def test_equalised_channels_are_compared_at_the_size_of_the_float_network() -> None:
    torch.manual_seed(3)
    first, own = nn.Conv2d(2, 12, 3), nn.Conv2d(12, 12, 3, groups=12)
    with torch.no_grad():
        first.weight *= 2.0 ** -torch.arange(12).view(-1, 1, 1, 1).div(2)
        first.bias *= 2.0 ** -torch.arange(12).div(2)
        own.weight *= 2.0 ** torch.arange(12).view(-1, 1, 1, 1).div(2)
    model = nn.Sequential(first, nn.ReLU(), own, nn.ReLU(), nn.Conv2d(12, 4, 4)).eval()
    x = inputs(32)
    program = celosia.compile(model, x[:1], calibration=x, activation_bits=5, accuracy="default")
    assert any(remark.startswith("accuracy: equalise") and not remark.endswith("not applied")
               for remark in program.remarks)
    found = against_float(program, model, x)
    assert all(layer.ratio > 10 for layer in found.layers)
    assert found.output_ratio == pytest.approx(
        output_ratio(program.graph, x, outputs(Compiler().graph(model, x[:1]), x)))


def test_of_many_inputs_64_are_taken() -> None:
    program = celosia.compile(network(), (1, *SHAPE))
    seen = []
    found = against_float(program, network(), inputs(130), progress=lambda *of: seen.append(of))
    assert found.inputs == 44
    assert seen == [(done, 44) for done in range(1, 45)]


class Kinds(nn.Module):
    """Two inputs, depthwise layers, several read together, a product, a function, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.c, self.d = nn.Conv2d(12, 4, 1), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.a(torch.cat([x, y], 1)))
        z = self.c(torch.cat([self.b(x), nn.functional.silu(x)], 1))
        return self.d((z * z.mean((2, 3), keepdim=True)).mean((2, 3))), 0.01 * z


@pytest.mark.parametrize("options", [
    {}, {"weight_bits": 4}, {"accuracy": "best"}, {"input_bits": 15, "accuracy": "none"}])
def test_weights_that_are_the_models_are_known(options: dict) -> None:
    x, y = (np.random.default_rng(at).normal(size=(12, 2, 6, 6)).astype(np.float32) * 4**at
            for at in (0, 1))
    model = Kinds().eval()
    model.b.weight.data *= 2.0 ** torch.arange(-6, 6, 2)[:, None, None, None]
    given = {} if "input_bits" in options else {"y": y}
    if not given:
        model = network()
    samples = inputs(12) if not given else (x, y)
    program = celosia.compile(model, tuple(torch.from_numpy(one[:1]) for one in samples)
                              if given else torch.from_numpy(samples[:1]), calibration=samples,
                              **options)
    joined = np.concatenate(samples, axis=1) if given else samples
    assert against_float(program, model, joined[:2]).others == ()
    for layer in (model.c, model.d) if given else (model[2], model[0]):
        before = layer.weight.data.clone()
        layer.weight.data[0, 0] += 0.2
        assert len(against_float(program, model, joined[:2]).others) == 1
        layer.weight.data = before


@pytest.mark.parametrize(("model", "words"), [
    (nn.Sequential(*network()[:2], *network()[4:6]), "in the program"),
    (nn.Sequential(nn.Conv2d(2, 9, 3), nn.ReLU(), nn.Conv2d(9, 8, 3), *network()[3:]),
     "9 x 6 x 6, in the program 8 x 6 x 6")])
def test_another_model_is_refused(model: nn.Module, words: str) -> None:
    program = celosia.compile(network(), (1, *SHAPE))
    with pytest.raises(CelosiaError, match=words):
        against_float(program, model.eval(), inputs())


def command(folder: Path, *arguments: str, status: int = 0):
    result = CliRunner().invoke(app, ["compare", str(folder / "net.celo"), *arguments])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.celo, the float net.pt2 that it is a coarse copy of, and x.npy."""
    path = tmp_path_factory.mktemp("noise")
    np.save(path / "x.npy", inputs())
    torch.export.save(torch.export.export(network(), (torch.zeros(1, *SHAPE),)), path / "net.pt2")
    celosia.compile(coarse(network(), 2, 3), (1, *SHAPE)).save(path / "net.celo")
    return path


def test_command(folder: Path) -> None:
    given = ("--against", "float", "--model", str(folder / "net.pt2"), "--input",
             str(folder / "x.npy"))
    found = json.loads(command(folder, *given, "--json").stdout)
    wanted = against_float(celosia.load(folder / "net.celo"), network(), inputs())
    assert found["worst"] == wanted.worst.name == found["layers"][2]["name"]
    assert found["inputs"] == 5
    assert found["output_ratio"] == pytest.approx(wanted.output_ratio)
    assert found["other_weights"] == [wanted.layers[2].name]
    result = command(folder, *given, "--limit", "2")
    assert f"not those that the program has rounded, in {wanted.layers[2].name}: " in result.stderr
    shown = result.stdout
    assert f"Most is lost in {wanted.worst.name}: " in shown
    assert "2 inputs" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_trained_weights(tmp_path: Path) -> None:
    model = "celosia.models:LeNet5"
    torch.manual_seed(1)
    trained = LeNet5()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    celosia.compile(trained, (1, 1, 28, 28)).save(tmp_path / "net.celo")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).random((2, 1, 28, 28), np.float32))
    given = ("--against", "float", "--model", model, "--input", str(tmp_path / "x.npy"))
    assert "not those that the program has rounded" in command(tmp_path, *given).stderr
    result = command(tmp_path, *given, "--weights", str(tmp_path / "w.safetensors"), "--json")
    assert not result.stderr and json.loads(result.stdout)["other_weights"] == []


@pytest.mark.parametrize(("arguments", "words"), [
    (("--against", "float"), "give --model MODEL --input FILE"),
    (("--against", "golden"), "give --against float"),
    (("--model", "net.pt2"), "go with --against float"),
    (("--html", "x.html"), "go with --against float"),
    (("--weights", "x.safetensors"), "go with --against float"),
    (("--against", "float", "--model", "net.pt2", "--input", "net.celo", "--html", "net.celo"),
     "needs that file for something else")])
def test_refusals(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    refusal = command(folder, *arguments, status=1).stderr
    assert words in refusal
    assert refusal.count("\n") == 1


@pytest.fixture
def given(folder: Path) -> list[str]:
    return ["--against", "float", "--model", str(folder / "net.pt2"), "--input",
            str(folder / "x.npy"), "--limit", "2"]


def test_page(folder: Path, given: list[str]) -> None:
    page = folder / "x.html"
    printed = command(folder, *given, "--html", str(page)).stdout
    root = xml(page)
    program = celosia.load(folder / "net.celo")
    cells = [cell.text for cell in root.iter("td")]
    found = against_float(program, network(), inputs()[:2])
    assert cells[::6] == [layer.name for layer in found.layers]
    assert cells[1::6] == [f"{layer.ratio:.1f}" for layer in found.layers]
    assert root.find(".//p").text == " ".join(printed.splitlines()[-2:])
    stored, alone = (list(plot.iter("rect")) for plot in root.iter("svg"))
    assert len(stored) == len(alone) == len(found.layers)
    (red,) = (bar for bar in (*stored, *alone) if bar.get("fill") == "#b03a2e")
    assert red is min(alone, key=lambda bar: float(bar.get("width")))


def test_backend_with_the_golden_models_mantissas(folder: Path, given: list[str]) -> None:
    found = json.loads(command(folder, *given, "--backend", "verilator", "--json").stdout)
    verified = verify(celosia.load(folder / "net.celo"), inputs()[:2])
    assert found["backend"] == {"name": "verilator", "values": verified.values, "mismatches": 0,
                                "first_mismatch": None}
    shown = command(folder, *given, "--backend", "verilator").stdout
    assert f"All {verified.values:,} values that verilator shows are" in " ".join(shown.split())


def test_first_element_that_differs_is_named(folder: Path, given: list[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(program: object, images: np.ndarray, *rest: object, **given: object) -> object:
        found = simulate(program, images, *rest, **given)
        found.output[1, 2] += 7
        return found

    monkeypatch.setattr("celosia.backends.simulate", wrong)
    program = celosia.load(folder / "net.celo")
    golden = celosia.run(program, inputs()[:2]).mantissa
    page = folder / "wrong.html"
    result = command(folder, *given, "--backend", "verilator", "--html", str(page), status=1)
    layer = program.graph.nodes[-1].name
    assert f"layer {layer!r}" in result.stderr
    expected = int(golden.reshape(2, -1)[1, 2])
    assert f"image 1, element (2, 0, 0): expected {expected}, got {expected + 7}" in result.stderr
    assert "1 differs from the golden model's" in " ".join(result.stdout.split())
    assert "1 differs" in page.read_text()


@pytest.mark.parametrize("function", [lambda x: torch.nn.functional.silu(x / 8),
                                      lambda x: torch.nn.functional.gelu(x) * x],
                         ids=["pieces", "product"])
def test_functions_are_compared_with_themselves_and_not_with_their_pieces(function) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(function(self.first(x)))

    x = np.random.default_rng(0).standard_normal((16, 2, 6, 6)).astype(np.float32)
    program = celosia.compile(Net(), x[:1], calibration=x, accuracy="none")
    wanted = Net()(torch.from_numpy(x)).detach().numpy().astype(float)
    noise = celosia.run(program, x).answer - wanted
    ratio = 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum())
    found = against_float(program, Net(), x)
    assert found.functions == pytest.approx(ratio, abs=0.05)
    assert found.functions < found.output_ratio
    (width,) = widths(Net(), x[:1], bits=[(8, 8)], calibration=x, accuracy="none").widths
    assert width.ratio == pytest.approx(ratio, abs=0.05)
    assert width.cycles == program.predicted_cycles
