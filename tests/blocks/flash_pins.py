"""A flash chip at the pins of a block, with the registers that a board has there."""

from blocks.verilated_block import Block
from celosia_sim.flash import Chip, Pins

__all__ = ["Attached"]


class Attached:
    """A chip at the pins of a flash reader inside ``block``.

    element : cycles of an element, see `Array.flash`.   prefix : of the names of the pins.
    """

    def __init__(self, block: Block, chip: Chip, element: int, mhz: float,
                 prefix: str = "") -> None:
        self.block, self.chip, self.prefix = block, chip, prefix
        self._wide, self._halves, self._half = element < 16, element in (4, 16), 500 / mhz
        self._out = dict.fromkeys(("cs", "clock", "copi", "drive"), 0)

    def tick(self) -> None:
        """Let a cycle pass, of a block that has settled."""
        out, pins = self._out, Pins(0, 0)
        for clock in ((0 if self._halves else out["clock"]), out["clock"]):
            pins = self.chip.step(
                selected=bool(out["cs"]), clock=bool(clock), io=0b1100 | out["copi"],
                driven=0b1101 * out["drive"], ns=self._half)
        self._out = {name: self.block.get(self.prefix + name) for name in out}
        self.block.tick()
        levels = pins.levels & pins.driven | ~pins.driven & 0b1111
        self.block.set(f"{self.prefix}i", levels if self._wide else levels >> 1 & 1)
