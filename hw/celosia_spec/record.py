"""A program as a file's manifest and arrays, and the network in them read back.

The container guards the bytes, this module the network: every entry and every array is checked
(:mod:`celosia_spec.graph_rules`) before a graph is made of it. The rest of a program follows from
its network and its array; `celosia.serialise` compares it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from scipy.sparse import csr_array

from celosia_spec import container
from celosia_spec.epilogue import EXPONENTS, STATIC
from celosia_spec.errors import CelosiaError
from celosia_spec.graph_rules import (
    check_name,
    check_nodes,
    check_part_name,
    check_remarks,
    check_tensors,
    check_weights,
    makes_elements,
)
from celosia_spec.host_layers import HostLayer, check_host
from celosia_spec.isa.array import Array
from celosia_spec.isa.numbers import ACCUMULATORS, MANTISSA_BITS
from celosia_spec.network_inputs import Input, check_inputs
from celosia_spec.outputs import Output, check_outputs, outputs_of
from celosia_spec.preprocessing import Preprocessing
from celosia_spec.qgraph import BARE, NodeRecord, QGraph, QNode, QTensor

_ROW_FIELDS = ("sw", "bias", "sb")


@dataclass(frozen=True, kw_only=True)
class Network:
    """What everything else in the file follows from, apart from arrays."""

    target: str
    array: Array
    array_hash: int
    exponents: str
    tensors: list[QTensor]
    nodes: list[NodeRecord]
    input: str
    output: str
    weight_bits: int
    activation_bits: int
    acc_bits: int
    remarks: tuple[str, ...]
    host: tuple[HostLayer, ...]
    preprocessing: Preprocessing | None
    returns: tuple[Output, ...] = ()
    takes: tuple[Input, ...] = ()


_SCALARS = [field.name for field in fields(NodeRecord)]
_ENTRIES = [field.name for field in fields(Network)]
_SEVERAL = ("returns", "takes")
"""Entries that stand in a manifest only where they are not empty."""
_NETWORK = TypeAdapter(Network)


def check_names(path: str | Path, graph: QGraph, host: Sequence[HostLayer],
                returns: Sequence[Output], takes: Sequence[Input]) -> None:
    """CelosiaError where a name could not be read back from a file."""
    layers = (*host, *(layer for output in returns for layer in output.host))
    try:
        for name in (*graph.tensors, *(node.name for node in graph.nodes),
                     *(layer.name for layer in layers)):
            check_name("layer or tensor", name)
        for name in (*(output.name for output in returns), *(one.name for one in takes)):
            check_part_name("output or input", name)
    except ValueError as problem:
        raise CelosiaError(f"{path}: {problem}; rename the layer in the model") from None


def network_entries(graph: QGraph, **others: Any) -> dict[str, Any]:
    """Return a manifest's entries of a network; others : fields of `Network` that are not the
    graph's."""
    network = Network(
        tensors=list(graph.tensors.values()),
        nodes=[NodeRecord(**{name: getattr(node, name) for name in _SCALARS})
               for node in graph.nodes],
        input=graph.input, output=graph.output, weight_bits=graph.weight_bits,
        activation_bits=graph.activation_bits, acc_bits=graph.acc_bits, remarks=graph.remarks,
        **others)
    entries: dict[str, Any] = _NETWORK.dump_python(network, mode="json")
    for node, entry in zip(graph.nodes, entries["nodes"], strict=True):
        if node.geometry.border == BARE:    # of files of before, too
            del entry["geometry"]["border"]
    return {name: value for name, value in entries.items() if value or name not in _SEVERAL}


def graph_sections(graph: QGraph) -> dict[str, np.ndarray]:
    """Return the sections of a graph's nodes."""
    arrays: dict[str, np.ndarray] = {}
    for index, node in enumerate(graph.nodes):
        matrix = node.matrix
        arrays[f"node/{index}/data"] = matrix.data.astype(np.int16)
        arrays[f"node/{index}/indices"] = matrix.indices.astype(np.int32)
        arrays[f"node/{index}/indptr"] = matrix.indptr.astype(np.int64)
        for field in _ROW_FIELDS:
            arrays[f"node/{index}/{field}"] = getattr(node, field)
    return arrays


def network_of(manifest: dict[str, Any]) -> Network:
    """Return the network's entries of a manifest, by themselves.

    KeyError where one is missing, ValidationError where one is of another type.
    """
    entries = {name: manifest[name] for name in _ENTRIES
               if name in manifest or name not in _SEVERAL}
    return _NETWORK.validate_json(container.to_json(entries), strict=True)


def graph_of(network: Network, arrays: dict[str, np.ndarray]) -> QGraph:
    """Return the quantised graph of a network and its arrays, checked against its array.

    KeyError where a section is missing, ValueError where something is not as it must be.
    """
    if not MANTISSA_BITS[0] <= network.weight_bits <= network.array.weight_bits:
        raise ValueError(f"weight_bits must be {MANTISSA_BITS[0]} to {network.array.weight_bits}")
    if network.acc_bits not in ACCUMULATORS:
        raise ValueError(f"acc_bits must be {' or '.join(map(str, ACCUMULATORS))}")
    if network.exponents not in EXPONENTS:
        raise ValueError(f"exponents must be {' or '.join(EXPONENTS)}")
    tensors = check_tensors(network.tensors, input=network.input, output=network.output,
                            bits=network.activation_bits, static=network.exponents == STATIC)
    check_nodes(tensors, network.nodes, network.array, input=network.input, output=network.output)
    check_remarks(network.remarks)
    outputs = _outputs(network, tensors[network.output].user_shape)
    if network.takes:
        for one in network.takes:
            check_part_name("input", one.name)
        check_inputs(network.takes, tensors[network.input].user_shape)
    if network.preprocessing is not None:
        network.preprocessing.check(tensors[network.input].user_shape[0],
                                    *(output.scoring.classes for output in outputs))
    graph = QGraph(
        tensors=tensors, input=network.input, output=network.output,
        nodes=tuple(_node(arrays, f"node/{index}/", tensors, record)
                    for index, record in enumerate(network.nodes)),
        weight_bits=network.weight_bits, activation_bits=network.activation_bits,
        acc_bits=network.acc_bits, remarks=network.remarks)
    check_weights(graph)
    return graph


def _outputs(network: Network, shape: tuple[int, ...]) -> tuple[Output, ...]:
    """Return what a network returns; ValueError where the host cannot make it.

    shape : of the array's output, without the batch axis.
    """
    for layer in (*network.host, *(layer for output in network.returns for layer in output.host)):
        check_name("layer", layer.name)
    check_host(network.host, shape)
    if not network.returns:
        return outputs_of((), network.host, shape)
    for output in network.returns:
        check_part_name("output", output.name)
    check_outputs(network.returns, math.prod(network.host[-1].shape if network.host else shape))
    return network.returns


def _node(arrays: dict[str, np.ndarray], prefix: str, tensors: dict[str, QTensor],
          record: NodeRecord) -> QNode:
    result = tensors[record.output].shape
    elements = makes_elements(record.geometry.positions(tensors[record.input].shape[1:]), result)
    rows = math.prod(result) if elements else result[0]
    channels = sum(tensors[name].shape[0] for name in record.inputs)
    columns = channels * math.prod(record.geometry.kernel)
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
