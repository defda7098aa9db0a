"""Layers at a network's end that the host computes: split off, stored, and as PyTorch has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import celosia
from celosia_spec.errors import CelosiaError, CompileError
from celosia_spec.host_layers import OPERATORS, HostLayer, check_host, compute, scoring

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

X = np.random.default_rng(1).normal(size=(6, 3, 8, 8)).astype(np.float32)


class Ended(nn.Module):
    """A classifier of 8 classes, or with ``picture`` a map of 4 channels, with an end of its own.
    """

    def __init__(self, end, *, picture: bool = False) -> None:
        super().__init__()
        torch.manual_seed(2)
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()]
        if not picture:
            layers += [nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16, 8)]
        self.body, self.end = nn.Sequential(*layers), end

    def forward(self, x):
        return self.end(self.body(x))


ENDS = {     # an end, and what the report calls its layers
    "softmax": (nn.Softmax(1), ["end (softmax)"]),
    "the last axis": (nn.LogSoftmax(-1), ["end (log_softmax)"]),
    "sigmoid": (nn.Sigmoid(), ["end (sigmoid)"]),
    "log sigmoid": (nn.LogSigmoid(), ["end (log_sigmoid)"]),
    "hard sigmoid": (nn.Hardsigmoid(), ["end (hardsigmoid)"]),
    "tanh": (nn.Tanh(), ["end (tanh)"]),
    "arg-max": (lambda y: y.argmax(1), ["argmax"]),
    "arg-max with its axis": (lambda y: y.argmax(dim=-1, keepdim=True), ["argmax"]),
    "indices of max": (lambda y: torch.max(y, 1)[1], ["argmax"]),
    "softmax and arg-max": (lambda y: y.softmax(1).argmax(1), ["softmax", "argmax"]),
    "in sequence": (nn.Sequential(nn.Sigmoid(), nn.Softmax(1)),
                    ["end.0 (sigmoid)", "end.1 (softmax)"]),
    "softmax over a part": (lambda y: y.reshape(-1, 2, 4).softmax(2), ["softmax"]),
    "float64": (lambda y: F.softmax(y, 1, dtype=torch.float64), ["softmax"]),
    "flattened behind": (lambda y: y.softmax(1).unsqueeze(2).flatten(1),
                         ["softmax", "unsqueeze (reshape)", "view (reshape)"]),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_answer_is_pytorchs_of_the_arrays_values(name: str, tmp_path: Path) -> None:
    end, layers = ENDS[name]
    program = celosia.compile(Ended(end), X[:1])
    assert [str(layer) for layer in program.host] == layers
    result = celosia.run(program, X)
    wanted = end(torch.from_numpy(result.values)).numpy()
    assert result.answer.shape == wanted.shape and result.values.shape[0] == len(X)
    assert np.abs(result.answer - wanted).max() <= 1e-12
    assert (result.answer.dtype == np.int64) == (wanted.dtype == np.int64)
    program.save(tmp_path / "p.celo")
    loaded = celosia.load(tmp_path / "p.celo")
    assert loaded.host == program.host
    assert np.array_equal(celosia.run(loaded, X).answer, result.answer)


@pytest.mark.parametrize(("end", "shape"), [
    (lambda y: y.squeeze().softmax(0), (8,)), (lambda y: y.squeeze(), (8,)),
    (lambda y: y.argmax(), ()), (lambda y: y.view(4, 2).argmax(0), (2,))])
def test_an_end_without_the_batch_axis_is_computed_for_each_input(end, shape) -> None:
    program = celosia.compile(Ended(end), X[:1])
    result = celosia.run(program, X)
    assert result.values.shape == (6, 8) and result.answer.shape == (6, *shape)
    for value, answer in zip(result.values, result.answer, strict=True):
        wanted = end(torch.from_numpy(value[None])).numpy()
        assert wanted.shape == shape and np.abs(answer - wanted).max() <= 1e-12


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Softmax2d(), lambda y: y.argmax(1), nn.Sigmoid(),
                                 lambda y: y.flatten(2).softmax(2), lambda y: y.log_softmax(3)])
def test_maps_have_ends_too(end) -> None:
    program = celosia.compile(Ended(end, picture=True), X[:1], target="ecp5-85f")
    result = celosia.run(program, X)
    wanted = end(torch.from_numpy(result.values)).numpy()
    assert result.answer.shape == wanted.shape
    assert np.abs(result.answer - wanted).max() <= 1e-12


def test_without_an_end_the_answer_is_the_values_and_the_array_computes_the_same() -> None:
    plain = celosia.compile(Ended(nn.Identity()), X[:1])
    ended = celosia.compile(Ended(nn.Softmax(1)), X[:1])
    bare, result = celosia.run(plain, X), celosia.run(ended, X)
    assert plain.host == () and plain.remarks == ()
    assert np.array_equal(bare.answer, bare.values)
    assert np.array_equal(bare.mantissa, result.mantissa)
    assert plain.predicted_cycles == ended.predicted_cycles
    assert ended.remarks == ("the host computes layer end (softmax)",)
    assert repr(ended).splitlines()[2].endswith("; the host computes layer end (softmax)")


def test_a_relu_or_a_flattening_before_the_end_stays_with_the_array() -> None:
    program = celosia.compile(Ended(lambda y: F.relu(y)[:, :, None, None].flatten(1).softmax(1)),
                              X[:1])
    assert [str(layer) for layer in program.host] == ["softmax"]
    assert (celosia.run(program, X).values >= 0).all()


@pytest.mark.parametrize("end", [lambda y: y * y.sigmoid(), lambda y: F.relu(F.tanh(y)),
                                 lambda y: F.relu(1 + F.logsigmoid(y)), F.gelu])
def test_a_function_that_the_host_does_not_have_is_the_array_s(end) -> None:
    program = celosia.compile(Ended(end), X[:1])
    assert program.host == ()
    wanted = Ended(end)(torch.from_numpy(X)).detach().numpy()
    assert np.abs(celosia.run(program, X).values - wanted).max() < 0.04 * np.abs(wanted).max()


@pytest.mark.parametrize(("end", "words"), [
    (lambda y: y.softmax(1) * 2, "softmax (softmax): not supported by this machine"),
    (lambda y: y * y.softmax(1), "softmax (softmax): not supported by this machine"),
    (lambda y: y * y.exp(), "exp (exp): it does not run straight far from 0; clamp what it takes"),
    (lambda y: y.softmax(0), "softmax (softmax): it works over axis 0, the batch"),
    (lambda y: torch.max(y, 0)[1], "argmax (argmax): it works over axis 0, the batch"),
    (lambda y: y.sum().softmax(0), "softmax (softmax): it works over a single number"),
    (lambda y: torch.max(y, 1)[0], "max (max): not supported by this machine; leave it out")])
def test_what_is_not_an_end_is_refused_by_name(end, words: str) -> None:
    with pytest.raises(CompileError) as caught:
        celosia.compile(Ended(end), X[:1])
    assert str(caught.value).startswith(words)


def test_a_pt2_file_has_its_end_too(tmp_path: Path) -> None:
    model = Ended(nn.Sequential(nn.LogSigmoid(), nn.Softmax(1))).eval()
    torch.export.save(torch.export.export(model, (torch.from_numpy(X[:1]),)), tmp_path / "m.pt2")
    program = celosia.compile(tmp_path / "m.pt2", X[:1])
    assert [layer.operator for layer in program.host] == ["log_sigmoid", "softmax"]


def layer(operator: str, axis: int | None, shape: tuple[int, ...]) -> HostLayer:
    return HostLayer(name="end", operator=operator, axis=axis, shape=shape)


@pytest.mark.parametrize(("layers", "words"), [
    ([layer("exp", None, (8,))], "the host has no operator 'exp'"),
    ([layer("softmax", None, (8,))], "softmax without an axis"),
    ([layer("softmax", 1, (8,))], "softmax over axis 1 of the shape (8,)"),
    ([layer("sigmoid", 0, (8,))], "sigmoid over axis 0 of the shape (8,)"),
    ([layer("argmax", -1, ())], "argmax over axis -1 of the shape (8,)"),
    ([layer("sigmoid", None, (4, 2))], "sigmoid makes no (4, 2) of (8,)"),
    ([layer("reshape", None, (4, 3))], "reshape makes no (4, 3) of (8,)"),
    ([layer("reshape", None, (-8, -1))], "reshape makes no (-8, -1) of (8,)"),
    ([layer("reshape", None, (8,) + (1,) * 8)], "reshape makes no"),
    ([layer("argmax", None, ()), layer("argmax", 0, ())], "argmax over axis 0 of the shape ()"),
    ([layer("sigmoid", None, (8,))] * 17, "17 layers of the host, at most 16 are made")])
def test_host_layers_that_cannot_be_are_refused(layers: list[HostLayer], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_host(layers, (8,))
    assert words in str(caught.value)


def test_every_operator_is_computed() -> None:
    """On numbers that PyTorch's float32 would lose."""
    values = np.array([[-800.0, 0.0, 1.0, 800.0]])
    for operator in (word for word in OPERATORS if word != "pixel_shuffle"):
        axis = 0 if operator in ("softmax", "log_softmax", "argmax", "movedim") else None
        shape = () if operator == "argmax" else (4,)
        found = compute([layer(operator, axis, shape)], values)
        assert found.shape == (1, *shape) and np.isfinite(found).all()
    assert compute([layer("log_softmax", 0, (4,))], values)[0, 0] == -1600


