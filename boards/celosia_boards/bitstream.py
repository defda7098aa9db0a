"""What a bitstream is for: the device, read from the commands that icepack and ecppack write.

A file is looked at, never run, and refused unless it is whole: an iCE40's down to its checksum, an
ECP5's from its preamble to the command that ends configuration.
Formats: Project IceStorm, "Bitstream file format"; Lattice TN1260, and Project Trellis.
"""

import binascii
from pathlib import Path

__all__ = ["MAX_BYTES", "BitstreamError", "device_of"]

MAX_BYTES = 4 << 20
"""Most bytes of a bitstream; the largest ECP5 takes half of them."""

_ICE40_SYNC = b"\x7e\xaa\x99\x7e"
_ICE40_DEVICES = {(182, 80): "lp384", (332, 144): "hx1k or lp1k", (692, 176): "u4k",
                  (692, 336): "up5k", (872, 272): "hx8k"}
"""Columns and rows of the first bank of configuration memory."""
_CONFIGURATION, _CONTENTS, _RESET_CHECKSUM, _WAKE = 1, 3, 5, 6

_ECP5_SYNC = b"\xff\xff\xbd\xb3"
_ECP5_DEVICES = {
    0x21111043: "lfe5u-12f", 0x41111043: "lfe5u-25f", 0x41112043: "lfe5u-45f",
    0x41113043: "lfe5u-85f", 0x01111043: "lfe5um-25f", 0x01112043: "lfe5um-45f",
    0x01113043: "lfe5um-85f", 0x81111043: "lfe5um5g-25f", 0x81112043: "lfe5um5g-45f",
    0x81113043: "lfe5um5g-85f"}
_VERIFY_ID, _NOTHING = 0xe2, 0xff
_BEFORE_ID = (0x3b, 0x79)       # reset the checksum; mode of the flash
_DONE = b"\x5e\x00\x00\x00"
_COMMENT = 4096


class BitstreamError(ValueError):
    """A file is no whole bitstream of a known device; the message names it and says why."""


def device_of(path: str | Path) -> str:
    """Return the device that a bitstream configures, named as `Target.device`: "up5k", ...

    An "hx8k" is an "lp8k" too; the same file serves both. BitstreamError where ``path`` is no
    regular file of at most `MAX_BYTES`, or no bitstream, or is damaged or cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise BitstreamError(f"no bitstream {path}; build one first: celosia build")
    if path.stat().st_size > MAX_BYTES:
        raise BitstreamError(f"{path} is larger than {MAX_BYTES >> 20} MiB, and no bitstream")
    content = path.read_bytes()
    for sync, read in ((_ICE40_SYNC, _ice40), (_ECP5_SYNC, _ecp5)):
        start = content.find(sync, 0, _COMMENT)
        if start >= 0:
            try:
                return read(content, start + len(sync))
            except IndexError:
                reason = "it is cut short"
            except BitstreamError as problem:
                reason = str(problem)
            raise BitstreamError(f"{path} is a damaged bitstream ({reason}); build it again")
    raise BitstreamError(f"{path} is no bitstream, as icepack or ecppack writes them; name what "
                         f"celosia build wrote")


def _ice40(content: bytes, at: int) -> str:
    """Return the device of the commands from ``at`` on; each is looked at, up to the last.

    A command is a byte (what, and how many bytes of payload follow) and its payload.
    """
    device, checked, summed, width, height = None, False, at, 0, 0
    while True:
        command, end = content[at] >> 4, at + 1 + (content[at] & 15)
        payload = int.from_bytes(content[at + 1:end], "big")
        if command == 0 and payload in (_CONFIGURATION, _CONTENTS):
            device = device or _ICE40_DEVICES.get((width, height))
            end += width * height // 8 + 2
        elif command == 0 and payload == _RESET_CHECKSUM:
            summed = end
        elif command == 0 and payload == _WAKE:
            break
        elif command == 2:
            if binascii.crc_hqx(content[summed:end], 0xffff):
                raise BitstreamError("its checksum is wrong")
            checked = True
        elif command == 6:
            width = payload + 1
        elif command == 7:
            height = payload
        elif command not in (1, 5, 8, 9):       # bank, frequency, offset, what follows start-up
            raise BitstreamError(f"byte {at} is no command")
        at = end
    if not checked:
        raise BitstreamError("it has no checksum")
    if device is None:
        raise BitstreamError(f"it has {width} x {height} bits in a bank, as no known iCE40")
    return device


def _ecp5(content: bytes, at: int) -> str:
    """Return the device that the commands from ``at`` on check for, before they write anything.

    A command is a byte and three of parameters; the check has the device's JTAG id behind it.
    """
    while content[at] == _NOTHING:
        at += 1
    while content[at] in _BEFORE_ID:
        at += 4
    number = int.from_bytes(content[at + 4:at + 8], "big")
    if content[at] != _VERIFY_ID:
        raise BitstreamError("it does not say which device it is for")
    if number not in _ECP5_DEVICES:
        raise BitstreamError(f"it is for a device with the JTAG id {number:08x}, which is no "
                             f"known ECP5")
    if not content.rstrip(bytes([_NOTHING])).endswith(_DONE):
        raise IndexError
    return _ECP5_DEVICES[number]
