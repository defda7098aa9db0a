"""What a bitstream is for: the device, read from the commands that the families' packers write.

A file is looked at, never run, and refused unless it is whole: an iCE40's down to its checksum, an
ECP5's from its preamble to the command that ends configuration.
"""

from pathlib import Path

from celosia_boards.families import FAMILIES
from celosia_spec.errors import CelosiaError

__all__ = ["MAX_BYTES", "BitstreamError", "device_of"]

MAX_BYTES = 4 << 20
"""Most bytes of a bitstream; the largest ECP5 takes half of them."""

_COMMENT = 4096


class BitstreamError(CelosiaError, ValueError):
    """A file is no whole bitstream of a known device; the message names it and says why."""


def device_of(path: str | Path) -> str:
    """Return the name of the device that a bitstream configures: "up5k", ...

    BitstreamError where ``path`` is no regular file of at most `MAX_BYTES`, or no bitstream, or is
    damaged or cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise BitstreamError(f"no bitstream {path}; build one first: celosia build")
    if path.stat().st_size > MAX_BYTES:
        raise BitstreamError(f"{path} is larger than {MAX_BYTES >> 20} MiB, and no bitstream")
    content = path.read_bytes()
    for family in FAMILIES:
        start = content.find(family.sync, 0, _COMMENT)
        if start >= 0:
            try:
                return family.device_of(content, start + len(family.sync))
            except IndexError:
                reason = "it is cut short"
            except ValueError as problem:
                reason = str(problem)
            raise BitstreamError(f"{path} is a damaged bitstream ({reason}); build it again")
    packers = " or ".join(family.packer for family in FAMILIES)
    raise BitstreamError(f"{path} is no bitstream, as {packers} writes them; name what celosia "
                         f"build wrote")
