"""Right shifts that round once, to nearest, ties to even."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed


class RoundingShift:
    """Shift ``value`` right by ``amount`` bits in steps that may be separated by registers.

    The value carries one guard bit below its unit, and one sticky bit for all that fell off
    further down, so that :meth:`rounded` can round to nearest even once at the end.

    Parameters
    ----------
    value : Value
        Signed.
    amount : Value
        Unsigned, 0 to ``2**len(amount) - 1``; a larger shift is the caller's to clamp.
    bits : int
        Width of the result. The caller guarantees that the rounded result fits, or checks for
        overflow by itself: the bits above are dropped.
    """

    def __init__(self, m: Module, value: Value, amount: Value, bits: int, name: str) -> None:
        self.m, self.bits, self.name = m, bits, name
        self.amount, self.left = amount, len(amount)
        self.value = Signal(signed(len(value) + 1), name=f"{name}_in")
        self.sticky: Value = Const(0, 1)
        m.d.comb += self.value.eq(Cat(Const(0, 1), value))

    def shift(self, steps: int | None = None) -> None:
        """Apply the ``steps`` largest bits of the amount that are left (all of them: None)."""
        for _ in range(self.left if steps is None else min(steps, self.left)):
            self.left -= 1
            distance, bit = 1 << self.left, self.amount[self.left]
            lost = self.value[:min(distance, len(self.value))].any()
            sticky = Signal(name=f"{self.name}_sticky{self.left}")
            width = min(len(self.value), self.bits + 1 + (distance - 1))
            shifted = Signal(signed(width), name=f"{self.name}_by{distance}")
            self.m.d.comb += [
                shifted.eq(Mux(bit, self.value >> distance, self.value)),
                sticky.eq(self.sticky | (bit & lost)),
            ]
            self.value, self.sticky = shifted, sticky

    def register(self, domain: str = "sync") -> None:
        """Put a register behind the steps so far; the caller delays all else by one cycle."""
        value = Signal.like(self.value, name=f"{self.name}_reg{self.left}", reset_less=True)
        sticky = Signal(name=f"{self.name}_sticky_reg{self.left}", reset_less=True)
        amount = Signal(max(self.left, 1), name=f"{self.name}_amount{self.left}", reset_less=True)
        self.m.d[domain] += [value.eq(self.value), sticky.eq(self.sticky),
                             amount.eq(self.amount[:max(self.left, 1)])]
        self.value, self.sticky, self.amount = value, sticky, amount

    def rounded(self) -> Signal:
        """Return the result, signed, ``bits`` wide, after all steps were applied."""
        assert self.left == 0
        result = Signal(signed(self.bits), name=f"{self.name}_rounded")
        up = self.value[0] & (self.sticky | self.value[1])
        self.m.d.comb += result.eq((self.value >> 1) + up)
        return result
