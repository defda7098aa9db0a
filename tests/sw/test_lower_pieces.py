"""The pieces of lowering: streams, stored maps, allocation, shared tables."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array

from celosia.emit.weight_stream import encode, port_rows
from celosia.schedule.input_map import InputMap, Order, Window
from celosia.schedule.memory_map import SharedTable, Span, allocate
from celosia.schedule.steps import batch_steps, port_words, row_order, row_words
from celosia_spec.epilogue import Dynamic
from celosia_spec.isa import BLOCK, ArrayConfig
from celosia_spec.qgraph import Geometry, NodeKind, QNode, QTensor

SMALL = ArrayConfig(lanes=8, quad=2, beat=2, bank_rows=4096)
MIDDLE = ArrayConfig(lanes=16, quad=4, beat=4, bank_rows=4096)
LARGE = ArrayConfig(lanes=32, quad=8, beat=8, bank_rows=4096)


def tensor(name: str, shape: tuple[int, int, int]) -> QTensor:
    return QTensor(name=name, shape=shape, user_shape=shape, bits=8, exponent=Dynamic(least=-16))


def matrix(rng, rows: int, columns: int, density: float) -> csr_array:
    found = random_array((rows, columns), density=density, rng=rng, format="csr")
    found.data = rng.integers(-127, 128, found.nnz).astype(np.int16)
    found.sort_indices()
    return found


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


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
    place = rng.permutation(columns)
    index = place[weights.indices]
    order = row_order(weights, groups, keep=keep)
    assert sorted(order[order >= 0]) == list(range(rows)) and len(order) % groups == 0
    assert not keep or list(order[:rows]) == list(range(rows))
    counted = batch_steps(row_words(weights.indptr, index), order, groups)
    assert counted.min() >= 1
    for steps in (counted, np.maximum(counted, least)):
        words = encode(weights, place, order, steps, groups, array)
        for row, found in zip(order, decoded(words, steps, groups, 8), strict=True):
            span = slice(weights.indptr[row], weights.indptr[row + 1]) if row >= 0 else slice(0)
            wanted = sorted(zip(index[span].tolist(), weights.data[span].tolist(), strict=True))
            assert found == [pair for pair in wanted if pair[1]]
        ports = port_rows(words, groups, array)
        assert len(ports) % array.groups_max == 0 and len(ports) == port_words(steps, groups, array)
        if replicate:
            assert (ports.reshape(-1, groups, array.groups_max // groups)
                    == words.reshape(-1, groups, 1)).all()
        else:
            assert (ports[:len(words)] == words).all()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), array=st.sampled_from([SMALL, MIDDLE, LARGE]),
       index_bits=st.sampled_from([4, 6, 8, 13]))
def test_stored_map(data, array, index_bits):
    """Every element has cells of its own, inside the map, where the lanes look for it; what lies
    in the padding is no element's cell. Whether taps share entries, the width of indices says."""
    array = replace(array, index_bits=index_bits)
    draw = data.draw
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 14)))
    kernel = [draw(st.integers(1, min(n, 4))) for n in shape[1:]]
    pad = tuple(draw(st.integers(0, 2)) for _ in range(4))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    size = [(n + before + after - k) // s + 1 for n, before, after, k, s in zip(
        shape[1:], pad[:2], pad[2:], kernel, stride, strict=True)]
    result = tensor("n", (3, *size))
    made = QNode(name="n", kind=NodeKind.CONV, inputs=("x",), output="n", weights=0,
                 matrix=csr_array((3, shape[0] * kernel[0] * kernel[1]), dtype=np.int16),
                 sw=np.zeros(3, int), bias=np.zeros(3, int), sb=np.zeros(3, int),
                 geometry=Geometry(kernel=tuple(kernel), stride=stride, padding=pad))
    groups = draw(st.sampled_from([1 << k for k in range(array.groups_max.bit_length())]))
    source = tensor("x", shape)
    order = Order.plain(source, 1 if any(pad) else draw(st.sampled_from([1, 2, 4])))
    stored = InputMap(array, Window.of(made, source, result), order, groups)
    if not stored.valid:
        return
    base = 7
    addresses = stored.addresses(source, base)
    assert len(np.unique(addresses)) == addresses.size
    rows = addresses // array.lanes
    assert rows.min() >= base and rows.max() < base + stored.rows_needed
    taps = stored.taps()[0]
    plain = kernel[0] * kernel[1] * order.spread * stored.blocks
    assert len(taps) == plain or (len(taps) < plain and plain * BLOCK > 1 << index_bits)
    channels = np.arange(shape[0])
    owner = {int(a): k for k, a in enumerate(addresses[-1].ravel())}
    assert stored.has_zeros(source) == any(pad)
    for n in range(0, stored.window.positions, max(1, stored.window.positions // 7)):
        tile, lane = divmod(n, stored.size)
        line = stored.window.shape[1]
        ends = n // line if stored.jump else 0
        row0 = base + order.channels * (tile + ends)
        y, x = divmod(n, size[1])
        for tap in range(kernel[0] * kernel[1]):
            index = stored.column_index(channels * kernel[0] * kernel[1] + tap,
                                        kernel[0] * kernel[1])
            offset, rotation = taps[index // BLOCK].T
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
    spans = [Span(name=str(k), size=size, first=first, last=first + length)
             for k, (size, first, length) in enumerate(spans)]
    regions = allocate(spans, depth)
    if regions is None:
        assert sum(span.size for span in spans) > depth
        return
    assert set(regions) == {span.name for span in spans}
    for a in spans:
        region = regions[a.name]
        assert (region.size, region.first, region.last) == (a.size, a.first, a.last)
        at = range(region.base, region.base + a.size)
        assert at.start >= 0 and at.stop <= depth
        meets = [b for b in spans if b is not a and regions[b.name].base < at.stop
                 and at.start < regions[b.name].base + b.size]
        assert all(b.last < a.first or a.last < b.first for b in meets)
        assert region.shared == bool(meets)


def test_allocate_reuses():
    """A chain of maps needs no more than its two largest neighbours."""
    spans = [Span(name=str(k), size=10, first=k, last=k + 1) for k in range(6)]
    assert allocate(spans, 20) is not None and allocate(spans, 19) is None


def test_table_sharing():
    """Entries that stand in a table already are found, but not across their borders, nor where
    only some of them stand at its end."""
    table = SharedTable()
    places = [table.place(np.array(entries).reshape(-1, 2)) for entries in (
        [[1, 2], [3, 4], [1, 5]], [[3, 4], [1, 5]], [[2, 3]], [], [[2, 3], [1, 2]], [[5, 2]])]
    assert places == [0, 1, 3, 0, 4, 6]
    assert table.entries.tolist() == [[1, 2], [3, 4], [1, 5], [2, 3], [2, 3], [1, 2], [5, 2]]
