"""The chips: what each holds, and the array that its targets carry.

Plain Python: importing it loads no Amaranth.
"""

from dataclasses import replace

from celosia_boards.families.ecp5 import ECP5
from celosia_boards.families.family import Device, Resources
from celosia_boards.families.ice40 import ICE40
from celosia_spec.isa import ArrayConfig

__all__ = ["HX8K", "LFE5U", "LFE5UM5G_85F", "UP5K"]

# nextpnr's first router goes in circles on some seeds of the HX8K; its second does not finish on a
# UP5K that is nearly full. There the static placer leaves a fifth less of wire than the default
# one, which legalises badly where nine cells of ten are taken; so the first router comes through.
UP5K = Device(
    name="up5k", family=ICE40, synthesis="-device u",
    placement=("--up5k", "--placer", "static"),
    resources=Resources(luts=5280, ffs=5280, brams=30, dsps=8, sprams=4), ceiling_mhz=50.0,
    multiplier="mac16", sources=("bram", "spram"),
    array=ArrayConfig(
        lanes=16, quad=4, beat=2, weight_rows=16384, bank_rows=512, table_rows=256, taps=256,
        writes=256, program_words=256, store_beats=512, index_bits=12, count_bits=11,
        replicate=True, clearing=False))

HX8K = Device(
    name="hx8k", family=ICE40, synthesis="-device hx",
    placement=("--hx8k", "--router", "router2"),
    resources=Resources(luts=7680, ffs=7680, brams=32), multiplier="generic",
    array=ArrayConfig(
        lanes=8, quad=2, beat=2, weight_rows=512, bank_rows=512, table_rows=256, taps=256,
        writes=256, program_words=256, store_beats=512, index_bits=12, count_bits=12))

_OF_25F = ArrayConfig(
    lanes=16, quad=4, beat=4, weight_rows=4096, bank_rows=2048, table_rows=512, taps=512,
    writes=1024, program_words=512, store_beats=1024, residual_beats=1024, wide_elements=4,
    deep=True, clamp=True)
_OF_45F = replace(_OF_25F, lanes=32, table_rows=1024, taps=1024, writes=2048, program_words=1024,
                  store_beats=2048, residual_beats=2048)
_OF_85F = replace(_OF_45F, bank_rows=4096, store_beats=4096, residual_beats=4096)

_25F = Device(
    name="lfe5u-25f", family=ECP5, synthesis="-nowidelut", placement=("--25k",),
    resources=Resources(luts=24288, ffs=24288, brams=56, dsps=28), multiplier="mult18",
    array=_OF_25F)

# The die is the 25F's, and nextpnr would fill it; Lattice vouches for this much of it.
_12F = replace(
    _25F, name="lfe5u-12f", placement=("--12k",), array=replace(_OF_25F, lanes=8),
    resources=Resources(luts=12000, ffs=12000, brams=32, dsps=28))

_45F = replace(
    _25F, name="lfe5u-45f", placement=("--45k",),
    resources=Resources(luts=43848, ffs=43848, brams=108, dsps=72), array=_OF_45F)

_85F = replace(
    _45F, name="lfe5u-85f", placement=("--85k",),
    resources=Resources(luts=83640, ffs=83640, brams=208, dsps=156), array=_OF_85F)

LFE5U = {12: _12F, 25: _25F, 45: _45F, 85: _85F}
"""ECP5 without transceivers, by thousands of look-up tables."""

LFE5UM5G_85F = replace(_85F, name="lfe5um5g-85f", placement=("--um5g-85k",))
