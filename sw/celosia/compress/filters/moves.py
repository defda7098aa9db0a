"""Following channels through operators without weights."""

from __future__ import annotations

import math

import numpy as np
import torch

from celosia.compress import operators
from celosia.compress.filters.record import Ref, Step
from celosia.compress.filters.tracks import Found, Map, Tracks, apply, numbers

__all__ = ["concatenate", "elementwise", "layout", "pad", "reduction", "spatial", "stack",
           "unchanged"]


def unchanged(tracks: Tracks, step: Step) -> Found:
    """Follow channels through an operator that changes no more than a number's type."""
    given = tracks.maps.get(step.reads[0])
    if given is None:       # x.to(y) has nothing of y's numbers
        return []
    if len(step.gives) != 1:
        return f"meets {tracks.words(step)}"
    values = given.values.to(tracks.record.types[step.gives[0]]).double()
    return [Map(axis=given.axis, labels=given.labels, values=values, known=given.known)]


def elementwise(tracks: Tracks, step: Step) -> Found:
    """Follow channels through an operator on numbers at the same place."""
    ndim = len(tracks.shape(step.gives[0]))
    read = {number: tracks.maps.get(number) for number in step.reads}
    maps = [given for given in read.values() if given is not None]
    n = len(maps[0].labels)
    behind = {len(tracks.shape(number)) - given.axis for number, given in read.items() if given}
    if len(behind) > 1 or any(len(given.labels) != n for given in maps):
        return f"meets a map of other channels at {tracks.words(step)}"
    axis = ndim - behind.pop()
    known, varies = np.ones(n, bool), False
    held: dict[int, torch.Tensor] = {}
    for number, given in read.items():
        shape = (1,) * ndim + tracks.shape(number)
        if given is not None:
            held[number], known = given.values, known & given.known
        elif shape[axis - ndim] != 1:
            return f"is combined with {tracks.owners.tensor(number)} of as many channels"
        elif math.prod(shape) == 1 and number in tracks.record.given:
            held[number] = numbers(tracks.record.given[number]).flatten()
            known &= not tracks.owners.is_held(number)
        else:
            held[number], varies = torch.ones(1, dtype=torch.float64), True
    labels = tracks.join(maps, "added to")
    values = apply(step, lambda ref: held[ref.index].clone()).expand(n).clone()
    zero = _zero_factor(tracks, step, n)
    values[torch.from_numpy(zero)] = 0
    result = Map(axis=axis, labels=labels, values=values, known=(known & (not varies)) | zero)
    lost = np.logical_or.reduce([given.lost for given in maps]) | varies    # a comparison hides NaN
    return [tracks.spoil(result, lost & ~zero, f"no single number behind {tracks.words(step)}")]


def _zero_factor(tracks: Tracks, step: Step, n: int) -> np.ndarray:
    """Tell where a product or quotient is 0 because a factor is."""
    zero = np.zeros(n, bool)
    factors = (step.args if step.name in operators.PRODUCTS
               else step.args[:1] if step.name in operators.QUOTIENTS else ())
    for given in filter(None, map(tracks.map, factors)):
        zero |= given.zero
    return zero


def layout(tracks: Tracks, step: Step) -> Found:
    """Follow channels through an operator that moves numbers, by having it move their places."""
    given = tracks.maps.get(step.reads[0])
    tensors = len(step.reads) > 1 and step.name == "getitem"
    if given is None or tensors or any(number in tracks.maps for number in step.reads[1:]):
        return f"meets {tracks.words(step)}"
    shape = tracks.shape(step.reads[0])
    places = torch.arange(len(given.labels), dtype=torch.int32)
    places = places.view(-1, *[1] * (len(shape) - given.axis - 1)).expand(shape)
    moved = apply(step, lambda ref: places.contiguous() if ref.index == step.reads[0]
                  else torch.empty(()).expand(tracks.shape(ref)))
    results: list[Map | None] = []
    for one in moved if isinstance(moved, tuple | list) else [moved]:
        found = _along(one)
        if found is None or (step.name in operators.SELECTS
                             and not np.array_equal(found[1], np.arange(len(given.labels)))):
            return f"has its channels taken apart or moved by {tracks.words(step)}"
        results.append(given.at(*found))
    return results


def _along(places: torch.Tensor) -> tuple[int, np.ndarray] | None:
    """Return the one axis along which a tensor of places changes, and them; None if not one."""
    axes = [axis for axis, length in enumerate(places.shape)
            if length > 1 and bool((places != places.narrow(axis, 0, 1)).any())]
    if len(axes) != 1:
        return None
    return axes[0], places.movedim(axes[0], 0).flatten(1)[:, 0].numpy()


