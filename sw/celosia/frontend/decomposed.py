"""An exported program in core ATen operators, sooner than torch makes it, and with any names.

torch writes the names of parameters into Python source that it then runs.
"""

import keyword
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
import torch._export.utils as export_utils
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram, exported_program
from torch.export._trace import _ignore_backend_decomps
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import GraphModule, Interpreter
from torch.fx import Node as FxNode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

_PART = re.compile(r"[A-Za-z0-9_]+", re.ASCII)

_WHOLE = (torch.ops.aten.hardsigmoid.default, torch.ops.aten.log_sigmoid.default,
          torch.ops.aten.upsample_linear1d.vec,
          torch.ops.aten.upsample_nearest1d.vec, torch.ops.aten.upsample_bicubic2d.vec,
          torch.ops.aten._upsample_nearest_exact1d.vec,
          torch.ops.aten._upsample_nearest_exact2d.vec)
"""Operators that stay in one piece: at a network's end the host computes them, one layer does, or
what is refused is told by its name."""


def _around(x: torch.Tensor, pad: list[int]) -> torch.Tensor:
    """Return a tensor padded with the other end of what is left of it, the last axis first; torch
    would write it into memory as it is."""
    for axis, (before, behind) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        left = x.narrow(-axis, max(-before, 0),
                        x.shape[-axis] - max(-before, 0) - max(-behind, 0))
        more, after = max(before, 0), max(behind, 0)
        x = torch.cat([left.narrow(-axis, left.shape[-axis] - more, more), left,
                       left.narrow(-axis, 0, after)], -axis)
    return x


def _full(x: torch.Tensor, value: float, *, dtype: torch.dtype | None = None,
          **_: Any) -> torch.Tensor:
    """Return a constant of a tensor's shape, which depends on no element of it."""
    return torch.full(x.shape, value, dtype=dtype or x.dtype, device=x.device)


def _ones(x: torch.Tensor, **options: Any) -> torch.Tensor:
    return _full(x, 1, **options)


def _zeros(x: torch.Tensor, **options: Any) -> torch.Tensor:
    return _full(x, 0, **options)


