"""The archive around a program: its entries, and a new one that holds only what was checked."""

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from celosia.frontend.pt2 import tensors
from celosia.frontend.pt2.checks import Unsound, shown
from celosia.frontend.pt2.program import clean
from celosia.modelfile import OLD_PT2, model_format
from celosia.reading import MAX_BYTES, FileError, ZipReader, parse_json
from celosia_spec.files import open_file

_MODEL = "models/model.json"
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_TENSORS = (f"{_WEIGHTS}weight_", f"{_CONSTANTS}tensor_")
_WEIGHTS_TABLE = f"{_WEIGHTS}model_weights_config.json"
_CONSTANTS_TABLE = f"{_CONSTANTS}model_constants_config.json"
_PLAIN = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
_UNREAD = (".data/", ".format_version", ".storage_alignment", "extra/", "data/sample_inputs/")
"""Entries that are left out: notes, and sample inputs, which are a pickle; the graph has their
shapes."""
_CODE = {"data/aotinductor/": "compiled code (AOTInductor)", "data/executorch/": "an ExecuTorch "
         "program", "data/mtia": "compiled code (MTIA)", "executorch/": "an ExecuTorch program"}
_PICKLES = ("custom_obj_", "opaque_obj_")
_BOOLS = b"\0\1"


@dataclass(frozen=True)
class Program:
    """archive : a ``.pt2`` file for `torch.export.load`, in memory.

    examples : the shapes of the program's inputs, float32; () where it has none or does not tell.
    """

    archive: io.BytesIO
    examples: tuple[tuple[int, ...], ...]


def read(path: Path) -> Program:
    """Return the program of a ``.pt2`` file, made anew of the plain data in it.

    Raises CelosiaError, FileError or CompileError that names the file or the layer, the reason
    and the way out.
    """
    model_format(path)
    with open_file(path, MAX_BYTES) as stream:
        try:
            return _Reader(ZipReader(stream, path, packed=False)).program()
        except Unsound as problem:
            raise FileError(f"{path}: not a readable .pt2 file: {problem.problem}; "
                            f"{problem.remedy}") from None


class _Reader:
    def __init__(self, source: ZipReader) -> None:
        self.source = source
        roots = {name.split("/")[0] for name in source.names}
        if len(roots) != 1:
            raise Unsound(f"its entries lie in {len(roots)} folders")
        self.root = f"{roots.pop()}/"
        self.sizes = {name[len(self.root):]: source.size(name) for name in source.names}

    def program(self) -> Program:
        self._check_entries()
        weights, constants = (
            tensors.stored(self._json(table), kind, folder, self.sizes)
            for table, kind, folder in ((_WEIGHTS_TABLE, "weight", _WEIGHTS),
                                        (_CONSTANTS_TABLE, "constant", _CONSTANTS)))
        used = {tensor.entry for tensor in (*weights.values(), *constants.values())}
        for name in self.sizes:
            if name.startswith(_TENSORS) and name not in used:
                raise Unsound(f"it holds {shown(name)}, which no table names")
        names = tensors.PathNames()
        cleaned = clean(self._json(_MODEL), weights, constants, names)
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for stored, folder, prefix, table in (
                    (weights, _WEIGHTS, "weight_", _WEIGHTS_TABLE),
                    (constants, _CONSTANTS, "tensor_", _CONSTANTS_TABLE)):
                places: dict[str, str] = {}
                for tensor in stored.values():
                    if tensor.entry not in places:
                        places[tensor.entry] = f"{prefix}{len(places)}"
                        archive.writestr(f"archive/{folder}{places[tensor.entry]}",
                                         self._content(tensor))
                archive.writestr(f"archive/{table}",
                                 json.dumps(tensors.write(stored, places, names)))
            archive.writestr(f"archive/{_MODEL}", json.dumps(cleaned.document))
            for name, content in {"data/sample_inputs/model.pt": b"", ".data/version": b"6\n",
                                  **_PLAIN}.items():
                archive.writestr(f"archive/{name}", content)
        target.seek(0, os.SEEK_SET)
        return Program(target, cleaned.examples)

    def _check_entries(self) -> None:
        """Refuse what holds pickles or code, and what is not known."""
        for name in self.sizes:
            for folder, what in _CODE.items():
                if name.startswith(folder):
                    raise Unsound(f"it holds {what}, which is not run",
                                  "save the exported program itself, with torch.export.save")
            file = name.rpartition("/")[2]
            if name in (f"{_WEIGHTS}model.pt", f"{_CONSTANTS}model.pt"):
                raise Unsound("its weights are a pickle, as an older torch wrote them", OLD_PT2)
            if name.startswith(_CONSTANTS) and file.startswith(_PICKLES):
                raise Unsound(f"it holds a pickled object, {shown(name)}, which can run code when "
                              "it is opened", "keep to tensors in the model, and export it again")
            known = (name in (_MODEL, _WEIGHTS_TABLE, _CONSTANTS_TABLE) or name in _PLAIN
                     or name.startswith((*_TENSORS, *_UNREAD)))
            if name.startswith(_UNREAD):
                self._entry(name)       # for its checksum
            if not known or "\\" in name or ".." in name.split("/"):
                raise Unsound(f"it holds {shown(name)}, which is not known")
        for name, right in _PLAIN.items():
            if self._entry(name) != right:
                raise Unsound(f"its {name} is {shown(self._entry(name)[:20])}, not {right!r}")

    def _content(self, tensor: tensors.Stored) -> bytes:
        content = self._entry(tensor.entry)
        if tensor.dtype == tensors.BOOL and content.translate(None, _BOOLS):
            raise Unsound(f"{shown(tensor.entry)} has a bool that is neither 0 nor 1")
        return content

    def _json(self, name: str) -> object:
        return parse_json(self._entry(name), f"{self.source.where}: {name}")

    def _entry(self, name: str) -> bytes:
        if name not in self.sizes:
            raise Unsound(f"it has no entry {shown(name)}")
        return self.source.read(self.root + name)
