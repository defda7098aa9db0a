"""torch.export from several threads, with any names, and without a word."""

import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

import celosia
from celosia_spec.errors import CompileError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from celosia.frontend import decomposed as decomposed_module  # noqa: E402
from celosia.frontend import import_model  # noqa: E402
from celosia.frontend import tracing as tracing_module  # noqa: E402
from celosia.frontend.decomposed import decomposed  # noqa: E402
from celosia.frontend.tracing import tracing  # noqa: E402
from celosia.graph_text import dump  # noqa: E402

X = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """Run ``work`` in threads that start together; return what each returned or raised."""
    results: list[object] = [None] * count
    start = threading.Barrier(count)

    def run(k: int) -> None:
        start.wait()
        try:
            results[k] = work(k)
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class Dropped(nn.Module):
    """In training mode its result would differ."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.drop, self.b = nn.Linear(6, 5), nn.Dropout(), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(self.drop(torch.relu(self.a(x))))


def test_four_threads_compile_at_once() -> None:
    """Two of them the same model, which is in training mode and stays so."""
    shared = Dropped().train()
    models = [shared, shared, Dropped(), Dropped().eval()]
    wanted = celosia.run(celosia.compile(Dropped(), X), X).mantissa

    def work(k: int) -> list:
        return [celosia.run(celosia.compile(models[k], X), X).mantissa for _ in range(2)]

    filters = list(warnings.filters)
    for result in in_threads(4, work):
        assert not isinstance(result, Exception), result
        assert all(np.array_equal(got, wanted) for got in result)
    assert all(module.training for module in shared.modules())
    assert warnings.filters == filters


def test_a_refusal_in_one_thread_is_its_own() -> None:
    models = [nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3), nn.Linear(3, 3)), Dropped()] * 2
    results = in_threads(4, lambda k: import_model(models[k], X))
    assert [isinstance(result, CompileError) for result in results] == [True, False] * 2


def test_only_the_tracing_thread_is_silent(capsys: pytest.CaptureFixture) -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append
    logger = logging.getLogger("torch.celosia_test")
    logger.addHandler(handler)
    started, done = threading.Event(), threading.Event()

    def other() -> None:
        started.wait()
        print("other", file=sys.stderr)
        logger.warning("other")
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with tracing():
        print("own", file=sys.stderr)
        logger.warning("own")
        started.set()
        assert done.wait(10)
        kept = sys.stderr
    thread.join()
    print("after", file=kept)       # a logger made meanwhile would keep it
    logger.warning("after")
    logger.removeHandler(handler)
    assert capsys.readouterr().err == "other\nafter\n"
    assert [record.getMessage() for record in heard] == ["other", "after"]


def test_records_that_nobody_reads_are_not_put_together() -> None:
    import_model(Dropped(), X)
    assert logging.getLogger(tracing_module._TRACES).handlers == []


NAMES = ["class", 'a"b', "a'b", "a\nb", "[/b]x", "ﬁ", "a,b;c", "a\\", '"""', "x" * 300, "\x1b[31m",
         "a\u202e\0b", "self", "{x} %s *", '"); raise SystemExit(7) #']


class Named(nn.Module):
    """Layers, a parameter and a buffer with the names given."""

    def __init__(self, names: list[str], relu: Callable = torch.relu) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.names, self.relu = names, relu
        for name in names:
            self._modules[name] = nn.Linear(6, 6)
        self.register_parameter(f"{names[0]}!", nn.Parameter(torch.rand(6)))
        self.register_buffer(f"{names[0]}?", torch.rand(6))

    def forward(self, x):
        for name in self.names:
            x = self.relu(self._modules[name](x))
        return x * getattr(self, f"{self.names[0]}!") + getattr(self, f"{self.names[0]}?")


def test_operators_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where a model, or what is loaded for one, has registered another meanwhile."""
    from torch._export import utils

    asked, ask = [], utils._materialize_cpp_cia_ops

    def asks() -> None:
        asked.append(1)
        ask()

    monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", asks)
    decomposed_module._table.cache_clear()
    with torch.library._scoped_library("celosia_tests", "FRAGMENT") as library:
        for lookups in (1, 2):
            for _ in range(2):
                import_model(Dropped(), X)
                assert len(asked) == lookups
                assert utils._materialize_cpp_cia_ops is asks
            name = f"times{lookups}"
            library.define(f"{name}(Tensor x) -> Tensor")
            library.impl(name, lambda x, by=lookups: x * by, "CompositeImplicitAutograd")


class Composite(nn.Module):
    """Operators that torch makes of others: some it keeps whole, one the frontend does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(4, 8, 3, padding="same"), nn.GroupNorm(2, 8), (
            nn.Linear(18, 5))

    def forward(self, x):
        f = nn.functional
        x = f.silu(self.norm(self.conv(x)))
        x = f.max_pool2d(f.selu(f.pixel_shuffle(x, 2)), 2) + f.hardsigmoid(x).narrow(1, 0, 2)
        x = f.interpolate(x, scale_factor=2) + f.interpolate(x, scale_factor=2, mode="bilinear")
        a, b = f.instance_norm(f.adaptive_avg_pool2d(x, 3)).chunk(2, 1)
        x = self.fc(f.layer_norm(torch.einsum("bchw,bchv->bcwv", a, b).tile(2), (6,)).flatten(1))
        return f.log_softmax(f.dropout(x, training=self.training).squeeze(), dim=-1)


