"""Passes for accuracy: free equalisation, bias correction, and the choice of what helps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia.accuracy import CLIPPING, LEAST_INPUTS, more_accurate, output_ratio
from celosia.cli import app
from celosia.closest_exponents import closest_exponents
from celosia.compiler import Compiler
from celosia.float_values import outputs
from celosia.passes import correct_bias, equalise
from celosia_spec.errors import CelosiaError, FitError
from float_graph import interpret

SHAPE = (3, 10, 10)


def depthwise() -> nn.Module:
    """Return a network with channels that only a depthwise layer reads, 1 to 1/64 as large."""
    torch.manual_seed(3)
    first = nn.Conv2d(3, 12, 3)
    with torch.no_grad():
        first.weight *= 2.0 ** -torch.arange(12).view(-1, 1, 1, 1).div(2)
        first.bias *= 2.0 ** -torch.arange(12).div(2)
    second = nn.Conv2d(12, 12, 3, groups=12)
    with torch.no_grad():
        second.weight *= 2.0 ** torch.arange(12).view(-1, 1, 1, 1).div(2)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(12, 12, 1), nn.ReLU(),
                         nn.AvgPool2d(6), nn.Flatten(), nn.Linear(12, 4)).eval()


class Residual(nn.Module):
    """Two tensors that are added, behind which only a depthwise layer reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.own, self.last = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)
        with torch.no_grad():
            self.left.weight[3] /= 32
            self.right.weight[3] /= 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.own(self.left(x) + self.right(x))))


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("make", [depthwise, lambda: Residual().eval()])
def test_equalised_is_the_same_network(make) -> None:
    graph, x = Compiler().graph(make(), (1, *SHAPE)), inputs(3)
    found = equalise(graph, x)
    assert any((old.weight != new.weight).any()
               for old, new in zip(graph.nodes, found.nodes, strict=True))
    assert np.array_equal(outputs(found, x), outputs(graph, x))
    for image, output in zip(x, outputs(found, x), strict=True):
        assert np.allclose(output.ravel(), interpret(graph, image), rtol=1e-9)


def test_channels_become_equally_large() -> None:
    from celosia.float_values import values

    graph, x = Compiler().graph(depthwise(), (1, *SHAPE)), inputs(3)
    name, largest = graph.nodes[0].name, []
    for one in (graph, equalise(graph, x)):
        tensors = [stored[name] for stored, _ in values(one, x)]
        largest.append(np.max(tensors, axis=(0, 2, 3)))
    before, after = largest
    assert before.max() / before.min() > 16
    assert after.max() / after.min() < 2
    assert np.floor(np.log2(after.max())) == np.floor(np.log2(before.max()))


@pytest.mark.parametrize("behind", [nn.Conv2d(12, 4, 3), nn.Identity()])
def test_what_others_read_is_not_scaled(behind: nn.Module) -> None:
    network = nn.Sequential(*depthwise()[:2], behind)
    graph = Compiler().graph(network.eval(), (1, *SHAPE))
    for old, new in zip(graph.nodes, equalise(graph, inputs(3)).nodes, strict=True):
        assert np.array_equal(old.weight, new.weight)


def test_what_a_clamp_bounds_is_not_scaled() -> None:
    network = nn.Sequential(depthwise()[0], nn.ReLU6(), *depthwise()[2:])
    graph, x = Compiler().graph(network.eval(), (1, *SHAPE)), inputs(3)
    assert np.array_equal(graph.nodes[0].weight, equalise(graph, x).nodes[0].weight)


def test_corrected_biases_take_the_mean_away() -> None:
    compiler, x = Compiler(weight_bits=4), inputs(16)
    graph = compiler.graph(depthwise(), (1, *SHAPE))
    found = correct_bias(graph, compiler.quantised(graph, x), x)
    wanted = outputs(graph, x)
    errors = [np.abs((_values(compiler.quantised(one, x), x) - wanted).mean(axis=0)).max()
              for one in (graph, found)]
    assert errors[1] < errors[0] / 8


