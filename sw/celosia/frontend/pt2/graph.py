"""The graph of a program: every node an operator that is known, of values that came before it."""

from collections.abc import Callable
from typing import Any

from celosia.frontend.pt2 import operators, shapes
from celosia.frontend.pt2.checks import (
    Unsound,
    device,
    each,
    fields,
    flag,
    integer,
    mapping,
    name,
    number,
    sequence,
    shown,
    text,
    union,
)
from celosia.frontend.pt2.tensors import describe, element_type, fixed
from celosia.frontend.refusals import REMEDIES, REMEDY
from celosia.reading import MAX_NODES
from celosia_spec.errors import CompileError

MAX_DEPTH = 8
"""How deep a graph may lie within a graph."""
_TRACE, _PATHS, _WORDS = 4000, 8000, 200        # characters kept of what describes a node
_OPERATOR = "an operator"
_OPAQUE = {"ScalarType": "as_scalar_type", "Layout": "as_layout", "Device": "as_device",
           "MemoryFormat": "as_memory_format"}
"""How arguments are written that torch keeps as numbers of its own, which it does not check."""


class GraphReader:
    """Reads the graph of a program, and the graphs within it, into new objects.

    symbols : the names of the open shapes.   values : {name: description} of the outer graph's
    tensors, once `read` is done.
    """

    def __init__(self, symbols: set[str]) -> None:
        self.symbols = symbols
        self.values: dict[str, dict[str, Any]] = {}
        self._nodes = 0

    def read(self, value: Any) -> dict[str, Any]:
        """Return the graph; raise Unsound, or CompileError for an operator that is refused."""
        scope = _Scope(self, 0)
        graph = scope.read(value)
        self.values = scope.tensors
        return graph

    def size(self, value: Any, what: str) -> dict[str, Any]:
        """Return a size: a plain number, or an expression of open shapes with an example."""
        kind, found = union(value, what)
        if kind != "as_expr":
            return fixed(value, what)
        expression = fields(found, what, ("expr_str",), ("hint",))
        shapes.check_expression(expression["expr_str"], self.symbols)
        hint = expression.get("hint")
        if hint is not None:
            kind, example = union(hint, what)
            if kind != "as_int":
                raise Unsound(f"{what} has an example that is {shown(kind)}")
            hint = {"as_int": integer(example, what, 0, (1 << 31) - 1)}
        return {"as_expr": {"expr_str": expression["expr_str"], "hint": hint}}

    def tensor(self, value: Any, what: str) -> dict[str, Any]:
        """Return the description of a tensor."""
        return describe(value, what, self.size)

    def count(self, nodes: int) -> None:
        """Add up the nodes of all graphs."""
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise Unsound(f"it has more than {MAX_NODES} operators")


