"""Program files that are damaged, or made by somebody hostile, and what becomes of them."""

import contextlib
import copy
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bad_inputs_networks import Base
from scipy.sparse import csr_array

import celosia
from celosia.bands.host import output, prepare
from celosia.bands.schedule import stream_schedule
from celosia.bands.simulate import simulate
from celosia.program import program_of
from celosia_sim import golden, stream_machine, stream_memories
from celosia_spec import container
from celosia_spec.epilogue import Epilogue, Identity, Kept, Relu, Static
from celosia_spec.errors import CelosiaError, SimulationError
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor

__all__ = ["EQUAL", "KINDS", "REFUSED", "judge", "mutant"]

REFUSED, EQUAL, CONSISTENT = "refused", "equal", "consistent"
"""Verdicts: refused in words; the same program; another one, which does on the machine what the
golden model does for it, in the cycles that it predicts. Anything else is a failure."""

_HEADER, _ENTRY = struct.Struct("<8sIIQ"), struct.Struct("<40sBBHI4IQQ")
_HUGE = (2 ** 31, 2 ** 32, 2 ** 63, 2 ** 64, 10 ** 30, 10 ** 400)


def _bytes(path: Path, base: Base, rng: np.random.Generator) -> None:
    """Bits flipped, bytes set, cut, repeated, moved or added; no checksum is mended."""
    data = bytearray(path.read_bytes())
    at, end = sorted(rng.integers(0, len(data), 2).tolist())
    kind = rng.integers(6)
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            data[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        data[at:at + 8] = rng.bytes(8)
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        del data[at:end]
    elif kind == 4:
        data[at:at] = data[at:end]
    else:
        data += rng.bytes(int(rng.integers(1, 100)))
    path.write_bytes(data)


def _header(path: Path, base: Base, rng: np.random.Generator) -> None:
    """A field of the header or of the section table, with the header's checksum mended."""
    data = bytearray(path.read_bytes())
    count = struct.unpack_from("<I", data, 12)[0]
    end = _HEADER.size + count * _ENTRY.size
    if rng.integers(4) == 0:
        at = int(rng.choice([8, 12, 16, 20]))
        struct.pack_into("<I", data, at, int(rng.choice([0, 1, count - 1, count + 1, 2 ** 32 - 1])))
    else:
        at = _HEADER.size + int(rng.integers(count)) * _ENTRY.size
        entry = list(_ENTRY.unpack_from(data, at))
        field = int(rng.integers(len(entry)))
        entry[field] = _other_field(entry[field], field, rng)
        if rng.integers(2):                             # a second entry, changed places with it
            other = _HEADER.size + int(rng.integers(count)) * _ENTRY.size
            data[at:at + _ENTRY.size] = data[other:other + _ENTRY.size]
            at = other
        _ENTRY.pack_into(data, at, *entry)
    if end + 4 <= len(data):
        struct.pack_into("<I", data, end, zlib.crc32(data[:end]))
    path.write_bytes(data)


def _other_field(value: Any, field: int, rng: np.random.Generator) -> Any:
    if isinstance(value, bytes):
        return [b"", b"manifest", b"stream", rng.bytes(40), b"\xff" * 40, b"a\0b"][
            rng.integers(6)]
    most = {1: 255, 2: 255, 3: 65535}.get(field, 2 ** 32 - 1 if field < 9 else 2 ** 64 - 1)
    return min(max([0, 1, value + 1, value - 1, value * 2, most, most // 2][rng.integers(7)], 0),
               most)


def _manifest(path: Path, base: Base, rng: np.random.Generator) -> None:
    """One or two values anywhere in the manifest."""
    manifest, arrays = container.read(path)
    for _ in range(rng.integers(1, 3)):
        places = list(_places(manifest))
        holder, key = places[rng.integers(len(places))]
        kind = rng.integers(8)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            other, its = places[rng.integers(len(places))]
            holder[key] = copy.deepcopy(other[its])
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 3 and isinstance(holder, list):
            rng.shuffle(holder)
        else:
            holder[key] = _other_value(holder[key], rng)
    container.write(path, manifest, arrays)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) in a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _other_value(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, bool) or rng.integers(3) == 0:
        return [None, True, False, 0, -1, "", "x", "\n", "[/b]x", "\u202e", "n" * 5000, [], {}, 1.5,
                [[[[0]]]], {"a": {"b": 0}}, *_HUGE][rng.integers(16 + len(_HUGE))]
    if isinstance(value, int):
        return [value + 1, value - 1, -value, value * 2, 0, 1, int(rng.integers(-20, 20)),
                int(rng.integers(0, 70_000)), _HUGE[rng.integers(len(_HUGE))]][rng.integers(9)]
    if isinstance(value, str):
        return [value + " ", value[1:], value.upper(), "hx8k", "static", "dynamic",
                "copy", "x"][rng.integers(8)]
    return value


def _sections(path: Path, base: Base, rng: np.random.Generator) -> None:
    """The numbers, types, shapes, names or order of the other sections."""
    manifest, arrays = container.read(path)
    names = list(arrays)
    name, other = (names[k] for k in rng.integers(0, len(names), 2))
    array = arrays[name].copy()
    kind = rng.integers(8)
    if kind < 3 and array.size:
        ends = np.iinfo(array.dtype)
        for _ in range(rng.integers(1, 4)):
            at = np.unravel_index(rng.integers(array.size), array.shape)
            now = int(array[at])
            value = [now + 1, now - 1, -now, 0, ends.min, ends.max, now ^ 1 << rng.integers(16),
                     int(rng.integers(0, 4096))][rng.integers(8)]
            array[at] = min(max(value, ends.min), ends.max)
        arrays[name] = array
    elif kind == 3:
        arrays[name], arrays[other] = arrays[other], arrays[name]
    elif kind == 4:
        del arrays[name]
    elif kind == 5:
        arrays[name] = array.astype([np.uint8, np.int16, np.int32, np.int64, np.float64][
            rng.integers(5)])
    elif kind == 6:
        arrays[name] = [array[:-1], array.ravel(), array[..., None][:, ..., 0], array[::-1],
                        np.concatenate([array, array]), array[:0]][rng.integers(6)]
    else:
        arrays["more"] = array
        rng.shuffle(names)
        arrays = {name: arrays[name] for name in [*names, *["more"] * int(rng.integers(2))]}
    with contextlib.suppress(ValueError):       # five axes: no such file can be
        container.write(path, manifest, arrays)


def _lowered(path: Path, base: Base, rng: np.random.Generator) -> None:
    """A network that no compiler made, lowered, so that everything else in the file follows from
    it; where lowering fails, in whatever way, with what followed from the network before."""
    program, graph = base.program, base.program.graph
    for _ in range(rng.integers(1, 4)):
        graph = _other_graph(graph, rng)
    try:
        changed = program_of(stream_schedule(graph, program.array), target=program.target,
                             exponents=program.exponents)
    except Exception:       # the compiler is not made for these
        changed = replace(program, program=replace(program.program, source=graph))
    with contextlib.suppress(ValueError, OverflowError):    # a number that has no place in a file
        changed.save(path)


def _other_graph(graph: QGraph, rng: np.random.Generator) -> QGraph:
    """Return the graph with one thing changed that a compiler would not."""
    if rng.integers(6) == 0:
        return _one_more(graph, rng)
    index = int(rng.integers(len(graph.nodes)))
    node, names = graph.nodes[index], list(graph.tensors)
    after = node.epilogue
    changes: list[Callable[[], dict[str, Any]]] = [
        lambda: {"sw": _bumped(node.sw, rng, 40)}, lambda: {"sb": _bumped(node.sb, rng, 60)},
        lambda: {"bias": _bumped(node.bias, rng, 40_000)},
        lambda: {"epilogue": replace(after, activation=Identity())},
        lambda: {"epilogue": replace(after, activation=Relu())},
        lambda: {"matrix": _other_matrix(node.matrix, rng)},
        lambda: {"inputs": (names[rng.integers(len(names))],)},
        lambda: {"inputs": (node.input, names[rng.integers(len(names))])},
        lambda: {"least": int(rng.integers(-20, 18))},
        lambda: {"epilogue": replace(after, add=names[rng.integers(len(names))])},
        lambda: {"epilogue": replace(after, add=None)}, lambda: {"kind": NodeKind.SELECT},
        lambda: {"epilogue": replace(after, pool=after.pool and replace(
            after.pool, stride=_pair(rng, 1, 4)))},
        lambda: {"geometry": replace(node.geometry, padding=tuple(rng.integers(0, 3, 4).tolist()))},
        lambda: {"geometry": replace(node.geometry, stride=_pair(rng, 1, 4))},
        lambda: {"geometry": replace(node.geometry, dilation=_pair(rng, 1, 4))},
        lambda: {"geometry": replace(node.geometry, kernel=node.geometry.kernel[::-1])},
        lambda: {"name": graph.nodes[0].name}, lambda: {"weights": int(rng.integers(-1, 500))},
    ]
    choice = int(rng.integers(len(changes) + 9))
    if choice < len(changes):
        nodes = list(graph.nodes)
        nodes[index] = replace(node, **changes[choice]())
        return replace(graph, nodes=tuple(nodes))
    name = names[rng.integers(len(names))]
    tensor = graph.tensors[name]
    shape = tuple(max(size + int(rng.integers(-1, 2)), 0) for size in tensor.shape)
    least = int(rng.integers(-20, 18))
    tensor = [replace(tensor, exponent=replace(tensor.exponent, least=least)),
              replace(tensor, exponent=Static(value=int(rng.integers(-20, 18)), least=least)),
              replace(tensor, exponent=Kept(of=names[rng.integers(len(names))], least=least)),
              replace(tensor, bits=int(rng.choice([4, 8, 9, 16]))),
              replace(tensor, signed=not tensor.signed),
              replace(tensor, low=int(rng.integers(-1, 9))),
              replace(tensor, raised=tuple(rng.integers(-1, 33, tensor.shape[0]).tolist())),
              replace(tensor, shape=shape), replace(tensor, user_shape=(int(np.prod(shape)),))][
                  choice - len(changes)]
    return replace(graph, tensors=graph.tensors | {name: tensor})


def _one_more(graph: QGraph, rng: np.random.Generator) -> QGraph:
    """Return the graph with one more node, which a node behind it reads or adds."""
    at = int(rng.integers(len(graph.nodes)))
    reader = graph.nodes[at]
    source = graph.tensors[[reader.input, reader.epilogue.add or graph.input][rng.integers(2)]]
    name = f"{source.name} {'again' * int(rng.integers(1, 3))}"
    made = _identity(f"copy of {name}", source, name, graph.weight_bits)
    result = replace(source, name=name)
    if rng.integers(4):
        result = replace(result, exponent=Kept(of=source.name, least=source.exponent.least))
    activation = Identity() if rng.integers(4) else Relu()
    made = replace(made, kind=list(NodeKind)[rng.integers(len(NodeKind))],
                   epilogue=Epilogue(activation=activation))
    changed = (replace(reader, inputs=(name,)) if rng.integers(2)
               else replace(reader, epilogue=replace(reader.epilogue, add=name)))
    nodes = [*graph.nodes[:at], made, changed, *graph.nodes[at + 1:]]
    return replace(graph, nodes=tuple(nodes),
                   tensors=graph.tensors | {name: result})


def _identity(name: str, source: QTensor, output: str, weight_bits: int) -> QNode:
    """Return a node that makes a tensor again, under another name."""
    channels, none = source.shape[0], np.zeros(source.shape[0], np.int64)
    return QNode(
        name=name, kind=NodeKind.SELECT, inputs=(source.name,), output=output,
        matrix=csr_array((np.full(channels, 1 << weight_bits - 2, np.int16), np.arange(channels),
                          np.arange(channels + 1)), shape=(channels, channels)),
        sw=none - (weight_bits - 2), bias=none, sb=none, weights=channels,
        geometry=Geometry(kernel=(1, 1)), epilogue=Epilogue())


def _pair(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def _bumped(values: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    values = values.copy()
    values[rng.integers(len(values))] += rng.integers(-most, most)
    return values


def _other_matrix(matrix: csr_array, rng: np.random.Generator) -> csr_array:
    matrix = matrix.copy()
    if matrix.nnz:
        matrix.data[rng.integers(matrix.nnz, size=rng.integers(1, 5))] = rng.integers(-128, 128)
    return matrix


KINDS: dict[str, tuple[Callable[[Path, Base, np.random.Generator], None], int]] = {
    "bytes changed": (_bytes, 50), "header and section table, mended": (_header, 8),
    "manifest, mended": (_manifest, 16), "other sections, mended": (_sections, 16),
    "another network, lowered and mended": (_lowered, 10)}
"""How a file is changed, and how many of a hundred are changed so."""


def mutant(path: Path, kind: str, base: Base, rng: np.random.Generator) -> None:
    """Leave ``base``'s file, changed in this way, at ``path``."""
    base.program.save(path)
    KINDS[kind][0](path, base, rng)


def judge(path: Path, base: Base, *, verilator: bool) -> str:
    """Return what becomes of a file: a verdict, or else what is wrong in words.

    verilator : run what is accepted on the verilated machine too, where the array is ``base``'s.
    """
    try:
        program = celosia.load(path)
    except CelosiaError as problem:
        text = str(problem)
        if text.startswith(f"{path}: ") and text.isprintable() and len(text) < len(str(path)) + 400:
            return REFUSED
        return f"refused in odd words: {text[:200]!r}"
    if (program.graph.tensors[program.graph.input].shape
            != base.program.graph.tensors[base.program.graph.input].shape):
        x = np.random.default_rng(1).normal(size=(2, *program.graph.tensors[
            program.graph.input].user_shape)).astype(np.float32)
    else:
        x = base.x.reshape(len(base.x), *program.graph.tensors[program.graph.input].user_shape)
    wanted = golden.run(program.graph, x)
    name = program.graph.output
    for index in range(len(x)):
        found, block = _by_words(program, x[index])
        if (found != wanted.mantissas[name][index]).any() or block != wanted.exponents[name][index]:
            return f"tensor {name!r} differs from the golden model's"
    if problem := _answered(program, x):
        return problem
    if verilator and program.array == base.program.array:
        problem = _simulated(program, x, wanted)
        if problem:
            return problem
    return EQUAL if _same(program, base, wanted) else CONSISTENT


def _by_words(file: celosia.Program, x: np.ndarray) -> tuple[np.ndarray, int]:
    """Return what the machine of words makes of an input: mantissas, and their exponent."""
    program = file.program
    main = np.zeros(program.array.main_words * ENTRY_WORDS, np.int64)
    state = stream_memories.State(program.array, main)
    state.exponents[program.slots[program.graph.input]] = prepare(program, x, main)
    stream_machine.run(state, program.entries, program.order.lists, stream_memories.Flash(
        state, program.sections, program.order.waiting, late=True))
    return output(program, main, state.exponents)[:2]


def _answered(program: celosia.Program, x: np.ndarray) -> str | None:
    """Return what is wrong with the host's part: the answer, and inputs from pixels."""
    answer = celosia.run(program, x).answer
    if not np.isfinite(answer).all():
        return "an answer of the host is not finite"
    known = program.preprocessing
    if known is not None and known.scale is not None and x.ndim == 4:
        pixels = np.random.default_rng(2).integers(0, 256, x.shape, np.uint8)
        golden.quantise_input(program.graph, known.inputs(pixels))
    return None


def _simulated(program: celosia.Program, x: np.ndarray, wanted: golden.GoldenResult) -> str | None:
    try:
        result = simulate(program.program, x)
    except SimulationError as problem:
        return f"the simulator: {problem}"
    name = program.graph.output
    if ((result.output != wanted.mantissas[name]).any()
            or (result.exponent != wanted.exponents[name]).any()):
        return f"tensor {name!r} of the simulated machine differs from the golden model's"
    if set(result.cycles.tolist()) != {program.predicted_cycles}:
        return f"{result.cycles.tolist()} cycles where {program.predicted_cycles} were predicted"
    return None


def _same(program: celosia.Program, base: Base, wanted: golden.GoldenResult) -> bool:
    """Whether a program gives what ``base`` gives for its inputs."""
    known = golden.run(base.program.graph, base.x)
    output = program.graph.output
    return (output == base.program.graph.output and program.layers == base.program.layers
            and program.host == base.program.host
            and program.preprocessing == base.program.preprocessing
            and np.array_equal(known.mantissas[output], wanted.mantissas[output])
            and np.array_equal(known.exponents[output], wanted.exponents[output]))
