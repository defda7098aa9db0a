"""The command line that every benchmark has: ``--help``, ``--json`` and the file for the report."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from celosia.cli import common as terminal
from celosia.cli import tables
from celosia_spec.errors import CelosiaError
from celosia_spec.files import replacing
from harness.result import Result, Table

__all__ = ["FOLDER", "main"]

FOLDER = Path("build") / "bench"
"""Where results lie that the page of the documentation is made from."""

Measure = Callable[[argparse.Namespace], Result]


def main(measure: Measure, document: str, *options: tuple[str, dict[str, Any]]) -> None:
    """Run a benchmark as a program.

    measure  : gets the parsed arguments, returns the result; progress goes to stderr.
    document : the script's docstring, shown by ``--help``.
    options  : name and ``add_argument`` keywords of the benchmark's own options.

    Exit status 0 if every check is met, 1 if one is missed or something is refused, 2 for wrong
    usage. The result's file is written in all but the last two cases.
    """
    name = _name(Path(sys.argv[0]).resolve())
    parser = argparse.ArgumentParser(
        description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, keywords in options:
        parser.add_argument(option, **keywords)
    parser.add_argument("--json", action="store_true",
                        help="one JSON object on stdout, nothing else")
    parser.add_argument("--output", type=Path, default=FOLDER / f"{name}.json",
                        help="file of the result (%(default)s)")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        result = measure(arguments)
    except CelosiaError as problem:
        sys.exit(f"{name}: {problem}")
    values = _circumstances(name, time.monotonic() - started) | result.to_json()
    _write(arguments.output, values)
    if arguments.json:
        print(json.dumps(values, allow_nan=False))
    else:
        _show(result)
    sys.exit(0 if result.met else 1)


def _name(script: Path) -> str:
    """Return "cycles" for benchmarks/cycles.py, "compression-bfp" for one in the folder below."""
    folder = script.parent.name
    return script.stem if folder == "benchmarks" else f"{folder}-{script.stem}"


def _circumstances(name: str, seconds: float) -> dict[str, Any]:
    """When, where and how a result came about."""
    options = [word for word in sys.argv[1:] if word != "--json"]
    command = (f"make bench-{name}" if not options
               else " ".join(["python", f"benchmarks/{name.replace('-', '/', 1)}.py", *options]))
    return {"benchmark": name, "command": command, "seconds": round(seconds, 1),
            "date": datetime.now().astimezone().date().isoformat(), "machine": _machine()}


def _machine() -> str:
    cpus = len(os.sched_getaffinity(0))
    return (f"{_processor()}, {cpus} core{'s' * (cpus > 1)}, {platform.system()}, "
            f"Python {platform.python_version()}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")


def _on_lines(table: Table) -> list[list[int]]:
    """Return the columns of each table that a wide one is printed as, the first in all of them."""
    parts: list[list[int]] = [[0]]
    for at in range(1, len(table.columns)):
        if len(parts[-1]) > 1 and not _part(table, [*parts[-1], at]).fits(tables.width()):
            parts.append([0])
        parts[-1].append(at)
    return parts


def _part(table: Table, columns: Sequence[int]) -> tables.Table:
    """Return some columns of a table, to be printed."""
    chosen = [table.columns[at] for at in columns]
    words = max(sum(column.form == "" for column in chosen), 1)
    part = terminal.table(table.title, *(column.title for column in chosen), words=words)
    for row in table.rows:
        part.add_row(*(column.show(row[at]) for column, at in zip(chosen, columns, strict=True)))
    return part


def _show(result: Result) -> None:
    for entry in result.tables:
        for columns in _on_lines(entry):
            terminal.show(_part(entry, columns))
    for note in result.notes:
        print(note)
    if result.checks:
        table = terminal.table("requirements", "what", "", "figure", "wanted", words=2)
        for check in result.checks:
            table.add_row(check.what, "met" if check.met else "MISSED", check.figure,
                          check.wanted)
        terminal.show(table)
