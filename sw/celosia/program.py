"""A program as users have it: it prints, a notebook shows it, and it writes its file."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from celosia.bands.layouts import tap_words
from celosia.bands.occupancy import Moment
from celosia.bands.program import StreamProgram
from celosia.bands.report import main_memory
from celosia.bands.schedule import StreamSchedule
from celosia.original import QuantisedLoss
from celosia.show import html, text
from celosia_spec import container
from celosia_spec.errors import ArgumentError, CompileError
from celosia_spec.host_layers import HostLayer
from celosia_spec.isa.image import pack
from celosia_spec.isa.memories import addresses
from celosia_spec.network_inputs import Input
from celosia_spec.outputs import Output
from celosia_spec.preprocessing import Preprocessing
from celosia_spec.program import Compiled, MemoryUse
from celosia_spec.record import check_names, graph_sections, network_entries
from celosia_spec.steps import Steps


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Program(Compiled):
    """What one array needs to run one network. Printed, it is three lines; in a notebook, tables.

    Its other fields are those of `celosia_spec.program.Compiled`.

    program     : what main memory and flash hold.
    step_cycles : of each step of a period; of a network in one go, of that.
    noise       : signal to noise of every stored tensor before and after what was done for
                  accuracy, dB, by its name; not in the file.
    quantised   : of a quantised network, how far this is from it, on the calibration inputs; None
                  without such. Not in the file.
    """

    program: StreamProgram
    step_cycles: tuple[int, ...]
    noise: dict[str, tuple[float, float]] = field(default_factory=dict)
    quantised: QuantisedLoss | None = None

    def __post_init__(self) -> None:
        """CompileError where a step makes some lines alone of maps that are returned together, or
        that the host goes on with."""
        output = self.graph.output
        if self.steps is None or (
                self.graph.tensors[output].shape == self.steps.window.tensors[output].shape):
            return
        if self.returns:
            raise CompileError(output, "output", "it is several maps over time, of which a step "
                               "makes some lines alone", "join them along axis 1 (torch.cat), and "
                               "split what each step gives")
        if self.host:
            raise CompileError(self.host[0].name, self.host[0].operator, "it reads a map over "
                               "time, of which a step makes some lines alone", "end the network in "
                               "front of it, and compute it of the lines that steps give")

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)

    @property
    def steps(self) -> Steps | None:
        return self.program.steps

    @property
    def memory_use(self) -> tuple[MemoryUse, ...]:
        """How much of main memory is needed from its begin on, and the tables of the layers."""
        program = self.program
        used = {"main memory": main_memory(program).needed,
                "taps": max(tap_words(layer.layout.phases()) for layer in program.layers),
                "exponents": 1 + max(program.slots.values())}
        return tuple(MemoryUse(name, used[name], available)
                     for name, available in addresses(self.array).items())

    @property
    def fullest_moment(self) -> Moment:
        """When most of main memory is taken."""
        return main_memory(self.program).fullest

    @property
    def fullest(self) -> str:
        """Which memory is fullest, in words."""
        return f"main memory, at {self.fullest_moment}"

    @property
    def main_memory(self) -> dict[str, Any]:
        """When most of main memory is taken, words of it, and the bytes that are copied from flash,
        by the layer; ready for JSON."""
        return main_memory(self.program).told

    @property
    def image(self) -> bytes:
        """What the board's flash has to hold for it."""
        array = self.array
        return pack(array, self.program.sections) if array.flash else b""

    def save(self, path: str | Path) -> None:
        """Write the file; it appears whole or not at all. CelosiaError where it cannot be written,
        or a name could not be read back."""
        check_names(path, self.program.source, self.host, self.returns,
                    self.takes)
        container.write(path, *self.sections())

    def sections(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the manifest and the arrays: the network; main memory's words, lower half first;
        the image of flash, if the array has one; where maps lie, and their exponents."""
        program = self.program
        entries = network_entries(
            replace(program.source, remarks=self.graph.remarks), target=self.target,
            array=program.array, array_hash=program.array.hash, exponents=self.exponents,
            host=self.host, returns=self.returns, takes=self.takes,
            preprocessing=self.preprocessing)
        manifest = entries | {
            "list": program.list_at, "slots": program.slots,
            "reads": program.reads,
            "places": {name: [place.word, place.words, place.stride, int(place.wide)]
                       for name, place in program.places.items()}}
        if program.steps is not None:
            manifest |= {"hop": program.steps.hop}
        arrays = {"stream": program.entries.astype("<u8").view("<u4").reshape(-1, 2)}
        if program.array.flash:
            arrays["flash"] = np.frombuffer(self.image, np.uint8)
        return manifest, arrays | graph_sections(program.source)


def check_program(given: object) -> None:
    """ArgumentError unless something is a program."""
    if isinstance(given, Program):
        return
    if isinstance(given, (str, os.PathLike)):
        raise ArgumentError(f"program: a path; give celosia.load({str(given)!r})")
    raise ArgumentError(f"program: {type(given).__name__}; give what celosia.compile or "
                        f"celosia.load returns")


def program_of(found: StreamSchedule, *, target: str, exponents: str,
               host: tuple[HostLayer, ...] = (), returns: tuple[Output, ...] = (),
               takes: tuple[Input, ...] = (),
               preprocessing: Preprocessing | None = None) -> Program:
    """Return the program of a network as an array runs it."""
    program = found.stream
    return Program(target=target, array=found.array, exponents=exponents,
                   graph=program.source if program.steps is None else program.steps.graph,
                   layers=found.layers, host=host, returns=returns, takes=takes,
                   preprocessing=preprocessing, program=program, step_cycles=found.step_cycles)
