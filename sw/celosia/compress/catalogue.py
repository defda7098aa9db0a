"""The methods of ``celosia prune`` and ``celosia factorise``, declared.

A method is a call of this package's public functions. Every criterion of weights or of filters is
one (`of_weights`, `of_filters`); what is more than a criterion stands below them. The command line
makes options, help, checks and refusals from them, before it loads torch: a call imports what it
needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from celosia.compress import amounts, words
from celosia.compress.amounts import Chosen
from celosia.compress.criteria.correlation import CorrelationOptions
from celosia.compress.criteria.registry import Criterion, criteria
from celosia.compress.method import Method, MethodReport, Network, Training
from celosia.compress.options import option
from celosia.compress.spans import INSIDE, NOT_NEGATIVE, POSITIVE, SHARE, UNIT
from celosia.compress.weights.schedule import ORDERS, SCHEDULES
from celosia_spec.errors import ArgumentError

if TYPE_CHECKING:
    from celosia.compress.filters.prune import FilterReport
    from celosia.compress.training.rounds import RoundRecord

__all__ = ["factorising", "pruning"]


def pruning() -> dict[str, Method]:
    """Return the methods of ``celosia prune`` by name, the usual one first."""
    single = sorted(criteria("weights"), key=lambda found: found.name != "magnitude")
    every = (*map(of_weights, single), *map(of_filters, criteria("filters")), MASK, COMBINED)
    return {method.name: method for method in every}    # MASK trains, and stands for its criterion


def factorising() -> dict[str, Method]:
    """Return the methods of ``celosia factorise`` by name, the usual one first."""
    return {method.name: method for method in (SVD, TUCKER)}


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Options of pruning single weights, as `celosia.compress.prune` has them."""

    accuracy_budget: float | None = option(
        None, flag="--accuracy-budget", span=NOT_NEGATIVE,
        about="fall of accuracy allowed in each layer's curve; 0.01 is one point")
    order: str = option("together", flag="--order", choices=ORDERS,
                        about="all layers together, or layer by layer: forward, backward")
    scope: str = option("layer", flag="--scope", choices=words.SCOPES,
                        about="where weights compete: layer or global")
    select: str = option("topk_abs", flag="--select", choices=words.SELECTIONS,
                         about="how weights are picked: topk_abs or sun2016")
    rounds: int | None = option(None, flag="--rounds", least=1, about="rounds; 5 with data, else 1")
    schedule: str | None = option(None, choices=SCHEDULES, about="cubic or linear")
    strong: float = option(0.75, span=UNIT, about="share that sun2016 takes from the strong half")


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """Options of removing filters, as `celosia.compress.prune_filters` has them."""

    rounds: int = option(1, flag="--rounds", least=1, about="rounds in which filters go")
    scope: str = option("layer", flag="--scope", choices=words.SCOPES,
                        about="where filters compete: layer or global")
    coupled: str = option("keep", choices=words.COUPLED,
                          about="keep or prune convolutions whose outputs are added")
    ignore: tuple[str, ...] = option((), about="convolutions to leave alone")
    constants: str = option("fold", choices=words.CONSTANTS,
                            about="fold, or drop, what maps of zeros become further on")


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Options of training masks, as `celosia.compress.prune_with_masks` has them."""

    strength: float = option(flag="--strength", span=POSITIVE,
                             about="the factor of the L1 term on the masks")
    scope: str = option("global", flag="--scope", choices=words.SCOPES,
                        about="where filters compete: layer or global")
    on: str = option("mask", choices=words.PLACES,
                     about="mask, or gamma of the batch normalisation")
    step: str = option("subgradient", choices=words.STEPS, about="subgradient or proximal")
    layers: tuple[str, ...] = option((), about="convolutions to give masks; all")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `prune_with_masks`."""
        return {**asdict(self), "layers": self.layers or None}


@dataclass(frozen=True, kw_only=True)
class CombinedOptions:
    """Options of pruning both halves, as `celosia.compress.prune_combined` has them."""

    conv_macs: float = option(
        flag="--macs-removed", span=SHARE,
        about="the share of the convolutions' multiply-accumulates to remove")
    rounds: int = option(1, flag="--rounds", least=1, about="rounds on the linear layers")


