"""``celosia compare``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from celosia import backends
from celosia.cli import common
from celosia.cli.noise import compare_with_float
from celosia.cli.page import check_page
from celosia.cli.progress import work
from celosia.cli.tables import Table
from celosia.compare import Comparison, count
from celosia.compare import compare as compare_program
from celosia.program import Program
from celosia.show import clock_of, rate, speed
from celosia_spec.errors import CelosiaError


def compare(
    program: common.ProgramPath,
    backend: Annotated[str | None, typer.Option(
        help="board:PORT, to count each layer's cycles on a board; with --against float whatever "
             "is to have the golden model's mantissas.")] = None,
    port: common.Port = None,
    baud: common.Baud = None,
    against: Annotated[str | None, typer.Option(
        metavar="float", help="The float network, to show what rounding costs in each layer.")]
    = None,
    model: Annotated[str | None, typer.Option(
        metavar="MODEL", help="What the program was compiled from; with --against float.")] = None,
    weights: common.Weights = None,
    input: Annotated[list[Path] | None, typer.Option(
        metavar="FILE", help="Inputs, as `celosia run` takes them; with --against float.")] = None,
    limit: Annotated[int | None, typer.Option(
        min=1, help="Only the first so many inputs.")] = None,
    html: common.Html = None,
    json: common.Json = False,
) -> None:
    """Set sparse, dense and the bound side by side, layer by layer, on the same lanes.

    With a board: the cycles that were predicted, that the simulated gateware takes, and that the
    board counts. With --against float: signal to noise of what each layer stores, and the layer
    that costs the outputs most.
    """
    noisy = _noisy(against, model, weights, input, limit, html)
    check_page(html, program, *input or (), *([weights] if weights else []))
    loaded = common.load_program(program)
    if noisy is not None:
        named = None if backend is None and port is None else common.backend_of(
            backend, port, backends.BOARD)
        compare_with_float(loaded, *noisy, limit, backend=named, baud=baud, html=html, json=json)
        return
    if backend is not None or port is not None:
        _with_board(loaded, common.backend_of(backend, port, backends.BOARD), baud, json)
        return
    result, clock = compare_program(loaded), clock_of(loaded)
    if json:
        common.emit({
            "target": loaded.target, "lanes": loaded.lanes, "clock_mhz": clock,
            **rate(loaded.predicted_cycles, clock)._asdict(),
            "layers": [asdict(layer) for layer in result.layers],
            **{key: value for key, value in asdict(result.total).items() if key != "name"}})
    else:
        common.show(comparison_table(f"{loaded.target}, {loaded.lanes} lanes", result, clock))
        print(f"sparse: {speed(result.total.cycles_sparse, clock)}\n"
              f"dense:  {speed(result.total.cycles_dense, clock)}")


def _noisy(against: str | None, model: str | None, weights: Path | None, input: list[Path] | None,
           limit: int | None, html: Path | None) -> tuple[str, Path | None, list[Path]] | None:
    """Return model, its weights and inputs to compare with float; None without --against."""
    if against is None:
        if any(given is not None for given in (model, weights, input, limit, html)):
            raise CelosiaError("--model, --weights, --input, --limit and --html go with --against "
                               "float; give it, too")
        return None
    if against != "float":
        raise CelosiaError(f"--against {against!r}: a program is compared with float; give "
                           f"--against float")
    if model is None or not input:
        raise CelosiaError("--against float needs the model that the program was compiled from, "
                           "and inputs; give --model MODEL --input FILE")
    return model, weights, input


def _with_board(program: Program, backend: str, baud: int | None, json: bool) -> None:
    """Show predicted, simulated and counted cycles; refuse where they differ."""
    from celosia.board import loaded

    named = backends.named(backend)
    if not isinstance(named, backends.BoardAt):
        raise CelosiaError(f"backend {backend!r} counts nothing that a program's table does not "
                           f"have; use {backends.BOARD}:PORT, or leave --backend out")
    with work("comparing with the board") as shown, loaded(
            program, named.port, baud=baud, stages=shown.stage,
            notice=common.notice) as board:
        counts = count(program, board, shown.stage)
    different = [entry.name for entry in counts if not entry.agrees]
    if json:
        common.emit({"target": program.target, "port": board.name, "different": different,
                     "layers": [asdict(entry) for entry in counts[:-1]],
                     **{key: value for key, value in asdict(counts[-1]).items() if key != "name"}})
    else:
        table = common.table(f"{program.target} at {board.name}: cycles", "layer", "predicted",
                             "simulated", "counted", "")
        for entry in counts:
            if entry is counts[-1]:
                table.add_section()
            table.add_row(entry.name, f"{entry.predicted:,}", f"{entry.simulated:,}",
                          f"{entry.counted:,}", "" if entry.agrees else "DIFFERS")
        common.show(table)
    if different:
        common.refuse(f"cycles differ in {', '.join(different)}; verify the program on the board "
                      f"(celosia verify --port {board.name}) and report it with the program")


def comparison_table(title: str, result: Comparison, clock_mhz: float) -> Table:
    """Return the table of a comparison, its total last."""
    table = common.table(title, "layer", "density", "sparse cycles", "ms", "dense cycles",
                         "bound cycles", "speed-up", "utilisation",
                         optional=("ms", "density", "utilisation"))
    for layer in (*result.layers, result.total):
        if layer is result.total:
            table.add_section()
        table.add_row(layer.name, f"{layer.density:.1%}", f"{layer.cycles_sparse:,}",
                      f"{rate(layer.cycles_sparse, clock_mhz).milliseconds:,.3f}",
                      f"{layer.cycles_dense:,}", f"{layer.cycles_bound:,}",
                      f"{layer.cycles_dense / layer.cycles_sparse:.2f}",
                      f"{layer.utilisation:.1%}")
    return table