@lru_cache(maxsize=1)
def _table(composite: tuple[str, ...]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return what torch shall decompose otherwise than its dispatcher does, and what before that.

    composite : the operators that are registered as made of others, which both depend on.
    What operators there are is asked once, not once for each of their namespaces. An operator that
    decomposes as the dispatcher does it anyway is left to that: torch would give each of 500 such
    kernels for 15 backends, and take them back.
    """
    ask = export_utils._materialize_cpp_cia_ops
    ask()
    export_utils._materialize_cpp_cia_ops = lambda: None
    try:
        table = torch.export.default_decompositions()
        for whole in _WHOLE:
            table.pop(whole)
        table[torch.ops.aten._pad_circular.default] = _around
        table[torch.ops.aten.full_like.default] = _full
        table[torch.ops.aten.ones_like.default] = _ones
        table[torch.ops.aten.zeros_like.default] = _zeros
        first, rest = exported_program._split_decomp_table_to_cia_and_python_decomp(
            table.materialize())
    finally:
        export_utils._materialize_cpp_cia_ops = ask
    return {whole: kernel for whole, kernel in first.items()
            if not (isinstance(kernel, partial)
                    and kernel.keywords.get("kernel") is whole)}, rest


def _tables() -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return what `_table` does, of the operators that are registered now."""
    return _table(tuple(
        torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")))


@contextmanager
def _lean() -> Iterator[None]:
    """Let torch decompose a program in half the time, to the same operators: the tables of what it
    decomposes are made once."""
    split = exported_program._split_decomp_table_to_cia_and_python_decomp
    first, rest = _tables()
    exported_program._split_decomp_table_to_cia_and_python_decomp = lambda _: (first, dict(rest))
    try:
        yield
    finally:
        exported_program._split_decomp_table_to_cia_and_python_decomp = split


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """Return the program in core ATen operators, its parameters called as before.

    Where torch does it, those have plain names meanwhile: torch writes them into source code, where
    a keyword is a syntax error and a quote ends a string.
    """
    if _writes_nothing(program):
        made = _traced(program)
        if _writes_nothing(made):       # what some layers, such as LSTMCell, are made of does
            return made
    names = {name: f"celosia_{k}" for k, name in enumerate(_targets(program)) if not is_plain(name)}
    with _lean():
        if not names:
            return program.run_decompositions({})
        back = {plain: name for name, plain in names.items()}
        return _renamed(_renamed(program, names).run_decompositions({}), back)


def _writes_nothing(program: ExportedProgram) -> bool:
    """Whether a program is tensors and operators that make tensors of tensors, none in its place:
    what of torch's work is not needed to decompose it."""
    signature = program.graph_signature
    return not program.range_constraints and bool(signature.user_inputs) and all(
        spec.kind == OutputKind.USER_OUTPUT for spec in signature.output_specs) and all(
        isinstance(node.meta.get("val"), FakeTensor) if node.op == "placeholder" else
        node.op == "output" or _is_function(node) for node in program.graph.nodes)


def _is_function(node: FxNode) -> bool:
    """Whether a node makes tensors of tensors and writes into none. What lifts a constant makes one
    that may be written into, and is kept where nothing tells that it is not."""
    if isinstance(node.target, torch._ops.OpOverload):
        return not node.target._schema.is_mutable and (
            node.target is not torch.ops.aten.lift_fresh_copy.default)
    return node.target is operator.getitem


def _traced(program: ExportedProgram) -> ExportedProgram:
    """Return a program that writes into no tensor in core ATen operators, in a quarter of the time
    that torch takes to make the same: its own graph is traced, as it is."""
    first, rest = _tables()
    before = [node for node in program.graph.nodes if node.op == "placeholder"]
    values = [node.meta["val"] for node in before]
    with (values[0].fake_mode, exported_program._override_composite_implicit_decomp(first),
          _ignore_backend_decomps(), enable_python_dispatcher(), preserve_node_meta()):
        made = make_fx(Interpreter(program.graph_module).run, decomposition_table=rest)(*values)
    for old, node in zip(before, made.graph.find_nodes(op="placeholder"), strict=True):
        node.name = node.target = old.name
        node.meta = dict(old.meta)
    made.graph.eliminate_dead_code()
    made.recompile()
    signature = program.graph_signature
    outputs = [_output(spec, result) for spec, result in
               zip(signature.output_specs, made.graph.output_node().args[0], strict=True)]
    return _like(program, made, signature.input_specs, outputs)


def _output(spec: OutputSpec, result: Any) -> OutputSpec:
    """Return how an output was declared with the name that it has now."""
    if not isinstance(result, FxNode):
        return spec
    return replace(spec, arg=TensorArgument(name=result.name))


def with_plain_names(program: ExportedProgram) -> ExportedProgram:
    """Return the program with such names as `ExportedProgram.module` can write into source."""
    return _renamed(program, {name: f"celosia_{k}" for k, name in enumerate(_targets(program))
                              if not is_plain(name)})


def _targets(program: ExportedProgram) -> list[str]:
    specs = [*program.graph_signature.input_specs, *program.graph_signature.output_specs]
    return list(dict.fromkeys(spec.target for spec in specs if isinstance(spec.target, str)))


def is_plain(name: str) -> bool:
    """Whether torch can write a name into source code."""
    return all(_PART.fullmatch(part) and not keyword.iskeyword(part) for part in name.split("."))


def _renamed(program: ExportedProgram, names: Mapping[str, str]) -> ExportedProgram:
    """Return the program with other names for its parameters, buffers and constants."""
    def keys(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): tensor for name, tensor in tensors.items()}

    signature = program.graph_signature
    inputs, outputs = ([replace(spec, target=names.get(spec.target, spec.target)) for spec in specs]
                       for specs in (signature.input_specs, signature.output_specs))
    return _like(program, program.graph_module, inputs, outputs, keys)


def _like(program: ExportedProgram, made: GraphModule, inputs: list[InputSpec],
          outputs: list[OutputSpec], keys: Callable[[dict[str, Any]], dict[str, Any]] = dict,
          ) -> ExportedProgram:
    """Return the program with another graph, whose inputs and outputs are declared so.

    keys : of tensors by their names, returns them by the names that they get.
    """
    return ExportedProgram(
        root=made, graph=made.graph,
        graph_signature=ExportGraphSignature(input_specs=inputs, output_specs=outputs),
        state_dict=keys(program.state_dict), range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph, example_inputs=program.example_inputs,
        constants=keys(program.constants), verifiers=program.verifiers)
