"""Residual operands are whole, however small the sums are that they join."""

import numpy as np
import pytest

import celosia
from celosia.graph import Activate, Add, Conv, Graph
from celosia.operand_room import with_room
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia.static_exponents import fixed
from celosia_sim import golden
from celosia_spec.epilogue import Relu, within
from celosia_spec.qgraph import QNode

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

RNG = np.random.default_rng


def conv(name: str, source: str, weight, bias=0.0) -> Conv:
    weight = np.array(weight, float)
    return Conv(name=name, input=source, weight=weight[:, :, None, None],
                bias=np.full(len(weight), bias))


def optimised(*nodes) -> Graph:
    return optimise(Graph(nodes=nodes, input="x", input_map=(1, 3, 3), input_shape=(1, 3, 3),
                          output=nodes[-1].name, output_shape=(1, 3, 3)))


def joined(scale: float, weight: float) -> Graph:
    """``scale * relu(scale * x) + r`` of a map of one channel; r is made of two copies of it behind
    a ReLU."""
    return optimised(
        conv("b", "x", [[1.0], [-2.0]]), Activate(name="active", input="b", activation=Relu()),
        conv("r", "active", [[weight, -weight]], bias=weight / 4),
        conv("a", "x", [[scale]]), Activate(name="relu", input="a", activation=Relu()),
        conv("last", "relu", [[scale]]), Add(name="sum", left="r", right="last"))


def adding(graph) -> QNode:
    node = graph.nodes[-1]
    assert node.epilogue.add == "r"
    return node


