"""A program as a file's manifest and arrays, and back.

The container guards the bytes; this module guards their meaning. All that a program holds follows
from its quantised graph and its array, so a file is read by checking these two
(:mod:`celosia.graph_rules`), lowering the graph again, and comparing: a file is a program if it
is, section for section, what :func:`save` writes for the program that it stands for.
"""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from scipy.sparse import csr_array

from celosia import container
from celosia.errors import CelosiaError, quoted
from celosia.graph_rules import (
    check_name,
    check_nodes,
    check_remarks,
    check_tensors,
    check_weights,
)
from celosia.host import HostLayer, check_host, scoring
from celosia.preprocessing import Preprocessing
from celosia.program import Program
from celosia.qgraph import Geometry, Pool, QGraph, QNode, QTensor
from celosia_hw.isa import ArrayConfig, Space

_IMAGES = (Space.PROGRAM, Space.WEIGHTS, Space.ROWS, Space.TAPS, Space.WRITES)
_ROW_FIELDS = ("sw", "bias", "sb")
_WORDS = 300
"""Longest reason in a refusal: a file may hold names of any length."""


@dataclass(frozen=True, kw_only=True)
class _Node:
    """A :class:`QNode` without its arrays."""

    name: str
    kind: str
    input: str
    output: str
    residual: str | None
    weights: int
    geometry: Geometry
    relu: bool
    pool: Pool | None
    keep: bool
    raised: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class _Network:
    """What everything else in the file follows from, apart from arrays."""

    target: str
    array: ArrayConfig
    array_hash: int
    exponents: str
    tensors: list[QTensor]
    nodes: list[_Node]
    input: str
    output: str
    weight_bits: int
    activation_bits: int
    acc_bits: int
    remarks: tuple[str, ...]
    host: tuple[HostLayer, ...]
    preprocessing: Preprocessing | None


_SCALARS = [field.name for field in fields(_Node)]
_ENTRIES = [field.name for field in fields(_Network)]
_NETWORK = TypeAdapter(_Network)
_ANY = TypeAdapter(Any)


def save(program: Program, path: str | Path) -> None:
    """Write ``program`` to ``path``; the file appears whole or not at all.

    CelosiaError where the file cannot be written, or a name in the program could not be read back.
    """
    try:
        for name in (*program.graph.tensors, *(node.name for node in program.graph.nodes),
                     *(layer.name for layer in program.host)):
            check_name("layer or tensor", name)
    except ValueError as problem:
        raise CelosiaError(f"{path}: {problem}; rename the layer in the model") from None
    container.write(path, *_sections(program))


def _sections(program: Program) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the manifest and the arrays of a program's file."""
    graph = program.graph
    network = _Network(
        target=program.target, array=program.array, array_hash=program.array.hash,
        exponents=program.exponents, tensors=list(graph.tensors.values()),
        nodes=[_Node(**{name: getattr(node, name) for name in _SCALARS}) for node in graph.nodes],
        input=graph.input, output=graph.output, weight_bits=graph.weight_bits,
        activation_bits=graph.activation_bits, acc_bits=graph.acc_bits,
        remarks=graph.remarks, host=program.host, preprocessing=program.preprocessing)
    places = [{"tensor": name, "space": int(place.space), "written": place.written}
              for name, place in program.places.items()]
    manifest = _NETWORK.dump_python(network, mode="json") | _ANY.dump_python(
        {"descriptors": program.descriptors, "slots": program.slots, "places": places,
         "layers": list(program.layers)}, mode="json")
    arrays = {f"image/{space.name.lower()}": program.images[space] for space in _IMAGES}
    for index, place in enumerate(program.places.values()):
        arrays[f"place/{index}"] = place.addresses
    for index, node in enumerate(graph.nodes):
        matrix = node.matrix
        arrays[f"node/{index}/data"] = matrix.data.astype(np.int16)
        arrays[f"node/{index}/indices"] = matrix.indices.astype(np.int32)
        arrays[f"node/{index}/indptr"] = matrix.indptr.astype(np.int64)
        for field in _ROW_FIELDS:
            arrays[f"node/{index}/{field}"] = getattr(node, field)
    return manifest, arrays


def load(path: str | Path) -> Program:
    """Return the program in ``path``.

    CelosiaError where the file is foreign or damaged, was compiled for an array that its target
    does not carry in this release, or holds anything else than this release makes of its network.
    """
    manifest, arrays = container.read(path)
    try:
        program = _program(manifest, arrays)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refused(path, f"manifest entry {where or 'as a whole'}: {first['msg']}") from None
    except KeyError as problem:
        raise _refused(path, f"{problem} is missing") from None
    except (CelosiaError, ValueError) as problem:
        raise _refused(path, str(problem)) from None
    _compare(path, program, manifest, arrays)
    return program


