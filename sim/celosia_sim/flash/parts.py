"""Flash parts that boards have: what sets one apart from the other."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part, by its data sheet; times are typical ones, ns.

    name, jedec  : of the part; the three bytes that command 9F reads.   size : bytes.
    quad_bit     : (status register, bit) that lets quad commands work; None where they always do.
    quad         : what that bit is when the part comes from the factory.
    status_bytes : data bytes that a write of the status registers may have; with any other number
                   it is ignored.
    volatile     : knows 50h: a status write behind it is quick, and lasts until power-off.
    second       : has a second status register: 35h reads it, 31h writes it.
    sectors      : 4 KiB can be erased, not only 64.
    dummies      : clocks behind the mode bits of EBh.
    read_mhz, mhz : fastest clock of command 03h, and of all others.
    wake_ns, sleep_ns : from the end of ABh, of B9h, until it has happened.
    read_gap_ns, gap_ns : chip select is high so long behind a read, and behind other commands.
    """

    name: str
    jedec: bytes
    size: int
    quad_bit: tuple[int, int] | None = (1, 1)
    quad: bool = False
    status_bytes: tuple[int, ...] = (1, 2)
    volatile: bool = True
    second: bool = True
    sectors: bool = True
    dummies: int = 4
    read_mhz: float = 50.0
    mhz: float = 104.0
    wake_ns: float = 3_000.0
    sleep_ns: float = 3_000.0
    read_gap_ns: float = 10.0
    gap_ns: float = 50.0
    status_ns: float = 10e6
    program_ns: float = 0.4e6
    sector_ns: float = 45e6
    block_ns: float = 150e6


def _winbond(name: str, code: int, *, quad: bool) -> Part:
    return Part(name=name, jedec=bytes([0xEF, 0x40 if quad else 0x70, code]), size=1 << code,
                quad=quad)


PARTS = {part.name: part for part in (
    _winbond("W25Q128JV-IM", 0x18, quad=False),
    _winbond("W25Q128JV-IQ", 0x18, quad=True),
    _winbond("W25Q64JV-IQ", 0x17, quad=True),
    _winbond("W25Q32JV-IQ", 0x16, quad=True),
    Part(name="IS25LP128F", jedec=b"\x9d\x60\x18", size=1 << 24, quad_bit=(0, 6),
         status_bytes=(1,), volatile=False, second=False),
    Part(name="GD25Q16C", jedec=b"\xc8\x40\x15", size=1 << 21, status_bytes=(2,), second=True),
    Part(name="N25Q32", jedec=b"\x20\xba\x16", size=1 << 22, quad_bit=None, volatile=False,
         second=False, dummies=8),
)}
"""Parts of the boards: W25Q128JV iCEBreaker (-IM) and others, IS25LP128F ULX3S, W25Q64JV Colorlight
i9 and iCESugar, W25Q32JV UPduino, GD25Q16C Colorlight i5, N25Q32 HX8K."""
