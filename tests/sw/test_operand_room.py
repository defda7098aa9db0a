"""Bounded residual operands are whole where the sums that they join are small."""

import numpy as np
import pytest

import celosia
from celosia.expected import expected_exponents
from celosia.graph import Activate, Add, Conv, Graph
from celosia.operand_room import QUIET, bounds
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
    assert bounds(joined(1.0, 3.0, within(-2, 2)).nodes) == {"r": 12.75}
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
    quiet = max(expected_exponents(graph)[node.input] - QUIET, EXPONENT_MIN)
    unit = 2.0 ** (int(node.sw.min()) + least - found.tensors[node.input].format.fraction)
    cut = (2 ** (width - 3) - 1) * unit
    assert least == EXPONENT_MIN or least <= quiet
    assert cut >= 1.25 * weight or least == quiet
    if EXPONENT_MIN < least < quiet:        # no more than is needed
        assert cut / 4 < 1.25 * weight


@pytest.mark.parametrize("name", ["silu", "gelu", "elu", "mish", "selu"])
@pytest.mark.parametrize("options", [{}, {"exponents": "static"}, {"activation_bits": 6}])
def test_functions_of_what_is_never_above_zero(name: str, options: dict) -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(F, name)(-(x * x))

    x = RNG(0).standard_normal((12, 2, 4, 4)).astype(np.float32)
    program = celosia.compile(Net(), (1, 2, 4, 4), target="icebreaker", calibration=x,
                              accuracy="none", **options)
    wanted = Net()(torch.from_numpy(x)).numpy()
    noise = celosia.run(program, x).answer - wanted
    assert np.square(wanted).sum() > 10 * np.square(noise).sum()
