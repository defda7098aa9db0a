"""An ONNX graph as a graph of torch.fx: one module for each node, under the node's name."""

import keyword
import os
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import nn

from celosia.frontend.onnx import file, tensors
from celosia.frontend.onnx.bounds import MOVES, Bounds
from celosia.frontend.onnx.folding import Folding
from celosia.frontend.onnx.node import Node
from celosia.frontend.onnx.operators import OPERATORS
from celosia.frontend.onnx.quantisers import grid, quantises
from celosia.frontend.onnx.shapes import Shapes
from celosia.frontend.quantised import REMEDY, Quantiser, WholeNumbers, remark
from celosia.frontend.refusals import REMEDIES
from celosia.grids import Grid
from celosia_spec.errors import CelosiaError, CompileError, quoted

_WORDS = {"LayerNormalization": "layer_norm", "InstanceNormalization": "instance_norm",
          "GroupNormalization": "group_norm", "LRN": "local_response_norm", "RNN": "rnn_tanh",
          "Attention": "scaled_dot_product_attention", "Einsum": "einsum"}
"""What torch calls operators that are refused."""

_OF_ATTENTION = frozenset({"Reshape", "Expand", "Tile", "MatMul", "Gather", "Split", "Div", "Mul"})
"""Operators that attention is made of, and that may be refused by themselves."""
_KEEPING = frozenset({"Cast", "Dropout", "Identity", "Mul", "Div", "Transpose", "Reshape", "Where"})
"""What may stand between attention's softmax and its product."""

REMARKS, INPUTS = "remarks", "inputs"
"""Where a module's ``meta`` holds what was done to make it, in sentences, and the names of its
inputs."""
_NAME_LENGTH = 100


