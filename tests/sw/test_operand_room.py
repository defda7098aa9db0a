"""Bounded residual operands are whole where the sums that they join are small."""

from dataclasses import replace

import numpy as np
import pytest

import celosia
from celosia.graph import Activate, Add, Conv, Graph
from celosia.operand_room import bounds
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_spec.epilogue import Relu, within
from celosia_spec.isa.numbers import EXPONENT_MIN

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

RNG = np.random.default_rng


def conv(name: str, source: str, weight, bias=0.0) -> Conv:
    weight = np.array(weight, float)
    return Conv(name=name, input=source, weight=weight[:, :, None, None],
                bias=np.full(len(weight), bias))


def joined(scale: float, weight: float, activation=None) -> Graph:
    """``relu(scale * x) + r`` of a map of one channel; r is made of two clamped copies of it."""
    activation = activation or within(0, 1)
    nodes = (conv("b", "x", [[1.0], [-2.0]]),
             Activate(name="clamped", input="b", activation=activation),
             conv("r", "clamped", [[weight, -weight]], bias=weight / 4),
             conv("a", "x", [[scale]]), Activate(name="relu", input="a", activation=Relu()),
             conv("last", "relu", [[scale]]), Add(name="sum", left="r", right="last"))
    return optimise(Graph(nodes=nodes, input="x", input_map=(1, 3, 3), input_shape=(1, 3, 3),
                          output="sum", output_shape=(1, 3, 3)))


def test_bounds_are_the_farthest_that_clamps_allow() -> None:
    assert bounds(joined(1.0, 3.0).nodes) == {"r": 3.75}
    assert bounds(joined(1.0, 3.0, within(0, 2)).nodes) == {"r": 6.75}
    assert bounds(joined(1.0, 3.0, Relu()).nodes) == {}      # a ReLU has none


@pytest.mark.parametrize("weight", [0.01, 0.25, 3.0, 200.0])
@pytest.mark.parametrize("width", [24, 32])
def test_an_operand_with_a_bound_is_not_cut_where_the_input_is_zero(weight: float,
                                                                    width: int) -> None:
    graph = joined(0.5, weight)
    found = quantise(graph, acc_bits=width)
    node = found.nodes[-1]
    assert node.epilogue.add == "r"
    least = found.tensors[node.input].exponent.least
    unit = 2.0 ** (int(node.sw.min()) + least - found.tensors[node.input].format.fraction)
    cut = (2 ** (width - 3) - 1) * unit
    assert cut >= 1.25 * weight
    if least > EXPONENT_MIN:        # no more than is needed
        assert cut / 4 < 1.25 * weight


def test_other_operands_have_no_bound_and_quiet_inputs_keep_their_bits() -> None:
    dense = replace(joined(1.0, 3.0).nodes[1], groups=1, weight=np.ones((2, 1, 1, 1)))
    assert bounds([joined(1.0, 3.0).nodes[0], dense]) == {}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = (nn.Conv2d(c, 8, 3, padding=1, bias=False) for c in (3, 8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.b(F.relu6(y)) + self.c(y)

    x = 1e-4 * RNG(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    assert ratio(Net(), x, target="icebreaker") > 1000


def ratio(net: nn.Module, x: np.ndarray, **options) -> float:
    """Return the energy of the outputs by that of what is wrong with them."""
    program = celosia.compile(net, x[:1], **options)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    noise = celosia.run(program, x).answer - wanted
    return float(np.square(wanted).sum() / np.square(noise).sum())


@pytest.mark.parametrize("name", ["silu", "gelu", "elu", "mish", "selu", "hardswish"])
@pytest.mark.parametrize("options", [{}, {"exponents": "static"}, {"activation_bits": 6}])
@pytest.mark.parametrize("channels", [2, 8])
def test_functions_of_what_is_never_above_zero(name: str, options: dict, channels: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, channels, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(F, name)(-(2 * self.layer(x)) ** 2)

    x = RNG(0).standard_normal((8, 3, 6, 6)).astype(np.float32)
    assert ratio(Net(), x, target="icebreaker", calibration=x, accuracy="none", **options) > 25 / (
        1 + 4 * ("activation_bits" in options))
