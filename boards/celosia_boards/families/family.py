"""What a device and a family of devices are, and what the families' own files share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from celosia_spec.errors import CelosiaError
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import Fabric

if TYPE_CHECKING:
    from amaranth.hdl import Module, Signal, Value

__all__ = ["ClockError", "Device", "Family", "Pll", "Resources", "counted", "fewest", "nearest"]

_TOLERANCE = 0.03


class ClockError(CelosiaError, ValueError):
    """No PLL setting comes near enough to the frequency asked for."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a device has.

    luts   : 4-input look-up tables; on iCE40 logic cells (a look-up table and a flip-flop each).
    ffs    : flip-flops.
    brams  : block memories, as `Family.blocks` counts them.
    dsps   : multiplier blocks, as `Family.multipliers` has their kinds.
    sprams : SB_SPRAM256KA blocks of 256 kbit.
    """

    luts: int
    ffs: int
    brams: int
    dsps: int = 0
    sprams: int = 0


class Pll(Protocol):
    """One setting of a family's PLL."""

    @property
    def mhz(self) -> float:
        """What it makes, MHz."""

    def instance(self, m: "Module", pin: Any, clock: "Signal", locked: "Signal", *,
                 pad: bool) -> None:
        """Add the PLL to ``m``: it makes ``clock`` of ``pin``, and says when it has ``locked``.

        pin : the platform's pin, requested with ``dir="-"``.
        pad : whether that is the pad of a PLL. Where the PLL then takes the pin itself it can be
              had in no other way; elsewhere the clock comes to it through a buffer.
        """


class Family(Protocol):
    """All that differs between families of devices, in one file each.

    name        : of its placer, ``nextpnr-<name>``.   title : as people write it.
    constraints : suffix of the file of pins; nextpnr's option has its name.
    placed      : suffix of the placed design.   placed_option : nextpnr's option for it.
    packer      : the tool that makes a bitstream of it.   bitstream : suffix of that.
    sync        : bytes behind which a bitstream's commands begin.
    loaders     : programs that load most of its boards, the preferred one first.
    models      : file of Yosys' share that has models of its cells, or black boxes.
    """

    name: str
    title: str
    constraints: str
    placed: str
    placed_option: str
    packer: str
    bitstream: str
    sync: bytes
    loaders: tuple[str, ...]
    models: str

    def synthesis(self, device: "Device", top: str) -> str:
        """Return the commands of Yosys, a line each, that map the design read onto a device."""

    def pack(self, placed: str, made: str) -> list[str]:
        """Return the packer's arguments for these files."""

    def pll(self, in_mhz: float, out_mhz: float) -> Pll:
        """Return the setting whose output is nearest below ``out_mhz``; ClockError beyond 3 %."""

    def blocks(self, depth: int, width: int) -> int:
        """Return how many block memories a memory of ``depth`` words of ``width`` bits takes."""

    def flash_clock(self, m: "Module", pins: Any, clock: "Value") -> None:
        """Let the clock of a board's flash, submodule ``clock`` of ``m``, follow a signal a cycle
        later, as `celosia_boards.flash_pins.FlashPins` says when.

        pins : the platform's, requested with ``dir="-"``.
        """

    def used(self, report: Mapping[str, Any], log: str) -> Resources:
        """Return what a placed design uses; ValueError where the log does not say.

        report : nextpnr's ``--report``.   log : its messages.
        """

    def device_of(self, content: bytes, at: int) -> str:
        """Return the name of the device that a bitstream is for, a `Device.name` where it has one.

        at : of the first byte behind `sync`.
        IndexError where the content ends too soon, ValueError with the reason where it is damaged.
        """


@dataclass(frozen=True, kw_only=True)
class Device:
    """One chip.

    name        : "up5k", "lfe5u-25f", ...
    array       : parameters of the array that its targets carry.
    fabric      : what gateware is built of there.
    placement   : nextpnr's options: the chip, and what makes the placement of arrays on it better.
    synthesis   : options of Yosys's ``synth_<family>``.
    ceiling_mhz : what the hard blocks stand, whatever nextpnr prints (it has only placeholders for
                  SB_MAC16 and SPRAM); None where it models them.
    sources     : kinds of `celosia_hw.memory.main_memory.MainMemory` that it has.
    """

    name: str
    family: Family
    resources: Resources
    array: Array
    fabric: Fabric
    placement: tuple[str, ...]
    synthesis: str
    ceiling_mhz: float | None = None
    sources: tuple[str, ...] = ("bram",)


def fewest(shapes: Iterable[tuple[int, int]], depth: int, width: int) -> int:
    """Return how many blocks a memory takes that can have these depths and widths."""
    return min(-(-depth // rows) * -(-width // bits) for rows, bits in shapes)


def counted(report: Mapping[str, Any], cells: Mapping[str, str]) -> dict[str, int]:
    """Return the used cells of nextpnr's ``--report``; cells : {field of `Resources`: cell}."""
    return {field: report["utilization"].get(cell, {}).get("used", 0)
            for field, cell in cells.items()}


Setting = TypeVar("Setting", bound=Pll)


def nearest(candidates: list[Setting], in_mhz: float, out_mhz: float) -> Setting:
    """Return the fastest candidate that does not exceed ``out_mhz``, the first among equals;
    ClockError where that is more than 3 % below."""
    fitting = [entry for entry in candidates if entry.mhz <= out_mhz * (1 + 1e-9)]
    best = max(fitting, key=lambda entry: entry.mhz, default=None)
    if best is None or best.mhz < out_mhz * (1 - _TOLERANCE):
        raise ClockError(f"no PLL setting makes {out_mhz} MHz (or up to {_TOLERANCE:.0%} less) "
                         f"from {in_mhz} MHz; choose another clock")
    return best
