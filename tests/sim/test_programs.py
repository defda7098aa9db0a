"""Whole programs on the verilated machine: small odd networks, every stored bit and every cycle."""

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import celosia
from celosia.graph import Graph
from celosia.lower import lower
from celosia.passes import optimise
from celosia.program import Program
from celosia.quantise import quantise
from celosia.schedule.scheduling import schedule
from celosia.verify import verify
from celosia_sim import golden
from celosia_sim.simulate import simulate
from celosia_spec.epilogue import Clamp
from celosia_spec.isa import DESCRIPTOR, DESCRIPTOR_WORDS, ArrayConfig, Space
from first_machine import UP5K

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from celosia.frontend import import_model  # noqa: E402

SIZES = {"weight_rows": 4096, "bank_rows": 1024, "table_rows": 1024, "taps": 1024, "writes": 2048,
         "program_words": 1024, "store_beats": 2048, "residual_beats": 1024}
ARRAYS = {
    "8 lanes": ArrayConfig(lanes=8, quad=2, beat=2, wide_elements=2, weight_bits=6,
                           activation_bits=6, clamp=True, **SIZES),
    "UP5K": UP5K,
    "deep": ArrayConfig(lanes=16, quad=4, beat=4, wide_elements=4, acc_bits=32, deep=True,
                        clamp=True, **SIZES),
}
"""Each costs a run of Verilator. The UP5K's has 16 lanes and beats of two, rounds only
vectors to 16 bits, adds no residual operands, replicates weight words and cannot clear rows."""


class Function(nn.Module):
    """A module whose forward pass is a plain function of the input and the given layers."""

    def __init__(self, function, **layers) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def imported(model: nn.Module, shape: tuple[int, ...]) -> Graph:
    """Return the optimised graph of a model for inputs of ``shape`` (without the batch axis)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of torch.export's own code
        return optimise(import_model(model.eval(), np.zeros((1, *shape), np.float32)))


def program_of(graph: Graph, array: ArrayConfig, *, calibration=None, sparse=True,
               weight_bits=None) -> Program:
    """Compile a graph; with ``calibration``, for static exponents."""
    exponents = "dynamic" if calibration is None else "static"
    quantised = quantise(graph, exponents=exponents, calibration=calibration, sparse=sparse,
                         weight_bits=weight_bits or array.weight_bits,
                         activation_bits=array.activation_bits, acc_bits=array.acc_bits)
    return lower(quantised, array, target="test", exponents=exponents)


def check(program: Program, x: np.ndarray, simulator="verilator") -> None:
    """Assert that the machine gives the golden model's every bit in the predicted cycles."""
    wanted = golden.run(program.graph, x)
    mantissa, exponent = golden.quantise_input(program.graph, x)
    result = simulate(program, mantissa, exponent, simulator=simulator, tensors=True)
    output = program.graph.output
    np.testing.assert_array_equal(result.output, wanted.mantissas[output])
    np.testing.assert_array_equal(result.exponent, wanted.exponents[output])
    assert set(result.tensors) == {node.output for node in program.graph.nodes}
    for name, (found, block) in result.tensors.items():
        np.testing.assert_array_equal(found, wanted.mantissas[name], err_msg=name)
        np.testing.assert_array_equal(block, wanted.exponents[name], err_msg=name)
    saturated = result.saturated | golden.input_saturated(program.graph, x)
    assert saturated.tolist() == wanted.saturated.tolist()
    assert result.layer_cycles.tolist() == [
        [layer.predicted_cycles for layer in program.layers]] * len(x)
    assert set(result.cycles.tolist()) == set(result.counter_cycles.tolist()) == {
        program.predicted_cycles}
    for layer in program.layers:
        assert sum(layer.lane_cycles.values()) == program.lanes * layer.predicted_cycles
        assert min(layer.lane_cycles.values()) >= 0
        assert layer.lane_cycles["useful"] == layer.macs
        assert layer.bound_cycles <= layer.predicted_cycles


