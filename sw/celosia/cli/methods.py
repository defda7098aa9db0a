"""The methods of ``celosia prune``: which options go with each, and the call that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from celosia import compress
from celosia.cli import network, options
from celosia.compress.criteria.registry import lookup
from celosia.compress.layers import prunable_layers
from celosia.compress.options import declared
from celosia_spec.errors import CelosiaError

DEFAULT_RATE = 0.8
_TRAINING = ("--epochs", "--learning-rate", "--optimizer", "--fuse-retrained")
_REASONS = {
    "--data": "to train the masks on",
    "--strength": "the factor of the L1 term on the masks",
    "--macs-removed": "the share of the convolutions' multiply-accumulates to remove",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """What a run of any method is made of.

    method, target  : as the user named them.
    module, example : the trained network, changed in place, and one input float32 (1, ...).
    data            : or None.   train : makes a `FineTune` on it; None without data.
    given           : the options that were given of those that belong to methods, by name:
                      {"--rate": 0.5}.
    settings        : {name: value} of ``--option``.
    measure, progress : of a module, and of a `RoundRecord` (None: not to be shown).
    """

    method: str
    target: str
    module: Any
    example: np.ndarray
    data: network.Data | None
    train: Any
    given: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    checkpoint: Path | None
    measure: Callable[[Any], dict[str, Any]]
    progress: Callable[[Any], None] | None

    @property
    def inputs(self) -> Any:
        """Calibration inputs, or None."""
        return None if self.data is None else self.data.train_inputs[:network.CALIBRATION]

    @property
    def finetune(self) -> compress.FineTune | None:
        """What retrains the network, or None."""
        return None if self.train is None else self.train()

    def taken(self, **names: str) -> dict[str, Any]:
        """Return {argument: value} for the given ones of {argument: option}."""
        return {name: self.given[option] for name, option in names.items() if option in self.given}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave.

    layers  : {layer: {"weights": at first, "kept": at the end}}.
    records : what each round did, as JSON has it.
    rate    : the one that all layers were given, or None.
    more    : further keys of the result.
    """

    accuracy: float | None
    layers: Mapping[str, Mapping[str, int]]
    records: Sequence[Mapping[str, Any]]
    choices: Mapping[str, Any]
    rate: float | None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Kept weights / weights at first."""
        return (sum(layer["kept"] for layer in self.layers.values())
                / sum(layer["weights"] for layer in self.layers.values()))


@dataclass(frozen=True, kw_only=True)
class Family:
    """Methods that are called alike.

    run     : the call.
    takes   : options that go with them.   needs : those that must be given.
    amounts : options of which one at most says how much goes; exactly one with `must`.
    known   : method -> {name: default} of what ``--option`` may name.
    """

    run: Callable[[Run], Outcome]
    takes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    amounts: tuple[str, ...]
    must: bool = False
    known: Callable[[str], dict[str, Any]]


def check(
    method: str, given: Mapping[str, Any], texts: Sequence[str]
) -> tuple[Family, dict[str, Any]]:
    """Return a method's family and what ``--option`` says; CelosiaError where something is amiss.

    given : options that were given, ``--data`` and those about training included.
    texts : those of ``--option``.
    """
    families = known_methods()
    if method not in families:
        raise CelosiaError(f"unknown method {method!r}; known methods: {', '.join(families)}")
    family = families[method]
    for option in given:
        users = [name for name, other in families.items() if option in other.takes]
        if users and option not in family.takes:
            raise CelosiaError(f"{option} does not go with --method {method}; it goes with "
                               f"{', '.join(users)}")
    useless = [option for option in _TRAINING if option in given and "--data" not in given]
    if useless:
        raise CelosiaError(f"{' and '.join(useless)} say how to retrain on --data; give that too, "
                           "or leave them out")
    missing = [f"{option}, {_REASONS[option]}" for option in family.needs if option not in given]
    if missing:
        raise CelosiaError(f"--method {method} needs {'; and '.join(missing)}")
    amounts = [option for option in family.amounts if option in given]
    if len(amounts) > 1:
        raise CelosiaError(f"{' and '.join(amounts)} contradict each other; give one of them")
    if family.must and not amounts:
        raise CelosiaError(f"--method {method} needs to know how much goes; give one of "
                           f"{', '.join(family.amounts)}")
    return family, options.read_settings(method, texts, family.known(method))


def known_methods() -> dict[str, Family]:
    """Return the family of every method, by the method's name."""
    return dict.fromkeys(compress.methods(), WEIGHTS) | {
        "std": FILTERS, "l1": FILTERS, "mask": MASKS, "combined": COMBINED}


