"""What a file given as a model is, and how a ``.pt2`` file is made of what is not read."""

from __future__ import annotations

import os
import pickletools
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

from celosia.reading import MAX_BYTES, FileError, ZipReader
from celosia_spec.errors import CelosiaError
from celosia_spec.files import open_file

__all__ = ["OLD_PT2", "ONNX", "PT2", "check_weights", "model_format", "module_words"]

PT2, ONNX = "pt2", "onnx"
"""The formats that are read."""
OLD_PT2 = ("load it with the torch that wrote it, in a place where it may run code, and save it "
           "with torch.export.save of torch 2.9 or later")
_HEAD = 64
_EXPORT = 'torch.export.save(torch.export.export(model.eval(), (example,)), {output!r})'


class _Kind(NamedTuple):
    """what : the file is, in words.   load : the line of Python that makes ``model`` of it."""

    what: str
    load: str


_WRITE = "model = Net()  # the same network as a torch.nn.Module, with this file's weights"
_PICKLED = _Kind("weights as torch.save writes them, which can run code when opened",
                 'model.load_state_dict(torch.load({name!r}, weights_only=True))  # model = Net()')
_WHOLE = _Kind("a whole model as torch.save writes it, which runs code when opened",
               'model = torch.load({name!r}, weights_only=False)  # only if you trust its author')
_SCRIPT = _Kind("TorchScript, which runs code when opened",
                'model.load_state_dict(torch.jit.load({name!r}).state_dict())  # model = Net()')
_SAFETENSORS = _Kind("safetensors weights, without the network that they belong to (where "
                     "package.module:function makes that, give them with --weights)",
                     'import safetensors.torch as st; '
                     'model.load_state_dict(st.load_file({name!r}))  '
                     '# model = Net()')
_KERAS = _Kind("a Keras model, which Celosia does not read", _WRITE)
_LITE = _Kind("a TensorFlow Lite model, which Celosia does not read", _WRITE)
_TENSORFLOW = _Kind("a TensorFlow model, which Celosia does not read", _WRITE)
_GGUF = _Kind("a GGUF model, which Celosia does not read", _WRITE)
_SUFFIXES = {
    ".pt": _PICKLED, ".pth": _PICKLED, ".ckpt": _PICKLED, ".pkl": _PICKLED, ".pickle": _PICKLED,
    ".bin": _PICKLED, ".jit": _SCRIPT, ".torchscript": _SCRIPT, ".ptl": _SCRIPT,
    ".h5": _KERAS, ".hdf5": _KERAS, ".keras": _KERAS, ".tflite": _LITE,
    ".pb": _TENSORFLOW, ".safetensors": _SAFETENSORS, ".gguf": _GGUF,
}
_SAVE = "save a model with torch.export.save"
_ONNX_HEAD = re.compile(rb"\x08[\x03-\x1e][\x12\x1a\x22\x28\x32\x3a\x42]")
"""Its version, then a field of the model."""
_OTHER = {      # first bytes: what it is, and the way out
    b"\x93NUMPY": ("a NumPy array", _SAVE), b"\x1f\x8b": ("a gzip file", _SAVE),
    b"\x89PNG": ("a picture", _SAVE), b"\xff\xd8\xff": ("a picture", _SAVE),
    b"\x89CELO": ("a program that is compiled already", "run it with celosia run"),
}


def model_format(path: str | os.PathLike[str]) -> str:
    """Return PT2 for an archive of torch.export, ONNX for an ONNX model; CelosiaError for others.

    What a file is, its content tells before its name does. The message says what it is, and how
    a ``.pt2`` file is made of it.
    """
    path = Path(path)
    if path.is_dir():
        raise _of_folder(path)
    if not path.exists():
        raise CelosiaError(f"{path}: no such file; give one that is there, or "
                           f"{_SAVE} or torch.onnx.export")
    with open_file(path, MAX_BYTES) as stream:
        head = stream.read(_HEAD)
        zipped = head.startswith(b"PK\3\4")
        refusal = _of_zip(path, stream) if zipped else _of_other(path, head)
    if refusal:
        raise refusal
    return PT2 if zipped else ONNX


def check_weights(path: Path) -> None:
    """CelosiaError where a file of weights is one that torch.save wrote; the message says how a
    ``.safetensors`` file is made of it."""
    with open_file(path, MAX_BYTES) as stream:
        head = stream.read(_HEAD)
    if not head.startswith(b"PK\3\4") and _of_head(head) is not _PICKLED:
        return
    code = (f"import torch; state = torch.load({str(path)!r}, weights_only=True)  # of a "
            f"checkpoint its part, state['state_dict'] or so",
            f"import safetensors.torch; safetensors.torch.save_file({{name: "
            f"tensor.clone(memory_format="
            f"torch.contiguous_format) for name, tensor in state.items()}}, "
            f"{str(path.with_suffix('.safetensors'))!r})")
    refusal = CelosiaError("\n    ".join((
        f"{path}: as torch.save writes files, which can run code when opened; make a .safetensors "
        f"file of the weights in it:", *code)))
    refusal.code = code
    raise refusal


