"""Files of the second machine's programs: written, and read back as what this release makes of the
network in them.

All that a program holds follows from its quantised graph and its array. So a file is hostile until
these two are checked (`celosia_spec.record`) and compiled again, and the file is, section for
section, what `save` writes of the program that came of it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Strict, TypeAdapter

from celosia.bands.layouts import tap_words
from celosia.bands.occupancy import Kind, Moment, flash_bytes, fullest, pieces
from celosia.bands.program import StreamProgram
from celosia.bands.schedule import StreamSchedule, stream_schedule
from celosia.bands.steps import steps
from celosia.program import Program
from celosia.read_back import read_back
from celosia_spec import container
from celosia_spec.host_layers import HostLayer
from celosia_spec.isa import ArrayConfig
from celosia_spec.preprocessing import Preprocessing
from celosia_spec.program import MemoryUse
from celosia_spec.record import (
    check_names,
    graph_of,
    graph_sections,
    network_entries,
    network_of,
)
from celosia_spec.steps import Steps
from celosia_spec.stream.array import Array
from celosia_spec.stream.image import pack
from celosia_spec.stream.memories import EXPONENT_SLOTS

_ARRAY = TypeAdapter(Array)
_HOP: TypeAdapter[int] = TypeAdapter(Annotated[int, Strict()])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StreamFile(Program):
    """A program of the second machine, as users have it.

    program : what main memory holds.
    step_cycles : of each step of a period; of a network in one go, of that.
    """

    array: Array
    program: StreamProgram
    step_cycles: tuple[int, ...]

    @property
    def steps(self) -> Steps | None:
        return self.program.steps

    @property
    def memory_use(self) -> tuple[MemoryUse, ...]:
        """How much of main memory is needed from its begin on, and the tables of the layers."""
        program, array = self.program, self.array
        return (
            MemoryUse("main memory", max(piece.first + piece.words for piece in pieces(program)),
                      array.main_words),
            MemoryUse("taps", max(tap_words(layer.layout.phases()) for layer in program.layers),
                      array.taps),
            MemoryUse("exponents", 1 + max(program.slots.values()), EXPONENT_SLOTS))

    @property
    def fullest_moment(self) -> Moment:
        """When most of main memory is taken."""
        return fullest(pieces(self.program), self.program)

    @property
    def fullest(self) -> str:
        """Which memory is fullest, in words."""
        return f"main memory, at {self.fullest_moment}"

    @property
    def main_memory(self) -> dict[str, Any]:
        """When most of main memory is taken, words of it, and the bytes that are copied from flash,
        by the layer; ready for JSON."""
        moment = self.fullest_moment
        return {"fullest": {"layer": moment.layer, "used": moment.used,
                            "available": moment.available, "maps": moment.words[Kind.MAP],
                            "stream": moment.words[Kind.STREAM],
                            "sections": moment.words[Kind.SECTION]},
                "flash_bytes": flash_bytes(self.program)}

    @property
    def image(self) -> bytes:
        array = self.array
        return pack(array, self.program.sections) if array.flash else b""

    def save(self, path: str | Path) -> None:
        """Write the file; it appears whole or not at all. CelosiaError where it cannot be written,
        or a name could not be read back."""
        check_names(path, self.program.source, self.host)
        container.write(path, *self.sections(), version=container.STREAM_VERSION)

    def sections(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the manifest and the arrays: the network; main memory's words, lower half first;
        the image of flash, if the array has one; where maps lie, and their exponents."""
        program = self.program
        entries = network_entries(
            program.source, target=self.target, array=_limits(program.array),
            array_hash=program.array.hash, exponents=self.exponents, host=self.host,
            preprocessing=self.preprocessing)
        manifest = entries | {
            "machine": asdict(program.array), "list": program.list_at, "slots": program.slots,
            "reads": program.reads,
            "places": {name: [place.word, place.words, place.stride, int(place.wide)]
                       for name, place in program.places.items()}}
        if program.steps is not None:
            manifest |= {"hop": program.steps.hop}
        arrays = {"stream": program.entries.astype("<u8").view("<u4").reshape(-1, 2)}
        if program.array.flash:
            arrays["flash"] = np.frombuffer(self.image, np.uint8)
        return manifest, arrays | graph_sections(program.source)


def stream_file(found: StreamSchedule, *, target: str, exponents: str,
                host: tuple[HostLayer, ...] = (),
                preprocessing: Preprocessing | None = None) -> StreamFile:
    """Return the program of a network as an array runs it."""
    program = found.stream
    return StreamFile(target=target, array=found.array, exponents=exponents,
                      graph=program.source if program.steps is None else program.steps.graph,
                      layers=found.layers, host=host, preprocessing=preprocessing,
                      program=program, step_cycles=found.step_cycles)


def load(path: str | Path) -> StreamFile:
    """Return the file in ``path``.

    CelosiaError where it is foreign or damaged, or holds anything else than this release makes of
    the network and the array in it; OSError where it cannot be read.
    """
    return read_back(path, container.STREAM_VERSION, _file, StreamFile.sections)


def _file(manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> StreamFile:
    """Return what the compiler makes of the network in a file.

    KeyError where an entry or a section is missing, ValueError where one is not as it must be.
    """
    network = network_of(manifest)
    array = _ARRAY.validate_json(container.to_json(manifest["machine"]), strict=True)
    if array.hash != network.array_hash:
        raise ValueError(f"it is for another array: its hash is not {array.hash:08x}, that of this "
                         f"release's array of the same parameters")
    if network.array != _limits(array):
        raise ValueError("its limits are not those of its array")
    graph = graph_of(network, arrays)
    found = steps(graph, _HOP.validate_python(manifest["hop"])) if "hop" in manifest else None
    return stream_file(stream_schedule(graph, array, found), target=network.target,
                       exponents=network.exponents, host=network.host,
                       preprocessing=network.preprocessing)


def _limits(array: Array) -> ArrayConfig:
    """Return an array of the first machine by whose limits networks are checked before they are
    compiled: no narrower than this one's, and small enough that checking and compiling end."""
    return ArrayConfig(
        lanes=16, quad=2, beat=2, weight_rows=1 << 16, bank_rows=1 << 14, table_rows=1 << 14,
        taps=1 << 16, residual_beats=(1 << 16) * array.residual, acc_bits=array.acc_bits,
        weight_bits=array.weight_bits, activation_bits=array.activation_bits, clamp=array.clamp)
