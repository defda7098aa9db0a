"""A target with an array of little main memory, and a program for it."""

import pytest

import celosia
from celosia.cli.common import find_model
from celosia_spec.isa.array import Array
from registered import carrying

ARRAY = Array(main_words=4096)


@pytest.fixture(scope="module")
def target():
    """A target of the name "small"."""
    with carrying(ARRAY, "small", "ecp5-85f") as small:
        yield small


@pytest.fixture(scope="module")
def program(target):
    """LeNet-5, pruned, for it."""
    module, example = find_model("lenet5-pruned")
    return celosia.compile(module, example[:1], target="small")
