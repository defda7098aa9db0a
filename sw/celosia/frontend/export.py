"""Any form of a PyTorch model to an exported program in core ATen operators."""

import copy
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves, tree_structure

from celosia.frontend import pt2, quantised
from celosia.frontend.decomposed import decomposed, with_plain_names
from celosia.frontend.examples import RANKS, Examples, Reading
from celosia.frontend.origin import source_of
from celosia.frontend.sizes import check_sizes, refuse_large
from celosia.frontend.tracing import tracing
from celosia.modelfile import ONNX, model_format
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError, quoted, said

Model: TypeAlias = torch.nn.Module | ExportedProgram | str | os.PathLike[str]
T = TypeVar("T")

_TRAINED = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.modules.dropout._DropoutNd)
"""Layers that compute something else in training."""


def as_program(model: torch.nn.Module, examples: Sequence[torch.Tensor]) -> ExportedProgram:
    """Return a module's inference as torch.export gives it, on the CPU and in the type of its
    examples, one of each input; the module stays as it was.

    CompileError where torch.export does not take the module.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ArgumentError("model is a TorchScript module, which torch.export does not take; give "
                            "the torch.nn.Module that it was made of")
    _check_values(model)
    devices = {str(tensor.device) for tensor in _tensors(model).values()} - {"cpu"}
    types = {*other_types(_tensors(model))} - {*other_types({"example": examples[0]})}
    if devices or types:
        what = f"it is on {', '.join(sorted(devices))}" if devices else "it is not float32"
        try:
            model = copy.deepcopy(model).cpu()
            model = model.to(examples[0].dtype) if types else model
        except RuntimeError as error:
            raise CompileError("model", "device", f"{what} and cannot be copied "
                               f"({quoted(said(error).rstrip('.'))})",
                               "give model.cpu().float()") from error
    with tracing(own_code=True), _evaluation(model):
        return _refusing(lambda: torch.export.export(model, tuple(examples)), examples)


def other_types(tensors: Mapping[str, Any]) -> list[str]:
    """Return the types of floating-point numbers other than float32 that some tensors have."""
    return sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()
                   if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()}
                  - {"float32"})


def export(model: torch.nn.Module | ExportedProgram,
           examples: Sequence[torch.Tensor]) -> ExportedProgram:
    """Return the model's inference as an exported program in core ATen operators.

    A module is exported in evaluation mode and left as it was. Shapes that a program leaves open
    are fixed to the examples'. CompileError where torch.export does not take the model.
    """
    with tracing():
        if isinstance(model, torch.nn.Module):
            program = as_program(model, examples)
            return _bounded(_refusing(lambda: decomposed(program)))
        if not model.range_constraints:
            return _bounded(_refusing(lambda: decomposed(model)))
        module = _refusing(lambda: with_plain_names(model).module())
        declared = declared_inputs(model)
        own = tuple(example.to(of.dtype) for example, of in zip(examples, declared, strict=False)
                    ) if declared else tuple(examples)
        return _bounded(_refusing(lambda: decomposed(torch.export.export(module, own))))


def opened(model: Model, examples: Examples | None
           ) -> tuple[torch.nn.Module | ExportedProgram, Examples]:
    """Return a model, read where it is a path, and examples of its inputs: those given, else the
    model's own. ArgumentError where there is no such thing."""
    if isinstance(model, (str, os.PathLike)):
        model, own = read_model(model, () if examples is None else examples.known)
        if own is not None and (examples is None or isinstance(model, torch.nn.Module)):
            examples = own      # a module is made for them
    if not isinstance(model, (torch.nn.Module, ExportedProgram)):
        raise ArgumentError("model must be a torch.nn.Module, a torch.export.ExportedProgram "
                            f"or the path of a .pt2 or .onnx file, not {type(model).__name__}")
    if examples is None and isinstance(model, ExportedProgram):
        examples = own_examples(model)
    if examples is None:
        raise ArgumentError("the model does not tell its input's shape; give example_input, an "
                            "input or a shape such as (1, 1, 28, 28)")
    return model, examples.ordered(input_names(model)) if examples.names else examples


def read_model(path: str | os.PathLike[str],
               shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] = ()
               ) -> tuple[torch.nn.Module | ExportedProgram, Examples | None]:
    """Return the model in a file, and examples of its inputs where it tells their shapes.

    shapes : of the inputs in their order, or by their names; for a file that leaves them open.
    """
    if model_format(path) == ONNX:
        from celosia.frontend.onnx import load_onnx

        module, own = load_onnx(path, shapes)
        return module, Examples(own)
    program = load_exported(path)
    return program, own_examples(program)


