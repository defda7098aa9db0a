"""Functions as straight pieces: how far off they are, and which are none."""

import numpy as np
import pytest

from celosia.pieces import PIECES, fit

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

CURVES = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": F.silu, "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"), "elu": lambda x: F.elu(x, 0.5),
    "selu": F.selu, "celu": lambda x: F.celu(x, 2.0), "hardswish": F.hardswish, "mish": F.mish,
    "softplus": lambda x: F.softplus(x, 3.0), "log sigmoid": F.logsigmoid, "softsign": F.softsign,
    "tanhshrink": F.tanhshrink, "erf": torch.erf, "falling": lambda x: -F.silu(-x),
    "steep": lambda x: torch.sigmoid(20 * x), "huge": lambda x: 1e6 * torch.tanh(x),
    "tiny": lambda x: 1e-6 * F.gelu(x), "raised": lambda x: 3 + F.elu(x)}
STRAIGHT = {
    "abs": torch.abs, "relu6": F.relu6, "hardtanh": F.hardtanh, "softshrink": F.softshrink,
    "leaky": F.leaky_relu, "bent twice": lambda x: F.relu(x + 2) - 3 * F.relu(x - 1.5),
    "the same": lambda x: x * 1.0, "halved": lambda x: x / -2, "constant": lambda x: x * 0 + 5}
NONE = {
    "exp": (torch.exp, "it does not run straight far from 0"),
    "square": (torch.square, "it does not run straight far from 0"),
    "sin": (torch.sin, "it does not run straight far from 0"),
    "sqrt": (torch.sqrt, "it is not finite everywhere"),
    "reciprocal": (torch.reciprocal, "it is not finite everywhere"),
    "bent far away": (lambda x: x * torch.sigmoid(x - 100), "straight farther than 64 from 0"),
    "step far away": (lambda x: torch.sigmoid(x.relu() - 100), "straight farther than 64 from 0"),
    "small steps": (lambda x: F.hardshrink(x, 0.02), "it jumps by 0.02"),
    "a step among others": (lambda x: F.silu(x) + 0.05 * (x > 3), "it jumps by 0.05"),
    "hardshrink": (F.hardshrink, "12 straight pieces are off by up to .*%"),
    "steps": (torch.floor, "12 straight pieces are off by up to .*%"),
    "waves": (lambda x: torch.tanh(x) + torch.sin(9 * x) * (x.abs() < 9), "pieces are off")}


def of(function):
    return lambda x: function(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("name", CURVES)
def test_pieces_are_as_far_off_as_is_said(name):
    function = of(CURVES[name])
    pieces, off = fit(function)
    near, far = np.random.default_rng(0).uniform(-9, 9, 20_000), np.linspace(-500, 500, 4001)
    span = np.ptp(function(np.linspace(-4, 4, 1001)))
    assert 1 <= len(pieces.knots) - 1 <= PIECES and (np.diff(pieces.knots) > 0).all()
    assert np.abs(pieces(near) - function(near)).max() <= 1.02 * off * span
    assert np.abs(pieces(far) - function(far)).max() <= 0.021 * span
    assert 1e-4 < off < 0.02
    assert abs(pieces(np.zeros(1)) - function(np.zeros(1))) <= 1e-6 * span


@pytest.mark.parametrize("name", STRAIGHT)
def test_what_is_straight_is_exact(name):
    pieces, off = fit(of(STRAIGHT[name]))
    x = np.random.default_rng(0).uniform(-500, 500, 20_000)
    assert off < 1e-6
    np.testing.assert_allclose(pieces(x), of(STRAIGHT[name])(x), atol=1e-6)


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_such_function_says_why(name):
    function, words = NONE[name]
    with pytest.raises(ValueError, match=words):
        fit(of(function))
