"""iCE40: SB_MAC16, block memories of 4 kbit, SB_PLL40, icepack's bitstreams.

Sources: Lattice FPGA-TN-02002 (block memory), FPGA-TN-02007 (SB_MAC16), FPGA-TN-02052 (PLL);
Project IceStorm, "Bitstream file format".
"""

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celosia_boards.families.family import Device, Resources, counted, fewest, nearest
from celosia_spec.isa.fabric import Fabric

if TYPE_CHECKING:
    from amaranth.hdl import Module, Signal, Value

__all__ = ["ICE40", "ULTRA_PLUS_FABRIC", "Ice40Pll"]

ULTRA_PLUS_FABRIC = Fabric(multiplier="mac16", served=2, adds=True, carries=True)
"""What gateware of the iCE40 UltraPlus is built of; other iCE40 have no multipliers."""

_SHAPES = ((256, 16), (512, 8), (1024, 4), (2048, 2))
"""Depth and width that one block memory can have with one read and one write port."""

_CELLS = {"luts": "ICESTORM_LC", "brams": "ICESTORM_RAM", "dsps": "ICESTORM_DSP",
          "sprams": "ICESTORM_SPRAM"}
_FFS = re.compile(r"(\d+) LCs used as (?:LUT4 and DFF|DFF only)")
"""What nextpnr's report does not count."""

_FILTER_LIMITS = (17, 26, 44, 66, 101)

_BANKS = {(182, 80): "lp384", (332, 144): "hx1k or lp1k", (692, 176): "u4k", (692, 336): "up5k",
          (872, 272): "hx8k"}
"""Device by columns and rows of the first bank of configuration memory."""
_CONFIGURATION, _CONTENTS, _RESET_CHECKSUM, _WAKE = 1, 3, 5, 6


@dataclass(frozen=True, kw_only=True)
class Ice40Pll:
    """Settings of SB_PLL40, simple feedback: ``mhz = in * (divf + 1) / (divr + 1) / 2**divq``."""

    divr: int
    divf: int
    divq: int
    filter_range: int
    mhz: float

    def instance(self, m: "Module", pin: Any, clock: "Signal", locked: "Signal", *,
                 pad: bool) -> None:
        """As `celosia_boards.families.family.Pll` has it."""
        from amaranth.hdl import Const, Instance
        from amaranth.lib import io

        source: dict[str, Any]
        if pad:
            kind, source = "SB_PLL40_PAD", {"i_PACKAGEPIN": pin.io}
        else:
            m.submodules.pin_buffer = pin_buffer = io.Buffer(io.Direction.Input, pin)
            kind, source = "SB_PLL40_CORE", {"i_REFERENCECLK": pin_buffer.i}
        m.submodules.pll = Instance(
            kind, **source,
            p_FEEDBACK_PATH="SIMPLE", p_DIVR=Const(self.divr, 4), p_DIVF=Const(self.divf, 7),
            p_DIVQ=Const(self.divq, 3), p_FILTER_RANGE=Const(self.filter_range, 3),
            i_RESETB=Const(1), i_BYPASS=Const(0), o_PLLOUTGLOBAL=clock, o_LOCK=locked)


class _Ice40:
    """See `celosia_boards.families.family.Family`."""

    name = "ice40"
    title = "iCE40"
    constraints = "pcf"
    placed, placed_option = "asc", "--asc"
    packer, bitstream = "icepack", "bin"
    sync = b"\x7e\xaa\x99\x7e"
    loaders: tuple[str, ...] = ("openFPGALoader", "iceprog")
    models = "ice40/cells_sim.v"

    def synthesis(self, device: Device, top: str) -> str:
        return f"synth_ice40 {device.synthesis} -top {top}\n"

    def pack(self, placed: str, made: str) -> list[str]:
        return [placed, made]

    def pll(self, in_mhz: float, out_mhz: float) -> Ice40Pll:
        """Limits: phase detector 10 to 133 MHz, oscillator 533 to 1066 MHz, output 16 to 275 MHz.
        Among equal outputs the one with the fastest phase detector."""
        candidates = []
        for divr in range(16):
            detector = in_mhz / (divr + 1)
            if not 10 <= detector <= 133:
                continue
            for divf in range(128):
                oscillator = detector * (divf + 1)
                if not 533 <= oscillator <= 1066:
                    continue
                for divq in range(1, 7):
                    mhz = oscillator / (1 << divq)
                    if 16 <= mhz <= 275:
                        filter_range = 1 + sum(detector >= limit for limit in _FILTER_LIMITS)
                        candidates.append(Ice40Pll(divr=divr, divf=divf, divq=divq,
                                                   filter_range=filter_range, mhz=mhz))
        return nearest(candidates, in_mhz, out_mhz)

    def blocks(self, depth: int, width: int) -> int:
        return fewest(_SHAPES, depth, width)

    def flash_clock(self, m: "Module", pins: Any, clock: "Value") -> None:
        """It is a pin like others, and is low in the first half of a cycle."""
        from amaranth.lib import io

        m.submodules.clock = buffer = io.DDRBuffer(io.Direction.Output, pins.clk)
        m.d.comb += [buffer.o[0].eq(0), buffer.o[1].eq(clock)]

    def used(self, report: Mapping[str, Any], log: str) -> Resources:
        counts = _FFS.findall(log)
        if not counts:
            raise ValueError("nextpnr's log holds no 'LCs used as' lines; "
                             "use nextpnr 0.5 or newer")
        return Resources(**counted(report, _CELLS), ffs=sum(map(int, counts)))

    def device_of(self, content: bytes, at: int) -> str:
        """Every command is looked at, up to the last: a byte (what, and how many bytes of payload
        follow) and its payload. An "hx8k" is an "lp8k" too; the same file serves both."""
        device, checked, summed, width, height = None, False, at, 0, 0
        while True:
            command, end = content[at] >> 4, at + 1 + (content[at] & 15)
            payload = int.from_bytes(content[at + 1:end], "big")
            if command == 0 and payload in (_CONFIGURATION, _CONTENTS):
                device = device or _BANKS.get((width, height))
                end += width * height // 8 + 2
            elif command == 0 and payload == _RESET_CHECKSUM:
                summed = end
            elif command == 0 and payload == _WAKE:
                break
            elif command == 2:
                if binascii.crc_hqx(content[summed:end], 0xffff):
                    raise ValueError("its checksum is wrong")
                checked = True
            elif command == 6:
                width = payload + 1
            elif command == 7:
                height = payload
            elif command not in (1, 5, 8, 9):   # bank, frequency, offset, what follows start-up
                raise ValueError(f"byte {at} is no command")
            at = end
        if not checked:
            raise ValueError("it has no checksum")
        if device is None:
            raise ValueError(f"it has {width} x {height} bits in a bank, as no known {self.title}")
        return device


ICE40 = _Ice40()