class _Scope:
    """One graph: the names in it, and the values that are computed so far."""

    def __init__(self, reader: GraphReader, depth: int) -> None:
        self.reader, self.depth = reader, depth
        self.tensors: dict[str, dict[str, Any]] = {}
        self.sizes: dict[str, dict[str, Any]] = {}
        self.done: set[str] = set()
        self.extents: dict[str, shapes.Extent] = {}
        if depth > MAX_DEPTH:
            raise Unsound(f"it has graphs within graphs, more than {MAX_DEPTH} deep")

    def read(self, value: Any) -> dict[str, Any]:
        found = fields(value, "its graph", ("inputs", "outputs", "nodes", "tensor_values",
                                            "sym_int_values", "sym_bool_values"),
                       ("is_single_tensor_return", "custom_obj_values", "sym_float_values"))
        for key, what in (("custom_obj_values", "objects of a class of their own"),
                          ("sym_bool_values", "conditions on open shapes"),
                          ("sym_float_values", "open shapes that are not whole numbers")):
            if mapping(found.get(key, {}), key):
                raise Unsound(f"its graph has {what}", "compile the module itself, which needs no "
                              "file: celosia compile package.module:function")
        self.reader.count(len(sequence(found["nodes"], "its list of operators")))
        for key, part in mapping(found["tensor_values"], "its tensors").items():
            self.tensors[name(key, "a tensor")] = self.reader.tensor(part, f"tensor {key!r}")
        for key, part in mapping(found["sym_int_values"], "its shapes").items():
            self.sizes[name(key, "a shape")] = self.reader.size(part, f"shape {key!r}")
        return {
            "inputs": [self._input(part) for part in sequence(found["inputs"], "its inputs")],
            "nodes": [self._node(part) for part in found["nodes"]],
            "outputs": [self._output(part) for part in sequence(found["outputs"], "its outputs")],
            "tensor_values": self.tensors, "sym_int_values": self.sizes, "sym_bool_values": {},
            "sym_float_values": {}, "custom_obj_values": {},
            "is_single_tensor_return": flag(found.get("is_single_tensor_return", False),
                                            "its kind of output"),
        }

    def _input(self, value: Any) -> dict[str, Any]:
        kind, found = union(value, "an input")
        if kind in ("as_tensor", "as_sym_int"):
            return self._define(kind, found, "an input")
        return constant(value, "an input")

    def _output(self, value: Any) -> dict[str, Any]:
        kind, _ = union(value, "an output")
        if kind in ("as_tensor", "as_sym_int"):
            return self.argument(value, "an output")
        return constant(value, "an output")

    def _node(self, value: Any) -> dict[str, Any]:
        found = fields(value, _OPERATOR, ("target", "inputs", "outputs", "metadata"),
                       ("is_hop_single_tensor_return", "name"))
        metadata = _metadata(found["metadata"])
        target = found["target"]
        if target == operators.DETACH_IN_PLACE:
            target = operators.DETACH
        inputs = [fields(part, "an argument", ("name", "arg"), ("kind",))
                  for part in sequence(found["inputs"], "its arguments")]
        nested = isinstance(target, str) and target in operators.REGIONS
        if nested:
            arguments = [self._plain_argument(part, nested=True) for part in inputs]
        else:
            self._check(target, inputs, _layer(metadata, found))
            arguments = [self._plain_argument(part, base=operators.base_name(target))
                         for part in inputs]
        extent = self._growth(target, inputs)
        outputs = [self._result(part) for part in sequence(found["outputs"], "its results")]
        for part in outputs:
            if "as_sym_int" in part:
                if nested:
                    raise Unsound("a graph within the graph returns a shape")
                self.extents[part["as_sym_int"]["as_name"]] = extent
        single = found.get("is_hop_single_tensor_return")
        return {"target": target, "inputs": arguments, "outputs": outputs, "metadata": metadata,
                "is_hop_single_tensor_return": None if single is None else flag(single, _OPERATOR),
                "name": None if found.get("name") is None else name(found["name"], _OPERATOR)}

    @staticmethod
    def _check(target: Any, inputs: list[dict[str, Any]], layer: str) -> None:
        """Raise CompileError unless an operator may stand in a file, with these arguments."""
        if not isinstance(target, str):
            raise Unsound(f"{_OPERATOR} is {shown(target)}")
        given = [part["name"] for part in inputs]
        if target in shapes.OPERATORS:
            return
        operator = operators.find(target)
        if operator is None:
            word = operators.base_name(target) or text(target, _OPERATOR, 60).replace("\n", " ")
            names = [word, *word.split(".")]
            raise CompileError(layer, word, "not supported by this machine", next(
                (REMEDIES[name] for name in names if name in REMEDIES), REMEDY))
        known = {argument.name: str(argument.real_type).removeprefix("Optional[").rstrip("]")
                 for argument in operator._schema.arguments}
        if len(set(map(str, given))) != len(given) or not known.keys() >= set(map(str, given)):
            raise Unsound(f"{target} has an argument that it does not take, or one twice")
        for part in inputs:
            kind, _ = union(part["arg"], "an argument")
            if kind not in ("as_none", _OPAQUE.get(known[part["name"]], kind)):
                raise Unsound(f"{target} has an argument {part['name']} that is {shown(kind)}")

    def _plain_argument(self, part: dict[str, Any], base: str | None = None, nested: bool = False
                        ) -> dict[str, Any]:
        label = text(part["name"], "an argument", _WORDS)
        if nested and label:        # it would become a keyword in Python source
            raise Unsound(f"an argument of a graph is called {shown(label)}")
        kind = part.get("kind")
        if kind is not None:
            integer(kind, "the kind of an argument", 0, 2)
        what = "an argument"
        if nested and union(part["arg"], what)[0] == "as_graph":
            found = fields(part["arg"]["as_graph"], what, ("name", "graph"))
            inner = _Scope(self.reader, self.depth + 1)
            argument: dict[str, Any] = {"as_graph": {
                "name": name(found["name"], "a graph"), "graph": inner.read(found["graph"])}}
        else:
            argument = self.argument(part["arg"], what, base)
        return {"name": label, "arg": argument, "kind": kind}

    def argument(self, value: Any, what: str, base: str | None = None) -> dict[str, Any]:
        """Return an argument of the operator `base`: a value computed before, or a constant."""
        kind, found = union(value, what)
        if kind == "as_tensor":
            return {kind: self._tensor(found, what)}
        if kind == "as_tensors":
            return {kind: each(self._tensor)(found, what)}
        if kind == "as_sym_int":
            return {kind: self._size(found, what)}
        if kind == "as_sym_ints":
            return {kind: each(self._size)(found, what)}
        if kind == "as_optional_tensors":
            return {kind: each(self._optional)(found, what)}
        if kind == "as_string" and base == "einsum" and isinstance(found, str):
            if not operators.EQUATION.fullmatch(found):
                raise Unsound(f"einsum has the equation {shown(found)}")
            return {kind: found}
        return constant(value, what)

    def _tensor(self, value: Any, what: str) -> dict[str, str]:
        found = fields(value, what, ("name",))["name"]
        if not isinstance(found, str) or found not in self.done or found not in self.tensors:
            raise Unsound(f"{what} is the tensor {shown(found)}, which is not computed before it")
        return {"name": found}

    def _size(self, value: Any, what: str) -> dict[str, Any]:
        kind, found = union(value, what)
        if kind == "as_int":
            return {kind: integer(found, what)}
        if kind != "as_name" or not isinstance(found, str) or found not in self.extents:
            raise Unsound(f"{what} is the shape {shown(found)}, which is not computed before it")
        return {kind: found}

    def _optional(self, value: Any, what: str) -> dict[str, Any]:
        kind, found = union(value, what)
        return {kind: True} if kind == "as_none" else {"as_tensor": self._tensor(found, what)}

    def _result(self, value: Any) -> dict[str, Any]:
        kind, found = union(value, "a result")
        if kind in ("as_tensor", "as_sym_int"):
            return self._define(kind, found, "a result")
        if kind == "as_tensors":
            return {kind: [self._define("as_tensor", part, "a result")["as_tensor"]
                           for part in sequence(found, "a result")]}
        if kind == "as_none":
            return {kind: True}
        raise Unsound(f"a result is {shown(kind)}")

    def _define(self, kind: str, value: Any, what: str) -> dict[str, Any]:
        """Return a name that appears for the first time, and is described."""
        if kind == "as_tensor":
            found, described = fields(value, what, ("name",))["name"], set(self.tensors)
        else:
            key, found = union(value, what)
            described = set(self.sizes) if key == "as_name" else set()
        if not isinstance(found, str) or found not in described or found in self.done:
            raise Unsound(f"{what} is called {shown(found)}, which is not described, or taken")
        self.done.add(found)
        if kind == "as_tensor":
            return {kind: {"name": found}}
        self.extents[found] = shapes.SYMBOL_EXTENT
        return {kind: {"as_name": found}}

    def _growth(self, target: str, inputs: list[dict[str, Any]]) -> shapes.Extent:
        """Return the extent of an operator's result on shapes, from those of its arguments."""
        if target not in shapes.OPERATORS:
            return shapes.SYMBOL_EXTENT
        extents = []
        for part in inputs:
            kind, found = union(part["arg"], "an argument")
            if kind == "as_sym_int":
                kind, found = union(found, "an argument")
            extents.append(
                self.extents.get(found, shapes.Extent(1)) if kind == "as_name" else
                shapes.Extent(int(found).bit_length() + 1 if kind == "as_int" else 1))
        return shapes.bounded(shapes.OPERATORS[target](extents or [shapes.Extent(1)]), "a shape")


