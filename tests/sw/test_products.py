"""Products of two tensors: what the golden model makes of them, whatever their sizes and shapes."""

from collections.abc import Callable

import numpy as np
import pytest

import celosia
from celosia.compiler import Compiler
from celosia.graph import Conv, Graph, Move, Multiply
from celosia.noise import against_float
from celosia.passes import PASSES, optimise
from celosia.passes.product_to_linear import PIECES, Scale, product_to_linear
from celosia.products import ENOUGH, products, scales_in
from celosia_spec.errors import CompileError
from float_graph import interpret

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402


class Net(nn.Module):
    """What a function makes of layers and the input."""

    def __init__(self, function: Callable, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def excited(gate: Callable) -> Net:
    """A block of MobileNetV3, squeeze-and-excite and all."""
    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        y = net.deep(net.wide(x))
        squeezed = F.relu(net.squeeze(F.adaptive_avg_pool2d(y, 1)))
        return net.narrow(y * gate(net.excite(squeezed))).mean((2, 3))

    return Net(forward, wide=nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU()),
               deep=nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16),
                                  nn.Hardswish()),
               squeeze=nn.Conv2d(16, 4, 1), excite=nn.Conv2d(4, 16, 1), narrow=nn.Conv2d(16, 6, 1))


def of_maps(function: Callable) -> Callable[[], Net]:
    return lambda: Net(lambda net, x: net.c(function(net, net.a(x))).mean((2, 3)),
                       a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 8, 1), c=nn.Conv2d(8, 5, 3))


def of_vectors(function: Callable) -> Callable[[], Net]:
    return lambda: Net(lambda net, x: net.c(function(net.a(x), net.b(x))), a=nn.Linear(24, 16),
                       b=nn.Linear(24, 16), c=nn.Linear(16, 5))


TWO = torch.tensor(2.0)
MAP, VECTOR, LINE = (3, 8, 8), (24,), (4, 20)
NETWORKS: dict[str, tuple[Callable[[], Net], tuple[int, ...]]] = {
    "squeeze-and-excite, hardsigmoid": (lambda: excited(F.hardsigmoid), MAP),
    "squeeze-and-excite, sigmoid": (lambda: excited(torch.sigmoid), MAP),
    "gated by itself": (of_maps(lambda net, y: y * torch.sigmoid(net.b(y))), MAP),
    "gated by its halves": (lambda: Net(
        lambda net, x: net.b(F.glu(net.a(x), 1)).mean((2, 3)), a=nn.Conv2d(3, 16, 3),
        b=nn.Conv2d(8, 5, 3)), MAP),
    "gated by places": (of_maps(lambda net, y: torch.sigmoid(y.amax((2,), True)) * net.b(y)), MAP),
    "gated by one channel": (of_maps(lambda net, y: y * torch.sigmoid(net.b(y)[:, :1])), MAP),
    "of lines and columns": (of_maps(lambda net, y: y.mean(3, True) * net.b(y).mean(2, True)), MAP),
    "gates of vectors": (lambda: Net(lambda net, x: net.b(F.glu(net.a(x), 1)), a=nn.Linear(24, 32),
                                     b=nn.Linear(16, 5)), VECTOR),
    "signed": (of_vectors(lambda a, b: a * b), VECTOR),
    "of one sign": (of_vectors(lambda a, b: F.relu(a) * F.relu(b)), VECTOR),
    "of other sizes": (of_vectors(lambda a, b: 0.02 * a * F.relu(b)), VECTOR),
    "square": (of_vectors(lambda a, b: a * a + b), VECTOR),
    "power": (of_vectors(lambda a, b: a**TWO + torch.square(b)), VECTOR),
    "the input's": (lambda: Net(lambda net, x: net.b(x * torch.sigmoid(net.a(x))),
                                a=nn.Linear(24, 24), b=nn.Linear(24, 5)), VECTOR),
    "flattened": (lambda: Net(
        lambda net, x: net.c(net.a(x).flatten(1) * torch.sigmoid(net.b(x.flatten(1)))),
        a=nn.Conv2d(3, 2, 5), b=nn.Linear(192, 32), c=nn.Linear(32, 3)), MAP),
    "of lines": (lambda: Net(
        lambda net, x: net.b(net.a(x) * torch.sigmoid(net.c(x).mean(2, True))).mean(2),
        a=nn.Conv1d(4, 8, 3), b=nn.Conv1d(8, 5, 3), c=nn.Conv1d(4, 8, 1)), LINE),
    "returned": (of_vectors(lambda a, b: a * b), VECTOR),
}


