"""Training in the machine's number format: outputs are the golden model's, zeros stay, and training
gains what few bits had lost."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

import celosia
from celosia import compress
from celosia.cli import app
from celosia_spec.errors import ArgumentError, CelosiaError

FOUR = {"weight_bits": 4, "activation_bits": 4}


class Residual(nn.Module):
    """Normalisation, a depthwise layer, a clamp, a shortcut, two tensors together, and averages."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.mixed, self.last = nn.Conv2d(12, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.first(x)))
        y = functional.relu6(self.deep(x) + x)
        both = functional.max_pool2d(functional.relu(self.mixed(torch.cat([x, y], 1))), 2)
        return self.last(both.mean((2, 3)))


def network(seed: int = 1) -> Residual:
    torch.manual_seed(seed)
    net = Residual()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net.eval()


def drawn(count: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(count).normal(size=(count, *shape))).float()


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("bits", [4, 8])
def test_outputs_of_one_that_clips_are_those_of_its_program(exponents, bits):
    x = drawn(12, 2, 8, 8)
    net = network()
    with torch.no_grad():
        net.mixed.weight[:, 0] = 1      # three times the largest of the others
    made = compress.in_format(net, x[:1], weight_bits=bits, activation_bits=bits, clip=True,
                              exponents=exponents,
                              calibration=x[:8] if exponents == "static" else None)
    before = made(x).detach()
    assert np.array_equal(before, celosia.run(made.program(), x).values)
    weight = made.weights["2"]
    compress.FineTune(inputs=x, labels=torch.arange(12) % 3, epochs=2, learning_rate=0.01)(made, 0)
    after = made(x).detach()
    assert not torch.equal(before, after)
    assert np.array_equal(after, celosia.run(made.program(), x).values)
    now = torch.from_numpy(made.graph().nodes[2].weight)
    assert (now.abs() < weight.detach().abs()).any()


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_outputs_that_are_rounded_have_gradients(exponents):
    x = drawn(24, 2, 8, 8)
    made = compress.in_format(network(), x[:1], **FOUR, exponents=exponents, clip=True,
                              calibration=x if exponents == "static" else None)
    made(x).sum().backward()
    last = made.biases[str(len(made.graph().nodes) - 1)]
    assert (last.grad == len(x)).all()


def test_what_is_clipped_has_no_gradient():
    x, net = drawn(16, 2, 8, 8), network()
    with torch.no_grad():
        net.mixed.weight[:, 0] = 1      # three times the largest of the others
    made = compress.in_format(net, x[:1], **FOUR, exponents="static", calibration=x, clip=True)
    weight, now = made.weights["2"], torch.from_numpy(made.graph().nodes[2].weight)
    clipped = now.abs() < weight.detach().abs()
    assert clipped.any()
    assert not clipped.all()
    made(x).square().sum().backward()
    assert weight.grad[clipped].count_nonzero() == 0
    assert weight.grad[~clipped].count_nonzero() > 0
    loud = x.clone().requires_grad_()
    with torch.no_grad():
        loud[:8] *= 1000
    made(loud).square().sum().backward()
    beyond = loud.detach().abs() > 2 * x.abs().max()
    assert beyond.any()
    assert loud.grad[beyond].count_nonzero() == 0
    assert loud.grad[~beyond].count_nonzero() > 0


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_outputs_are_those_of_the_program_before_and_after_training(exponents, bits):
    x = drawn(12, 2, 8, 8)
    settings = {"weight_bits": bits, "activation_bits": bits, "exponents": exponents,
                "calibration": x[:4] if exponents == "static" else None}
    made = compress.in_format(network(), x[:1], **settings)
    before = made(x).detach()
    program = celosia.compile(network(), x[:1], **settings)
    assert np.array_equal(before, celosia.run(program, x).values)
    compress.FineTune(inputs=x, labels=torch.arange(12) % 3, epochs=2, learning_rate=0.01)(made, 0)
    after = made(x).detach()
    assert not torch.equal(before, after)
    assert np.array_equal(after, celosia.run(made.program(), x).values)


def test_gradients_are_those_of_the_float_network_where_rounding_is_fine():
    x, net = drawn(4, 2, 8, 8), network()
    made = compress.in_format(net, x[:1], weight_bits=8, activation_bits=8)
    made(x).square().sum().backward()
    net(x).square().sum().backward()
    found, wanted = made.weights["2"].grad.flatten(), net.mixed.weight.grad.flatten()
    assert functional.cosine_similarity(found, wanted, dim=0) > 0.99
    assert abs(found.norm() / wanted.norm() - 1) < 0.02


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_what_stands_around_a_map_is_trained_like_the_rest(mode):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode), nn.ReLU(),
                        nn.PixelShuffle(2), nn.Conv2d(1, 3, (3, 5), stride=2, padding=1,
                                                      padding_mode=mode)).eval()
    x = drawn(4, 2, 6, 7)
    made = compress.in_format(net, x[:1])
    assert any(any(node.border) for node in made.graph().nodes)
    found = made(x)
    assert np.array_equal(found.detach(), celosia.run(made.program(), x).values)
    found.square().sum().backward()
    net(x).square().sum().backward()
    wanted = net[0].weight.grad.flatten()
    assert functional.cosine_similarity(made.weights["0"].grad.flatten(), wanted, dim=0) > 0.99


