"""What users give as numbers: NumPy arrays, tensors of any kind, and lists."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia_spec.errors import ArgumentError, said

if TYPE_CHECKING:
    import torch

__all__ = ["as_array", "as_tensor", "real_array", "wrong_shape"]

_MAP = 3            # axes of a map
_COLOURS = 4        # most channels of a picture
_WANTED = "give real numbers, float32 (N, ...)"


def as_array(x: Any, name: str = "input") -> np.ndarray:
    """Return numbers as float32 (N, ...), in native order, every value finite.

    Takes what `real_array` takes, of at least one axis. ArgumentError, with `name`, otherwise.
    """
    given = real_array(x, name)
    if given.ndim == 0:
        raise ArgumentError(f"{name}: a single number; {_WANTED}")
    with np.errstate(over="ignore"):
        array = given.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        at = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        if np.isfinite(given[at]):
            raise ArgumentError(f"{name}: element {at} is {given[at]}, beyond float32; scale the "
                                "inputs down")
        raise ArgumentError(f"{name}: element {at} is {given[at]}; remove NaN and infinity first")
    return array


def real_array(x: Any, name: str) -> np.ndarray:
    """Return numbers as an array of their own type, bfloat16 and smaller floats as float32.

    x : an array, a sequence of numbers, or a tensor. Of tensors those that are sparse become
    dense, those that are quantised become the values that they stand for; the device and
    gradients do not matter.

    ArgumentError, with `name`, for complex numbers, objects, rows of different lengths, masked
    elements, and tensors without values ("meta", FakeTensor).
    """
    if _is_tensor(x):
        array = _tensor_array(x, name)
    elif isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ArgumentError(f"{name}: some elements are masked; fill them, with x.filled(0)")
    else:
        try:
            array = np.asarray(x)
        except (ValueError, TypeError, RuntimeError, OverflowError, RecursionError) as problem:
            raise ArgumentError(
                f"{name}: not an array ({said(problem)[:120]}); {_WANTED}") from None
    if array.dtype.kind not in "fiub":
        raise ArgumentError(f"{name}: elements of type {array.dtype}; {_WANTED}")
    return array


def wrong_shape(got: Sequence[int], wanted: Sequence[int], x: str = "x",
                taker: str = "the network takes") -> str:
    """Return what is said of an array of another shape than is taken, and the way out where the
    shape tells one.

    got : of the array.   wanted : of one input, without the batch axis.   x : what the array is
    called in the way out.   taker : in words, who wants the shape.
    """
    got, wanted = tuple(got), tuple(wanted)
    if got == wanted:
        way = f"; add the batch: {x}[None]"
    elif found := _order(got[1:], wanted):
        kind, axes = found
        way = f"; {kind}? {x}.transpose({', '.join(map(str, (0, *(axis + 1 for axis in axes))))})"
    elif found := _order(got, wanted):
        kind, axes = found
        way = f"; {kind}, and no batch? {x}.transpose({', '.join(map(str, axes))})[None]"
    elif _same_order(got, wanted):
        way = f"; reshape it: {x}.reshape(-1, {', '.join(map(str, wanted))})"
    else:
        way = ""
    return f"shape {got}, {taker} (N, {', '.join(map(str, wanted))}){way}"


def _order(got: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
    """Return, in words and as axes to transpose, in which other order one input's axes are where
    the shapes tell; None where they do not."""
    axes = len(wanted)
    if axes < 2 or len(got) != axes:
        return None
    orders: dict[str, tuple[int, ...]] = {"channels last": (axes - 1, *range(axes - 1))}
    if axes == _MAP and wanted[-1] <= _COLOURS < min(wanted[:-1]):      # as channels last
        orders |= {"channels first": (1, 2, 0), "height and width swapped": (1, 0, 2)}
    elif axes == _MAP:
        orders["height and width swapped"] = (0, 2, 1)
    return next(((kind, order) for kind, order in orders.items()
                 if tuple(got[axis] for axis in order) == wanted), None)


def _same_order(got: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether one input or several are inputs of a shape once axes of one come or go, or a map
    becomes a vector or is made of one: no element then changes its place."""
    for own in (got[1:], got):
        flat = len(own) == 1 or len(wanted) == 1
        if own and (math.prod(own) == math.prod(wanted) if flat else
                    [size for size in own if size > 1] == [size for size in wanted if size > 1]):
            return True
    return False


def as_tensor(x: Any, name: str) -> torch.Tensor:
    """Return numbers as a dense tensor without gradient; a tensor keeps its type and device.

    Takes what `real_array` takes; ArgumentError likewise.
    """
    import torch

    if isinstance(x, torch.Tensor):
        return _dense(x, name)
    array = np.ascontiguousarray(real_array(x, name))
    array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    return torch.from_numpy(array)


def _is_tensor(x: Any) -> bool:
    """Return whether `x` is a tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _dense(x: torch.Tensor, name: str) -> torch.Tensor:
    """Return a tensor whose values lie in memory as they are."""
    import torch

    if x.is_complex():
        raise ArgumentError(f"{name}: elements of type {x.dtype}; {_WANTED}")
    if x.is_meta:
        raise ArgumentError(f"{name}: a tensor on the device 'meta', which has no values; give "
                            "the values")
    if x.is_nested:
        raise ArgumentError(f"{name}: rows of different lengths; {_WANTED}")
    try:
        x = x.detach()
        if x.is_quantized:
            x = x.dequantize()
        if x.layout != torch.strided:
            x = x.to_dense()
        return x.resolve_conj().resolve_neg()
    except (RuntimeError, TypeError, NotImplementedError) as problem:
        raise ArgumentError(f"{name}: a tensor whose values cannot be read "
                            f"({said(problem)[:120]}); give a dense one") from None


def _tensor_array(x: torch.Tensor, name: str) -> np.ndarray:
    import torch

    x = _dense(x, name)
    if x.is_floating_point() and x.dtype not in (torch.float16, torch.float32, torch.float64):
        x = x.to(torch.float32)         # NumPy has no bfloat16
    try:
        array: np.ndarray = x.cpu().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as problem:
        raise ArgumentError(f"{name}: a tensor whose values cannot be read "
                            f"({said(problem)[:120]}); give a dense one") from None
    return array
