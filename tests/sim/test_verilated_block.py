"""A verilated block on Verilog written here: ports of every width, with and without a clock."""

import pytest

from blocks import verilated_block
from blocks.verilated_block import Block, headers
from celosia_spec.errors import SimulationError
from compiled import link, runtime_entries

COUNTER = """
module block(input clk, input rst, input abort, input [8:0] step__by, input [99:0] wide,
             output reg [39:0] total, output [99:0] mixed);
  initial total = 5;
  always @(posedge clk) total <= rst ? 0 : abort ? total : total + step__by;
  assign mixed = wide ^ total;
endmodule
"""

FORGOTTEN = """
module block(input clk, input write, output reg [31:0] value, output reg [31:0] other);
  reg [31:0] memory [0:255];
  always @(posedge clk) if (write) memory[value[7:0]] <= value;
  always @(posedge clk) if (write) value <= memory[1];
  always @(posedge clk) if (write) other <= value;
endmodule
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache")
        link([*runtime_entries(), headers()], path)
        patch.setenv("CELOSIA_CACHE", str(path))
        yield


def test_ports_and_cycles():
    """Words of C++, double underscores, and ports of one, two, eight and sixteen bytes."""
    with Block(COUNTER) as block:
        assert block.get("total") == 5
        block.set("step__by", 300)
        block.tick(3)
        assert block.get("total") == 905
        block.set("abort", 1)
        block.tick(7)
        assert block.get("total") == 905
        block.set("wide", 3 << 98)
        assert block.get("mixed") == 905, "outputs follow when the block settles"
        block.settle()
        assert block.get("mixed") == 3 << 98 ^ 905


def test_what_nobody_wrote_is_random():
    """A register or memory without initial value holds none that is right by chance."""
    with Block(FORGOTTEN) as block:
        found = {0, block.get("value"), block.get("other")}
        block.set("write", 1)
        block.tick()
        found.add(block.get("value"))
    assert len(found) == 4


def test_without_a_clock():
    """Time means nothing to a combinational block; two of one design share nothing."""
    text = "module block(input [3:0] a, output [3:0] b); assign b = ~a; endmodule"
    with Block(text) as one, Block(text) as two:
        one.set("a", 6)
        one.settle()
        one.tick(5)
        assert (one.get("b"), two.get("b")) == (9, 15)


def test_nothing_is_compiled_twice(monkeypatch):
    with Block(COUNTER):
        pass
    monkeypatch.setattr(verilated_block, "run_tool", lambda *_, **__: pytest.fail("a tool ran"))
    with Block(COUNTER) as block:
        assert block.get("total") == 5


@pytest.mark.parametrize("text", ["module block(; endmodule", "module other; endmodule"])
def test_verilog_that_does_not_compile(text):
    with pytest.raises(SimulationError, match=r"^verilator failed with status 1: %Error"):
        Block(text)
