"""``celosia explain``."""

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from celosia import api
from celosia.cli import common, streams
from celosia.program import CoreProgram
from celosia_spec.errors import CelosiaError, quoted

if TYPE_CHECKING:
    from celosia.bands.file import StreamFile
    from celosia.explain import LayerExplained, Region


def explain(
    program: common.ProgramPath,
    layer: Annotated[str | None, typer.Option(
        "--layer", metavar="LAYER", help="One layer alone, with its descriptor field by field or "
                                         "its commands one by one, in words.")] = None,
    json: common.Json = False,
) -> None:
    """Tell what the machine will do: schedule, memory map, and descriptors or commands, read back
    out of the words of a program."""
    from celosia.bands.file import StreamFile

    loaded = api.load(program)
    names = [known.name for known in loaded.layers]
    if layer is not None and layer not in names:
        raise CelosiaError(f"{program}: no layer {quoted(layer)}; --layer takes one of "
                           f"{', '.join(names)}")
    if isinstance(loaded, StreamFile):
        _stream(loaded, layer, json=json)
    elif isinstance(loaded, CoreProgram):
        _core(loaded, layer, json=json)


def _stream(loaded: "StreamFile", layer: str | None, *, json: bool) -> None:
    from celosia.bands.explain import explain as explained

    layers, pieces = explained(loaded)
    layers = [known for known in layers if layer in (None, known.name)]
    if json:
        common.emit(streams.explained_json(loaded, layers, pieces, lone=layer is not None))
    else:
        streams.explained(loaded, layers, pieces, lone=layer is not None)


def _core(loaded: CoreProgram, layer: str | None, *, json: bool) -> None:
    from celosia.explain import explain as explained
    from celosia.explain import memory_map

    layers = explained(loaded)
    if layer is not None:
        layers = [known for known in layers if known.name == layer]
    regions = [region for known in layers for region in known.regions] if layer is not None else (
        memory_map(loaded, layers))
    if json:
        common.emit({"target": loaded.target, "layers": [asdict(known) for known in layers],
                     "memory": [asdict(region) for region in regions]})
        return
    _schedule(layers)
    if layer is not None:
        _descriptor(layers[0])
    _map(regions)
    if layer is None:
        print(common.wrapped("--layer LAYER tells a layer's descriptor, field by field"))


def _schedule(layers: "list[LayerExplained]") -> None:
    table = common.table(
        "schedule", "layer", "kind", "groups", "lanes", "batches", "tiles", "windows", "steps",
        "waits", "weights", "padding", words=2,
        optional=("padding", "weights", "kind", "lanes", "waits"))
    for known in layers:
        table.add_row(known.name, known.kind, str(known.groups), str(known.lanes),
                      f"{known.batches:,}", f"{known.tiles:,}", str(known.windows),
                      f"{known.issued:,}", f"{known.waited:,}", f"{known.weights:,}",
                      f"{known.padding:,}")
    common.show(table)


def _descriptor(layer: "LayerExplained") -> None:
    """Sentences, then a line or more for each field: word, name, value, meaning."""
    for sentence in layer.does:
        print(common.wrapped(sentence))
    print("word bits  field            value  meaning")
    for line in layer.descriptor:
        bits = str(line.low) if line.bits == 1 else f"{line.low}..{line.low + line.bits - 1}"
        head = f"{line.word:4} {bits:6} {line.name:15} {line.value:6,}  "
        print(textwrap.fill(line.about, max(common.width(), len(head) + 20), initial_indent=head,
                            subsequent_indent=" " * len(head)))


def _map(regions: "list[Region]") -> None:
    table = common.table("memory map, addresses of the host bus", "memory", "holds", "first",
                         "last", "of", words=2, optional=("of",))
    for region in regions:
        table.add_row(region.memory, region.holds, f"{region.first:,}", f"{region.last:,}",
                      f"{region.depth:,}")
    common.show(table)
