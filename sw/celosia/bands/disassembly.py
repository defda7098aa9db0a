"""A stream's words read back: what the machine will do, out of main memory alone."""

from dataclasses import dataclass, field

import numpy as np

from celosia.bands.program import StreamProgram
from celosia_sim.stream_memories import Flash, Reader, State
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import BATCH, COMMAND, HEAD, RECORDS, Op, head_words, is_command
from celosia_spec.isa.entries import elements_of
from celosia_spec.isa.words import DENSE, WEIGHT


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    entry  : word of main memory in which it begins.
    fields : of its record; of a wait its ``cycles``.   words : of a table.
    """

    op: Op
    entry: int
    fields: dict[str, int]
    words: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of rows, or a part of one.

    entry   : word of main memory in which it begins.   section : sections of flash that have been
    waited for until then.   fields : its word's.
    heads   : of its rows, none of a part that joins another.
    weights : mantissas that are not 0.
    """

    entry: int
    section: int
    fields: dict[str, int]
    heads: tuple[dict[str, int], ...]
    weights: int


@dataclass(kw_only=True)
class LayerWords:
    """What the machine meets from one layer's first command to its last.

    array : of the program.   items : in their order, of several clusters the first one's.
    beside : those of the other clusters.   taken : the entries that they stand in, piece by piece.
    waited : sections of flash that were waited for before each.
    """

    array: Array
    items: list[Command | Batch] = field(default_factory=list)
    beside: list[Command | Batch] = field(default_factory=list)
    taken: list[range] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)

    def commands(self, op: Op) -> list[Command]:
        """Return the commands of one kind."""
        return [item for item in self.items if isinstance(item, Command) and item.op == op]

    @property
    def bands(self) -> list[Command]:
        """The bands, without those between the pieces of a batch: these wait for the next page of
        the input, and change nothing."""
        found, open_ = [], 0
        for item in self.items:
            if isinstance(item, Batch):
                open_ = item.fields["open"]
            elif item.op == Op.BAND and not open_:
                found.append(item)
        return found

    def table(self, op: Op) -> list[int]:
        """Return the words of a table that are written, by their places."""
        found: dict[int, int] = {}
        for command in self.commands(op):
            found |= dict(enumerate(command.words, command.fields["place"]))
        return [found[place] for place in sorted(found)]

    @property
    def batches(self) -> list[Batch]:
        """The batches as often as they are read: each band reads its own anew."""
        return [item for item in (*self.items, *self.beside) if isinstance(item, Batch)]

    @property
    def kept(self) -> list[Batch]:
        """The batches as they stand in main memory, or come there: each once."""
        return list({(batch.section, batch.entry): batch for batch in self.batches}.values())

    @property
    def entries(self) -> int:
        """How many entries they stand in."""
        return len({(section, word) for section, words in zip(self.waited, self.taken, strict=True)
                    for word in words})

    @property
    def layer(self) -> dict[str, int]:
        """Fields of the layer."""
        return self.commands(Op.LAYER)[0].fields

    @property
    def groups(self) -> int:
        """Row groups."""
        return 1 << self.layer["log2_groups"]

    @property
    def windows(self) -> int:
        """Passes of a tile."""
        return self.layer["last_phase"] + 1


def layer_words(program: StreamProgram) -> list[LayerWords]:
    """Read a stream as the machine does, chunk by chunk; what is copied from flash as it comes."""
    found, *others = (_cluster_words(program, number)
                      for number in range(len(program.order.clusters)))
    for beside in others:
        for layer, own in zip(found, beside, strict=True):
            layer.beside += own.items
            layer.taken += own.taken
            layer.waited += own.waited
    return found


def _cluster_words(program: StreamProgram, number: int) -> list[LayerWords]:
    """Read what one cluster does."""
    flash = _flash(program) if program.flash.runs else None
    reader = Reader(program.entries, program.order.lists[number], flash, number)
    found, begin = [LayerWords(array=program.array)], 0
    while True:
        word = reader.control()
        layer = found[-1]
        if not is_command(word):
            layer.items.append(_batch(program.array, reader, word, layer))
            continue
        command = _command(reader, word)
        if command.op == Op.HALT:
            return found[:-1]
        if command.op == Op.COPY and flash is not None:
            flash.copy(command.fields["unit"])
        if command.op != Op.NOTHING:
            layer.items.append(command)
        if command.op in (Op.CLOSE, Op.JOIN) and layer.commands(Op.LAYER):
            layer.taken, layer.waited = reader.taken[begin:], reader.waited[begin:]
            begin = len(reader.taken)
            found.append(LayerWords(array=program.array))


def _flash(program: StreamProgram) -> Flash:
    """Return the flash behind a main memory that holds what is resident."""
    main = np.zeros(program.array.main_words * ENTRY_WORDS, np.int64)
    resident = elements_of(program.entries).ravel()
    main[:resident.size] = resident
    return Flash(State(array=program.array, main=main), program.sections, program.order.waiting,
                 late=False)


def _command(reader: Reader, word: int) -> Command:
    fields, entry = COMMAND.unpack(word), reader.taken[-1][-1]
    op, argument = Op(fields["op"]), fields["argument"]
    record = RECORDS.get(op)
    if record is None:
        return Command(op=op, entry=entry, fields={})
    words, size = reader.controls(argument), len(record.words)
    return Command(op=op, entry=entry, fields=record.unpack(words[:size]),
                   words=tuple(words[size:]))


def _batch(array: Array, reader: Reader, word: int, layer: LayerWords) -> Batch:
    fields, entry, section = BATCH.unpack(word), reader.taken[-1][-1], reader.waited[-1]
    size = 0 if fields["joins"] else head_words(
        array, signed_in=bool(layer.layer["signed_in"]))
    heads = tuple(HEAD.unpack(reader.controls(size)[:len(HEAD.words)])
                  for _ in range(layer.groups if size else 0))
    if layer.layer["residual"] and not fields["joins"]:
        reader.weights(layer.groups)        # steps that read what is added
    dense = fields["dense"]
    words = reader.weights(-(-fields["steps"] // (1 + dense)) * layer.groups)
    mantissas = DENSE.unpack(words).values() if dense else [WEIGHT.unpack(words)["mantissa"]]
    return Batch(entry=entry, section=section, fields=fields, heads=heads,
                 weights=sum(int(np.count_nonzero(own)) for own in mantissas))
