"""What the devices hold, and the array that fits each. Plain Python: imports no Amaranth."""

from dataclasses import dataclass

from celosia_spec.isa import ArrayConfig

__all__ = ["ARRAYS", "RESOURCES", "Resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a device has.

    luts   : 4-input look-up tables; on iCE40 logic cells (a look-up table and a flip-flop each).
    ffs    : flip-flops.
    brams  : block memories: EBR of 4 kbit (iCE40), DP16KD of 18 kbit (ECP5).
    dsps   : SB_MAC16 or MULT18X18D blocks.
    sprams : SB_SPRAM256KA blocks of 256 kbit.
    """

    luts: int
    ffs: int
    brams: int
    dsps: int = 0
    sprams: int = 0


_85F = Resources(luts=83640, ffs=83640, brams=208, dsps=156)

RESOURCES = {
    "up5k": Resources(luts=5280, ffs=5280, brams=30, dsps=8, sprams=4),
    "hx8k": Resources(luts=7680, ffs=7680, brams=32),
    # The die is the 25F's, and nextpnr would fill it; Lattice vouches for this much of it.
    "lfe5u-12f": Resources(luts=12000, ffs=12000, brams=32, dsps=28),
    "lfe5u-25f": Resources(luts=24288, ffs=24288, brams=56, dsps=28),
    "lfe5u-45f": Resources(luts=43848, ffs=43848, brams=108, dsps=72),
    "lfe5u-85f": _85F,
    "lfe5um5g-85f": _85F,
}
"""By device, as `Target.device` names it."""

_ARRAY_85F = ArrayConfig(
    lanes=32, quad=4, beat=4, weight_rows=4096, bank_rows=4096, table_rows=1024, taps=1024,
    writes=2048, program_words=1024, store_beats=4096, residual_beats=4096, wide_elements=4,
    deep=True)

ARRAYS = {
    "up5k": ArrayConfig(
        lanes=16, quad=4, beat=2, weight_rows=16384, bank_rows=512, table_rows=256, taps=256,
        writes=256, program_words=256, store_beats=512, index_bits=12, count_bits=11,
        replicate=True, clearing=False),
    "hx8k": ArrayConfig(
        lanes=8, quad=2, beat=2, weight_rows=512, bank_rows=512, table_rows=256, taps=256,
        writes=256, program_words=256, store_beats=512, index_bits=12, count_bits=12),
    "lfe5u-12f": ArrayConfig(
        lanes=8, quad=4, beat=4, weight_rows=4096, bank_rows=2048, table_rows=512, taps=512,
        writes=1024, program_words=512, store_beats=1024, residual_beats=1024, wide_elements=4,
        deep=True),
    "lfe5u-25f": ArrayConfig(
        lanes=16, quad=4, beat=4, weight_rows=4096, bank_rows=2048, table_rows=512, taps=512,
        writes=1024, program_words=512, store_beats=1024, residual_beats=1024, wide_elements=4,
        deep=True),
    "lfe5u-45f": ArrayConfig(
        lanes=32, quad=4, beat=4, weight_rows=4096, bank_rows=2048, table_rows=1024, taps=1024,
        writes=2048, program_words=1024, store_beats=2048, residual_beats=2048, wide_elements=4,
        deep=True),
    "lfe5u-85f": _ARRAY_85F,
    "lfe5um5g-85f": _ARRAY_85F,
}
"""By device: the array that its targets carry."""
