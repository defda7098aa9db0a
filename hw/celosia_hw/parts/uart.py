"""Bits of a serial line in clock cycles."""

DIVISOR_MIN, DIVISOR_MAX = 12, 65535
"""Cycles of a bit. A reply must begin in the one behind its request, also where that wrote."""


def uart_divisor(clock_hz: float, baud: float) -> int:
    """Return clock cycles a bit, rounded.

    ValueError where it is outside 12 to 65535, or where rounding is off by more than 1 %.
    """
    divisor = round(clock_hz / baud)
    if not DIVISOR_MIN <= divisor <= DIVISOR_MAX:
        raise ValueError(f"clock_hz / baud must be {DIVISOR_MIN} to {DIVISOR_MAX}, "
                         f"not {clock_hz / baud:.1f}; choose another baud rate")
    error = clock_hz / divisor / baud - 1
    if abs(error) > 0.01:
        raise ValueError(f"{baud} baud is off by {100 * error:.1f} % at {clock_hz} Hz, more than "
                         f"1 %; choose one that divides the clock")
    return divisor


def check_divisor(divisor: int) -> None:
    """Refuse a number of clock cycles a bit that is not possible: ValueError."""
    if not DIVISOR_MIN <= divisor <= DIVISOR_MAX:
        raise ValueError(f"divisor must be {DIVISOR_MIN} to {DIVISOR_MAX}, not {divisor!r}")
