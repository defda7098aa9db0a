"""Any form of a PyTorch model to an exported program in core ATen operators."""

import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch.export import ExportedProgram

from celosia.errors import ArgumentError, CelosiaError, CompileError

Model: TypeAlias = torch.nn.Module | ExportedProgram | str | os.PathLike


def example_tensor(example_input: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return the example as a float32 tensor (1, C, H, W) or (1, F); ArgumentError otherwise."""
    if not isinstance(example_input, (np.ndarray, torch.Tensor)):
        raise ArgumentError("example_input must be a numpy array or a torch tensor, not "
                            f"{type(example_input).__name__}")
    tensor = torch.as_tensor(example_input).detach().cpu()
    if tensor.dtype != torch.float32:
        raise ArgumentError(f"example_input must be float32, not {tensor.dtype}")
    if tensor.ndim not in (2, 4) or tensor.shape[0] != 1 or tensor.numel() == 0:
        raise ArgumentError("example_input must have the shape (1, C, H, W) or (1, F), not "
                            f"{tuple(tensor.shape)}")
    return tensor


def export(model: Model, example: torch.Tensor) -> ExportedProgram:
    """Return the model's inference as an exported program in core ATen operators.

    A module is exported in evaluation mode and left as it was. Shapes that a program leaves open
    are fixed to the example's.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if isinstance(model, (str, os.PathLike)):
            model = load_exported(model)
        if isinstance(model, torch.nn.Module):
            if any(part.device.type != "cpu" for part in model.parameters()):
                model = copy.deepcopy(model).cpu()
            with _evaluation(model):
                program = _export(model, example)
        elif isinstance(model, ExportedProgram):
            program = _export(model.module(), example) if model.range_constraints else model
        else:
            raise ArgumentError("model must be a torch.nn.Module, a torch.export.ExportedProgram "
                                f"or the path of a .pt2 file, not {type(model).__name__}")
        return program.run_decompositions()


def load_exported(path: str | os.PathLike) -> ExportedProgram:
    """Return the exported program in a .pt2 file; CelosiaError where it holds none."""
    path = Path(path)
    if not path.is_file():
        raise CelosiaError(f"{path}: no such file; save a model with torch.export.save")
    logger = logging.getLogger("torch.export")
    disabled, logger.disabled = logger.disabled, True    # it logs a stack of its own
    try:
        with path.open("rb") as file:
            return torch.export.load(file)
    except Exception as error:
        raise CelosiaError(f"{path}: not a readable .pt2 file ({_first_line(error)}); save the "
                           "model again with torch.export.save") from error
    finally:
        logger.disabled = disabled


@contextmanager
def _evaluation(model: torch.nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    # Pruning hooks replace a plain attribute ``weight`` while the model is traced.
    plain = [(module, {name: value for name, value in vars(module).items()
                       if isinstance(value, torch.Tensor)}) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, tensors in plain:
            vars(module).update(tensors)


def _export(model: torch.nn.Module, example: torch.Tensor) -> ExportedProgram:
    try:
        return torch.export.export(model, (example,))
    except Exception as error:
        raise CompileError(
            "model", "torch.export", f"the model cannot be exported ({_first_line(error)})",
            "make its forward pass accept one float32 tensor of example_input's shape, without "
            "branches that depend on data") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