def fuse(
    module: Any, example: np.ndarray, retrained: str | None,
    train: partial[compress.FineTune] | None, *, seed: int, checkpoint: Path | None,
) -> tuple[Any, dict[str, Any]]:
    """Return the fused network and what was fused, as JSON has it.

    retrained : layers to retrain, as the option has them; None folds exactly only.
    """
    arguments: dict[str, Any] = {}
    if retrained is not None and train is not None:
        arguments = {"layers": options.read_layers(retrained), "finetune": train(), "seed": seed,
                     "checkpoint": None if checkpoint is None else checkpoint / "fusion"}
    found = compress.fuse(module, example, **arguments)
    return found.model, {"batch_norms": list(found.batch_norms),
                         "average_pools": list(found.average_pools), "left": dict(found.left),
                         "merged": [asdict(layer) for layer in found.merged],
                         **(found.choices if arguments else {})}


def _prune_weights(run: Run) -> Outcome:
    settings: dict[str, Any] = {
        "inputs": run.inputs, "finetune": run.finetune, "seed": run.seed, "measure": run.measure,
        "checkpoint": run.checkpoint, "progress": run.progress, **run.settings,
        **run.taken(rounds="--rounds")}
    shape = run.taken(order="--order", scope="--scope", select="--select")
    rates: Any = None
    if "--budget-cycles" in run.given:
        if shape or "--accuracy-budget" in run.given:
            raise CelosiaError("--budget-cycles ranks the weights of all layers by what they cost; "
                               "leave out --order, --scope, --select and --accuracy-budget")
        found: Any = compress.prune_to_cycles(
            run.module, run.method, example_input=run.example, target=run.target,
            budget=run.given["--budget-cycles"], **settings)
    else:
        rates = _rates(run)
        found = compress.prune(run.module, run.method, rates=rates, **settings, **shape,
                               **_search(run))
    compress.make_permanent(run.module)
    last = found.rounds[-1]
    return Outcome(accuracy=last.accuracy, choices=found.choices,
                   layers={name: asdict(layer) for name, layer in last.layers.items()},
                   records=[_as_json(record) for record in found.rounds],
                   rate=rates if isinstance(rates, float) else None)


def _rates(run: Run) -> float | str | dict[str, float]:
    """Return the rates of single weights."""
    text = run.given.get("--rates")
    if text is None:
        return float(run.given.get("--rate", DEFAULT_RATE))
    return "search" if text == "search" else options.read_rates(text)


def _search(run: Run) -> dict[str, Any]:
    """Return the arguments of a search for rates."""
    budget = run.given.get("--accuracy-budget")
    if run.given.get("--rates") != "search":
        if budget is not None:
            raise CelosiaError("--accuracy-budget goes with --rates search")
        return {}
    if run.data is None or budget is None:
        raise CelosiaError("--rates search needs --data to measure accuracy on, and "
                           "--accuracy-budget, the fall that is allowed")
    return {"accuracy_budget": budget, "evaluate": network.search_measure(run.data)}


def _prune_filters(run: Run) -> Outcome:
    before = _sizes(run.module)
    arguments = run.taken(rate="--rate", macs="--macs-removed", parameters="--parameters-removed",
                          scope="--scope", rounds="--rounds")
    if "--rates" in run.given:
        arguments["rate"] = _given_rates(run)
    found = compress.prune_filters(
        run.module, run.example, run.method, **arguments, **run.settings, finetune=run.finetune,
        seed=run.seed, checkpoint=run.checkpoint, measure=run.measure,
        progress=_filters_shown(run, before))
    return _filters_outcome(run, found, before)


def _prune_with_masks(run: Run) -> Outcome:
    before = _sizes(run.module)
    arguments = run.taken(rate="--rate", macs="--macs-removed", parameters="--parameters-removed",
                          scope="--scope", strength="--strength")
    found = compress.prune_with_masks(
        run.module, run.example, **arguments, **run.settings, train=run.train,
        finetune=run.finetune, seed=run.seed, checkpoint=run.checkpoint, measure=run.measure,
        progress=_filters_shown(run, before))
    return _filters_outcome(run, found, before)


def _prune_combined(run: Run) -> Outcome:
    before = _sizes(run.module)
    rates: Any = _given_rates(run) if "--rates" in run.given else _rates(run)
    settings = dict(run.settings)
    filters = {name: settings.pop(name) for name in _known_masks() if name in settings}
    filters |= run.taken(scope="--scope") | {"measure": run.measure,
                                             "progress": _filters_shown(run, before)}
    show = run.progress
    found = compress.prune_combined(
        run.module, run.example, inputs=run.inputs, rates=rates, train=run.train,
        finetune=run.finetune, recover=run.finetune, seed=run.seed, checkpoint=run.checkpoint,
        filter_options=filters, measure=run.measure,
        progress=None if show is None else lambda record: show(_against(before, record)),
        **run.taken(conv_macs="--macs-removed", strength="--strength", rounds="--rounds"),
        **settings)
    compress.make_permanent(run.module)
    rounds = [_against(before, record) for record in found.weights.rounds]
    records = [{"stage": "convolutions", **asdict(record)} for record in found.filters.rounds]
    records += [{"stage": "linear", **_as_json(record)} for record in rounds]
    choices = {"convolutions": found.filters.choices, "linear": found.weights.choices}
    return Outcome(accuracy=rounds[-1].accuracy, records=records, choices=choices,
                   layers={name: asdict(layer) for name, layer in rounds[-1].layers.items()},
                   rate=rates if isinstance(rates, float) else None,
                   more=_filters_json(found.filters))


