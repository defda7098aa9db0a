# amaranth: UnusedElaboratable=no
"""Clock cycles of a bit on a serial line."""

import pytest

from celosia_hw.host.bit_line import BitLine
from celosia_hw.parts.uart import uart_divisor


@pytest.mark.parametrize("clock_hz, baud, divisor", [
    (12e6, 1e6, 12), (48e6, 115_200, 417), (38e6, 3e6, 13)])
def test_divisor_in_range(clock_hz, baud, divisor):
    if abs(clock_hz / divisor / baud - 1) > 0.01:
        with pytest.raises(ValueError, match=r"^3000000.0 baud is off by -2.6 % at 38000000.0 Hz, "
                                             r"more than 1 %; choose one that divides the clock$"):
            uart_divisor(clock_hz, baud)
    else:
        assert uart_divisor(clock_hz, baud) == divisor


def test_divisor_out_of_range():
    with pytest.raises(ValueError, match=r"^clock_hz / baud must be 12 to 65535, not 4.0; "
                                         r"choose another baud rate$"):
        uart_divisor(12e6, 3e6)
    with pytest.raises(ValueError, match=r"^divisor must be 12 to 65535, not 11$"):
        BitLine(11)