def own_examples(program: ExportedProgram) -> Examples | None:
    """Return the inputs that a program was exported with; None where it has none."""
    found = tree_leaves(program.example_inputs) if program.example_inputs else []
    tensors = all(isinstance(one, torch.Tensor) for one in found)
    return Examples(tuple(found)) if found and tensors else None


def input_names(model: torch.nn.Module | ExportedProgram) -> list[str]:
    """Return what users call the inputs of a model."""
    if isinstance(model, ExportedProgram):
        return [spec.arg.name for spec in model.graph_signature.input_specs
                if spec.kind == InputKind.USER_INPUT]
    if (names := getattr(model, "meta", {}).get("inputs")) is not None:     # of `frontend.onnx`
        return list(names)
    return list(inspect.signature(model.forward).parameters)


def declared_inputs(program: ExportedProgram) -> list[torch.Tensor]:
    """Return a program's inputs as they were traced, without values; [] unless all are tensors."""
    found = [node.meta.get("val") for node in program.graph.nodes
             if node.op == "placeholder" and node.name in input_names(program)]
    return found if all(isinstance(one, torch.Tensor) for one in found) else []


def exported(model: torch.nn.Module | ExportedProgram,
             ways: Iterable[Reading]) -> tuple[ExportedProgram, Reading]:
    """Return a model's program, and of several ways to read its examples the first that goes all
    the way with one input; else the first of which torch makes a program.

    CompileError where torch.export does not take the model, as `export` has it.
    """
    if isinstance(model, ExportedProgram):
        declared = declared_inputs(model)
        every = list(ways)
        way = next((way for way in every if len(declared) == len(way.examples) and all(
            map(_fits, declared, way.examples))), every[0])
        if declared and len(declared) != len(way.examples):
            raise _other_count(len(declared), len(way.examples))
        return export(model, way.examples), way
    found: tuple[ExportedProgram, Reading] | None = None
    problem: CompileError | None = None
    ways = [*ways]
    _check_count(model, len(ways[0].examples))
    for way in ways:
        try:
            program = export(model, way.examples)
        except CompileError as refusal:
            problem = problem or refusal
            continue
        if _of_one_input(program):
            return program, way
        found = found or (program, way)
    if found is None:
        assert problem is not None
        raise problem
    return found


def _check_count(model: torch.nn.Module, count: int) -> None:
    """CompileError where a model must be given more tensors than there are examples."""
    if isinstance(model, torch.jit.ScriptModule):       # which has no signature, and is refused
        return
    needed = [one for one in inspect.signature(model.forward).parameters.values()
              if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY,
                                                           one.POSITIONAL_OR_KEYWORD)]
    if len(needed) > count:
        raise _other_count(len(needed), count)


def _other_count(takes: int, count: int) -> CompileError:
    return CompileError(
        "input", "input", f"the model takes {takes} inputs, and example_input has {count}",
        "give one example of each, in a tuple, or by their names; on the command line "
        "--input-shape with colons between, such as 3,8,8:10")


def _fits(declared: torch.Tensor, example: torch.Tensor) -> bool:
    """Whether an example has the sizes of a program's input, as far as these are fixed."""
    return declared.ndim == example.ndim and all(
        size == own for size, own in zip(declared.shape, example.shape, strict=True)
        if isinstance(size, int))


def _of_one_input(program: ExportedProgram) -> bool:
    """Whether all tensors that a program makes of its input keep the batch axis of 1."""
    names = {spec.arg.name for spec in program.graph_signature.input_specs
             if spec.kind == InputKind.USER_INPUT}
    made: set[torch.fx.Node] = set()
    for node in program.graph.nodes:
        if node.name in names or made.intersection(node.all_input_nodes):
            made.add(node)
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and not (
                    value.ndim and isinstance(value.shape[0], int) and value.shape[0] == 1):
                return False
    return True


def _bounded(program: ExportedProgram) -> ExportedProgram:
    """Return a program none of whose tensors is beyond all bounds; CompileError otherwise."""
    for node in program.graph.nodes:
        refuse_large(node, node.meta.get("val"))
    return program


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def remarks(model: torch.nn.Module | ExportedProgram, program: ExportedProgram) -> list[str]:
    """Return what was done with a model to compile it, one line for each thing.

    program : that it was exported to.
    """
    found = [*getattr(model, "meta", {}).get("remarks", ())]      # of `frontend.onnx`
    if not found and any(map(quantised.passes, program.graph.nodes)):
        found.append(quantised.told(program))
    tensors = model.state_dict if isinstance(model, ExportedProgram) else _tensors(model)
    if types := other_types(tensors):
        found.append(f"the model's {' and '.join(types)} parameters were taken as float32")
    if isinstance(model, torch.nn.Module) and any(
            part.training for part in model.modules() if isinstance(part, _TRAINED)):
        found.append("the model was in training mode, and is compiled as after model.eval()")
    return found


