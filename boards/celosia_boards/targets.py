"""The table of targets: boards and bare devices, and the array that each carries.

Plain Python: importing it loads neither Amaranth nor a board description.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from celosia_hw.isa import ArrayConfig

__all__ = ["Resources", "Target", "UnknownTarget", "Usb", "target", "targets"]


class UnknownTarget(ValueError):
    """No target has the name asked for; the message lists those that exist."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a device has.

    luts   : 4-input look-up tables; on iCE40 logic cells (a look-up table and a flip-flop each).
    ffs    : flip-flops.
    brams  : block memories: EBR of 4 kbit (iCE40), DP16KD of 18 kbit (ECP5).
    dsps   : SB_MAC16 or MULT18X18D blocks.
    sprams : SB_SPRAM256KA blocks of 256 kbit.
    """

    luts: int
    ffs: int
    brams: int
    dsps: int = 0
    sprams: int = 0


@dataclass(frozen=True, kw_only=True)
class Usb:
    """How a board shows itself on USB.

    vendor, product : its id, which belongs to the bridge chip and is on many other devices.
    name            : regular expression of what is in its product string.
    interface       : number of the USB interface that is the serial port: a bridge with two
                      channels keeps the other for loading the board.
    """

    vendor: int
    product: int
    name: str
    interface: int = 0


@dataclass(frozen=True, kw_only=True)
class Target:
    """One board or bare device.

    name, title   : what users type; what they read.
    family        : "ice40" or "ecp5".
    device        : "up5k", "hx8k", "lfe5u-25f" or "lfe5u-85f".
    package       : package as nextpnr calls it.
    speed         : speed grade; 0 where the family has none.
    board         : "module:class" of the amaranth_boards platform; None for a bare device, which
                    has no pins and so no bitstream.
    crystal_mhz   : the board's clock; None for a bare device.
    clock_mhz     : clock of the array, which timing must close at: a standard one that the median
                    of five seeds meets with `celosia_boards.clocks.MARGIN`.
    clock_step_mhz: standard clocks are its multiples: the PLL makes them exactly, and a bit on the
                    serial line is a whole number of their cycles.
    ceiling_mhz   : what the device's hard blocks stand, whatever nextpnr prints (it has only
                    placeholders for SB_MAC16 and SPRAM); None where it models them.
    array         : parameters of the array.
    mac           : kind of `celosia_hw.multiplier.Multipliers`.
    weight_memory : kind of `celosia_hw.memory.WeightMemory`.
    resources     : what the device has.
    leds          : (indicator, number of the ``led`` resource) pairs; indicators that share a LED
                    are ORed. Indicators: "busy", "error", "saturated".
    loader        : board name for openFPGALoader; None for a bare device.
    usb           : how it shows itself on USB; None for a bare device.
    baud          : bits a second on the serial link that a build is made for.
    """

    name: str
    title: str
    family: str
    device: str
    package: str
    array: ArrayConfig
    resources: Resources
    clock_mhz: float
    mac: str
    weight_memory: str = "bram"
    clock_step_mhz: float = 5.0
    speed: int = 0
    ceiling_mhz: float | None = None
    board: str | None = None
    crystal_mhz: float | None = None
    leds: tuple[tuple[str, int], ...] = field(default=())
    loader: str | None = None
    usb: Usb | None = None
    baud: int = 1_000_000

    @property
    def weight_kib(self) -> float:
        """KiB that the weight memory holds of weights of 8 bits, zeros left out."""
        return self.array.weight_rows * self.array.groups_max / 1024

    @property
    def map_kib(self) -> float:
        """KiB that the banks hold of mantissas of 8 bits: the maps between layers."""
        return self.array.bank_rows * self.array.lanes / 1024

    @property
    def sums(self) -> int:
        """Sums that the accumulator store holds: a layer's outputs until they are rounded."""
        return self.array.store_beats * self.array.beat


_UP5K = Resources(luts=5280, ffs=5280, brams=30, dsps=8, sprams=4)
_HX8K = Resources(luts=7680, ffs=7680, brams=32)
_25F = Resources(luts=24288, ffs=24288, brams=56, dsps=28)
_85F = Resources(luts=83640, ffs=83640, brams=208, dsps=156)

_ARRAY_85F = ArrayConfig(
    lanes=32, quad=4, beat=4, weight_rows=4096, bank_rows=4096, table_rows=1024, taps=1024,
    writes=2048, program_words=1024, store_beats=4096, residual_beats=4096, wide_elements=4,
    deep=True)

_ECP5_85F = Target(
    name="ecp5-85f", title="Lattice ECP5 LFE5U-85F, no board", family="ecp5", device="lfe5u-85f",
    package="CABGA381", speed=6, array=_ARRAY_85F, resources=_85F, clock_mhz=60.0,
    mac="mult18")

_TABLE = (
    Target(
        name="icebreaker", title="iCEBreaker (iCE40UP5K)", family="ice40", device="up5k",
        package="sg48", resources=_UP5K, clock_mhz=24.0, ceiling_mhz=50.0, mac="mac16",
        weight_memory="spram", board="amaranth_boards.icebreaker:ICEBreakerPlatform",
        crystal_mhz=12.0, clock_step_mhz=3.0, leds=(("error", 0), ("saturated", 0), ("busy", 1)),
        loader="ice40_generic",
        usb=Usb(vendor=0x0403, product=0x6010, name="iCEBreaker", interface=1),
        array=ArrayConfig(
            lanes=16, quad=4, beat=2, weight_rows=16384, bank_rows=512, table_rows=256, taps=256,
            writes=256, program_words=256, store_beats=512, index_bits=12, count_bits=11,
            replicate=True, clearing=False)),
    Target(
        name="hx8k", title="Lattice iCE40HX8K, no board", family="ice40", device="hx8k",
        package="ct256", resources=_HX8K, clock_mhz=40.0, mac="generic",
        array=ArrayConfig(
            lanes=8, quad=2, beat=2, weight_rows=512, bank_rows=512, table_rows=256, taps=256,
            writes=256, program_words=256, store_beats=512, index_bits=12, count_bits=12)),
    Target(
        name="ecp5-25f", title="Lattice ECP5 LFE5U-25F, no board", family="ecp5",
        device="lfe5u-25f", package="CABGA381", speed=6, resources=_25F, clock_mhz=60.0,
        mac="mult18",
        array=ArrayConfig(
            lanes=16, quad=4, beat=4, weight_rows=4096, bank_rows=2048, table_rows=512, taps=512,
            writes=1024, program_words=512, store_beats=1024, residual_beats=1024,
            wide_elements=4, deep=True)),
    _ECP5_85F,
    replace(
        _ECP5_85F, name="ulx3s-85f", title="Radiona ULX3S 85F (ECP5 LFE5U-85F)",
        board="amaranth_boards.ulx3s:ULX3S_85F_Platform", crystal_mhz=25.0,
        leds=(("busy", 0), ("error", 1), ("saturated", 2)), loader="ulx3s",
        usb=Usb(vendor=0x0403, product=0x6015, name="ULX3S.*85")),
)

_BY_NAME = MappingProxyType({entry.name: entry for entry in _TABLE})


def targets() -> Mapping[str, Target]:
    """Every target by its name, in the order of the table; read-only."""
    return _BY_NAME


def target(name: str) -> Target:
    """Return the target called ``name``; UnknownTarget where there is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownTarget(f"unknown target {name!r}; {hint}targets are "
                            f"{', '.join(_BY_NAME)}") from None
