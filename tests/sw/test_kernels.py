"""Operators that torch runs on values of a model or file: none whose kernels do not check them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch._subclasses import fake_tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from celosia.frontend import import_model, kernels  # noqa: E402
from celosia.frontend.export import load_exported  # noqa: E402
from celosia.frontend.pt2 import shapes  # noqa: E402
from celosia.frontend.pt2.checks import Unsound  # noqa: E402
from celosia.frontend.tracing import tracing  # noqa: E402
from celosia.frontend.unflattened import as_module  # noqa: E402
from celosia.graph import Conv  # noqa: E402
from celosia_spec.errors import CelosiaError, CompileError  # noqa: E402

aten = torch.ops.aten
Forward = Callable[["Net", torch.Tensor], torch.Tensor]
X = np.zeros((1, 8), np.float32)
SYMBOLS = {f"s{k}" for k in range(30)}


class Net(nn.Module):
    """A linear layer, and buffers that do not belong together."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.run = forward
        self.head = nn.Linear(8, 4)
        self.register_buffer("wide", torch.full((1, 1, 1), 1e10))
        self.register_buffer("one", torch.ones(1))
        self.register_buffer("rows", torch.arange(8.0).reshape(2, 4))
        self.register_buffer("far", torch.tensor([10 ** 9]))
        for bits in (32, 64):
            kind = getattr(torch, f"int{bits}")
            self.register_buffer(f"least{bits}", torch.full((4,), -1 << bits - 1, dtype=kind))
            self.register_buffer(f"minus{bits}", torch.full((4,), -1, dtype=kind))
        self.register_buffer("whole", torch.tensor([7, -7, 8, 0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x) + self.run(self, x)


def short_statistics(m: Net, x: torch.Tensor) -> torch.Tensor:
    return aten._native_batch_norm_legit_functional(
        m.wide.expand(4, 100_000, 2), None, None, m.one, m.one, True, 0.9, 1e-5)[0].flatten()[:4]


def short_kept_statistics(m: Net, x: torch.Tensor) -> torch.Tensor:
    return aten._native_batch_norm_legit_no_training(
        m.wide.expand(4, 1000, 2), None, None, m.one, m.one, 0.9, 1e-5)[0].flatten()[:4]


def short_weight(m: Net, x: torch.Tensor) -> torch.Tensor:
    return aten._native_batch_norm_legit.no_stats(
        m.wide.expand(4, 1000, 2), m.one, None, True, 0.9, 1e-5)[0].flatten()[:4]


REFUSED = {
    "short statistics": (short_statistics, "is not run while compiling"),
    "short kept statistics": (short_kept_statistics, "is not run while compiling"),
    "short weight": (short_weight, "weights of other sizes or types"),
    "gather": (lambda m, x: m.rows.gather(1, m.far[None]).flatten(), "is not run"),
    "embedding": (lambda m, x: F.embedding(m.far, m.rows)[0], "is not run"),
    "as_strided": (lambda m, x: aten.as_strided_copy(m.rows, [4], [1 << 40]), "is not run"),
    "div, 64 bits": (lambda m, x: aten.div(m.least64, m.minus64, rounding_mode="trunc").float(),
                     "divides whole numbers by -1"),
    "div, 32 bits": (lambda m, x: aten.div(m.least32, m.minus32, rounding_mode="floor").float(),
                     "divides whole numbers by -1"),
    "remainder": (lambda m, x: aten.remainder(m.least64, m.minus64).float(), "divides whole"),
    "fmod by a number": (lambda m, x: aten.fmod(m.least64, -1).float(), "divides whole"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_constants_are_not_made_by_kernels_that_do_not_check(name: str) -> None:
    forward, words = REFUSED[name]
    with pytest.raises(CompileError, match=words) as caught:
        import_model(Net(forward), X)
    assert "compute it before and register the result as a buffer" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_batch_normalisation_of_a_constant_has_its_sizes_checked() -> None:
    run = aten._native_batch_norm_legit.no_stats
    x, two, more = torch.zeros(2, 3, 4), torch.ones(2), torch.ones(3, dtype=torch.float64)
    for weight, bias, training in ((two, None, True), (None, two, True), (more, None, True),
                                   (None, None, False)):
        assert kernels.obstacle(run, (x, weight, bias, training, 0.1, 1e-5), {})
    assert kernels.obstacle(run, (x[:0], None, None, True, 0.1, 1e-5), {})
    assert not kernels.obstacle(run, (x, torch.ones(3), None, True, 0.1, 1e-5), {})


def test_an_index_beyond_the_end_is_refused() -> None:
    with pytest.raises(CompileError, match="cannot be computed"):
        import_model(Net(lambda m, x: m.rows.flatten().index_select(0, m.far).expand(4)), X)


KEPT = {
    "halves, rounded down": (lambda m, x: (m.whole // 2).float(), [3, -4, 4, 0]),
    "true quotient by -1": (lambda m, x: m.whole / m.minus64, [-7, 7, -8, 0]),
    "normalised by its own statistics": (       # one channel of four elements
        lambda m, x: F.batch_norm(m.rows[:1, None], None, None, training=True).flatten(),
        [-1.3416, -0.4472, 0.4472, 1.3416]),
}


@pytest.mark.parametrize("name", KEPT)
def test_constants_that_are_computed_as_before(name: str) -> None:
    forward, wanted = KEPT[name]
    net = Net(forward)
    nn.init.zeros_(net.head.bias)
    graph = import_model(net, X)
    shift = graph.nodes[-1].shift if len(graph.nodes) > 1 else graph.nodes[0].bias
    assert isinstance(graph.nodes[0], Conv)
    assert np.allclose(shift, wanted, atol=1e-3)


def saved(path: Path, model: nn.Module, *, batch: bool = False) -> Path:
    """Write a .pt2 file of a model for inputs (1, 8), or (n, 8)."""
    example = torch.zeros(2 if batch else 1, 8)
    torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=(
        ({0: torch.export.Dim("n", min=1, max=64)},) if batch else None)), path)
    return path


def lifted(m: Net, x: torch.Tensor) -> torch.Tensor:
    """Constants as a forward pass writes them: torch would look at their values while it traces."""
    least, minus = torch.tensor([-1 << 63] * 4), torch.tensor([-1] * 4)
    return aten.div(least, minus, rounding_mode="trunc").float()


@pytest.mark.filterwarnings("ignore")
def test_nothing_of_a_file_is_computed_while_it_is_traced(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt2", Net(lifted), batch=True)
    with pytest.raises(CompileError, match="divides whole numbers by -1"):
        import_model(str(path), X)


def test_constants_are_looked_at_in_the_users_own_code_only() -> None:
    before = fake_tensor.CONSTANT_NUMEL_LIMIT
    with tracing():
        assert fake_tensor.CONSTANT_NUMEL_LIMIT < 0
        with tracing(own_code=True):
            assert fake_tensor.CONSTANT_NUMEL_LIMIT > 1
        assert fake_tensor.CONSTANT_NUMEL_LIMIT < 0
    assert before == fake_tensor.CONSTANT_NUMEL_LIMIT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("forward", [
    lambda m, x: aten._native_batch_norm_legit_functional(
        x.expand(4, 8), None, None, m.one, m.one, True, 0.9, 1e-5)[0][:1, :4],
    lambda m, x: aten.div(m.least64, m.minus64, rounding_mode="trunc").float(),
    lambda m, x: (x.long() % m.whole[:1])[:, :4].float(),
], ids=["batch norm", "constants", "of the input"])
def test_a_module_is_not_made_of_such_operators(tmp_path: Path, forward: Forward) -> None:
    program = load_exported(saved(tmp_path / "net.pt2", Net(forward)))
    with pytest.raises(CelosiaError, match="not run out of a file; name the function") as caught:
        as_module(program, torch.zeros(1, 8), "net.pt2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", sorted(kernels._DIVISIONS | {"gather", "embedding", "scatter"}))
def test_what_a_module_does_not_run(word: str) -> None:
    for overload in getattr(aten, word).overloads():
        rounds = {"rounding_mode": "floor"} if word == "div" else {}
        assert not kernels.runs(getattr(getattr(aten, word), overload), rounds)
    assert kernels.runs(aten.div.Tensor, {}) and kernels.runs(aten.relu_.default, {})


def nested(rule: str, times: int, first: str = "Symbol('s0')") -> str:
    for k in range(times):
        first = rule.format(first, k)
    return first


SUM = f"Add({', '.join(f'''Symbol('s{k}')''' for k in range(30))})"
PAIRS = ", ".join(f"Add(Symbol('s{k}'), Symbol('s{k + 1}'))" for k in range(9))
TOO_FAR = {
    f"Pow({SUM}, Integer(8))": "256 terms", f"Mul({SUM}, {SUM})": "256 terms",
    f"Mul({PAIRS})": "256 terms", f"Mod({SUM}, {SUM})": "256 terms",
    f"FloorDiv(Pow({SUM}, Integer(2)), Integer(3))": "256 terms",
    f"Max({SUM[4:-1]})": "48 quotients", f"Min({PAIRS})": "256 terms",
    nested("Max(Min({0}, Symbol('s{1}')), Integer({1}))", 9): "48 quotients",
    nested("Mod({0}, Integer({1}))", 49): "48 quotients",
    nested("Mul({0}, {0})", 5): "1024 bits",
}


@pytest.mark.parametrize("source", TOO_FAR, ids=lambda source: source[:20])
def test_shapes_that_sympy_would_not_come_to_an_end_with(source: str) -> None:
    with pytest.raises(Unsound, match=f"grows beyond {TOO_FAR[source]}"):
        shapes.check_expression(source, SYMBOLS)


@pytest.mark.parametrize(("source", "terms"), [
    (SUM, 30), (f"Pow({SUM[:44]}), Integer(4))", 15), ("Pow(Add(Symbol('s0'), Integer(1)), "
                                                       "Integer(8))", 9),
    (nested("FloorDiv(Add({0}, Integer({1})), Integer(2))", 40), 1),
    (nested("Mul({0}, Add(Symbol('s{1}'), Integer(1)))", 8), 256),
], ids=["sum", "power of three", "power of two", "strides", "product"])
def test_terms_are_those_of_what_is_multiplied_out(source: str, terms: int) -> None:
    assert shapes.check_expression(source, SYMBOLS).terms == terms
