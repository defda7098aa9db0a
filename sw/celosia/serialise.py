"""A program as a file's manifest and arrays, and back with every field checked.

The container guards the bytes; this module guards their meaning: types, lengths, references,
addresses, and that the array's hash is the one its parameters give.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from scipy.sparse import csr_array

from celosia import container, memory
from celosia.errors import CelosiaError
from celosia.program import Layer, Place, Program
from celosia.qgraph import Geometry, Pool, QGraph, QNode, QTensor
from celosia_hw.isa import DESCRIPTOR_WORDS, EXPONENT_SLOTS, ArrayConfig, Space

_IMAGES = (Space.PROGRAM, Space.WEIGHTS, Space.ROWS, Space.TAPS, Space.WRITES)
_ROW_FIELDS = ("sw", "bias", "sb")


@dataclass(frozen=True, kw_only=True)
class _Node:
    """A :class:`QNode` without its arrays."""

    name: str
    kind: str
    input: str
    output: str
    residual: str | None
    columns: int
    weights: int
    geometry: Geometry
    relu: bool
    pool: Pool | None
    keep: bool


_SCALARS = [field.name for field in fields(_Node) if field.name != "columns"]


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A :class:`Place` without its addresses; ``tensor`` is its name."""

    tensor: str
    space: int
    written: int


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    """Everything of a :class:`Program` that is not an array."""

    target: str
    array: ArrayConfig
    array_hash: int
    exponents: str
    descriptors: int
    slots: dict[str, int]
    places: list[_Place]
    layers: list[Layer]
    tensors: list[QTensor]
    nodes: list[_Node]
    input: str
    output: str
    weight_bits: int
    activation_bits: int
    acc_bits: int


def save(program: Program, path: str | Path) -> None:
    """Write ``program`` to ``path``; the file appears whole or not at all."""
    graph = program.graph
    manifest = _Manifest(
        target=program.target, array=program.array, array_hash=program.array.hash,
        exponents=program.exponents, descriptors=program.descriptors, slots=program.slots,
        places=[_Place(tensor=name, space=int(place.space), written=place.written)
                for name, place in program.places.items()],
        layers=list(program.layers), tensors=list(graph.tensors.values()),
        nodes=[_Node(columns=node.matrix.shape[1],
                     **{name: getattr(node, name) for name in _SCALARS}) for node in graph.nodes],
        input=graph.input, output=graph.output, weight_bits=graph.weight_bits,
        activation_bits=graph.activation_bits, acc_bits=graph.acc_bits)
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
    container.write(path, TypeAdapter(_Manifest).dump_python(manifest, mode="json"), arrays)


def load(path: str | Path) -> Program:
    """Return the program in ``path``.

    CelosiaError where the file is foreign or damaged, or where it was compiled for another array
    than the parameters in it give (a file of a release whose machine differs).
    """
    raw, arrays = container.read(path)
    try:
        manifest = TypeAdapter(_Manifest).validate_json(json.dumps(raw), strict=True)
        _check_hash(path, manifest)
        program = _assemble(manifest, arrays)
        _check(program)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refused(path, f"manifest entry {where or 'as a whole'}: {first['msg']}") from None
    except KeyError as problem:
        raise _refused(path, f"{problem} is missing") from None
    except (ValueError, TypeError) as problem:
        raise _refused(path, str(problem)) from None
    return program


def _check_hash(path: str | Path, manifest: _Manifest) -> None:
    array = manifest.array
    if array.hash != manifest.array_hash:
        raise CelosiaError(
            f"{path}: program for another array, its hash is {manifest.array_hash:08x} and this "
            f"release's array of the same parameters has {array.hash:08x}; compile the model again")


def _assemble(manifest: _Manifest, arrays: dict[str, np.ndarray]) -> Program:
    """Return the program; KeyError where a section is missing."""
    graph = QGraph(
        tensors={tensor.name: tensor for tensor in manifest.tensors},
        nodes=tuple(_node(arrays, f"node/{index}/", record)
                    for index, record in enumerate(manifest.nodes)),
        input=manifest.input, output=manifest.output, weight_bits=manifest.weight_bits,
        activation_bits=manifest.activation_bits, acc_bits=manifest.acc_bits)
    places = {record.tensor: Place(space=Space(record.space), addresses=arrays[f"place/{index}"],
                                   written=record.written)
              for index, record in enumerate(manifest.places)}
    return Program(
        target=manifest.target, array=manifest.array, exponents=manifest.exponents, graph=graph,
        images={space: arrays[f"image/{space.name.lower()}"] for space in _IMAGES},
        descriptors=manifest.descriptors, slots=manifest.slots, places=places,
        layers=tuple(manifest.layers))


def _node(arrays: dict[str, np.ndarray], prefix: str, record: _Node) -> QNode:
    parts: dict[str, Any] = {field: arrays[prefix + field] for field in _ROW_FIELDS}
    rows = parts["sw"].size
    if any(values.shape != (rows,) for values in parts.values()):
        raise ValueError(f"node {record.name!r}: sw, bias and sb must have one entry a row")
    csr = tuple(arrays[prefix + part] for part in ("data", "indices", "indptr"))
    matrix = csr_array(csr, shape=(rows, record.columns))
    matrix.check_format(full_check=True)
    if not matrix.has_sorted_indices:
        raise ValueError(f"node {record.name!r}: column indices must rise in every row")
    parts |= {name: getattr(record, name) for name in _SCALARS}
    return QNode(matrix=matrix, **parts)


def _check(program: Program) -> None:
    """ValueError where a reference, an address or a length is not what the program needs."""
    graph, names = program.graph, set(program.graph.tensors)
    used = {graph.input, graph.output}
    for node in graph.nodes:
        used |= {node.input, node.output} | ({node.residual} if node.residual else set())
    for what, found in (("nodes", used), ("places", set(program.places)),
                        ("slots", set(program.slots))):
        if not found <= names:
            raise ValueError(f"{what} name the unknown tensor {min(found - names)!r}")
    if not {graph.input, graph.output} <= set(program.places):
        raise ValueError("the input or the output has no place")
    if not all(0 <= slot < EXPONENT_SLOTS for slot in program.slots.values()):
        raise ValueError(f"exponent slots must be 0 to {EXPONENT_SLOTS - 1}")
    if any(image.dtype != np.uint32 or image.ndim != 1 for image in program.images.values()):
        raise ValueError("memory images must be vectors of uint32")
    if program.images[Space.PROGRAM].size < program.descriptors * DESCRIPTOR_WORDS:
        raise ValueError(f"{program.descriptors} descriptors do not fit their image")
    if len(program.layers) != program.descriptors or program.descriptors < 1:
        raise ValueError(f"{len(program.layers)} layers for {program.descriptors} descriptors")
    for name, place in program.places.items():
        shape = graph.tensors[name].shape
        if place.addresses.shape[1:] != shape or place.addresses.ndim != 4:
            raise ValueError(f"place of {name!r} must hold an address for each element of {shape}")
        if place.addresses.dtype != np.int64 or place.addresses.min(initial=0) < 0:
            raise ValueError(f"place of {name!r} holds an address below zero")
    for memory_name, entry in memory.report(program).items():
        if entry["used"] > entry["available"]:
            raise ValueError(f"{memory_name} needs {entry['used']} of {entry['available']} words")


def _refused(path: str | Path, problem: str) -> CelosiaError:
    return CelosiaError(f"{path}: not a valid program, {problem}; compile the model again")
