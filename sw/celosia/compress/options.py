"""Settings of a criterion or a method, declared: frozen dataclasses whose fields say what they are.

The command line, the help and the record of a run are made from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple, get_type_hints

from celosia.compress.spans import Span
from celosia_spec.errors import ArgumentError

__all__ = ["NoOptions", "Option", "declared", "option", "resolve"]


class Option(NamedTuple):
    """A field of an options dataclass.

    kind     : its type, such as ``int | None``.   default : ``MISSING`` where it must be given.
    about    : what it says, for the help: one sentence, or none where the name says it.
    flag     : the command line's own option for it, such as "--order"; "" where it is set as
               ``--option NAME=VALUE``.
    least, most : of a number with a flag, or None.   span : where a number must lie, or None.
    data     : {value that needs data: why}.
    choices  : the words that it may be; empty where it is no word.
    """

    name: str
    kind: Any
    default: Any
    about: str = ""
    flag: str = ""
    least: float | None = None
    most: float | None = None
    data: Mapping[Any, str] = {}
    choices: tuple[str, ...] = ()
    span: Span | None = None

    @property
    def said(self) -> str:
        """How it is given on a command line."""
        return self.flag or f"--option {self.name}"


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The options of what has none."""


def option(default: Any = MISSING, *, about: str, flag: str = "", least: float | None = None,
           most: float | None = None, data: Mapping[Any, str] | None = None,
           choices: Iterable[str] = (), span: Span | None = None) -> Any:
    """Return a dataclass field that is an option; the arguments are as in `Option`."""
    return field(default=default, metadata={"about": about, "flag": flag, "least": least,
                                            "most": most, "data": data or {},
                                            "choices": tuple(choices), "span": span})


def declared(*kinds: type) -> dict[str, Option]:
    """Return the options of dataclasses by name, in their order; no two have one name."""
    found: dict[str, Option] = {}
    for kind in kinds:
        hints = get_type_hints(kind)
        for part in fields(kind):
            if part.name in found:
                raise ArgumentError(f"option {part.name!r} is declared twice, the second time in "
                                    f"{kind.__name__}; give it another name")
            found[part.name] = Option(part.name, hints[part.name], part.default, **part.metadata)
    return found


def resolve(owner: str, kind: type, given: Mapping[str, Any]) -> Any:
    """Return the options that are given, as a dataclass; the others have their defaults.

    Raises TypeError for one that the dataclass does not have, ArgumentError for a word that is
    none of its choices or a number outside its span, and what the dataclass's own checks raise.
    """
    known = declared(kind)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"method {owner!r} has no option {', '.join(unknown)}; "
                        f"its options: {', '.join(known) or 'none'}")
    for name, value in given.items():
        choices = known[name].choices
        if choices and value is not None and value not in choices:
            raise ArgumentError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        span = known[name].span
        if span is not None and value is not None:
            span.check(name, value)
    return kind(**given)
