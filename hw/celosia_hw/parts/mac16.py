"""SB_MAC16 of iCE40 UltraPlus as two 8 x 8 multipliers, with or without their accumulators.

What its static options mean: Lattice FPGA-TN-02007 ("DSP Function Usage Guide"), and the model in
Yosys' ``ice40/cells_sim.v``, which names the registers as they are named here.
"""

from amaranth.hdl import ClockSignal, Const, Instance, Value

__all__ = ["mac16"]


def mac16(a: Value, b: Value, o: Value, *, hold: Value | None = None,
          clear: Value | None = None) -> Instance:
    """Return a block: each half of ``a`` times that of ``b``, to the same half of ``o``.

    a, b : 16 bits; a has signs, b has none.   o : 32 bits.
    hold : products are added to the block's accumulators Q, modulo 2^16, except in cycles with
           ``hold``; ``o`` is what they become at this cycle's end if nothing holds them. Else
           ``o`` has the products.
    clear : with ``hold`` given: Q becomes 0 at this cycle's end, if nothing holds it, and ``o`` is
            0 already.

    Registers A and B at the operands, F and G at the multipliers: products are those of the
    operands two edges before.
    """
    sums = hold is not None
    still, load = (Const(0) if value is None else value for value in (hold, clear))
    return Instance(
        "SB_MAC16",
        p_NEG_TRIGGER=Const(0, 1), p_MODE_8x8=Const(1, 1),
        p_A_SIGNED=Const(1, 1), p_B_SIGNED=Const(0, 1),
        p_A_REG=Const(1, 1), p_B_REG=Const(1, 1), p_C_REG=Const(0, 1), p_D_REG=Const(0, 1),
        p_TOP_8x8_MULT_REG=Const(1, 1), p_BOT_8x8_MULT_REG=Const(1, 1),
        p_PIPELINE_16x16_MULT_REG1=Const(0, 1), p_PIPELINE_16x16_MULT_REG2=Const(0, 1),
        # Output 2: the multiplier's register. 0: the adder, before its register Q (S below). It
        # adds lower input 1, the multiplier's register, to upper input 0, Q, without a carry;
        # OLOAD puts C (D below) in the adder's place.
        p_TOPOUTPUT_SELECT=Const(0 if sums else 2, 2),
        p_BOTOUTPUT_SELECT=Const(0 if sums else 2, 2),
        p_TOPADDSUB_LOWERINPUT=Const(int(sums), 2), p_BOTADDSUB_LOWERINPUT=Const(int(sums), 2),
        p_TOPADDSUB_UPPERINPUT=Const(0, 1), p_BOTADDSUB_UPPERINPUT=Const(0, 1),
        p_TOPADDSUB_CARRYSELECT=Const(0, 2), p_BOTADDSUB_CARRYSELECT=Const(0, 2),
        i_CLK=ClockSignal(), i_CE=Const(1), i_A=a, i_B=b, i_C=Const(0, 16), i_D=Const(0, 16),
        i_OHOLDTOP=still, i_OHOLDBOT=still, i_OLOADTOP=load, i_OLOADBOT=load,
        **{f"i_{port}": Const(0) for port in (
            "AHOLD", "BHOLD", "CHOLD", "DHOLD", "IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT",
            "ADDSUBTOP", "ADDSUBBOT", "CI", "ACCUMCI", "SIGNEXTIN")},
        o_O=o)
