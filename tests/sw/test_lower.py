"""Lowering without the machine: a model of its own decodes what stands in the memory images."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array

from celosia.errors import CelosiaError, CompileError
from celosia.lower import lower
from celosia.lower.allocate import Span, allocate
from celosia.lower.expand import expand_copies
from celosia.lower.images import Table
from celosia.lower.stored_map import StoredMap
from celosia.lower.stream import encode, port_rows, row_order, stretched
from celosia.lower.window import Order, Window
from celosia.program import Program
from celosia.qgraph import Geometry, Pool, QGraph, QNode, QTensor
from celosia_hw.isa import (
    BATCH_STEP_BITS,
    BLOCK,
    DESCRIPTOR_WORDS,
    ArrayConfig,
    Flag,
    Space,
    Word,
)
from celosia_sim import golden
from celosia_sim.golden.block import floor_log2, limit
from celosia_sim.golden.requantise import clip, scale_rne

SIZES = {"weight_rows": 16384, "bank_rows": 4096, "table_rows": 1024, "taps": 2048, "writes": 8192,
         "program_words": 1024, "store_beats": 4096, "residual_beats": 2048}
SMALL = ArrayConfig(lanes=8, quad=2, beat=2, wide_elements=2, **SIZES)
MIDDLE = ArrayConfig(lanes=16, quad=4, beat=4, wide_elements=4, replicate=True, **SIZES)
LARGE = ArrayConfig(lanes=32, quad=8, beat=8, wide_elements=8, acc_bits=32, **SIZES)
ARRAYS = {"small": SMALL, "middle": MIDDLE, "large": LARGE}


# A model of the machine, from the descriptions in the gateware's docstrings.

class Machine:
    """Runs the memory images of a program on one input."""

    def __init__(self, program: Program) -> None:
        self.program, self.array = program, program.array
        self.image = {space: words.astype(np.int64) for space, words in program.images.items()}
        self.banks = np.zeros((self.array.bank_rows, self.array.lanes), np.int64)
        self.store = np.zeros((self.array.store_beats, self.array.beat), np.int64)
        self.residual = np.zeros((self.array.residual_beats, self.array.beat), np.int64)
        self.exponents: dict[int, int] = {}

    def run(self, mantissa: np.ndarray, exponent: int) -> dict[str, tuple[np.ndarray, int]]:
        """Return every stored tensor right after its descriptor has run."""
        source, tensors = self.program.graph.input, {}
        place = self.program.places[source]
        self.banks.reshape(-1)[place.addresses] = mantissa
        self.exponents[self.program.slots[source]] = exponent
        for k in range(self.program.descriptors):
            self.descriptor(k)
            for name, place in self.program.places.items():
                if place.written == k:
                    tensors[name] = self.read(name), self.exponents[self.program.slots[name]]
        return tensors

    def read(self, name: str) -> np.ndarray:
        place = self.program.places[name]
        memory = {Space.BANKS: self.banks, Space.STORE: self.store,
                  Space.RESIDUAL: self.residual}[place.space]
        copies = memory.reshape(-1)[place.addresses]
        assert (copies == copies[0]).all(), f"copies of {name} differ"
        return copies[0]

    def descriptor(self, k: int) -> None:
        words = self.image[Space.PROGRAM][k * DESCRIPTOR_WORDS:][:DESCRIPTOR_WORDS]
        self.word = {word: int(words[word]) for word in Word}
        w, array = self.word, self.array
        self.flags = w[Word.FLAGS]
        self.groups, out_groups = 1 << (w[Word.GROUPS] & 15), 1 << (w[Word.GROUPS] >> 4)
        self.size, self.out_size = array.lanes // self.groups, array.lanes // out_groups
        shift = array.activation_bits - 2
        self.s_x = self.exponents[w[Word.INPUT_SLOT] & 255] - shift
        base = w[Word.CLEAR_BASE]
        self.banks[base:base + w[Word.CLEAR_ROWS]] = 0
        totals = [self.batch(b) for b in range(w[Word.LAST_BATCH] + 1)]
        self.exponent = self.block_exponent(np.array(totals))
        self.exponents[w[Word.INPUT_SLOT] >> 8] = self.exponent
        self.wide_beat = 0
        for b, total in enumerate(totals):
            self.place(b, total)

    def row(self, batch: int, group: int) -> tuple[int, int, int]:
        """Bias mantissa, s_w, s_b - s_w of a row."""
        word = int(self.image[Space.ROWS][self.word[Word.ROW_BASE] + batch * self.groups + group])
        fields = ((word, 16), (word >> 16, 6), (word >> 22, 8))
        return tuple(signed(value, bits) for value, bits in fields)

    def batch(self, b: int) -> np.ndarray:
        """Return A' of a batch, int64 (tiles, lanes); 0 where there is no output position."""
        w = self.word
        totals = np.full((w[Word.LAST_TILE] + 1, self.array.lanes), np.iinfo(np.int64).min)
        for tile in range(len(totals)):
            for phase in range(w[Word.LAST_PHASE] + 1):
                sums = self.passes(b, tile, phase) + self.added(b, tile)
                totals[tile] = np.maximum(totals[tile],
                                          np.maximum(sums, 0) if self.flags & Flag.RELU else sums)
        n = np.arange(len(totals))[:, None] * self.size + np.arange(self.array.lanes) % self.size
        return np.where(n <= w[Word.LAST_POSITION], totals, 0)

    def added(self, b: int, tile: int) -> np.ndarray:
        """Bias and residual operand of every lane."""
        result = np.zeros(self.array.lanes, np.int64)
        beats = np.arange(self.array.pass_beats) + (
            b * (self.word[Word.LAST_TILE] + 1) + tile) * self.array.pass_beats
        for group in range(self.groups):
            bias, s_w, s_b = self.row(b, group)
            mine = slice(group * self.size, (group + 1) * self.size)
            result[mine] = scale_rne(bias, s_b - self.s_x, 16)
            if self.flags & Flag.RESIDUAL_READ:
                operand = self.residual[self.word[Word.RESIDUAL_READ] + beats].reshape(-1)[mine]
                s_r = (self.exponents[self.word[Word.RESIDUAL_SLOT]]
                       - self.array.activation_bits + 2)
                result[mine] += clip(scale_rne(operand[None], s_r - s_w - self.s_x, 9),
                                     (1 << self.array.acc_bits - 3) - 1)[0][0]
        return result

    def passes(self, b: int, tile: int, phase: int) -> np.ndarray:
        """Exact sums of one pass, a lane at a time."""
        w, array = self.word, self.array
        steps = [self.batch_steps(k) for k in range(b + 1)]
        stride = array.groups_max if array.replicate else self.groups
        start = w[Word.WEIGHT_BASE] * array.groups_max + sum(steps[:-1]) * stride
        rows, behind = self.tile_rows(tile)
        sums = np.zeros(array.lanes, np.int64)
        index = np.zeros(self.groups, np.int64)
        lane = np.arange(self.size)
        for step in range(steps[-1]):
            for group in range(self.groups):
                copies = array.groups_max // self.groups if array.replicate else 1
                slot = start + step * stride + group * copies
                same = self.image[Space.WEIGHTS][slot:slot + copies]
                assert (same == same[0]).all()
                index[group] += int(same[0]) >> array.weight_bits
                tap = int(self.image[Space.TAPS][
                    w[Word.TAP_BASE] + phase * w[Word.TAP_STEP] + index[group] // BLOCK])
                offset, rotation = tap >> array.lane_bits, tap % array.lanes
                bank = (lane + rotation) % self.size
                groups_on = behind + (lane + rotation >= self.size).astype(int)
                row = rows + offset + index[group] % BLOCK + w[Word.IN_CHANNELS] * groups_on
                x = self.banks[row % (1 << array.bank_row_bits) % array.bank_rows,
                               group * self.size + bank]
                sums[group * self.size + lane] += signed(int(same[0]), array.weight_bits) * x
        return sums

    def batch_steps(self, b: int) -> int:
        word = int(self.image[Space.PROGRAM][self.word[Word.LENGTH_BASE] + b])
        return (word & (1 << BATCH_STEP_BITS) - 1) + 1

    def tile_rows(self, tile: int) -> tuple[int, np.ndarray]:
        """Bank row of a tile's first position, and which lanes lie behind a line end."""
        start, line = tile * self.size, self.word[Word.LINE]
        ends = start // line if self.flags & Flag.JUMP else 0
        behind = (start % line + np.arange(self.size) >= line) * bool(self.flags & Flag.JUMP)
        return self.word[Word.IN_BASE] + self.word[Word.IN_CHANNELS] * (tile + ends), behind

    def block_exponent(self, totals: np.ndarray) -> int:
        low, least = (signed(self.word[Word.EXPONENT] >> k, 8) for k in (0, 8))
        if self.flags & Flag.KEEP:
            return self.exponents[self.word[Word.INPUT_SLOT] & 255]
        if self.flags & Flag.STATIC:
            return low
        s_w = np.array([[self.row(b, lane // self.size)[1] for lane in range(self.array.lanes)]
                        for b in range(len(totals))])
        found = (floor_log2(totals) + s_w[:, None]).max() + self.s_x
        return int(np.clip(found, least, 15))

    def place(self, b: int, totals: np.ndarray) -> None:
        """Round a batch and write it, beat after beat, as the write table says."""
        w, array = self.word, self.array
        entry, bits = w[Word.WRITE_BASE], 16 if self.flags & Flag.WIDE else array.activation_bits
        for tile in range(len(totals)):
            for beat in range(array.pass_beats):
                group, first = divmod(beat * array.beat, self.size)
                left = w[Word.LAST_POSITION] + 1 - tile * self.size - first
                if left <= 0 and not self.flags & Flag.DIRECT:
                    continue
                s = self.row(b, group)[1] + self.s_x - self.exponent + bits - 2
                m = clip(scale_rne(totals[tile, beat * array.beat:][:array.beat], s,
                                   array.acc_bits)[None], limit(bits))[0][0]
                if self.flags & Flag.WIDE:
                    self.store[self.wide_beat] = m
                    self.wide_beat += 1
                    continue
                if self.flags & Flag.RESIDUAL_WRITE:
                    at = (b * len(totals) + tile) * array.pass_beats + beat
                    self.residual[w[Word.RESIDUAL_WRITE] + at] = m
                entry = self.write(entry, b, m, left)

    def write(self, entry: int, b: int, m: np.ndarray, left: int) -> int:
        """Write one beat of which ``left`` elements are real; return the next entry."""
        w, array = self.word, self.array
        spread = bool(self.flags & Flag.DEINTERLEAVE)
        order = np.arange(array.beat)
        order = np.concatenate([order[::2], order[1::2]]) if spread else order
        element, last = 0, False
        while not last:
            word = int(self.image[Space.WRITES][entry])
            last, count = bool(word & 1), (word >> 1) % array.beat + 1
            bank = (word >> 1 + array.beat_bits) % array.lanes
            row = (word >> 1 + array.beat_bits + array.lane_bits) + b * w[Word.WRITE_STEP]
            for k in range(count):
                at = bank + k
                here = (row + w[Word.WRITE_CARRY] * (at >= self.out_size)
                        + w[Word.PLANE_ROWS] * (spread and element + k >= array.beat // 2))
                if order[element + k] < left:
                    self.banks[here % (1 << array.bank_row_bits),
                               at % self.out_size::self.out_size] = m[order[element + k]]
            element, entry = element + count, entry + 1
        return entry


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


# Small graphs.

def tensor(name: str, shape: tuple[int, int, int], bits: int = 8) -> QTensor:
    return QTensor(name=name, shape=shape, user_shape=shape, bits=bits, exponent_min=-10,
                   static_exponent=None)


def matrix(rng, rows: int, columns: int, density: float = 0.5, bits: int = 8) -> csr_array:
    found = random_array((rows, columns), density=density, rng=rng, format="csr")
    found.data = rng.integers(-limit(bits), limit(bits) + 1, found.nnz).astype(np.int16)
    found.sort_indices()
    return found


def node(rng, name: str, source: tuple[int, int, int], rows: int, kernel=(1, 1), *, input: str,
         pool: Pool | None = None, density: float = 0.5, residual: str | None = None,
         relu: bool = True, **geometry) -> tuple[QNode, tuple[int, int, int]]:
    """Return a convolution, and the shape of its output."""
    shape = Geometry(kernel=kernel, **geometry)
    (top, left, bottom, right), dilation = shape.padding, shape.dilation
    size = [(n + extra - (k - 1) * d - 1) // s + 1 for n, extra, k, d, s in zip(
        source[1:], (top + bottom, left + right), kernel, dilation, shape.stride, strict=True)]
    if pool:
        size = [(n - k) // s + 1 for n, k, s in zip(size, pool.window, pool.stride, strict=True)]
    assert min(size) > 0
    weights = matrix(rng, rows, source[0] * kernel[0] * kernel[1], density)
    bias = rng.integers(-(1 << 14), 1 << 14, rows) * (rng.random(rows) < 0.7)
    sw = rng.integers(-8, -4, rows)
    made = QNode(name=name, kind="conv", input=input, output=name, residual=residual,
                 matrix=weights, weights=rows * weights.shape[1], geometry=shape, sw=sw, bias=bias,
                 sb=np.where(bias == 0, sw, sw - 9), relu=relu, pool=pool)
    return made, (rows, *size)


def graph_of(nodes: list[tuple[QNode, tuple[int, int, int]]], source: tuple[int, int, int],
             acc_bits: int = 24) -> QGraph:
    tensors = {"x": tensor("x", source)}
    for made, shape in nodes:
        last = made is nodes[-1][0]
        tensors[made.output] = tensor(made.output, shape, 16 if last else 8)
    return QGraph(tensors=tensors, nodes=tuple(made for made, _ in nodes), input="x",
                  output=nodes[-1][0].output, weight_bits=8, activation_bits=8, acc_bits=acc_bits)


def two_layers(seed: int, source, first: dict, second: dict, acc_bits: int = 24) -> QGraph:
    rng = np.random.default_rng(seed)
    one = node(rng, "one", source, input="x", **first)
    two = node(rng, "two", one[1], input="one", **second)
    return graph_of([one, two], source, acc_bits)


GRAPHS = {
    "plain": lambda bits: two_layers(1, (5, 7, 12), {"rows": 5, "kernel": (3, 3)},
                                     {"rows": 3, "kernel": (3, 3)}, bits),
    "padded vector": lambda bits: two_layers(
        10, (5, 3, 3), {"rows": 9, "kernel": (3, 3)},
        {"rows": 4, "kernel": (1, 1), "padding": (1, 0, 1, 2)}, bits),
    "padding": lambda bits: two_layers(
        2, (3, 8, 12), {"rows": 5, "kernel": (3, 3), "padding": (1, 1, 1, 1)},
        {"rows": 4, "kernel": (3, 3), "padding": (0, 2, 1, 1)}, bits),
    "stride 2": lambda bits: two_layers(
        3, (2, 9, 17), {"rows": 6, "kernel": (2, 2)},
        {"rows": 5, "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 0, 0)}, bits),
    "stride 3": lambda bits: two_layers(4, (2, 7, 25), {"rows": 5},
                                        {"rows": 3, "kernel": (2, 3), "stride": (3, 3)}, bits),
    "pool": lambda bits: two_layers(
        5, (2, 11, 17), {"rows": 5, "kernel": (3, 3), "pool": Pool(window=(2, 2), stride=(2, 2))},
        {"rows": 4, "kernel": (2, 2), "pool": Pool(window=(2, 3), stride=(2, 3))}, bits),
    "vectors": lambda bits: two_layers(6, (53, 1, 1), {"rows": 29}, {"rows": 11}, bits),
    "whole map": lambda bits: two_layers(7, (3, 5, 4), {"rows": 33, "kernel": (5, 4)},
                                         {"rows": 7}, bits),
    "column": lambda bits: two_layers(8, (4, 13, 3), {"rows": 5, "kernel": (2, 3)},
                                      {"rows": 6, "kernel": (3, 1), "stride": (2, 1)}, bits),
    "thin": lambda bits: two_layers(9, (40, 4, 9), {"rows": 37, "density": 0.02, "kernel": (3, 3)},
                                    {"rows": 3, "density": 0.02, "kernel": (2, 2)}, bits),
}


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("name", GRAPHS)
def test_images(name, array, exponents):
    """Descriptors, streams, taps, rows and write entries mean what the golden model computes."""
    array = ARRAYS[array]
    graph = GRAPHS[name](array.acc_bits)
    if exponents == "static":
        graph = replace(graph, tensors={k: replace(t, static_exponent=2)
                                        for k, t in graph.tensors.items()})
    program = lower(graph, array, target="test", exponents=exponents)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, *graph.tensors["x"].shape)).astype(np.float32)
    wanted = golden.run(program.graph, x)
    mantissa, exponent = golden.quantise_input(program.graph, x)
    machine = Machine(program)
    for image in range(2):
        found = machine.run(mantissa[image], int(exponent[image]))
        assert set(found) == {made.output for made in program.graph.nodes}
        for tensor_name, (values, block) in found.items():
            np.testing.assert_array_equal(values, wanted.mantissas[tensor_name][image])
            assert block == wanted.exponents[tensor_name][image]


def residual_graph(acc_bits: int) -> QGraph:
    """The input is added, ``first`` added and read by two layers, ``side`` only added."""
    rng, shape = np.random.default_rng(11), (4, 6, 9)
    same = {"kernel": (3, 3), "padding": (1, 1, 1, 1)}
    nodes = [node(rng, "first", shape, 4, input="x", residual="x", **same),
             node(rng, "side", shape, 4, input="first"),
             node(rng, "second", shape, 4, input="first", residual="side", **same),
             node(rng, "third", shape, 4, input="second", residual="first", **same),
             node(rng, "last", shape, 3, input="third", residual=None, kernel=(6, 9))]
    return graph_of(nodes, shape, acc_bits)


@pytest.mark.parametrize("array", ARRAYS)
def test_residuals(array):
    array = ARRAYS[array]
    program = lower(residual_graph(array.acc_bits), array, target="test", exponents="dynamic")
    assert {place.space for place in program.places.values()} == {
        Space.BANKS, Space.STORE, Space.RESIDUAL}
    x = np.random.default_rng(4).normal(size=(1, 4, 6, 9)).astype(np.float32)
    wanted = golden.run(program.graph, x)
    mantissa, exponent = golden.quantise_input(program.graph, x)
    for name, (values, block) in Machine(program).run(mantissa[0], int(exponent[0])).items():
        np.testing.assert_array_equal(values, wanted.mantissas[name][0], err_msg=name)
        assert block == wanted.exponents[name][0]


def test_copies():
    """Copies change no bit, and a graph that has them gets no more."""
    graph = residual_graph(24)
    expanded = expand_copies(graph)
    assert [made.name for made in expanded.nodes if made.kind == "copy"] == [
        "copy of x for first", "copy of x for residual", "copy of first for side",
        "copy of first for second"]
    again = expand_copies(expanded)
    assert [made.name for made in again.nodes] == [made.name for made in expanded.nodes]
    x = np.random.default_rng(4).normal(size=(3, 4, 6, 9)).astype(np.float32)
    plain, copied = golden.run(graph, x), golden.run(expanded, x)
    for name in graph.tensors:
        np.testing.assert_array_equal(plain.mantissas[name], copied.mantissas[name])
    np.testing.assert_array_equal(copied.mantissas["x for first"], copied.mantissas["x"])


# Pieces.

def decoded(words: np.ndarray, lengths: np.ndarray, groups: int, bits: int) -> list[list]:
    """Return, by place in batch order, the (index, mantissa) of every word with a mantissa."""
    rows, at = [], 0
    for length in lengths:
        for group in range(groups):
            index, row = 0, []
            for word in words[at + group:at + length * groups:groups]:
                index += int(word) >> bits
                if signed(int(word), bits):
                    row.append((index, signed(int(word), bits)))
            rows.append(row)
        at += length * groups
    assert at == len(words)
    return rows


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), rows=st.integers(1, 13), columns=st.integers(1, 2000),
       density=st.sampled_from([0.0, 0.002, 0.05, 1.0]), groups=st.sampled_from([1, 2, 4]),
       keep=st.booleans(), least=st.integers(1, 40), replicate=st.booleans())
def test_stream(seed, rows, columns, density, groups, keep, least, replicate):
    """Streams decode to the matrix: empty rows, long steps, rows that fill no batch, longer
    batches, replicated words."""
    rng = np.random.default_rng(seed)
    array = replace(MIDDLE, replicate=replicate)
    weights = matrix(rng, rows, columns, density)
    index = rng.permutation(columns)[weights.indices]
    order = row_order(weights, groups, keep=keep)
    assert sorted(order[order >= 0]) == list(range(rows)) and len(order) % groups == 0
    assert not keep or list(order[:rows]) == list(range(rows))
    stream = encode(weights, index, order, groups, array)
    longer = stretched(stream, groups, least)
    assert (longer.lengths == np.maximum(stream.lengths, least)).all()
    for found in (stream, longer):
        assert found.padding == len(found.words) - weights.nnz
        assert found.lengths.min() >= 1
        for row, place in zip(order, decoded(found.words, found.lengths, groups, 8), strict=True):
            span = slice(weights.indptr[row], weights.indptr[row + 1]) if row >= 0 else slice(0)
            wanted = sorted(zip(index[span].tolist(), weights.data[span].tolist(), strict=True))
            assert place == [pair for pair in wanted if pair[1]]
        ports = port_rows(found, groups, array)
        assert len(ports) % array.groups_max == 0
        if replicate:
            assert (ports.reshape(-1, groups, array.groups_max // groups)
                    == found.words.reshape(-1, groups, 1)).all()
        else:
            assert (ports[:len(found.words)] == found.words).all()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), array=st.sampled_from([SMALL, MIDDLE, LARGE]))
def test_stored_map(data, array):
    """Every element has cells of its own, inside the map, where the lanes look for it; what lies
    in the padding is no element's cell."""
    draw = data.draw
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 14)))
    kernel = [draw(st.integers(1, min(n, 4))) for n in shape[1:]]
    pad = tuple(draw(st.integers(0, 2)) for _ in range(4))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    made, result = node(np.random.default_rng(1), "n", shape, 3, tuple(kernel), input="x",
                        padding=pad, stride=stride)
    groups = draw(st.sampled_from([1 << k for k in range(array.groups_max.bit_length())]))
    source = tensor("x", shape)
    order = Order.plain(source, 1 if any(pad) else draw(st.sampled_from([1, 2, 4])))
    stored = StoredMap(array, Window.of(made, source, tensor("n", result)), order, groups)
    if not stored.valid:
        return
    base = 7
    addresses = stored.addresses(source, base)
    assert len(np.unique(addresses)) == addresses.size
    rows = addresses // array.lanes
    assert rows.min() >= base and rows.max() < base + stored.rows_needed
    taps = stored.taps()[0]
    channels = np.arange(shape[0])
    owner = {int(a): k for k, a in enumerate(addresses[-1].ravel())}
    assert stored.has_zeros(source) == any(pad)
    for n in range(0, stored.window.positions, max(1, stored.window.positions // 7)):
        tile, lane = divmod(n, stored.size)
        line = stored.window.shape[1]
        ends = n // line if stored.jump else 0
        row0 = base + order.channels * (tile + ends)
        y, x = divmod(n, result[2])
        for tap in range(kernel[0] * kernel[1]):
            index = stored.column_index(channels * kernel[0] * kernel[1] + tap,
                                        kernel[0] * kernel[1])
            word = taps[index // BLOCK]
            offset, rotation = word >> array.lane_bits, word % array.lanes
            row = row0 + offset + index % BLOCK + order.channels * (
                lane + rotation >= stored.size)
            bank = (groups - 1) * stored.size + (lane + rotation) % stored.size
            wanted = (y * stride[0] + tap // kernel[1] - pad[0],
                      x * stride[1] + tap % kernel[1] - pad[1])
            real = 0 <= wanted[0] < shape[1] and 0 <= wanted[1] < shape[2]
            for c in channels:
                found = owner.get(int(row[c] * array.lanes + bank[c]))
                assert found == (np.ravel_multi_index((c, *wanted), shape) if real else None)


@settings(max_examples=200, deadline=None)
@given(spans=st.lists(st.tuples(st.integers(1, 30), st.integers(-1, 8), st.integers(0, 4)),
                      min_size=1, max_size=12), depth=st.integers(1, 150))
def test_allocate(spans, depth):
    """Spans that live at once never meet; those that share with another at any time are named."""
    spans = [Span(str(k), size, first, first + length)
             for k, (size, first, length) in enumerate(spans)]
    layout = allocate(spans, depth)
    if layout is None:
        assert sum(span.size for span in spans) > depth
        return
    assert set(layout.base) == {span.name for span in spans}
    for a in spans:
        at = range(layout.base[a.name], layout.base[a.name] + a.size)
        assert at.start >= 0 and at.stop <= depth
        meets = [b for b in spans if b is not a and layout.base[b.name] < at.stop
                 and at.start < layout.base[b.name] + b.size]
        assert all(b.last < a.first or a.last < b.first for b in meets)
        assert (a.name in layout.shared) == bool(meets)


def test_allocate_reuses():
    """A chain of maps needs no more than its two largest neighbours."""
    spans = [Span(str(k), 10, k, k + 1) for k in range(6)]
    assert allocate(spans, 20) is not None and allocate(spans, 19) is None


def test_table_sharing():
    """Words that stand in a table already are found, but not across word borders."""
    table = Table()
    assert [table.place(words) for words in ([1, 2, 3, 4], [2, 3], [4, 9], [], [1 << 8])] == [
        0, 1, 4, 0, 6]
    assert table.words.tolist() == [1, 2, 3, 4, 4, 9, 256]


# Refusals.

def refusal(graph: QGraph, array: ArrayConfig = MIDDLE) -> str:
    with pytest.raises(CelosiaError) as caught:
        lower(graph, array, target="test", exponents="dynamic")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_arithmetic_refusals():
    plain = GRAPHS["plain"]
    assert refusal(plain(32)) == ("network (accumulator): needs 32-bit accumulators, the array has "
                                  "24; choose a target with wider accumulators")
    assert refusal(replace(plain(24), weight_bits=9)) == (
        "network (weights): 9-bit mantissas, the array multiplies 8 bits; compile with "
        "weight_bits=8 or less")
    assert refusal(replace(plain(24), activation_bits=6)) == (
        "network (activations): 6-bit mantissas, the array rounds to 8 bits; compile with "
        "activation_bits=8, or give the array activation_bits=6")
    assert refusal(residual_graph(24), LARGE) == (
        "first (add): its residual operand saturates with the accumulator, quantised for 24 bits, "
        "the array has 32; quantise with acc_bits=32")
    graph = plain(24)
    assert refusal(replace(graph, output="one")) == (
        "two (conv): it reads the network's output, which leaves with 16-bit mantissas; end the "
        "network behind its last layer")


@pytest.mark.parametrize(("changes", "message"), [
    ({"wide_elements": 1}, "two (conv): its output is the network's and a map of 24 positions; "
     "this array rounds only vectors to 16 bits; choose an ECP5 target, or end the network in a "
     "vector"),
    ({"index_bits": 7}, "one (conv): column indices reach 132, the array has 7 bits for them; "
     "split the layer, or choose a larger target"),
    ({"bank_rows": 40}, "one (conv): its input of 5x7x12 takes 80 rows and, with the maps beside "
     "it, does not fit 16 banks of 40 mantissas; choose a target with larger banks, or shrink the "
     "maps"),
    ({"store_beats": 16}, "one (conv): its output needs 104 beats of the accumulator store, the "
     "array has 16; choose a target with a larger store, or use static exponents"),
    ({"writes": 4}, "test: the program needs 30 words of writes memory, the array has 4; use "
     "smaller maps, or choose a larger target"),
    ({"taps": 4}, "test: the program needs 18 words of taps memory, the array has 4; use smaller "
     "kernels or fewer channels, or choose a larger target"),
    ({"weight_rows": 4}, "test: the program needs 436 words of weights memory, the array has 16; "
     "prune further, or choose a larger target"),
    ({"table_rows": 4}, "test: the program needs 10 words of rows memory, the array has 4; use "
     "fewer output channels, or choose a larger target"),
    ({"program_words": 64}, "test: the program needs 55 words of program memory, the array has "
     "32; use fewer or narrower layers, or choose a larger target")])
def test_size_refusals(changes, message):
    assert refusal(GRAPHS["plain"](24), replace(MIDDLE, **changes)) == message


def test_residual_refusals():
    message = refusal(residual_graph(24), replace(MIDDLE, residual_beats=0))
    assert message == ("first (add): this array has no residual store; choose an ECP5 target")
    message = refusal(residual_graph(24), replace(MIDDLE, residual_beats=20))
    assert message.startswith("first (add): the residual operands alive at once need ")
    assert message.endswith(
        " beats, the array has 20; choose a target with a larger residual store")


def test_unwalkable_lines():
    """Lines too short for the smallest row group, that read far more columns than they have."""
    graph = two_layers(1, (2, 13, 13), {"rows": 2, "kernel": (11, 11)},
                       {"rows": 2, "kernel": (3, 3)})
    assert refusal(graph) == (
        "one (conv): output lines of 3 positions that read 13 columns cannot be walked by groups "
        "of 4 lanes; choose a target with another number of lanes, or a smaller kernel or dilation")


def test_retreat():
    """Where the banks do not hold the fastest way, a slower one with fewer copies is taken."""
    graph = two_layers(5, (24, 6, 6), {"rows": 16, "density": 1.0}, {"rows": 3, "kernel": (6, 6)})
    roomy = lower(graph, MIDDLE, target="test", exponents="dynamic")
    needed = 1 + max(int(place.addresses.max()) // 16 for place in roomy.places.values()
                     if place.space is Space.BANKS)
    tight = lower(graph, replace(MIDDLE, bank_rows=needed - 24), target="test",
                  exponents="dynamic")
    assert tight.layers[0].groups < roomy.layers[0].groups
    assert tight.predicted_cycles >= roomy.predicted_cycles


def test_compile_error_names_the_layer():
    with pytest.raises(CompileError) as caught:
        lower(GRAPHS["plain"](24), replace(MIDDLE, bank_rows=40), target="test",
              exponents="dynamic")
    assert caught.value.node == "one"
