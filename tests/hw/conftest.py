"""What the block tests share: the array by its name."""

import pytest


@pytest.fixture
def array(request):
    """Return the entry of the test module's ``ARRAYS`` called ``request.param``."""
    return request.module.ARRAYS[request.param]
