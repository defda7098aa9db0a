"""The operators that are run for real on values from a model: those whose kernels check them.

A ``.pt2`` file says what sizes, types and numbers an operator gets, and not every kernel of torch
looks: batch normalisation called by its inner names writes past the end of statistics that are too
short, and a whole-number division ends the process by a signal where the quotient is too large.
So what is not known to check is not run. Tracing with fake tensors runs no kernel.

The operators that constants are made by were tried with sizes, strides, types and numbers that do
not belong together, each in a process of its own, and ended none (`make bench-kernels`). Missing,
on purpose:

- batch normalisation by its inner names, and cuDNN's: sizes are not checked. ``batch_norm`` itself
  checks them; by the statistics of what it is given, `obstacle` does;
- what works on a tensor's memory (``as_strided``) or is told where to read and write (``gather``,
  ``scatter``, ``embedding``, ``unfold``, ``col2im``, ``grid_sampler``), but for ``index`` and
  ``index_select``, which look at every index;
- resampling and pooling of constants: a constant is computed before as well;
- division by whole numbers that rounds (``floor_divide``, ``remainder``, ``fmod``, ``div`` with a
  rounding mode): constants divide so while `obstacle` sees that no divisor is -1 or 0.
"""

from collections.abc import Mapping
from typing import Any

import torch

_ELEMENTWISE = """
abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or
bitwise_xor ceil clamp clamp_max clamp_min cos cosh div elu eq erf erfc exp exp2 expm1 floor frac ge
gelu gt hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp log log10 log1p log2
log_sigmoid logical_and logical_not logical_or logical_xor logit lt masked_fill maximum minimum mish
mul nan_to_num ne neg pow reciprocal relu round rsqrt rsub sigmoid sign silu sin sinh softplus sqrt
square sub tan tanh trunc where
"""
_DIVISIONS = frozenset({"div", "floor_divide", "fmod", "remainder"})
_MAKERS = """
arange eye full full_like lift_fresh lift_fresh_copy linspace new_full new_ones new_zeros ones
ones_like scalar_tensor zeros zeros_like
"""
_MOVES = """
_to_copy _unsafe_view alias cat clone constant_pad_nd contiguous copy detach diag diagonal expand
flip narrow permute repeat reshape roll select slice split split_with_sizes squeeze stack t
transpose tril triu unbind unsqueeze view
"""
_REDUCTIONS = """
all amax amin any argmax argmin argsort cumprod cumsum linalg_vector_norm logsumexp max mean median
min norm prod sort std std_mean sum topk var var_mean
"""
_PRODUCTS = "addmm addmv baddbmm bmm convolution dot matmul mm mv outer"
_OTHERS = "_linalg_svd _log_softmax _softmax index index_select native_layer_norm"
_NORMALISATION = "_native_batch_norm_legit"
_LAYERS = """
_upsample_nearest_exact2d
absolute adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d batch_norm broadcast_to celu
chunk clip concat conv1d conv2d conv3d conv_transpose1d conv_transpose2d dropout expand_as
feature_dropout flatten gelu group_norm hardshrink hstack instance_norm layer_norm linear
log_softmax max_pool1d max_pool2d movedim multiply pad pixel_shuffle pixel_unshuffle prelu relu6
reshape_as rms_norm scaled_dot_product_attention selu softmax softshrink subtract swapaxes
threshold tile type_as unflatten upsample_bilinear2d upsample_nearest2d view_as vstack
"""
FOLDED = frozenset(" ".join((_ELEMENTWISE, _MAKERS, _MOVES, _REDUCTIONS, _PRODUCTS, _OTHERS,
                              _NORMALISATION)).split()) | _DIVISIONS
RUN = frozenset((*FOLDED, *_LAYERS.split(), "_assert_tensor_metadata", "sym_size")) - {
    _NORMALISATION}


def obstacle(operator: torch._ops.OpOverload, args: Any, kwargs: Mapping[str, Any]) -> str | None:
    """Return why an operator of ATen is not run on values, or None."""
    name = operator._schema.name.split("::")[-1]
    if name not in FOLDED:
        return "a constant is made by an operator that is not run while compiling"
    if name == _NORMALISATION and not _fits(args):
        return "it normalises a constant with weights of other sizes or types"
    if name in _DIVISIONS and not runs(operator, kwargs) and not _divides(args):
        return "it divides whole numbers by -1 or 0, and rounds"
    return None


def runs(operator: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator of a program may be run as a layer, on any values of fitting shape.

    Only those of ATen and of quantised programs are asked about: others compute shapes, or hold a
    graph.
    """
    if not isinstance(operator, torch._ops.OpOverload):
        return True
    if operator.namespace != "aten":
        return bool(operator.namespace != "quantized_decomposed")
    name = operator._schema.name.split("::")[-1]
    if name in _DIVISIONS:
        return name == "div" and kwargs.get("rounding_mode") is None
    return name in RUN or name.rstrip("_") in RUN


def _fits(args: Any) -> bool:
    """Whether a batch normalisation takes its own statistics, by a weight and a bias that have an
    element for each channel.

    args : input, weight, bias, whether it does, ...; with running statistics it does not fit.
    """
    source, *parameters = args[:3]
    return args[3] is True and source.ndim >= 2 and source.numel() > 0 and all(
        part is None or (tuple(part.shape) == source.shape[1:2] and part.dtype == source.dtype)
        for part in parameters)


def _divides(args: Any) -> bool:
    """Whether a division has operands of which one is no whole number, or divisors that are safe.

    The smallest whole number has no counterpart: divided by -1 it is none, and the processor stops
    the process.
    """
    dividend, divisor = (torch.as_tensor(arg) for arg in args[:2])
    if dividend.is_floating_point() or divisor.is_floating_point():
        return True
    return not bool(((divisor == -1) | (divisor == 0)).any())
