"""The collector of garbage runs again behind work without it, whoever else is at such work."""

import gc
import threading

import pytest

from celosia.uncollected import uncollected


@pytest.fixture(params=[True, False])
def enabled(request):
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


@uncollected()
def fails():
    with uncollected():
        assert not gc.isenabled()
    assert not gc.isenabled()
    raise ValueError("inside")


def test_it_is_as_it_was_behind_errors_and_inside_itself(enabled):
    with pytest.raises(ValueError, match="inside"):
        fails()
    assert gc.isenabled() == enabled


def test_threads_that_overlap_leave_it_as_it_was(enabled):
    inside, over = threading.Event(), threading.Event()

    def other():
        with uncollected():
            inside.set()
            over.wait()

    thread = threading.Thread(target=other)
    with uncollected():
        thread.start()
        inside.wait()
    assert not gc.isenabled()
    over.set()
    thread.join()
    assert gc.isenabled() == enabled