def test_only_weights_of_the_network_are_trained():
    """No pieces of functions and products, no sums of stored tensors, nothing that is broadcast."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x):
            x = functional.silu(self.a(x))
            y = functional.relu(self.norm(functional.relu(self.b(x))))
            z = functional.relu(x) + y
            z = z * z.mean((2, 3), keepdim=True) + y.mean((2, 3), keepdim=True)
            return self.last(z.sum((2, 3)))

    made = compress.in_format(Net().eval(), (1, 2, 6, 6))
    names = [made.graph().nodes[int(number)].name for number in made.weights]
    assert names == ["a", "b", "norm", "last"]
    assert made.biases.keys() <= made.weights.keys()


class Heads(nn.Module):
    """Maps of two sizes, one of which is enlarged, and a vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 3, 1)
        self.up, self.last = nn.ConvTranspose2d(4, 2, 4, 2, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = functional.relu(self.a(x))
        return self.b(x), self.up(x), self.last(x.mean((2, 3)))


def test_outputs_have_the_networks_shapes():
    x = drawn(3, 2, 6, 8)
    larger = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2)).eval()
    made = compress.in_format(larger, x[:1])
    assert made(x).shape == larger(x).shape
    assert np.allclose(made(x).detach(), celosia.run(made.program(), x).answer)
    heads = Heads().eval()
    made = compress.in_format(heads, x[:1])
    found, answers = made(x), celosia.run(made.program(), x).answers
    for name, wanted in zip(found, heads(x), strict=True):
        assert found[name].shape == wanted.shape
        assert np.allclose(found[name].detach(), answers[name])
        assert functional.mse_loss(found[name], wanted) < 0.01 * wanted.square().mean()
    sum(value.square().sum() for value in found.values()).backward()
    assert all(weight.grad.any() for weight in made.weights.values())


def test_pruned_weights_stay_zero():
    x, net = drawn(8, 2, 8, 8), network()
    compress.prune(net, "magnitude", rates={"mixed": 0.5, "last": 0.5})
    made = compress.in_format(net, x[:1], **FOUR)
    zeros = {key: weight == 0 for key, weight in made.weights.items()}
    assert sum(int(zero.sum()) for zero in zeros.values()) >= 48 + 12
    compress.FineTune(inputs=x, labels=torch.arange(8) % 3, epochs=3, learning_rate=0.05)(made, 0)
    pruned = {layer.name: layer.nonzeros for layer in made.program().layers}
    assert pruned["mixed"] <= 48
    assert pruned["last"] <= 12


def test_slopes_that_are_constants_stay():
    """Those of a PReLU are parameters."""
    x = drawn(12, 2, 8, 8)
    for function, trained in ((nn.LeakyReLU(0.2), 2), (nn.PReLU(3, 0.2), 3)):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Conv2d(2, 3, 3), function, nn.Conv2d(3, 2, 3)).eval()
        made = compress.in_format(net, x[:1])
        [slopes] = (node for node in made.graph().nodes if node.name == "1")
        assert np.allclose(np.unique(slopes.weight), [0, 0.2, 0.8])
        assert len(made.weights) == trained
        made(x).square().sum().backward()
        with torch.no_grad():
            for weight in made.parameters():
                weight -= 0.01 * weight.grad / weight.grad.abs().max()
        [after] = (node for node in made.graph().nodes if node.name == slopes.name)
        assert np.array_equal(after.weight, slopes.weight) is (trained == 2)
        assert np.array_equal(made(x).detach(), celosia.run(made.program(), x).values)


