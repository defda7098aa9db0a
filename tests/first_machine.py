"""Arrays of the first machine that no target carries, for tests of what they have."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from celosia_boards.targets import Target, target
from celosia_spec.isa import ArrayConfig
from registered import registered

UP5K = ArrayConfig(
    lanes=16, quad=4, beat=2, weight_rows=16384, bank_rows=512, table_rows=256, taps=256,
    writes=256, program_words=256, store_beats=512, index_bits=12, count_bits=11, replicate=True,
    clearing=False)
"""Beats of two, all weights in four SPRAMs, no residual store and no clamp."""

HX8K = ArrayConfig(
    lanes=8, quad=2, beat=2, weight_rows=512, bank_rows=512, table_rows=256, taps=256, writes=256,
    program_words=256, store_beats=512, index_bits=12, count_bits=12)
"""A small one: 16 KiB of block memories hold everything."""

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
    with _target("large", "ecp5-85f", array) as of:
        yield of


@contextmanager
def target_up5k() -> Iterator[Target]:
    """A target "up5k" with the array of that name, the iCEBreaker's blocks, and 24 MHz."""
    with _target("up5k", "icebreaker", UP5K, clock_mhz=24.0) as of:
        yield of


@contextmanager
def target_first() -> Iterator[Target]:
    """A target "first" with the small array of that machine, `HX8K`, and that device's blocks."""
    with _target("first", "hx8k", HX8K) as of:
        yield of


def _target(name: str, like: str, array: ArrayConfig,
            **changes: float) -> AbstractContextManager[Target]:
    of = target(like)
    return registered(replace(of, name=name, device=replace(of.device, array=array), **changes))