def module_words(path: Path) -> str:
    """Return how to name the module that a file of Python source is: from the current folder, or
    from its own where it is not below that."""
    inside = Path(os.path.relpath(path)).with_suffix("")
    if inside.parts[0] == os.pardir:
        return f", in its folder, give {path.stem}"
    return f" give {'.'.join(inside.parts)}"


def _of_other(path: Path, head: bytes) -> CelosiaError | None:
    """Return what a file is that is no archive, and the way out; None where it is ONNX."""
    if path.suffix == ".py":
        return CelosiaError(f"{path}: Python source; on the command line{module_words(path)}"
                            f":FUNCTION, a function or class in it that makes the "
                            f"torch.nn.Module, else that module itself")
    kind = _of_head(head)
    told = kind or any(head.startswith(magic) for magic in _OTHER)
    if not told and (path.suffix.lower() == ".onnx" or _ONNX_HEAD.match(head)):
        return None
    if kind is None and path.suffix.lower() != ".pt2":
        kind = _SUFFIXES.get(path.suffix.lower())
    if kind is not None:
        return _message(path, kind)
    what, remedy = next((found for magic, found in _OTHER.items() if head.startswith(magic)),
                        ("not a zip archive", _SAVE))
    return CelosiaError(f"{path}: not a readable .pt2 file ({what}); {remedy}")


def _of_folder(path: Path) -> CelosiaError:
    if (path / "saved_model.pb").exists():
        return _message(path, _TENSORFLOW)
    inside = sorted(entry.name for entry in path.glob("*.pt2"))[:1]
    way_out = (f"give {path / inside[0]}" if inside else
               "give the file that torch.export.save wrote")
    return CelosiaError(f"{path}: a folder, not a .pt2 file; {way_out}")


def _of_zip(path: Path, stream: BinaryIO) -> CelosiaError | None:
    try:
        archive = ZipReader(stream, path, packed=True)
    except FileError:
        return None         # the archive's own reader says what is wrong with it
    names = archive.names
    files = {name.partition("/")[2] for name in names}
    if "archive_format" in files or "models/model.json" in files:
        return None
    if "serialized_exported_program.json" in names:
        return CelosiaError(f"{path}: a .pt2 file of an older torch, with pickled weights; "
                            f"{OLD_PT2}")
    if "data.pkl" in files:
        if any(file.startswith("code/") for file in files):
            return _message(path, _SCRIPT)
        return _message(path, _WHOLE if _builds_modules(archive) else _PICKLED)
    if "model.weights.h5" in names:
        return _message(path, _KERAS)
    what = ("NumPy arrays, as in a .npz file" if all(name.endswith(".npy") for name in names)
            else "a zip archive of something else")
    return CelosiaError(f"{path}: not a readable .pt2 file ({what}); {_SAVE}")


def _builds_modules(archive: ZipReader) -> bool:
    """Tell whether a pickle asks for more than tensors in dictionaries; nothing of it is run."""
    name = next(name for name in archive.names if name.partition("/")[2] == "data.pkl")
    try:
        asked = [str(argument).split()[0] for code, argument, _ in
                 pickletools.genops(archive.read(name)) if code.name == "GLOBAL"]
    except (ValueError, FileError):
        return False
    return any(module not in ("collections", "torch", "torch._utils") for module in asked)


def _of_head(head: bytes) -> _Kind | None:
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return _KERAS
    if head[4:8] == b"TFL3":
        return _LITE
    if head[:4] == b"GGUF":
        return _GGUF
    if re.match(rb"\x80[\x02-\x05]", head):
        return _PICKLED
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100 << 20:
        return _SAFETENSORS
    return None


def _message(path: Path, kind: _Kind) -> CelosiaError:
    new = f"{path.stem}.pt2" if path.suffix != ".pt2" else f"{path.stem}-exported.pt2"
    names = {"name": str(path), "output": new}
    code = kind.load.format(**names), _EXPORT.format(**names)
    what = f"{path}: {kind.what}; make a .pt2 file of it (example: one input, float32 (1, ...)):"
    refusal = CelosiaError("\n    ".join((what, *code)))
    refusal.code = code
    return refusal
