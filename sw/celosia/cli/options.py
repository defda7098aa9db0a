"""The options of ``prune`` and ``factorise``: shared ones, and those that their methods declare."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from celosia.cli import common, preprocessing
from celosia.compress.amounts import Amount, Chosen
from celosia.compress.method import Method
from celosia.compress.options import Option, declared, resolve
from celosia_spec.errors import CelosiaError

F = TypeVar("F", bound=Callable[..., None])
Methods = Mapping[str, Method]

Output = Annotated[Path, typer.Option("--output", "-o", help="The smaller model, a .pt2 file.")]
Fuse = Annotated[bool, typer.Option(
    "--fuse", help="First fold batch normalisation and average pools, exactly.")]
FuseRetrained = Annotated[str | None, typer.Option(
    metavar="LAYERS", help="As --fuse, and retrain convolutions to take over the pools and "
                           "normalisations behind them: LAYER,... or all.")]
Data = Annotated[str | None, typer.Option(
    help="fashion-mnist; a folder of IDX files, CIFAR-10's binary batches or pictures; or a .npz "
         "file. Without it nothing is retrained or measured.")]
Mean = Annotated[str | None, typer.Option(
    help="Of the pixels / 255, one number a channel: 0.485,0.456,0.406.")]
Deviation = Annotated[str | None, typer.Option(help="Likewise.")]
Epochs = Annotated[int | None, typer.Option(
    min=0, help="Of retraining after each round, and of training what a method trains; 1.")]
LearningRate = Annotated[float | None, typer.Option(help="Its peak; 0.001.")]
Optimizer = Annotated[str | None, typer.Option(help="adamw or sgd, with momentum 0.9; adamw.")]
InputShape = Annotated[str | None, typer.Option(
    "--input-shape", metavar="C,H,W",
    help="Shape of one input, F of a vector, where neither the model nor --data tells it.")]
Checkpoint = Annotated[Path | None, typer.Option(
    help="A folder for finished rounds; the same command goes on after them.")]
Report = Annotated[Path | None, typer.Option(
    help="A JSON file for the result with every round and choice.")]
Seed = Annotated[int, typer.Option(
    min=0, max=2**32 - 1, help="Of all that is drawn: the same one gives the same bits.")]
Target = Annotated[str, typer.Option(help="Whose cycles to predict.")]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for, apart from the method and a command's own options."""

    model: common.ModelName
    output: Output
    weights: common.Weights = None
    input_shape: InputShape = None
    data: Data = None
    mean: Mean = None
    deviation: Deviation = None
    epochs: Epochs = None
    learning_rate: LearningRate = None
    optimizer: Optimizer = None
    checkpoint: Checkpoint = None
    report: Report = None
    seed: Seed = 0
    target: Target = "icebreaker"
    json: common.Json = False

    @property
    def rule(self) -> preprocessing.Rule:
        """How data becomes inputs: mean and deviation."""
        return preprocessing.rule(self.mean, self.deviation)


def of_methods(methods: Methods) -> Callable[[F], F]:
    """Return a decorator that gives a command the options of a `Request`, and those that its
    methods declare.

    ``--method``, ``--option`` and the methods' flags stand before its keyword-only parameters; its
    ``**given`` gets all of them: {parameter: value, None where it was not given}.
    """

    def extend(command: F) -> F:
        *own, _ = inspect.signature(command, eval_str=True).parameters.values()
        asked = inspect.signature(Request, eval_str=True).parameters.values()
        made = [_method(methods), *(_flag(flag, methods) for flag in _flags(methods)),
                *_settings(methods)]
        command.__signature__ = inspect.Signature([     # type: ignore[attr-defined]
            *(part for part in asked if part.default is part.empty), *made, *own,
            *(part for part in asked if part.default is not part.empty)])
        return command

    return extend


def split(given: Mapping[str, Any]) -> tuple[Request, dict[str, Any]]:
    """Return what a command of `of_methods` gets as a `Request`, and the methods' options."""
    asked = {field.name: given[field.name] for field in fields(Request)}
    return Request(**asked), {name: value for name, value in given.items() if name not in asked}