_CONSTANTS: dict[str, Callable[[Any, str], Any]] = {
    "as_none": lambda found, what: True,
    "as_int": integer, "as_float": number, "as_bool": flag,
    "as_ints": each(integer), "as_floats": each(number), "as_bools": each(flag),
    "as_scalar_type": element_type,
    "as_memory_format": lambda found, what: integer(found, what, 1, 4),
    "as_layout": lambda found, what: integer(found, what, 7, 7),
    "as_device": device,
}
"""What checks an argument that is not computed, by how it is written."""


def constant(value: Any, what: str) -> dict[str, Any]:
    """Return an argument that is not computed: a number, a word, a type, or lists of numbers."""
    kind, found = union(value, what)
    if kind in _CONSTANTS:
        return {kind: _CONSTANTS[kind](found, what)}
    if kind == "as_string" and found in operators.WORDS:
        return {kind: found}
    raise Unsound(f"{what} is {shown(found if kind == 'as_string' else kind)}, which no operator "
                  "that is known takes")


def _metadata(value: Any) -> dict[str, str]:
    """Return what describes a node: where it comes from, in words that nobody runs."""
    found = mapping(value, "a description")
    kept = {}
    if "stack_trace" in found:
        kept["stack_trace"] = text(found["stack_trace"], "a description", _TRACE)
    paths = text(found.get("nn_module_stack", ""), "a description", _PATHS).replace("\n", "?")
    if paths and all(_parts(item) == 3 for item in paths.split(";")):
        kept["nn_module_stack"] = paths
    if "torch_fn" in found:
        kept["torch_fn"] = text(found["torch_fn"], "a description", _WORDS)
    return kept


def _parts(item: str) -> int:
    """Return how many parts torch will find in an item of a module stack."""
    depth, parts = 0, 1
    for character in item:
        depth += (character in "[(") - (character in ")]")
        parts += character == "," and depth == 0
    return parts


def _layer(metadata: dict[str, str], node: dict[str, Any]) -> str:
    """Return the path of the module that a node came from, for a message."""
    path = metadata.get("nn_module_stack", ",,").split(";")[-1].split(",")[1]
    return path or text(node.get("name") or "model", _OPERATOR, 60)
