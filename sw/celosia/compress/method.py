"""A method of compression: what it takes, what it works on, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from celosia.compress.amounts import Amount, Chosen
from celosia_spec.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from celosia.compress.training.rounds import Measure

__all__ = ["Method", "MethodReport", "Network", "Shown", "Training"]

Trainer: TypeAlias = "Callable[[nn.Module, int], None]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """The network that a method changes in place.

    module : trained.   example : one input float32 (1, ...).   target : whose cycles count.
    layers : {layer: number of its weights} at first.
    """

    module: nn.Module
    example: np.ndarray
    target: str
    layers: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Count the weights."""
        from celosia.compress.training.rounds import densities

        object.__setattr__(self, "layers", {name: layer.weights for name, layer
                                            in densities(self.module).items()})

    def kept(self) -> dict[str, dict[str, int]]:
        """Return {layer: {"weights": at first, "kept": now}}."""
        from celosia.compress.training.rounds import densities

        now = densities(self.module)
        return {name: {"weights": count, "kept": now[name].kept}
                for name, count in self.layers.items()}

    def density(self) -> float:
        """Return kept weights / weights at first."""
        return sum(layer["kept"] for layer in self.kept().values()) / sum(self.layers.values())


class Shown(NamedTuple):
    """What is shown after a round: its index from 0, of how many, and the network after it."""

    round: int
    rounds: int
    density: float
    measured: Mapping[str, float | int | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What a method may look at and train with.

    inputs     : calibration inputs (N, ...), or None.
    train      : makes a trainer, as ``functools.partial(FineTune, ...)``; None retrains nothing.
    curves     : makes what accuracy curves are measured by, ``evaluate(model)``; None without data.
    seed       : of every round.   checkpoint : a folder for the finished rounds, or None.
    measure    : ``measure(model)`` -> {name: number or None} after each round, or None.
    progress   : called with `Shown` after each round, or None.
    """

    inputs: Any | None = None
    train: Callable[..., Trainer] | None = None
    curves: Callable[[], Callable[[nn.Module], float]] | None = None
    seed: int = 0
    checkpoint: Path | None = None
    measure: Measure | None = None
    progress: Callable[[Shown], None] | None = None

    @property
    def finetune(self) -> Trainer | None:
        """What retrains the network, or None."""
        return None if self.train is None else self.train()

    def needed(self) -> Callable[..., Trainer]:
        """Return what makes a trainer; ArgumentError where nothing does."""
        if self.train is None:
            raise ArgumentError("the method trains the network; give data, and epochs above 0")
        return self.train

    def arguments(self, density: Callable[[Any], float]) -> dict[str, Any]:
        """Return the arguments that all methods' functions have.

        density : of a round's record, for `progress`.
        """

        def shown(record: Any) -> None:
            if self.progress is not None:
                self.progress(Shown(record.round, record.rounds, density(record), record.measured))

        return {"finetune": self.finetune, "seed": self.seed, "checkpoint": self.checkpoint,
                "measure": self.measure, "progress": shown}

    def evaluate(self, what: str) -> Callable[[nn.Module], float]:
        """Return what curves are measured by; ArgumentError without data."""
        if self.curves is None:
            raise ArgumentError(f"{what} measures accuracy, which needs data; give some")
        return self.curves()


@dataclass(frozen=True, kw_only=True)
class MethodReport:
    """What any method did.

    density : kept weights / weights at first.
    layers  : {layer: {"weights": at first, "kept": at the end, and what else there is to tell}}.
    records : what each round did.   choices : every setting that decided the outcome.
    last    : what was measured after the last round.
    more    : what only some methods have to tell.
    hint    : what the command line says to it, or "".

    All but the hint is as JSON has it.
    """

    density: float
    layers: Mapping[str, Mapping[str, Any]]
    records: Sequence[Mapping[str, Any]]
    choices: Mapping[str, Any]
    last: Mapping[str, float | int | None]
    more: Mapping[str, Any]
    hint: str = ""

    @property
    def accuracy(self) -> float | int | None:
        """After the last round; None where it was not measured."""
        return self.last.get("accuracy")

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON has it, without `more`."""
        return {"density": self.density, "accuracy": self.accuracy, "layers": dict(self.layers),
                "rounds": len(self.records), "records": list(self.records),
                "choices": dict(self.choices)}


class Call(Protocol):
    """A method's call: it changes the network in place. It gets one dataclass of each of the
    method's `options`, in their order."""

    def __call__(self, network: Network, amount: Chosen | None, training: Training,
                 *options: Any) -> MethodReport: ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """One ``--method`` of a command: what it takes, and the call that it is.

    about   : what it does, one sentence.
    amounts : ways to say how much goes, of which one at most is given.
    usual   : the amount where none is given, or None: the method then refuses or decides.
    must    : one of `amounts` must be given.
    data    : why it needs data, or "".
    options : frozen dataclasses of `option` fields; those without a default must be given.
    """

    name: str
    about: str
    amounts: tuple[Amount, ...]
    usual: Chosen | None = None
    must: bool = False
    data: str = ""
    options: tuple[type, ...]
    run: Call