def test_a_node_without_bias_gets_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1))
    compiler, x = Compiler(weight_bits=4), inputs(8) + 1
    graph = compiler.graph(network.eval(), (1, *SHAPE))
    assert correct_bias(graph, compiler.quantised(graph, x), x).nodes[0].bias.any()


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_more_accurate_on_other_inputs(exponents: str) -> None:
    compiler, x = Compiler(weight_bits=5, exponents=exponents), inputs(64)
    graph = compiler.graph(depthwise(), (1, *SHAPE))
    found = more_accurate(graph, compiler, x[:32]).graph
    before, after = (output_ratio(compiler.quantised(one, x[:32]), x[32:], outputs(graph, x[32:]))
                     for one in (graph, found))
    assert after > before + 1
    assert [remark.split(",")[0] for remark in found.remarks[len(graph.remarks):]] == [
        "accuracy: equalise", "accuracy: correct_bias"]


def test_what_does_not_help_is_not_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    from celosia import accuracy

    def worse(graph, x):
        return accuracy.replace(graph, nodes=tuple(
            accuracy.replace(node, weight=node.weight * 1.5) for node in graph.nodes))

    monkeypatch.setattr(accuracy, "_passes", lambda compiler: {"worse": worse})
    graph = Compiler().graph(depthwise(), (1, *SHAPE))
    found = more_accurate(graph, Compiler(), inputs(LEAST_INPUTS)).graph
    assert found.nodes is graph.nodes
    assert found.remarks[-1].endswith("not applied")


def test_too_few_inputs_change_nothing() -> None:
    graph = Compiler().graph(depthwise(), (1, *SHAPE))
    found = more_accurate(graph, Compiler(), inputs(LEAST_INPUTS - 1)).graph
    assert found.nodes is graph.nodes
    assert found.remarks[-1] == ("accuracy: cannot be judged by 7 different calibration inputs; "
                                 "give 8 different ones")


def test_compiled_program_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    x = inputs(16)
    program = celosia.compile(depthwise(), x[:1], calibration=x, weight_bits=5,
                              accuracy="default", dump_after="correct_bias")
    assert any("correct_bias" in remark for remark in program.remarks)
    assert capsys.readouterr().err.startswith("# after correct_bias\n")
    plain = celosia.compile(depthwise(), x[:1], calibration=x, weight_bits=5, accuracy="none")
    assert not any("accuracy" in remark for remark in plain.remarks)


@pytest.mark.parametrize(("count", "runs"), [(LEAST_INPUTS - 1, False), (LEAST_INPUTS, True)])
def test_passes_run_where_there_are_enough_inputs(count: int, runs: bool) -> None:
    x = inputs(count)
    for asked in (None, "default"):
        program = celosia.compile(depthwise(), x[:1], calibration=x, accuracy=asked)
        told = [remark for remark in program.remarks if remark.startswith("accuracy: ")]
        assert bool(program.noise) is runs
        assert (len(told) >= 2) is runs
    (target,) = celosia.check(depthwise(), x[:1], "icebreaker", calibration=x).targets
    assert any("correct_bias" in remark for remark in target.remarks) is runs


@pytest.mark.parametrize("equal", [
    np.repeat(inputs(1), 8, axis=0), np.zeros((8, *SHAPE)), np.full((8, *SHAPE), 0.5),
    np.zeros((8, *SHAPE)) * np.resize([1, -1], (8, 1, 1, 1))])
def test_equal_inputs_judge_nothing(equal: np.ndarray) -> None:
    told = "accuracy: cannot be judged by 1 different calibration input; give 8 different ones"
    for asked, said in ((None, []), ("default", [told]), ("best", [told])):
        program = celosia.compile(depthwise(), equal[:1], calibration=equal, accuracy=asked)
        (target,) = celosia.check(depthwise(), equal[:1], "icebreaker", calibration=equal,
                                  accuracy=asked).targets
        for remarks in (program.remarks, target.remarks):
            assert [remark for remark in remarks if remark.startswith("accuracy")] == said
        assert program.noise == {}