@pytest.mark.parametrize("weight", [0.01, 0.25, 3.0, 200.0])
@pytest.mark.parametrize("width", [24, 32])
@pytest.mark.parametrize("scale", [0.5, 2.0**-12])
def test_an_operand_is_not_cut_where_the_input_is_zero(weight: float, width: int,
                                                       scale: float) -> None:
    graph = quantise(joined(scale, weight), acc_bits=width)
    node = adding(graph)
    x = -1.0 - RNG(0).random((4, 1, 3, 3)).astype(np.float32)
    found = golden.run(graph, x)
    assert not found.mantissas[node.input].any()
    wanted = weight * (2 * np.abs(x) * -1 + 0.25)
    answer = np.ldexp(found.mantissas[graph.output].astype(float),
                      (found.exponents[graph.output] - 14)[:, None, None, None])
    assert np.abs(answer - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("scale", [2.0**-12, 0.5, 8.0])
def test_no_more_is_taken_from_the_input_than_is_needed(scale: float) -> None:
    graph = quantise(joined(scale, 3.0), acc_bits=24)
    node = adding(graph)
    x = RNG(0).standard_normal((16, 1, 3, 3)).astype(np.float32) * 2.0 ** np.arange(
        -8, 8).reshape(-1, 1, 1, 1).astype(np.float32)
    found = golden.run(graph, x)
    read = found.readings[node.name].exponents
    own, added = found.exponents[node.input], found.exponents["r"]
    unit = read + int(node.sw.min()) - graph.tensors[node.input].format.fraction
    fits = unit + 24 - 3 >= added + 1
    assert fits.all()
    assert ((read == own) | (unit + 24 - 3 == added + 1)).all()
    assert {0.5: (read > own).any() and (read == own).any(), 8.0: (read == own).all()}.get(
        scale, (read > own).all())


def test_where_it_cannot_be_cut_nothing_is_asked() -> None:
    """Of an operand that is the input, one that a clamp bounds, and exponents that are known."""
    own = optimised(conv("a", "x", [[0.5]]), Add(name="sum", left="x", right="a"))
    assert quantise(own, acc_bits=24).nodes[-1].room is None
    clamped = optimised(
        conv("b", "x", [[1.0]]), Activate(name="r", input="b", activation=within(0, 1)),
        conv("a", "x", [[1.0]]), Add(name="sum", left="r", right="a"))
    assert quantise(clamped, acc_bits=24).nodes[-1].room is not None
    assert quantise(clamped, acc_bits=32).nodes[-1].room is None
    graph = quantise(joined(0.5, 3.0), acc_bits=24)
    node = adding(graph)
    assert node.room is not None
    for above, wanted in ((node.room, None), (node.room + 1, node.room)):
        static = fixed(graph, dict.fromkeys(graph.tensors, 0) | {"r": above, node.input: 0})
        assert adding(static).room == wanted
    assert with_room(graph).nodes[-1].room == node.room


class Net(nn.Module):
    """What a function makes of a convolution's map ``y``, and the map ``x`` that this is of."""

    def __init__(self, function, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)
        self.other = nn.Conv2d(channels, channels, 3, padding=1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.layer(x), self.other(x))


def ratio(net: nn.Module, x: np.ndarray, **options) -> float:
    """Return the energy of the outputs by that of what is wrong with them."""
    program = celosia.compile(net, torch.from_numpy(x[:1]), **options)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    noise = celosia.run(program, x).answer - wanted
    return float(np.square(wanted).sum() / np.square(noise).sum())


DEAD = {
    "dead branch": lambda x, y, z: x + F.relu(y - 100),
    "nearly dead branch": lambda x, y, z: x + F.relu(y * 2.0**-12),
    "two dead branches": lambda x, y, z: x + F.relu(y - 100) + F.relu(z - 100),
    "dead input": lambda x, y, z: F.relu(z - 100) + (y + 10),
    "maximum of itself": lambda x, y, z: torch.maximum(x, x),
    "maximum by ReLU": lambda x, y, z: z + F.relu((z - 50) - z),
    "quiet, then loud": lambda x, y, z: F.relu(y * 1e-3) + 50 * z,
}


@pytest.mark.parametrize("name", DEAD)
@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_what_is_added_to_a_dead_branch(name: str, exponents: str) -> None:
    x = RNG(0).standard_normal((6, 4, 5, 5)).astype(np.float32)
    for options in ({"activation_bits": 8}, {"activation_bits": 5}):
        least = 10 if options["activation_bits"] == 5 else 300
        assert ratio(Net(DEAD[name]), x, target="icebreaker", calibration=x, accuracy="none",
                     exponents=exponents, **options) > least, options


def test_quiet_inputs_keep_their_bits() -> None:
    x = 1e-4 * RNG(0).standard_normal((6, 4, 8, 8)).astype(np.float32)
    net = Net(lambda x, y, z: z + F.relu6(y))
    for layer in (net.layer, net.other):
        layer.bias.data.zero_()
    assert ratio(net, x, target="icebreaker") > 1000


@pytest.mark.parametrize("scale", [0.01, 0.1])
def test_a_bias_that_holds_quiet_inputs_is_seen_in_calibration(scale: float) -> None:
    """By the weights alone inputs are expected to be as large as the bias's room."""
    net = Net(DEAD["dead branch"])
    x = scale * RNG(0).standard_normal((6, 4, 5, 5)).astype(np.float32)
    assert ratio(net, x, target="ulx3s-25f") < 200
    assert ratio(net, x, target="ulx3s-25f", calibration=x) > 3000
    wide, narrow = (celosia.compile(net, (1, 4, 5, 5), target=target, calibration=x)
                    for target in ("ulx3s-25f", "icebreaker"))
    usual = int(np.floor(np.log2(np.abs(x).max())))
    told = f"of layer holds x at exponents of 1 and more, where about {usual} is calibrated"
    assert wide.graph.acc_bits == 32 and narrow.graph.acc_bits == 24
    assert any(line.startswith("32-bit accumulators, because") and line.endswith(told)
               for line in wide.remarks)
    assert any(told in line and "a target with 32-bit accumulators" in line
               for line in narrow.remarks)


SILENT = nn.Conv2d(4, 4, 3, padding=1)


@pytest.mark.parametrize(("scale", "exponents", "function"), [
    (0.01, "dynamic", lambda x, y, z: y + 20),              # the bias is all that counts
    (1, "dynamic", DEAD["dead branch"]),                    # inputs are large enough
    (1, "dynamic", lambda x, y, z: x + SILENT(F.relu(y - 20))),
    (1, "static", lambda x, y, z: x + SILENT(F.relu(y - 20))),
])
def test_what_is_no_reason_for_wider_accumulators(scale: float, exponents: str, function) -> None:
    x = scale * RNG(0).standard_normal((6, 4, 5, 5)).astype(np.float32)
    program = celosia.compile(Net(function), (1, 4, 5, 5), target="ulx3s-25f", calibration=x,
                              exponents=exponents)
    assert program.graph.acc_bits == 24
    assert not [line for line in program.remarks if "calibrated" in line]
    assert ratio(Net(function), x, target="ulx3s-25f", calibration=x, exponents=exponents) > 3000


@pytest.mark.parametrize("name", ["silu", "gelu", "elu", "mish", "selu", "hardswish"])
@pytest.mark.parametrize("options", [{}, {"exponents": "static"}, {"activation_bits": 6}])
@pytest.mark.parametrize("channels", [2, 8])
def test_functions_of_what_is_never_above_zero(name: str, options: dict, channels: int) -> None:
    net = Net(lambda x, y, z: getattr(F, name)(-(2 * y) ** 2), channels)
    x = RNG(0).standard_normal((8, channels, 6, 6)).astype(np.float32)
    assert ratio(net, x, target="icebreaker", calibration=x, accuracy="none", **options) > 25 / (
        1 + 4 * ("activation_bits" in options))
