"""PyTorch models to float graphs: each operator against PyTorch, each refusal with its message."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

import celosia
from beside_torch import SHAPE, example, quiet, snr
from celosia.frontend import import_model
from celosia.frontend.patterns import MOST_STEPS
from celosia.frontend.patterns import Function as ElementFunction
from celosia.graph import Activate, Conv, Curve
from celosia.graph_text import dump
from celosia.passes import optimise
from celosia.pieces import fit
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError


class Function(nn.Module):
    """A module whose forward pass is a plain function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def randomise(model: nn.Module) -> nn.Module:
    """Give BatchNorm layers statistics that are not the initial ones."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


MODELS = {
    "conv": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    "conv without bias": lambda: nn.Conv2d(4, 6, 1, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4, padding="same"),
    "even kernel": lambda: nn.Conv2d(4, 2, 4, padding="same"),
    "zero padding": lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(4, 2, 3)),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
    "batch norm, not affine": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3)),
    "relu": lambda: nn.ReLU(),
    "functional relu": lambda: Function(lambda x: F.relu_(x.clone())),
    "clamp": lambda: Function(lambda x: torch.clamp(x, min=0)),
    "relu6": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU6(), nn.Conv2d(6, 3, 1)),
    "functional relu6": lambda: Function(lambda x: F.relu6(8 * x)),
    "leaky relu": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.LeakyReLU(0.1), nn.Conv2d(6, 3, 1)),
    "leaky relu of a flat map": lambda: nn.Sequential(
        nn.Conv2d(4, 3, 3), nn.Flatten(), nn.LeakyReLU(0.2), nn.Linear(108, 3)),
    "prelu": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.PReLU(6, 0.3), nn.MaxPool2d(2)),
    "prelu, one slope": lambda: nn.Sequential(nn.PReLU(), nn.Flatten(), nn.Linear(256, 4),
                                              nn.PReLU()),
    "hardsigmoid": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Hardsigmoid(), nn.ReLU()),
    "hardtanh": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Hardtanh(-0.5, 0.5), nn.MaxPool2d(2)),
    **{name: lambda act=act: Function(act) for name, act in {
        "where": lambda x: torch.where(x > 0, x, 0.0),
        "where, zeros": lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
        "masked": lambda x: x.masked_fill(x < 0, 0.0),
        "times a comparison": lambda x: x * (x > 0),
        "times a number": lambda x: x * (x > 0).float(),
        "threshold": lambda x: F.threshold(x, 0, 0),
        "larger of 0": lambda x: torch.maximum(torch.zeros(1), x),
        "larger of a number": lambda x: torch.maximum(x, torch.full_like(x, -0.5)),
        "far bounds": lambda x: x.clamp(-1, 50) + x.clamp(-100) + torch.fmin(x, torch.tensor(70)),
        "bounds beyond all": lambda x: x.clamp(-1e30, 3e38) + x.clamp(0, 1e6),
        "tensors as bounds": lambda x: torch.where(x > 0, x, torch.tensor(0.0)).clamp(
            max=torch.tensor([1.5])),
        "larger of two": lambda x: torch.maximum(*x.chunk(2, 1)),
        "smaller of two": lambda x: torch.fmin(*x.chunk(2, 1)).relu() + x[:, 1:3],
        "smaller": lambda x: torch.minimum(torch.tensor(0.5), x),
        "lower bound": lambda x: F.relu(x.clamp(min=-0.25) + x), "clamp_min": lambda x:
            torch.clamp_min(x, 2.0), "upper bound": lambda x: x.clamp(max=1) + x,
        "clamp_max": lambda x: torch.clamp_max(x, -1.0)}.items()},
    "clamp, two bounds": lambda: Function(lambda x: torch.clamp(x, -0.25, 1.5)),
    "clamp above zero": lambda: Function(lambda x: F.relu(x.clamp(0.5, 2)) + x),
    "clamp of a clamp": lambda: Function(lambda x: x.clamp(-2, 2).relu().clamp(-1, 1)),
    "clamped vector": lambda: nn.Sequential(nn.Flatten(), nn.Hardtanh(-1, 0.5), nn.Linear(256, 4)),
    "max pool": lambda: nn.MaxPool2d((2, 3), stride=(3, 1)),
    "average pool": lambda: nn.AvgPool2d(3, stride=2),
    "average pool, padded": lambda: nn.AvgPool2d((2, 3), padding=(1, 1)),
    "average pool, divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((2, 4)),
    "adaptive to one": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                             nn.Linear(4, 3)),
    "mean": lambda: Function(lambda x: x.mean((-1, 2))),
    "mean of columns": lambda: Function(lambda x: x.mean(2)),
    "mean of lines": lambda: Function(lambda x: x.mean(3, keepdim=True)),
    "mean, flat": lambda: Function(lambda x: F.relu(F.relu(x).flatten(2)).mean(-1)),
    "largest": lambda: Function(lambda x: x.amax((2, 3))),
    "largest, flat": lambda: Function(lambda x: F.relu(x).flatten(2).amax(2)),
    "adaptive maximum": lambda: nn.AdaptiveMaxPool2d((4, 1)),
    "mean, kept": lambda: Function(lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 7), nn.BatchNorm1d(7), nn.ReLU(),
                                    nn.Linear(7, 3, bias=False)),
    "view": lambda: Function(lambda x: x.view(1, -1)),
    "reshape": lambda: Function(lambda x: F.relu(x.reshape(x.size(0), 16, 16).reshape(1, 256))),
    "add": lambda: Function(lambda x: F.relu(x) + F.max_pool2d(x, 1)),
    "dropout": lambda: nn.Sequential(nn.Dropout(), nn.Identity(), nn.Conv2d(4, 3, 1),
                                     nn.Dropout2d()),
    "contiguous": lambda: Function(lambda x: x.contiguous().clone() + x.detach()),
}
LINES = {       # of networks over lines
    "conv": lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2),
    "grouped, normalised": lambda: nn.Sequential(
        nn.Conv1d(4, 6, 3, padding="same"), nn.BatchNorm1d(6), nn.ReLU(),
        nn.Conv1d(6, 4, 3, groups=2)),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Conv1d(4, 6, 1)),
    "max pool": lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.MaxPool1d(2)),
    "max pool, overlapping": lambda: nn.MaxPool1d(3, 2),
    "average pool": lambda: nn.AvgPool1d(3, 2, padding=1),
    "adaptive": lambda: nn.AdaptiveAvgPool1d(4),
    "adaptive maximum": lambda: nn.AdaptiveMaxPool1d(2),
    "classifier": lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                                        nn.Linear(6, 3)),
    "flattened": lambda: nn.Sequential(nn.Conv1d(4, 3, 3), nn.ReLU(), nn.Flatten(),
                                       nn.Linear(42, 5)),
    "mean": lambda: Function(lambda x: x.mean(-1)),
    "largest": lambda: Function(lambda x: F.relu(x.amax(2, keepdim=True))),
    "maximum": lambda: Function(lambda x: x.max(2)[0]),
    "padded": lambda: nn.Sequential(nn.ZeroPad1d((2, 0)), nn.Conv1d(4, 4, 3)),
    "added": lambda: Function(lambda x: F.relu(x) + F.max_pool1d(x, 1)),
    "a map for a while": lambda: nn.Sequential(
        nn.Unflatten(2, (1, 16)), nn.Conv2d(4, 3, (1, 3)), nn.Flatten(2), nn.Conv1d(3, 2, 3)),
}
CURVES = {      # functions of one number, each of them one node
    "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "silu": nn.SiLU(), "gelu": nn.GELU(),
    "gelu, tanh": nn.GELU(approximate="tanh"), "elu": nn.ELU(0.7), "selu": nn.SELU(),
    "celu": nn.CELU(1.3), "hardswish": nn.Hardswish(), "mish": nn.Mish(),
    "abs": Function(torch.abs), "softplus": nn.Softplus(2.0), "log sigmoid": nn.LogSigmoid(),
    "softsign": nn.Softsign(), "tanhshrink": nn.Tanhshrink(),
    "beside it": Function(lambda x: x + F.gelu(x)), "softshrink": nn.Softshrink(),
    "erf": Function(torch.erf),
    "swish": Function(lambda x: x * torch.sigmoid(1.702 * x)),
    "sixth": Function(lambda x: x * F.relu6(x + 3) / 6),
    "halves": Function(lambda x: 0.5 * x * (1 + torch.erf(x / 2 ** 0.5))),
    "larger": Function(lambda x: torch.maximum(x, x / 10)),
    "sigmoid, exp": Function(lambda x: 1 / (1 + torch.exp(-x))),
    "tanh, exp": Function(lambda x: 1 - 2 * (1 + torch.exp(2 * x)) ** -1),
    "softplus, exp": Function(lambda x: torch.log(1 + torch.exp(x))),
    "mish, exp": Function(lambda x: x * torch.tanh(torch.log(torch.exp(x) + 1))),
    "bell": Function(lambda x: 1 / (1 + x * x)), "root": Function(lambda x: (x ** 2 + 1).sqrt()),
    "isru": Function(lambda x: x * torch.rsqrt(1 + 3 * x.square())),
    "gauss": Function(lambda x: torch.exp(-0.5 * x * x)),
    "both sides": Function(lambda x: 2 - torch.exp(-x.abs())),
    "bounded": Function(lambda x: torch.exp(x.clamp(-2, 1))),
    "log cosh": Function(lambda x: torch.log(torch.exp(x) + torch.exp(-x))),
    "faint slope": Function(lambda x: torch.tanh(x) + x / 100),
    "faint end": Function(lambda x: torch.sigmoid(x) + torch.relu(x) / 50),
    "atan": Function(torch.atan),
    "in a chain": Function(lambda x: torch.tanh(F.softplus(x))),
    "behind a slope": nn.Sequential(nn.PReLU(), nn.Sigmoid()),
    "behind a function": nn.Sequential(nn.SiLU(), nn.Tanh()),
}


@pytest.mark.parametrize("name", CURVES)
def test_functions_of_one_number_are_pieces(name: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), CURVES[name], nn.Conv2d(6, 3, 3)).eval()
    graph = import_model(model, example())
    curves = [node for node in graph.nodes if isinstance(node, Curve)]
    assert len(curves) == 1
    assert all(curve.off < 0.02 for curve in curves)
    assert [remark.split(": ")[1][:23] for remark in graph.remarks] == [
        "12 straight pieces, off" for curve in curves if curve.off > 1e-6]
    assert all(re.search(r"below about 0\.\d+$", remark) for remark in graph.remarks)
    ratio = snr(model, graph, SHAPE)
    assert ratio > 24, f"{ratio:.1f} dB"


@pytest.mark.parametrize("name", ["silu", "elu", "gelu", "softplus", "log sigmoid", "tanhshrink",
                                  "softsign", "atan", "isru", "faint slope", "faint end"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 80.0])
def test_functions_are_right_for_numbers_of_every_size(name: str, scale: float) -> None:
    """Without calibration nothing tells how large they are."""
    torch.manual_seed(0)
    model = nn.Sequential(CURVES[name], nn.Conv2d(4, 3, 1)).eval()
    x = (np.random.default_rng(1).standard_normal((8, *SHAPE[1:])) * scale).astype(np.float32)
    program = celosia.compile(model, SHAPE, target="icebreaker")
    wanted = model(torch.from_numpy(x)).detach().numpy()
    noise = celosia.run(program, x).values - wanted
    assert 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()) > 27


def test_a_function_may_take_a_parameter_that_is_one_number() -> None:
    class Swish(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.beta = nn.Parameter(torch.tensor([1.5]))

        def forward(self, x):
            return x * torch.sigmoid(self.beta * x)

    graph = import_model(nn.Sequential(nn.Conv2d(4, 6, 3), Swish()), example())
    x = np.linspace(-5, 5, 101)
    assert np.abs(graph.nodes[-1].pieces(x) - x / (1 + np.exp(-1.5 * x))).max() < 0.02


@pytest.mark.parametrize("last", [torch.exp, torch.tanh])
def test_of_many_steps_a_function_takes_some(last, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is tried as its first: of all, that would take forever."""
    def long(x: torch.Tensor) -> torch.Tensor:
        for _ in range(300):
            x = torch.relu(x) + 1
        return last(x * x * x)

    tried = []
    monkeypatch.setattr("celosia.frontend.patterns.fit", lambda f: (tried.append(f), fit(f))[1])
    with suppress(CompileError):
        import_model(nn.Sequential(nn.Conv2d(4, 4, 3), Function(long)), example())
    assert len(tried) <= 2 * MOST_STEPS
    assert all(len(f.steps) <= MOST_STEPS for f in tried)


