# amaranth: UnusedElaboratable=no
"""Inputs that the banks, or the taps, do not hold at once: page by page on the machine of words and
on the gateware, and averages over large maps in parts of their channels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celosia.bands.filling import page_record
from celosia.bands.layouts import strides
from celosia.bands.pages import page_of
from celosia.bands.program import stream_program
from celosia.bands.schedule import stream_schedule
from celosia.bands.spreads import Spread, Vector
from celosia.bands.ways import held_words, most_held, paged_way
from celosia.explain import explain
from celosia.graph import Conv, Graph
from celosia.program import program_of
from celosia.quantise import quantise
from celosia.serialise import load
from celosia_boards.families.ice40 import ULTRA_PLUS_FABRIC
from celosia_spec.epilogue import Epilogue, Relu
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC
from celosia_spec.isa.fills import places
from celosia_spec.isa.words import BLOCK
from registered import carrying
from stream import rtl, test_flash_rtl, test_parts
from stream.compared import compare
from stream.test_rtl import check

ARRAYS = {
    "16 lanes, two elements": Array(main_words=8192, bank_rows=64, clamp=True, drain=1, fill=2),
    "16 lanes, few taps": Array(main_words=8192, bank_rows=128, taps=64, clamp=True),
    "8 lanes": Array(lanes=8, main_words=8192, bank_rows=128, ring=64, clamp=True),
    "two clusters of 8": Array(lanes=8, main_words=8192, bank_rows=128, ring=64, clamp=True,
                               fill=8, clusters=2)}

UP5K = Array(drain=1, fill=2, clamp=True, flash=8)


@pytest.fixture(scope="module", params=ARRAYS)
def machine(request):
    array = ARRAYS[request.param]
    with rtl.machine(array, ULTRA_PLUS_FABRIC if array.drain == 1 else GENERIC) as block:
        yield array, block


def full(size, rows, density=1.0, *, last=False, signed=False, static=False, seed=1):
    """A layer that reads all of maps, and one behind it; quantised, and an input."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, *size)) * (rng.random((rows, *size)) < density)
    nodes = [Conv(name="a", input="x", weight=weight, bias=rng.standard_normal(rows),
                  epilogue=Epilogue(activation=Relu()))]
    if not last:
        nodes.append(Conv(name="b", input="a", weight=rng.standard_normal((3, rows, 1, 1)),
                          bias=None))
    images = (rng.random((3, *size)) - (0.5 if signed else 0)).astype(np.float32)
    graph = quantise(
        Graph(nodes=tuple(nodes), input="x", output=nodes[-1].name, input_map=size,
              input_shape=size, output_shape=(rows if last else 3, 1, 1)),
        acc_bits=24, unsigned=True, unsigned_input=not signed,
        exponents="static" if static else "dynamic", calibration=images if static else None)
    return graph, images[0]


def average(channels, height, width):
    """A mean of each channel; quantised, and an input."""
    size = channels, height, width
    node = Conv(name="a", input="x", weight=np.full((channels, 1, height, width),
                                                    1 / height / width),
                bias=None, groups=channels)
    graph = quantise(Graph(nodes=(node,), input="x", output="a", input_map=size, input_shape=size,
                           output_shape=(channels, 1, 1)), acc_bits=24, unsigned_input=True)
    return graph, np.random.default_rng(2).random(size).astype(np.float32)


def pages(graph, array):
    return stream_program(graph, array).layers[0].layout.pages


@pytest.mark.parametrize("density", [1.0, 0.4, 0.03])
@pytest.mark.parametrize(("size", "rows"), [((1200, 1, 1), 9), ((7, 15, 13), 4), ((2100, 1, 1), 5),
                                            ((5, 17, 18), 1), ((3, 33, 31), 6)])
def test_on_the_gateware(machine, size, rows, density):
    """Of three pages to nine; of one batch, and of several."""
    signed, static = rows > 4, density < 1
    graph, x = full(size, rows, density, signed=signed, static=static)
    assert pages(graph, machine[0]) > 2
    check(machine, graph, x)


def test_a_last_layer_on_the_gateware(machine):
    graph, x = full((3, 20, 21), 6, 0.7, last=True, signed=True)
    check(machine, graph, x)


def test_a_batch_that_fills_the_controls_ring(machine):
    """Its heads stay there until its last piece is read; wherever in the ring they are."""
    array, _ = machine
    size, density, signed = {(16, 256): (1350, 0.3, False), (16, 64): (2700, 0.45, True),
                             (8, 256): (2620, 0.45, True)}[array.lanes, array.taps]
    graph, x = full((size, 1, 1), 17, density, signed=signed)
    program = stream_program(graph, array)
    log2 = program.layers[0].log2_groups
    way = paged_way(program.graph, program.graph.nodes[0], array, log2, strides(program.graph))
    held = held_words(program.graph, program.graph.nodes[0], array, way)
    assert most_held(array) - 9 < held <= most_held(array)
    check(machine, graph, x)