def images(shape, count=3, seed=5) -> np.ndarray:
    """Inputs of different magnitudes, so that exponents differ from image to image."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, *shape)) * 4.0 ** rng.integers(-2, 3, (count, *[1] * len(shape)))
    return x.astype(np.float32)


def thin(model: nn.Module, density: float, seed=3) -> nn.Module:
    """Set all but about ``density`` of the weights to zero."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight *= torch.rand(weight.shape, generator=rng) < density
    return model


@dataclass(frozen=True)
class Net:
    """A network, the shape of its input, and what an array must have for it: 16-bit rounding of
    whole beats, a residual store, memories larger than the UP5K's, a clamp."""

    make: object
    shape: tuple[int, ...]
    density: float = 1.0
    map_output: bool = False
    residual: bool = False
    large: bool = False
    clamp: bool = False

    def suits(self, array: ArrayConfig) -> bool:
        return ((not self.large or array.bank_rows > 512)
                and (not self.map_output or array.wide_elements > 1)
                and (not self.residual or array.residual_beats > 0)
                and (not self.clamp or array.clamp))


def head(*layers, features: int, classes: int = 7) -> nn.Sequential:
    """Layers with a vector behind them, so that arrays that round only vectors run them too."""
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, classes))


def without_weights() -> nn.Module:
    model = head(nn.Conv2d(3, 5, 3), nn.ReLU(), features=5 * 4 * 4)
    with torch.no_grad():
        model[0].weight[1::2] = 0
        model[3].weight[:3] = 0
    return model


def one_weight() -> nn.Module:
    model = head(nn.Conv2d(3, 5, 3, bias=False), features=5 * 4 * 4)
    with torch.no_grad():
        model[0].weight[:] = 0
        model[0].weight[2, 1, 1, 2] = 0.75
    return model


def relu6() -> nn.Module:
    """Sums on both sides of the bounds."""
    model = head(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU6(),
                 nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6(), nn.Conv2d(8, 6, 1),
                 features=6 * 4 * 5)
    with torch.no_grad():
        model[0].weight *= 8
        model[2].weight *= 8
    return model


def clamps() -> nn.Module:
    """Bounds around other numbers than 0, of a sum of two tensors, and of the output."""
    return Function(lambda self, x: self.last(
        ((y := self.first(x).clamp(-1, 3)) + self.second(y)).clamp(0, 6).clamp(0.3, 2.5).flatten(1)
        ).clamp(-0.5, 1), first=nn.Conv2d(3, 8, 3), second=nn.Conv2d(8, 8, 1),
        last=nn.Linear(128, 5))


