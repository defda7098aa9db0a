"""Arrays that another program sends, one behind the other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from celosia.live.shots import Refused, Shot, picture_of
from celosia.reading import npy_images
from celosia.samples import from_array
from celosia_spec.errors import CelosiaError, refusals
from celosia_spec.inputs import wrong_shape

if TYPE_CHECKING:
    import numpy as np

    from celosia.program import Program

__all__ = ["Stream"]

_WHERE = "standard input"


class Stream:
    """Yields the inputs of ``.npy`` arrays in ``stream`` as they arrive, until it ends.

    Each array is one input of the network's shape, or N of them, of any number type; uint8 are
    pixels, which become inputs as the program says. Images of one channel may lack that axis.
    Shapes are checked before memory is taken, and that of one image at a time.

    skipped: called with a line for each input whose values are none, such as NaN, or too large.

    CelosiaError where an array is damaged or of another shape: what follows cannot be told then.
    """

    def __init__(self, stream: BinaryIO, program: Program, skipped: Refused) -> None:
        if stream.isatty():
            raise CelosiaError("--stdin: standard input is a terminal; let a program write arrays "
                               "into it: python make.py | celosia live P.celo --stdin")
        self._stream, self._program, self._skipped = stream, program, skipped
        self._takes = program.graph.tensors[program.graph.input].user_shape

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *problem: object) -> None:
        pass

    def __iter__(self) -> Iterator[Shot]:
        for number, (_, image) in enumerate(npy_images(self._stream, _WHERE, self._count)):
            name = str(number)
            image = image.reshape(self._takes)
            try:
                inputs = from_array(f"{_WHERE}, input {name}", image[None], self._program)
                self._check(inputs)
            except CelosiaError as problem:
                self._skipped(f"{_WHERE}, input {name}: {problem}")
                continue
            shown = image if image.dtype == "u1" else inputs[0]
            yield Shot(name=name, inputs=inputs, picture=partial(picture_of, shown))

    def _check(self, inputs: np.ndarray) -> None:
        """CelosiaError where an input's numbers are too large for the array's."""
        from celosia_sim.golden import quantise_input

        with refusals():
            quantise_input(self._program.graph, inputs)

    def _count(self, shape: tuple[int, ...]) -> int | None:
        """Return how many images an array has, None where it is one."""
        takes = tuple(self._takes)
        flat = takes[1:] if len(takes) == 3 and takes[0] == 1 else takes
        if shape in (takes, flat):
            return None
        if shape and shape[1:] in (takes, flat):
            return shape[0]
        raise CelosiaError(f"{_WHERE}: an array of the {wrong_shape(shape, takes)}")
