"""Networks that return several tensors: each is PyTorch's, whatever the machine makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import celosia
from celosia.accuracy import decibels_of, worst_ratio
from celosia.answers import labels_of
from celosia.float_values import outputs
from celosia.graph import Graph
from celosia.noise import against_float
from celosia.passes import optimise
from celosia_spec.errors import CelosiaError, CompileError
from celosia_spec.outputs import Output
from float_graph import interpret
from stream.compared import compare

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from celosia.frontend import import_model  # noqa: E402
from returning import MAP, NETWORKS, TARGET, VECTOR, Function, conv, inputs, leaves, made  # noqa: E402


@pytest.mark.parametrize("name", NETWORKS)
def test_each_output_is_pytorchs(name: str, tmp_path: Path) -> None:
    _, shape, names, layers = NETWORKS[name]
    model, x = made(name), inputs(shape)
    program = celosia.compile(model, shape, target=TARGET)
    assert [output.name for output in program.outputs] == names
    assert len(program.layers) == layers, [layer.name for layer in program.layers]
    result = celosia.run(program, x)
    assert list(result.answers) == names
    wanted = leaves(model, x)
    for output, right in zip(program.outputs, wanted, strict=True):
        answer = result.answers[output.name]
        assert answer.shape[1:] == output.answer_shape == right.shape[1:] or len(x) == len(answer)
        if answer.dtype == np.int64:
            assert (answer == right).mean() > 0.9, output.name
            continue
        noise = np.square(answer.reshape(right.shape) - right).sum()
        assert 10 * np.log10(np.square(right).sum() / noise) > 25, output.name
    program.save(tmp_path / "a.celo")
    loaded = celosia.load(tmp_path / "a.celo")
    assert loaded.outputs == program.outputs
    again = celosia.run(loaded, x)
    assert all(np.array_equal(again.answers[name], result.answers[name]) for name in names)
    compare(program.graph, program.array, x[0])


def raised(graph: Graph, output: Output) -> int:
    """Return by how many bits an output is stored larger."""
    bits = graph.raised.get(graph.output, (0,))
    if len(set(bits)) == 1:
        return bits[0]
    assert not graph.host
    _, height, width = graph.shapes[graph.output]
    [found] = {bits[at // (height * width)]
               for at in range(output.first, output.first + int(np.prod(output.shape)))}
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_optimised_graph_computes_the_same(name: str) -> None:
    _, shape, _, _ = NETWORKS[name]
    model, x = made(name), inputs(shape, 1)
    graph = optimise(import_model(model, shape))
    values = interpret(graph, x[0].astype(np.float64))[None]
    for output in graph.returns:
        at = np.s_[:, output.first:output.first + int(np.prod(output.shape))]
        values[at] = np.ldexp(values[at], -raised(graph, output))
    for output, right in zip(graph.returns, leaves(model.double(), x.astype(np.float64)),
                             strict=True):
        np.testing.assert_allclose(output.answer(values).ravel(), right.ravel(), rtol=1e-4,
                                   atol=1e-5)


def test_what_users_get(tmp_path: Path) -> None:
    """Several answers by name; one has no name that anybody must know."""
    model = made("ends of their own")
    program = celosia.compile(model, VECTOR, target=TARGET)
    result = celosia.run(program, inputs(VECTOR))
    with pytest.raises(CelosiaError, match=(
            r"^the network returns share, on, class, raw; take one of result.answers, such as "
            r"result.answers\['share'\]$")):
        result.answer       # noqa: B018
    assert set(result.arrays) == {"mantissa", "exponent", "values", "saturated", "answer.share",
                                  "answer.on", "answer.class", "answer.raw"}
    assert result.answers["class"].tolist() == result.answers["raw"].argmax(1).tolist()
    with pytest.raises(CelosiaError, match="^the network returns share, on, class, raw; none of "
                                           "them is 'none'$"):
        program.output("none")
    with pytest.raises(CelosiaError, match="; say which is meant, with --of NAME$"):
        program.scoring     # noqa: B018
    one = celosia.compile(nn.Linear(16, 3), VECTOR, target=TARGET)
    alone = celosia.run(one, inputs(VECTOR))
    assert alone.answers.keys() == {"output"} and alone.answer is alone.answers["output"]
    assert one.output() == one.output("output")


def test_names_that_are_none_become_numbers() -> None:
    """Keys that are the same in words, as of a dictionary of numbers and texts."""
    model = Function(lambda a, x: {0: a(x), "0": F.relu(a(x))}, nn.Linear(16, 3))
    names = [output.name for output in import_model(model, VECTOR).returns]
    assert names == ["0", "1"]


def test_names_that_are_paths_become_others(tmp_path: Path) -> None:
    model = Function(lambda a, x: {"/head/a": a(x), "b\\c": F.relu(a(x)), "d": -a(x)},
                     nn.Linear(16, 3))
    program = celosia.compile(model, VECTOR, target=TARGET)
    assert [output.name for output in program.returns] == ["head.a", "b.c", "d"]
    assert "outputs are called by other names: /head/a head.a, b\\c b.c" in program.remarks
    program.save(tmp_path / "p.celo")
    assert celosia.load(tmp_path / "p.celo").returns == program.returns


def test_outputs_that_are_none_are_told_of_in_one_line() -> None:
    model = Function(lambda a, x: {"a": a(x), "b": None, "c": None}, nn.Linear(16, 3))
    assert "output b, c is None, and left out" in import_model(model, VECTOR).remarks


def test_labels_name_the_classes_of_the_outputs_that_tell_as_many_apart() -> None:
    known = celosia.Preprocessing(labels=("a", "b", "c", "d", "e"))
    program = celosia.compile(made("ends of their own"), VECTOR, target=TARGET,
                              preprocessing=known)
    assert [labels_of(program, output) for output in program.outputs] == [
        (), (), known.labels, known.labels]
    with pytest.raises(CelosiaError, match="^3 labels, and the network tells 4 or 2 or 5 or 5 "):
        celosia.compile(made("ends of their own"), VECTOR, target=TARGET,
                        preprocessing=celosia.Preprocessing(labels=("a", "b", "c")))


def test_a_stream_of_steps_returns_several_vectors_and_no_maps() -> None:
    x = np.random.default_rng(1).normal(size=(8, 1, 12, 4)).astype(np.float32)
    arguments = {"target": TARGET, "calibration": x, "exponents": "static"}
    heads = Function(lambda a, b, c, x: (b(F.relu(a(x)).flatten(1)), c(F.relu(a(x)).flatten(1))),
                     nn.Conv2d(1, 4, 4), nn.Linear(36, 3), nn.Linear(36, 2))
    program = celosia.compile(heads, x[:1], stream="time", **arguments)
    assert program.steps is not None
    whole = celosia.compile(heads, x[:1], accuracy="none", **arguments)
    lines = x[:2].reshape(24, 4)
    parts = lines.reshape(-1, 1, program.steps.hop, 4)
    found, wanted = celosia.run(program, parts), celosia.run(
        celosia.compile(heads, x[:1], stream="time", accuracy="none", **arguments), parts)
    windows = np.stack([lines[at:at + 12] for at in range(0, 13, program.steps.hop)])[:, None]
    right = celosia.run(whole, windows)
    for name in ("0", "1"):
        assert np.array_equal(wanted.answers[name], right.answers[name])
        assert found.answers[name].shape == right.answers[name].shape
    maps = Function(lambda a, b, x: (a(x), b(x)), nn.Conv2d(1, 2, (3, 4)), nn.Conv2d(1, 2, (3, 4)))
    with pytest.raises(CompileError, match="is several maps over time, of which a step makes some "
                                           "lines alone; join them along axis 1"):
        celosia.compile(maps, x[:1], stream="time", **arguments)
    joined = Function(lambda a, b, x: torch.cat([a(x), b(x)], 1), *maps.layers)
    assert celosia.compile(joined, x[:1], stream="time", **arguments).steps is not None


@pytest.mark.parametrize(("name", "last"), [
    ("argmax", lambda y: y.argmax(2)), ("argmax", lambda y: y.argmax(1)),
    ("sigmoid", torch.sigmoid), ("softmax", lambda y: F.softmax(y, 1)),
    ("transpose", lambda y: y.transpose(2, 3))])
def test_a_stream_of_steps_leaves_no_map_over_time_to_the_host(name: str, last) -> None:
    """Computed of the lines that steps give, it is what the window in one go has."""
    torch.manual_seed(0)
    x = np.random.default_rng(1).normal(size=(8, 1, 12, 4)).astype(np.float32)
    arguments = {"target": TARGET, "calibration": x, "exponents": "static", "accuracy": "none"}
    layer = nn.Conv2d(1, 3, (3, 4))
    refused = Function(lambda a, x: last(F.relu(a(x))), layer)
    with pytest.raises(CompileError, match=rf"^{name}.*: it reads a map over time, of which a step "
                                           "makes some lines alone; end the network in front of "
                                           "it, and compute it of the lines that steps give"):
        celosia.compile(refused, x[:1], stream="time", **arguments)
    kept = celosia.compile(Function(lambda a, x: F.relu(a(x)), layer), x[:1], stream="time",
                           **arguments)
    lines = x[:2].reshape(24, 4)[:21]
    found = celosia.run(kept, lines.reshape(21, 1, 1, 4)).answer
    collected = torch.from_numpy(np.concatenate(list(found), axis=1)[None])
    assert collected.shape == (1, 3, 10, 1)
    whole = celosia.compile(refused, x[:1], **arguments)
    wanted = celosia.run(whole, lines[None, None, 9:]).answer
    assert np.allclose(last(collected).numpy(), wanted, rtol=1e-12, atol=0)


def test_a_stream_of_steps_leaves_the_end_of_a_vector_to_the_host() -> None:
    x = np.random.default_rng(1).normal(size=(8, 1, 12, 4)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(1, 4, 4), nn.Flatten(), nn.Linear(36, 3), nn.Softmax(1))
    program = celosia.compile(model.eval(), x[:1], target=TARGET, calibration=x,
                              exponents="static", stream="time")
    assert program.steps is not None
    assert program.host


SCALES = {      # how much larger than the other output the first is; how both are made
    "one layer": (lambda scale: Function(lambda a, b, x: (scale * a(x), b(x)), conv(3), conv(2))),
    "copied": (lambda scale: Function(lambda a, b, x: (scale * F.relu(a(x)), b(x)), conv(3),
                                      conv(2))),
}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("scale", [0.01, 100])
def test_a_faint_output_is_as_right_as_a_loud_one(name: str, scale: float, tmp_path: Path) -> None:
    torch.manual_seed(4)
    model, x = SCALES[name](scale).eval(), inputs(MAP, 16)
    program = celosia.compile(model, MAP, target=TARGET)
    assert any(program.graph.tensors[program.graph.output].raised)
    assert len(program.remarks) == 1 and "give calibration inputs" in program.remarks[0]
    result = celosia.run(program, x)
    for answer, right in zip(result.answers.values(), leaves(model, x), strict=True):
        assert decibels_of(answer, right) > 30
    assert result.values.shape == result.mantissa.shape
    program.save(tmp_path / "a.celo")
    again = celosia.run(celosia.load(tmp_path / "a.celo"), x)
    assert np.array_equal(again.values, result.values)
    noise = against_float(program, model, x)
    assert noise.output_ratio > 30
    compare(program.graph, program.array, x[0])


def test_an_output_that_is_too_faint_is_told_of() -> None:
    program = celosia.compile(SCALES["copied"](1e4), MAP, target=TARGET)
    assert [remark for remark in program.remarks if "outputs share one exponent" in remark] == [
        "layers.1: the network's outputs share one exponent, and it is likely to be 2^13 times "
        "smaller than another; scale it up in the model, and down on the host"]


def test_a_network_is_trained_in_the_format_with_all_its_outputs() -> None:
    from celosia.compress import in_format

    torch.manual_seed(4)
    model, x = SCALES["copied"](100).eval(), inputs(MAP)
    trained = in_format(model, x[:1], target=TARGET)
    found = trained(torch.from_numpy(x))
    wanted = celosia.run(trained.program(), x)
    for name, answer in wanted.answers.items():
        assert np.array_equal(found[name].detach().double().numpy(), answer)
    sum(value.square().sum() for value in found.values()).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in trained.parameters())
    both = Function(lambda a, b, x: (F.interpolate(a(x), scale_factor=2),
                                     F.interpolate(b(x), scale_factor=2)), conv(3), conv(2))
    trained = in_format(both.eval(), x[:1], target=TARGET)
    found, wanted = trained(torch.from_numpy(x)), celosia.run(trained.program(), x)
    for name, answer in wanted.answers.items():
        assert np.array_equal(found[name].detach().double().numpy(), answer)


def test_passes_for_accuracy_are_judged_by_the_worst_output() -> None:
    """A faint output among loud ones counts as much."""
    torch.manual_seed(0)
    model = Function(lambda a, b, x: (100 * a(x), b(x)), nn.Linear(16, 4), nn.Linear(16, 2))
    graph, x = optimise(import_model(model, VECTOR)), inputs(VECTOR)
    wanted = outputs(graph, x)
    made = wanted.copy()
    made[:, 4:] *= 1.1
    assert worst_ratio(graph, made, wanted) == pytest.approx(20, abs=1e-6)
    assert decibels_of(made, wanted) > 21
