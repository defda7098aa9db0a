"""The finished rounds of a run on disk, so that a run that was stopped can go on.

A folder holds ``run.json`` (the choices of the run, a record of each finished round, the name and
SHA-256 of the tensor file, and the SHA-256 of all this) and one safetensors file with the tensors
after the last finished round. The tensor file of a round has a name of its own and is whole before
``run.json`` is replaced, in one step, by one that names it. So at every instant ``run.json``
describes a finished round whose tensors are there, whenever the process ends.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from celosia.reading import MAX_BYTES, load_json, load_safetensors
from celosia_spec.errors import ArgumentError, CelosiaError
from celosia_spec.files import read_file, replacing

__all__ = ["Journal", "describe", "fingerprint"]

INDEX = "run.json"
FORMAT = "celosia-run-2"
_STEM = "round-"
_TENSOR_FILE = re.compile(rf"{_STEM}[0-9]{{4,9}}\.safetensors")


class Journal:
    """What a run has finished so far, kept in a folder.

    Parameters
    ----------
    folder
        Made if it is not there. A run of the same choices in it is continued. None keeps the
        records in memory only.
    choices
        Every setting that decides the outcome, as JSON has them: str, int, finite float, bool,
        None, and lists and mappings of those. Include a `fingerprint` of the starting weights and
        of the inputs; `describe` turns other values into such ones.

    Attributes
    ----------
    records : the records given to `finish`, oldest first; their number is the number of finished
              rounds.
    notes   : what was given to `note`, by name.

    Raises
    ------
    ArgumentError
        The folder holds a run with other choices (the message names them), or something that is
        not a run; `choices` is not as above.
    """

    def __init__(self, folder: str | Path | None, choices: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.records: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self._tensors: dict[str, str] | None = None
        self._choices: Any = choices
        if self.folder is None:
            return
        self._choices = _as_json(choices, "choices")
        self._open(self.folder)

    def restore(self) -> dict[str, torch.Tensor] | None:
        """Return the tensors after the last finished round, on the CPU; None if there is none.

        Raises ArgumentError if the file is not the one that was written.
        """
        if self.folder is None or self._tensors is None:
            return None
        path = self.folder / self._tensors["file"]
        try:
            digest = hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest()
            if digest == self._tensors["sha256"]:
                return load_safetensors(path)
        except (OSError, CelosiaError) as problem:
            raise ArgumentError(f"{problem}; {_way_out(self.folder)}") from None
        raise ArgumentError(f"{path}: changed since it was written; {_way_out(self.folder)}")

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise ArgumentError where a model's state has what a kept round could not hold."""
        other = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
        if other and self.folder is not None:
            raise ArgumentError(f"{other[0]!r} is state of a module that is no tensor, and rounds "
                                "keep tensors only; do without a checkpoint")

    def finish(self, record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep a finished round: its record (as JSON has it) and the tensors after it.

        The round is on disk, or is not, as a whole.
        """
        self.records.append(dict(record))
        if self.folder is None:
            return
        self.check(tensors)
        content = save({name: tensor.detach().cpu().contiguous().clone()
                        for name, tensor in tensors.items()})
        file = f"{_STEM}{len(self.records):04d}.safetensors"
        _write(self.folder / file, content)
        self._tensors = {"file": file, "sha256": hashlib.sha256(content).hexdigest()}
        self._write_index(self.folder)
        self._clean(self.folder)

    def note(self, name: str, value: Any) -> None:
        """Keep a result, as JSON has it, that later rounds need and that is costly to find."""
        self.notes[name] = value
        if self.folder is not None:
            self._write_index(self.folder)

    def _open(self, folder: Path) -> None:
        """Read what the folder holds, or leave the journal empty if it holds no run."""
        folder.mkdir(parents=True, exist_ok=True)
        index = folder / INDEX
        if index.exists():
            content = _read_index(index, _way_out(folder))
            self._refuse_others(content["choices"])
            self.records, self.notes = content["rounds"], content["notes"]
            self._tensors = content["tensors"]
        self._clean(folder)

    def _refuse_others(self, stored: Any) -> None:
        different = _differences(stored, self._choices)
        if different:
            raise ArgumentError(f"{self.folder}: holds a run with other choices: "
                                f"{'; '.join(different)}; {_way_out(self.folder)}")

    def _write_index(self, folder: Path) -> None:
        content = {"format": FORMAT, "choices": self._choices, "notes": self.notes,
                   "rounds": self.records, "tensors": self._tensors}
        content["sha256"] = _digest(_as_json(content, "a record"))
        _write(folder / INDEX, json.dumps(content, indent=1, allow_nan=False).encode())

    def _clean(self, folder: Path) -> None:
        """Remove tensor files that no record names."""
        current = None if self._tensors is None else self._tensors["file"]
        for path in folder.glob(f"{_STEM}*.safetensors"):
            if path.name != current:
                path.unlink()


def _read_index(path: Path, way_out: str) -> dict[str, Any]:
    """Return what `Journal` wrote, whole and unchanged; ArgumentError otherwise."""
    try:
        content = load_json(path)
    except CelosiaError:
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArgumentError(f"{path}: not written by this version; {way_out}")
    if content.pop("sha256", None) != _digest(content):
        raise ArgumentError(f"{path}: changed since it was written; {way_out}")
    tensors = content.get("tensors")
    if (content.keys() != {"format", "choices", "notes", "rounds", "tensors"}
            or not isinstance(content["notes"], dict) or not isinstance(content["rounds"], list)
            or not all(isinstance(record, dict) for record in content["rounds"])
            or not (tensors is None or (isinstance(tensors, dict)
                                        and tensors.keys() == {"file", "sha256"}
                                        and _TENSOR_FILE.fullmatch(str(tensors["file"]))))):
        raise ArgumentError(f"{path}: not written by this version; {way_out}")
    return content


def _digest(content: Any) -> str:
    """Return the SHA-256 of a value as JSON has it, however it is laid out."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(model: nn.Module, *arrays: Any) -> str:
    """Return the SHA-256, in hex, of a model's parameters and buffers and of some arrays.

    Parameters
    ----------
    model
        Names, types, shapes and values of the tensors in its state count; its code does not.
    arrays
        Tensors, numpy arrays or None, each by type, shape and values.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}\0".encode())
        if isinstance(value, torch.Tensor):     # and not the extra state of a module
            _update(digest, value)
    for array in arrays:
        _update(digest, array)
    return digest.hexdigest()


def describe(value: Any) -> Any:
    """Return what a setting is, as JSON has it, such that another setting reads differently.

    Numbers, strings, lists and mappings stay; arrays, tensors and models become their SHA-256,
    dataclasses (`FineTune` among them) a mapping of their fields, functions their names. Fields
    called ``on_...`` are left out: they watch a run and decide nothing.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, nn.Module):
        return f"{type(value).__qualname__} sha256:{fingerprint(value)}"
    if isinstance(value, torch.Tensor | np.ndarray):
        digest = hashlib.sha256()
        _update(digest, value)
        return f"array {list(value.shape)} sha256:{digest.hexdigest()}"
    if isinstance(value, Mapping):
        return {str(name): describe(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        parts = sorted(value) if isinstance(value, set | frozenset) else value
        return [describe(part) for part in parts]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name))
                  for field in dataclasses.fields(value) if not field.name.startswith("on_")}
        return {"kind": type(value).__qualname__} | fields
    return getattr(value, "__qualname__", type(value).__qualname__)


