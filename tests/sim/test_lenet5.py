"""Whole LeNet-5, as shipped and pruned, on the machine of the iCEBreaker."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from celosia.bands.schedule import stream_schedule
from celosia.densify import densify
from celosia.program import Program, program_of
from celosia.verify import verify

pytest.importorskip("torch")

import celosia
from celosia.datasets import load_fashion_mnist, preprocess
from celosia.models.lenet5 import load_lenet5

IMAGES = 20


@functools.cache
def inputs() -> np.ndarray:
    return preprocess(load_fashion_mnist("test")[0][:100])


@functools.cache
def program(exponents: str) -> Program:
    return celosia.compile(load_lenet5(pruned=True), inputs()[:1], target="icebreaker",
                           exponents=exponents, calibration=inputs())


def check(found: Program, images: int, backend: str = "verilator") -> None:
    """Assert that every tensor, output and flag is the golden model's, and cycles as predicted."""
    result = verify(found, inputs()[:images], backend)
    assert result.first_mismatch is None and result.mismatches == 0
    assert set(result.tensors) == set(found.graph.tensors)
    assert result.cycles.tolist() == [found.predicted_cycles] * images


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_verilator(exponents):
    check(program(exponents), IMAGES)


def test_dense():
    """The dense network gives the same bits; it takes at least 2.3 times as long."""
    sparse = program("dynamic")
    dense = program_of(stream_schedule(densify(sparse.graph), sparse.array),
                       target=sparse.target, exponents=sparse.exponents)
    check(dense, 2)
    assert dense.predicted_cycles > 2.3 * sparse.predicted_cycles


@pytest.mark.slow
@pytest.mark.icarus
def test_icarus():
    """Icarus, driven through cocotb, gives the bits and cycles of Verilator's compiled loop."""
    found = program("dynamic")
    icarus, verilator = (celosia.run(found, inputs()[:1], backend)
                         for backend in ("icarus", "verilator"))
    np.testing.assert_array_equal(icarus.mantissa, verilator.mantissa)
    np.testing.assert_array_equal(icarus.exponent, verilator.exponent)
    assert icarus.cycles.tolist() == verilator.cycles.tolist() == [found.predicted_cycles]


def test_cycles():
    """At most 1.6 times the bound's; dynamic exponents cost none."""
    found, static = program("dynamic"), program("static")
    assert found.predicted_cycles <= 1.6 * sum(layer.bound_cycles for layer in found.layers)
    assert found.predicted_cycles == static.predicted_cycles


def test_saved(tmp_path):
    """A program file holds all that the machine needs."""
    path = tmp_path / "lenet5.celo"
    program("dynamic").save(path)
    check(replace(celosia.load(path), target="saved"), 1)
