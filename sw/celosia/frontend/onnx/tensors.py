"""The tensors of an ``.onnx`` file, in it or in files beside it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from celosia.reading import FileError
from celosia_spec.errors import CelosiaError, quoted
from celosia_spec.files import read_file

MAX_BYTES = (2 << 30) - 1
"""Most bytes of a file, and of weights beside it: protobuf's own limit."""


def complete(graph: onnx.GraphProto, path: Path) -> None:
    """Take over the weights that a graph keeps in files of the same folder.

    CelosiaError for other folders, places that are not in the file, and sparse tensors.
    """
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    for tensor in _tensors(graph, path):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            content = _outside(tensor, path, files)
            left -= len(content)
            if left < 0:
                raise FileError(f"{path}: more than {MAX_BYTES >> 20} MiB of weights; export it "
                                "again")
            tensor.raw_data = content
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def array(tensor: onnx.TensorProto, path: Path) -> np.ndarray:
    """Return a tensor's values."""
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as problem:
        raise FileError(f"{path}: the tensor {quoted(tensor.name)!r} does not hold what its shape "
                        f"says ({quoted(str(problem))}); export it again") from None


def _tensors(graph: onnx.GraphProto, path: Path) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    sparse = bool(graph.sparse_initializer)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        sparse = sparse or attribute.HasField("sparse_tensor") or bool(attribute.sparse_tensors)
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    if sparse:
        raise CelosiaError(f"{path}: its weights are sparse tensors; save them as dense ones, "
                           "zeros and all")


def _outside(tensor: onnx.TensorProto, path: Path, files: dict[str, bytes]) -> bytes:
    """Return a tensor's bytes of a file beside ``path``.   files : those read already, by name."""
    told = {str(entry.key): str(entry.value) for entry in tensor.external_data}
    name = told.get("location", "")
    if not name.strip(".") or name != Path(name).name or not name.isprintable():
        raise CelosiaError(f"{path}: weights in {quoted(name)!r}, and only files of its own folder "
                           f'are opened; onnx.save(onnx.load("{path.name}"), "whole.onnx") makes '
                           "one file of all")
    if not (path.parent / name).exists():
        raise FileError(f"{path}: its weights are in {name}, which is not there; put it beside "
                        f"{path.name}")
    if name not in files:
        files[name] = read_file(path.parent / name, MAX_BYTES)
    try:
        start = int(told.get("offset", 0))
        end = start + int(told["length"]) if "length" in told else len(files[name])
    except ValueError:
        start = end = -1
    if not 0 <= start <= end <= len(files[name]):
        raise FileError(f"{path}: the tensor {quoted(tensor.name)!r} is not where the file says in "
                        f"{name}; export it again")
    return files[name][start:end]