@pytest.mark.parametrize(("function", "words"), [
    (torch.exp, r"1.exp \(exp\): it does not run straight far from 0; clamp what it takes to where "
     r"it is needed, such as x.clamp\(-4, 4\), or replace it with ReLU and train the model again"),
    (lambda x: x ** 3, r"1.pow \(pow\): it does not run straight far from 0; clamp .* x.cl.*-4, 4"),
    (torch.sqrt, r"1.sqrt \(sqrt\): it is not finite everywhere; clamp .* x.clamp\(0.25, 8\), or"),
    (torch.sin, r"1.sin \(sin\): it does not run straight far from 0; clamp .* x.clamp\(-4, 4\)"),
    (lambda x: 1 / (1 + x.abs()), r"1.reciprocal \(reciprocal\): 12 straight pieces are off by up "
     r"to 2% of its span; clamp 0, the tensor that it is .*, such as x.clamp\(-4, 4\)"),
    (lambda x: torch.where(x > 0, 1.0, -1.0), r"1.where \(where\): 12 .*of its span; replace it"),
    (lambda x: x / (1 + F.max_pool2d(x, 1).abs()), r"1.div \(div\): it divides by a tensor"),
    (lambda x: F.hardshrink(x), r"1.hardshrink \(hardshrink\): not supported by this machine; re"),
    (lambda x: torch.atan(20 * x).tan(), r"1.tan \(tan\): not supported")])