@dataclass(frozen=True, kw_only=True)
class LowRankOptions:
    """Options of factorising, as `celosia.compress.factorise` has them."""

    rule: str | None = option(
        None, flag="--rule", choices=words.RULES, data={"curve": "to measure accuracy on"},
        about="what gives ranks: energy, speedup, evbmf or curve; evbmf if nothing says how much")
    value: float | None = option(
        None, flag="--value", span=POSITIVE,
        about="of energy: the share to keep. Of speedup: how many times fewer weights")
    accuracy_budget: float | None = option(
        None, flag="--accuracy-budget", span=NOT_NEGATIVE,
        about="of curve: fall of accuracy allowed in each layer's curve; 0.01 is one point")
    skip: tuple[str, ...] = option((), flag="--skip", about="layers to leave alone, commas between")
    minimum: int | None = option(
        None, flag="--minimum", least=1,
        about="least rank; in pairs 8, else 2 in convolutions and 1 in linear layers")
    weakening: float = option(1.0, flag="--weakening", least=0, most=1,
                              about="of evbmf: 1 takes its ranks, 0 the full ones")
    rounds: int = option(1, flag="--rounds", least=1, about="rounds in which the ranks fall")

    def __post_init__(self) -> None:
        """Refuse more energy than there is."""
        if self.rule == "energy" and self.value is not None and self.value > 1:
            raise ArgumentError(f"value, a share of energy, must be at most 1, not {self.value!r}")


@dataclass(frozen=True, kw_only=True)
class SchemeOptions:
    """Options of singular value decomposition alone."""

    scheme: str = option("channel", flag="--scheme", choices=words.SCHEMES,
                         about="in convolutions: channel or spatial")


def of_weights(criterion: Criterion) -> Method:
    """Return the method that removes the weights that a criterion scores lowest."""
    return Method(
        name=criterion.name, about=criterion.about, usual=Chosen("rate", 0.8),
        amounts=(amounts.RATE, amounts.RATES, amounts.SEARCH, amounts.CYCLES),
        options=(criterion.options, WeightOptions), run=partial(_prune_weights, criterion.name))


def of_filters(criterion: Criterion) -> Method:
    """Return the method that removes the filters that a criterion scores lowest."""
    return Method(
        name=criterion.name, about=criterion.about, must=True,
        amounts=(amounts.FILTER_RATE, amounts.MACS, amounts.PARAMETERS, amounts.RATES),
        options=(criterion.options, FilterOptions), run=partial(_prune_filters, criterion.name))


def _prune_weights(name: str, network: Network, amount: Chosen | None, training: Training,
                   scoring: Any, own: WeightOptions) -> MethodReport:
    """Call `prune`, or `prune_to_cycles`."""
    from celosia.compress.weights.cycles import prune_to_cycles
    from celosia.compress.weights.prune import prune

    assert amount is not None       # there is a usual one
    shared = {"inputs": training.inputs, "rounds": own.rounds, **asdict(scoring),
              **training.arguments(lambda record: network.density())}
    if amount.name == "cycles":
        found: Any = prune_to_cycles(
            network.module, name, example_input=network.example, target=network.target,
            budget=amount.value, schedule=own.schedule or "cubic", **shared)
    else:
        search: dict[str, Any] = {} if amount.name != "search" else {
            "accuracy_budget": own.accuracy_budget, "evaluate": training.evaluate("a search")}
        found = prune(network.module, name, rates="search" if search else amount.value,
                      order=own.order, scope=own.scope, select=own.select, strong=own.strong,
                      schedule=own.schedule, **shared, **search)
    return _report(network, _weight_rounds(network, found.rounds), found.choices,
                   found.rounds[-1].measured, amount, skipped=dict(found.skipped))


def _prune_filters(name: str, network: Network, amount: Chosen | None, training: Training,
                   scoring: Any, own: FilterOptions) -> MethodReport:
    """Call `prune_filters`."""
    from celosia.compress.filters.prune import prune_filters

    assert amount is not None       # one must be given
    found = prune_filters(
        network.module, network.example, name, inputs=training.inputs,
        **{amount.name: amount.value}, **asdict(own), **asdict(scoring),
        **training.arguments(lambda record: network.density()))
    return _filter_report(network, found, amount)


def _prune_with_masks(network: Network, amount: Chosen | None, training: Training,
                      own: MaskOptions) -> MethodReport:
    """Call `prune_with_masks`."""
    from celosia.compress.filters.mask_layer import prune_with_masks

    assert amount is not None       # one must be given
    found = prune_with_masks(
        network.module, network.example, train=training.needed(), **{amount.name: amount.value},
        **own.arguments(), **training.arguments(lambda record: network.density()))
    return _filter_report(network, found, amount)


def _prune_combined(network: Network, amount: Chosen | None, training: Training, scoring: Any,
                    masks: MaskOptions, own: CombinedOptions) -> MethodReport:
    """Call `prune_combined`."""
    from celosia.compress.combined import prune_combined

    assert amount is not None       # there is a usual one
    shared = training.arguments(lambda record: network.density())
    of_masks = masks.arguments() | {name: shared[name] for name in ("measure", "progress")}
    found = prune_combined(
        network.module, network.example, inputs=training.inputs, rates=amount.value,
        train=training.needed(), recover=training.finetune, strength=of_masks.pop("strength"),
        filter_options=of_masks, **asdict(own), **asdict(scoring), **shared)
    records = [{"stage": "convolutions", **asdict(record)} for record in found.filters.rounds]
    records += [{"stage": "linear", **record}
                for record in _weight_rounds(network, found.weights.rounds)]
    return _report(network, records,
                   {"convolutions": found.filters.choices, "linear": found.weights.choices},
                   found.weights.rounds[-1].measured, amount, **_filter_keys(found.filters))


