# amaranth: UnusedElaboratable=no
"""Multipliers: all kinds give the exact products, two edges later."""

import pytest
from amaranth.back import verilog
from cocotb_tools.runner import get_runner

from celosia_hw.multiplier import KINDS, Multipliers
from celosia_sim import cells


def _sources(kind):
    return {"generic": [], "mac16": [cells.ice40()], "mult18": [cells.mult18x18d()]}[kind]


SHAPES = [(4, 8, 8), (3, 6, 5), (1, 4, 8), (2, 9, 9)]


@pytest.mark.parametrize(("kind", "lanes", "weight_bits", "activation_bits"),
                         [(kind, *shape) for kind in KINDS for shape in SHAPES
                          if kind != "mac16" or shape[1] <= 8])
def test_products(tmp_path, kind, lanes, weight_bits, activation_bits):
    source = tmp_path / "multipliers.v"
    source.write_text(verilog.convert(Multipliers(lanes, weight_bits, activation_bits, kind),
                                      name="multipliers", emit_src=False,
                                      strip_internal_attrs=True))
    block = {"mac16": "SB_MAC16", "mult18": "MULT18X18D", "generic": None}[kind]
    if block is not None:
        used = source.read_text().count(f"  {block} ")
        assert used == (-(-lanes // 2) if kind == "mac16" else lanes)
    runner = get_runner("icarus")
    runner.build(sources=[*_sources(kind), source], hdl_toplevel="multipliers",
                 build_dir=tmp_path / "build", build_args=list(cells.ICARUS_ARGS),
                 timescale=("1ns", "1ps"), always=True)
    runner.test(hdl_toplevel="multipliers", test_module="celosia_sim.benches.multiplier",
                build_dir=tmp_path / "build", seed=1,
                extra_env={"LANES": str(lanes), "WEIGHT_BITS": str(weight_bits),
                           "ACTIVATION_BITS": str(activation_bits),
                           "LATENCY": str(Multipliers.LATENCY)})


@pytest.mark.parametrize(("arguments", "message"), [
    ((4, 8, 8, "mac8"), "kind must be one of generic, mac16, mult18, not 'mac8'"),
    ((0, 8, 8, "generic"), "lanes must be at least 1, not 0"),
    ((4, 9, 8, "mac16"), "weight_bits must be 2 to 8 for kind 'mac16', not 9"),
    ((4, 8, 1, "mult18"), "activation_bits must be 2 to 18 for kind 'mult18', not 1"),
])
def test_rejects(arguments, message):
    with pytest.raises(ValueError) as caught:
        Multipliers(*arguments)
    assert str(caught.value) == message