def load_onnx(path: str | os.PathLike[str], shapes: file.Shapes = ()
              ) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Return an ``.onnx`` file's network in evaluation mode and zeros of its inputs' shapes.

    shapes : as `file.read` has them.

    CelosiaError as `file.read`; CompileError names the ONNX node that has no place here.
    """
    path = Path(path)
    return _Builder(file.read(path, shapes), path).module()


class _Builder:
    """constants : of what is known, by name.   live : of what depends on the input.

    quantised : how many constants are, and how many tensors that depend on the input.
    """

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self.graph, self.path = model.graph, path
        self.opset, self.folding = file.opset(model), Folding(model.opset_import)
        self.inputs = file.inputs(self.graph)
        self.shapes = Shapes(model.opset_import, self.inputs)
        self.constants = {tensor.name: tensors.array(tensor, path)
                          for tensor in self.graph.initializer}
        self.fx = torch.fx.Graph()
        self.live = {info.name: self.fx.placeholder("input" if len(self.inputs) == 1
                                                    else f"input_{number}")
                     for number, info in enumerate(self.inputs)}
        self.modules: dict[str, nn.Module] = {}
        self.bounds = Bounds(self.graph)
        self.quantised = [0, 0]
        self.whole = WholeNumbers[str]()

    def module(self) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        for node in self.graph.node:
            try:
                self._add(node)
            except CompileError as refusal:
                if node.op_type in _OF_ATTENTION and (found := self._attention()) is not None:
                    raise found from None
                raise refusal from None
        results = [self.live.get(result.name) for result in self.graph.output]
        if None in results or not results:
            raise CelosiaError(f"{self.path}: an output does not depend on the input; leave it out")
        names = [result.name for result in self.graph.output]
        self.fx.output(results[0] if len(results) == 1 else dict(zip(names, results, strict=True)))
        root = nn.Module()
        for name, part in self.modules.items():
            root.add_module(name, part)
        made = torch.fx.GraphModule(root, self.fx).eval()
        if any(self.quantised):
            made.meta[REMARKS] = (remark(*self.quantised), *self.bounds.told(), *(
                f"{quoted(name, _NAME_LENGTH)}, whole numbers in the file, is returned as the "
                f"numbers that these stand for" for name in names if name in self.whole.grids))
        made.meta[INPUTS] = tuple(quoted(info.name, _NAME_LENGTH) for info in self.inputs)
        return made, tuple(torch.zeros(self.shapes[info.name]) for info in self.inputs)

    def _attention(self) -> CompileError | None:
        """Return the refusal of a softmax with which a tensor of the network is multiplied; None
        where there is none. What comes before it, such as heads side by side, is part of it."""
        live, shares = set(self.live), dict[str, onnx.NodeProto]()
        for node in self.graph.node:
            own = [name for name in node.input if name in live]
            if not own:
                continue
            live.update(node.output)
            if node.op_type == "MatMul" and len(own) > 1 and (
                    found := next((shares[name] for name in own if name in shares), None)):
                return CompileError(found.name or found.output[0], "attention",
                                    "not supported by this machine",
                                    REMEDIES["scaled_dot_product_attention"])
            if node.op_type == "Softmax":
                shares[node.output[0]] = node
            elif node.op_type in _KEEPING and own[0] in shares:
                shares[node.output[0]] = shares[own[0]]
        return None

    def _add(self, proto: onnx.NodeProto) -> None:
        node = Node(proto, self.constants, self.shapes, self.opset)
        folded = self.folding.results(node)
        if folded is not None:
            self.constants |= zip(proto.output, folded, strict=True)
            self.quantised[0] += proto.op_type != "QuantizeLinear" and quantises(proto)
            return
        make = OPERATORS.get(proto.op_type)
        if quantises(proto):
            make = self._quantiser
        if make is None:
            word = _WORDS.get(proto.op_type, proto.op_type.lower())
            raise node.refuse("not supported by this machine", REMEDIES.get(
                word, f"leave it out, or use one of {', '.join(sorted(OPERATORS))}"))
        operands = tuple(self.live[name] for name in proto.input if name in self.live)
        if not operands:
            raise node.refuse("it does not depend on the input", "leave it out")
        if not quantises(proto):
            self.shapes.infer(node)
            self._follow(node)
        part = _made(make, node)
        name = self._name(node)
        self.modules[name] = part
        result = self.fx.call_module(name, operands)
        self.bounds.learn(node)
        if len(proto.output) == 1 or proto.op_type in ("Dropout", "BatchNormalization"):
            self.live[proto.output[0]] = result
            return
        for index, output in enumerate(proto.output):
            self.live[output] = self.fx.call_function(_item, (result, index))

    def _quantiser(self, node: Node) -> nn.Module:
        source, *others = node.proto.input
        if source not in self.live or not self.constants.keys() >= set(filter(None, others)):
            raise node.refuse("its scale depends on the input", "quantise with constant scales")
        self.shapes.same(node.proto.output[0], source)
        kind = node.proto.op_type
        self.quantised[1] += kind != "DequantizeLinear"
        cut = self.bounds.cut(node)
        try:
            if kind == "DequantizeLinear":
                own = self.whole.grids.get(source)
                self.whole.read(source, grid(node, own if isinstance(own, Grid) else None))
                return cut
            found = grid(node)
        except ValueError as problem:
            raise node.refuse(str(problem), REMEDY) from None
        if kind == "QuantizeLinear":
            self.whole.grids[node.proto.output[0]] = found
        return Quantiser(found, cut)

    def _follow(self, node: Node) -> None:
        """Refuse what computes with whole numbers."""
        live = [name for name in node.proto.input if name in self.live]
        try:
            for output in node.proto.output:
                self.whole.pass_on(output, live, node.proto.op_type in MOVES)
        except ValueError as problem:
            raise node.refuse(str(problem), REMEDY) from None

    def _name(self, node: Node) -> str:
        """Return a plain name for a node's module: it stands in the code that torch.fx writes."""
        plain = re.sub(r"\W+", "_", node.name, flags=re.ASCII).strip("_") or node.proto.op_type
        plain = f"n{plain}" if plain[0].isdigit() else plain
        while (plain in self.modules or keyword.iskeyword(plain)
               or hasattr(torch.fx.GraphModule, plain) or hasattr(nn.Module(), plain)):
            plain += "_"
        return plain


def _made(make: Callable[[Node], nn.Module], node: Node) -> nn.Module:
    try:
        part = make(node)
    except CelosiaError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as problem:
        raise node.refuse(f"its operands and attributes do not fit ({quoted(str(problem))[:120]})",
                          "export the model again") from None
    if not quantises(node.proto) and (unread := sorted(node.unread())):
        raise node.refuse(f"its {', '.join(unread)} is not known here", "leave that out")
    return part


def _item(values: tuple[torch.Tensor, ...], index: int) -> torch.Tensor:
    return values[index]
