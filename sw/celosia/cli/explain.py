"""``celosia explain``."""

from typing import Annotated

import typer

from celosia.cli import common, streams
from celosia_spec.errors import CelosiaError, quoted


def explain(
    program: common.ProgramPath,
    layer: Annotated[str | None, typer.Option(
        "--layer", metavar="LAYER", help="One layer alone, with its commands one by one, in "
                                         "words.")] = None,
    json: common.Json = False,
) -> None:
    """Tell what the machine will do: schedule, memory map, and commands, read back out of the words
    of a program."""
    from celosia.explain import explain as explained

    loaded = common.load_program(program)
    names = [known.name for known in loaded.layers]
    if layer is not None and layer not in names:
        raise CelosiaError(f"{program}: no layer {quoted(layer)}; --layer takes one of "
                           f"{', '.join(names)}")
    layers, memory = explained(loaded)
    layers = [known for known in layers if layer in (None, known.name)]
    if json:
        common.emit(streams.explained_json(loaded, layers, memory, lone=layer is not None))
    else:
        streams.explained(layers, memory, lone=layer is not None)
