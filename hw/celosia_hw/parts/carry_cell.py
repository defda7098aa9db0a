"""Cells of iCE40 with a carry and a look-up table each, for what Yosys makes two cells of."""

from collections.abc import Callable, Sequence

from amaranth.hdl import Const, Instance, Value

__all__ = ["carry", "table"]


def carry(a: Value, b: Value, below: Value, above: Value) -> Instance:
    """Return a carry: ``above`` is that of the sum of three bits."""
    return Instance("SB_CARRY", i_I0=a, i_I1=b, i_CI=below, o_CO=above)


def table(output: Callable[[int, int, int, int], int], inputs: Sequence[Value],
          found: Value) -> Instance:
    """Return a look-up table of four bits; it stands in the cell of the carry whose ``a`` and ``b``
    are its second and third one, and whose ``below`` is its fourth."""
    bits = ((output(*(index >> place & 1 for place in range(4))), index) for index in range(16))
    return Instance("SB_LUT4", p_LUT_INIT=Const(sum(bit << index for bit, index in bits), 16),
                    **{f"i_I{place}": value for place, value in enumerate(inputs)}, o_O=found)
