# amaranth: UnusedElaboratable=no
"""The players of recorded vectors: right vectors pass, a single wrong bit fails in each."""

import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

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


def test_pack():
    assert pack([1, -1, 2], 4) == 0x2F1