def reduction(tracks: Tracks, step: Step) -> Found:
    """Follow channels through a mean, sum or extreme over other axes."""
    axes = step.argument(1, "dim", step.kwargs.get("axis"))
    if isinstance(axes, Ref) or "other" in step.kwargs:
        return elementwise(tracks, step)        # torch.max(x, y)
    given = tracks.maps.get(step.reads[0])
    if given is None or any(tracks.record.uses[number] for number in step.gives[1:]):
        return f"meets {tracks.words(step)}"
    shape = tracks.shape(step.reads[0])
    axes = range(len(shape)) if axes is None or axes == () else axes
    lost = {axis % len(shape) for axis in ([axes] if isinstance(axes, int) else axes)}
    if given.axis in lost:
        return f"meets {tracks.words(step)}, which mixes channels"
    if step.name == "sum":      # of a number but 0: another one for each size of the input
        given = tracks.spoil(given, ~given.zero, f"a number but 0 in front of {tracks.words(step)}")
    kept = len(tracks.shape(step.gives[0])) == len(shape)
    axis = given.axis if kept else given.axis - sum(one < given.axis for one in lost)
    return [Map(axis=axis, labels=given.labels, values=given.values, known=given.known)]


def spatial(tracks: Tracks, step: Step) -> Found:
    """Follow channels through a pool or a change of size."""
    given = tracks.maps.get(step.reads[0])
    axis = (len(tracks.shape(step.reads[0])) - 1 - int(step.name[-2])
            if step.name in operators.POOLS else 1)
    if given is None or given.axis != axis or len(step.gives) != 1:
        return f"meets {tracks.words(step)}"
    if step.name.startswith("avg"):
        border = np.any(step.argument(3, "padding", 0)) and step.argument(
            5, "count_include_pad", True)
        if border or step.argument(6, "divisor_override") is not None:
            given = tracks.spoil(given, ~given.zero, f"a number but 0 in front of "
                                                     f"{tracks.words(step)}, which changes it")
    return [given]


def pad(tracks: Tracks, step: Step) -> Found:
    """Follow channels through a border, of constants or of the map's own numbers."""
    given = tracks.maps.get(step.reads[0])
    amounts = step.argument(1, "pad")
    if given is None or not all(isinstance(amount, int) for amount in amounts):
        return f"meets {tracks.words(step)}"
    behind = len(tracks.shape(step.reads[0])) - 1 - given.axis
    wide = tuple([*amounts, *[0] * 2 * (behind + 1)][2 * behind:2 * behind + 2])
    if min(wide) < 0:
        return f"has its channels taken apart or moved by {tracks.words(step)}"
    if any(wide):
        tracks.block(given.labels, "its map is padded with further channels")
    elif step.argument(2, "mode", "constant") == "constant":
        border = step.argument(3, "value", 0.0) or 0.0
        same = given.known & (given.values == border).numpy()
        given = tracks.spoil(given, ~same, "another number than the border that "
                                           f"{tracks.words(step)} gives it")
    return [Map(axis=given.axis, labels=np.pad(given.labels, wide),
                values=torch.from_numpy(np.pad(given.values.numpy(), wide)),
                known=np.pad(given.known, wide))]


def concatenate(tracks: Tracks, step: Step) -> Found:
    """Follow channels through a join along an axis that there is already."""
    parts = step.argument(0, "tensors")
    shapes = [tracks.shape(part) for part in parts]
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        return f"meets {tracks.words(step)}"
    axis = step.argument(1, "dim", step.kwargs.get("axis", 0)) % len(shapes[0])
    maps = [tracks.map(part) for part in parts]
    if any(given is not None and given.axis != axis for given in maps):
        return _beside(tracks, step, maps, axis, new=False)
    whole = [given or Map.zeros(axis, np.zeros(shape[axis], int))
             for given, shape in zip(maps, shapes, strict=True)]
    return [Map(axis=axis, labels=np.concatenate([one.labels for one in whole]),
                values=torch.cat([one.values.double() for one in whole]),
                known=np.concatenate([one.known for one in whole]))]


def stack(tracks: Tracks, step: Step) -> Found:
    """Follow channels through a join along a new axis."""
    maps = [tracks.map(part) for part in step.argument(0, "tensors")]
    axis = step.argument(1, "dim", 0) % len(tracks.shape(step.gives[0]))
    return _beside(tracks, step, maps, axis, new=True)


def _beside(
    tracks: Tracks, step: Step, maps: list[Map | None], axis: int, *, new: bool
) -> Found:
    """Follow maps that are laid beside each other along an axis that is not their channels'."""
    whole = [given for given in maps if given is not None]
    axes = {given.axis for given in whole}
    if len(whole) != len(maps) or len(axes) > 1 or (axis in axes and not new):
        return f"meets a tensor of other channels at {tracks.words(step)}"
    labels = tracks.join(whole, "laid beside")
    first = whole[0]
    known = np.ones(len(labels), bool)
    for given in whole:
        known &= given.known & (given.values == first.values).numpy()
    result = Map(axis=first.axis + (new and axis <= first.axis), labels=labels,
                 values=first.values, known=known)
    return [tracks.spoil(result, ~known, f"no single number behind {tracks.words(step)}")]
