"""The mask layer: filters that training itself drives towards zero (P3, section 6.4.1).

Every filter gets a factor m, at first 1, that is trained with the weights under an L1 term,
``loss + strength * sum |m|``. Filters whose factors end close to 0 are removed, the others' factors
are multiplied into the weights, and the network is trained on without the term. P3 describes the
mechanism and prints no formula; these are the usual ones, and what they leave open is an option.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.scoring import filter_scores
from celosia.compress.entry import entry
from celosia.compress.filters.prune import FilterReport, FilterRound, prune_filters, trace_for
from celosia.compress.filters.selection import Target, choose
from celosia.compress.filters.structure import trace
from celosia.compress.masks.filters import attach, attach_gamma, filter_masks, fold_in
from celosia.compress.promise import Promise, restoring
from celosia.compress.spans import POSITIVE
from celosia.compress.training.journal import Journal, describe, fingerprint
from celosia.compress.training.rounds import Measure, reproducible
from celosia.compress.words import PLACES, SCOPES, STEPS
from celosia_spec.errors import ArgumentError

__all__ = [
    "add_masks",
    "fold_masks",
    "mask_penalty",
    "proximal_step",
    "prune_with_masks",
    "threshold_for",
]

Trainer = Callable[[nn.Module, int], None]


@entry
def add_masks(
    model: nn.Module,
    example_input: Any,
    *,
    layers: Collection[str] | None = None,
    on: str = "mask",
) -> tuple[str, ...]:
    """Give the filters of a model trainable masks, in place.

    The network computes what it did, which is checked on the example. A mask acts behind the
    convolution's batch normalisation where it has one: in front of it, the normalisation would
    undo it.

    Parameters
    ----------
    model
        The trained network, without masks.
    example_input
        One input (1, ...); tells which filters can be removed.
    layers
        Names of convolutions; None is all whose filters can be removed.
    on
        "mask": a new parameter of ones. "gamma": the gamma of the batch normalisation serves as
        the mask, without a new parameter (Liu et al., arXiv 1708.06519). When it is folded, what
        beta adds to a removed map is dropped.

    Returns
    -------
    Names of the masked convolutions.

    Raises
    ------
    ArgumentError
        The model has masks; an unknown layer or one whose filters cannot be removed; no gamma
        where one is needed; a layer whose weight is computed each time. The model is unchanged.
    """
    if on not in PLACES:
        raise ArgumentError(f"on must be one of {', '.join(PLACES)}, not {on!r}")
    if filter_masks(model):
        raise ArgumentError("the model has filter masks already; fold them first (fold_masks)")
    structure = trace(model, example_input)
    for name in layers or ():
        if name not in structure.units:
            reason = structure.skipped.get(name, "no convolution has this name")
            raise ArgumentError(f"layer {name!r} cannot have a mask: {reason}")
    chosen = [name for name in structure.units if layers is None or name in layers]
    put = attach if on == "mask" else attach_gamma
    with restoring(model):
        promise = Promise(model, example_input)
        for name in chosen:
            put(model, name, structure.units[name].norm)
        promise.check(model, "giving filters masks of ones")
    return tuple(chosen)


def mask_penalty(strength: float) -> Callable[[nn.Module], torch.Tensor]:
    """Return ``strength * sum |m|`` over all masks, as a function of the model.

    For `FineTune(penalty=...)`. Its subgradient moves masks towards 0, and around it: they end
    close to 0, as P3 describes, not at it.
    """

    def penalty(model: nn.Module) -> torch.Tensor:
        return strength * sum(mask.abs().sum() for mask in filter_masks(model).values())

    return penalty


def proximal_step(strength: float) -> Callable[[nn.Module, float], None]:
    """Return ``m <- sign(m) max(|m| - rate * strength, 0)``, as a function of model and rate.

    For `FineTune(after_step=...)` with SGD, instead of `mask_penalty`; masks reach 0. Momentum mu
    does not act on this step, while it makes a penalty's push 1 / (1 - mu) times as strong: at
    the usual 0.9, take ten times the strength.
    """

    def step(model: nn.Module, rate: float) -> None:
        with torch.no_grad():
            for mask in filter_masks(model).values():
                mask.copy_(mask.sign() * (mask.abs() - rate * strength).clamp(min=0))

    return step


@entry
def threshold_for(
    model: nn.Module,
    example_input: Any,
    *,
    macs: float | None = None,
    parameters: float | None = None,
    conv_macs: float | None = None,
    rate: float | None = None,
    scope: str = "global",
) -> float | dict[str, float]:
    """Return the threshold on |m| that removes the given fraction, to be given to `fold_masks`.

    Parameters
    ----------
    model, example_input
        As given to `add_masks`, masks included.
    macs, parameters, conv_macs, rate
        Fraction to remove (`celosia.compress.prune_filters`); exactly one.
    scope
        "global": one threshold for all layers. "layer": one each.

    Returns
    -------
    The smallest number above every |m| that goes; -inf where none does. With scope "layer",
    {layer: number}. Filters with equal |m| go together, so at least the fraction is removed.

    Raises
    ------
    ArgumentError
        As `prune_filters`.
    """
    if scope not in SCOPES:
        raise ArgumentError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    target = Target.of(macs=macs, parameters=parameters, conv_macs=conv_macs, rate=rate)
    scores = filter_scores(model, "mask")
    structure = trace_for(model, example_input, "mask")
    scores = {name: scores[name] for name in structure.units}
    kept = choose(structure, structure.everything(), scores, target, scope, Fraction(1))
    above = {name: _above(np.delete(values, kept[name])) for name, values in scores.items()}
    return above if scope == "layer" else max(above.values())


def _above(values: np.ndarray) -> float:
    return float(np.nextafter(values.max(), np.inf)) if len(values) else -np.inf


@entry
def fold_masks(
    model: nn.Module,
    example_input: Any,
    *,
    threshold: float | Mapping[str, float] | None = None,
    macs: float | None = None,
    parameters: float | None = None,
    conv_macs: float | None = None,
    rate: float | None = None,
    scope: str = "global",
) -> FilterReport:
    """Multiply the masks into the weights and remove the filters with the smallest, in place.

    The network then computes what the masked one computes with the masks of the removed filters
    set to 0; with masks on gamma, with their gamma and beta set to 0. The two are compared on the
    example, and the model is as it was where they differ.

    Exactly one of the five says how much goes; all are as in `celosia.compress.prune_filters`,
    which this calls with method "mask". A layer always keeps its largest mask.

    Raises ArgumentError as `prune_filters` does.
    """
    return prune_filters(model, example_input, "mask", threshold=threshold, macs=macs,
                         parameters=parameters, conv_macs=conv_macs, rate=rate, scope=scope)


@entry
def prune_with_masks(
    model: nn.Module,
    example_input: Any,
    *,
    train: Callable[..., Trainer],
    strength: float,
    macs: float | None = None,
    parameters: float | None = None,
    conv_macs: float | None = None,
    rate: float | None = None,
    finetune: Trainer | None = None,
    layers: Collection[str] | None = None,
    on: str = "mask",
    step: str = "subgradient",
    scope: str = "global",
    seed: int = 0,
    checkpoint: str | Path | None = None,
    measure: Measure | None = None,
    progress: Callable[[FilterRound], None] | None = None,
) -> FilterReport:
    """Add masks, train them, fold them, remove filters and fine-tune, in place.

    Parameters
    ----------
    model, example_input, layers, on
        As in `add_masks`.
    train
        Called once as ``train(penalty=...)``, or ``train(after_step=...)`` with the proximal step;
        returns what trains the masked model as ``(model, 0)``. ``functools.partial(FineTune,
        inputs=x, labels=y, ...)`` is such a thing.
    strength
        Factor of the L1 term, above 0.
    macs, parameters, conv_macs, rate, scope
        How much goes, exactly one, as in `celosia.compress.prune_filters`.
    finetune
        Called as ``finetune(model, 0)`` on the smaller network, or None. It should have the
        original regularisation, without the L1 term.
    step
        "subgradient" (`mask_penalty`) or "proximal" (`proximal_step`).
    seed
        Torch's global generator is set to it for `train` and for `finetune`, and put back.
    checkpoint
        Folder that keeps the trained masks and the result, or None; a run that was stopped goes
        on from there when called again on the original model with the same settings.
    measure
        ``measure(model)`` -> {name: number or None} at the end, kept in the record; or None.
    progress
        Called with a `FilterRound` at the end, or None.

    Returns
    -------
    FilterReport; its choices hold those of the mask training too.

    Raises
    ------
    ArgumentError
        As `add_masks` and `prune_filters`; `strength` or `step` that is not as above.
    """
    POSITIVE.check("strength", strength)
    if step not in STEPS:
        raise ArgumentError(f"step must be one of {', '.join(STEPS)}, not {step!r}")
    goal: dict[str, Any] = {"macs": macs, "parameters": parameters, "conv_macs": conv_macs,
                            "rate": rate}
    hook = ({"penalty": mask_penalty(strength)} if step == "subgradient"
            else {"after_step": proximal_step(strength)})
    trainer = train(**hook)
    choices = {"on": on, "strength": strength, "step": step, "mask_seed": seed,
               "layers": None if layers is None else sorted(layers),
               "train": describe(trainer), "start": fingerprint(model)}
    folder = None if checkpoint is None else Path(checkpoint)
    journal = Journal(None if folder is None else folder / "masks", choices)
    add_masks(model, example_input, layers=layers, on=on)
    try:
        threshold_for(model, example_input, **goal, scope=scope)
    except ArgumentError:       # the target cannot be met: say so before the training
        fold_in(model)
        raise
    if journal.records:
        model.load_state_dict(journal.restore() or {})
    else:
        with reproducible(model, seed):
            trainer(model, 0)
        journal.finish({"stage": "masks"}, model.state_dict())
    report = prune_filters(
        model, example_input, "mask", **goal, finetune=finetune, scope=scope, seed=seed,
        checkpoint=None if folder is None else folder / "filters", measure=measure,
        progress=progress)
    return report.with_choices(choices)
