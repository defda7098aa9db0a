"""How much of an array's memories a program uses: one table for the report and for the refusals."""

from dataclasses import replace

import numpy as np
import pytest

from celosia.lower import check_depths
from celosia.program import Program
from celosia_boards.targets import targets
from celosia_spec import memory
from celosia_spec.errors import CelosiaError
from celosia_spec.isa import ArrayConfig, Space
from celosia_spec.program import Place
from celosia_spec.qgraph import QGraph

IMAGES = (Space.PROGRAM, Space.WEIGHTS, Space.ROWS, Space.TAPS, Space.WRITES)
ARRAY = ArrayConfig(lanes=8, residual_beats=16)


def program(sizes: dict[Space, int]) -> Program:
    graph = QGraph(tensors={}, nodes=(), input="x", output="y", weight_bits=8, activation_bits=8,
                   acc_bits=24)
    return Program(target="icebreaker", array=ARRAY, exponents="dynamic", graph=graph, layers=(),
                   images={space: np.zeros(sizes[space], np.uint32) for space in IMAGES},
                   descriptors=0, slots={}, places={})


@pytest.mark.parametrize("space", IMAGES)
def test_filled_to_the_last_word(space: Space) -> None:
    full = memory.capacity(ARRAY)
    check_depths(program(full))
    assert memory.fits(program(full))
    more = program(full | {space: full[space] + 1})
    with pytest.raises(CelosiaError, match=f"needs {full[space] + 1} words of {space.name.lower()} "
                                           f"memory, the array has {full[space]}"):
        check_depths(more)
    assert not memory.fits(more)


@pytest.mark.parametrize("space", [Space.BANKS, Space.STORE, Space.RESIDUAL])
def test_highest_address(space: Space) -> None:
    size = memory.capacity(ARRAY)[space]
    for last, fits in ((size - 1, True), (size, False)):
        place = Place(space=space, addresses=np.full((1, 1, 1, 1), last), written=0)
        found = replace(program(dict.fromkeys(IMAGES, 0)), places={"y": place})
        assert memory.fits(found) is fits
        assert memory.report(found)[space.name.lower()] == {"used": last + 1, "available": size}


def test_exponents_lie_in_program_memory() -> None:
    array = targets()["icebreaker"].array
    assert memory.capacity(array)[Space.PROGRAM] == array.program_words - 32 == 224
    assert memory.capacity(array)[Space.EXPONENTS] == 32