def test_what_is_no_curve_is_refused(function, words: str) -> None:
    with pytest.raises(CompileError, match="^" + words):
        import_model(nn.Sequential(nn.Conv2d(4, 4, 3), Function(function), nn.ReLU()), example())


def test_a_step_of_a_file_that_could_end_the_process_is_not_run() -> None:
    graph = torch.fx.Graph()
    x, zero = graph.placeholder("x"), graph.placeholder("zero")
    step = graph.call_function(torch.ops.aten.div.Tensor_mode, (zero, zero),
                               {"rounding_mode": "floor"})
    with pytest.raises(ValueError, match="it divides whole numbers by -1 or 0, and rounds"):
        ElementFunction(x, (step,), {zero: torch.tensor(0)})(np.zeros(3))


def test_a_function_of_parameters_is_computed_once() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.linspace(-1, 1, 4)[:, None, None])

        def forward(self, x):
            return x * (self.gate * torch.sigmoid(self.gate)) + F.silu(self.gate)

    graph = import_model(Gate(), example())
    assert not any(isinstance(node, Curve) for node in graph.nodes)


@pytest.mark.parametrize("name", LINES)
def test_operators_on_lines_compute_what_pytorch_computes(name: str) -> None:
    torch.manual_seed(3)
    model, shape = randomise(LINES[name]()), (1, 4, 16)
    ratio = snr(model, import_model(model, shape), shape)
    assert ratio > 38, f"{ratio:.1f} dB"


