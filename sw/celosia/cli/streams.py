"""Tables about a program's stream, for the commands that show one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from celosia.cli import common
from celosia.show import figure
from celosia_spec.errors import FitError

if TYPE_CHECKING:
    from celosia.bands.occupancy import Piece
    from celosia.explain import LayerExplained
    from celosia.program import Program

_ROWS = 32
"""Lines of the picture of main memory, at most."""

_NAME = 14
"""Characters of a layer's name beside it."""


def steps(program: "Program") -> dict[str, Any] | None:
    """Return what a step of a program in steps is, and its cycles beside those of a window in one
    go, ready for JSON; None of other programs."""
    from celosia.bands.schedule import stream_schedule

    if program.steps is None:
        return None
    own = program.steps
    try:
        window = stream_schedule(own.window, program.array).predicted_cycles
    except FitError:
        window = None
    return {"hop": own.hop, "lines": own.lines, "first": own.first, "period": own.period,
            "cycles": list(program.step_cycles), "window_cycles": window}


def steps_told(told: Mapping[str, Any], clock: float) -> str:
    """Return the same in words.   clock : MHz."""
    least, most, hop = min(told["cycles"]), max(told["cycles"]), told["hop"]
    span = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    window = told["window_cycles"]
    beside = ("the array has no room for a window in one go" if window is None else
              f"a window of {told['lines']} lines in one go takes {window:,}, {window / most:.1f} "
              f"times as many")
    lines = "line" if hop == 1 else "lines"
    return (f"a step of {hop} {lines} takes {span} cycles, {figure(most / clock / 1e3)} ms; "
            f"{beside}. It keeps up with {figure(hop * clock * 1e6 / most)} lines a second at "
            f"{clock:g} MHz; the first result comes with step {told['first']:,}")


def spent(layers: Sequence[tuple[str, Mapping[str, int]]]) -> None:
    """Print on what the cycles of each layer, and of all, were spent."""
    keys = list(layers[0][1])
    table = common.table("what cycles were spent on, or waited for", "layer", "cycles", *keys)
    whole = {key: sum(own[key] for _, own in layers) for key in keys}
    for name, own in (*layers, *[("total", whole)] * (len(layers) > 1)):
        if own is whole:
            table.add_section()
        cycles = sum(own.values())
        table.add_row(name, f"{cycles:,}", *(f"{own[key] / cycles:.1%}" if own[key] else ""
                                             for key in keys))
    common.show(table)


def explained(program: "Program", layers: "Sequence[LayerExplained]",
              pieces: "Sequence[Piece]", *, lone: bool) -> None:
    """Print what `celosia.explain` found, of all layers or of one."""
    from celosia_sim.clock.machine_clock import SPENT

    table = common.table(
        "schedule", "layer", "kind", "groups", "lanes", "bands", "tiles", "batches", "passes",
        "fills", "entries", "fetched", "weights", "padding", words=2,
        optional=("padding", "weights", "kind", "lanes", "passes"))
    for known in layers:
        table.add_row(known.name, known.kind, str(known.groups), str(known.lanes),
                      str(known.bands), f"{known.tiles:,}", f"{known.batches:,}",
                      f"{known.passes:,}", f"{known.fills:,}", f"{known.entries:,}",
                      f"{known.fetched:,}", f"{known.weights:,}", f"{known.padding:,}")
    common.show(table)
    spent([(known.name, known.spent) for known in layers])
    print(common.wrapped("; ".join(f"{key}: {about}" for key, about in SPENT.items())))
    if lone:
        _commands(layers[0])
    else:
        _picture(program, pieces)
        print(common.wrapped("--layer LAYER tells a layer's commands, one by one"))


def _commands(layer: "LayerExplained") -> None:
    print(" word  command")
    for line in layer.lines:
        head = f"{line.entry:5}  {line.op:7}  "
        print(head + common.wrapped(" " * len(head) + line.says, " " * len(head)).lstrip())


def _picture(program: "Program", pieces: "Sequence[Piece]") -> None:
    """Print main memory layer by layer, a mark for each of its ranges, and whose the marks are."""
    from celosia.bands.occupancy import EMPTY, Kind, letters, picture
    from celosia_spec.isa.array import kib

    names = [layer.name for layer in program.layers]
    side = min(max(map(len, names)), _NAME)
    columns = max(common.width() - side - 1, 20)
    words = program.array.main_words
    columns = min(columns, words)
    lines = picture(pieces, len(names), words, columns)
    every = -(-len(names) // _ROWS)
    print(f"main memory, {kib(words):g} KiB: a mark is {kib(words) * 1024 / columns:,.0f} bytes"
          + (f"; a line for {every} layers" if every > 1 else ""))
    for name, line in list(zip(names, lines, strict=True))[::every]:
        print(f"{name if len(name) <= side else name[:side - 1] + '…':{side}} {line}")
    print(common.wrapped(f"fullest at {program.fullest_moment}"))
    marks = letters(pieces)
    for piece in sorted(pieces, key=lambda piece: (list(Kind).index(piece.kind), piece.life)):
        first, last = max(piece.life.born, 0), min(piece.life.dies, len(names) - 1)
        when = "always" if piece.kind == Kind.STREAM else (
            f"at {names[first]}" if first == last else f"{names[first]} to {names[last]}")
        what = {Kind.STREAM: "stream and its list of chunks", Kind.MAP: f"map {piece.name}",
                Kind.SECTION: f"entries of {piece.name}, from flash"}[piece.kind]
        print(common.wrapped(
            f"{marks[piece]}  {what}: {kib(piece.words):.1f} KiB, words {piece.first:,} to "
            f"{piece.first + piece.words - 1:,}, {when}", "   "))
    print(f"{EMPTY}  nothing")


def explained_json(program: "Program", layers: "Sequence[LayerExplained]",
                   pieces: "Sequence[Piece]", *, lone: bool) -> dict[str, Any]:
    """Return the same ready for JSON; commands of one layer only."""
    found = [asdict(layer) for layer in layers]
    for layer in found:
        if not lone:
            del layer["lines"]
    return {"target": program.target, "layers": found,
            "memory": [asdict(piece) for piece in pieces], "main_memory": program.main_memory}
