"""Words: what is packed comes back, and what does not fit is refused by name."""

from collections.abc import Iterator

import numpy as np
import pytest

from celosia_spec.isa import (
    BATCH,
    DESCRIPTOR,
    MEMORIES,
    ROW,
    STATUS,
    ArrayConfig,
    frames,
    tap_word,
    weight_word,
    write_word,
)
from celosia_spec.isa.fields import Word
from first_machine import HX8K, SIXTEEN, THIRTY_TWO, UP5K


def words() -> Iterator[Word]:
    """Every word of the first machine, those of an array for each of these."""
    yield from (ROW, BATCH, STATUS, *DESCRIPTOR.words, frames.REQUEST, frames.REPLY,
                frames.REJECTED, frames.ADDRESS, frames.DESCRIPTORS)
    for memory in MEMORIES:
        yield memory.word(ArrayConfig(lanes=16))
    for array in (UP5K, HX8K, SIXTEEN, THIRTY_TWO):
        yield from (weight_word(array), tap_word(array), write_word(array))


@pytest.mark.parametrize("word", list(words()), ids=lambda word: word.name)
def test_what_is_packed_comes_back(word: Word) -> None:
    rng = np.random.default_rng(1)
    values = {field.name: np.concatenate([
        [field.least, field.most, field.least, field.most],
        rng.integers(field.least, field.most, 100, endpoint=True)])
        for field in word.fields if field.name != "_"}
    packed = word.pack(**values)
    assert packed.dtype == np.int64
    assert packed.min() >= 0 and packed.max() < 1 << word.bits
    for found, wanted in zip(word.unpack(packed).values(), values.values(), strict=True):
        assert found.tolist() == wanted.tolist()
    one = {name: int(value[4]) for name, value in values.items()}
    assert word.pack(**one) == packed[4]
    assert word.unpack(int(packed[4])) == one


@pytest.mark.parametrize("word", list(words()), ids=lambda word: word.name)
def test_what_does_not_fit_is_refused_by_name(word: Word) -> None:
    for field in word.fields:
        for value in (field.least - 1, field.most + 1):
            wanted = (f"{word.name} field {field.name} must be {field.least} to {field.most}, "
                      f"not {value}")
            with pytest.raises(ValueError, match=wanted):
                word.pack(**{field.name: value})
            with pytest.raises(ValueError, match=wanted):
                word.pack(**{field.name: np.array([field.least, value])})


def test_fields_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="row has no field scale"):
        ROW.pack(scale=1)
    with pytest.raises(ValueError, match="descriptor has no field scale"):
        DESCRIPTOR.pack(scale=1)


def test_a_descriptor_comes_back_field_by_field() -> None:
    rng = np.random.default_rng(2)
    values = {field.name: int(rng.integers(field.least, field.most, endpoint=True))
              for field in DESCRIPTOR.fields}
    packed = DESCRIPTOR.pack(**values)
    assert DESCRIPTOR.unpack(packed) == values
    assert DESCRIPTOR.unpack(np.array(packed)) == values
    for name, (index, low) in DESCRIPTOR.places.items():
        field = DESCRIPTOR.words[index][name]
        assert field.decode(packed[index] >> low) == values[name]


def test_names_of_descriptor_fields_are_unique_and_each_has_a_reader() -> None:
    assert len(DESCRIPTOR.places) == len(DESCRIPTOR.fields)
    assert all(field.readers and field.about for field in DESCRIPTOR.fields)
    assert all(word.bits <= 16 for word in DESCRIPTOR.words)


def test_words_stand_where_they_always_stood() -> None:
    """Programs in files hold them."""
    array = ArrayConfig(lanes=8)
    assert ROW.pack(bias=-1, sw=-2, sb=3) == 0xFFFF | 62 << 16 | 3 << 22
    assert BATCH.pack(steps=4096, wait=15) == 0xFFFF and BATCH.pack(steps=1, wait=1) == 1 << 12
    assert weight_word(array).pack(mantissa=-1, step=2) == 0x2FF
    assert tap_word(array).pack(rotation=7, row=3) == 0b11111
    assert write_word(array).pack(last=1, count=2, bank=5, row=1) == 0b1_101_01_1
    assert DESCRIPTOR.pack(opcode=1, relu=1, log2_groups=2)[20:22] == [0b10001, 2]