@pytest.mark.parametrize("name", MODELS)
def test_operators_compute_what_pytorch_computes(name: str) -> None:
    torch.manual_seed(3)
    model = randomise(MODELS[name]())
    ratio = snr(model, import_model(model, example()), SHAPE)
    assert ratio > 38, f"{ratio:.1f} dB"


def test_weights_are_taken_as_they_are() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    graph = import_model(model, example((1, 3, 2, 2)))
    weight = model[1].weight.detach().numpy().astype(np.float64)
    assert (graph.nodes[1].weight[:, :, 0, 0] == weight).all()
    assert graph.nodes[1].weight.dtype == graph.nodes[1].bias.dtype == np.float64
    assert (optimise(graph).nodes[0].weight[:, :, 0, 0] == weight).all()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return F.relu(y)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2 = Residual(), Residual()
        self.features = nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.fc1 = nn.Linear(45, 10)

    def forward(self, x):
        x = self.features(self.block2(self.block1(x)))
        return self.fc1(torch.flatten(x, 1))


def network() -> Network:
    torch.manual_seed(5)
    return randomise(Network())


NAMES = ["block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "features.0", "fc1"]


def test_a_network_keeps_the_names_the_user_knows() -> None:
    model = network()
    graph = import_model(model, example())
    assert [n.name for n in graph.nodes if isinstance(n, Conv)] == NAMES
    assert [n.name for n in graph.nodes if isinstance(n, Activate)] == [
        "block1.relu", "block1.relu_2", "block2.relu", "block2.relu_2", "features.1"]
    assert [n.name for n in optimise(graph).nodes] == NAMES
    assert snr(model, graph, SHAPE) > 38


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    model.block2.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    import_model(model, example())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_form_of_a_model_gives_the_same_graph(tmp_path: Path) -> None:
    model = network().eval()
    program = quiet(torch.export.export, model, (torch.zeros(SHAPE),))
    quiet(torch.export.save, program, tmp_path / "network.pt2")
    batch = torch.export.Dim("batch")
    dynamic = quiet(torch.export.export, model, (torch.zeros(2, *SHAPE[1:]),),
                    dynamic_shapes=({0: batch},))
    text = dump(import_model(model, torch.zeros(SHAPE)))
    for form in (program, tmp_path / "network.pt2", str(tmp_path / "network.pt2"), dynamic):
        assert dump(import_model(form, example())) == text


class Mask(nn.Module):
    def __init__(self, mask) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def test_pruned_weights_are_computed_once() -> None:
    for parametrised in (False, True):
        model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(108, 5))
        for index in (0, 2):
            if parametrised:
                mask = (model[index].weight.detach().abs() > 0.05).float()
                parametrize.register_parametrization(model[index], "weight", Mask(mask))
            else:
                prune.l1_unstructured(model[index], "weight", 0.5)
        model(torch.zeros(SHAPE))
        graph = import_model(model, example())
        assert [n.name for n in graph.nodes] == ["0", "1", "2"]
        for node, layer in ((graph.nodes[0], model[0]), (graph.nodes[2], model[2])):
            wanted = layer.weight.detach().numpy().reshape(node.weight.shape)
            assert (node.weight == wanted).all()
            assert 0 < np.count_nonzero(node.weight) < node.weight.size
        model(torch.ones(SHAPE))


