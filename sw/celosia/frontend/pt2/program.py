"""The program of a ``.pt2`` file: its graph, and how weights, inputs and outputs belong to it."""

import json
from dataclasses import dataclass
from typing import Any

from celosia.frontend.pt2.checks import (
    Unsound,
    each,
    fields,
    flag,
    integer,
    mapping,
    name,
    sequence,
    shown,
    text,
    union,
)
from celosia.frontend.pt2.graph import GraphReader, constant
from celosia.frontend.pt2.shapes import SYMBOL
from celosia.frontend.pt2.tensors import FLOAT32, PathNames, Stored

_VERIFIERS = {"TRAINING", "ATEN"}
_TREES = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_MAX_TREE_DEPTH = 16
_MAX_EXAMPLE = 1 << 28
_ONE_TENSOR = "return one tensor from the model's forward, and give it one"


@dataclass(frozen=True)
class Cleaned:
    """A program for torch to load.

    document : its JSON.   examples : the shapes of its inputs, float32, with 1 and the file's
    own examples for open sizes; () where it has others.
    """

    document: dict[str, Any]
    examples: tuple[tuple[int, ...], ...]


def clean(value: Any, weights: dict[str, Stored], constants: dict[str, Stored],
          names: PathNames) -> Cleaned:
    """Return a program made of what is known to be plain data in a file's; raise Unsound.

    names : fills with the paths of the tensors that the program reads.
    """
    found = fields(value, "its program", ("graph_module", "opset_version", "range_constraints",
                                          "schema_version"),
                   ("verifiers", "torch_version", "guards_code"))
    version = fields(found["schema_version"], "its version", ("major", "minor"))
    module = fields(found["graph_module"], "its program", ("graph", "signature",
                                                           "module_call_graph"),
                    ("metadata", "treespec_namedtuple_fields"))
    ranges = {_symbol(key): _range(part) for key, part
              in mapping(found["range_constraints"], "its ranges of open shapes").items()}
    reader = GraphReader(set(ranges))
    graph = reader.read(module["graph"])
    signature = _Signature(graph, reader.values, weights, constants, names)
    verifiers = sequence(found.get("verifiers", []), "its list of verifiers")
    if not 1 <= len(verifiers) <= len(_VERIFIERS) or not _VERIFIERS.issuperset(map(str, verifiers)):
        raise Unsound(f"its dialect is {shown(verifiers[0] if verifiers else None)}; known are "
                      f"{' and '.join(sorted(_VERIFIERS))}")
    document = {
        "graph_module": {
            "graph": graph, "signature": signature.read(module["signature"]),
            "module_call_graph": [_root(module["module_call_graph"])], "metadata": {},
            "treespec_namedtuple_fields": {}},
        "opset_version": {text(key, "an opset", 40): integer(part, "an opset's version")
                          for key, part in mapping(found["opset_version"], "its opsets").items()},
        "range_constraints": ranges,
        "schema_version": {key: integer(part, "its version") for key, part in version.items()},
        "verifiers": verifiers,
        "torch_version": text(found.get("torch_version", "unknown"), "its version of torch", 60),
        "guards_code": [],      # Python source, which torch would run; the ranges say the same
    }
    return Cleaned(document, signature.told)


