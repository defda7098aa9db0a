"""The machine's control words: they fit, and what is packed comes back."""

import random

import pytest

from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import (
    BATCH,
    COMMAND,
    EXCESS,
    HEAD,
    LONG_EXCESS,
    RECORDS,
    Op,
    head_words,
)
from celosia_spec.isa.words import tap_word, tile_words

ALL = {**{op.name: record for op, record in RECORDS.items()}, "HEAD": HEAD, "EXCESS": EXCESS,
       "LONG_EXCESS": LONG_EXCESS}


@pytest.mark.parametrize("record", ALL.values(), ids=ALL)
def test_what_is_packed_comes_back(record):
    rng = random.Random(1)
    for _ in range(200):
        values = {field.name: rng.randint(field.least, field.most)
                  for word in record.words for field in word.fields if field.name != "_"}
        words = record.pack(**values)
        assert all(0 <= word < 1 << 16 for word in words)
        assert record.unpack(words) == values


def test_names_and_values_that_do_not_fit():
    with pytest.raises(ValueError, match="band has no field lines"):
        RECORDS[Op.BAND].pack(lines=1)
    with pytest.raises(ValueError, match="head field bias must be -32768 to 32767, not 32768"):
        HEAD.pack(bias=32768)


def test_batches_and_commands_differ_in_one_bit():
    assert BATCH.bits == COMMAND.bits == 16
    assert BATCH.pack(steps=2048) & 1 == 0
    assert COMMAND.pack(command=1, op=Op.HALT) & 1 == 1
    assert [head_words(Array(acc_bits=bits), signed_in=signed)
            for bits in (24, 32) for signed in (False, True)] == [3, 4, 3, 5]


def test_tables_of_the_up5k_fit_its_block_memories():
    array = Array()
    assert tap_word(array).bits <= 16
    assert max(word.bits for word in tile_words(array)) <= 16


@pytest.mark.parametrize(("name", "value"), [("lanes", 12), ("bank_rows", 500), ("acc_bits", 20),
                                             ("activation_bits", 10), ("ring", 32)])
def test_parameters_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        Array(**{name: value})
