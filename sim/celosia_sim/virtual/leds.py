"""The LEDs of a board, as its user sees them."""

from collections.abc import Iterator

from celosia_boards.targets import Target
from celosia_sim.virtual.board import Lights

__all__ = ["leds"]


def leds(target: Target, seen: Lights) -> Iterator[tuple[str, bool]]:
    """Yield for each LED of a board what it means, and whether it was on.

    seen : the indicators that were on. A bare device shows all three, each as a LED of its own.
    """
    wired = target.leds or tuple((name, at) for at, name in enumerate(vars(seen)))
    for number in sorted({led for _, led in wired}):
        shown = [name for name, led in wired if led == number]
        name = f"LED {number} " * bool(target.leds) + "/".join(shown)
        yield name, any(getattr(seen, name) for name in shown)
