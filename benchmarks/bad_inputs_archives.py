"""Damage of any file and of zip archives, and ``.pt2`` files that are damaged or hostile."""

import copy
import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

__all__ = ["HUGE", "RAN", "Entries", "File", "Payload", "Rng", "damaged", "directory_changed",
           "entries_of", "model_file", "pickled", "same_entries", "sound_model", "zipped"]

RAN = "ran"
"""The file that hostile code makes where it is run; it must never be there."""
HUGE = (2**31, 2**32, 2**40, 2**63, 10**30)
Rng = np.random.Generator
Entries = dict[str, bytes]


class File(NamedTuple):
    """content : of a file.   accept : see `bad_inputs_files.Case`."""

    content: bytes
    accept: bool | None


def sound_model() -> tuple[nn.Module, bytes]:
    """Return a network for inputs (1, 1, 8, 8), and its .pt2 file."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(),
                          nn.Linear(72, 4)).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (torch.zeros(1, 1, 8, 8),)), buffer)
    return model, buffer.getvalue()


def entries_of(content: bytes) -> Entries:
    """Return the entries of a zip archive; whatever zipfile raises where it is damaged."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def model_file(model: bytes, rng: Rng) -> File:
    """Return a file made of a sound .pt2 file."""
    makers: tuple[Callable[[bytes, Entries, Rng], File], ...] = (
        _bytes, _bytes, _json, _json, _hostile, _archive)
    return makers[rng.integers(len(makers))](model, entries_of(model), rng)


def damaged(content: bytes, rng: Rng) -> bytes:
    """Return bytes with bits flipped, parts cut, repeated, overwritten, or something behind."""
    data = bytearray(content)
    at, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    match rng.integers(6):
        case 0:
            for place in rng.integers(0, len(data), rng.integers(1, 9)):
                data[place] ^= 1 << rng.integers(8)
        case 1:
            data[at:at + 8] = rng.bytes(8)
        case 2:
            del data[at:]
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end]
        case 5:
            data[at:end] = bytes(end - at)
    return bytes(data)


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)       # of no time of day
    return buffer.getvalue()


def directory_changed(content: bytes, rng: Rng) -> bytes:
    """Return a zip archive whose directory says something else of an entry."""
    data = bytearray(content)
    places = [at for at in range(len(data)) if data[at:at + 4] == b"PK\1\2"]
    at = places[rng.integers(len(places))]
    offset, value = ((8, 1), (10, 12), (10, 99), (20, 5), (24, 2**31), (42, 3))[rng.integers(6)]
    struct.pack_into("<H" if offset < 20 else "<I", data, at + offset, value)
    return bytes(data)


class Payload:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path(RAN),)


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    return buffer.getvalue()


def _bytes(model: bytes, entries: Entries, rng: Rng) -> File:
    content = damaged(model, rng)
    return File(content, True if content == model else same_entries(content, entries))


def same_entries(content: bytes, entries: dict[str, bytes]) -> bool | None:
    """Return False where an archive has other entries than the sound one; None otherwise."""
    try:
        same = entries_of(content) == entries
    except Exception:       # whatever it raises: the archive is damaged
        same = False
    return None if same else False


def _mutated(value: object, rng: Rng) -> object:
    """Return a JSON value with one part of it, at any depth, replaced or gone."""
    value = copy.deepcopy(value)
    part, owner, key = value, None, None
    while isinstance(part, dict | list) and part and (owner is None or rng.random() < 0.9):
        keys = list(part) if isinstance(part, dict) else range(len(part))
        owner, key = part, keys[rng.integers(len(keys))]
        part = part[key]
    new = (None, True, -1, 0, 3, 2**70, 0.5, "", "x", "as_int", [], {}, [1], {"as_none": True},
           {"as_tensor": {"name": "x"}}, "import os", "\x1b[31m\n", 1e300)
    if rng.random() < 0.2:
        del owner[key]
    else:
        owner[key] = new[rng.integers(len(new))]
    return value


def _json(model: bytes, entries: Entries, rng: Rng) -> File:
    names = [name for name in entries if name.endswith(".json")]
    name = names[rng.integers(len(names))]
    text = json.dumps(_mutated(json.loads(entries[name]), rng)).encode()
    return File(zipped(entries | {name: text}), None)


def _hostile(model: bytes, entries: Entries, rng: Rng) -> File:
    entries = dict(entries)
    place, table = "archive/models/model.json", "archive/data/weights/model_weights_config.json"
    program, weights = json.loads(entries[place]), json.loads(entries[table])
    graph = program["graph_module"]["graph"]
    first = next(iter(weights["config"].values()))
    run, accept = f"__import__('pathlib').Path({RAN!r}).touch()", False
    match rng.integers(12):
        case 0:
            first["use_pickle"] = True
            entries[f"archive/data/weights/{first['path_name']}"] = pickled()
        case 1:
            entries["archive/data/sample_inputs/model.pt"] = pickled()
            accept = True       # it is not read
        case 2:
            entries["archive/data/weights/model.pt"] = pickled()
        case 3:
            entries["archive/data/constants/opaque_obj_0"] = pickle.dumps(Payload())
        case 4:
            entries["archive/data/aotinductor/model/net.so"] = b"\x7fELF"
        case 5:
            graph["tensor_values"]["conv2d"]["sizes"][0] = {"as_expr": {
                "expr_str": f"[Integer(1), {run}][0]", "hint": None}}
        case 6:
            program["guards_code"] = [run]
            accept = True       # it is left out
        case 7:
            graph["nodes"][0]["target"] = "torch.os.system"
        case 8:
            graph["nodes"][0]["name"] = f"a={run}"
        case 9:
            signature = program["graph_module"]["module_call_graph"][0]["signature"]
            signature["in_spec"] = json.dumps([1, {
                "type": "builtins.dict", "children_spec": [], "context": json.dumps(
                    [{"__enum__": True, "fqn": "antigravity:x", "name": "x"}])}])
        case 10:
            size = HUGE[rng.integers(len(HUGE))]
            first["tensor_meta"]["sizes"][0] = {"as_int": size}
        case 11:
            first["tensor_meta"]["strides"] = [
                {"as_int": 0} for _ in first["tensor_meta"]["strides"]]
            accept = None       # one value for all: odd, and sound
    entries |= {place: json.dumps(program).encode(), table: json.dumps(weights).encode()}
    return File(zipped(entries), accept)


def _archive(model: bytes, entries: Entries, rng: Rng) -> File:
    match rng.integers(5):
        case 0:
            return File(zipped(entries, zipfile.ZIP_DEFLATED), False)
        case 1:
            return File(directory_changed(model, rng), False)
        case 2:
            return File(zipped(entries | {"other/file": b""}), False)
        case 3:
            return File(zipped({name: content for name, content in entries.items()
                               if not name.endswith("model.json")}), False)
        case _:
            return File(model, True)