def _given_rates(run: Run) -> dict[str, float]:
    """Return the rates of named layers, where they cannot be searched for."""
    if run.given["--rates"] == "search":
        raise CelosiaError(f"--rates search goes with {', '.join(compress.methods())}; with "
                           f"--method {run.method} give LAYER=RATE with commas between")
    return options.read_rates(run.given["--rates"])


def _filters_outcome(run: Run, found: Any, before: Mapping[str, int]) -> Outcome:
    kept = _sizes(run.module)
    return Outcome(
        accuracy=found.rounds[-1].measured["accuracy"], choices=found.choices,
        rate=run.given.get("--rate"),
        layers={name: {"weights": count, "kept": kept[name]} for name, count in before.items()},
        records=[asdict(record) for record in found.rounds], more=_filters_json(found))


def _filters_json(found: Any) -> dict[str, Any]:
    return {"filters": {name: {"filters": layer.filters, "kept": list(layer.kept)}
                        for name, layer in found.layers.items()},
            "skipped": dict(found.skipped), "before": asdict(found.before),
            "after": asdict(found.after)}


def _filters_shown(run: Run, before: Mapping[str, int]) -> Callable[[Any], None] | None:
    """Return a function of a `FilterRound` that shows it as the other methods' rounds are."""
    show = run.progress
    if show is None:
        return None

    def shown(record: Any) -> None:
        now = {name: compress.LayerDensity(weights=before[name], kept=count)
               for name, count in _sizes(run.module).items()}
        show(compress.RoundRecord(round=record.round, rounds=record.rounds, layers=now,
                                  measured=record.measured))

    return shown


def _sizes(module: Any) -> dict[str, int]:
    """Return the number of weights of each layer."""
    return {name: layer.weight.numel() for name, layer in prunable_layers(module).items()}


def _against(before: Mapping[str, int], record: compress.RoundRecord) -> compress.RoundRecord:
    """Return the record of a network that had lost filters, with the weights it had at first."""
    return replace(record, layers={name: replace(layer, weights=before[name])
                                   for name, layer in record.layers.items()})


def _as_json(record: compress.RoundRecord) -> dict[str, Any]:
    return record.as_json() | {"density": record.density}


def _known_criterion(method: str) -> dict[str, Any]:
    """Return {name: default} of a criterion's own options."""
    return {name: option.default for name, option in declared(lookup(method).options).items()}


def _known_masks() -> dict[str, Any]:
    return _defaults(compress.prune_with_masks, "on", "step") | {"layers": ()}


def _defaults(function: Callable[..., Any], *names: str) -> dict[str, Any]:
    return {name: signature(function).parameters[name].default for name in names}


_FILTER_AMOUNTS = ("--rate", "--macs-removed", "--parameters-removed")

WEIGHTS = Family(
    run=_prune_weights,
    takes=("--rate", "--rates", "--accuracy-budget", "--budget-cycles", "--order", "--scope",
           "--select", "--rounds"),
    amounts=("--rate", "--rates", "--budget-cycles"),
    known=lambda method: (_known_criterion(method)
                          | _defaults(compress.prune, "schedule", "strong")))
FILTERS = Family(
    run=_prune_filters, takes=(*_FILTER_AMOUNTS, "--rates", "--scope", "--rounds"),
    amounts=(*_FILTER_AMOUNTS, "--rates"), must=True,
    known=lambda method: _defaults(compress.prune_filters, "coupled", "ignore", "constants"))
MASKS = Family(
    run=_prune_with_masks, takes=(*_FILTER_AMOUNTS, "--strength", "--scope"),
    needs=("--data", "--strength"), amounts=_FILTER_AMOUNTS, must=True,
    known=lambda method: _known_masks())
COMBINED = Family(
    run=_prune_combined,
    takes=("--rate", "--rates", "--macs-removed", "--strength", "--scope", "--rounds"),
    needs=("--data", "--strength", "--macs-removed"), amounts=("--rate", "--rates"),
    known=lambda method: _known_criterion("correlation") | _known_masks())
