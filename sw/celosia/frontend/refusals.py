"""What to say of an operator that the machine does not have: its name, the problem, a way out."""

from collections.abc import Mapping

from torch.fx import Node as FxNode

from celosia.frontend.call import Call, Constant, Moved, Value
from celosia.frontend.origin import PASSIVE, call_of, function, operator, torch_module
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError

LAYERS = frozenset({
    "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "Linear", "BatchNorm1d",
    "BatchNorm2d", "ReLU", "ReLU6", "LeakyReLU", "PReLU", "Hardtanh", "Hardsigmoid", "Sigmoid",
    "Tanh", "SiLU", "GELU", "ELU", "SELU", "CELU", "Hardswish", "Mish", "Softplus", "LogSigmoid",
    "Tanhshrink", "Softsign", "Softshrink", "GLU", "MaxPool1d",
    "MaxPool2d", "AvgPool1d", "AvgPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "Flatten", "Unflatten", "Dropout", "Dropout1d",
    "Dropout2d", "Identity", "ZeroPad1d", "ZeroPad2d", "ConstantPad1d", "ConstantPad2d", "GRUCell",
    "LSTMCell", "RNNCell"})
"""Classes of torch that compile, at least with some of their settings."""

REMEDY = ("use what compiles: convolutions, linear layers, batch normalisation, activation "
          "functions, pools, sums and products of tensors, cat, split, flatten and constants")

AT_END = "leave it out of the network and apply it to the outputs on the host"
_AT_START = "leave it out of the network and apply it to the inputs on the host"
_RELU = "replace it with ReLU and train the model again"
_NORM = "replace it with BatchNorm and train the model again"
_WINDOW = "use linear layers or convolutions over the whole window"
_LINEAR = "use linear layers with constant weights"
_SIZE = "resize maps with mode='nearest' or 'bilinear', or enlarge them by a transposed convolution"
_ORDER = "keep the axes in the order (1, C, H, W) or (1, C, L)"
_SPLIT = "split tensors along the channels only"
_JOIN = "join tensors along the channels only, each of one size"
_VARIANCE = ("write it out: d = x - x.mean(dim, keepdim=True), then (d * d).mean(dim, "
             "keepdim=True) times N / (N - 1), of N elements")
_DEVIATION = f"{_VARIANCE}, then .clamp(0.01, 4).sqrt()"
_LINES = "take lines and columns in their order, all or one in so many"

_REMEDIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (_RELU, ("rrelu", "elu", "celu", "selu", "gelu", "silu", "mish",
             "sigmoid", "hardsigmoid", "logsigmoid", "log_sigmoid", "tanh", "tanhshrink",
             "hardswish", "softplus", "softsign", "hardshrink", "softshrink", "threshold",
             "clip", "softmax", "softmin", "log_softmax")),
    (_NORM, ("layer_norm", "group_norm", "instance_norm", "local_response_norm", "rms_norm")),
    (_WINDOW, ("lstm", "gru", "rnn_tanh", "rnn_relu")),
    (_LINEAR, ("multiheadattention", "multi_head_attention_forward",
               "scaled_dot_product_attention", "bmm", "matmul", "einsum", "bilinear")),
    (_SIZE, ("interpolate", "upsample", "upsample_nearest2d", "upsample_bilinear2d",
             "upsample_linear1d", "upsample_bicubic2d", "_upsample_nearest_exact2d")),
    (_ORDER, ("permute", "transpose", "movedim", "channel_shuffle")),
    (_SPLIT, ("split", "split_with_sizes", "chunk", "unbind", "tensor_split")),
    (_JOIN, ("cat", "concat", "stack")),
    (_VARIANCE, ("var", "var_mean")),
    (_DEVIATION, ("std", "std_mean")),
    ("use Conv2d, with the third axis among the channels", ("conv3d",)),
    (_LINES, ("slice", "flip", "roll", "index", "index_select", "narrow", "repeat", "expand")),
    ("take the maximum over the axes (2, 3) of a map, or use a max-pool", ("max", "amax")),
    ("take the minimum over the axes (2, 3) of a map, or -max(-x)", ("min", "amin")),
    ("pad height and width with zeros", ("pad",)),
    ("use ReLU, PReLU or clamp, or multiply by a constant mask", (
        "where", "masked_fill", "gt", "ge", "lt", "le", "eq", "ne")),
    ("write max(a, b) as b + relu(a - b), and min(a, b) as b - relu(b - a)", (
        "maximum", "minimum", "fmax", "fmin")),
    ("look the rows up on the host and give the network those", ("embedding",)),
    ("quantise with torchao's pt2e (convert_pt2e), or give the float network",
     ("choose_qparams_affine", "quantize_affine", "dequantize_affine")),
)
REMEDIES = {name: remedy for remedy, names in _REMEDIES for name in names}
"""A way out by the layer (in lower case) or function of torch that the user called, or by the
operator of ATen."""

