"""What the machine cannot do is refused in one line: where, why, and what helps."""

from dataclasses import replace

import numpy as np
import pytest

from celosia.bands.filling import Place, records
from celosia.bands.flash import least_refusal
from celosia.bands.grid import Grid
from celosia.bands.layouts import Band, Lines, Stretch
from celosia.bands.program import refusals, stream_program
from celosia.bands.report import main_memory
from celosia.bands.schedule import attempt
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_spec.epilogue import PLAIN, Clamp, Epilogue, Pool
from celosia_spec.errors import CompileError, FitError, Scarce
from celosia_spec.isa.array import Array
from celosia_spec.isa.fills import places
from concats import graph_of, linear


def lone(shape, rows, kernel, *, pool=None, stride=(1, 1), acc_bits=24):
    """A network of one convolution and of another that reads it."""
    weight = np.random.default_rng(1).standard_normal((rows, shape[0], *kernel))
    epilogue = PLAIN if pool is None else Epilogue(pool=Pool(window=pool, stride=pool))
    size = [(extent - own) // step + 1 for extent, own, step in
            zip(shape[1:], kernel, stride, strict=True)]
    if pool is not None:
        size = [(extent - own) // own + 1 for extent, own in zip(size, pool, strict=True)]
    nodes = (Conv(name="a", input="x", weight=weight, bias=None, stride=stride, epilogue=epilogue),
             Conv(name="b", input="a", weight=np.ones((1, rows, 1, 1)), bias=None))
    return quantise(Graph(nodes=nodes, input="x", input_map=shape, input_shape=shape, output="b",
                          output_shape=(1, *size)), acc_bits=acc_bits)


@pytest.mark.parametrize(("graph", "array", "error", "message"), [
    (lambda: lone((1, 24, 24), 1, (1, 1), pool=(6, 6)), Array(), CompileError,
     r"a \(conv\): it pools windows of 36 positions, the machine 32 at most; pool in two layers"),
    (lambda: lone((1, 40, 40), 1, (20, 20)), Array(), FitError,
     r"a \(conv\): it needs 400 taps, the array has 256; give it fewer channels, a smaller kernel"),
    (lambda: lone((25000, 1, 1), 1, (1, 1), acc_bits=32), Array(acc_bits=32), FitError,
     r"a \(conv\): a row of it takes 289 words of the controls' ring, which holds 224; give it "
     r"fewer inputs"),
    (lambda: lone((400, 3, 40), 1, (1, 1)), Array(), FitError,
     r"a \(conv\): what one line of its outputs reads takes 1200 rows of the banks, the array has "
     r"512; give it fewer channels, or narrower maps"),
    (lambda: lone((64, 6, 6), 1, (3, 3), pool=(2, 2)), Array(ring=64), FitError,
     r"a \(conv\): it pools, and its longest row takes 72 entries of the weights' ring, which "
     r"holds \d+; prune more, or pool in a layer of its own"),
    (lambda: lone((1, 3, 400), 1, (1, 3)), Array(tiles=64), FitError,
     r"a \(conv\): no band of it fits banks of 512 rows, 256 taps and 21 tiles together; give it "),
    (lambda: lone((8, 30, 30), 8, (3, 3)), Array(main_words=1024), FitError,
     r"need \d+ words of main memory, the array has 1024; prune more, or give it smaller maps"),
    (lambda: graph_of([linear("y", ("x",), np.ones((1, 1)), -90)], {"x": (1, 1, 1),
                                                                   "y": (1, 1, 1)}),
     Array(), CompileError,
     r"y \(conv\): head field room must be -64 to 63, not -74; give it smaller maps, or weights "
     r"and biases nearer to 1"),
    (lambda: graph_of([linear("y", ("x",), np.full((1, 200), 127), 0)],
                      {"x": (200, 1, 1), "y": (1, 1, 1)}), Array(), FitError,
     r"y \(conv\): its input has signs, and the sums of a row may reach 6477000 in the lanes, "
     r"which have 23 bits; quantise it again$"),
], ids=["pooling", "taps", "inputs", "bank rows", "ring", "tiles", "main memory",
        "fields", "sums with signs"])
def test_refusal(graph, array, error, message):
    with pytest.raises(error, match=message) as raised:
        stream_program(graph(), array)
    assert "\n" not in str(raised.value)


def two_layers():
    """A network whose layers have too many taps, and take too many rows of the banks."""
    rng = np.random.default_rng(1)
    nodes = (Conv(name="a", input="x", weight=rng.standard_normal((300, 1, 20, 20)), bias=None),
             Conv(name="b", input="a", weight=rng.standard_normal((300, 300, 3, 3)), bias=None,
                  padding=(1, 1, 1, 1)),
             Conv(name="c", input="b", weight=np.ones((1, 300, 1, 1)), bias=None,
                  epilogue=Epilogue(activation=Clamp(low=0.0, high=6.0))))
    return quantise(Graph(nodes=nodes, input="x", input_map=(1, 30, 30), output="c",
                          input_shape=(1, 30, 30), output_shape=(1, 11, 11)), acc_bits=32)


def test_all_that_is_in_the_way_is_told_at_once():
    outcome = attempt(two_layers(), Array(main_words=4096, acc_bits=32))
    assert outcome.schedule is None and not outcome.planned
    clamp, taps, rows, memory = outcome.refusals
    assert all(isinstance(refusal, FitError) for refusal in outcome.refusals)
    assert "the array has ReLU only" in clamp.problem
    assert (taps.node, taps.need.what, taps.need.needed, taps.need.available) == (
        "a", "taps", 400, 256)
    assert (rows.node, rows.need.what, rows.need.available) == ("b", "rows of the banks", 512)
    assert memory.need.least and memory.need.available == 32
    # A weight takes a byte at least, and both maps of b have 300 channels of 31 words.
    assert 2 * 300 * 31 * 8 + 300 * 300 * 9 < memory.need.needed * 1024 < 1.2e6


def test_nothing_is_in_the_way_of_what_fits():
    graph, array = lone((8, 30, 30), 8, (3, 3)), Array()
    assert list(refusals(graph, array)) == []
    outcome = attempt(graph, array)
    assert outcome.schedule is not None and outcome.planned and not outcome.refusals
    short = attempt(graph, replace(array, main_words=1024))
    [refusal] = short.refusals
    assert short.planned and not refusal.need.least
    # What would lie in main memory ends where it is said to.
    memory = refusal.memory
    assert memory.needed * 8 / 1024 == refusal.need.needed and memory.words == 1024
    assert memory.layers == ("a", "b") and {piece.name for piece in memory.pieces} == {
        "stream", "x", "a", "b"}
    assert [(piece.name, piece.words, piece.life) for piece in memory.pieces] == [
        (piece.name, piece.words, piece.life)
        for piece in main_memory(outcome.schedule.stream).pieces]


@pytest.mark.parametrize("flash", [0, 4])
def test_no_array_that_runs_a_network_has_less_main_memory_than_the_least(flash):
    graph, array = lone((8, 30, 30), 8, (3, 3)), Array(flash=flash)
    while attempt(graph, array).schedule is not None:
        assert least_refusal(graph, array) is None
        array = replace(array, main_words=array.main_words // 2)
    while (least := least_refusal(graph, array)) is None:
        array = replace(array, main_words=array.main_words // 2)
    assert least.need.what == Scarce.MAIN_MEMORY and least.need.least
    assert least.need.needed > array.main_words * 8 / 1024
    memory = least.memory
    assert memory.fullest.used * 8 / 1024 == least.need.needed
    assert not memory.fits and "|" in str(memory) and max(map(len, memory.lines(80))) <= 80
    assert ("weights, at least" in str(memory)) == (not flash)
    assert ("a part of the entries of a, from flash" in str(memory)) == bool(flash)


def test_lines_of_several_records():
    """A map of more lines on each plane than a record may have is filled whole, once."""
    graph, array = lone((1, 900, 1), 1, (3, 1), stride=(2, 1)), Array(bank_rows=256)
    node = graph.nodes[0]
    grid = Grid.of(node, *(graph.tensors[name] for name in ("x", "a")), fill=4)
    lines = grid.lines.count
    layout = Lines(grid=grid, size=16, span=grid.span(lines), channels=1)
    stretch = Stretch(line=0, lines=lines, channel=0, channels=1, row=0)
    band = Band(stretch=stretch, tile=0, tiles=1, begin=0, end=layout.span, beside=False)
    made = [places(record, array) for record in records(
        graph, node, layout, band, {"x": Place(0, 900)}, array, log2_groups=0)]
    element, bank, row = (np.concatenate([getattr(one, name).ravel() for one in made])
                          for name in ("element", "bank", "row"))
    assert sorted(element[element >= 0].tolist()) == list(range(900))
    assert len(set(zip(bank.tolist(), row.tolist(), strict=True))) == len(bank)