def test_copies_are_not_on_both_sides() -> None:
    x, compiler = inputs(16), Compiler(weight_bits=5)
    graph = compiler.graph(depthwise(), x[:1])
    plain, copied = (more_accurate(graph, compiler, samples)
                     for samples in (x, np.repeat(x, 2, axis=0)))
    assert copied.applied
    assert (copied.graph.remarks, copied.noise) == (plain.graph.remarks, plain.noise)


def test_a_pass_that_cannot_be_is_not_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    from celosia import accuracy

    def larger(graph, x):
        return accuracy.replace(graph, nodes=tuple(
            accuracy.replace(node, weight=node.weight * 2.0**16) for node in graph.nodes))

    monkeypatch.setattr(accuracy, "_passes", lambda compiler: {"larger": larger})
    graph = Compiler().graph(depthwise(), (1, *SHAPE))
    found = more_accurate(graph, Compiler(), inputs(LEAST_INPUTS)).graph
    assert found.nodes is graph.nodes
    assert "accuracy: larger, the weight of row" in found.remarks[-1]
    assert found.remarks[-1].endswith("not applied")


def test_what_needs_wider_accumulators_is_not_applied() -> None:
    x, compiler = inputs(16), Compiler(weight_bits=4, target="ulx3s-85f")
    graph = compiler.graph(depthwise(), x[:1])
    from celosia import accuracy

    def narrow(self, graph, samples, **others):
        found = QUANTISED(self, graph, samples, **others)
        return accuracy.replace(found, acc_bits=24 + 8 * (graph.nodes[0].bias[0] != first))

    QUANTISED, first = Compiler.quantised, graph.nodes[0].bias[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compiler, "quantised", narrow)
        assert more_accurate(graph, compiler, x).applied == ()
    assert more_accurate(graph, compiler, x).applied


def test_where_the_network_does_not_fit_it_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_wide(*arguments: object, **settings: object) -> None:
        raise FitError("4", "conv", "its sums are too wide", "prune it")

    graph = Compiler().graph(depthwise(), (1, *SHAPE))
    monkeypatch.setattr(Compiler, "quantised", too_wide)
    found = more_accurate(graph, Compiler(), inputs(8))
    assert found.graph.remarks == ("accuracy: cannot be judged, 4: its sums are too wide",)
    assert found.graph.nodes == graph.nodes and found.applied == ()


def test_what_does_not_fit_is_refused_with_its_way_out() -> None:
    torch.manual_seed(1)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4))
    with pytest.raises(CelosiaError, match="prune it|compile it for|tried in vain"):
        celosia.compile(wide.eval(), (1, *SHAPE), calibration=inputs(8), target="hx8k")


@pytest.mark.parametrize(("bits", "helps"), [(4, True), (9, False)])
def test_exponents_clip_where_it_helps(bits: int, helps: bool) -> None:
    """Mantissas of few bits gain more where most values are than they lose at the largest."""
    x = inputs(64)
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(256, 3)).eval()
    settings = {"exponents": "static", "activation_bits": bits, "calibration": x[:32],
                "target": "ulx3s-85f"}
    default, best = (celosia.compile(network, x[:1], accuracy=accuracy, **settings)
                     for accuracy in ("default", "best"))
    told = next(remark for remark in best.remarks if CLIPPING in remark)
    assert told.endswith("not applied") is not helps
    exponents = [[tensor["exponent"] for tensor in program.tensors] for program in (default, best)]
    assert all(one >= other for one, other in zip(*exponents, strict=True))
    assert exponents[0][-1] == exponents[1][-1]
    assert (exponents[0] != exponents[1]) is helps
    if helps:
        wanted = outputs(Compiler().graph(network, x[:1]), x[32:])
        before, after = (output_ratio(program.graph, x[32:], wanted)
                         for program in (default, best))
        assert after > before + 1


