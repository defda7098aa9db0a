"""ECP5: MULT18X18D, block memories of 18 kbit, EHXPLLL, ecppack's bitstreams.

Sources: Lattice FPGA-TN-02204 (block memory), FPGA-TN-02205 (MULT18X18D), FPGA-TN-02200 (PLL),
TN1260 (bitstream); Project Trellis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celosia_boards.families.family import Device, Resources, counted, fewest, nearest
from celosia_spec.isa.fabric import Fabric, LutMemory

if TYPE_CHECKING:
    from amaranth.hdl import Module, Signal, Value

__all__ = ["ECP5", "ECP5_FABRIC", "Ecp5Pll"]

ECP5_FABRIC = Fabric(multiplier="mult18", served=1, lut_memory=LutMemory(
    words=16, bits=4, luts=6, bank_rows=512, banks=5))
"""What gateware of the ECP5 is built of. A bank of 512 codes fills a quarter of a block memory, so
no other memory gives one back for as few look-up tables; all of several clusters take too many."""

_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Depth and width that one block memory can have with one read and one write port."""

_CELLS = {"luts": "TRELLIS_COMB", "ffs": "TRELLIS_FF", "brams": "DP16KD", "dsps": "MULT18X18D"}

# synth_ecp5 hands signals to ABC by name, and takes bit 1 of `sums` for bit 0 of `sums[1]`, as
# Amaranth calls an element of an array: the netlist is then wrong, at times without a word (Yosys
# 0.70). Such names are second ones of bits that have one already; they go before.
_NAMES = "rename -hide w:*[[]*\n"

_JTAG_IDS = {
    0x21111043: "lfe5u-12f", 0x41111043: "lfe5u-25f", 0x41112043: "lfe5u-45f",
    0x41113043: "lfe5u-85f", 0x01111043: "lfe5um-25f", 0x01112043: "lfe5um-45f",
    0x01113043: "lfe5um-85f", 0x81111043: "lfe5um5g-25f", 0x81112043: "lfe5um5g-45f",
    0x81113043: "lfe5um5g-85f"}
_VERIFY_ID, _NOTHING = 0xe2, 0xff
_BEFORE_ID = (0x3b, 0x79)       # reset the checksum; mode of the flash
_DONE = b"\x5e\x00\x00\x00"


@dataclass(frozen=True, kw_only=True)
class Ecp5Pll:
    """Settings of EHXPLLL with feedback from CLKOP: ``mhz = in * feedback_div / input_div``."""

    in_mhz: float
    input_div: int
    feedback_div: int
    output_div: int
    mhz: float

    def instance(self, m: "Module", pin: Any, clock: "Signal", locked: "Signal", *,
                 pad: bool) -> None:
        """As `celosia_boards.families.family.Pll` has it; the clock always comes by a buffer."""
        from amaranth.hdl import Const, Instance
        from amaranth.lib import io

        m.submodules.pin_buffer = pin_buffer = io.Buffer(io.Direction.Input, pin)
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=str(self.in_mhz), a_FREQUENCY_PIN_CLKOP=str(self.mhz),
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED", p_OUTDIVIDER_MUXA="DIVA", p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=self.input_div, p_CLKFB_DIV=self.feedback_div,
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=self.output_div,
            p_CLKOP_CPHASE=self.output_div - 1, p_CLKOP_FPHASE=0,
            i_CLKI=pin_buffer.i, i_CLKFB=clock, i_RST=Const(0), i_STDBY=Const(0),
            i_PHASESEL0=Const(0), i_PHASESEL1=Const(0), i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1), i_PHASELOADREG=Const(1), i_PLLWAKESYNC=Const(0),
            i_ENCLKOP=Const(0), o_CLKOP=clock, o_LOCK=locked)


class _Ecp5:
    """See `celosia_boards.families.family.Family`."""

    name = "ecp5"
    title = "ECP5"
    constraints = "lpf"
    placed, placed_option = "config", "--textcfg"
    packer, bitstream = "ecppack", "bit"
    sync = b"\xff\xff\xbd\xb3"
    loaders: tuple[str, ...] = ("openFPGALoader",)
    models = "ecp5/cells_sim.v"

    def synthesis(self, device: Device, top: str) -> str:
        return f"{_NAMES}synth_ecp5 {device.synthesis} -top {top}\n"

    def pack(self, placed: str, made: str) -> list[str]:
        return ["--compress", "--input", placed, "--bit", made]

    def pll(self, in_mhz: float, out_mhz: float) -> Ecp5Pll:
        """Limits: phase detector 3.125 to 400 MHz, oscillator 400 to 800 MHz, output 10 to 400
        MHz, feedback divider up to 80. The output divider brings the oscillator nearest to 600
        MHz."""
        candidates = []
        for input_div in range(1, 129):
            if not 3.125 <= in_mhz / input_div <= 400:
                continue
            for feedback_div in range(1, 81):
                mhz = in_mhz * feedback_div / input_div
                dividers = [div for div in range(1, 129) if 400 <= mhz * div <= 800]
                if 10 <= mhz <= 400 and dividers:
                    output_div = min(dividers, key=lambda div: abs(mhz * div - 600))
                    candidates.append(Ecp5Pll(
                        in_mhz=in_mhz, input_div=input_div, feedback_div=feedback_div,
                        output_div=output_div, mhz=mhz))
        return nearest(candidates, in_mhz, out_mhz)

    def blocks(self, depth: int, width: int) -> int:
        return fewest(_SHAPES, depth, width)

    def flash_clock(self, m: "Module", pins: Any, clock: "Value") -> None:
        """It is that of the configuration, which a design reaches through a block that has no
        register: it changes with the other pins."""
        from amaranth.hdl import Const, Instance, Signal

        level = Signal()
        m.d.sync += level.eq(clock)
        m.submodules.clock = Instance("USRMCLK", i_USRMCLKI=level, i_USRMCLKTS=Const(0))

    def used(self, report: Mapping[str, Any], log: str) -> Resources:
        return Resources(**counted(report, _CELLS))

    def device_of(self, content: bytes, at: int) -> str:
        """A command is a byte and three of parameters. One checks the device before any writes;
        it has the device's JTAG id behind it."""
        while content[at] == _NOTHING:
            at += 1
        while content[at] in _BEFORE_ID:
            at += 4
        number = int.from_bytes(content[at + 4:at + 8], "big")
        if content[at] != _VERIFY_ID:
            raise ValueError("it does not say which device it is for")
        if number not in _JTAG_IDS:
            raise ValueError(f"it is for a device with the JTAG id {number:08x}, which is no known "
                             f"{self.title}")
        if not content.rstrip(bytes([_NOTHING])).endswith(_DONE):
            raise IndexError
        return _JTAG_IDS[number]


ECP5 = _Ecp5()
