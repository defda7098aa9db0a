# amaranth: UnusedElaboratable=no
"""The machine's control path against a pure function of the stream: all that it makes
happen, in whatever cycles grants, fills and the output path leave it."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia.bands.program import stream_program
from celosia_spec.errors import CompileError
from celosia_spec.isa.array import ENTRY_WORDS, RING_GAP, Array
from celosia_spec.isa.controls import LAYER, Op
from celosia_spec.isa.passes import pass_cycles
from stream.control_bench import ARRAYS, Bench, WithSlots, lag
from stream.networks import graphs
from stream.random_streams import NOTHING, Writer


@pytest.fixture(scope="module", params=ARRAYS)
def bench(request):
    array = ARRAYS[request.param]
    with Block(verilog_of(WithSlots(array))) as block:
        yield array, block


@pytest.mark.parametrize("seed", range(12))
def test_random_streams(bench, seed):
    """Streams one after the other on one block, which goes on where it stands."""
    array, block = bench
    rng = random.Random(seed)
    writer = Writer(array, rng)
    for _ in range(rng.randrange(2, 5)):
        writer.layer()
    Bench(array, block, *writer.done(), seed, grants=[(0.1, 0.5, 1.0), (1.0,)][seed % 2],
          copied=writer.copied).run()


def test_no_bubbles(bench):
    """Where the port is free and no batch is short of tiles, passes of a band follow each other
    without a bubble, each as long as it has to be."""
    array, block = bench
    writer = Writer(array, random.Random(9), calm=True)
    for _ in range(10):
        writer.layer()
    one = Bench(array, block, *writer.done(), 9, grants=(1.0,))
    lasts = one.run()
    passes = one.wanted.passes
    checked = 0
    for k in range(1, len(passes)):
        (now, before), earlier = passes[k], passes[k - 1][1]
        if before["bands"] == earlier["bands"]:
            layer = one.wanted.layers[before["layers"] - 1][0]
            least = pass_cycles(array, **one.kind(layer))
            assert lasts[k] - lasts[k - 1] == max(least, len(now.steps)), k
            checked += 1
    assert checked > 30


def test_heads_are_given_up_when_they_have_been_read(bench):
    """Behind a band's only batch there are about as many words as the ring holds, so that those of
    the next batch find room when the heads of this one have gone."""
    array, block = bench
    writer = Writer(array, random.Random(4))
    layer = {name: 0 for word in LAYER.words for name in word.unpack(0)} | {"log2_groups": 1}
    writer.read(writer.add(writer.entries(writer.command(Op.LAYER, **layer))))
    batch = writer.add(writer.batch(layer, 60, 0))
    for words in range(array.controls - 48, array.controls, ENTRY_WORDS):
        writer.read(writer.add(writer.entries(writer.command(Op.BAND, last_tile=2))))
        writer.read(batch)
        writer.read(writer.add(writer.entries([NOTHING] * words)))
    writer.read(writer.add(writer.entries(writer.command(Op.CLOSE))))
    Bench(array, block, *writer.done(), 4, grants=(1.0,)).run()


def test_entries_are_kept_until_their_batch_ends(bench):
    """Behind a batch that fills the ring of weights, those of one entry each come one by one."""
    array, block = bench
    writer = Writer(array, random.Random(7))
    layer = {name: 0 for word in LAYER.words for name in word.unpack(0)}
    words = writer.command(Op.LAYER, **layer) + writer.command(Op.BAND, last_tile=4)
    writer.read(writer.add(writer.entries(words)))
    writer.read(writer.add(writer.batch(layer, ENTRY_WORDS * (array.ring - RING_GAP), 0)))
    for _ in range(RING_GAP):
        writer.read(writer.add(writer.batch(layer, 1, 0)))
    writer.read(writer.add(writer.entries(writer.command(Op.CLOSE))))
    Bench(array, block, *writer.done(), 4, grants=(1.0,)).run()


@settings(max_examples=15, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_compiled_networks(bench, data):
    """Streams of random networks."""
    array, block = bench
    graph = data.draw(graphs())
    try:
        program = stream_program(graph, replace(array, activation_bits=graph.activation_bits,
                                                clamp=True))
    except CompileError:            # too large, or it adds and the array cannot
        reject()
    Bench(array, block, program.entries.tolist(), program.chunks.tolist(), program.list_at, 5,
          grants=(0.7, 1.0)).run()


def test_timing_is_that_of_the_paths():
    for residual in (False, True):
        array = Array(residual=residual)
        assert 0 <= lag(array) <= 3
