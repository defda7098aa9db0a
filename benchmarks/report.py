"""Write docs/results.md from the results that the benchmarks left in build/bench.

Every figure on the page comes from there, and each section names the command that made it. Run the
benchmarks first: make bench-exactness, and so on. A benchmark without a result is left out, and
named on stderr.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import board_pages
from harness.command import FOLDER
from harness.result import Cell, Check, Result, Table

ORDER = ("exactness", "netlist", "accuracy", "given_resnets", "faint_rows", "unsigned_mantissas",
         "accurate_passes", "widths", "curves", "products", "several", "quantised", "onnx_networks",
         "cycles", "stream_cycles", "stream_steps", "lane_cycles", "fmax", "parameter_cost",
         "speed", "compile_speed", "first_hour",
         "kinds", "operators", "borders", "zoo", "peers", "bad_inputs", "kernels", "board_link",
         "board_faults", "virtual_board", "compression-train", "compression-lenet5",
         "compression-ae_lip", "compression-p1", "compression-cycle_aware", "compression-combined",
         "compression-filters", "compression-fusion", "compression-bfp", "compression-in_format",
         "compression-in_format-56", "compression-restoration")
PAGE = Path("docs") / "results.md"
BOARD, PICTURE = "icebreaker", "plots/cycle-aware-lenet5.svg"
"""What the page opens with; the picture is drawn by the benchmark compression-cycle_aware."""

_HEAD = """---
hide: [navigation]
---

# Results

Written by `make bench-report` from what the benchmarks measured. Do not edit: run them again.
What the words mean is in [numerics](numerics.md); a requirement that is missed says so. How the
methods of compression work is told [method by method](methods/index.md). No board was attached
for any figure: clocks are nextpnr's, cycles those of the simulated gateware, and images a second
follow from the two, loading not counted. [The machine](machine.md) is the one that targets carry
since 2026-11-27. In sections with an earlier date (most of compression, faults of boards, first
commands, kernels), cycles and what is told of boards are those of the first machine, before it;
weight bytes there are two a row less than now. 128 lanes are placed on nothing: they need 280 of
the 208 block RAMs of the largest ECP5.
"""


def opening(found: dict[str, dict[str, Any]]) -> str:
    """Return the picture, the table of LeNet-5 on the board, and the requirements that are missed.

    found : results by benchmark. What needs one that is not there is left out.
    """
    results = {name: Result.from_json(values) for name, values in found.items()}
    parts = [_board(results)] if {"accuracy", "cycles", "fmax"} <= results.keys() else []
    if "compression-cycle_aware" in results:
        parts.append(f"![Accuracy against cycles an image, LeNet-5]({PICTURE})")
    checks = [(result.title, check) for result in results.values() for check in result.checks]
    missed = [(title, check) for title, check in checks if not check.met]
    parts.append(f"**Requirements: {len(checks) - len(missed)} of {len(checks)} met**"
                 + ("; missed are" if missed else ""))
    if missed:
        parts.append(_rows([["requirement", "figure", "wanted"], ["---", "---:", "---:"],
                            *([f"[{check.what}](#{_anchor(title)})", check.figure, check.wanted]
                              for title, check in missed)]))
    return "\n\n".join(parts) + "\n"


def _board(results: dict[str, Result]) -> str:
    accuracies = _cells(results["accuracy"].tables[0])
    placed = _cells(results["fmax"].tables[0])[BOARD]
    clock = placed["clock, MHz"]
    rows: list[list[Cell]] = []
    title = ""
    for mode in ("dynamic", "static"):
        table = next(table for table in results["cycles"].tables
                     if f", {BOARD}, " in table.title and f" {mode} exponents" in table.title)
        title = table.title.split(f", {mode}")[0]
        cycles = _cells(table)["total"]
        rows.append([
            mode, accuracies["float32, dense"]["accuracy"],
            accuracies[f"8-bit mantissas, pruned, {mode} exponents"]["accuracy"],
            cycles["dense"], cycles["sparse"], clock * 1e6 / cycles["sparse"],
            placed["Fmax, median"]])
    return f"**{title}**\n\n" + _table(Table.of(title, {
        "exponents": "", "accuracy, float, dense": ".2%", "accelerator, pruned": ".2%",
        "cycles an image, dense": ",d", "pruned": ",d",
        f"images a second at {clock:g} MHz": ",.0f", "Fmax, MHz": ".1f"}, rows))


def _cells(table: Table) -> dict[str, dict[str, Any]]:
    """Return a table's cells by the first of their row and the title of their column."""
    titles = [column.title for column in table.columns]
    return {str(row[0]): dict(zip(titles, row, strict=True)) for row in table.rows}


def _anchor(title: str) -> str:
    """Return the anchor of the section called ``title``, as MkDocs and GitHub make it."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def section(values: dict[str, Any]) -> str:
    """Return one benchmark's part of the page."""
    result = Result.from_json(values)
    parts = [f"## {result.title}",
             f"`{values['command']}`, {values['date']}, {values['seconds']:,.0f} s on "
             f"{values['machine']}."]
    parts += [f"**{entry.title}**\n\n{_table(entry)}" for entry in result.tables]
    parts += result.notes
    if result.checks:
        parts.append(_checks(result.checks))
    return "\n\n".join(parts) + "\n"


def _table(entry: Table) -> str:
    rows = [[column.show(cell) for column, cell in zip(entry.columns, row, strict=True)]
            for row in entry.rows]
    ruler = ["---" if column.form == "" else "---:" for column in entry.columns]
    return _rows([[column.title for column in entry.columns], ruler, *rows])


def _checks(checks: tuple[Check, ...]) -> str:
    return _rows([["requirement", "figure", "wanted", ""], ["---", "---:", "---:", "---"],
                  *([check.what, check.figure, check.wanted, "met" if check.met else "**missed**"]
                    for check in checks)])


def _rows(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Write the page; exit status 1 where no result is there at all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder (%(default)s)")
    parser.add_argument("--output", type=Path, default=PAGE, help="page (%(default)s)")
    parser.add_argument("--json", action="store_true",
                        help="one JSON object on stdout: all results; the page is written too")
    arguments = parser.parse_args()
    found = {}
    unknown = sorted({path.stem for path in arguments.results.glob("*.json")} - {*ORDER})
    if unknown:
        sys.exit(f"report: {', '.join(unknown)}: ORDER does not say where on the page these stand")
    for name in ORDER:
        path = arguments.results / f"{name}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        else:
            print(f"report: no {path}; run make bench-{name}", file=sys.stderr)
    if not found:
        sys.exit(1)
    page = "\n".join([_HEAD, opening(found), *(section(values) for values in found.values())])
    arguments.output.write_text(page, encoding="utf-8")
    if arguments.output == PAGE:
        board_pages.up_to_date(write=True)      # they repeat each board's clock
    if arguments.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print(f"wrote {arguments.output} from {len(found)} of {len(ORDER)} results")


if __name__ == "__main__":
    main()
