"""What the output path gets, and what it gives."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.numbers import EXPONENT_BITS, SLOT_BITS


class Passes(wiring.Signature):
    """Passes whose sums come, seen from who issues them.

    start  : strobe: a pass begins.
    heads  : with ``start``: where its rows' heads lie in the controls' ring.
    fresh  : it is that of its batch's first tile, and begins its window.
    begins, ends : its window begins, ends.
    """

    def __init__(self, array: Array) -> None:
        super().__init__({"start": Out(1), "heads": Out((array.controls - 1).bit_length()),
                          "fresh": Out(1), "begins": Out(1), "ends": Out(1)})


class HeadReads(wiring.Signature):
    """Reads of the controls' ring, seen from who reads; ``word`` comes a cycle behind."""

    def __init__(self, array: Array) -> None:
        super().__init__({"read": Out(1), "address": Out((array.controls - 1).bit_length()),
                          "word": In(CONTROL_BITS)})


class SlotMemory(wiring.Signature):
    """The memory of the slots' exponents, which lies in the output path's queue, seen from who uses
    it while no pass is inside there.

    slot, keep, kept : strobe ``keep``: ``slot`` gets ``kept``.
    held             : what is in ``slot``, a cycle later.
    """

    def __init__(self) -> None:
        super().__init__({"slot": Out(SLOT_BITS), "keep": Out(1), "kept": Out(EXPONENT_BITS),
                          "held": In(EXPONENT_BITS)})


class OutputControl(wiring.Signature):
    """What the control path gives the output path, and what is read there.

    position : of the band: first element of a row that is written.
    """

    def __init__(self, array: Array) -> None:
        super().__init__({"position": Out(CONTROL_BITS), "passes": Out(Passes(array)),
                          "heads": In(HeadReads(array)), "slots": Out(SlotMemory())})


class LayerExponents(wiring.Signature):
    """Exponents of a layer's input and of its residual operand, + 16, seen from who has them.

    closed : strobe: an exponent is set; the next layer may begin.
    """

    def __init__(self) -> None:
        super().__init__({"input": Out(EXPONENT_BITS), "residual": Out(EXPONENT_BITS),
                          "closed": Out(1)})


class OutputState(wiring.Signature):
    """How far the output path is, seen from there.

    busy   : a pass is inside. When it falls, everything is written, and ``top`` is right.
    placed : from the cycle behind a pass's start on: passes inside have taken the position.
    top    : exponent + 16 of the largest element written since the last exponent was set; that of 0
             while there is none.
    """

    def __init__(self) -> None:
        super().__init__({"busy": Out(1), "placed": Out(1), "top": Out(EXPONENT_BITS)})


class Write(wiring.Signature):
    """A write to main memory that is granted at once, seen from who writes: elements of the word
    ``address`` that ``enable`` says. Where one lane leaves a cycle, both halves of the word get
    ``data``."""

    def __init__(self, array: Array) -> None:
        super().__init__({"request": Out(1), "address": Out(array.main_bits),
                          "enable": Out(ENTRY_WORDS),
                          "data": Out(ENTRY_BITS * array.drain // 2)})