class _Signature:
    """How the graph's inputs and outputs belong to parameters, buffers and the caller."""

    def __init__(self, graph: dict[str, Any], values: dict[str, dict[str, Any]],
                 weights: dict[str, Stored], constants: dict[str, Stored],
                 names: PathNames) -> None:
        self.graph, self.values = graph, values
        self.weights, self.constants, self.names = weights, constants, names
        self.examples: list[tuple[int, ...] | None] = []
        self.elements = 0

    def read(self, value: Any) -> dict[str, Any]:
        found = fields(value, "its signature", ("input_specs", "output_specs"))
        pairs = {}
        for key, side in (("input_specs", "inputs"), ("output_specs", "outputs")):
            specs, arguments = sequence(found[key], "its signature"), self.graph[side]
            if len(specs) != len(arguments):
                raise Unsound(f"its signature has {len(specs)} {side}, its graph {len(arguments)}")
            pairs[key] = list(zip(specs, arguments, strict=True))
        return {"input_specs": [self._input(*pair) for pair in pairs["input_specs"]],
                "output_specs": [self._output(*pair) for pair in pairs["output_specs"]]}

    def _input(self, spec: Any, argument: dict[str, Any]) -> dict[str, Any]:
        kind, found = union(spec, "an input")
        if kind == "user_input":
            arg = self._same(fields(found, "an input", ("arg",))["arg"], argument)
            self._keep_example(arg)
            return {kind: {"arg": arg}}
        if kind == "parameter":
            return self._stored(kind, found, argument, "parameter_name", self.weights)
        if kind == "buffer":
            kept = flag(mapping(found, "a buffer").get("persistent"), "a buffer")
            return self._stored(kind, found, argument, "buffer_name",
                                self.weights if kept else self.constants, persistent=kept)
        if kind == "tensor_constant":
            return self._stored(kind, found, argument, "tensor_constant_name", self.constants)
        if kind == "constant_input":
            inside = fields(found, "an input", ("name", "value"))
            return {kind: {"name": name(inside["name"], "an input"),
                           "value": constant(inside["value"], "an input")}}
        raise Unsound(f"an input is {shown(kind)}, an object of a class of its own",
                      "give the model tensors only")

    def _stored(self, kind: str, value: Any, argument: dict[str, Any], key: str,
                table: dict[str, Stored], **more: bool) -> dict[str, Any]:
        """Return the entry of a parameter, buffer or constant, as it is stored."""
        found = fields(value, f"a {kind}", ("arg", key, *more))
        arg, path = self._same({"as_tensor": found["arg"]}, argument)["as_tensor"], found[key]
        tensor = table.get(path) if isinstance(path, str) else None
        if tensor is None:
            raise Unsound(f"the {kind} {shown(path)} is not in the file")
        described = self.values[arg["name"]]
        if (described["dtype"] != tensor.dtype
                or described["sizes"] != [{"as_int": size} for size in tensor.sizes]):
            raise Unsound(f"the {kind} {shown(path)} has another shape or type in the graph")
        return {kind: {"arg": arg, key: self.names[path], **more}}

    def _output(self, spec: Any, argument: dict[str, Any]) -> dict[str, Any]:
        kind, found = union(spec, "an output")
        if kind == "user_output":
            return {kind: {"arg": self._same(fields(found, "an output", ("arg",))["arg"],
                                             argument)}}
        if kind == "buffer_mutation":
            inside = fields(found, "an output", ("arg", "buffer_name"))
            path = inside["buffer_name"]
            if not isinstance(path, str) or path not in self.weights | self.constants:
                raise Unsound(f"the buffer {shown(path)} is not in the file")
            arg = self._same({"as_tensor": inside["arg"]}, argument)["as_tensor"]
            return {kind: {"arg": arg, "buffer_name": self.names[path]}}
        raise Unsound(f"an output is {shown(kind)}", "export the model's inference")

    @staticmethod
    def _same(value: Any, argument: dict[str, Any]) -> dict[str, Any]:
        """Return the graph's own input or output, if the signature says the same."""
        kind, found = union(value, "an argument")
        if kind not in ("as_tensor", "as_sym_int"):
            if constant(value, "an argument") != argument:
                raise Unsound("its signature and its graph differ")
        elif {kind: found} != argument:
            raise Unsound(f"its signature and its graph differ in {shown(found)}")
        return argument

    @property
    def told(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the caller's inputs; () unless all are told."""
        return tuple(one for one in self.examples if one is not None) if all(
            one is not None for one in self.examples) else ()

    def _keep_example(self, argument: dict[str, Any]) -> None:
        """Take down the shape of an input of the caller's."""
        self.examples.append(None)
        if "as_tensor" not in argument:
            return
        described = self.values[argument["as_tensor"]["name"]]
        shape, numbers = [], 1
        for axis, size in enumerate(described["sizes"]):
            hint = size.get("as_expr", {}).get("hint") or size
            shape.append(1 if axis == 0 and "as_expr" in size else hint.get("as_int", -1))
            numbers *= shape[-1]
        if described["dtype"] == FLOAT32 and min(shape, default=-1) >= 0 and (
                self.elements + numbers <= _MAX_EXAMPLE):
            self.elements += numbers
            self.examples[-1] = tuple(shape)


def _symbol(value: str) -> str:
    if not SYMBOL.fullmatch(value):
        raise Unsound(f"an open shape is called {shown(value)}; its value depends on data",
                      "export the model with shapes that only its input decides")
    return value


def _range(value: Any) -> dict[str, int | None]:
    found = fields(value, "a range", ("min_val", "max_val"))
    return {key: None if part is None else integer(part, "a range")
            for key, part in found.items()}


def _root(value: Any) -> dict[str, Any]:
    """Return how the whole model is called; what is said of its parts is not needed."""
    entries = [fields(part, "a module's call", ("fqn",), ("signature",))
               for part in sequence(value, "its module calls")]
    if not entries or entries[0]["fqn"] != "" or entries[0].get("signature") is None:
        raise Unsound("it does not say how the model is called")
    found = fields(entries[0]["signature"], "a module's call",
                   ("inputs", "outputs", "in_spec", "out_spec"), ("forward_arg_names",))
    given = found.get("forward_arg_names")
    return {"fqn": "", "signature": {
        "inputs": [], "outputs": [], "in_spec": _tree(found["in_spec"], named=True),
        "out_spec": _tree(found["out_spec"], named=False),
        "forward_arg_names": None if given is None else each(name)(given, "an argument")}}


def _tree(value: Any, *, named: bool) -> str:
    """Return how inputs or outputs nest. named : keys must be names, as those of arguments are."""
    if not isinstance(value, str):
        raise Unsound("it does not say how its inputs and outputs nest")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) != 2 or found[0] != 1:
        raise Unsound("it does not say how its inputs and outputs nest")
    return json.dumps([1, _branch(found[1], named, 0)])


def _branch(value: Any, named: bool, depth: int) -> dict[str, Any]:
    what = "a nest of inputs or outputs"
    found = fields(value, what, ("type", "context", "children_spec"))
    if found["type"] is None:
        return {"type": None, "context": None, "children_spec": []}
    if found["type"] not in _TREES or depth > _MAX_TREE_DEPTH:
        raise Unsound(f"its inputs or outputs are {shown(found['type'])}", _ONE_TENSOR)
    try:
        context = json.loads(found["context"]) if isinstance(found["context"], str) else -1
    except (ValueError, RecursionError):
        context = -1
    if context is not None:
        keys = sequence(context, what)
        context = each(name)(keys, "an argument") if named else [
            text(key, what, 200) if isinstance(key, str) else integer(key, what) for key in keys]
    return {"type": found["type"], "context": json.dumps(context),
            "children_spec": [_branch(part, named, depth + 1)
                              for part in sequence(found["children_spec"], what)]}
