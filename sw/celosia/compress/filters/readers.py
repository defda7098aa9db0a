"""Following channels through layers with weights: those that read them all, and those that keep
them apart and lose what belongs to a channel."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from celosia.compress.filters.record import Step
from celosia.compress.filters.tracks import Found, Map, Tracks, numbers

__all__ = ["batch_norm", "prelu", "reader"]

_Conv = nn.modules.conv._ConvNd
_BORDER = "a number but 0 where {!r} reads it, and a border of zeros shows that"


def reader(tracks: Tracks, step: Step) -> Map | None:
    """Note what a convolution or linear layer loses with its inputs; return its own filters."""
    given = tracks.map(step.argument(0, "input"))
    name, problem = tracks.owners.of(step.argument(1, "weight"))
    layer = tracks.owners.modules.get(name)
    if problem is None and not isinstance(layer, _Conv | nn.Linear):
        problem = "is no convolution or linear layer"
    if problem is not None:
        if given is not None:
            where = tracks.owners.describe(step.place)
            tracks.block(given.labels, f"its map is read by {step.name} in {where}, which "
                                       f"{problem}")
        return None
    tracks.norms[name] = _sole_norm(tracks, step)
    ndim = len(tracks.shape(step.gives[0]))
    axis = ndim - 1 if step.name == "linear" else ndim - 1 - int(step.name[-2])
    groups = 1 if step.name == "linear" else step.argument(6, "groups", 1)
    if given is not None and given.axis != axis:
        tracks.block(given.labels, f"its map is read by {name!r} across its channels")
    elif given is not None and groups > 1:
        outputs = len(tracks.owners.modules[name].weight)
        if groups == len(given.labels) == outputs and not _transposed(step):
            return _depthwise(tracks, step, name, given)
        tracks.block(given.labels, f"its map is read by the grouped convolution {name!r}")
    elif given is not None:
        _inputs(tracks, step, name, given)
    labels = tracks.couples.labels[name]
    # A single filter never goes, so it is no channel to tell apart.
    return Map.zeros(axis, labels) if len(labels) > 1 else None


def _inputs(tracks: Tracks, step: Step, name: str, given: Map) -> None:
    layer = tracks.owners.modules[name]
    if _pads(step, layer):
        given = tracks.spoil(given, ~given.zero, _BORDER.format(name))
    elif layer.bias is None and tracks.norms[name] is None:
        problem = tracks.owners.obstacle(name)
        if problem is not None:
            given = tracks.spoil(given, ~given.zero, f"a number but 0 where {name!r} reads it, "
                                                     f"which would get a bias and {problem}")
    tracks.cut(name, "transposed inputs" if _transposed(step) else "inputs", given)


def _depthwise(tracks: Tracks, step: Step, name: str, given: Map) -> Map:
    layer = tracks.owners.modules[name]
    if _pads(step, layer):
        given = tracks.spoil(given, ~given.zero, _BORDER.format(name))
    tracks.cut(name, "depthwise", given)
    values = given.values * numbers(layer.weight).flatten(1).sum(1)
    if layer.bias is not None:
        values = values + numbers(layer.bias)
    return Map(axis=given.axis, labels=given.labels, values=values,
               known=given.zero & (layer.bias is None))


def batch_norm(tracks: Tracks, step: Step) -> Found:
    """Follow channels through a batch normalisation."""
    given = tracks.map(step.argument(0, "input"))
    name, problem = _norm(tracks, step)
    if given is None or problem is not None or given.axis != 1:
        return f"meets {tracks.words(step)}, which {problem or 'normalises across channels'}"
    layer = tracks.owners.modules[name]
    tracks.cut(name, "normalisation", given)
    alone = any(norm == name and np.array_equal(tracks.couples.labels[before], given.labels)
                for before, norm in tracks.norms.items())
    if alone and layer.weight is not None:      # gamma and beta are zeroed with the filter
        return [Map.zeros(1, given.labels)]
    values = torch.zeros_like(given.values)     # with statistics of its own: no spread
    if not step.argument(5, "training", False):
        scale = (numbers(layer.running_var) + layer.eps).rsqrt()
        scale = scale if layer.weight is None else scale * numbers(layer.weight)
        values = (given.values - numbers(layer.running_mean)) * scale
    if layer.bias is not None:
        values = values + numbers(layer.bias)
    return [Map(axis=1, labels=given.labels, values=values,
                known=np.zeros(len(given.labels), bool))]


def prelu(tracks: Tracks, step: Step) -> Found:
    """Follow channels through a ReLU with trained slopes."""
    given = tracks.map(step.argument(0, "input"))
    name, problem = tracks.owners.of(step.argument(1, "weight"))
    layer = tracks.owners.modules.get(name)
    if given is None or not isinstance(layer, nn.PReLU):
        return f"meets {tracks.words(step)}, which has slopes that are no layer's"
    slopes = numbers(layer.weight)
    if len(slopes) > 1:
        if problem is not None or given.axis != 1:
            return f"meets {tracks.words(step)}, which {problem or 'works across channels'}"
        tracks.cut(name, "slopes", given)
    values = torch.where(given.values >= 0, given.values, slopes * given.values)
    return [Map(axis=given.axis, labels=given.labels, values=values, known=given.zero)]


def _sole_norm(tracks: Tracks, step: Step) -> str | None:
    """Return the batch normalisation that alone reads a step's result, or None."""
    readers = tracks.readers.get(step.gives[0], [])
    if len(readers) != 1 or tracks.record.uses[step.gives[0]] != 1:
        return None
    (found,) = readers
    if found.name != "batch_norm":
        return None
    name, problem = _norm(tracks, found)
    return name if problem is None and found.reads[0] == step.gives[0] else None


def _norm(tracks: Tracks, step: Step) -> tuple[str, str | None]:
    """Return the layer of a batch normalisation, and why it cannot lose channels or None."""
    tensors = [step.argument(position, name) for position, name in
               enumerate(("running_mean", "running_var", "weight", "bias"), 1)]
    found = {tracks.owners.of(tensor) for tensor in tensors if tensor is not None}
    if len(found) != 1:
        return "", "has tensors that are not one layer's"
    ((name, problem),) = found
    if not isinstance(tracks.owners.modules.get(name), nn.modules.batchnorm._BatchNorm):
        problem = problem or "is no batch normalisation"
    return name, problem


def _transposed(step: Step) -> bool:
    return "transpose" in step.name


def _pads(step: Step, layer: nn.Module) -> bool:
    """Tell whether a layer's outputs at the border read zeros, or less of the map than others."""
    if step.name == "linear":
        return False
    padding = step.argument(4, "padding", 0)
    if padding == "same":
        return bool(layer.weight[0, 0].numel() > 1)
    return _transposed(step) or bool(padding != "valid" and np.any(padding))
