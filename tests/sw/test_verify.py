"""Comparing a backend with the golden model: planted errors are found, named and counted."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import celosia
from celosia import verify as verification
from celosia.bands.session import SimResult
from celosia.cli import app
from celosia_sim import golden

SHAPE = (2, 5, 4)


@pytest.fixture(scope="module")
def program() -> celosia.Program:
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                                torch.nn.Linear(18, 4)).eval()
    return celosia.compile(model, np.zeros((1, *SHAPE), np.float32), target="icebreaker")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)


def perfect(program: celosia.Program, x: np.ndarray) -> SimResult:
    """Return what a machine without a fault gives."""
    right, output = golden.run(program.graph, x), program.graph.output
    cycles = np.full(len(x), program.predicted_cycles)
    return SimResult(
        output=right.mantissas[output], exponent=right.exponents[output],
        saturated=right.saturated, cycles=cycles,
        tensors={node.output: (right.mantissas[node.output], right.exponents[node.output])
                 for node in program.graph.nodes})


def check(monkeypatch, program, x, fault=lambda result: result):
    """Verify against a machine whose result ``fault`` changes."""
    def machine(program, x, backend, *, tensors, progress, stages):
        assert tensors
        return fault(perfect(program, x))
    monkeypatch.setattr("celosia.backends.simulate", machine)
    return verification.verify(program, x)


def test_equal(monkeypatch, program, x) -> None:
    found = check(monkeypatch, program, x)
    assert found.passed
    assert (found.mismatches, found.first_mismatch, found.images) == (0, None, 5)
    conv, fc = (node.output for node in program.graph.nodes)
    assert found.tensors == tuple(sorted((conv, fc)))
    assert found.values == 5 * ((18 + 1) + (4 + 1) + 1)


def test_a_mantissa_in_a_stored_tensor(monkeypatch, program, x) -> None:
    name = program.graph.nodes[0].output

    def fault(result):
        mantissa, exponent = result.tensors[name]
        mantissa = mantissa.copy()
        mantissa[3, 1, 2, 0] += 7
        return replace(result, tensors=result.tensors | {name: (mantissa, exponent)})

    found = check(monkeypatch, program, x, fault)
    first = found.first_mismatch
    assert not found.passed
    assert found.mismatches == 1
    assert (first.tensor, first.image, first.element) == (name, 3, (1, 2, 0))
    assert first.got - first.expected == 7


def test_images_count_across_chunks(monkeypatch, program, x) -> None:
    monkeypatch.setattr(verification, "CHUNK", 2)
    calls = []

    def fault(result):
        calls.append(len(result.output))
        return replace(result, exponent=result.exponent + (len(calls) == 2))

    found = check(monkeypatch, program, x, fault)
    assert calls == [2, 2, 1]
    assert found.mismatches == 2
    assert (found.first_mismatch.image, found.first_mismatch.element) == (2, "exponent")


@pytest.mark.parametrize(("fault", "element"), [
    (lambda result: replace(result, saturated=~result.saturated), "saturated"),
    (lambda result: replace(result, output=result.output + 1), (0, 0, 0)),
])
def test_flags_and_outputs(monkeypatch, program, x, fault, element) -> None:
    found = check(monkeypatch, program, x, fault)
    assert found.first_mismatch.tensor == program.graph.output
    assert found.first_mismatch.element == element


def test_a_wrong_number_of_cycles_fails(monkeypatch, program, x) -> None:
    found = check(monkeypatch, program, x, lambda result: replace(result, cycles=result.cycles + 1))
    assert found.mismatches == 0
    assert not found.passed


def test_the_command_ends_with_status_1(monkeypatch, program, x, tmp_path) -> None:
    program.save(tmp_path / "net.celo")
    np.save(tmp_path / "x.npy", x)
    command = ["verify", str(tmp_path / "net.celo"), "--input", str(tmp_path / "x.npy"), "--json"]
    check(monkeypatch, program, x)
    assert CliRunner().invoke(app, command).exit_code == 0
    check(monkeypatch, program, x, lambda result: replace(result, output=result.output + 1))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["first_mismatch"]["image"] == 0
    assert "expected" in result.stderr


@pytest.mark.slow
def test_verilator(program, x) -> None:
    found = verification.verify(program, x, "verilator")
    assert found.passed, found.first_mismatch
    assert set(found.tensors) == set(program.graph.tensors)
