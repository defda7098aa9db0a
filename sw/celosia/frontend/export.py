"""Any form of a PyTorch model to an exported program in core ATen operators."""

import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_structure

from celosia.frontend import pt2
from celosia.frontend.origin import source_of
from celosia.frontend.sizes import check_sizes, refuse_large
from celosia.frontend.tracing import decomposed, tracing, with_plain_names
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError, quoted

_ONE_INPUT = tree_structure(((0,), {}))

Model: TypeAlias = torch.nn.Module | ExportedProgram | str | os.PathLike
T = TypeVar("T")


def example_tensor(example_input: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return a tensor of the example's shape and type; ArgumentError where it is no array."""
    if not isinstance(example_input, (np.ndarray, torch.Tensor)):
        sizes = isinstance(example_input, (tuple, torch.Size)) and all(
            isinstance(size, int) for size in example_input)
        hint = f"; give torch.zeros({tuple(example_input)})" if sizes else ""
        raise ArgumentError("example_input must be one numpy array or torch tensor, not "
                            f"{type(example_input).__name__}{hint}")
    try:
        kind = (torch.from_numpy(np.empty(0, example_input.dtype)).dtype
                if isinstance(example_input, np.ndarray) else example_input.dtype)
        return torch.zeros(tuple(example_input.shape), dtype=kind)
    except (TypeError, RuntimeError):
        raise ArgumentError(f"example_input must be float32, not {example_input.dtype} of the "
                            f"shape {tuple(example_input.shape)}") from None


def check_example(example: torch.Tensor) -> ArgumentError | None:
    """Return what is wrong with an example that is not float32 (1, C, H, W) or (1, F), or None."""
    shape = tuple(example.shape)
    if example.dtype != torch.float32:
        hint = ("; give example.float(), and model.float() if the model is of that type"
                if example.is_floating_point() else "")
        return ArgumentError(f"example_input must be float32, not {example.dtype}{hint}")
    if len(shape) not in (2, 4) or shape[0] != 1 or example.numel() == 0:
        hint = ""
        if len(shape) == 3:
            hint = "; a map without the batch axis gets it from example_input[None]"
        elif len(shape) in (2, 4) and shape[0] > 1:
            hint = "; give one input of the batch, example_input[:1]"
        return ArgumentError("example_input must have the shape (1, C, H, W) or (1, F), not "
                             f"{shape}{hint}")
    return None


def as_program(model: torch.nn.Module, example: torch.Tensor) -> ExportedProgram:
    """Return a module's inference as torch.export gives it, on the CPU; the module stays as it was.

    CompileError where torch.export does not take the module.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ArgumentError("model is a TorchScript module, which torch.export does not take; give "
                            "the torch.nn.Module that it was made of")
    _check_values(model)
    devices = {str(tensor.device) for tensor in _tensors(model).values()} - {"cpu"}
    if devices:
        try:
            model = copy.deepcopy(model).cpu()
        except RuntimeError as error:
            raise CompileError("model", "device", f"it is on {', '.join(sorted(devices))} and "
                               f"cannot be copied ({quoted(_first_line(error))})",
                               "give model.cpu()") from error
    with tracing(own_code=True), _evaluation(model):
        try:
            return _refusing(lambda: torch.export.export(model, (example,)))
        except CompileError as refusal:
            other = {part.dtype for part in model.parameters()} - {example.dtype}
            if not other:
                raise
            names = " and ".join(sorted(str(dtype) for dtype in other))
            raise CompileError(refusal.node, refusal.operator, refusal.problem,
                               f"its parameters are {names}: give model.float()",
                               refusal.source) from refusal


def export(model: Model, example: torch.Tensor) -> ExportedProgram:
    """Return the model's inference as an exported program in core ATen operators.

    A module is exported in evaluation mode and left as it was. Shapes that a program leaves open
    are fixed to the example's. CompileError where torch.export does not take the model.
    """
    if isinstance(model, (str, os.PathLike)):
        model = load_exported(model)
    with tracing():
        if isinstance(model, ExportedProgram):
            if not model.range_constraints:
                return _bounded(_refusing(decomposed, model))
            module = _refusing(lambda: with_plain_names(model).module())
            return _bounded(
                _refusing(lambda: decomposed(torch.export.export(module, (example,)))))
        if not isinstance(model, torch.nn.Module):
            raise ArgumentError("model must be a torch.nn.Module, a torch.export.ExportedProgram "
                                f"or the path of a .pt2 file, not {type(model).__name__}")
        return _bounded(_refusing(decomposed, as_program(model, example)))


def _bounded(program: ExportedProgram) -> ExportedProgram:
    """Return a program none of whose tensors is beyond all bounds; CompileError otherwise."""
    for node in program.graph.nodes:
        refuse_large(node, node.meta.get("val"))
    return program


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _check_values(model: torch.nn.Module) -> None:
    """CompileError where a parameter has no values yet; tracing would invent some."""
    for name, tensor in _tensors(model).items():
        if torch.nn.parameter.is_lazy(tensor):
            raise CompileError(name, "parameter", "it has no shape and no values yet",
                               "call the model once, and load the trained weights")
        if tensor.is_meta:
            raise CompileError(name, "parameter", "it has no values, only a shape (device meta)",
                               "load the trained weights into it")


def load_exported(path: str | os.PathLike) -> ExportedProgram:
    """Return the exported program in a .pt2 file; nothing in the file is run (`frontend.pt2`).

    Its ``example_inputs`` are zeros of the input's shape, 1 where the number of inputs is open.
    CelosiaError where the file is no such file, or not sound.
    """
    source = pt2.read(Path(path))
    try:
        with tracing(), _hidden_reason():
            program = torch.export.load(source.archive)
            check_sizes(program)
            if source.example is not None and program.call_spec.in_spec == _ONE_INPUT:
                program.example_inputs = ((torch.zeros(source.example),), {})
            return program
    except CompileError:
        raise
    except Exception as error:      # torch raises whatever its parts do
        raise CelosiaError(f"{path}: torch cannot build its program "
                           f"({quoted(_first_line(error))}); save the model again with "
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
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, tensors in plain:
            vars(module).update(tensors)


def _refusing(work: Callable[..., T], *arguments: Any) -> T:
    """Return what ``work`` returns; CompileError where torch cannot trace the model.

    Whatever the model's own code raises ends here too.
    """
    try:
        return work(*arguments)
    except (Exception, SystemExit) as error:
        line = _first_line(error)
        problem = f"the model cannot be exported ({quoted(line)})"
        remedy = "make its forward pass accept one float32 tensor of example_input's shape"
        if "data-dependent" in line:
            problem = "the model cannot be exported, a branch depends on the values of a tensor"
            remedy = "compute the same for every input"
        raise CompileError("model", "torch.export", problem, remedy,
                           source_of(error)) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
