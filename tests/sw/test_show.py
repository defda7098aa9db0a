"""A program as people see it: three lines in a terminal, tables in a notebook."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from torch import nn

import celosia
from celosia.models import load_lenet5
from celosia.show import rate
from celosia_boards.targets import target

CLOCK = target("icebreaker").clock_mhz


@pytest.fixture(scope="module")
def program():
    return celosia.compile(load_lenet5(pruned=True), np.zeros((1, 1, 28, 28), np.float32))


def test_a_program_prints_three_lines(program):
    lines = str(program).splitlines()
    assert lines == repr(program).splitlines() and len(lines) == 3
    assert all(len(line) <= 100 for line in lines)
    milliseconds, per_second = rate(program.predicted_cycles, CLOCK)
    assert f"{program.predicted_cycles:,} cycles" in lines[1]
    assert (f"{milliseconds:.3g} ms, {per_second:,.0f} inferences a second at {CLOCK:g} MHz"
            in lines[1])


def test_a_rate_is_cycles_over_the_clock():
    assert rate(24_000, 24.0) == (1.0, 1000.0)


def test_a_notebook_shows_layers_and_memories_and_no_markup_of_a_name():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<b>&x", nn.Linear(4, 3))

        def forward(self, x):
            return getattr(self, "<b>&x")(x)

    shown = celosia.compile(Net(), np.zeros((1, 4), np.float32))._repr_html_()
    page = ElementTree.fromstring(f"<div>{shown.replace('<br>', '<br/>')}</div>")
    tables = page.findall("table")
    assert tables[0].findall("tbody/tr/td")[0].text == "<b>&x"
    assert {row[0].text for row in tables[1].findall("tbody/tr")} >= {"main memory", "taps"}
