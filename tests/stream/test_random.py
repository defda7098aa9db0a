# amaranth: UnusedElaboratable=no
"""Random networks on everything that runs them. `make random-networks` takes more of them, each
time others."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, reject, settings

from celosia.bands import regions
from celosia.bands.lives import Life, lives
from celosia.bands.program import stream_program
from celosia_sim import stream_machine
from celosia_sim.clock import cluster as clock
from celosia_spec.errors import CompileError, FitError
from celosia_spec.floats import finish, to_odd
from concats import joined
from stream import rtl
from stream.compared import compare, compare_steps, same
from stream.networks import Case, cases
from stream.temporal import streams
from stream.test_flash_rtl import ARRAY as FLASH_ARRAY
from stream.test_flash_rtl import check as check_from_power_up
from stream.test_parts import ARRAY as SMALL_ARRAY

WINDOWS, JOINED, STEPS, FLASH = 65, 20, 10, 15
"""Networks of each kind on each machine that runs such."""

NETWORKS = len(rtl.MACHINES) * WINDOWS + 3 * JOINED + 3 * STEPS + 3 * FLASH
"""All that are run where nobody asks for more."""


@pytest.fixture
def many(request):
    """Return what a test of some of `NETWORKS` runs of so many as were asked for."""
    asked = request.config.getoption("--networks")

    def of(share: int) -> settings:
        return settings(max_examples=max(1, round(share * (asked or NETWORKS) / NETWORKS)),
                        derandomize=not asked, print_blob=True, deadline=None,
                        report_multiple_bugs=False, phases=set(Phase) - {Phase.explain},
                        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much,
                                               HealthCheck.data_too_large])

    return of


@pytest.fixture(scope="module")
def machine(request):
    array, fabric = rtl.MACHINES[request.param]
    with rtl.machine(array, fabric) as block:
        yield array, block


def on(*names):
    """Run a test on some machines, or all of them."""
    return pytest.mark.parametrize("machine", names or rtl.MACHINES, indirect=True)


def windows(machine, those):
    array, block = machine

    @those
    @given(cases(array.activation_bits))
    def each(case):
        try:
            run = compare(case.graph, array, case.x)
        except CompileError:        # too large, or it adds and the array cannot
            reject()
        same(block, array, run)

    each()


@on()
def test_windows(machine, many):
    windows(machine, many(WINDOWS))


def ends_early(graph):
    """Return the life of every tensor, without the node that reads it last."""
    return {name: Life(life.born, max(life.born, life.dies - 1))
            for name, life in lives(graph).items()}


FAULTS = {
    "a rounding": mock.patch.object(stream_machine, "to_odd", lambda sums, unit, *, signed: to_odd(
        sums & ~1, unit, signed=signed)),
    "a flag": mock.patch.object(stream_machine, "finish", lambda *of, **signs: (
        finish(*of, **signs)[0], np.zeros(1, bool))),
    "a cycle": mock.patch.object(clock, "READ", clock.READ + 1),
    "a region": mock.patch.object(regions, "lives", ends_early)}
"""What is wrong, in the machine of words, the clock model and the compiler."""


@pytest.mark.parametrize("fault", FAULTS)
@on("16")
def test_faults_are_found(machine, fault):
    """In as many networks as are always run, the same ones."""
    drawn = settings(max_examples=WINDOWS, deadline=None, derandomize=True, database=None,
                     suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    with FAULTS[fault], pytest.raises(AssertionError):
        windows(machine, drawn)


@on("16, eight elements", "16, one lane, two elements", "four clusters of 8")
def test_maps_that_are_read_together(machine, many):
    array, block = machine

    @many(JOINED)
    @given(joined(widths=(24,)).map(lambda case: Case(case[0], case[1][0])))
    def each(case):
        same(block, array, compare(case.graph, array, case.x))

    each()


@on("16", "16, one lane, two elements", "four clusters of 8")
def test_steps_of_time(machine, many):
    """Steps before a window is whole, and a period behind it."""
    array, block = machine

    @many(STEPS)
    @given(streams())
    def each(case):
        try:
            compare_steps(case.graph, case.steps, case.x, array,
                          lambda run: same(block, array, run))
        except FitError:
            reject()

    each()


@pytest.mark.parametrize(("array", "parts"), [
    (FLASH_ARRAY, False), (SMALL_ARRAY, True), (replace(SMALL_ARRAY, clusters=2, fill=8), True)],
    ids=["whole layers", "layers in parts", "layers in parts, two clusters"])
def test_from_flash(array, parts, many):
    """Entries are copied from flash: whole layers, or such that main memory does not hold."""
    @many(FLASH)
    @given(cases(array.activation_bits))
    def each(case):
        graph = case.graph
        try:
            program = stream_program(graph, array)
        except CompileError:        # too large, or it adds and the array cannot
            reject()
        assume(program.flash.parts if parts else program.copied)
        check_from_power_up(program, np.stack([case.x, case.x[..., ::-1]]))

    each()
