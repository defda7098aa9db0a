"""The chips: what each holds, and the array that its targets carry.

Plain Python: importing it loads no Amaranth.
"""

from dataclasses import replace

from celosia_boards.families.ecp5 import ECP5, ECP5_FABRIC
from celosia_boards.families.family import Device, Resources
from celosia_boards.families.ice40 import ICE40, ULTRA_PLUS_FABRIC
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC

__all__ = ["HX8K", "LFE5U", "LFE5UM5G_85F", "UP5K"]

# nextpnr's first router goes in circles on some seeds of the HX8K. On the UP5K it does so on few,
# and the second one leaves a quarter of the clock there.
UP5K = Device(
    name="up5k", family=ICE40, synthesis="-device u",
    placement=("--up5k",),
    resources=Resources(luts=5280, ffs=5280, brams=30, dsps=8, sprams=4), ceiling_mhz=50.0,
    fabric=ULTRA_PLUS_FABRIC, sources=("bram", "spram"),
    array=Array(drain=1, fill=2, clamp=True))

HX8K = Device(
    name="hx8k", family=ICE40, synthesis="-device hx",
    placement=("--hx8k", "--router", "router2"),
    resources=Resources(luts=7680, ffs=7680, brams=32), fabric=GENERIC,
    array=Array(lanes=8, main_words=768, bank_rows=512, residual=False, clamp=True))

# A block memory has 18 kbit: the tables are as deep as one is. Main memory takes what is left.
_OF_25F = Array(lanes=16, main_words=12288, ring=512, controls=1024, taps=1024, tiles=1024,
                clamp=True, fill=8)
_OF_12F = replace(_OF_25F, lanes=8, main_words=4096, bank_rows=1024)
_OF_45F = replace(_OF_25F, main_words=16384, clusters=2)
_OF_85F = replace(_OF_25F, main_words=32768, clusters=4)

_25F = Device(
    name="lfe5u-25f", family=ECP5, synthesis="-nowidelut", placement=("--25k",),
    resources=Resources(luts=24288, ffs=24288, brams=56, dsps=28), fabric=ECP5_FABRIC,
    array=_OF_25F)

# The die is the 25F's, and nextpnr would fill it; Lattice vouches for this much of it.
_12F = replace(
    _25F, name="lfe5u-12f", placement=("--12k",), array=_OF_12F,
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
