"""Fills as records: what they write is what the fill says, element by element."""

import random

import pytest

from blocks.models.filling import some_fill, wanted
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import FILL
from celosia_spec.isa.fills import Fill, places, run


@pytest.mark.parametrize(("lanes", "fill"), [(8, 4), (16, 4), (16, 2)])
def test_records_do_what_a_fill_says(lanes, fill):
    array, rng = Array(lanes=lanes, bank_rows=512, fill=fill), random.Random(lanes)
    kinds = set()
    for _ in range(400):
        fill = some_fill(rng, array)
        found = []
        for fields in fill.records(array):
            record = FILL.unpack(FILL.pack(**fields))
            kinds.add((record["zero"], record["pair"], record["apart"]))
            made = places(record, array)
            assert run(record, array) == made.element.shape[2]
            found += zip(made.element.ravel().tolist(), made.bank.ravel().tolist(),
                         made.row.ravel().tolist(), strict=True)
        assert sorted(found) == sorted(wanted(fill, array)), fill
    assert kinds == {(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_channels_of_large_memories():
    """Channels that lie further apart than a record's move reaches are records of their own."""
    array = Array(main_words=1 << 16)
    fill = Fill(word=3, plane=1 << 14, channels=3, run=20, lines=2, pitch=300, row=4, rows=9,
                bank=5, line_bank=10, element=270)
    found = fill.records(array)
    assert len(found) == 3
    made = [places(FILL.unpack(FILL.pack(**record)), array) for record in found]
    got = [zip(one.element.ravel(), one.bank.ravel(), one.row.ravel(), strict=True) for one in made]
    assert sorted(place for one in got for place in one) == sorted(wanted(fill, array))


def test_what_is_too_long():
    array = Array(lanes=8, bank_rows=64)
    with pytest.raises(ValueError, match="a line of 513 elements is longer than a fill's can be"):
        Fill(run=513).records(array)
    with pytest.raises(ValueError, match="a fill of 65 lines and 2 channels is larger than 64 of"):
        Fill(run=1, lines=65, pitch=1, channels=2).records(array)


def test_records_that_mean_nothing():
    """Planes that share banks; and a second place that is none."""
    array = Array()
    record, = Fill(run=8, step_x=2, plane_x_bank=2).records(array)
    assert record["pair"]
    with pytest.raises(AssertionError, match="two elements go to one bank"):
        places(record | {"b_bank": 3}, array)
    record, = Fill(run=8).records(array)
    with pytest.raises(AssertionError):
        places(record | {"b_bank": 3}, array)
    two = Array(fill=2)
    record, = Fill(run=8, step_x=2, plane_x_bank=1).records(two)
    assert record["pair"]
    with pytest.raises(AssertionError, match="two elements go to one bank"):
        places(record | {"b_bank": 2}, two)
    with pytest.raises(AssertionError, match="begin with odd and with even"):
        places(Fill(run=3, lines=2, pitch=4).records(two)[0] | {"line_element": 0}, two)
