"""Schedules as texts, and that weights are encoded once, where a network is known to fit.

Who changes how networks are run looks at the texts in ``tests/golden_schedules``, and rewrites them
with the command that a failing test names.
"""

import functools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from celosia.emit import program as emitting
from celosia.lower import lower
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia.schedule.schedule import Schedule
from celosia.schedule.scheduling import schedule
from celosia_spec.errors import FitError
from celosia_spec.isa import ArrayConfig
from celosia_spec.qgraph import QGraph

pytest.importorskip("torch")
from celosia.frontend import import_model
from fingerprints.networks import NETS, network
from first_machine import THIRTY_TWO, UP5K

FOLDER = Path(__file__).parents[1] / "golden_schedules"
UPDATE = "python -m pytest tests/sw/test_schedule.py -n0 --update"
ECP5 = THIRTY_TWO


class Golden(NamedTuple):
    """A network of `NETS`, and the array that runs it."""

    net: str
    array: ArrayConfig


GOLDEN = {
    "lenet5": Golden("lenet5", UP5K),
    "residual": Golden("residual", ECP5),
    "depthwise": Golden("depthwise", UP5K),
    "shared-rows": Golden("depthwise", replace(ECP5, bank_rows=240)),
    "retreat": Golden("strided", replace(UP5K, bank_rows=360)),
}


@functools.cache
def quantised(net: str) -> QGraph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of torch.export's own code
        model = import_model(network(net), np.zeros((1, *NETS[net].shape), np.float32))
    return quantise(optimise(model))


def scheduled(name: str) -> Schedule:
    net, array = GOLDEN[name]
    graph = quantised(net)
    return schedule(graph, replace(array, acc_bits=graph.acc_bits))


@pytest.mark.parametrize("name", GOLDEN)
def test_text(name: str, update: bool) -> None:
    path, text = FOLDER / f"{name}.txt", f"{scheduled(name)}\n"
    assert max(map(len, text.splitlines())) <= 80
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    stored = path.read_text(encoding="utf-8") if path.exists() else "no such file"
    assert text == stored, f"{path}: look at what changed, then run {UPDATE}"


def test_shared_rows_are_shared_and_cleared() -> None:
    found = scheduled("shared-rows")
    assert any(region.shared for region in found.memory.banks.values())
    assert any(layer.clears for layer in found.layers)


def test_a_retreat_is_one() -> None:
    """With more bank rows the same network is run otherwise, in fewer cycles."""
    graph, found = quantised(GOLDEN["retreat"].net), scheduled("retreat")
    roomy = schedule(graph, replace(found.array, bank_rows=512))
    assert [layer.groups for layer in found.layers] != [layer.groups for layer in roomy.layers]
    assert found.predicted_cycles > roomy.predicted_cycles


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the encoder of weight streams was called with, first arguments."""
    calls: list[object] = []
    real = emitting.encode
    monkeypatch.setattr(emitting, "encode",
                        lambda matrix, *rest: calls.append(matrix) or real(matrix, *rest))
    return calls


@pytest.mark.parametrize("net", ["lenet5", "residual"])
def test_every_stream_is_encoded_once(net: str, encoded: list[object]) -> None:
    graph = quantised(net)
    program = lower(graph, replace(ECP5, acc_bits=graph.acc_bits), target="test",
                    exponents="dynamic")
    assert [id(matrix) for matrix in encoded] == [id(node.matrix) for node in program.graph.nodes]
    assert len(encoded) == {"lenet5": 5, "residual": 8}[net]


def test_nothing_is_encoded_for_what_does_not_fit(encoded: list[object]) -> None:
    graph = quantised("lenet5")
    for tight in ({"bank_rows": 16}, {"weight_rows": 64}, {"writes": 16}):
        with pytest.raises(FitError):
            lower(graph, replace(UP5K, acc_bits=graph.acc_bits, **tight), target="test",
                  exponents="dynamic")
    assert not encoded


def test_the_text_counts_what_the_program_holds() -> None:
    graph = quantised("residual")
    found = scheduled("residual")
    program = lower(graph, found.array, target="test", exponents="dynamic")
    assert found.words == {space: image.size for space, image in program.images.items()}
    assert found.predicted_cycles == program.predicted_cycles
    text = str(found)
    for layer in program.layers:
        assert f"{layer.predicted_cycles:,}" in text
    for space, image in program.images.items():
        assert f"{space.name.lower()} {image.size:,}" in text
