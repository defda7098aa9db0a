"""A target whose array is the second machine's, and a program for it."""

from dataclasses import replace

import pytest

import celosia
from celosia.cli.common import find_model
from celosia_boards.targets import target as find
from celosia_spec.stream.array import Array
from registered import registered

ARRAY = Array(main_words=4096)


@pytest.fixture(scope="module")
def target():
    """A target of the name "second"."""
    of = find("ecp5-85f")
    with registered(replace(of, name="second", device=replace(of.device, array=ARRAY))) as second:
        yield second


@pytest.fixture(scope="module")
def program(target):
    """LeNet-5, pruned, for it."""
    module, example = find_model("lenet5-pruned")
    return celosia.compile(module, example[:1], target="second")
