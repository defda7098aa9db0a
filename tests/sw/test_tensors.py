"""What layers store, as users read it: in the float network's scale, in files, and by name."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import celosia
from celosia.cli import app

SHAPE = (2, 8, 6)


class Net(torch.nn.Module):
    """The first channel of its map is much smaller than the others, until each has a factor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.pool = torch.nn.Conv2d(2, 3, 3), torch.nn.MaxPool2d(2)
        self.each = torch.nn.Conv2d(3, 3, (2, 1), groups=3)
        self.fc, self.last = torch.nn.Linear(12, 8), torch.nn.Linear(8, 4)
        with torch.no_grad():
            self.conv.weight[0] /= 256
            self.conv.bias[0] /= 256
            self.each.weight[0] *= 256

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.hidden(x)[-1])

    def hidden(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the first layers store."""
        conv = self.pool(self.conv(x).relu())
        return conv, self.fc(self.each(conv).flatten(1)).relu()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("settings", [{}, {"input_bits": 15}])
def test_values_are_those_of_the_float_network(x, settings) -> None:
    """Behind activation and pooling; without the bits by which small channels are larger, and of a
    wide input with its parts together."""
    model = Net().eval()
    program = celosia.compile(model, x[:1], calibration=x, accuracy="default", **settings)
    found = celosia.run(program, x, tensors=True)
    with torch.no_grad():
        conv, fc = model.hidden(torch.from_numpy(x))
    pooled = "conv.pool" if settings else "conv"
    assert program.graph.tensors[pooled].raised[0] >= 4
    for name, wanted in ((pooled, conv.numpy()), ("fc", fc.numpy()), ("x", x)):
        tensor = found.tensors[name]
        assert tensor.values.shape == wanted.shape
        over = (0, 2, 3) if name == pooled else None
        assert (np.abs(tensor.values - wanted).max(over) < 0.05 * np.abs(wanted).max(over)).all()
        assert (tensor.mantissa.dtype, tensor.exponent.dtype) == (np.int32, np.int32)
        assert tensor.mantissa.shape[2:] == (*wanted.shape[2:], 1, 1)[:2]
    exact = 2.0 ** -13 if settings else 2.0 ** -6
    assert np.abs(found.tensors["x"].values - x).max() < exact * np.abs(x).max()
    assert np.array_equal(found.tensors["last"].values, found.values)
    assert found.tensors["last"].mantissa.shape == (9, 4, 1, 1)


@pytest.fixture(scope="module")
def program(x) -> celosia.Program:
    return celosia.compile(Net().eval(), x[:1], target="icebreaker")


def test_layers_by_name(program, x, monkeypatch) -> None:
    monkeypatch.setattr("celosia.backends.CHUNK", 4)
    assert celosia.run(program, x).tensors == {}
    whole = celosia.run(program, x, tensors=True).tensors
    assert list(whole) == ["x", "conv", "each", "fc", "last"]
    for given in ("conv", ["conv"], ("conv", "conv")):
        assert list(celosia.run(program, x, tensors=given).tensors) == ["conv"]
    one = celosia.run(program, x[5:6], tensors=["fc"]).tensors["fc"]
    assert np.array_equal(one.mantissa, whole["fc"].mantissa[5:6])
    for backend in ("golden", "verilator"):
        with pytest.raises(celosia.CelosiaError, match=(
                r"^tensors: no layer conv\.weight; the program stores x, conv, each, fc, last$")):
            celosia.run(program, x, backend, tensors=["conv.weight"])


def test_the_command_shows_and_writes_them(program, x, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    program.save(tmp_path / "net.celo")
    np.save(tmp_path / "x.npy", x)

    def invoke(*arguments: str, status: int = 0):
        found = CliRunner().invoke(app, ["run", str(tmp_path / "net.celo"), "--input",
                                         str(tmp_path / "x.npy"), *arguments])
        assert found.exit_code == status, found.output
        return found

    shown = invoke("--tensors", "-o", str(tmp_path / "all.npz")).stdout
    assert "stored tensors, over all inputs" in shown and "3 x 3 x 2" in shown
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80
    wanted = celosia.run(program, x, tensors=True)
    with np.load(tmp_path / "all.npz") as written:
        assert set(written.files) == set(wanted.arrays) > {
            "tensor.conv.mantissa", "tensor.conv.exponent", "tensor.conv.values", "answer"}
        assert all(np.array_equal(written[name], own) for name, own in wanted.arrays.items())
    told = json.loads(invoke("--tensor", "fc", "--tensor", "conv", "--json").stdout)["tensors"]
    assert list(told) == ["conv", "fc"]
    assert told["conv"]["shape"] == [3, 3, 2] and len(told["conv"]["exponents"]) == 9
    assert told["conv"]["max"] == wanted.tensors["conv"].values.max()
    assert told["conv"]["zeros"] == np.mean(wanted.tensors["conv"].mantissa == 0)
    assert json.loads(invoke("--json").stdout)["tensors"] is None
    refused = invoke("--tensor", "pool", status=1)
    assert refused.stderr == ("celosia: tensors: no layer pool; the program stores x, conv, each, "
                              "fc, last\n")
