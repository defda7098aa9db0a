"""The correlation of neurons with their inputs, summed over as few passes as memory allows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.registry import Layers, Scores, Scoring
from celosia.compress.criteria.statistics import (
    CrossMoments,
    calibration_inputs,
    observe,
    patches,
)
from celosia_spec.errors import ArgumentError

__all__ = ["ACCUMULATOR_BYTES", "correlations"]

ACCUMULATOR_BYTES = 2**29
"""Most memory for sums in one pass over the inputs; what needs more takes several passes."""

_PATCH_BYTES = 2**26
"""Most memory for the patches of one update of the sums."""

Job = dict[str, torch.Tensor]
"""The output positions of each layer that one pass over the inputs works on, int64 (P,)."""


def correlations(scoring: Scoring, *, activation: str, signed: bool, positions: int | None,
                 batch_size: int) -> Scores:
    """Return the scores of `celosia.compress.criteria.correlation`, whose options these are."""
    model, layers = scoring.model, scoring.layers
    inputs = calibration_inputs("correlation", scoring.inputs, least=2)
    maps = _map_sizes(model, layers, inputs[:1])
    chosen = _draw(maps, positions, scoring.seed)
    sums = {name: np.zeros(tuple(layer.weight.shape)) for name, layer in layers.items()}
    for job in _passes(layers, chosen):
        watched = {name: layers[name] for name in job}
        moments = {name: CrossMoments() for name in job}

        def use(
            name: str, layer: nn.Module, x: torch.Tensor, a: torch.Tensor,
            moments: dict[str, CrossMoments] = moments, job: Job = job,
        ) -> None:  # fmt: skip
            _check_map(name, a, maps)
            _update(moments[name], layer, x, a, job[name])

        observe(model, watched, inputs, use, activation=activation,
                batch_size=batch_size)
        for name, layer in watched.items():
            sums[name] += _sum_over_positions(layer, moments.pop(name).correlation(), signed)
    return {name: total / len(chosen[name]) for name, total in sums.items()}


def _map_sizes(
    model: nn.Module, layers: Layers, sample: torch.Tensor
) -> dict[str, tuple[int, ...]]:
    """Return the size (H, W) or (L,) of each convolution's output, and () for a Linear."""
    sizes: dict[str, tuple[int, ...]] = {}

    def note(name: str, layer: nn.Module, x: torch.Tensor, a: torch.Tensor) -> None:
        sizes[name] = () if isinstance(layer, nn.Linear) else tuple(a.shape[2:])

    observe(model, layers, sample, note, activation="pre")
    return sizes


def _check_map(name: str, a: torch.Tensor, maps: dict[str, tuple[int, ...]]) -> None:
    """Raise ArgumentError if a convolution's map has another size than the first time."""
    if maps[name] and tuple(a.shape[2:]) != maps[name]:
        raise ArgumentError(
            f"layer {name!r} makes maps of {maps[name]} and of {tuple(a.shape[2:])}, so its "
            "positions have no correspondence; leave it out with layers="
        )


def _draw(maps: dict[str, tuple[int, ...]], most: int | None, seed: int) -> Job:
    """Return the output positions to work on, in ascending order; a Linear layer has one."""
    generator = np.random.default_rng(seed)
    drawn = {}
    for name, size in maps.items():
        every = np.arange(int(np.prod(size)))
        if most is not None and most < len(every):
            every = np.sort(generator.choice(every, most, replace=False))
        drawn[name] = torch.from_numpy(every)
    return drawn


def _passes(layers: Layers, chosen: Job) -> Iterator[Job]:
    """Share the positions out over as few passes as `ACCUMULATOR_BYTES` allows, in order."""
    job: Job = {}
    free = ACCUMULATOR_BYTES
    for name, positions in chosen.items():
        each = 8 * layers[name].weight.numel()
        while len(positions):
            fit = free // each
            if fit == 0 and job:
                yield job
                job, free = {}, ACCUMULATOR_BYTES
                continue
            fit = max(fit, 1)
            job[name], positions = positions[:fit], positions[fit:]
            free -= each * len(job[name])
            if len(positions):
                yield job
                job, free = {}, ACCUMULATOR_BYTES
    if job:
        yield job


def _update(
    moments: CrossMoments, layer: nn.Module, x: torch.Tensor, a: torch.Tensor,
    positions: torch.Tensor,
) -> None:  # fmt: skip
    """Add a mini-batch: a Linear's samples, or a convolution's patches at the positions."""
    if isinstance(layer, nn.Linear):
        moments.update(a.reshape(-1, 1, a.shape[-1]), x.reshape(-1, 1, x.shape[-1]))
        return
    a = a.flatten(2)[:, :, positions.to(a.device)].movedim(1, 2)
    a = a.unflatten(2, (layer.groups, -1)).flatten(1, 2)
    sample = 8 * len(positions) * x.shape[1] * math.prod(layer.kernel_size)
    step = max(1, _PATCH_BYTES // sample)
    for part_x, part_a in zip(x.split(step), a.split(step), strict=True):
        moments.update(part_a, patches(layer, part_x, positions).flatten(1, 2))


def _sum_over_positions(layer: nn.Module, r: torch.Tensor, signed: bool) -> np.ndarray:
    """Turn correlations (positions * groups, out / groups, K) into the shape of the weight."""
    r = r if signed and isinstance(layer, nn.Linear) else r.abs()
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    total: np.ndarray = r.unflatten(0, (-1, groups)).sum(0).cpu().numpy()
    return total.reshape(layer.weight.shape)
