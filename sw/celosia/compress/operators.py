"""Operators of torch that are known to keep channels apart, by what they do with them.

Names are those of functions and methods, without what tells operators of Python (`__add__`, as
"add") and those in place (`relu_`) from them. What is not here may mix channels.
"""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "ELEMENTWISE", "FUNCTIONS", "POOLS", "PRODUCTS", "QUOTIENTS",
           "REDUCTIONS", "REORDERS", "RESIZES", "SELECTS", "UNCHANGED", "also_in_place"]

UNCHANGED = frozenset({
    "contiguous", "clone", "detach", "alias", "to", "float", "double", "half", "bfloat16", "cpu",
    "cuda", "type", "type_as", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout",
    "alpha_dropout", "feature_alpha_dropout"})  # fmt: skip
"""Each number stays what it is (in eval mode, and up to its type)."""

PRODUCTS = frozenset({"mul", "imul", "rmul", "multiply"})
QUOTIENTS = frozenset({"div", "divide", "true_divide", "truediv", "itruediv"})
"""Zero divided by anything."""

ACTIVATIONS = frozenset({
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardtanh", "sigmoid", "hardsigmoid", "tanh", "softplus", "softsign", "logsigmoid",
    "log_sigmoid", "tanhshrink", "softshrink", "hardshrink", "threshold", "rrelu", "clamp", "clip",
    "clamp_min", "clamp_max"})  # fmt: skip
"""Activation functions, of one number each."""

FUNCTIONS = frozenset({
    "abs", "neg", "negative", "exp", "expm1", "exp2", "log", "log1p", "log2", "sqrt", "rsqrt",
    "square", "reciprocal", "sign", "erf", "sin", "cos", "atan"})  # fmt: skip
"""Other functions of one number."""

ELEMENTWISE = PRODUCTS | QUOTIENTS | ACTIVATIONS | FUNCTIONS | frozenset({
    "add", "iadd", "radd", "sub", "isub", "rsub", "subtract", "rtruediv", "rdiv", "pow", "rpow",
    "ipow", "maximum", "minimum", "fmax", "fmin", "where", "masked_fill", "gt", "ge", "lt", "le",
    "eq", "ne"})  # fmt: skip
"""A number of the result depends on the numbers at its place alone."""

REORDERS = frozenset({
    "view", "reshape", "flatten", "unflatten", "ravel", "permute", "transpose", "swapaxes",
    "swapdims", "movedim", "moveaxis", "squeeze", "unsqueeze", "T", "mT", "t", "view_as",
    "reshape_as", "expand", "expand_as", "broadcast_to"})  # fmt: skip
"""Numbers move or repeat, and with some channels gone the others move in the same way."""

SELECTS = frozenset({
    "getitem", "narrow", "select", "chunk", "split", "split_with_sizes", "tensor_split", "unbind",
    "flip", "roll", "repeat", "tile"})  # fmt: skip
"""As `REORDERS`, but with some channels gone only right where the channels stay as they are."""

REDUCTIONS = frozenset({"mean", "sum", "amax", "amin", "max", "min"})
"""Over all axes, or those that are named."""

RESIZES = frozenset({"interpolate", "upsample", "upsample_nearest", "upsample_bilinear"})
"""Axes behind the channels, (N, C, ...), get another length; means have weights that add up."""

POOLS = frozenset(f"{form}{kind}_pool{axes}d" for form in ("", "adaptive_")
                  for kind in ("max", "avg") for axes in (1, 2, 3))


def also_in_place(names: frozenset[str]) -> frozenset[str]:
    """Return names, and those of the same functions in place, with an underscore behind."""
    return names | {f"{name}_" for name in names}
