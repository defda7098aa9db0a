"""The clock model passes over stretches of cycles: as if it went through each of them."""

from dataclasses import replace
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, reject, settings

from celosia.bands.program import StreamProgram, stream_program
from celosia.bands.report import clocked
from celosia_sim.clock import cluster, machine_clock, one_cluster
from celosia_spec.errors import CompileError
from celosia_spec.isa.array import Array
from stream import rtl
from stream.networks import cases, shrinking_network
from stream.test_flash_rtl import ARRAY as FLASH
from stream.test_parts import ARRAY as SMALL
from stream.test_parts import connected

ARRAYS = {name: array for name, (array, _) in rtl.MACHINES.items()} | {
    "flash": replace(FLASH, flash=16), "flash, parts": SMALL,
    "flash, two clusters": replace(SMALL, clusters=2, fill=8),
    "flash, two ports": replace(SMALL, fill=8),
    "flash, 16 lanes": Array(main_words=512, bank_rows=64, ring=64, controls=64, drain=1, fill=2,
                             flash=4, clamp=True)}


def step_by_step(program: StreamProgram) -> list[machine_clock.Cycles]:
    """Return the cycles of each order, where each cycle is gone through."""
    with mock.patch.object(cluster.Cluster, "until", lambda self, now, seen: now):
        return clocked(program)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_cycles_that_are_passed_over(array):
    @settings(max_examples=10, derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(cases(array.activation_bits))
    def each(case):
        try:
            program = stream_program(case.graph, array)
        except CompileError:        # too large, or it adds and the array cannot
            reject()
        assert clocked(program) == step_by_step(program)

    each()


def test_passes_of_other_clusters_are_passed_over():
    graph = shrinking_network((16, 16, 16), (1, 1), 8)
    program = stream_program(graph, ARRAYS["four clusters of 8"])
    with mock.patch.object(machine_clock, "_LONG", 1 << 16):  # where one is forgotten: no end
        found = clocked(program)
    assert found == step_by_step(program)


def test_writes_while_the_flash_is_read():
    array = replace(ARRAYS["flash, 16 lanes"], main_words=1024, taps=64, tiles=64)
    program = stream_program(shrinking_network((16, 16, 16), (1, 1), 8), array)
    assert program.copied
    assert clocked(program) == step_by_step(program)


def test_waits_for_flash_are_passed_over():
    program = stream_program(connected(256, 64, 10), FLASH)
    step, steps = one_cluster.OneCluster._cycle, []

    def counted(self, now, seen):
        steps.append(now)
        step(self, now, seen)

    with mock.patch.object(one_cluster.OneCluster, "_cycle", counted):
        found, = clocked(program)
    assert found.spent[0]["flash"] > found.cycles // 2
    assert len(steps) < found.cycles // 10
