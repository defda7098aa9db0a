"""Quantised programs of PyTorch: the operators ``quantized_decomposed``, as torchao's pt2e uses.

They are never run. What they make of constants is computed here; on a tensor that depends on the
input, a quantiser and its dequantiser stand for the nearest numbers of a grid.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # it registers the operators
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node as FxNode

from celosia.grids import Grid, real, whole
from celosia.show import count

NAMESPACE = "quantized_decomposed"
_FOUND = ("choose_qparams", "choose_qparams_symmetric", "choose_qparams_per_token",
          "choose_qparams_per_token_asymmetric")
_QUANTISERS = ("quantize_per_tensor", "quantize_per_channel", "quantize_per_token",
               "quantize_per_channel_group")
_DEQUANTISERS = tuple(f"de{name}" for name in _QUANTISERS)
OPERATORS = frozenset((*_FOUND, *_QUANTISERS, *_DEQUANTISERS))

REMEDY = "quantise with a constant scale for each tensor, or export the float network"
MOVES = frozenset({
    "_unsafe_view", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "adaptive_max_pool2d", "alias", "amax", "cat", "clone", "detach", "getitem",
    "index_select", "max_pool2d_with_indices", "permute", "select", "slice", "split",
    "split_with_sizes", "squeeze", "stack", "t", "transpose", "unbind", "unsqueeze",
    "upsample_nearest1d", "upsample_nearest2d", "view"})
"""Operators that do the same to whole numbers as to what these stand for."""

Key = TypeVar("Key")


def word(node: FxNode) -> str | None:
    """Return the name of an operator of these, None where a node is none."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != NAMESPACE:
        return None
    return str(target._schema.name.split("::")[-1])


def passes(node: FxNode) -> bool:
    """Whether a node does not change a tensor but by rounding: a quantiser or a dequantiser."""
    return word(node) in _QUANTISERS + _DEQUANTISERS


def remark(weights: int, tensors: int, found: int = 0) -> str:
    """Return what is done with a quantised network.

    weights : constants that were.   tensors : on the way, of constant scales.
    found   : of scales that are found from each input.
    """
    text = (f"the network is quantised: the array rounds to its own format, takes "
            f"{count(weights, 'constant')} with their quantised values")
    if tensors:
        text += (f", and makes static exponents of the scales of {count(tensors, 'tensor')}; "
                 "dynamic ones leave scales out")
    return text + (f"; left out are the scales of {count(found, 'tensor')}, found from each input"
                   if found else "")


def told(program: ExportedProgram) -> str:
    """Return what is done with a quantised program."""
    inputs = {spec.arg.name for spec in program.graph_signature.input_specs
              if spec.kind == InputKind.USER_INPUT}
    live: set[FxNode] = set()
    weights = tensors = found = 0
    for node in program.graph.nodes:
        if node.name in inputs or live.intersection(node.all_input_nodes):
            live.add(node)
            if word(node) in _QUANTISERS:
                dynamic = live.intersection(node.all_input_nodes[1:])
                tensors, found = tensors + (not dynamic), found + bool(dynamic)
        else:
            weights += word(node) in _DEQUANTISERS
    return remark(weights, tensors, found)


class WholeNumbers(Generic[Key]):
    """Which tensors are whole numbers, and of what: followed from where they are made to where they
    are read as what they stand for.

    grids : by tensor; where the scale is found from each input, the tensor that it is found from.
    """

    def __init__(self) -> None:
        self.grids: dict[Key, Grid | Key] = {}

    def read(self, tensor: Key, grid: Grid | Key) -> None:
        """ValueError unless a tensor's whole numbers are those of a grid."""
        own = self.grids.get(tensor)
        if own is None:
            raise ValueError("it dequantises what was not quantised")
        if not _same(own, grid):
            raise ValueError("its scale or zero point is another than the quantiser's")

    def pass_on(self, made: Key, reads: Iterable[Key], moves: bool) -> None:
        """Note what an operator makes of tensors; ValueError where it computes with whole numbers.

        moves : whether it may read such.
        """
        of = [self.grids.get(tensor) for tensor in reads]
        held = [grid for grid in of if grid is not None]
        if not held:
            return
        if not moves or len(held) < len(of) or not all(_same(held[0], grid) for grid in held):
            raise ValueError("it computes with whole numbers")
        self.grids[made] = held[0]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Grid) and isinstance(other, Grid):
        return one.same(other)
    return one is other


