"""A target whose array is the second machine's, and a program for it."""

from dataclasses import replace
from types import MappingProxyType

import pytest

import celosia
from celosia.cli.common import find_model
from celosia_boards import targets
from celosia_spec.stream.array import Array

ARRAY = Array(main_words=4096)


@pytest.fixture(scope="module")
def target():
    """A target of the name "second"."""
    of = targets.target("ecp5-85f")
    of = replace(of, name="second", device=replace(of.device, array=ARRAY))
    known = targets._BY_NAME
    targets._BY_NAME = MappingProxyType({**known, "second": of})
    yield of
    targets._BY_NAME = known


@pytest.fixture(scope="module")
def program(target):
    """LeNet-5, pruned, for it."""
    module, example = find_model("lenet5-pruned")
    return celosia.compile(module, example[:1], target="second")