def _check_values(model: torch.nn.Module) -> None:
    """CompileError where a parameter has no values yet; tracing would invent some."""
    for name, tensor in _tensors(model).items():
        if torch.nn.parameter.is_lazy(tensor):
            raise CompileError(name, "parameter", "it has no shape and no values yet",
                               "call the model once, and load the trained weights")
        if tensor.is_meta:
            raise CompileError(name, "parameter", "it has no values, only a shape (device meta)",
                               "load the trained weights into it")


def load_exported(path: str | os.PathLike[str]) -> ExportedProgram:
    """Return the exported program in a .pt2 file; nothing in the file is run (`frontend.pt2`).

    Its ``example_inputs`` are zeros of the inputs' shapes, 1 where the number of inputs is open.
    CelosiaError where the file is no such file, or not sound.
    """
    source = pt2.read(Path(path))
    try:
        with tracing(), _hidden_reason():
            program = torch.export.load(source.archive)
            check_sizes(program)
            if source.examples and program.call_spec.in_spec == tree_structure(
                    ((0,) * len(source.examples), {})):
                program.example_inputs = (tuple(map(torch.zeros, source.examples)), {})
            return program
    except CompileError:
        raise
    except Exception as error:      # torch raises whatever its parts do
        raise CelosiaError(f"{path}: torch cannot build its program "
                           f"({quoted(said(error).rstrip('.'))}); save the model again with "
                           "torch.export.save") from error


@contextmanager
def _hidden_reason() -> Iterator[None]:
    """Raise the error that torch.export logs, instead of the one that it raises for it."""
    reasons: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            reasons.append(record.exc_info[1])
        return True

    logger = logging.getLogger("torch.export")
    logger.addFilter(keep)
    try:
        yield
    except Exception as error:
        if not reasons:
            raise
        raise (reasons[0].__cause__ or reasons[0]) from error
    finally:
        logger.removeFilter(keep)


@contextmanager
def _evaluation(model: torch.nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    # Pruning hooks replace a plain attribute ``weight`` while the model is traced.
    plain = [(module, {name: value for name, value in vars(module).items()
                       if isinstance(value, torch.Tensor)}) for module in model.modules()]
    try:
        if any(training for _, training in modes):
            _evaluate(model)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, tensors in plain:
            vars(module).update(tensors)


def _evaluate(model: torch.nn.Module) -> None:
    """Put a model into evaluation mode, but parts of it that torch.export made: these have one mode
    and refuse to be put into another."""
    try:
        model.eval()
    except NotImplementedError:
        model.training = False
        for part in model.children():
            _evaluate(part)


def _way_in(shapes: Sequence[tuple[int, ...]]) -> str:
    """Return the way out where a forward pass does not take examples of some shapes."""
    if len(shapes) > 1:
        return (f"make its forward pass accept {len(shapes)} float32 tensors of the shapes "
                f"{', '.join(map(str, shapes))}, or give example_input (--input-shape) others")
    if not shapes:
        return "make its forward pass accept one float32 tensor of example_input's shape"
    [shape] = shapes
    last = len(shape) == RANKS[-1] and shape[-1] in (1, 3) and shape[-1] < min(shape[1:-1])
    others = f"(1, {', '.join(map(str, (shape[-1], *shape[1:-1])))}) where channels come last"
    return (f"make its forward pass accept one float32 tensor of the shape {shape}, or give "
            f"example_input (--input-shape, --data) the shape that it takes"
            + f", {others}" * last)


def _refusing(work: Callable[[], T], examples: Sequence[torch.Tensor] = ()) -> T:
    """Return what ``work`` returns; CompileError where torch cannot trace the model.

    Whatever the model's own code raises ends here too.   examples : that it is traced with.
    """
    try:
        return work()
    except (Exception, SystemExit) as error:
        line = said(error).rstrip(".")
        problem = f"the model cannot be exported ({quoted(line)})"
        remedy = _way_in([tuple(example.shape) for example in examples])
        if "data-dependent" in line:
            problem = "the model cannot be exported, a branch depends on the values of a tensor"
            remedy = "compute the same for every input"
        if unknown := re.search(r"Found <class '(.*?)'> in output, which is not a known ty", line):
            name = quoted(unknown[1].rpartition(".")[2])
            problem = f"the model returns a {name}, whose parts torch does not know"
            remedy = ("return a tuple or a dictionary, or call torch.export.register_dataclass "
                      "with its class before")
        raise CompileError("model", "torch.export", problem, remedy,
                           source_of(error)) from error