def _factorise(name: str, network: Network, amount: Chosen | None, training: Training,
               own: LowRankOptions, scheme: SchemeOptions | None = None) -> MethodReport:
    """Call `factorise`."""
    from celosia.compress.lowrank.factorise import factorise

    arguments = asdict(own) | ({} if scheme is None else asdict(scheme))
    if amount is not None:
        arguments |= {_SHARES.get(amount.name, amount.name): amount.value}
    elif own.rule is None:
        arguments["rule"] = "evbmf"
    if own.rule == "curve":
        arguments["evaluate"] = training.evaluate("rule 'curve'")
    found = factorise(network.module, network.example, name, **arguments,
                      **training.arguments(lambda record: float(record.density)))
    last = found.rounds[-1]
    return MethodReport(
        density=found.density,
        layers={name: asdict(row) | {"ranks": None if row.ranks is None else list(row.ranks)}
                for name, row in found.layers.items()},
        records=[record.as_json() for record in found.rounds], choices=found.choices,
        last=last.measured,
        more={"parameters": found.parameters, "parameters_before": found.parameters_before,
              "macs": found.macs, "macs_before": found.macs_before,
              "predicted_cycles": last.predicted_cycles},
        hint="" if found.choices["rule"] != "evbmf" or (
            amount is not None and amount.name in _SHARES) else _EVBMF_CHOSE)


_EVBMF_CHOSE = ("rule evbmf chose the ranks; where it takes too much, --parameters-removed 0.5 or "
                "--rule energy --value 0.9 says how much goes")

_SHARES = {"macs": "macs_removed", "parameters": "parameters_removed"}
"""What `factorise` calls an amount."""


def _report(network: Network, records: list[dict[str, Any]], choices: Mapping[str, Any],
            last: Mapping[str, Any], amount: Chosen, **more: Any) -> MethodReport:
    """Return the report of a pruned network, and make its zeros plain."""
    from celosia.compress.masks.weights import make_permanent

    layers, density = network.kept(), network.density()
    make_permanent(network.module)
    rate = amount.value if amount.name == "rate" and isinstance(amount.value, float) else None
    return MethodReport(density=density, layers=layers, records=records, choices=choices,
                        last=last, more={"rate": rate, **more})


def _weight_rounds(network: Network, rounds: Iterable[RoundRecord]) -> list[dict[str, Any]]:
    """Return what rounds did, with the weights that the network had at first."""
    from celosia.compress.training.rounds import LayerDensity

    found = []
    for record in rounds:
        layers = {name: LayerDensity(weights=network.layers[name], kept=layer.kept)
                  for name, layer in record.layers.items()}
        against = replace(record, layers=layers)
        found.append(against.as_json() | {"density": against.density})
    return found


def _filter_report(network: Network, found: FilterReport, amount: Chosen) -> MethodReport:
    return _report(network, [asdict(record) for record in found.rounds], found.choices,
                   found.rounds[-1].measured, amount, **_filter_keys(found))


def _filter_keys(found: FilterReport) -> dict[str, Any]:
    """Return what there is to tell of filters."""
    return {"filters": {name: {"filters": layer.filters, "kept": list(layer.kept)}
                        for name, layer in found.layers.items()},
            "skipped": dict(found.skipped), "before": asdict(found.before),
            "after": asdict(found.after)}


MASK = Method(
    name="mask", must=True, data="to train the masks on",
    about="Remove the filters whose factors training itself drives towards 0 (P3, 6.4.1).",
    amounts=(amounts.FILTER_RATE, amounts.MACS, amounts.PARAMETERS), options=(MaskOptions,),
    run=_prune_with_masks)

COMBINED = Method(
    name="combined", data="to train the masks on", usual=Chosen("rate", 0.8),
    about="Filters of convolutions go by masks, weights of hidden linear layers by correlation.",
    amounts=(amounts.HIDDEN_RATE, amounts.RATES),
    options=(CorrelationOptions, MaskOptions, CombinedOptions), run=_prune_combined)

_RANKS = (amounts.RANKS, replace(amounts.PARAMETERS, span=INSIDE),
          replace(amounts.MACS, span=INSIDE))

SVD = Method(
    name="svd", about="Replace a layer by two thin ones (singular value decomposition).",
    amounts=_RANKS, options=(LowRankOptions, SchemeOptions), run=partial(_factorise, "svd"))

TUCKER = Method(
    name="tucker", about="Replace a convolution by three thin ones; linear layers stay.",
    amounts=_RANKS, options=(LowRankOptions,), run=partial(_factorise, "tucker"))