def trained(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = make().eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
    return model


def numbers(shape: tuple[int, ...], size: float = 1.0, count: int = 48) -> np.ndarray:
    return (size * np.random.default_rng(0).standard_normal((count, *shape))).astype(np.float32)


def ratio(model: nn.Module, program: celosia.Program, x: np.ndarray) -> float:
    """Return the signal to noise of a program's outputs, dB."""
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    noise = celosia.run(program, x).answer.reshape(wanted.shape) - wanted
    return float(10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()))


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_near_to_those_of_torch_whatever_their_size(name: str, size: float) -> None:
    make, shape = NETWORKS[name]
    model, x = trained(make), numbers(shape, size)
    program = celosia.compile(model, (1, *shape), calibration=x[:24], accuracy="none")
    assert ratio(model, program, x[24:]) > 24


@pytest.mark.parametrize("name", ["squeeze-and-excite, sigmoid", "gates of vectors", "signed"])
def test_products_have_static_exponents_too(name: str) -> None:
    make, shape = NETWORKS[name]
    model, x = trained(make), numbers(shape)
    program = celosia.compile(model, (1, *shape), calibration=x[:24], exponents="static",
                              accuracy="none")
    assert ratio(model, program, x[24:]) > 25


@pytest.mark.parametrize("name", NETWORKS)
def test_without_calibration_sizes_are_estimated_and_a_remark_says_so(name: str) -> None:
    make, shape = NETWORKS[name]
    model, x = trained(make), numbers(shape)
    program = celosia.compile(model, (1, *shape))
    assert ratio(model, program, x) > 20
    assert any(remark.startswith("how large the tensors of products are was estimated")
               for remark in program.remarks)


def test_a_remark_tells_what_each_product_is_made_of() -> None:
    model, x = trained(NETWORKS["squeeze-and-excite, hardsigmoid"][0]), numbers(MAP)
    remarks = celosia.compile(model, (1, *MAP), calibration=x, accuracy="none").remarks
    told = [remark for remark in remarks if "a product of two tensors" in remark]
    assert len(told) == 1 and told[0].startswith("mul: a product of two tensors, ")
    assert "straight pieces an element, which leave " in told[0]
    assert not any("estimated" in remark for remark in remarks)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_program_is_compared_with_has_the_same_pieces(name: str) -> None:
    make, shape = NETWORKS[name]
    model, x = trained(make), numbers(shape, 3.0)
    compiler = Compiler(target="icebreaker")
    imported = compiler.imported(model, (1, *shape))
    found = {node: product.scale for node, product in products(imported, x).items()}
    program = celosia.compile(model, (1, *shape), calibration=x, target="icebreaker")
    assert scales_in(imported, program.graph) == found
    assert against_float(program, model, x).output_ratio > 25


def product(left: tuple[int, int, int], right: tuple[int, int, int]) -> Graph:
    """A product of two parts of the input."""
    sizes = np.prod(left), np.prod(right)
    whole = tuple(max(pair) for pair in zip(left, right, strict=True))
    nodes = (Move(name="a", inputs=("x",), index=np.arange(sizes[0]).reshape(left), operator="a",
                  remedy=""),
             Move(name="b", inputs=("x",), operator="b", remedy="",
                  index=sizes[0] + np.arange(sizes[1]).reshape(right)),
             Multiply(name="m", left="a", right="b"))
    return Graph(nodes=nodes, input="x", input_map=(int(sum(sizes)), 1, 1),
                 input_shape=(int(sum(sizes)),), output="m", output_shape=whole)


