"""Random streams: layers, bands, batches, fills and copies in the order that the machine asks for,
with words that mean nothing else."""




from celosia_spec.isa.array import ENTRY_WORDS, RING_GAP
from celosia_spec.isa.controls import (
    BATCH,
    CHUNK,
    COMMAND,
    COPIES,
    FILL,
    RECORDS,
    Op,
    head_words,
)

NOTHING = COMMAND.pack(command=1, op=Op.NOTHING)


class Writer:
    """A random stream."""

    def __init__(self, array, rng, *, calm=False):
        self.array, self.rng, self.calm = array, rng, calm
        self.memory, self.chunks = [rng.getrandbits(64) for _ in range(array.main_words)], []
        self.copied = []        # chunks whose entries are copied from flash
        self.at = rng.randrange(50)

    def read(self, chunk, *, copied=False):
        first, count = chunk
        if copied:
            self.copied.append((len(self.chunks), range(first, first + count)))
        while count > 3 and self.rng.random() < 0.3:            # two chunks may be neighbours
            part = self.rng.randrange(1, count)
            self.chunks.append((first, part))
            first, count = first + part, count - part
        self.chunks.append((first, count))

    def add(self, entries):
        first = self.at
        assert first + len(entries) < len(self.memory)
        self.memory[first:first + len(entries)] = entries
        self.at += len(entries) + self.rng.choice([0, 0, 3])
        return first, len(entries)

    def entries(self, words):
        words = words + [NOTHING] * (-len(words) % ENTRY_WORDS)
        return [sum(word << 16 * k for k, word in enumerate(words[at:at + ENTRY_WORDS]))
                for at in range(0, len(words), ENTRY_WORDS)]

    def command(self, op, words=(), **fields):
        own = [*(RECORDS[op].pack(**fields) if op in RECORDS else []), *words]
        return [COMMAND.pack(command=1, op=op, argument=max(len(own), 1)), *own]

    def noise(self, count):
        return [self.rng.getrandbits(16) for _ in range(count)]

    def fill(self):
        words = self.noise(len(FILL.words))
        return [COMMAND.pack(command=1, op=Op.FILL, argument=len(words)), *words]

    def batch(self, layer, steps, dense, joins=0, more=0):
        groups = 1 << layer["log2_groups"]
        words = [BATCH.pack(steps=steps, single=steps == 1, dense=dense, joins=joins, open=more)]
        if not joins:
            words += self.noise(groups * head_words(self.array, signed_in=bool(layer["signed_in"])))
        count = -(-steps * groups // (ENTRY_WORDS << dense)) + (layer["residual"] and not joins)
        return self.entries(words) + [self.rng.getrandbits(64) for _ in range(count)]

    def layer(self):
        rng, array = self.rng, self.array
        layer = {
            "log2_groups": rng.randrange(array.groups_max.bit_length()),
            "signed_in": rng.randrange(2),
            "wide": int(rng.random() < 0.1), "residual": int(array.residual and rng.random() < 0.2),
            "in_slot": rng.randrange(32), "residual_slot": rng.randrange(32),
            "rows": rng.randrange(array.bank_rows), "tap_step": rng.randrange(array.taps),
            "bound": rng.getrandbits(16),
            "last_phase": 0 if self.calm else rng.choice([0, 0, 1, 3])}
        if layer["residual"]:
            layer["last_phase"] = 1
        words = []
        for op, depth in ((Op.TAPS, array.taps), (Op.TILES, array.tiles)):
            if rng.random() < 0.7:
                count = rng.choice([1, 3, rng.randrange(1, 30)])
                words += self.command(op, self.noise(count), place=rng.randrange(depth - count))
        for _ in range(rng.choice([0, 0, 1, 3])):
            words += self.close(Op.JOIN, first=rng.randrange(32), second=rng.randrange(32),
                                room=rng.randrange(-32, 32))
        words += self.command(Op.LAYER, **layer) + self.fill()
        self.read(self.add(self.entries(words)))
        self.bands(layer)
        self.read(self.add(self.entries(self.close(Op.CLOSE))))

    def close(self, op, **slots):
        least = self.rng.randint(-16, 15)
        return self.command(op, slot=self.rng.randrange(32), least=least,
                            most=self.rng.randint(least, 15), **slots)

    def bands(self, layer):
        rng, array = self.rng, self.array
        parts = not self.calm and rng.random() < 0.3 and (
            layer["residual"] or not layer["last_phase"])
        batches = []
        for _ in range(rng.randrange(1, 4)):
            dense = int(not self.calm and rng.random() < 0.3)
            most = (array.ring - RING_GAP - layer["residual"]) * (
                ENTRY_WORDS << dense) >> layer["log2_groups"]
            sizes = [rng.choice([1, 2, rng.randrange(1, 60), rng.randrange(1, 60), most])
                     for _ in range(1 + parts * rng.randrange(3))]
            if self.calm:
                sizes = [rng.randrange(most // 4, most // 2)]
            last = len(sizes) - 1
            batches += [self.add(self.batch(layer, size, dense, int(k > 0), int(k < last)))
                        for k, size in enumerate(sizes)]
        copied = [chunk for chunk in batches
                  if array.flash and not self.calm and rng.random() < 0.5][:COPIES]
        for _ in range(1 if self.calm else rng.randrange(1, 4)):
            tiles = 1 if parts else rng.choice([3, 4, 5] if self.calm else [1, 1, 2, 5])
            words = self.command(Op.BAND, row=rng.randrange(array.bank_rows),
                                 tile=rng.randrange(array.tiles), last_tile=tiles - 1,
                                 position=rng.getrandbits(16))
            for _ in copied:
                words += self.command(Op.COPY, unit=rng.getrandbits(16))
            if not self.calm:
                words += rng.choice([[], self.command(Op.WAIT)])
                for _ in range(rng.choice([0, 0, 1, 5])):
                    words += self.fill()
            self.read(self.add(self.entries(words)))
            for chunk in batches:
                self.read(chunk, copied=chunk in copied)
            copied = []

    def done(self):
        """Write the list of chunks; return memory, chunks, and the list's place."""
        self.read(self.add(self.entries(self.command(Op.HALT))))
        copied = [chunk for chunk, _ in self.copied]
        words = [CHUNK.pack(first=first, entries=count, copied=int(k in copied),
                            final=int(k == len(self.chunks) - 1))
                 for k, (first, count) in enumerate(self.chunks)]
        place, _ = self.add([word | self.rng.getrandbits(20) << 40 for word in words])
        return self.memory, self.chunks, place
