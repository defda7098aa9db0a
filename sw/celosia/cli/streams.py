"""Tables about a program's stream, for the commands that show one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from celosia.cli import common
from celosia.show import figure
from celosia_spec.errors import FitError

if TYPE_CHECKING:
    from celosia.bands.occupancy import MainMemory
    from celosia.explain import LayerExplained
    from celosia.program import Program


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


def spent_told(layers: Sequence[tuple[str, Mapping[str, int]]]) -> None:
    """Print the same, and what each of it means."""
    from celosia_sim.clock.machine_clock import SPENT

    spent(layers)
    print(common.wrapped("; ".join(f"{key}: {about}" for key, about in SPENT.items())))


def explained(layers: "Sequence[LayerExplained]", memory: "MainMemory", *, lone: bool) -> None:
    """Print what `celosia.explain` found, of all layers or of one."""
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
    spent_told([(known.name, known.spent) for known in layers])
    if lone:
        _commands(layers[0])
    else:
        picture(memory)
        print(common.wrapped("--layer LAYER tells a layer's commands, one by one"))


def _commands(layer: "LayerExplained") -> None:
    print(" word  command")
    for line in layer.lines:
        head = f"{line.entry:5}  {line.op:7}  "
        print(head + common.wrapped(" " * len(head) + line.says, " " * len(head)).lstrip())


def picture(memory: "MainMemory") -> None:
    """Print main memory layer by layer, and who lies there."""
    print("\n".join(memory.lines(max(common.width(), 20))))


def memory_json(memory: "MainMemory | None") -> dict[str, Any]:
    """Return the same ready for JSON."""
    if memory is None:
        return {"memory": None, "main_memory": None}
    return {"memory": [asdict(piece) for piece in memory.pieces],
            "main_memory": memory.told}


def explained_json(program: "Program", layers: "Sequence[LayerExplained]",
                   memory: "MainMemory", *, lone: bool) -> dict[str, Any]:
    """Return the same ready for JSON; commands of one layer only."""
    found = [asdict(layer) for layer in layers]
    for layer in found:
        if not lone:
            del layer["lines"]
    return {"target": program.target, "layers": found, **memory_json(memory)}