def test_averages_on_the_gateware(machine):
    graph, x = average(6, 24, 23)
    program = stream_program(graph, machine[0])
    assert len(program.layers[0].parts) > 1
    check(machine, graph, x)


@pytest.mark.parametrize("log2", [0, 2])
@pytest.mark.parametrize(("channels", "positions", "stride"), [
    (2200, 1, 4), (2200, 1, 1), (70, 25, 28), (3, 1023, 1024), (12, 196, 196), (5, 701, 704)])
def test_fills_and_taps_of_pages(channels, positions, stride, log2):
    """Each element lies where its column's tap finds it, in either order of pages."""
    array = ARRAYS["16 lanes, two elements"]
    size = array.positions(log2)
    page = page_of(array, size)
    layout = Spread(source=Vector(channels=channels, positions=positions, size=size, stride=stride),
                    page=page, copies=array.taps * BLOCK // (2 * page))
    (taps,), found = layout.phases(), {}
    assert len(taps) == array.taps and layout.rows <= array.bank_rows
    for number in range(layout.pages):
        made = places(page_record(layout, number, 0, array, signed=False, log2_groups=log2), array)
        found |= {element: (bank, row, number) for element, bank, row in zip(
            made.element.ravel().tolist(), made.bank.ravel().tolist(), made.row.ravel().tolist(),
            strict=True)}
    assert len(found) == channels * positions
    for batch in range(2):
        columns = layout.index(channels, batch).reshape(channels, positions)
        order = layout.order(batch)
        for (channel, position), column in np.ndenumerate(columns):
            bank, row, number = found[channel * stride + position]
            tap_row, rotation, _ = taps[column // BLOCK % array.taps]
            assert (rotation, tap_row + column % BLOCK) == (bank, row)
            assert order[column // page] == number
        assert sorted(order) == list(range(layout.pages))


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_ones(data):
    array = replace(data.draw(st.sampled_from(list(ARRAYS.values()))), main_words=1 << 14)
    size = data.draw(st.integers(1, 12)), data.draw(st.integers(7, 16)), data.draw(
        st.integers(7, 16))
    graph, x = full(size, data.draw(st.integers(1, 12)), data.draw(st.sampled_from(
        (0.003, 0.05, 0.5, 0.97, 1.0))), last=data.draw(st.booleans()),
        signed=data.draw(st.booleans()), static=data.draw(st.booleans()),
        seed=data.draw(st.integers(0, 1 << 32)))
    compare(graph, array, x)


FLASH = Array(lanes=8, main_words=1024, bank_rows=64, ring=64, taps=64, tiles=64, residual=False,
              clamp=True, flash=4)


@pytest.mark.parametrize("clusters", [1, 2, 4])
def test_entries_that_come_from_flash_in_parts(clusters):
    graph, x = full((1100, 1, 1), 30, 0.3)
    array = replace(FLASH, clusters=clusters, fill=FLASH.fill if clusters == 1 else 8)
    found = [program for program in test_parts.programs(graph, array) if program.flash.parts]
    assert any(len(parted.made) > 2 for program in found for parted in program.flash.parts.values())
    assert all(program.layers[0].layout.pages > 2 for program in found)
    for program in found:
        test_parts.check(program, x)
    test_flash_rtl.check(found[0], np.stack([x, x[::-1]]))


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_340_taps(density):
    """What was refused when the table had to hold the taps of all inputs."""
    graph, x = full((8, 26, 26), 10, density)
    assert pages(graph, UP5K) > 2
    test_parts.check(stream_program(graph, UP5K), x)


def test_an_average_of_512_taps():
    graph, x = average(8, 32, 32)
    test_parts.check(stream_program(graph, UP5K), x)


def test_what_is_told_of_pages(tmp_path):
    """A file of such a program is read back; between the pieces of a batch there are no bands."""
    graph, _ = full((8, 26, 26), 10)
    program = program_of(stream_schedule(graph, replace(UP5K, flash=4)), target="paged",
                         exponents="dynamic")
    program.save(tmp_path / "net.celo")
    with carrying(replace(UP5K, flash=0), "paged", "icebreaker"):
        again = load(tmp_path / "net.celo")
    assert np.array_equal(again.program.entries, program.program.entries)
    layer, wanted = explain(program)[0][0], program.layers[0]
    assert (layer.bands, layer.tiles, layer.fills) == (
        1, 1, 2 + layer.batches * (pages(graph, UP5K) - 2))
    assert (layer.weights, layer.padding) == (wanted.nonzeros, wanted.padding)
    assert sum(line.says == "the batch goes on with the next page of the input"
               for line in layer.lines) == layer.batches * (pages(graph, UP5K) - 1)
