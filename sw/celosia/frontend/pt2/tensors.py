"""Weights and constants: what a file says of each, against the bytes that it holds."""

import keyword
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celosia.frontend.pt2.checks import (
    Unsound,
    device,
    each,
    fields,
    flag,
    integer,
    mapping,
    shown,
    union,
)
from celosia.reading import MAX_BYTES

ITEM_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2, 28: 2, 29: 1, 30: 1,
              31: 1, 32: 1, 33: 1, 34: 4, 35: 8}
"""Bytes of an element of each real type, by torch's number for it (``schema.ScalarType``)."""
FLOAT32, BOOL = 7, 12
_FLOATS = {6, 7, 8, 13, 29, 30, 31, 32, 33}
_STRIDED = 7
_PICKLE = "which can run code when it is opened and is not read"


@dataclass(frozen=True)
class Stored:
    """A weight or constant. entry: of the archive, its bytes; meta: as `describe` returns."""

    entry: str
    parameter: bool
    meta: dict[str, Any]

    @property
    def dtype(self) -> int:
        return int(self.meta["dtype"])

    @property
    def sizes(self) -> list[int]:
        return _numbers(self.meta["sizes"])


def describe(value: Any, what: str, size: Callable[[Any, str], dict[str, Any]]) -> dict[str, Any]:
    """Return the description of a tensor, its sizes checked by `size`, on the processor."""
    found = fields(value, what, ("dtype", "sizes", "requires_grad", "device", "strides",
                                 "storage_offset", "layout"))
    if found["layout"] != _STRIDED:
        raise Unsound(f"{what} is not a dense tensor", "make it dense, with Tensor.to_dense()")
    kind = element_type(found["dtype"], what)
    return {"dtype": kind, "sizes": each(size)(found["sizes"], what),
            "requires_grad": flag(found["requires_grad"], what) and kind in _FLOATS,
            "device": device(found["device"], what), "layout": _STRIDED,
            "strides": each(size)(found["strides"], what),
            "storage_offset": size(found["storage_offset"], what)}


def element_type(value: Any, what: str) -> int:
    """Return torch's number for an element type of real numbers."""
    if integer(value, what) not in ITEM_SIZES:
        raise Unsound(f"{what} has elements of type {value}, which are not real numbers",
                      "keep the network in float32")
    return int(value)


def fixed(value: Any, what: str) -> dict[str, int]:
    """Return a size that is a plain number, at least 0."""
    kind, size = union(value, what)
    if kind != "as_int":
        raise Unsound(f"{what} has a size that is {shown(kind)} where a number belongs")
    return {"as_int": integer(size, what, 0, MAX_BYTES)}


def stored(config: Any, kind: str, folder: str, sizes: dict[str, int]) -> dict[str, Stored]:
    """Return {path: tensor} of a table of weights or constants.

    sizes : bytes of each entry of the archive.
    """
    found, total = {}, 0
    table = mapping(fields(config, f"the table of {kind}", ("config",))["config"], kind)
    for path, value in table.items():
        what = f"{kind} {shown(path)}"
        entry = fields(value, what, ("path_name", "is_param", "use_pickle", "tensor_meta"))
        if flag(entry["use_pickle"], what):
            raise Unsound(f"{what} is a pickle, {_PICKLE}",
                          "make it a plain torch.Tensor and export the model again")
        location = f"{folder}{entry['path_name']}"
        if not isinstance(entry["path_name"], str) or location not in sizes:
            raise Unsound(f"{what} has no bytes: the entry {shown(location)} is missing")
        meta = describe(entry["tensor_meta"], what, fixed)
        _fits(meta, sizes[location], what)
        total += math.prod(_numbers(meta["sizes"])) * ITEM_SIZES[meta["dtype"]]
        found[path] = Stored(location, flag(entry["is_param"], what), meta)
    if total > MAX_BYTES:
        raise Unsound(f"its {kind}s have {total} bytes; at most {MAX_BYTES} are read")
    types: dict[str, int] = {}
    for path, tensor in found.items():
        if types.setdefault(tensor.entry, tensor.dtype) != tensor.dtype:
            raise Unsound(f"{kind} {shown(path)} reads another tensor's bytes as another type")
    return found


def _fits(meta: dict[str, Any], held: int, what: str) -> None:
    """Raise Unsound unless a tensor lies within the `held` bytes of its entry."""
    sizes, strides = _numbers(meta["sizes"]), _numbers(meta["strides"])
    offset, item = meta["storage_offset"]["as_int"], ITEM_SIZES[meta["dtype"]]
    if len(sizes) != len(strides):
        raise Unsound(f"{what} has {len(sizes)} sizes and {len(strides)} strides")
    empty = 0 in sizes
    last = 0 if empty else 1 + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if held == 0 and not empty:
        raise Unsound(f"{what} has no values; it was exported without them",
                      "export the model outside FakeTensorMode")
    if held % item or (offset + last) * item > held:
        raise Unsound(f"{what} of shape {tuple(sizes)} needs {(offset + last) * item} bytes, its "
                      f"entry has {held}")


def write(table: dict[str, Stored], places: dict[str, str], names: "PathNames"
          ) -> dict[str, Any]:
    """Return the table for a new archive. places: {entry: its new file name}."""
    return {"config": {
        names[path]: {"path_name": places[tensor.entry], "is_param": tensor.parameter,
                      "use_pickle": False, "tensor_meta": tensor.meta}
        for path, tensor in table.items()}}


class PathNames(dict[str, str]):
    """{path of a tensor: one that may stand in Python source}, the same where it may already.

    torch writes paths such as ``block.conv-1.weight`` into source as they are; one with a quote
    in it would end the string there and go on as Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken: set[str] = set()

    def __missing__(self, path: str) -> str:
        parts = path.split(".")
        if not path or len(path) > 1000 or not all(parts):
            raise Unsound(f"a tensor is called {shown(path)}")
        plain = ".".join(self._plain(part) for part in parts)
        while plain in self._taken:
            plain += "_"
        self._taken.add(plain)
        self[path] = plain
        return plain

    @staticmethod
    def _plain(part: str) -> str:
        part = "".join(c if c.isalnum() or c in "_- " else "_" for c in part)
        return f"p_{part}" if keyword.iskeyword(part) or part.startswith("__") else part


def _numbers(sizes: list[dict[str, int]]) -> list[int]:
    return [size["as_int"] for size in sizes]
