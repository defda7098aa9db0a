"""Words: what is packed comes back, and what does not fit is refused by name."""

import importlib
import pkgutil
from collections.abc import Iterator

import numpy as np
import pytest

import celosia_spec.isa
from celosia_spec.isa import controls
from celosia_spec.isa.array import Array
from celosia_spec.isa.entries import elements_of, entries_of, words_of
from celosia_spec.isa.fields import Word
from celosia_spec.isa.memories import MEMORIES
from celosia_spec.isa.registers import STATUS
from celosia_spec.isa.words import WEIGHT, tap_word, tile_words


def words() -> Iterator[Word]:
    """Every word of the machine, those of an array for each of two."""
    modules = (importlib.import_module(f"celosia_spec.isa.{found.name}")
               for found in pkgutil.iter_modules(celosia_spec.isa.__path__))
    named = [value for module in modules for value in vars(module).values()]
    yield from dict.fromkeys(value for value in named if isinstance(value, Word))
    yield from dict.fromkeys(word for value in named if isinstance(value, controls.Record)
                             for word in value.words)
    yield from (memory.word for memory in MEMORIES)
    for array in (Array(), Array(lanes=8, bank_rows=1024)):
        yield from (tap_word(array), *tile_words(array))


@pytest.mark.parametrize("word", list(words()), ids=lambda word: word.name)
def test_what_is_packed_comes_back(word: Word) -> None:
    rng = np.random.default_rng(1)
    values = {field.name: np.concatenate([
        [field.least, field.most, field.least, field.most],
        rng.integers(field.least, field.most, 100, endpoint=True)])
        for field in word.fields if field.name != "_"}
    ones = [dict(zip(values, map(int, found), strict=True))
            for found in zip(*values.values(), strict=True)]
    packed = [word.pack(**one) for one in ones]
    assert min(packed) >= 0 and max(packed) < 1 << word.bits
    assert [word.unpack(one) for one in packed] == ones
    if word.bits < 64:
        together = word.pack(**values)
        assert together.dtype == np.int64
        assert together.tolist() == packed
        for found, wanted in zip(word.unpack(together).values(), values.values(), strict=True):
            assert found.tolist() == wanted.tolist()


def test_words_follow_the_commands_whose_bits_say_so() -> None:
    bits = {op: controls.OPCODE.unpack(op) for op in controls.Op}
    assert {op for op in bits if not bits[op]["bare"]} == set(controls.RECORDS)
    assert {op for op in bits if bits[op]["slots"]} == {controls.Op.LAYER, controls.Op.JOIN}
    assert {op for op in bits if bits[op]["taps"] or bits[op]["tiles"]} == {
        controls.Op.TAPS, controls.Op.TILES}
    assert {op for op in bits if bits[op]["exponent"]} == {controls.Op.CLOSE, controls.Op.JOIN}


@pytest.mark.parametrize("word", list(words()), ids=lambda word: word.name)
def test_what_does_not_fit_is_refused_by_name(word: Word) -> None:
    for field, _ in word.named.values():
        for value in (field.least - 1, field.most + 1):
            wanted = (f"{word.name} field {field.name} must be {field.least} to {field.most}, "
                      f"not {value}")
            with pytest.raises(ValueError, match=wanted):
                word.pack(**{field.name: value})
            with pytest.raises(ValueError, match=wanted):
                word.pack(**{field.name: np.array([field.least, value])})


def test_fields_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="weight has no field scale"):
        WEIGHT.pack(scale=1)
    with pytest.raises(ValueError, match="status has no field _"):
        STATUS.pack(_=0)
    with pytest.raises(ValueError, match="layer has no field scale"):
        controls.LAYER.pack(scale=1)


def test_words_stand_where_they_always_stood() -> None:
    """Images in flash hold them."""
    array = Array()
    assert WEIGHT.pack(mantissa=-1, step=2) == 0x2FF
    assert tap_word(array).pack(rotation=15, mask=2, piece=1) == 0b1_10_1111
    assert controls.BATCH.pack(dense=1, steps=2048) == 0xFFE2
    assert controls.HEAD.pack(room=-1, right=-29, element=2, real=1, bias=-2, word=9) == [
        1 << 15 | 2 << 13 | 3 << 7 | 127, 0xFFFE, 9]


def test_entries_have_their_first_word_in_the_lowest_bits() -> None:
    words = np.array([[1, 2, 3, 0xFFFF], [0x8000, 0, 0, 4]])
    entries = entries_of(words)
    assert entries.tolist() == [0xFFFF_0003_0002_0001, 0x0004_0000_0000_8000]
    assert entries.dtype == np.uint64
    assert elements_of(entries).tolist() == words.tolist()
    assert [words_of(entry) for entry in entries.tolist()] == words.tolist()
    for wrong in (-1, 1 << 16):
        with pytest.raises(ValueError, match="a word of an entry has 16 bits"):
            entries_of(np.array([[0, 0, 0, wrong]]))
