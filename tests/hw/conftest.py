"""What the block tests share: the simulator that plays the vectors, and the array by its name."""

import pytest

from celosia_sim.vectors import play, play_icarus


@pytest.fixture
def player(request, tmp_path):
    """Return ``play(dut, vectors)`` of the simulator called ``request.param``."""
    return play if request.param == "pysim" else (lambda *args: play_icarus(*args, tmp_path))


@pytest.fixture
def array(request):
    """Return the entry of the test module's ``ARRAYS`` called ``request.param``."""
    return request.module.ARRAYS[request.param]
