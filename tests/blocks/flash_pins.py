"""A flash chip at the pins of a block, with the registers that a board has there."""

from blocks.verilated_block import Block
from celosia_sim.flash import Chip, Pins
from celosia_spec.isa.array import FLASH

__all__ = ["Attached"]


class Attached:
    """A chip at the pins of a flash reader inside ``block``.

    element : cycles of an element, see `Array.flash`.   prefix : of the names of the pins.
    """

    def __init__(self, block: Block, chip: Chip, element: int, mhz: float,
                 prefix: str = "") -> None:
        self.block, self.chip, self.prefix = block, chip, prefix
        (self._wires, self._cycles), self._half = FLASH[element], 500 / mhz
        self._out = dict.fromkeys(("cs", "clock", "copi", "drive"), 0)

    def tick(self) -> None:
        """Let a cycle pass, of a block that has settled."""
        out, pins = self._out, Pins(0, 0)
        for clock in (out["clock"] if self._cycles == 2 else 0), out["clock"]:
            pins = self.chip.step(
                selected=bool(out["cs"]), clock=bool(clock), io=0b1100 | out["copi"],
                driven=0b1101 * out["drive"], ns=self._half)
        self._out = {name: self.block.get(self.prefix + name) for name in out}
        self.block.tick()
        levels = pins.levels & pins.driven | ~pins.driven
        self.block.set(f"{self.prefix}i", levels & (1 << self._wires) - 1)
