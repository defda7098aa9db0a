"""A bench in Verilog that plays recorded vectors on any block, and the file it reads them from.

The bench prints ``played``, or of the first output that differs a line with its cycle, its name and
its bits, which may be unknown ones.
"""

from collections.abc import Mapping, Sequence

from blocks.vectors import Step

__all__ = ["PLAYED", "bench", "steps_file"]

PLAYED = "played"

_IDLE_BITS = 32


def bench(widths: Mapping[str, int], inputs: Sequence[str], *, clocked: bool) -> str:
    """Return the Verilog of module ``bench`` around module ``block``; it reads the file ``steps``.

    widths : bits of the block's ports, each at least one, but for clk and rst.
    inputs : names of those that the block reads.   clocked : whether it has clk and rst.
    """
    at = {name: k for k, name in enumerate(widths)}
    outputs = [name for name in widths if name not in inputs]
    fields = [("idle", _IDLE_BITS), *((f"next_{at[name]}", widths[name]) for name in inputs),
              *((f"{what}_{at[name]}", widths[name]) for name in outputs
                for what in ("value", "mask"))]
    ports = [f".\\{name} (port_{at[name]})" for name in widths]
    ports += [".clk(clk), .rst(1'b0)"] * clocked
    checks = "".join(
        f'      if (((port_{at[name]} ^ value_{at[name]}) & mask_{at[name]}) !== 0) begin\n'
        f'        $display("%0d {name} %b", cycle, port_{at[name]}); $finish; end\n'
        for name in outputs)
    return "".join([
        "`timescale 1ns/1ps\nmodule bench;\n  reg clk = 0;\n  integer steps, cycle = 0;\n",
        *(f"  reg [{bits - 1}:0] {name};\n" for name, bits in fields),
        *(f"  {'reg' if name in inputs else 'wire'} [{bits - 1}:0] port_{at[name]};\n"
          for name, bits in widths.items()),
        f"  block block({', '.join(ports)});\n",
        "  initial begin\n    #1;\n",      # after all that begins the block's own life
        *(f"    port_{at[name]} = 0;\n" for name in inputs),
        '    steps = $fopen("steps", "r");\n',
        f'    while ($fscanf(steps, "{" ".join(["%h"] * len(fields))}", '
        f"{', '.join(name for name, _ in fields)}) == {len(fields)}) begin\n",
        "      repeat (idle) begin #5 clk = 1; #5 clk = 0; end\n      cycle = cycle + idle;\n",
        *(f"      port_{at[name]} = next_{at[name]};\n" for name in inputs),
        "      #5;\n", checks,
        "      clk = 1; #5 clk = 0;\n      cycle = cycle + 1;\n    end\n",
        f'    $display("{PLAYED}"); $finish;\n  end\nendmodule\n'])


def steps_file(steps: Sequence[Step], widths: Mapping[str, int], inputs: Sequence[str]) -> str:
    """Return what file ``steps`` of the bench holds: a line a step, in hexadecimal."""
    outputs = [name for name in widths if name not in inputs]
    present, lines = dict.fromkeys(inputs, 0), []
    for idle, changes, checks in steps:
        present.update(changes)
        line = [idle, *present.values()]
        for name in outputs:
            line += checks.get(name, (0, 0))
        lines.append(" ".join(f"{number:x}" for number in line))
    return "\n".join(lines)