NORMALISED = {
    "leaky": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.BatchNorm2d(4),
                                   nn.ReLU(), nn.Conv2d(4, 2, 3)),
    "sigmoid": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sigmoid(), nn.BatchNorm2d(4)),
    "enlarged": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Upsample(
        scale_factor=2, mode="bilinear"), nn.LeakyReLU(0.1), nn.BatchNorm2d(4),
        nn.Conv2d(4, 2, 3, padding=1)),
    "product": lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.GLU(1), nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_a_normalisation_behind_what_stays_is_trained(name):
    x = drawn(12, 2, 8, 8)
    torch.manual_seed(2)
    net = NORMALISED[name]()
    for norm in net:
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
    net.eval()
    made = compress.in_format(net, x[:1], calibration=x)
    [(key, factors)] = made.factors.items()
    before = made.graph().nodes[int(key)]
    wanted = net(x).detach() * 0.5 + 0.25
    losses = []
    for _ in range(12):
        loss = nn.functional.mse_loss(made(x), wanted)
        made.zero_grad()
        loss.backward()
        with torch.no_grad():
            for own in (factors, made.biases[key]):
                assert own.grad.abs().max() > 0
                own -= 0.02 * own.grad / own.grad.abs().max()
        losses.append(loss.item())
    after = made.graph().nodes[int(key)]
    assert min(losses[6:]) < 0.9 * losses[0]
    ratio = after.weight[before.weight != 0] / before.weight[before.weight != 0]
    assert ratio.std() > 0
    assert not np.any(after.weight[before.weight == 0])
    assert np.array_equal(made(x).detach(), celosia.run(made.program(), x).answer)


def test_the_model_stays_as_it_was():
    x, net = drawn(6, 2, 8, 8), network()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    made = compress.in_format(net, x[:1], **FOUR)
    compress.FineTune(inputs=x, labels=torch.arange(6) % 3, learning_rate=0.1, teacher=net)(made, 0)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_state_is_kept_and_given_back():
    x = drawn(6, 2, 8, 8)
    made, other = (compress.in_format(network(seed), x[:1], **FOUR) for seed in (1, 2))
    assert not torch.equal(made(x), other(x))
    other.load_state_dict(made.state_dict())
    other.eval()
    assert torch.equal(made(x)[3:], other(x[3:]))


def test_double_inputs_and_none():
    x = drawn(3, 2, 8, 8)
    made = compress.in_format(network(), x[:1], **FOUR)
    assert torch.equal(made(x.double()).float(), made(x))
    assert made(x[:0]).shape == (0, 3)


def test_refusals():
    x = drawn(3, 2, 8, 8)
    with pytest.raises(ArgumentError, match="need calibration"):
        compress.in_format(network(), x[:1], exponents="static")
    with pytest.raises(ArgumentError, match="weight_bits must be 4 to 8, not 3"):
        compress.in_format(network(), x[:1], weight_bits=3)
    with pytest.raises(CelosiaError, match="Hardshrink"):
        compress.in_format(nn.Hardshrink(), torch.zeros(1, 4))
    made = compress.in_format(network(), x[:1], **FOUR)
    with pytest.raises(CelosiaError, match="has its program already"):
        celosia.compile(made, x[:1])
    with pytest.raises(CelosiaError, match="image 1 of the input holds values that are not finite"):
        made(torch.stack([x[0], x[0] / 0]))
    with torch.no_grad():
        made.weights["2"][0] = 1e9
    with pytest.raises(CelosiaError, match="mixed"):
        made(x)


MODEL = """
import torch

def make():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(72, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
"""


@pytest.mark.parametrize(("exponents", "clip"), [
    ("dynamic", False), ("static", False), ("static", True)])
def test_tune_writes_a_program_that_is_as_accurate_as_it_says(network_folder, exponents, clip):
    folder = network_folder("tuned_net", MODEL)
    done = CliRunner().invoke(app, [
        "tune", "tuned_net:make", "--data", "data.npz", "-o", "tuned.celo", "--weight-bits", "4",
        "--activation-bits", "4", "--exponents", exponents, "--epochs", "15", "--batch-size", "16",
        "--learning-rate", "0.01", "--no-teach", "--json", *["--clip"] * clip])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["choices"]["clip"] is clip
    assert result["accuracy"]["after"] > max(0.8, result["accuracy"]["before"])
    program = celosia.load(folder / "tuned.celo")
    assert program.exponents == exponents
    from celosia import datasets
    data = datasets.load_dataset("data.npz")
    right = celosia.run(program, datasets.as_inputs(data.test_images)).values.argmax(1)
    assert (right == data.test_labels).mean() == pytest.approx(result["accuracy"]["after"])


def test_tune_shows_a_table_and_says_what_cannot_be(network_folder):
    network_folder("tuned_net", MODEL)
    words = ["tune", "tuned_net:make", "--data", "data.npz", "-o", "tuned.celo"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "8 / 8 bits" in done.stdout
    assert "wrote tuned.celo" in done.stdout
    for more, why in ((["--learning-rate", "0"], "--learning-rate must be above 0"),
                      (["--target", "none"], "none"), (["--exponents", "odd"], "odd"),
                      (["--mean", "0.5"], "both mean and deviation")):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 1
        assert why in done.stderr