def test_phases_are_put_together_as_pytorch_does() -> None:
    values = np.random.default_rng(0).normal(size=(2, 12, 3, 5))
    found = compute([layer("pixel_shuffle", None, (3, 6, 10))], values)
    assert (found == F.pixel_shuffle(torch.from_numpy(values), 2).numpy()).all()
    wide = compute([layer("pixel_shuffle", None, (4, 3, 15))], values)
    assert (wide[:, 1, :, 2::3] == values[:, 5]).all()


def test_axes_are_put_in_another_order_as_pytorch_does() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    layers = [layer("movedim", 0, (4, 5, 3)), layer("movedim", 1, (4, 3, 5))]
    check_host(layers, (3, 4, 5))
    assert (compute(layers[:1], values) == values.transpose(0, 2, 3, 1)).all()
    assert (compute(layers, values) == values.transpose(0, 2, 1, 3)).all()
    assert scoring(layers[:1], (3, 4, 5)).axis == 2 and scoring(layers, (3, 4, 5)).axis == 1
    for axis, shape in ((None, (4, 5, 3)), (3, (3, 4, 5)), (0, (3, 4, 5)), (-1, (3, 4, 5))):
        with pytest.raises(ValueError, match="movedim"):
            check_host([layer("movedim", axis, shape)], (3, 4, 5))


@pytest.mark.parametrize("shape", [(3, 6, 9), (3, 6), (3, 5, 10), (2, 6, 10), (-3, -6, 10)])
def test_phases_that_cannot_be_are_refused(shape: tuple[int, ...]) -> None:
    check_host([layer("pixel_shuffle", None, (3, 6, 10))], (12, 3, 5))
    with pytest.raises(ValueError, match="pixel_shuffle makes no"):
        check_host([layer("pixel_shuffle", None, shape)], (12, 3, 5))


def test_a_name_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    program = celosia.compile(Ended(nn.Softmax(1)), X[:1])
    object.__setattr__(program.host[0], "name", "a\nb")
    with pytest.raises(CelosiaError, match="printable"):
        program.save(tmp_path / "p.celo")
