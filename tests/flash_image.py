"""Images of flash read back."""

from collections.abc import Iterator

import numpy as np

from celosia_spec.isa.array import Array
from celosia_spec.isa.image import (
    HEADER,
    HEADER_BYTES,
    MAGIC,
    TAIL_BYTES,
    UNIT_BYTES,
    Section,
    checksum,
)


def unpack(array: Array, image: bytes) -> Iterator[Section]:
    """Yield the sections of an image. ValueError where it is no image of the array, is damaged, or
    ends too early."""
    unit, last = 0, False
    while not last:
        at = (unit + 1) * UNIT_BYTES - HEADER_BYTES
        bits = int.from_bytes(image[at:at + HEADER_BYTES], "little")
        header = HEADER.unpack(bits)
        if header["magic"] != MAGIC:
            raise ValueError(f"unit {unit} of the image ends with no header")
        if header["array"] != array.hash:
            raise ValueError("the image is for another array")
        end = (unit + 1 - header["units"]) * UNIT_BYTES
        data = image[at:end]
        told = image[end:end + TAIL_BYTES]
        if len(told) < TAIL_BYTES or int.from_bytes(told, "big") != checksum(data) << 8:
            raise ValueError(f"the section at unit {unit} of the image is damaged")
        yield Section(first=header["first"], resident=bool(header["resident"]),
                      more=bool(header["more"]),
                      words=np.frombuffer(data[HEADER_BYTES:], "<u8").astype(np.uint64))
        unit, last = unit - header["units"] + 1, bool(header["last"])