def _update(digest: Any, value: Any) -> None:
    """Add an array's type, shape and bytes to a digest."""
    if value is None:
        digest.update(b"none\0")
        return
    tensor = torch.as_tensor(value).detach().cpu().contiguous()
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\0".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy())


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there whole, also after a power cut, or not at all."""
    with replacing(path) as file:
        file.write(content)
    if os.name == "posix":      # elsewhere a folder cannot be opened
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _as_json(value: Any, what: str) -> Any:
    """Return a value as it will be read back from JSON, or raise ArgumentError."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as problem:
        raise ArgumentError(f"{what} of a run that is kept must be what JSON can hold: "
                            f"{problem}") from None


def _differences(stored: Any, given: Any, name: str = "") -> list[str]:
    """Return the settings that differ, each as 'name was X, is Y'."""
    if isinstance(stored, dict) and isinstance(given, dict):
        found = []
        for key in sorted(stored.keys() | given.keys()):
            inner = f"{name}.{key}" if name else key
            found += _differences(stored.get(key), given.get(key), inner)
        return found
    if type(stored) is type(given) and stored == given:
        return []
    return [f"{name} was {_short(stored)}, is {_short(given)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _way_out(folder: Path | None) -> str:
    return f"give another folder, or delete {folder} to start anew"