def exponent_chain() -> nn.Module:
    """Exponents climb into the upper clamp, and fall into the lower one."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1), *(nn.Conv2d(4, 4, 1, bias=False) for _ in range(5)),
                          nn.Flatten(), nn.Linear(4 * 9, 3, bias=False))
    with torch.no_grad():
        for layer, scale in ((1, 13), (2, 6), (3, -13), (4, -13), (5, -10)):
            model[layer].weight *= 2.0 ** scale
    return model


def faint_rows() -> nn.Module:
    """Rows of small weights and large biases, beside ordinary ones."""
    model = head(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 8, 3, padding=1), nn.ReLU(),
                 features=8 * 4 * 5)
    with torch.no_grad():
        for layer, row, scale, bias in ((0, 2, -9, 1.5), (0, 7, -14, -3.0), (2, 1, -8, 4.0),
                                        (2, 5, -12, 0.7)):
            model[layer].weight[row] *= 2.0 ** scale
            model[layer].bias[row] = bias
    return model


def faint_branch() -> nn.Module:
    """Faint rows that add a residual operand."""
    def forward(self, x):
        a = F.relu(self.first(x))
        return self.last(torch.flatten(F.relu(self.second(a) + a), 1))

    model = Function(forward, first=nn.Conv2d(3, 6, 3), second=nn.Conv2d(6, 6, 3, padding=1),
                     last=nn.Linear(6 * 4 * 5, 4))
    with torch.no_grad():
        model.second.weight[::2] *= 2.0 ** -13
    return model


def residual_chain() -> nn.Module:
    """Residual operands much larger and much smaller than the sums that they join, one of them
    read by nothing else."""
    def forward(self, x):
        a = F.relu(self.first(x))
        b = F.relu(self.second(a) + a)
        c = self.third(b) + b
        return self.last(torch.flatten(c + self.fourth(c), 1))

    model = Function(forward, first=nn.Conv2d(3, 5, 3, padding=1),
                     second=nn.Conv2d(5, 5, 3, padding=1), third=nn.Conv2d(5, 5, 1),
                     fourth=nn.Conv2d(5, 5, 3, padding=1), last=nn.Linear(5 * 5 * 6, 4))
    with torch.no_grad():
        model.second.weight *= 2.0 ** 9
        model.third.weight *= 2.0 ** -11
    return model


def shortcut() -> nn.Module:
    """A projection that nothing but the addition reads."""
    def forward(self, x):
        a = F.relu(self.first(x))
        return self.last(torch.flatten(F.relu(self.second(a) + self.project(x)), 1))

    return Function(forward, first=nn.Conv2d(3, 6, 3, stride=2, padding=1),
                    second=nn.Conv2d(6, 6, 3, padding=1), project=nn.Conv2d(3, 6, 1, stride=2),
                    last=nn.Linear(6 * 4 * 5, 4))


def from_input() -> nn.Module:
    return Function(lambda self, x: self.last(torch.flatten(F.relu(self.first(x) + x), 1)),
                    first=nn.Conv2d(4, 4, 3, padding=1), last=nn.Linear(4 * 5 * 6, 4))


def added_vectors() -> nn.Module:
    return Function(lambda self, x: self.third(F.relu(self.second(F.relu(self.first(x)))
                                                      + self.first(x))),
                    first=nn.Linear(21, 13), second=nn.Linear(13, 13), third=nn.Linear(13, 5))


def two_readers() -> nn.Module:
    """A map that two different layers read, besides an addition."""
    def forward(self, x):
        a = F.relu(self.first(x))
        return self.last(torch.flatten(self.left(a) + F.relu(self.right(a)), 1))

    return Function(forward, first=nn.Conv2d(2, 5, 3), left=nn.Conv2d(5, 3, 3, padding=1),
                    right=nn.Conv2d(5, 3, 1), last=nn.Linear(3 * 5 * 7, 4))


NETS = {
    "five channels": Net(lambda: head(nn.Conv2d(5, 5, 3), nn.ReLU(), features=5 * 5 * 7),
                         (5, 7, 9), 0.5),
    "map output": Net(lambda: nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(),
                                            nn.Conv2d(5, 4, 3)), (3, 7, 9), 0.6, map_output=True),
    "1x1 outputs": Net(lambda: nn.Sequential(nn.Conv2d(5, 9, (7, 9)), nn.ReLU(),
                                             nn.Conv2d(9, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1)),
                       (5, 7, 9), 0.3),
    "one column": Net(lambda: head(nn.Conv2d(3, 5, (3, 4)), nn.ReLU(), nn.Conv2d(5, 6, (2, 1)),
                                   features=6 * 8), (3, 11, 4)),
    "stride 2, even": Net(lambda: head(nn.Conv2d(2, 5, 3, stride=2, padding=1), nn.ReLU(),
                                       nn.Conv2d(5, 6, 3, stride=2), features=6 * 2 * 3),
                          (2, 10, 14), 0.7),
    "stride 2, odd": Net(lambda: head(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(),
                                      nn.Conv2d(5, 6, 3, stride=2, padding=1), features=6 * 4 * 5),
                         (2, 7, 9), 0.7),
    "stride 3": Net(lambda: head(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(5, 6, 3, stride=3, padding=1), features=6 * 3 * 4),
                    (2, 7, 11)),
    "asymmetric": Net(lambda: head(nn.ZeroPad2d((0, 1, 2, 0)),
                                   nn.Conv2d(3, 5, (3, 2), stride=(1, 2), padding=(0, 1)),
                                   nn.ReLU(), nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(5, 4, 3),
                                   features=4 * 6 * 7), (3, 7, 9)),
    "dilation": Net(lambda: head(nn.Conv2d(3, 5, 3, dilation=2, padding=2), nn.ReLU(),
                                 nn.Conv2d(5, 4, (2, 3), dilation=(3, 1)), features=4 * 4 * 7),
                    (3, 7, 9), 0.6),
    "groups": Net(lambda: head(nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(),
                               nn.Conv2d(8, 4, 1, groups=4), features=4 * 5 * 7), (6, 7, 9)),
    "depthwise": Net(lambda: head(nn.Conv2d(3, 18, 1), nn.ReLU(),
                                  nn.Conv2d(18, 18, 3, groups=18, padding=1), nn.ReLU(),
                                  nn.Conv2d(18, 6, 1), features=6 * 7 * 9), (3, 7, 9), 0.7,
                     large=True),
    "padded vector": Net(lambda: head(nn.Conv2d(3, 7, (3, 4)), nn.ReLU(),
                                      nn.Conv2d(7, 5, 2, padding=1), features=20), (3, 3, 4)),
    "rows of zeros": Net(without_weights, (3, 6, 6)),
    "one weight, no bias": Net(one_weight, (3, 6, 6)),
    "faint rows": Net(faint_rows, (3, 6, 7), 0.8),
    "faint branch": Net(faint_branch, (3, 6, 7), residual=True),
    "exponent chain": Net(exponent_chain, (2, 3, 3)),
    "average pool": Net(lambda: head(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
                                     nn.AdaptiveAvgPool2d(1), features=5), (3, 7, 9)),
    "relu first": Net(lambda: head(nn.ReLU(), nn.Conv2d(3, 5, 3), features=5 * 5 * 7), (3, 7, 9)),
    "pool first": Net(lambda: head(nn.MaxPool2d(2), nn.Conv2d(3, 5, 2), nn.ReLU(),
                                   nn.MaxPool2d(3, stride=2), features=5), (3, 8, 9)),
    "overlapping pool": Net(lambda: head(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(),
                                         nn.MaxPool2d(3, stride=2), nn.Conv2d(5, 4, 2),
                                         features=4 * 2 * 3), (3, 7, 9)),
    "pool 2x2": Net(lambda: head(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2),
                                 nn.Conv2d(5, 4, 2), features=4 * 3), (3, 7, 11)),
    "pool 3x3": Net(lambda: head(nn.Conv2d(3, 5, 3, padding=1), nn.MaxPool2d(3), nn.ReLU(),
                                 nn.Conv2d(5, 4, 2), features=4 * 2), (3, 8, 11)),
    "residual": Net(residual_chain, (3, 5, 6), 0.8, residual=True),
    "shortcut": Net(shortcut, (3, 7, 9), 0.8, residual=True),
    "residual input": Net(from_input, (4, 5, 6), residual=True),
    "residual vectors": Net(added_vectors, (21,), residual=True),
    "two readers": Net(two_readers, (2, 7, 9), residual=True),
    "relu6": Net(relu6, (3, 7, 9), clamp=True),
    "hardtanh": Net(lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Hardtanh(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1),
        nn.Hardtanh(-0.2, 0.2)), (3, 7, 9), map_output=True, clamp=True),
    "clamps": Net(clamps, (3, 6, 6), residual=True, clamp=True),
    "fully connected": Net(lambda: nn.Sequential(nn.Linear(37, 19), nn.ReLU(), nn.Linear(19, 11),
                                                 nn.ReLU(), nn.Linear(11, 1)), (37,), 0.5),
    "long rows": Net(lambda: nn.Sequential(nn.Linear(997, 5), nn.ReLU(), nn.Linear(5, 3)),
                     (997,), 0.01),
    "flattened picture": Net(lambda: nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 11), nn.ReLU(),
                                                   nn.Linear(11, 10)), (1, 28, 28)),
    "padded, flattened": Net(lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Flatten(),
                                                   nn.Linear(3 * 16 * 17, 10)), (3, 13, 14), 0.4),
    "shared taps": Net(lambda: head(nn.ReLU(), features=2 * 18 * 18), (2, 18, 18), 0.5),
    "shared taps, large": Net(lambda: head(nn.ReLU(), features=3 * 25 * 24), (3, 25, 24), 0.5,
                              large=True),
    "shared taps, lines": Net(lambda: head(nn.Conv2d(1, 3, (103, 5), padding=(0, 1)), nn.ReLU(),
                                           features=3 * 4 * 4), (1, 106, 6)),
    "shared taps, stride": Net(lambda: head(nn.Conv2d(1, 3, (74, 7), stride=(1, 2)), nn.ReLU(),
                                            features=3 * 3 * 4), (1, 76, 13), 0.3),
    "few groups": Net(lambda: nn.Linear(2100, 5), (2100,), large=True),
    "many columns": Net(lambda: head(nn.Conv2d(1, 17, 2), nn.ReLU(), nn.Conv2d(17, 3, 1),
                                     features=3 * 4 * 33), (1, 5, 34), 0.6, large=True),
}



@functools.cache
def graph_of(name: str) -> Graph:
    net = NETS[name]
    torch.manual_seed(1)
    return imported(thin(net.make(), net.density), net.shape)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("name", NETS)
def test_network(name, array):
    """Every network on every array, both exponent modes; static ones clip some inputs."""
    net, array = NETS[name], ARRAYS[array]
    if not net.suits(array):
        pytest.skip("needs a larger array")
    x = images(net.shape)
    check(program_of(graph_of(name), array), x)
    check(program_of(graph_of(name), array, calibration=x[:2]), x)


def test_clamps_on_boards():
    """A network of ReLU6 as a user compiles it, on a board's own array; the first image reaches
    both bounds."""
    net = NETS["relu6"]
    torch.manual_seed(1)
    model, x = net.make(), images(net.shape)
    for exponents in ("dynamic", "static"):
        program = celosia.compile(model, x[:1], target="orangecrab-25f", exponents=exponents,
                                  calibration=x)
        found = verify(program, x, "verilator")
        assert found.first_mismatch is None and found.mismatches == 0
        found = golden.run(program.graph, x)
        for node in program.graph.nodes[:2]:
            m, exponent = found.mantissas[node.output], found.exponents[node.output]
            assert isinstance(node.epilogue.activation, Clamp)
            lsb = program.graph.tensors[node.output].format.lsb(exponent[:1])
            assert np.ldexp(m[0], int(lsb[0])).max() == 6.0


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("name", [name for name in NETS if name.startswith("shared taps")])
def test_shared_taps(name, array):
    """These networks do have a layer whose taps share entries."""
    net, array = NETS[name], ARRAYS[array]
    if net.suits(array) and (name != "shared taps" or array.index_bits == 12):
        graph = quantise(graph_of(name), weight_bits=array.weight_bits,
                         activation_bits=array.activation_bits, acc_bits=array.acc_bits)
        assert any(layer.reads.packed for layer in schedule(graph, array).layers)


@pytest.mark.parametrize("array", ["8 lanes", "deep"])
@pytest.mark.parametrize("name", ["five channels", "groups", "depthwise", "fully connected"])
def test_dense(name, array):
    """The dense baseline executes its zeros: the same bits in more cycles."""
    graph, array = graph_of(name), ARRAYS[array]
    x = images(NETS[name].shape, count=2)
    dense, sparse = program_of(graph, array, sparse=False), program_of(graph, array)
    check(dense, x)
    assert all(layer.nonzeros == layer.weights for layer in dense.layers)
    assert dense.predicted_cycles >= sparse.predicted_cycles
    assert [layer.macs for layer in dense.layers] == [layer.macs for layer in sparse.layers]


@pytest.mark.parametrize("name", ["five channels", "pool 2x2", "residual", "long rows"])
def test_narrow_weights(name):
    """An array for wider weights multiplies narrow ones."""
    check(program_of(graph_of(name), ARRAYS["deep"], weight_bits=4), images(NETS[name].shape))


@pytest.mark.parametrize("array", ARRAYS)
def test_extreme_inputs(array):
    """All zero; one value other than zero; the largest magnitude that an exponent covers; the
    smallest that float32 holds."""
    x = np.zeros((5, 5, 7, 9), np.float32)
    x[1, 2, 3, 4] = 0.3
    x[2] = 65535.0
    x[3, :, ::2] = -65535.0
    x[4] = 2.0 ** -149
    program = program_of(graph_of("five channels"), ARRAYS[array])
    check(program, x)
    least = program.graph.tensors[program.graph.input].exponent.least
    assert golden.run(program.graph, x).exponents[program.graph.input].tolist() == [
        least, -2, 15, 15, least]


def test_both_clamps():
    """The chain of exponents does reach both ends, and saturates on the way."""
    program = program_of(graph_of("exponent chain"), ARRAYS["8 lanes"])
    found = golden.run(program.graph, images(NETS["exponent chain"].shape))
    seen = {int(e) for blocks in found.exponents.values() for e in blocks}
    assert {-16, 15} <= seen and found.saturated.any()


def test_shared_rows():
    """Maps that lie where others lay before are cleared: their borders read as zero."""
    layers = [layer for _ in range(5) for layer in (nn.Conv2d(9, 9, 3, padding=1), nn.ReLU())]
    torch.manual_seed(2)
    graph = imported(head(*layers, features=9 * 8 * 9), (9, 8, 9))
    program = program_of(graph, ARRAYS["8 lanes"])
    words = program.images[Space.PROGRAM][:program.descriptors * DESCRIPTOR_WORDS]
    assert words.reshape(-1, DESCRIPTOR_WORDS)[:, DESCRIPTOR.places["clear_rows"].word].any()
    check(program, images((9, 8, 9)))


def random_net(seed: int, residual: bool) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a random network and the shape of its input."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shape = channels, height, width = tuple(int(n) for n in rng.integers((1, 4, 4), (7, 13, 13)))
    layers: list[nn.Module] = []
    for _ in range(rng.integers(1, 5)):
        kind = rng.choice(["conv", "conv", "relu", "max", "average"] + ["add"] * residual)
        if kind == "relu":
            layers.append(nn.ReLU())
        elif kind == "add":
            layers.append(Function(lambda self, x: self.conv(x) + x, conv=nn.Conv2d(
                channels, channels, 3, padding=1, bias=bool(rng.integers(2)))))
        else:
            layer, channels = random_layer(rng, kind, channels, (height, width))
            layers.append(layer)
        height, width = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[2:]
    features = int(rng.integers(1, 12))
    layers += [nn.Flatten(), nn.Linear(channels * height * width, features), nn.ReLU(),
               nn.Linear(features, int(rng.integers(1, 12)))]
    return thin(nn.Sequential(*layers), float(rng.choice([0.1, 0.5, 1])), seed), shape


def random_layer(rng: np.random.Generator, kind: str, channels: int,
                 size: tuple[int, int]) -> tuple[nn.Module, int]:
    """Return a layer that fits a map of ``size``, and its output channels."""
    kernel = [int(rng.integers(1, min(n, 4) + 1)) for n in size]
    stride = [int(n) for n in rng.integers(1, 4, 2)]
    if kind == "max":
        return nn.MaxPool2d(kernel, stride=stride), channels
    if kind == "average":
        return nn.AvgPool2d(kernel, stride=stride), channels
    groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    rows = groups * int(rng.integers(1, 5))
    padding = [int(rng.integers(0, k)) for k in kernel]
    return nn.Conv2d(channels, rows, kernel, stride=stride, padding=padding, groups=groups,
                     bias=bool(rng.integers(2))), rows


@pytest.mark.parametrize("seed", range(30))
def test_random_network(seed):
    """Random networks, arrays and exponent modes in turn."""
    array = ARRAYS[["8 lanes", "deep"][seed % 2]]
    model, shape = random_net(seed, residual=True)
    x = images(shape, count=2, seed=seed)
    check(program_of(imported(model, shape), array, calibration=x if seed // 2 % 2 else None), x)


@pytest.mark.icarus
def test_icarus():
    """Another simulator, driven through cocotb: the same bits and cycles."""
    check(program_of(graph_of("padded vector"), ARRAYS["8 lanes"]),
          images(NETS["padded vector"].shape, count=1), simulator="icarus")