def check(
    methods: Methods, given: Mapping[str, Any], *, data: bool
) -> tuple[Method, Chosen | None, tuple[Any, ...]]:
    """Return the method, how much goes, and the method's options; CelosiaError where they do not
    go together.

    given : the methods' options, as `split` returns them.   data : whether there is any.
    """
    name, texts = given["method"], given.get("option") or []
    if name not in methods:
        raise CelosiaError(f"unknown method {name!r}; known methods: {', '.join(methods)}")
    method, own = methods[name], declared(*methods[name].options)
    by_flag = {option.flag: option for option in own.values() if option.flag}
    flags = {f"--{part.replace('_', '-')}": value for part, value in given.items()
             if part not in ("method", "option") and value is not None}
    set_by = {by_flag[flag].name: _plain(value, by_flag[flag]) for flag, value in flags.items()
              if flag in by_flag}
    texts_by = read_settings(name, texts, {option.name: option for option in own.values()
                                           if not option.flag})
    rest = {flag: value for flag, value in flags.items() if flag not in by_flag}
    chosen = [(_amount(methods, method, flag, value), value) for flag, value in rest.items()]
    settings = set_by | texts_by
    _check_needs(method, own, settings, data=data)
    if len(chosen) > 1:
        raise CelosiaError(f"{' and '.join(amount.flag for amount, _ in chosen)} contradict each "
                           "other; give one of them")
    if method.must and not chosen:
        raise CelosiaError(f"--method {name} needs to know how much goes; give one of "
                           f"{', '.join(_unique(amount.flag for amount in method.amounts))}")
    _check_amount(method, own, chosen[0][0] if chosen else None, settings, data=data)
    parts = tuple(resolve(name, kind, {part: settings[part] for part in declared(kind)
                                       if part in settings}) for kind in method.options)
    if not chosen:
        return method, method.usual, parts
    ((amount, value),) = chosen
    if amount.span is not None:
        amount.span.check(amount.flag, value)
    return method, Chosen(amount.name, value if amount.read is None
                          else amount.read(amount.flag, value)), parts


def read_layers(text: str) -> list[str] | None:
    """Return the layers of "conv1,conv2", or None for "all"."""
    return None if text == "all" else list(_names(text))


def read_settings(
    method: str, texts: Sequence[str], known: Mapping[str, Option]
) -> dict[str, Any]:
    """Return {name: value} of ``--option NAME=VALUE``, given those that there are by name."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise CelosiaError(f"--option {text!r}: give NAME=VALUE, such as intervals=32")
        if name not in known:
            raise CelosiaError(f"method {method!r} has no option {name!r}; its options: "
                               f"{', '.join(known) or 'none'}")
        if name in found:
            raise CelosiaError(f"--option {name} is given twice; give it once")
        found[name] = _read(text, value, _kind(known[name]))
    return found


def _check_needs(method: Method, own: Mapping[str, Option], settings: Mapping[str, Any], *,
                 data: bool) -> None:
    """Refuse a method, and values of its options, without what they need."""
    missing = [f"--data, {method.data}"] if method.data and not data else []
    missing += [f"{option.said}, {option.about}" for option in own.values()
                if option.default is MISSING and option.name not in settings]
    if missing:
        raise CelosiaError(f"--method {method.name} needs {'; and '.join(missing)}")
    for name, value in settings.items():
        if not data and value in own[name].data:
            raise CelosiaError(f"{own[name].said} {value} needs --data, {own[name].data[value]}")


def _check_amount(method: Method, own: Mapping[str, Option], amount: Amount | None,
                  settings: Mapping[str, Any], *, data: bool) -> None:
    """Refuse options that do not go with the amount, and an amount without what it needs."""
    for other in method.amounts:
        for name in other.needs:
            if name in settings and other is not amount:
                raise CelosiaError(f"{own[name].said} goes with {other.said}")
    if amount is None:
        return
    wrong = [own[name].said for name in amount.without if name in settings]
    if wrong:
        raise CelosiaError(f"{amount.said} does not go with {' and '.join(wrong)}; leave out "
                           f"{', '.join(wrong)}")
    missing = [f"--data, {amount.data}"] if amount.data and not data else []
    missing += [f"{own[name].said}, {own[name].about}" for name in amount.needs
                if name not in settings]
    if missing:
        raise CelosiaError(f"{amount.said} needs {'; and '.join(missing)}")


def _amount(methods: Methods, method: Method, flag: str, value: Any) -> Amount:
    """Return the method's amount that a flag and its value stand for."""
    words = {amount.word for other in methods.values() for amount in other.amounts
             if amount.flag == flag and amount.word}
    word = value if value in words else ""
    for amount in method.amounts:
        if (amount.flag, amount.word) == (flag, word):
            return amount
    users = [name for name, other in methods.items()
             if any(part.flag == flag and getattr(part, "word", "") == word
                    for part in _parts(other))]
    said = f"{flag} {word}".rstrip()
    raise CelosiaError(f"{said} does not go with --method {method.name}; it goes with "
                       f"{', '.join(users)}")


