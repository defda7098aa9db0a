"""One input with what people see of it, and where inputs come from one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from celosia.datasets.pictures import pillow
from celosia.samples import from_picture

if TYPE_CHECKING:
    from celosia.program import Program

__all__ = ["THUMB", "Refused", "Shot", "Source", "check_pictures", "of_picture", "picture_of"]

THUMB = 320
"""Most pixels of a shown picture's longer side."""

Refused = Callable[[str], None]
"""Called with a line where an input was skipped: what, why, and the way out."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Shot:
    """One input.

    name    : a picture's file name, or a number.
    inputs  : float32 (1, ...), of the network's input shape.
    picture : returns what is shown of it, a picture of Pillow's of at most `THUMB` x `THUMB`, or
              None where it is none; any thread may call it.
    """

    name: str
    inputs: np.ndarray
    picture: Callable[[], Any]


class Source(Protocol):
    """Where inputs come from. A context manager: leaving it gives back what it holds."""

    def __enter__(self) -> Source: ...

    def __exit__(self, *problem: object) -> None: ...

    def __iter__(self) -> Iterator[Shot]:
        """Yield inputs as they come; time may pass between two of them, and Ctrl-C ends it.
        CelosiaError where no more can come."""


def check_pictures(where: str, program: Program) -> None:
    """CelosiaError where a program can take no picture at all, or there is no Pillow."""
    dot = pillow().new("L", (1, 1))
    if len(program.graph.tensors[program.graph.input].user_shape) == 3:     # else sizes decide
        from_picture(where, dot, program)


def of_picture(name: str, where: str, picture: Any, program: Program) -> Shot:
    """Return a picture of Pillow's, in mode L or RGB, as an input; CelosiaError as
    `celosia.samples.read_samples`."""
    return Shot(name=name, inputs=from_picture(where, picture, program),
                picture=partial(_thumb, picture))


def _thumb(picture: Any) -> Any:
    small = picture.copy()
    small.thumbnail((THUMB, THUMB))
    return small


def picture_of(image: np.ndarray) -> Any:
    """Return an image (C, H, W) as a picture of Pillow's; None where C is not 1 or 3.

    uint8 are pixels; of other numbers, which are finite, the least is black and the largest white.
    """
    if image.ndim != 3 or len(image) not in (1, 3):
        return None
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        scaled = (image.astype(np.float64) - low) / ((high - low) or 1.0)
        image = np.round(255 * scaled).astype(np.uint8)
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return _thumb(pillow().fromarray(np.ascontiguousarray(pixels)))
