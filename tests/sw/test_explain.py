"""`celosia explain`: the words of a program read back tell what the compiler reported of them."""

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from celosia.cli import app
from celosia.explain import explain, memory_map
from celosia.frontend import import_model
from celosia.lower import lower
from celosia.passes import optimise
from celosia.program import Program
from celosia.quantise import quantise
from celosia_spec.isa import DESCRIPTOR, DESCRIPTOR_WORDS, MEMORIES, Space
from fingerprints.networks import NETS, network
from first_machine import HX8K, THIRTY_TWO, UP5K, target_up5k

CASES = [("lenet5", "up5k"), ("pooled", "up5k"), ("residual", "large"),
         ("strided", "large"), ("depthwise", "large"), ("mlp", "first")]


@functools.cache
def program(net: str, board: str) -> Program:
    graph = optimise(import_model(network(net), np.zeros((1, *NETS[net].shape), np.float32)))
    array = {"up5k": UP5K, "large": THIRTY_TWO, "first": HX8K}[board]
    quantised = quantise(graph, exponents="dynamic", acc_bits=array.acc_bits)
    return lower(quantised, array, target=board, exponents="dynamic")


@pytest.mark.parametrize(("net", "board"), CASES)
def test_the_words_say_what_the_compiler_reports(net: str, board: str) -> None:
    made = program(net, board)
    found = explain(made)
    assert [layer.name for layer in found] == [layer.name for layer in made.layers]
    for layer, wanted in zip(found, made.layers, strict=True):
        assert (layer.groups, layer.weights, layer.padding) == (
            wanted.groups, wanted.nonzeros, wanted.padding)
        assert layer.lanes * layer.groups == made.lanes
        assert layer.issued == sum(layer.steps) * layer.tiles * layer.windows
        assert layer.waited == sum(layer.waits) * layer.tiles * layer.windows
        assert made.lanes * layer.waited == wanted.lane_cycles["bubble"]


@pytest.mark.parametrize(("net", "board"), CASES)
def test_every_word_of_the_images_is_explained(net: str, board: str) -> None:
    """Layers share words of the tap and write tables; those of the others are of one layer."""
    made = program(net, board)
    regions = [region for layer in explain(made) for region in layer.regions]
    for memory in (memory for memory in MEMORIES if memory.holds == "image"):
        covered = np.zeros(made.images[memory.space].size, np.int64)
        for region in (region for region in regions if region.memory == memory.name):
            assert region.last < covered.size <= region.depth
            covered[region.first:region.last + 1] += 1
        assert covered.min() == 1, memory.name
        shared = memory.space in (Space.TAPS, Space.WRITES)
        assert shared or covered.max() == 1, memory.name


@pytest.mark.parametrize(("net", "board"), CASES)
def test_fields_make_the_descriptor_again(net: str, board: str) -> None:
    made = program(net, board)
    words = made.images[Space.PROGRAM].tolist()
    for number, layer in enumerate(explain(made)):
        packed = DESCRIPTOR.pack(**{line.name: line.value for line in layer.descriptor})
        assert packed == words[number * DESCRIPTOR_WORDS:][:DESCRIPTOR_WORDS]
        assert [line.word for line in layer.descriptor] == sorted(
            line.word for line in layer.descriptor)


def test_it_tells_what_the_words_say_and_not_what_the_graph_does() -> None:
    made = program("lenet5", "up5k")
    words = made.images[Space.PROGRAM].copy()
    place = DESCRIPTOR.places["relu"]
    words[place.word] ^= 1 << place.low
    changed = replace(made, images=made.images | {Space.PROGRAM: words})
    before, after = explain(made)[0].does, explain(changed)[0].does
    assert "Negative sums become 0." in before and "Negative sums become 0." not in after


def test_the_map_has_every_tensor_and_every_exponent() -> None:
    made = program("residual", "large")
    regions = memory_map(made, explain(made))
    told = [region.holds.split(",")[0] for region in regions if region.memory != "program"]
    assert set(made.places) <= set(told)
    [slots] = (region for region in regions if region.memory == "exponents")
    assert slots.last == len(made.slots) - 1
    assert [region.memory for region in regions] == sorted(
        (region.memory for region in regions), key=lambda name: Space[name.upper()])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("explain") / "net.celo"
    program("lenet5", "up5k").save(path)
    with target_up5k():
        yield path


def test_command(file: Path) -> None:
    shown = CliRunner().invoke(app, ["explain", str(file)])
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for layer in program("lenet5", "up5k").layers:
        assert f"{layer.name}: weights" in shown.stdout
    told = json.loads(CliRunner().invoke(app, ["explain", str(file), "--json"]).stdout)
    assert set(told) == {"target", "layers", "memory"} and len(told["layers"]) == 5


def test_one_layer_in_words(file: Path) -> None:
    name = program("lenet5", "up5k").layers[0].name
    shown = CliRunner().invoke(app, ["explain", str(file), "--layer", name]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for field in DESCRIPTOR.fields:
        assert f" {field.name} " in shown
    assert "pool windows" in shown and "Negative sums become 0." in shown
    told = json.loads(CliRunner().invoke(app, ["explain", str(file), "--layer", name,
                                               "--json"]).stdout)
    assert [layer["name"] for layer in told["layers"]] == [name]


def test_a_layer_that_is_not_there(file: Path) -> None:
    result = CliRunner().invoke(app, ["explain", str(file), "--layer", "conv9"])
    assert result.exit_code == 1 and result.stdout == ""
    assert "no layer conv9; --layer takes one of" in result.stderr
