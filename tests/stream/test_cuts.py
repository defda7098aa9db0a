# amaranth: UnusedElaboratable=no
"""Runs that end behind a layer: what it has stored, and the cycles until then."""

import numpy as np
import pytest

from celosia.bands.cuts import cut
from celosia.bands.program import stream_program
from celosia.bands.session import count_to_each_end, ends, run
from celosia.bands.simulate import simulated
from celosia.compiler import Compiler
from celosia.quantise import quantise
from celosia_sim import golden
from celosia_spec.isa.array import Array
from celosia_spec.qgraph import QGraph
from stream.networks import Quiet, residual_network, shrinking_network
from stream.test_flash_rtl import ARRAY


def quiet() -> QGraph:
    return quantise(Compiler().graph(Quiet(), (1, 4, 6, 6)), acc_bits=24)


PROGRAMS = {
    "room for operands": lambda: stream_program(quiet(), Array(main_words=1 << 14)),
    "bands": lambda: stream_program(residual_network(), Array(main_words=1024)),
    "flash": lambda: stream_program(shrinking_network(), ARRAY),
    "flash, ahead": lambda: stream_program(
        shrinking_network((3, 4, 8, 8, 8), (3, 2, 1, 1), 16), ARRAY)}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request):
    return PROGRAMS[request.param]()


def test_every_layer_of_several_images(program):
    """The next input is written as soon as a run has ended, and comes to lie where the reader of
    flash would still be writing."""
    name = program.graph.input
    images = np.random.default_rng(1).random((3, *program.graph.tensors[name].user_shape)).astype(
        np.float32)
    wanted = golden.run(program.source, images)
    found = run(program, images, simulated(program), tensors=program.places)
    assert sorted(found.tensors) == sorted([name, *(
        layer.node.output for layer in program.layers[:-1])])
    for name, (mantissas, exponents) in found.tensors.items():
        assert np.array_equal(mantissas, wanted.mantissas[name]), name
        assert np.array_equal(exponents, wanted.exponents[name]), name


def test_they_take_what_is_predicted(program):
    found = count_to_each_end(program, simulated(program))
    assert found.tolist() == ends(program).tolist()
    assert (np.diff(found) > 0).all()


def test_a_list_is_no_longer_than_the_programs_own(program):
    for layer in range(-1, len(program.layers) - 1):
        found = cut(program, layer)
        assert len(found.words) == len(program.entries) - program.list_at
        assert sum(len(chunks) for chunks, _ in found.clusters) <= len(found.words)


def test_what_is_copied_ahead_is_waited_for():
    program = PROGRAMS["flash, ahead"]()
    ahead = [layer for layer, life in program.flash.lives.items() if life.born < life.dies]
    assert ahead
    place = program.places[program.graph.input]
    for layer in ahead:
        word = program.flash.words[layer]
        assert place.word < word + program.sizes[layer] and word < place.word + place.words
        before, behind = (cut(program, at).clusters[0][1] for at in (layer - 1, layer))
        assert len(before) == len(behind)
