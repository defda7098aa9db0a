# amaranth: UnusedElaboratable=no
"""The players of recorded vectors: right vectors pass, a single wrong bit fails in each."""

import pytest
from amaranth.hdl import Instance, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from blocks.players import play_icarus
from blocks.vectors import Vectors, pack


class Delay(wiring.Component):
    """``late`` is ``i`` one cycle later, ``now`` is -i."""

    i: In(signed(4))
    late: Out(signed(4))
    now: Out(signed(5))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.late.eq(self.i)
        m.d.comb += self.now.eq(-self.i)
        return m


def _vectors():
    vectors = Vectors()
    vectors.hold(2, i=-3)
    vectors.pulse(20, i=7)
    vectors.hold(30, i=0)
    vectors.expect(0, late=0, now=0)
    vectors.expect(2, now=3)
    vectors.expect(3, late=-3)
    vectors.expect(20, late=-3, now=-7)
    vectors.expect(21, late=7, now=3)
    vectors.expect(22, late=-3)
    vectors.expect(31, late=0)
    return vectors


def test_right(player):
    player(Delay(), _vectors())


@pytest.mark.parametrize(("cycle", "expected", "message"), [
    (32, {"late": 1}, r"^cycle 32: late is 0\S*, not 0x1\b"),
    (19, {"now": 2}, r"^cycle 19: now is 0\S*, not 0x2\b"),
])
def test_wrong(player, cycle, expected, message):
    vectors = _vectors()
    vectors.expect(cycle, **expected)
    with pytest.raises(AssertionError, match=message):
        player(Delay(), vectors)


def test_contradiction():
    """One port cannot have two values in one cycle."""
    with pytest.raises(AssertionError, match=r"^now in cycle 21: both values$"):
        _vectors().expect(21, now=-7)


def test_masks(player):
    """Bits outside the mask are not compared."""
    vectors = _vectors()
    vectors.expect(25, 0b1001, late=0b1011)
    player(Delay(), vectors)


class Forgotten(wiring.Component):
    """``y`` is what a cell makes of ``i`` once ``i`` was 1; nobody knows what it is before."""

    i: In(1)
    y: Out(2)

    def elaborate(self, platform):
        m = Module()
        m.submodules.cell = Instance("forgotten", i_i=self.i, o_y=self.y)
        return m


@pytest.mark.icarus
def test_unknown_bits_are_no_zeros(tmp_path):
    """In Icarus a bit that nobody gave a value to equals neither 0 nor 1, where it is compared."""
    source = tmp_path / "forgotten.v"
    source.write_text("module forgotten(input i, output reg [1:0] y);\n"
                      "  always @* begin y[1] = i; if (i) y[0] = 0; end\nendmodule\n")
    known = Vectors()
    known.expect(0, 0b10, y=0)
    known.pulse(2, i=1)
    known.expect(2, y=2)
    known.expect(3, y=0)
    play_icarus(Forgotten(), known, [source])
    for value in (0, 1):
        vectors = Vectors()
        vectors.expect(1, 0b01, y=value)
        with pytest.raises(AssertionError, match=r"^cycle 1: y is 0x, not 0x. .* under mask 0x1$"):
            play_icarus(Forgotten(), vectors, [source])


def test_pack():
    assert pack([1, -1, 2], 4) == 0x2F1
