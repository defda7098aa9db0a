"""The machine's control path: what a stream makes happen (decision 16)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import BATCH, COMMAND, RECORDS, Op, head_words


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass.

    steps, mantissas : of each step, for each quad.   load : the first products replace the sums.
    captured : the sums leave behind it.   heads : their words, if so.
    first, begins, ends : pass of its batch; its window begins, ends.
    """

    steps: Sequence[Sequence[int]]
    mantissas: Sequence[Sequence[int]]
    load: bool
    captured: bool
    heads: Sequence[int]
    first: bool
    begins: bool
    ends: bool


@dataclass
class Events:
    """What happens, kind by kind, in order.

    taps, tiles : (place, word).   fills : control words.
    bands, layers, passes : (what it is, events of each other kind before it).
    closes : closes and joins, with their fields.   copies : units of flash.
    """

    taps: list[tuple[int, int]] = field(default_factory=list)
    tiles: list[tuple[int, int]] = field(default_factory=list)
    fills: list[list[int]] = field(default_factory=list)
    bands: list[tuple[dict[str, int], dict[str, int]]] = field(default_factory=list)
    layers: list[tuple[dict[str, int], dict[str, int]]] = field(default_factory=list)
    closes: list[tuple[Op, dict[str, int]]] = field(default_factory=list)
    copies: list[int] = field(default_factory=list)
    passes: list[tuple[Pass, dict[str, int]]] = field(default_factory=list)

    def before(self) -> dict[str, int]:
        return {name: len(found) for name, found in vars(self).items()}


@dataclass
class Exponents:
    """Exponents of slots, + 16."""

    exponents: list[int]

    def close(self, op: Op, fields: dict[str, int], top: int) -> None:
        """Close or join; ``top`` is the largest that was written since the last one."""
        found = top if op == Op.CLOSE else max(
            self.exponents[fields["first"]], self.exponents[fields["second"]] - fields["room"])
        self.exponents[fields["slot"]] = min(max(found, fields["least"] + 16), fields["most"] + 16)


def _entries(memory: Sequence[int], chunks: Sequence[tuple[int, int]]) -> Iterator[int]:
    for first, count in chunks:
        yield from memory[first:first + count]


class _Words:
    """Control words of entries, one after the other."""

    def __init__(self, entries: Iterator[int]) -> None:
        self.entries, self.left = entries, list[int]()

    def take(self, count: int) -> list[int]:
        while len(self.left) < count:
            entry = next(self.entries)
            self.left += [entry >> 16 * k & 0xFFFF for k in range(ENTRY_WORDS)]
        found, self.left = self.left[:count], self.left[count:]
        return found

    def weights(self, count: int) -> list[int]:
        self.left = []
        return [next(self.entries) for _ in range(count)]


def events(array: Array, memory: Sequence[int], chunks: Sequence[tuple[int, int]]) -> Events:
    """Return what a stream makes happen."""
    found, words = Events(), _Words(_entries(memory, chunks))
    layer: dict[str, int] = {}
    heads: list[int] = []
    while True:
        word, = words.take(1)
        if not word & 1:
            batch = BATCH.unpack(word)
            groups = 1 << layer["log2_groups"]
            if not batch["joins"]:
                heads = words.take(groups * head_words(array, signed_in=bool(layer["signed_in"])))
            pairs = -(-batch["steps"] >> batch["dense"])
            added = words.weights(1)[0] if layer["residual"] and not batch["joins"] else None
            entries = words.weights(-(-pairs * groups // ENTRY_WORDS))
            found.passes += [(one, found.before()) for one in
                             _passes(array, batch, heads, layer, found.bands[-1][0], added,
                                     entries)]
            continue
        command = COMMAND.unpack(word)
        op = Op(command["op"])
        if op == Op.HALT:
            return found
        if op not in RECORDS:
            continue
        own = words.take(command["argument"])
        fields = RECORDS[op].unpack(own[:len(RECORDS[op].words)])
        if op in (Op.TAPS, Op.TILES):
            table = found.taps if op == Op.TAPS else found.tiles
            table += [(fields["place"] + k, value) for k, value in enumerate(own[1:])]
        elif op == Op.FILL:
            found.fills.append(own)
        elif op == Op.COPY:
            found.copies.append(fields["unit"])
        elif op == Op.BAND:
            found.bands.append((fields, found.before()))
        elif op in (Op.CLOSE, Op.JOIN):
            found.closes.append((op, fields))
        else:
            layer = fields
            found.layers.append((layer, found.before()))


def _passes(array: Array, batch: dict[str, int], heads: list[int], layer: dict[str, int],
            band: dict[str, int], added: int | None, entries: list[int]) -> Iterator[Pass]:
    """Yield the passes of a batch; ``added`` is the entry that reads its residual operand."""
    quads, groups, dense = array.lanes // 4, 1 << layer["log2_groups"], batch["dense"]
    steps, mantissas = [], []
    if added is not None:
        first = [added >> 16 * (quad * groups // quads) & 0xFFFF for quad in range(quads)]
    for step in range(batch["steps"]):
        step_row, mantissa_row = [], []
        for quad in range(quads):
            group = quad * groups // quads
            entry, slot = divmod((step >> dense) * groups + group, ENTRY_WORDS)
            word = entries[entry] >> 16 * slot & 0xFFFF
            step_row.append(int(step > 0 or batch["joins"]) if dense else word >> 8)
            mantissa_row.append(word >> 8 * (dense and step % 2) & 0xFF)
        steps.append(step_row)
        mantissas.append(mantissa_row)
    for tile in range(band["last_tile"] + 1):
        for phase in range(layer["residual"] and batch["joins"], layer["last_phase"] + 1):
            alone = added is not None and phase == 0
            yield Pass(steps=[[word >> 8 for word in first]] if alone else steps,
                       mantissas=[[word & 0xFF for word in first]] if alone else mantissas,
                       load=not batch["joins"], captured=alone or not batch["open"],
                       heads=heads, first=tile == phase == 0,
                       begins=phase == 0, ends=phase == layer["last_phase"])
