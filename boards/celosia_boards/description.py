"""What is said about one target: `Target`, and the parts of it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from celosia_boards.families.family import Device, Family, Resources
from celosia_boards.legality import Problem, problems
from celosia_spec.isa.array import Array, kib
from celosia_spec.isa.fabric import Fabric

__all__ = ["Flash", "LoaderCommand", "Target", "Usb"]


@dataclass(frozen=True, kw_only=True)
class Usb:
    """How a board shows itself on USB.

    vendor, product : its id, which belongs to the bridge chip and is on many other devices.
    name            : regular expression of what is in its product string.
    interface       : number of the USB interface that is the serial port, where the bridge has
                      two channels and keeps the other for loading the board. None where any will
                      do: it has one serial port, or none.
    """

    vendor: int
    product: int
    name: str
    interface: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderCommand:
    """A program that loads a board.

    program    : "openFPGALoader", "iceprog", "icesprog" or "dfu-util".
    options    : what it is told before the name of the bitstream.
    persistent : what it is told to write the flash; None where it writes the flash in any case.
    at         : what it is told to write a file of bytes into the flash, with the address behind
                 it; None where it cannot.
    """

    program: str
    options: tuple[str, ...] = ()
    persistent: tuple[str, ...] | None = None
    at: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Flash:
    """A board's SPI flash, as the machine reads it.

    part   : its name, of `celosia_sim.flash.PARTS`.
    base   : address of the program's image in it, behind the bitstream.
    script : commands that wake it when the board was configured, and let four wires work.
    takes  : cycles in which an element can come from it, as `Array.flash` has them: the board's
             wires, and whether its clock pin can change twice a cycle.
    """

    part: str
    base: int
    script: tuple[bytes, ...]
    takes: tuple[int, ...] = (4, 8)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One board or bare device.

    name, title   : what users type; the board's name, "no board" for a bare device.
    device        : its chip, of `celosia_boards.devices`.
    package       : package as nextpnr calls it.
    speed         : speed grade; 0 where the family has none.
    platform      : "module:class" of the board's description, of amaranth_boards or our own; None
                    for a bare device, which has no pins and so no bitstream.
    crystal_mhz   : the board's clock; None for a bare device.
    pll_pad       : whether that clock's pin is the pad of a PLL, which then takes it there.
    clock_mhz     : clock of the array, which timing must close at: a standard one that the median
                    of the seeds meets with `celosia_boards.clock.MARGIN`.
    clock_step_mhz: standard clocks are its multiples: the PLL makes them exactly, and a bit on the
                    serial line at 1 Mbaud is a whole number of their cycles.
    main_memory   : kind of `celosia_hw.memory.main_memory.MainMemory`.
    leds          : (indicator, number of the ``led`` resource) pairs; indicators that share a LED
                    are ORed. Indicators: "busy", "error", "saturated".
    held          : resources, each one pin, that the design holds at a high level.
    loaders       : what loads the board, the preferred one first; none for a bare device.
    usb           : how it shows itself on USB; None for a bare device.
    baud          : bits a second on the serial link that a build is made for.
    flash         : None where no machine reads it.
    """

    name: str
    title: str
    device: Device
    package: str
    clock_mhz: float
    main_memory: str = "bram"
    clock_step_mhz: float = 5.0
    speed: int = 0
    platform: str | None = None
    crystal_mhz: float | None = None
    pll_pad: bool = True
    leds: tuple[tuple[str, int], ...] = ()
    held: tuple[str, ...] = ()
    loaders: tuple[LoaderCommand, ...] = ()
    usb: Usb | None = None
    baud: int = 1_000_000
    flash: Flash | None = None

    @property
    def family(self) -> Family:
        return self.device.family

    @property
    def resources(self) -> Resources:
        """What the device has."""
        return self.device.resources

    @property
    def array(self) -> Array:
        """Parameters of the array: the device's, with what the board has of a flash."""
        array = self.device.array
        return array if self.flash is None else replace(array, flash=self.flash.takes[0])

    @property
    def fabric(self) -> Fabric:
        """What its gateware is built of."""
        return self.device.fabric

    def check(self, array: Array) -> list[Problem]:
        """Return why the target cannot hold ``array``, nothing where it can: lanes, multipliers
        and memories, counted before any synthesis. This is the only test of legality."""
        found = problems(self.device, self.main_memory, array)
        if array.flash:
            if self.flash is None:
                found.append(Problem(parameter="flash",
                                     text="there is no flash that it could read"))
            elif array.flash not in self.flash.takes:
                found.append(Problem(parameter="flash", text=(
                    f"flash must be {' or '.join(map(str, self.flash.takes))} for its pins, not "
                    f"{array.flash}")))
        return found

    @property
    def machine(self) -> tuple[object, ...]:
        """All that a network's fit and cycles depend on: the same for targets that are alike."""
        return self.array, self.resources, self.family.name, self.fabric, self.main_memory

    @property
    def main_kib(self) -> float:
        """KiB of main memory, which holds weights, zeros left out, and maps."""
        return kib(self.array.main_words)

    def facts(self) -> dict[str, Any]:
        """Return all that users are told of the target, as plain JSON values."""
        told = asdict(self)
        del told["device"], told["flash"]
        return told | {
            "family": self.family.name, "device": self.device.name, "board": told.pop("platform"),
            "array": asdict(self.array), "lanes": self.array.lanes_all,
            "mac": self.fabric.multiplier,
            "ceiling_mhz": self.device.ceiling_mhz, "resources": asdict(self.resources),
            "main_kib": self.main_kib}
