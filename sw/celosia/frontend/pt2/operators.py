"""The operators that a ``.pt2`` file may name.

Of ATen those that compute tensors from tensors and numbers, and nothing else: none that reads or
writes a file, draws random numbers, leaves memory as it found it, or takes a library's own packed
format. None of recurrent layers, which count on the length of their list of weights even while they
are traced, nor ``tensor_split``, which makes as many results as it is told. And those of quantised
programs (`frontend.quantised`). What Celosia then does with an operator is the importer's to say;
which it runs is in `frontend.kernels`.
"""

import re

import torch

from celosia.frontend import quantised

REGIONS = {"torch.ops.higher_order.wrap_with_set_grad_enabled",
           "torch.ops.higher_order.wrap_with_autocast"}
"""What ``with torch.no_grad():`` and ``with torch.autocast(...):`` become; each has a graph of its
own."""

DETACH_IN_PLACE, DETACH = "torch.ops.aten.detach_.default", "torch.ops.aten.detach.default"
"""The first stands behind each ``torch.tensor(...)``, and torch cannot trace it a second time."""

_KNOWN = re.compile(r"torch\.ops\.(aten|quantized_decomposed)"
                    r"\.([a-z_][A-Za-z0-9_]*)\.([A-Za-z][A-Za-z0-9_]*)")
_SHAPE = {"sym_size", "sym_stride", "sym_numel", "sym_storage_offset"}
_CHECKS = {"_assert_tensor_metadata"}
_NAMES = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _convolution _log_softmax _native_batch_norm_legit
_native_batch_norm_legit_functional _native_batch_norm_legit_no_training _prelu_kernel _safe_softmax
_softmax _to_copy _unsafe_view _upsample_nearest_exact1d _upsample_nearest_exact2d _weight_norm
_weight_norm_interface
abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add addcdiv addcmul addmm addmv alias
all alpha_dropout amax amin aminmax any arange argmax argmin argsort as_strided asin asinh atan
atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear bitwise_and bitwise_not
bitwise_or bitwise_xor bmm broadcast_tensors broadcast_to cat ceil celu channel_shuffle chunk clamp
clamp_max clamp_min clip clone col2im concat concatenate constant_pad_nd contiguous conv1d conv2d
conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy cos cosh
cosine_similarity cross cudnn_batch_norm cumprod cumsum detach diag diagonal diff dist div divide
dot dropout einsum elu embedding eq erf erfc exp exp2 expand expand_as expm1 eye
feature_alpha_dropout feature_dropout fill flatten flip floor floor_divide fmod frac full full_like
gather ge gelu glu grid_sampler grid_sampler_2d group_norm gt hardshrink hardsigmoid hardswish
hardtanh hstack im2col index index_fill index_select instance_norm isfinite isinf isnan kron
layer_norm le leaky_relu lerp lift_fresh lift_fresh_copy linalg_householder_product linalg_norm
linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_sigmoid_forward log_softmax
logical_and logical_not logical_or logical_xor logit logsumexp lt masked_fill matmul max max_pool1d
max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
maximum mean median meshgrid mH min minimum mish mm moveaxis movedim mT mul multiply mv nan_to_num
narrow native_batch_norm native_channel_shuffle native_dropout native_group_norm native_layer_norm
ne neg negative new_full new_ones new_zeros norm norm_except_dim one_hot ones ones_like outer pad
permute pixel_shuffle pixel_unshuffle positive pow prelu prod reciprocal reflection_pad1d
reflection_pad2d reflection_pad3d relu relu6 remainder repeat repeat_interleave replication_pad1d
replication_pad2d replication_pad3d reshape reshape_as rms_norm roll rot90 round rrelu rsqrt rsub
scalar_tensor scaled_dot_product_attention scatter select select_scatter selu sigmoid sign silu sin
sinh slice slice_scatter softmax softplus softshrink sort special_expit special_log_softmax
special_softmax split split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum
swapaxes swapdims t take_along_dim tan tanh tensordot threshold tile to topk transpose tril triu
true_divide trunc type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze
upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
upsample_nearest3d upsample_trilinear3d var var_mean vdot view view_as vstack where zeros zeros_like
"""
_TENSOR = frozenset(_NAMES.split())

WORDS = {"none", "tanh", "same", "valid", "trunc", "floor", "constant", "reflect", "replicate",
         "circular", "ij", "xy", "cpu", "cuda"}
"""The words that operators take as arguments; no operator above takes the name of a file."""
EQUATION = re.compile(r"[A-Za-z., >\-]{1,200}")
"""Of einsum."""


def base_name(target: str) -> str | None:
    """Return "conv2d" of "torch.ops.aten.conv2d.default"; None if it is not such a name."""
    found = _KNOWN.fullmatch(target)
    return found[2] if found else None


def find(target: str) -> "torch._ops.OpOverload | None":
    """Return the operator of a name such as "torch.ops.aten.conv2d.default"; None if refused."""
    found = _KNOWN.fullmatch(target)
    if found is None:
        return None
    space, base, overload = found.groups()
    if space == quantised.NAMESPACE:
        known_there = base in quantised.OPERATORS
        packet = getattr(torch.ops.quantized_decomposed, base, None) if known_there else None
        return (getattr(packet, overload) if packet is not None and overload in packet.overloads()
                else None)
    known = _TENSOR | _SHAPE | _CHECKS
    in_place = base.endswith("_") and base.rstrip("_") in _TENSOR
    if base not in known and not in_place:
        return None
    packet = getattr(torch.ops.aten, base, None)
    if packet is None or overload not in packet.overloads() or overload.startswith("prim_"):
        return None         # prim: of TorchScript, which takes types as numbers
    operator = getattr(packet, overload)
    schema = operator._schema
    if schema.is_mutable and not in_place:      # such as .out
        return None
    results = {str(result.type) for result in schema.returns}
    allowed = {"int", "SymInt"} if base in _SHAPE else {"Tensor", "List[Tensor]"}
    return operator if results <= allowed and (results or base in _CHECKS) else None
