"""Every memory filled to its last word: it compiles, is saved, loads and fits; one word more is
refused by whoever is asked, with a way out."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celosia import serialise
from celosia.frontend import import_model
from celosia.lower import lower
from celosia.passes import optimise
from celosia.program import CoreProgram as Program
from celosia.quantise import quantise
from celosia.schedule.memory_use import exceeded
from celosia_spec import container
from celosia_spec.errors import CelosiaError, FitError
from celosia_spec.isa import EXPONENT_SLOTS, MEMORIES, ArrayConfig, Memory, Space, memory_of
from celosia_spec.program import Place
from celosia_spec.qgraph import QGraph
from fingerprints.networks import NETS, network
from first_machine import HX8K, SIXTEEN, THIRTY_TWO, UP5K, target_first

ARRAY = ArrayConfig(lanes=8, quad=8, residual_beats=64)
"""Of one row group: no way of running a network takes fewer words than another."""
FILLED = [memory for memory in MEMORIES if memory.holds != "state"]
IMAGES = [memory for memory in FILLED if memory.holds == "image"]
PLACES = [memory for memory in FILLED if memory.holds == "tensors"]
DEPTH = {Space.PROGRAM: "program_words", Space.WEIGHTS: "weight_rows", Space.ROWS: "table_rows",
         Space.TAPS: "taps", Space.WRITES: "writes"}
"""The parameter of an array that is a memory's depth."""


@pytest.fixture(autouse=True)
def _first_machine() -> Iterator[None]:
    with target_first():
        yield


def named(memory: Memory) -> str:
    return memory.name


def program(**parts: Any) -> Program:
    """A program of nothing but what its memories hold."""
    graph = QGraph(tensors={}, nodes=(), input="x", output="y", weight_bits=8, activation_bits=8,
                   acc_bits=24)
    images = {memory.space: np.zeros(0, np.uint32) for memory in IMAGES}
    return Program(**{"target": "first", "array": ARRAY, "exponents": "dynamic",
                      "graph": graph, "layers": (), "images": images, "descriptors": 0,
                      "slots": {}, "places": {}} | parts)


def filled(memory: Memory, words: int) -> Program:
    """A program that needs so many words of a memory, and nothing of the others."""
    if memory.holds == "image":
        empty = program()
        return replace(empty, images=empty.images | {memory.space: np.zeros(words, np.uint32)})
    if memory.holds == "exponents":
        return program(slots={str(slot): slot for slot in range(words)})
    place = Place(space=memory.space, addresses=np.full((1, 1, 1, 1), words - 1), written=0)
    return program(places={"y": place})


def refusals(of: Program) -> list[FitError]:
    return list(exceeded({Space[use.name.upper()]: use.used for use in of.memory_use}, of.array,
                         of.target))


@pytest.mark.parametrize("memory", FILLED, ids=named)
def test_filled_to_the_last_word(memory: Memory) -> None:
    depth = memory.depth(ARRAY)
    full = filled(memory, depth)
    assert not refusals(full)
    assert full.fits
    [use] = (use for use in full.memory_use if use.name == memory.name)
    assert (use.used, use.available) == (depth, depth)
    assert all(use.used == 0 for use in full.memory_use if use.name != memory.name)


@pytest.mark.parametrize("memory", FILLED, ids=named)
def test_one_word_more_is_refused(memory: Memory) -> None:
    depth = memory.depth(ARRAY)
    more = filled(memory, depth + 1)
    assert not more.fits
    [refusal] = refusals(more)
    assert (f"needs {depth + 1} words of {memory.name} memory, the array has {depth}; "
            f"{memory.way_out}") in str(refusal)
    need = refusal.need
    assert need and need.needed > need.available and need.unit == memory.unit


@functools.cache
def quantised() -> QGraph:
    shape = np.zeros((1, *NETS["valid"].shape), np.float32)
    graph = optimise(import_model(network("valid"), shape))
    return quantise(graph, exponents="dynamic")


@functools.cache
def roomy() -> Program:
    return lower(quantised(), ARRAY, target="first", exponents="dynamic")


def tight(memory: Memory) -> ArrayConfig:
    """The array that holds exactly what the program needs of a memory."""
    words = roomy().images[memory.space].size
    for depth in range(words + EXPONENT_SLOTS, 0, -1):
        array = replace(ARRAY, **{DEPTH[memory.space]: depth})
        if memory.depth(array) <= words:
            return array
    raise AssertionError(memory)


@pytest.mark.parametrize("memory", IMAGES, ids=named)
def test_a_network_that_fills_it_compiles_is_saved_and_loads(
        memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = tight(memory)
    full = lower(quantised(), array, target="first", exponents="dynamic")
    [use] = (use for use in full.memory_use if use.name == memory.name)
    assert full.fits and use.used == use.available == roomy().images[memory.space].size
    file = tmp_path / "full.celo"
    full.save(file)
    monkeypatch.setattr(serialise, "array_for", lambda *_, **__: array)
    assert serialise.load(file).fits

    less = replace(array, **{DEPTH[memory.space]: getattr(array, DEPTH[memory.space]) - 1})
    with pytest.raises(FitError, match=f"words of {memory.name} memory, the array has "
                                       f"{memory.depth(less)}; {memory.way_out}"):
        lower(quantised(), less, target="first", exponents="dynamic")
    manifest, arrays = container.read(file)
    manifest["array"][DEPTH[memory.space]] -= 1
    manifest["array_hash"] = less.hash
    container.write(file, manifest, arrays)
    monkeypatch.setattr(serialise, "array_for", lambda *_, **__: less)
    with pytest.raises(CelosiaError, match=f"{memory.name} memory.*{memory.way_out}"):
        serialise.load(file)


def test_every_file_has_a_section_for_each_image() -> None:
    assert list(roomy().images) == [memory.space for memory in IMAGES]


def test_exponents_lie_in_program_memory() -> None:
    assert memory_of(Space.PROGRAM).depth(UP5K) == UP5K.program_words - 32 == 224
    assert memory_of(Space.EXPONENTS).depth(UP5K) == 32


def test_numbers_are_those_of_the_spaces() -> None:
    assert [memory.space for memory in MEMORIES] == list(Space)


@pytest.mark.parametrize("array", [
    UP5K, HX8K, SIXTEEN, THIRTY_TWO],
    ids=["UP5K", "HX8K", "16 lanes", "32 lanes"])
@pytest.mark.parametrize("memory", MEMORIES, ids=named)
def test_blocks_hold_what_a_program_may_use(memory: Memory, array: ArrayConfig) -> None:
    """Depth and word of the host's side, and the memories as built, are of one size."""
    if memory.blocks is None:
        return
    blocks = memory.blocks(array)
    spare = EXPONENT_SLOTS if memory.space == Space.PROGRAM else 0
    copies = array.groups_max if memory.space == Space.TAPS else 1
    held = memory.depth(array) + spare
    bits = array.acc_bits if memory.space == Space.STORE else memory.bits(array)
    assert blocks.count * blocks.depth * blocks.width == held * bits * copies