class ProgramNumbers(WholeNumbers[FxNode]):
    """The same of a program.

    scales : nodes that are a scale or a zero point found from each input, to the tensor's node.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scales: dict[FxNode, FxNode] = {}

    def take(self, node: FxNode, args: Mapping[str, Any]) -> Grid | None:
        """Note what one of `OPERATORS` makes of a tensor that depends on the input. Return the grid
        that the tensor is rounded to, None where it is not, or each input has another.

        args : by schema name, constants as tensors or numbers, all else None.

        ValueError, which says why, where that cannot be.
        """
        kind, source = word(node), node.args[0]
        assert kind is not None and isinstance(source, FxNode)
        if "per_token" in kind and np.prod(source.meta["val"].shape[:-1]) != 1:
            raise ValueError("it has a scale for each row")
        if kind in _FOUND:
            self.scales[node] = source
            return None
        scale = node.args[1]
        found = self.scales.get(scale) if isinstance(scale, FxNode) else None
        grid = _grid(kind, args, tuple(source.meta["val"].shape)) if found is None else found
        if kind in _DEQUANTISERS:
            self.read(source, grid)
            return None
        if isinstance(grid, FxNode) and grid is not source:
            raise ValueError("its scale is found from another tensor")
        self.grids[node] = grid
        return grid if isinstance(grid, Grid) else None

    def follow(self, node: FxNode, reads: Iterable[FxNode], kind: str) -> None:
        """Note what another operator makes; ValueError where it computes with what it must not.

        reads : the nodes that it reads and that depend on the input.
        """
        reads = list(reads)
        if found := [self.scales[n] for n in reads if n in self.scales]:
            if kind != "getitem":
                raise ValueError("it computes with a scale that is found from each input")
            self.scales[node] = found[0]
        self.pass_on(node, reads, kind in MOVES)


def constant(kind: str, args: Mapping[str, Any]) -> torch.Tensor:
    """Return what an operator of these makes of constants; ValueError where it makes nothing.

    args : by schema name.
    """
    if kind in _FOUND:
        raise ValueError("its scale is found from a constant")
    x = args["input"].detach().cpu()
    scale, zero = (_spread(kind, values, args, tuple(x.shape)) for values in _parameters(args))
    if kind in _DEQUANTISERS:
        if not bool(torch.isfinite(scale).all() and torch.isfinite(zero).all()):
            raise ValueError("a scale or zero point is not finite")
        m, *grid = (part.to(torch.float64).numpy() for part in (x, scale, zero))
        return torch.from_numpy(real(m, *grid))
    ends = _ends(args)
    Grid(scale=_flat(scale), zero=_flat(zero), least=ends[0], most=ends[1])
    ratio = (x * (1.0 / scale)).to(torch.float64)       # as torch computes it
    return torch.from_numpy(whole(ratio.numpy(), zero.to(torch.float64).numpy(), ends)).to(
        _whole_type(args))


def _grid(kind: str, args: Mapping[str, Any], shape: tuple[int, ...]) -> Grid:
    """Return the grid of a tensor of this shape, batch axis first."""
    _whole_type(args)
    if args["scale" if "scale" in args else "scales"] is None:
        raise ValueError("its scale depends on the input")
    scale, zero = map(_flat, _parameters(args))
    if kind.endswith("group"):
        raise ValueError("it has a scale for each group")
    if scale.size > 1 and (args["axis"] % len(shape) != 1 or scale.size != shape[1]):
        raise ValueError(f"it has {scale.size} scales along axis {args['axis']} of {shape}")
    least, most = _ends(args)
    return Grid(scale=scale, zero=zero, least=least, most=most)


def _parameters(args: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return scales and zero points; without zero points these are 0."""
    found = [args["scale" if "scale" in args else "scales"],
             args.get("zero_point", args.get("zero_points"))]
    return [torch.as_tensor(0 if values is None else values).detach().cpu() for values in found]


def _flat(values: torch.Tensor) -> np.ndarray:
    """Return scales or zero points as float64 (n,)."""
    found: np.ndarray = values.to(torch.float64).reshape(-1).numpy()
    return found


def _spread(kind: str, values: torch.Tensor, args: Mapping[str, Any],
            shape: tuple[int, ...]) -> torch.Tensor:
    """Return scales or zero points as they belong to the elements of a constant."""
    own = tuple(values.shape)
    if values.numel() == 1:
        return values.reshape(())
    if kind.endswith("group"):
        size = int(args["group_size"])
        if len(shape) != 2 or size < 1 or own != (shape[0], shape[1] // size) or shape[1] % size:
            raise ValueError(f"scales {own} for groups of {size} in {shape}")
        return values.repeat_interleave(size, 1)
    if "token" in kind:
        if own not in (shape[:-1], (*shape[:-1], 1)):
            raise ValueError(f"scales {own} for {shape}")
        return values.reshape(*shape[:-1], 1)
    axis = int(args.get("axis") or 0)
    if not -len(shape) <= axis < len(shape) or own != (shape[axis],):
        raise ValueError(f"scales {own} along axis {axis} of {shape}")
    sides = [1] * len(shape)
    sides[axis] = -1
    return values.reshape(sides)


def _ends(args: Mapping[str, Any]) -> tuple[int, int]:
    return int(args["quant_min"]), int(args["quant_max"])


def _whole_type(args: Mapping[str, Any]) -> torch.dtype:
    kind = args["dtype"]
    if not isinstance(kind, torch.dtype) or kind.is_floating_point:
        raise ValueError(f"it quantises to {str(kind).removeprefix('torch.')}")
    return kind


class Quantiser(nn.Module):
    """A quantiser and its dequantiser in a module; nothing but its cut unless `marked`.

    grid : of what it quantises.   cut : what its range cuts off is cut off there.
    """

    def __init__(self, grid: Grid, cut: nn.Module) -> None:
        super().__init__()
        self.grid, self.cut, self.marks = grid, cut, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cut(x)
        wide = torch.iinfo(torch.int32)
        if not self.marks or self.grid.least < wide.min or self.grid.most > wide.max:
            return x
        grid, operators = self.grid, torch.ops.quantized_decomposed
        ends = grid.least, grid.most, torch.int32
        if grid.scale.size == 1:
            args = float(grid.scale[0]), int(grid.zero[0]), *ends
            return operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *args), *args)
        of_channels = (torch.from_numpy(grid.scale), torch.from_numpy(grid.zero).long(), 1, *ends)
        return operators.dequantize_per_channel(
            operators.quantize_per_channel(x, *of_channels), *of_channels)


@contextmanager
def marked(model: Any) -> Iterator[None]:
    """Let the quantisers in a module stand in what is exported of it meanwhile."""
    parts = [part for part in model.modules() if isinstance(part, Quantiser)] if isinstance(
        model, nn.Module) else []
    for part in parts:
        part.marks = True
    try:
        yield
    finally:
        for part in parts:
            part.marks = False
