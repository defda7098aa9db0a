# amaranth: UnusedElaboratable=no
"""PLL settings: known values, and the limits of the data sheets."""

import pytest

from celosia_boards.clock import ClockError, ClockSource
from celosia_boards.families.ecp5 import ECP5
from celosia_boards.families.ice40 import ICE40, Ice40Pll
from celosia_boards.targets import target


@pytest.mark.parametrize(("out_mhz", "setting"), [
    (30, Ice40Pll(divr=0, divf=79, divq=5, filter_range=1, mhz=30)),
    (48, Ice40Pll(divr=0, divf=63, divq=4, filter_range=1, mhz=48)),
    (16.5, Ice40Pll(divr=0, divf=87, divq=6, filter_range=1, mhz=16.5)),
])
def test_ice40_known_settings(out_mhz, setting):
    """As icepll prints them for a 12 MHz crystal."""
    assert ICE40.pll(12, out_mhz) == setting


@pytest.mark.parametrize("out_mhz", [20, 33, 40.5, 50, 70, 125, 200])
@pytest.mark.parametrize("in_mhz", [12, 25, 100])
def test_ice40_limits(in_mhz, out_mhz):
    pll = ICE40.pll(in_mhz, out_mhz)
    oscillator = in_mhz / (pll.divr + 1) * (pll.divf + 1)
    assert 533 <= oscillator <= 1066
    assert pll.mhz == pytest.approx(oscillator / 2 ** pll.divq)
    assert 0.97 * out_mhz <= pll.mhz <= out_mhz * (1 + 1e-9)


@pytest.mark.parametrize("out_mhz", [20, 48, 80, 100, 125, 133])
def test_ecp5_limits(out_mhz):
    pll = ECP5.pll(25, out_mhz)
    assert pll.mhz == pytest.approx(25 * pll.feedback_div / pll.input_div)
    assert 400 <= pll.mhz * pll.output_div <= 800
    assert 25 / pll.input_div >= 3.125
    assert 0.97 * out_mhz <= pll.mhz <= out_mhz * (1 + 1e-9)


def test_out_of_reach():
    with pytest.raises(ClockError, match=r"^no PLL setting makes 5 MHz \(or up to 3% less\) from "
                                         r"12 MHz; choose another clock$"):
        ICE40.pll(12, 5)
    with pytest.raises(ClockError, match="no PLL setting makes 500 MHz"):
        ECP5.pll(25, 500)


def test_a_bare_device_has_no_clock():
    with pytest.raises(ValueError, match=r"^target 'hx8k' is a bare device and has no clock$"):
        ClockSource(target("hx8k"), 30)
