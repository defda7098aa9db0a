# amaranth: UnusedElaboratable=no
"""Rotation of lanes, by every number of places."""

import random

import pytest

from blocks.vectors import Vectors, pack
from celosia_hw.parts.rotator import Rotator


@pytest.mark.parametrize(("player", "lanes"), [
    ("pysim", 2), ("pysim", 4), ("pysim", 16), ("verilator", 4), ("icarus", 16)],
    indirect=["player"])
def test_rotator(player, lanes):
    rng, vectors = random.Random(lanes), Vectors()
    for cycle, rotation in enumerate([*range(lanes)] * 3):
        values = [rng.randrange(32) for _ in range(lanes)]
        vectors.pulse(cycle, i=pack(values, 5), rotation=rotation)
        vectors.expect(cycle, o=pack([values[(p + rotation) % lanes] for p in range(lanes)], 5))
    player(Rotator(lanes, 5), vectors)
