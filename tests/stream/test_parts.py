# amaranth: UnusedElaboratable=no
"""Layers that are larger than main memory: their entries come from flash in parts."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from celosia.bands.program import stream_program
from celosia.bands.simulate import job_of, results
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_boards.host.driver import Driver
from celosia_boards.host.machine import Machine
from celosia_sim import golden
from celosia_sim.clock.cycles import cycles
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine
from celosia_spec.epilogue import Epilogue, Relu
from celosia_spec.errors import FitError
from celosia_spec.isa import image
from celosia_spec.isa.array import Array
from celosia_spec.isa.frames import START, Command, encode_abort, paced, request
from celosia_spec.isa.image import pack
from stream import test_flash_rtl as flash_rtl
from stream.networks import graphs, shrinking_network
from stream.sharing import check_memory, check_words, held_words, in_place
from stream.test_flash_words import run


def connected(*sizes, kept=1.0):
    """A network of fully connected layers."""
    rng = np.random.default_rng(1)
    nodes = tuple(Conv(name=f"n{k}", input=f"n{k - 1}" if k else "x", bias=rng.normal(size=after),
                       weight=rng.normal(size=(after, before, 1, 1))
                       * (rng.random((after, before, 1, 1)) < kept),
                       epilogue=Epilogue(activation=Relu()))
                  for k, (before, after) in enumerate(pairwise(sizes)))
    shape = (sizes[0], 1, 1)
    graph = Graph(nodes=nodes, input="x", output=nodes[-1].name, input_map=shape, input_shape=shape,
                  output_shape=(sizes[-1], 1, 1))
    return quantise(graph, acc_bits=24)


def residual(channels, extent):
    """A network with a sum whose operand nobody reads behind it."""
    rng = np.random.default_rng(channels)

    def conv(name, source, before, after, kernel, **more):
        size = after, before, kernel, kernel
        return Conv(name=name, input=source, weight=rng.normal(size=size),
                    bias=rng.normal(size=after), padding=(kernel // 2,) * 4,
                    epilogue=Epilogue(activation=Relu(), **more))
    nodes = (conv("a", "x", 4, channels, 3), conv("b", "a", channels, channels, 3),
             conv("c", "b", channels, channels, 3, add="a"), conv("d", "c", channels, 2, 1))
    shape = (4, extent, extent)
    return quantise(Graph(nodes=nodes, input="x", output="d", input_map=shape, input_shape=shape,
                          output_shape=(2, extent, extent)), acc_bits=24)


def programs(graph, array):
    """Yield the programs for main memories that do not hold the network at once, the largest
    first."""
    held, last = 2049, 0        # all fits into so many words; it runs in so many
    for words in (2048, 1024, 512, 256, 128, 64):
        if words < held:
            try:
                program = stream_program(graph, replace(array, main_words=words))
            except FitError:
                break
            if program.copied:
                yield program
            else:
                held = held_words(program)
        last = words
    for words in range(last // 2 // 256 * 256 + 256, min(last, held), 256):
        with suppress(FitError):
            yield stream_program(graph, replace(array, main_words=words))


def check(program, x):
    """Run an input on the machine of words."""
    graph = program.source
    check_memory(program)
    check_words(program)
    wanted = golden.run(graph, x[None])
    for late in (False, True):
        mantissas, exponent = run(program, x, late=late)
        assert exponent == wanted.exponents[graph.output][0]
        assert np.array_equal(mantissas, wanted.mantissas[graph.output][0])


def kinds(program):
    """Yield what the parts of a program are like."""
    for parted in program.flash.parts.values():
        yield f"{parted.places} places"
        if parted.resident:
            yield "resident"
        first, *others = parted.layer.bands
        for band in others:
            if band.begin == band.end:
                yield "in the banks"
            elif band.begin == 0 and (band.stretch.line, band.stretch.channel) == (
                    first.stretch.line, first.stretch.channel):
                yield "filled again"
    yield from ("ahead" for at, life in program.flash.lives.items()
                if at in program.flash.parts and life.born < at)


def test_random_networks():
    seen = Counter()

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(st.data())
    def each(data):
        graph = data.draw(graphs())
        clusters, fill = data.draw(st.sampled_from(((1, 4), (1, 8), (2, 8), (4, 8))))
        array = Array(lanes=data.draw(st.sampled_from((8, 16))), clamp=True, fill=fill,
                      bank_rows=data.draw(st.sampled_from((64, 128, 512))),
                      ring=data.draw(st.sampled_from((64, 256))),
                      flash=data.draw(st.sampled_from((4, 16))),
                      clusters=clusters,
                      activation_bits=graph.activation_bits)
        tensor = graph.tensors[graph.input]
        rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
        x = (rng.random(tensor.user_shape) - (0.5 if tensor.signed else 0)).astype(np.float32)
        try:
            found = [program for program in programs(graph, array) if program.flash.parts]
        except FitError:
            reject()
        if not found:
            reject()
        for program in found:
            check(program, x)
            seen.update(set(kinds(program)))

    each()
    # Others are seldom among them, and draws differ with what else runs: `PROGRAMS` have those.
    assert {"1 places", "2 places", "resident", "in the banks"} <= seen.keys(), seen


@pytest.mark.parametrize(("lanes", "channels", "extent", "rows"), [
    (8, 24, 4, 128), (8, 24, 6, 128), (16, 24, 4, 64), (16, 24, 4, 128), (16, 24, 6, 256)])
def test_sums_in_place(lanes, channels, extent, rows):
    """Layers in parts fill what is added once only, where sums take its words, and no section of
    another layer is copied between theirs: of some the first one is resident."""
    seen = Counter()
    for program in programs(residual(channels, extent), Array(
            lanes=lanes, clamp=True, bank_rows=rows, ring=64, flash=16)):
        check(program, np.random.default_rng(1).random((4, extent, extent)).astype(np.float32))
        seen["in parts"] += 2 in program.flash.parts and in_place(program, program.graph.nodes[2])
    assert seen["in parts"]


ARRAY = replace(flash_rtl.ARRAY, bank_rows=64)

PROGRAMS = {
    "filled again": lambda: shrinking_network((4, 16, 2), (2, 2), 12),
    "ahead": lambda: connected(16, 16, 16, 64, 10),
    "1 places": lambda: shrinking_network((4, 12, 2), (1, 2), 10),
    "in the banks": lambda: connected(96, 64, 48, 10),
    "resident": lambda: connected(96, 64, 48, 10)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_from_power_up(name):
    program = stream_program(PROGRAMS[name](), ARRAY)
    assert name in kinds(program)
    shape = program.graph.tensors["x"].user_shape
    flash_rtl.check(program, np.random.default_rng(1).random((3, *shape)).astype(np.float32))


def test_a_section_is_copied_amid_a_long_pass():
    """All others wait for its end."""
    rng = np.random.default_rng(1)
    nodes = (Conv(name="a", input="x", weight=rng.normal(size=(19, 1, 1, 1)), bias=None,
                  stride=(1, 3), epilogue=Epilogue(activation=Relu())),
             Conv(name="b", input="a", weight=rng.normal(size=(15, 19, 2, 4))
                  * (rng.random((15, 19, 2, 4)) < 0.99), bias=None))
    graph = quantise(Graph(nodes=nodes, input="x", output="b", input_map=(1, 6, 11),
                           input_shape=(1, 6, 11), output_shape=(15, 5, 1)), acc_bits=24)
    program = stream_program(graph, ARRAY)
    assert list(program.flash.parts) == [1]
    flash_rtl.check(program, rng.random((1, 1, 6, 11)).astype(np.float32))


def test_a_run_is_stopped_anywhere():
    """Wherever a run is stopped, amid what is copied or computed, the next one is right, and takes
    as long."""
    program = stream_program(connected(96, 64, 48, 10), ARRAY)
    images = np.random.default_rng(2).random((1, 96, 1, 1)).astype(np.float32)
    job, wanted = job_of(program, images), golden.run(program.source, images)
    expected = cycles(ARRAY, program.entries.tolist(), program.list_at, program.sections).cycles
    with VirtualBoard("icebreaker", ARRAY, byte_level=True,
                      image=pack(ARRAY, program.sections)) as virtual:
        machine = Machine(SimulatedLine(virtual), ARRAY, virtual.clock_hz)
        machine.greet()
        driver = Driver(machine)
        driver.load(job.setup, None)
        for stop in np.random.default_rng(3).integers(0, expected, 12).tolist():
            virtual.send(paced(request(Command.START, 0, START.pack(list=program.list_at))))
            virtual.run(stop)
            virtual.send(paced(encode_abort()))
            virtual.run_until_quiet(100_000)
            found = results(program, job, driver.execute(job, expected))
            assert np.array_equal(found.output, wanted.mantissas[program.source.output])
            assert found.cycles == [expected]


def test_more_is_resident_where_more_fits():
    """What lies in main memory is not copied; where there is more of it, less is, and in the end no
    layer waits."""
    graph = connected(96, 64, 48, 10)
    copied, waits = [], []
    for words in (256, 512, 1024, 4096):
        program = stream_program(graph, replace(ARRAY, main_words=words))
        copied.append(sum(section.units for section in program.sections[1:]))
        waits.append(program.flash.waits)
    assert copied == sorted(copied, reverse=True) and copied[0] > 1.5 * copied[2] > copied[3] == 0
    assert waits == sorted(waits, reverse=True) and waits[0] > 1.5 * waits[2] > waits[3] == 0


def test_batches_are_dense_where_copying_takes_longer():
    """A step for every column takes half as many entries for some more cycles: no gain where all
    entries lie in main memory, but where they otherwise would not."""
    graph = connected(96, 64, 10, kept=0.8)
    for words, dense in ((256, True), (1280, True), (2048, False)):
        program = stream_program(graph, replace(ARRAY, main_words=words, flash=16))
        parts = program.layers[0].parts
        assert {bool(own) for part in parts for own in part.dense} == {dense}
        assert bool(program.copied) == (words == 256)


def test_refusal():
    """Where not even one batch fits beside the maps, or the list of what is read."""
    with pytest.raises(FitError, match=r"n0 \(conv\): the maps that are alive there and a part of "
                       r"its entries need at least \d+ words of main memory, the array has 64; "
                       r"prune more, or give it smaller maps$") as raised:
        stream_program(connected(96, 64, 10), replace(ARRAY, main_words=64))
    assert raised.value.need.least
    memory = raised.value.memory
    assert memory.fullest.layer == "n0" and not memory.fits
    assert memory.fullest.used * 8 / 1024 == raised.value.need.needed
    assert [piece.name for piece in memory.pieces] == ["stream", "x", "n0", "n1", "n0", "n1"]


def test_more_flash_than_commands_reach(monkeypatch):
    graph = connected(96, 64, 48, 10)
    last = max(image.places(stream_program(graph, ARRAY).sections)[1:])
    monkeypatch.setattr("celosia.bands.program._UNITS", last)
    stream_program(graph, ARRAY)
    monkeypatch.setattr("celosia.bands.program._UNITS", last - 1)
    with pytest.raises(FitError, match=r"network \(flash\): its weights begin as far as [\d.]+ KiB "
                       r"into flash, and commands reach [\d.]+; prune more$"):
        stream_program(graph, ARRAY)
