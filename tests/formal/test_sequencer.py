# amaranth: UnusedElaboratable=no
"""The sequencer: every pass has the steps that its batch says, every batch its passes, one behind
the other and four cycles apart or more; no step, no turn and no begin of an output comes twice."""

import pytest
from amaranth.hdl import Assert, Assume, Const, Module, Mux, Signal

from celosia_hw.stream.sequencer import Sequencer
from celosia_spec.isa.array import Array
from formal.prove import holds, inside

ARRAY = Array(lanes=8, controls=64, ring=64, tiles=64)
APART = 4
"""Cycles from a pass's end to the next one's, at least."""


def passes() -> tuple[Module, list[Signal]]:
    """Return the sequencer, and its inputs: any batches of one layer."""
    m, own = Module(), Sequencer(ARRAY, lag=1)
    batches, reads = own.batches, own.reads
    m.submodules.own = core = own.elaborate(None)
    layer, batch, last_tile, offer, available, still, draining = inputs = [
        Signal.like(port, name=f"{name}_in") for name, port in (
            ("layer", own.layer.as_value()), ("batch", batches.batch.as_value()),
            ("last_tile", batches.last_tile), ("offer", batches.offer),
            ("available", reads.available), ("inside", reads.inside), ("draining", own.draining))]
    m.d.comb += [own.layer.eq(layer), batches.batch.eq(batch), batches.last_tile.eq(last_tile),
                 batches.offer.eq(offer), reads.available.eq(available), reads.inside.eq(still),
                 own.draining.eq(draining)]
    residual, last_phase = own.layer.residual, own.layer.last_phase
    joins, more = batches.batch.joins, batches.batch.open
    # What was offered in the cycle before, and what of it is under way.
    turned, stable = Signal(name="turned"), Signal(range(3), name="stable")
    held = Signal.like(layer, name="held_layer")
    steps, given = (Signal(len(batches.batch.steps) + 1, name=name) for name in ("steps_", "given"))
    part, given_part, tiles = (Signal.like(value, name=name) for value, name in (
        (joins, "part"), (joins, "given_part"), (last_tile, "tiles")))
    count, age, started = Signal.like(steps, name="count"), *(
        Signal(range(APART), name=name, init=APART - 1) for name in ("age", "started"))
    phase, tile = Signal.like(last_phase, name="phase_"), Signal.like(last_tile, name="tile_")
    begins = batches.taken | turned
    now_steps, now_part, now_tiles = (Mux(batches.taken, new, old) for new, old in (
        (given, steps), (given_part, part), (last_tile, tiles)))
    now_count, now_age = Mux(begins, 0, count), Mux(begins, 0, age)
    now_phase, now_tile = (Mux(batches.taken, new, old) for new, old in (
        (now_part & residual, phase), (0, tile)))
    alone = residual & (now_phase == 0)
    least = Mux(alone, 1, now_steps)
    m.d.sync += [
        stable.eq(Mux(stable == 2, 2, stable + 1)), held.eq(layer), turned.eq(reads.turn),
        given.eq(batches.batch.steps + 1),
        given_part.eq(joins), steps.eq(now_steps), part.eq(now_part),
        tiles.eq(now_tiles), count.eq(now_count + reads.go),
        age.eq(Mux(now_age == APART - 1, now_age, now_age + 1)),
        started.eq(Mux(own.passes.start, 0, Mux(started == APART - 1, started, started + 1))),
        phase.eq(Mux(reads.turn, Mux(now_phase == last_phase, 0, now_phase + 1), now_phase)),
        tile.eq(now_tile + (reads.turn & (now_phase == last_phase)))]
    first, last, ready, final, left, step_count, finished, ends, window, phases, tiles_left = (
        inside(core, name) for name in (
            "first", "last", "ready", "ready_last", "left", "steps", "finished", "ends", "window",
            "phases", "tiles"))
    running = ~own.idle
    m.d.comb += [
        # One layer; its batches, and parts of batches, which have one pass beside the one that
        # reads what is added.
        Assume((stable == 0) | (layer == held)), Assume(~offer | (stable == 2)),
        Assume(~residual | (last_phase == 1)),
        Assume(batches.batch.single == (batches.batch.steps == 0)),
        Assume(~(part | joins | more) | ((last_tile == 0) & (last_phase == residual))),
        # What is to be shown.
        Assert(~reads.go | running), Assert(~reads.go | ~reads.fresh | available),
        Assert(~reads.go | (reads.turn == (now_count + 1 == least))),
        Assert(~reads.turn | (reads.go & (now_age == APART - 1))),
        Assert(~reads.turn | (finished == ((now_tile == now_tiles) & (now_phase == last_phase)))),
        Assert(~running | (reads.fresh == ((now_tile == 0) & (now_phase <= residual)))),
        Assert(~reads.between | ~reads.turn),
        Assert(~reads.back | reads.turn), Assert(~own.passes.start | (started == APART - 1)),
        # What carries that from cycle to cycle.
        Assert(~running | (now_count < least)), Assert(~running | (first == (now_count == 0))),
        Assert(~running | (last == (now_count + 1 == least))), Assert(~(ready & last)),
        Assert(~final | (last & (now_age == APART - 1))), Assert(running | ~(ready | final)),
        Assert(~running | (step_count == (2 - now_steps)[:len(step_count)])),
        Assert(~running | (now_count == 0) | (left == (now_count + 1 - now_steps)[:len(left)])),
        Assert(~running | ((now_steps > 0) & (now_steps <= 1 << len(batches.batch.steps)))),
        Assert(~running | (inside(core, "single") == (now_steps == 1))), Assert(stable < 3),
        Assert(running | (stable < 2) | (phases == (~last_phase)[:len(phases)])),
        Assert(running | (stable < 2) | (ends & window)),
        Assert(~running | (window == (now_phase == 0))),
        Assert(~running | (phases == (now_phase - last_phase - 1)[:len(phases)])),
        Assert(~running | (now_age < 1) | (ends == (now_phase == last_phase))),
        Assert(~running | batches.taken
               | (tiles_left == (now_tile - now_tiles - 1)[:len(tiles_left)])),
        Assert(~running | (now_age < 2) | (finished == (
            (now_tile == now_tiles) & (now_phase == last_phase)))),
        Assert(~running | (now_tile <= now_tiles)), Assert(~running | (now_phase <= last_phase)),
    ]
    return m, inputs


DEPTH = 8
"""Cycles from a pass's last step to the begin of the next one's output, and one."""


def test_every_step_once(tmp_path):
    holds(*passes(), tmp_path, depth=DEPTH)


def test_passes_that_are_too_short_are_found(tmp_path, monkeypatch):
    """The proof can fail."""
    monkeypatch.setattr(Sequencer, "_aged", lambda self, m, begins: Const(1))
    with pytest.raises(AssertionError, match="Assert failed"):
        holds(*passes(), tmp_path, depth=DEPTH)
