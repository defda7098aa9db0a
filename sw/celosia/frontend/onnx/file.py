"""Reading an ``.onnx`` file: nothing in it is run, and nothing is opened but weights beside it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError

from celosia.frontend.onnx import tensors
from celosia.frontend.onnx.quantisers import quantises
from celosia.reading import MAX_NODES, FileError
from celosia_spec.errors import CelosiaError, quoted, said
from celosia_spec.files import read_file
from celosia_spec.graph_rules import check_part_name
from celosia_spec.network_inputs import INPUTS_MAX

Shapes: TypeAlias = Sequence[Sequence[int]] | Mapping[str, Sequence[int]]

MAX_INPUT = 1 << 28
"""Most values of all inputs."""
OPSETS = range(7, onnx.defs.onnx_opset_version() + 1)
"""Versions of the operators that are read: from 7 on, constants spread as NumPy's do."""
_OWN = ("", "ai.onnx")
_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")


def read(path: Path, shapes: Shapes = ()) -> onnx.ModelProto:
    """Return the model in a file, its inputs with shapes, and a batch of 1.

    shapes : of the inputs in their order, or by their names, with the batch axis or without, where
             they are known; they stand in for the sizes that the file leaves open.

    CelosiaError where it is damaged, keeps weights in other folders, uses operators that are not
    ONNX's own, or where its inputs are not known, or others.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(read_file(path, tensors.MAX_BYTES))
    except DecodeError as problem:
        raise FileError(f"{path}: not a readable .onnx file ({problem}); export it again") from None
    if not model.HasField("graph"):
        raise FileError(f"{path}: not a readable .onnx file (no network in it); export it again")
    if not all(isinstance(name, str) for name in _names(model)):
        raise FileError(f"{path}: not a readable .onnx file (a name is not UTF-8); export it again")
    _check_operators(model, path)
    tensors.complete(model.graph, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as problem:
        raise FileError(f"{path}: not a sound ONNX model ({quoted(said(problem))}); export it again"
                        ) from None
    _fix_inputs(model.graph, path, shapes)
    return model


def inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return a graph's inputs, without weights that old files list among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in weights]


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators, 0 where a model names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in _OWN), 0)


def _names(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the names in a model. Protobuf has bytes in place of those that are not UTF-8."""
    graph = model.graph
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    yield from (entry.domain for entry in model.opset_import)
    yield from (named.name for named in (*graph.input, *graph.output, *graph.initializer))


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    version = opset(model)
    if version not in OPSETS:
        raise CelosiaError(f"{path}: ONNX operators of version {version or '?'}; export it with "
                           f"opset_version {OPSETS[0]} to {OPSETS[-1]}")
    if len(model.graph.node) > MAX_NODES:
        raise CelosiaError(f"{path}: more than {MAX_NODES} nodes; export a part of the network")
    for node in model.graph.node:
        kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        what = f"{path}: {quoted(node.name or kind)} ({quoted(kind)})"
        if (node.domain not in _OWN and not quantises(node)) or model.functions:
            raise CelosiaError(f"{what}: not one of ONNX's own operators; export the network "
                               "without custom operators and model functions")
        if node.op_type.startswith(("QLinear", "Dynamic")) or node.op_type.endswith("Integer"):
            raise CelosiaError(f"{what}: it computes with whole numbers; quantise the float "
                               "network with QuantizeLinear and DequantizeLinear instead "
                               "(QuantFormat.QDQ), or give the float network")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise CelosiaError(f"{what}: a graph inside a graph; export the network without "
                               "branches and loops")


def _fix_inputs(graph: onnx.GraphProto, path: Path, shapes: Shapes) -> None:
    """Give each of a graph's inputs one shape, with a batch of 1."""
    given = inputs(graph)
    names = [info.name for info in given]
    if not 1 <= len(given) <= INPUTS_MAX:
        raise CelosiaError(f"{path}: {len(given)} inputs, and a network takes 1 to {INPUTS_MAX}; "
                           "export a part of the network")
    for name in names if len(names) > 1 else ():
        try:
            check_part_name("input", name)
        except ValueError as problem:
            raise CelosiaError(f"{path}: {problem}; rename it in the file") from None
    if isinstance(shapes, Mapping):
        if set(shapes) != set(names):
            raise CelosiaError(f"{path}: its inputs are {quoted(', '.join(names))}, not "
                               f"{', '.join(shapes)}; give these")
        shapes = [shapes[name] for name in names]
    if shapes and len(shapes) != len(given):
        raise CelosiaError(f"{path}: {len(given)} inputs, and the shapes of {len(shapes)} are "
                           f"given; give those of {quoted(', '.join(names))}")
    for info, shape in zip(given, shapes or [()] * len(given), strict=True):
        what = "its input" if len(given) == 1 else f"its input {quoted(info.name)}"
        _fix_input(info, path, what, shape)
    if sum(math.prod(size.dim_value for size in info.type.tensor_type.shape.dim)
           for info in given) > MAX_INPUT:
        raise FileError(f"{path}: an input of more than {MAX_INPUT} values; export it with an "
                        "example input")


def _fix_input(info: onnx.ValueInfoProto, path: Path, what: str, shape: Sequence[int]) -> None:
    kind = info.type.tensor_type
    name = next((name for name, number in onnx.TensorProto.DataType.items()
                 if number == kind.elem_type), "of no known type")
    if name not in _FLOATS:
        raise CelosiaError(f"{path}: {what} is {name.lower()}, and an input is float32; "
                           "leave out what makes float32 of it, and do that on the host")
    file = [size.dim_value for size in kind.shape.dim] or [0] * len(shape)
    if len(file) == 1:
        raise CelosiaError(f"{path}: {what} has one axis, and inputs have a batch axis before "
                           "all others; export it with an input (1, ...)")
    given = [1, *shape[-(len(file) - 1):]] if len(shape) in (len(file), len(file) - 1) else shape
    wanted = given[1:] if shape else file[1:]
    own = [1, *(size or new for size, new in zip(file[1:], wanted, strict=False))]
    if shape and (len(given) != len(file) or own != given):
        raise CelosiaError(f"{path}: {what} is {_words([1, *file[1:]])}, not {_words(given)}; give "
                           "inputs of that shape, or export it with the other one")
    if len(own) < 2 or min(own) <= 0:
        raise CelosiaError(f"{path}: {what} leaves sizes open; tell them with --input-shape, "
                           "in Python with example_input")
    del kind.shape.dim[:]
    kind.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in own)


def _words(shape: Sequence[int]) -> str:
    return f"({', '.join(str(size or '?') for size in shape)})"