@pytest.mark.parametrize(("left", "right"), [
    ((4, 3, 5), (4, 3, 5)), ((4, 3, 5), (4, 1, 1)), ((1, 3, 5), (4, 1, 1)), ((4, 1, 5), (4, 3, 1)),
    ((1, 1, 1), (4, 3, 5)), ((6, 1, 1), (1, 1, 1)), ((40, 3, 5), (1, 3, 5))])
def test_the_pass_makes_what_the_scale_says(left, right) -> None:
    graph = product(left, right)
    scale = Scale(right=2, unit=-1, sums=(-8, -4, -2, -1, 0, 1, 3, 7),
                  differences=(-2, -1, 0, 1, 2, 4, 6, 10))
    x = np.random.default_rng(1).normal(size=graph.input_map[0])
    first = int(np.prod(left))
    wanted = scale(x[:first].reshape(left), x[first:].reshape(right))
    after = product_to_linear(graph, {"m": scale})
    assert not any(isinstance(node, Multiply) for node in after.nodes)
    np.testing.assert_allclose(interpret(after, x).reshape(wanted.shape), wanted, atol=1e-12)


def test_where_one_tensor_is_0_the_product_is_0() -> None:
    knots = (-6, -4, -2, -1, 0, 1, 2, 4, 6)
    scale = Scale(right=-1, unit=0, sums=knots, differences=knots)
    x = np.linspace(-4, 4, 41)
    assert np.abs([scale(x, 0 * x), scale(0 * x, x)]).max() < 1e-12


def test_there_are_as_few_pieces_as_are_enough() -> None:
    rng = np.random.default_rng(0)
    graph = product((8, 1, 1), (8, 1, 1))
    even = products(graph, rng.uniform(0.5, 1, (16, 16)))["m"]
    normal = products(graph, rng.normal(size=(16, 16)))["m"]
    assert even.scale.pieces < normal.scale.pieces <= PIECES
    assert even.ratio >= ENOUGH > normal.ratio > 25


def test_wide_maps_are_made_in_parts_and_too_wide_ones_refused() -> None:
    def layers(channels: int) -> int:
        model = trained(lambda: Net(lambda net, x: net.b(net.a(x) * torch.sigmoid(
            net.a(x).mean((2, 3), True))), a=nn.Conv2d(2, channels, 1),
            b=nn.Conv2d(channels, 2, 1)))
        graph = Compiler().graph(model, (1, 2, 6, 6))
        return sum(isinstance(node, Conv) for node in graph.nodes)

    assert layers(16) < layers(96)
    with pytest.raises(CompileError, match=r"^mul \(mul\): a product of 1000 x 6 x 6 elements has "
                                           r"to be made in \d+ parts, and the machine reads 24 at "
                                           r"most; multiply (\d+) channels at most") as found:
        layers(1000)
    layers(int(found.value.remedy.split()[1]))


def test_products_that_the_machine_has_no_numbers_for_are_refused() -> None:
    model, x = trained(of_vectors(lambda a, b: a * b)), numbers(VECTOR, 2000.0)
    with pytest.raises(CompileError, match=r"^mul \(mul\): a product of numbers of up to .* is "
                                           r"beyond 65536, .*; scale one of them down before"):
        celosia.compile(model, (1, *VECTOR), calibration=x)
    smaller = trained(of_vectors(lambda a, b: a * (b / 10000)))
    assert ratio(smaller, celosia.compile(smaller, (1, *VECTOR), calibration=x), x) > 24


def test_an_optimised_graph_needs_scales() -> None:
    assert product_to_linear in PASSES
    with pytest.raises(KeyError):
        optimise(product((4, 1, 1), (4, 1, 1)))