class Written(Composite):
    """Some of it written where its operands stood."""

    def forward(self, x):
        return super().forward((x * 2).relu_().add_(1))


@pytest.mark.parametrize("model", [Composite, Written])
def test_a_program_is_decomposed_as_torch_does_it(model: type[nn.Module]) -> None:
    """The same operators of the same arguments, with the same places in the source; where tensors
    are written into, torch itself does most of it."""
    with tracing():
        program = torch.export.export(model().eval(), (torch.zeros(1, 4, 6, 6),))
        table = torch.export.default_decompositions()
        for whole in decomposed_module._WHOLE:
            table.pop(whole)
        ours, theirs = decomposed(program), program.run_decompositions(table)
    assert decomposed_module._writes_nothing(program) is (model is Composite)
    assert len(ours.graph.nodes) > 40
    for one, other in zip(ours.graph.nodes, theirs.graph.nodes, strict=True):
        assert (one.name, one.op, one.target) == (other.name, other.op, other.target)
        assert str((one.args, one.kwargs)) == str((other.args, other.kwargs))
        assert one.meta.get("stack_trace") == other.meta.get("stack_trace")
        assert one.meta.get("nn_module_stack") == other.meta.get("nn_module_stack")
        if one.op == "call_function":
            assert one.meta.get("torch_fn") == other.meta.get("torch_fn")
        if one.op != "output":
            assert str(one.meta["val"]) == str(other.meta["val"])
    assert str(ours.graph_signature) == str(theirs.graph_signature)
    assert list(ours.state_dict) == list(theirs.state_dict)
    assert torch.equal(ours.module()(torch.ones(1, 4, 6, 6)),
                       theirs.module()(torch.ones(1, 4, 6, 6)))


@pytest.mark.parametrize("relu", [torch.relu, torch.relu_])
def test_layers_may_have_any_names(relu: Callable) -> None:
    """Whether torch decomposes the program, or does not."""
    graph = import_model(Named(NAMES, relu), X)
    layers = [node for node in graph.nodes if hasattr(node, "weight")]
    assert [node.name for node in layers] == [
        name if name.isprintable() else ascii(name)[1:-1] for name in NAMES]
    for node, wanted in zip(layers, Named(NAMES)._modules.values(), strict=True):
        assert np.array_equal(node.weight[:, :, 0, 0], wanted.weight.detach().numpy())


@pytest.mark.parametrize("name", ['a"b\n[/b]', "x" * 5000])
def test_a_program_with_such_names_runs_and_is_saved(name: str, tmp_path) -> None:
    model = Named([name]).eval()
    celosia.compile(model, X).save(tmp_path / "net.celo")
    program = celosia.load(tmp_path / "net.celo")
    assert program.layers[0].name.startswith(name[:3]) and program.layers[0].name.isprintable()
    wanted = model(torch.tensor(X)).detach().numpy()
    assert np.abs(celosia.run(program, X).values - wanted).max() < 0.05 * np.abs(wanted).max()


def test_exported_programs_may_have_any_names() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch")
        fixed = torch.export.export(Named(NAMES).eval(), (torch.zeros(1, 6),))
        free = torch.export.export(Named(NAMES).eval(), (torch.zeros(2, 6),),
                                   dynamic_shapes=({0: batch},))
    before = list(fixed.state_dict)
    text = dump(import_model(Named(NAMES), X))
    assert dump(import_model(fixed, X)) == text
    assert list(fixed.state_dict) == before
    assert len(import_model(free, X).nodes) == len(import_model(fixed, X).nodes)


def test_a_refusal_of_an_odd_name_is_one_line_that_a_terminal_does_not_obey() -> None:
    model = nn.Sequential()
    model.add_module("\x1b[2J\n" + "x" * 300, nn.LayerNorm(6))
    model.add_module("fc", nn.Linear(6, 3))
    with pytest.raises(CompileError) as caught:
        import_model(model, X)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 300
    assert text.startswith(r"\x1b[2J\nxxx") and "(LayerNorm): not supported" in text


def test_a_bar_that_another_thread_draws_goes_on_while_a_model_is_traced(
        monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    drawn: list[bool] = []

    def draw() -> None:
        bar.refresh()
        console.print("still here")
        drawn.append(True)

    console = Console(stderr=True, force_terminal=True)       # asks for sys.stderr at each line
    with Progress(console=console, auto_refresh=False) as bar, tracing():
        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        thread.join(20)
        assert drawn == [True]
    assert "still here" in screen.getvalue()