def _flags(methods: Methods) -> list[str]:
    """Return the flags of all methods."""
    return _unique(part.flag for method in methods.values() for part in _parts(method) if part.flag)


def _parts(method: Method) -> list[Amount | Option]:
    """Return what may have a flag: the method's amounts, then its options."""
    return [*method.amounts, *declared(*method.options).values()]


def _flag(flag: str, methods: Methods) -> inspect.Parameter:
    """Return the parameter of a command for a flag of its methods."""
    said: dict[str, list[str]] = {}
    for name, method in methods.items():
        for part in _parts(method):
            if part.flag == flag:
                said.setdefault(_about(method, part), []).append(name)
                found = part
    texts = [about if len(users) == len(methods) else f"{about} ({', '.join(users)})"
             for about, users in said.items()]
    kind = _kind(found)
    return _parameter(flag, (kind if kind in (int, float) else str) | None, typer.Option(
        flag, help=_sentences(texts), min=found.least, max=getattr(found, "most", None)))


def _about(method: Method, part: Amount | Option) -> str:
    """Return what an amount or option says for a method, with what it is without it."""
    if isinstance(part, Option):
        plain = part.default in (MISSING, None, ())
        return part.about if plain else f"{part.about}; {part.default}"
    if method.usual is None or method.usual.name != part.name or part.read is not None:
        return part.about
    return f"{part.about}; {method.usual.value} if nothing else is given"


def _method(methods: Methods) -> inspect.Parameter:
    about = " ".join(f"{name}: {method.about}" for name, method in methods.items())
    return _parameter("--method", str, typer.Option(help=about), next(iter(methods)))


def _settings(methods: Methods) -> list[inspect.Parameter]:
    """Return the parameter for what is set by ``--option``, if there is anything to set."""
    said: dict[str, list[str]] = {}
    for name, method in methods.items():
        for option in declared(*method.options).values():
            if not option.flag:
                said.setdefault(option.name, []).append(name)
    texts = "; ".join(f"{part} ({', '.join(users)})" for part, users in said.items())
    about = f"A setting of the method itself; may be given again. There are {texts}."
    return [_parameter("--option", list[str] | None, typer.Option(
        "--option", metavar="NAME=VALUE", help=about))] if said else []


def _parameter(flag: str, kind: Any, shown: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(flag.lstrip("-").replace("-", "_"), inspect.Parameter.KEYWORD_ONLY,
                             annotation=Annotated[kind, shown], default=default)


def _sentences(texts: Iterable[str]) -> str:
    return " ".join(text[:1].upper() + text[1:] + "." * (text[-1] != ".") for text in texts)


def _kind(option: Amount | Option) -> Any:
    """Return the type of an option's values: of ``int | None`` the first."""
    parts = [part for part in get_args(option.kind) if part is not type(None)]
    return parts[0] if parts and type(None) in get_args(option.kind) else option.kind


def _plain(value: Any, option: Option) -> Any:
    """Return the value of a flag as its option has it."""
    return value if _kind(option) in (int, float, str) else _names(value)


def _read(text: str, value: str, kind: Any) -> Any:
    """Return the value of a setting's text as its type has it."""
    if kind is str:
        return value
    if kind is bool:
        if value not in ("true", "false"):
            raise CelosiaError(f"--option {text}: give true or false")
        return value == "true"
    if kind not in (int, float):
        return _names(value)
    try:
        number = kind(value)
        if math.isfinite(number):
            return number
    except ValueError:
        pass
    raise CelosiaError(f"--option {text}: give {'a whole number' if kind is int else 'a number'}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _unique(parts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(parts))