def test_closest_exponents_are_those_of_least_noise() -> None:
    compiler, x = Compiler(exponents="static", activation_bits=5), inputs(8)
    x[0, 0, 0, 0] = 31.0
    graph = compiler.graph(depthwise(), x[:1])
    usual = compiler.quantised(graph, x)
    largest = {name: tensor.exponent.fixed for name, tensor in usual.tensors.items()
               if tensor.exponent.fixed is not None}
    assert largest[graph.input] == 4
    noise = []
    for exponent in range(4, 0, -1):
        lsb = 2.0 ** (exponent - 3)
        noise.append(np.square(np.clip(np.round(x / lsb), -15, 15) * lsb - x).sum())
    found = closest_exponents(graph, usual, largest, x)
    assert found[graph.input] == 4 - int(np.argmin(noise))
    assert found[graph.output] == largest[graph.output]


def test_noise_is_told_by_layer() -> None:
    x = inputs(16)
    program = celosia.compile(depthwise(), x[:1], calibration=x, weight_bits=5, accuracy="default")
    assert list(program.noise) == list(program.graph.tensors)
    before, after = program.noise[program.graph.output]
    assert after > before
    graph = Compiler().graph(depthwise(), x[:1])
    compiler = Compiler(weight_bits=5)
    signal, noise = 0.0, 0.0
    for half in (x[::2], x[1::2]):
        wanted = outputs(graph, half)
        signal += np.square(wanted).sum()
        noise += np.square(_values(compiler.quantised(graph, half), half) - wanted).sum()
    assert before == pytest.approx(10 * np.log10(signal / noise))
    first = program.graph.nodes[0].name
    assert min(program.noise[first]) > 20      # equalised, too, at its own scale
    assert celosia.compile(depthwise(), x[:1], calibration=x, accuracy="none").noise == {}


def test_report_tells_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(16)
    np.save(tmp_path / "x.npy", x)
    torch.export.save(torch.export.export(depthwise(), (torch.from_numpy(x[:1]),)),
                      tmp_path / "net.pt2")
    monkeypatch.chdir(tmp_path)
    given = ["compile", "net.pt2", "--calibration", "x.npy", "--accuracy", "default"]
    shown = CliRunner().invoke(app, given)
    found = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["noise"]
    last = list(found.values())[-1]
    assert last["after"] > 20
    line = next(line for line in shown.stdout.splitlines() if "linear" in line or "fc" in line
                or f"{last['after']:.1f}" in line)
    assert f"{last['before']:.1f}" in line
    assert max(map(len, shown.stdout.split("accuracy: ")[0].splitlines())) <= 80


@pytest.mark.parametrize(("settings", "words"), [
    ({"accuracy": "default"}, "needs calibration inputs"),
    ({"accuracy": "default", "calibration": inputs(8).transpose(0, 2, 3, 1)},
     r"; channels last\? calibration.transpose\(0, 3, 1, 2\)$"),
    ({"accuracy": "default", "calibration": inputs(8) * 1e6}, "scale the inputs down"),
    ({"accuracy": "most", "calibration": inputs(8)}, "'none', 'default' or 'best'")])
def test_refused(settings: dict, words: str) -> None:
    with pytest.raises(CelosiaError, match=words):
        celosia.compile(depthwise(), (1, *SHAPE), **settings)


def _values(graph, x: np.ndarray) -> np.ndarray:
    from celosia_sim.golden import run

    found = run(graph, x)
    lsb = graph.tensors[graph.output].format.lsb(found.exponents[graph.output])
    return np.ldexp(found.mantissas[graph.output].astype(float), lsb[:, None, None, None])