def _program(manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> Program:
    """Return what the compiler makes of the network in a file.

    KeyError where an entry or a section is missing, ValueError where one is not as it must be.
    """
    from celosia.lower import lower

    entries = {name: manifest[name] for name in _ENTRIES}
    network = _NETWORK.validate_json(container.to_json(entries), strict=True)
    _check_array(network)
    static = network.exponents == "static"
    if not static and network.exponents != "dynamic":
        raise ValueError("exponents must be dynamic or static")
    tensors = check_tensors(network.tensors, network.array, output=network.output,
                            bits=network.activation_bits, static=static)
    check_nodes(tensors, network.nodes, network.array, input=network.input, output=network.output)
    check_remarks(network.remarks)
    for layer in network.host:
        check_name("layer", layer.name)
    shape = tensors[network.output].user_shape
    check_host(network.host, shape)
    if network.preprocessing is not None:
        network.preprocessing.check(tensors[network.input].user_shape[0],
                                    scoring(network.host, shape).classes)
    graph = QGraph(
        tensors=tensors, input=network.input, output=network.output,
        nodes=tuple(_node(arrays, f"node/{index}/", tensors, record)
                    for index, record in enumerate(network.nodes)),
        weight_bits=network.weight_bits, activation_bits=network.activation_bits,
        acc_bits=network.acc_bits, remarks=network.remarks)
    check_weights(graph, network.array)
    program = lower(graph, network.array, target=network.target, exponents=network.exponents)
    return replace(program, host=network.host, preprocessing=network.preprocessing)


def _check_array(network: _Network) -> None:
    """ValueError unless the target carries the array, with these lanes and widths."""
    from celosia_boards.arrays import array_for

    array = network.array
    if array.hash != network.array_hash:
        raise ValueError(f"it is for another array: its hash is not {array.hash:08x}, that of this "
                         f"release's array of the same parameters")
    known = array_for(network.target, lanes=array.lanes, acc_bits=array.acc_bits,
                      weight_bits=array.weight_bits, activation_bits=array.activation_bits)
    for field in fields(array):
        found, wanted = getattr(array, field.name), getattr(known, field.name)
        if found != wanted:
            raise ValueError(f"its array's {field.name} is {found}, that of {network.target} "
                             f"{wanted}")
    if not network.weight_bits <= array.weight_bits or network.weight_bits < 4:
        raise ValueError(f"weight_bits must be 4 to {array.weight_bits}")
    if network.acc_bits not in (24, 32):
        raise ValueError("acc_bits must be 24 or 32")


def _node(arrays: dict[str, np.ndarray], prefix: str, tensors: dict[str, QTensor],
          record: _Node) -> QNode:
    rows = tensors[record.output].shape[0]
    columns = tensors[record.input].shape[0] * math.prod(record.geometry.kernel)
    parts: dict[str, Any] = {name: getattr(record, name) for name in _SCALARS}
    for field in _ROW_FIELDS:
        parts[field] = _vector(arrays, prefix + field, np.int64)
        if parts[field].size != rows:
            raise ValueError(f"{record.name!r}: {field} must have one entry for each of {rows} "
                             f"rows")
    data = _vector(arrays, prefix + "data", np.int16)
    indices = _vector(arrays, prefix + "indices", np.int32)
    indptr = _vector(arrays, prefix + "indptr", np.int64)
    if (indptr.size != rows + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any()
            or not indptr[-1] == data.size == indices.size):
        raise ValueError(f"{record.name!r}: indptr, indices and data are not those of {rows} rows")
    matrix = csr_array((data, indices, indptr), shape=(rows, columns))
    matrix.check_format(full_check=True)
    if not matrix.has_canonical_format:
        raise ValueError(f"{record.name!r}: column indices must rise in every row")
    return QNode(matrix=matrix, **parts)


def _vector(arrays: dict[str, np.ndarray], name: str, kind: type) -> np.ndarray:
    array = arrays[name]
    if array.ndim != 1 or array.dtype != kind:
        raise ValueError(f"section {name!r} must be a vector of {np.dtype(kind)}")
    return array


def _compare(path: str | Path, program: Program, manifest: dict[str, Any],
             arrays: dict[str, np.ndarray]) -> None:
    """CelosiaError unless the file's sections are those of ``program``, in the same order."""
    wanted, sections = _sections(program)
    for name in sorted(wanted.keys() | manifest.keys()):
        if (name not in manifest or name not in wanted
                or container.to_json(manifest[name]) != container.to_json(wanted[name])):
            raise _differs(path, f"manifest entry {name!r}")
    if list(arrays) != list(sections):
        raise _refused(path, "its sections are not those of its network, in their order")
    for name, array in arrays.items():
        if array.dtype != sections[name].dtype or not np.array_equal(array, sections[name]):
            raise _differs(path, f"section {name!r}")


def _differs(path: str | Path, what: str) -> CelosiaError:
    return _refused(path, f"{what} is not what this release makes of the network in it")


def _refused(path: str | Path, problem: str) -> CelosiaError:
    return CelosiaError(f"{path}: not a valid program, {quoted(problem, _WORDS)}; compile the "
                        f"model again")
