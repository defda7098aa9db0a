"""Several outputs, some of which were enlarged: the host puts their phases together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import celosia
from celosia import noise
from celosia_spec.errors import CompileError


class Net(nn.Module):
    """What a function makes of a map of 4 channels, half as large as the input."""

    def __init__(self, function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first, self.skip = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.other, self.both = (nn.Conv2d(n, 2, 1) for n in (4, 4, 8))
        self.up, self.vector = nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor):
        return self.function(self, F.relu(self.first(x)), x)


def large(y: torch.Tensor) -> torch.Tensor:
    return F.interpolate(y, scale_factor=2)


NETWORKS = {
    "two heads": lambda net, y, x: (net.one(y), net.both(torch.cat(
        [large(y), F.relu(net.skip(x))], 1))),
    "flattened": lambda net, y, x: (net.one(y).flatten(1), net.other(large(y)).flatten(1)),
    "deep supervision": lambda net, y, x: {"small": net.one(y), "large": net.other(large(y))},
    "segments and classes": lambda net, y, x: (net.up(y), net.vector(y.mean((2, 3)))),
    "classes first": lambda net, y, x: (net.vector(y.mean((2, 3))), net.up(y), y),
    "picture and code": lambda net, y, x: (torch.sigmoid(net.up(y)), y),
    "twice": lambda net, y, x: (large(net.one(y)), large(large(net.other(y))), net.one(y)),
    "one of them twice": lambda net, y, x: (z := net.up(y), net.one(y), z.flatten(1)),
}


@pytest.mark.parametrize("size", [(6, 8), (8, 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_torch(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    net = Net(NETWORKS[name]).eval()
    x = np.random.default_rng(0).standard_normal((5, 3, *size)).astype(np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x))
    program = celosia.compile(net, (1, 3, *size), target="ulx3s-25f", calibration=x)
    program.save(tmp_path / "net.celo")
    for one in (program, celosia.load(tmp_path / "net.celo")):
        answers = celosia.run(one, x).answers
        assert len(answers) == len(wanted)
        for found, value in zip(answers.values(), wanted.values() if isinstance(
                wanted, dict) else wanted, strict=True):
            assert found.shape == value.shape
            noise = np.square(found - value.numpy()).sum()
            assert 10 * np.log10(np.square(value.numpy()).sum() / noise) > 25


SMALL = {
    "enlarged": lambda net, y, x: (net.one(y), 0.01 * net.up(y)),
    "beside an enlarged one": lambda net, y, x: (net.up(y), 0.01 * net.one(y)),
    "nearest": lambda net, y, x: (net.one(y), 0.01 * large(net.other(y))),
    "flattened": lambda net, y, x: (net.one(y).flatten(1), F.relu(0.01 * net.up(y))),
    "read once more": lambda net, y, x: (u := 0.01 * net.skip(x), 200 * net.other(
        F.relu(u)), net.up(y)),
    "a sum": lambda net, y, x: (net.one(y), 0.01 * (net.up(y) + x)),
    "beside bounds": lambda net, y, x: (F.relu6(net.one(y)), 0.01 * net.up(y)),
    "bounds": lambda net, y, x: (net.up(y), 0.01 * F.relu6(net.one(y))),
    "of three": lambda net, y, x: {"a": 0.02 * net.one(y), "b": net.up(y), "c": net.other(y) / 500},
}


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("name", SMALL)
def test_small_ones_keep_their_precision(name: str, exponents: str) -> None:
    net = Net(SMALL[name]).eval()
    x = np.random.default_rng(0).standard_normal((8, 3, 6, 8)).astype(np.float32)
    program = celosia.compile(net, (1, 3, 6, 8), target="ulx3s-25f", calibration=x,
                              exponents=exponents)
    assert not [remark for remark in program.remarks if "signal to noise" in remark]
    with torch.no_grad():
        wanted = net(torch.from_numpy(x))
    ratios = [10 * np.log10(np.square(value.numpy()).sum() / np.square(
        found - value.numpy()).sum()) for found, value in zip(
            celosia.run(program, x).answers.values(),
            wanted.values() if isinstance(wanted, dict) else wanted, strict=True)]
    assert min(ratios) > 28
    against = noise.against_float(program, net, x)
    assert not against.others and against.layers[-1].ratio > 28


def test_small_ones_are_larger_in_training_too() -> None:
    net = Net(SMALL["enlarged"]).eval()
    x = np.random.default_rng(0).standard_normal((4, 3, 6, 8)).astype(np.float32)
    made = celosia.compress.in_format(net, (1, 3, 6, 8), target="ulx3s-25f")
    answers = celosia.run(made.program(), x).answers
    for name, found in made(torch.from_numpy(x)).items():
        assert np.array_equal(found.detach().numpy(), answers[name].astype(np.float32))
        with torch.no_grad():
            value = net(torch.from_numpy(x))[int(name)].numpy()
        assert np.square(answers[name] - value).sum() < np.square(value).sum() / 10**2.8


@pytest.mark.parametrize("scale", [1, 0.01])
def test_functions_are_set_beside_outputs_that_the_host_puts_together(scale: float) -> None:
    net = Net(lambda net, y, x: {"a": net.one(y), "b": scale * F.silu(net.up(y))}).eval()
    x = np.random.default_rng(0).standard_normal((8, 3, 6, 8)).astype(np.float32)
    program = celosia.compile(net, (1, 3, 6, 8), target="ulx3s-25f", calibration=x)
    with torch.no_grad():
        wanted = {name: value.numpy() for name, value in net(torch.from_numpy(x)).items()}
    worst = min(10 * np.log10(np.square(wanted[name]).sum() / np.square(
        found - wanted[name]).sum()) for name, found in celosia.run(program, x).answers.items())
    assert noise.against_float(program, net, x).functions == pytest.approx(worst, abs=0.01)
    assert worst > 25


def test_what_the_machine_does_is_the_golden_model() -> None:
    net = Net(NETWORKS["two heads"]).eval()
    program = celosia.compile(net, (1, 3, 6, 8), target="icebreaker")
    x = np.random.default_rng(0).standard_normal((1, 3, 6, 8)).astype(np.float32)
    assert np.array_equal(celosia.run(program, x, backend="verilator").values,
                          celosia.run(program, x).values)


MOVED = {
    "channels last": lambda net, y, x: (net.one(y), net.up(y).permute(0, 2, 3, 1).reshape(
        1, -1, 3)),
    "cropped": lambda net, y, x: (net.one(y), net.up(y)[:, :, 1:-1, 1:-1]),
    "halves": lambda net, y, x: ((z := net.up(y))[:, :2], z[:, 2:], net.one(y)),
    "one by one": lambda net, y, x: (*net.up(y).unbind(1), net.one(y)),
    "flattened and scores": lambda net, y, x: ((z := net.up(y))[:, :2].flatten(1), torch.sigmoid(
        z[:, 2:]), net.one(y)),
    "beside a smaller vector": lambda net, y, x: (net.up(y)[:, :, 1:-1, 1:-1], 0.001 * net.vector(
        y.mean((2, 3)))),
    "beside a pool": lambda net, y, x: (net.up(y).transpose(2, 3), F.max_pool2d(net.one(y), 3)),
}


@pytest.mark.parametrize("name", MOVED)
def test_parts_and_other_orders(name: str, tmp_path: Path) -> None:
    net = Net(MOVED[name]).eval()
    x = np.random.default_rng(0).standard_normal((5, 3, 6, 8)).astype(np.float32)
    program = celosia.compile(net, (1, 3, 6, 8), target="ulx3s-25f", calibration=x)
    program.save(tmp_path / "net.celo")
    with torch.no_grad():
        wanted = [net(torch.from_numpy(one[None])) for one in x]
    for one in (program, celosia.load(tmp_path / "net.celo")):
        answers = celosia.run(one, x).answers.values()
        for found, values in zip(answers, zip(*wanted, strict=True), strict=True):
            value = torch.cat(values).numpy()
            assert found.shape == value.shape
            assert 10 * np.log10(np.square(value).sum() / np.square(found - value).sum()) > 28


def test_what_is_refused_names_the_output_and_the_layer() -> None:
    net = Net(lambda net, y, x: {"mask": net.up(y)[:, :, 1:-1, 1:-1], "code": net.one(y)})
    with pytest.raises(CompileError, match="^mask .output.: it has elements of up, a map that was "
                       "enlarged.*; return up from a network of its own, or maps of one size"):
        celosia.compile(net.eval(), (1, 3, 32, 40), target="ulx3s-85f")
    net.function = lambda net, y, x: net.up(y)
    celosia.compile(net, (1, 3, 32, 40), target="ulx3s-85f")
    net.function = lambda net, y, x: {"mask": net.up(y), "code": net.one(y)}
    with pytest.raises(CompileError, match="^mask .output.: maps of several sizes.*mask, code have "
                       "4,480; return maps of one size"):
        celosia.compile(net, (1, 3, 32, 40), target="ulx3s-85f")