def test_weights_that_are_not_finite_are_refused() -> None:
    model = network()
    with torch.no_grad():
        model.block2.conv2.weight[1, 0, 2, 2] = float("nan")
        model.block2.conv2.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(CompileError, match=r"^block2\.conv2 \(conv2d\): its weight holds 2 of 36 "
                                           "values that are not finite; train the model again"):
        import_model(model, example())


def test_a_program_exported_in_training_mode_is_refused() -> None:
    for model, message in ((nn.Sequential(nn.BatchNorm2d(4)), r"^0 \(batch_norm\): it takes its "
                            r"statistics from the batch; export the model after model\.eval\(\)"),
                           (nn.Sequential(nn.Dropout()), r"^0 \(dropout\): it is on in "
                            r"evaluation, too; .*; a program is exported after model.eval\(\)")):
        program = quiet(torch.export.export, model.train(), (torch.zeros(SHAPE),))
        with pytest.raises(CompileError, match=message):
            import_model(program, example())


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


def test_programs_with_other_inputs_are_refused() -> None:
    x = torch.zeros(SHAPE)
    program = quiet(torch.export.export, TwoInputs(), (x, x))
    with pytest.raises(CompileError, match=r"^input \(input\): the model takes 2 inputs, and exa"):
        import_model(program, example())
    program = quiet(torch.export.export, nn.ReLU(), (x,))
    with pytest.raises(CompileError, match=r"^input \(input\): the program takes \(1, 4, 8, 8\), "
                                           r"example_input has \(1, 4, 9, 8\); give an example"):
        import_model(program, example((1, 4, 9, 8)))


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(CompileError, match=r"^model \(torch\.export\): the model cannot be"):
        import_model(nn.Conv2d(3, 4, 3), example())


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CelosiaError, match=r"none\.pt2: no such file; give one that is there, or"):
        import_model(tmp_path / "none.pt2", example())
    (tmp_path / "bad.pt2").write_bytes(b"not a program")
    with pytest.raises(CelosiaError, match=r"bad\.pt2: not a readable \.pt2 file \(.*\); save"):
        import_model(tmp_path / "bad.pt2", example())


def test_models_of_another_kind_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^model must be a torch\.nn\.Module, a torch\.export"
                                            r"\.ExportedProgram or the path of a \.pt2 or \.onnx "
                                            r"file, not dict$"):
        import_model({}, example())
