"""``.pt2`` files that compute something of their own constants and sizes that kernels trip over."""

import functools
import io
import json
import warnings
from collections.abc import Callable

import torch
from bad_inputs_archives import Entries, File, Rng, entries_of, zipped
from torch import nn
from torch.export import Dim

__all__ = ["computing"]

_PLACE = "archive/models/model.json"
_WIDE = 37
"""A size of the networks here that stands nowhere else, to be written over."""
aten = torch.ops.aten


class _Net(nn.Module):
    """A linear layer, and what is made of tensors that do not belong together."""

    def __init__(self, make: Callable[["_Net"], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.make = nn.Linear(64, 4), make
        self.register_buffer("wide", torch.full((1, 1, 1), 1e10))
        self.register_buffer("one", torch.ones(1))
        self.register_buffer("row", torch.ones(1, 4))
        self.register_buffer("far", torch.tensor([10 ** 9] * 4))
        self.register_buffer("least", torch.full((4,), -2 ** 63))
        self.register_buffer("minus", torch.full((4,), -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1)) + self.make(self)


def _statistics(net: _Net) -> torch.Tensor:
    return aten._native_batch_norm_legit_functional(
        net.wide.expand(4, 100_000, 2), None, None, net.one, net.one, True, 0.9, 1e-5
    )[0].flatten()[:4]


def _kept_statistics(net: _Net) -> torch.Tensor:
    return aten._native_batch_norm_legit_no_training(
        net.wide.expand(4, 1000, 2), None, None, net.one, net.one, 0.9, 1e-5)[0].flatten()[:4]


_KERNELS: tuple[Callable[[_Net], torch.Tensor], ...] = (
    _statistics, _kept_statistics,
    lambda net: torch.div(net.least, net.minus, rounding_mode="trunc").float(),
    lambda net: torch.div(net.least.int(), net.minus.int(), rounding_mode="trunc").float(),
    lambda net: torch.fmod(net.least, net.minus).float(),
    lambda net: torch.gather(net.row[0], 0, net.far),
    lambda net: torch.embedding(net.row.reshape(4, 1), net.far)[:, 0],
    lambda net: net.row[0][net.far])
_SPLITS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda rows: rows.unbind(0)[0], lambda rows: rows.split(1)[0],
    lambda rows: rows.chunk(rows.shape[0])[0])
_TERMS = 30


def computing(rng: Rng) -> File:
    """Return a file that must be refused: what it asks of a kernel, of sizes or of sympy."""
    number = int(rng.integers(len(_KERNELS) + len(_SPLITS) + 1))
    return File(_made(number), False)


@functools.cache
def _made(number: int) -> bytes:
    if number < len(_KERNELS):
        return _saved(_Net(_KERNELS[number]))
    if number < len(_KERNELS) + len(_SPLITS):
        split = _SPLITS[number - len(_KERNELS)]
        file = entries_of(_saved(_Net(lambda net: split(net.row.expand(_WIDE, 4)))))
        return _edited(file, lambda value: _over(value, 1 << 22))
    return _edited(entries_of(_saved(_Net(lambda net: net.row), open_batch=True)), _long)


def _saved(net: _Net, *, open_batch: bool = False) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: Dim("n", min=1, max=64)},) if open_batch else None
        torch.export.save(torch.export.export(
            net.eval(), (torch.zeros(2 if open_batch else 1, 1, 8, 8),), dynamic_shapes=shapes),
            buffer)
    return buffer.getvalue()


def _edited(file: Entries, change: Callable[[object], object]) -> bytes:
    return zipped(file | {_PLACE: json.dumps(change(json.loads(file[_PLACE]))).encode()})


def _over(value: object, size: int) -> object:
    if isinstance(value, dict):
        return {key: _over(part, size) for key, part in value.items()}
    if isinstance(value, list):
        return [_over(part, size) for part in value]
    return size if value == _WIDE and not isinstance(value, bool) else value


def _long(program: object) -> object:
    """Give open sizes an expression with millions of terms, once it is multiplied out."""
    assert isinstance(program, dict)
    names = [f"s{1000 + k}" for k in range(_TERMS)]
    symbols = ", ".join(f"Symbol({name!r}, positive=True, integer=True)" for name in names)
    expression = {"as_expr": {"expr_str": f"Pow(Add({symbols}), Integer(8))",
                              "hint": {"as_int": 2}}}
    for tensor in program["graph_module"]["graph"]["tensor_values"].values():
        if "as_expr" in tensor["sizes"][0]:
            tensor["sizes"][0] = expression
    program["range_constraints"] |= {name: {"min_val": 1, "max_val": 64} for name in names}
    return program
