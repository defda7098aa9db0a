"""Arrays of the first machine that are larger than any target's, for tests of what they have."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from celosia_boards.targets import Target, target
from celosia_spec.isa import ArrayConfig
from registered import registered

SIXTEEN = ArrayConfig(
    lanes=16, quad=4, beat=4, weight_rows=4096, bank_rows=2048, table_rows=512, taps=512,
    writes=1024, program_words=512, store_beats=1024, residual_beats=1024, wide_elements=4,
    deep=True, clamp=True)
THIRTY_TWO = replace(
    SIXTEEN, lanes=32, bank_rows=4096, table_rows=1024, taps=1024, writes=2048, program_words=1024,
    store_beats=4096, residual_beats=4096)


@contextmanager
def target_large(array: ArrayConfig = SIXTEEN) -> Iterator[Target]:
    """A target "large" with such an array, and blocks of the ECP5-85F."""
    like = target("ecp5-85f")
    with registered(replace(like, name="large", device=replace(like.device, array=array))) as of:
        yield of