_MOVES = frozenset({"permute", "transpose", "movedim", "slice", "interpolate", "pad", "flip",
                    "roll", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"})
"""What may as well be done to the inputs on the host."""


class Refusals:
    """Refusals of the nodes of one program.

    needed   : the nodes that its output depends on.
    operands : what the nodes walked so far stand for.
    source   : the program's input.
    """

    def __init__(self, needed: set[FxNode], operands: Mapping[FxNode, Value | Constant | Moved],
                 source: Value) -> None:
        self.needed, self.operands, self.input = needed, operands, source
        self._calls: dict[str, set[FxNode]] = {}
        for node in needed:
            self._calls.setdefault(call_of(node), set()).add(node)

    def called(self, node: FxNode, word: str) -> str:
        """Return what the user called: torch's layer where that is one that does not compile,
        else torch's function, else ``word``."""
        return _layer(node) or function(node) or word

    def unsupported(self, node: FxNode, call: Call) -> CompileError:
        """Return the refusal of what the node is a part of."""
        names = (_layer(node).lower(), function(node), operator(node).lstrip("_"))
        remedy = next((REMEDIES[name] for name in names if name in REMEDIES), REMEDY)
        if remedy not in (_WINDOW, _LINEAR) and self._alone(node):
            first = self._taken(self._parts(node)) == {self.input.name}
            if not self._readers(node) and not first:
                remedy = AT_END
            elif _MOVES.intersection(names) and first:
                remedy = _AT_START
        return call.refuse("not supported by this machine", remedy)

    def wrong_shape(self, node: FxNode, call: Call, wrong: ArgumentError | None) -> CelosiaError:
        """Return the refusal of a result that is neither a map nor a vector.

        wrong : what is wrong with the example input, if it does not have such a shape itself.
        """
        if _layer(node) or function(node) in REMEDIES:
            return self.unsupported(node, call)
        return wrong or call.refuse(f"its result has the shape {call.shape}",
                                    "keep every tensor as (1, C, H, W), (1, C, L) or (1, F)")

    def explained(self, node: FxNode, call: Call, word: str, refusal: CompileError) -> CompileError:
        """Return the refusal of an operator, or of the function that it is a step of: PReLU is a
        comparison, a product and a choice, none of which the user wrote.

        word : PyTorch's for the operator.
        """
        steps = [other for other in self._parts(node) if operator(other) not in PASSIVE]
        own = word == function(node) or (len(steps) <= 1 and function(node) not in REMEDIES)
        return refusal if own else self.unsupported(node, call)

    def passed(self, node: FxNode) -> Value | None:
        """Return the one tensor of the network that the node's call takes; None of several."""
        parts = self._parts(node)
        found = {value.name: value for part in parts for n in part.all_input_nodes
                 if n not in parts and isinstance(value := self.operands.get(n), Value)}
        return next(iter(found.values())) if len(found) == 1 else None

    def _alone(self, node: FxNode) -> bool:
        """Whether the node's call takes one tensor of the network only."""
        return len(self._taken(self._parts(node))) == 1

    def _taken(self, parts: set[FxNode]) -> set[str]:
        """Return the names of the network's tensors that some nodes take from others."""
        values = [self.operands.get(n) for part in parts for n in part.all_input_nodes
                  if n not in parts]
        return {name for value in values if isinstance(value, (Value, Moved))
                for name in ((value.name,) if isinstance(value, Value) else value.names)}

    def _readers(self, node: FxNode) -> set[FxNode]:
        """Return the nodes outside the call that compute something from its result."""
        parts, todo = self._parts(node), [node]
        seen: set[FxNode] = set()
        found: set[FxNode] = set()
        while todo:
            for user in todo.pop().users:
                if user.op == "output" or user in seen or user not in self.needed:
                    continue
                seen.add(user)
                if user in parts or operator(user) in PASSIVE:
                    todo.append(user)
                else:
                    found.add(user)
        return found

    def _parts(self, node: FxNode) -> set[FxNode]:
        """Return the nodes of the user's call that ``node`` is a part of."""
        return self._calls[call_of(node)] if call_of(node) else {node}


def _layer(node: FxNode) -> str:
    """Return the class of the torch layer that a node is a part of if it does not compile."""
    layer = torch_module(node)
    return "" if layer in LAYERS else layer
