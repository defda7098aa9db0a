"""Checks of single values of a program's JSON: each returns the value, or raises Unsound."""

import keyword
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

SAVE_AGAIN = "save the model again with torch.export.save"
MAX_INT = (1 << 63) - 1
CPU = {"type": "cpu", "index": None}
"""The device of every tensor; what a file says is not asked for."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,999}")
# What torch.fx binds in the source that it writes; a graph of torch's own has no such names.
_TAKEN = {"inf", "nan", "NoneType", "torch", "device", "fx_pytree", "pytree", "self"}


class Unsound(Exception):
    """A file is not read: what is wrong with it, and the way out."""

    def __init__(self, problem: str, remedy: str = SAVE_AGAIN) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


def fields(value: Any, what: str, required: Iterable[str], optional: Iterable[str] = ()
           ) -> dict[str, Any]:
    """Return a JSON object that has all `required` keys, and of others only `optional` ones."""
    found = mapping(value, what)
    required = set(required)
    missing, unknown = required - found.keys(), found.keys() - required - set(optional)
    if missing:
        raise Unsound(f"{what} has no field {min(missing)!r}")
    if unknown:
        raise Unsound(f"{what} has a field {shown(min(unknown))} that this release does not know")
    return found


def mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unsound(f"{what} is {shown(value)} where an object belongs")
    return value


def sequence(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Unsound(f"{what} is {shown(value)} where a list belongs")
    return value


def union(value: Any, what: str) -> tuple[str, Any]:
    """Return key and value of an object with one key, which is how the format writes choices."""
    if not isinstance(value, dict) or len(value) != 1:
        raise Unsound(f"{what} is {shown(value)} where an object with one key belongs")
    return next(iter(value.items()))


def integer(value: Any, what: str, low: int = -MAX_INT, high: int = MAX_INT) -> int:
    if type(value) is not int or not low <= value <= high:
        raise Unsound(f"{what} is {shown(value)} where a whole number from {low} to {high} "
                      "belongs")
    return value


def flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise Unsound(f"{what} is {shown(value)} where true or false belongs")
    return value


def number(value: Any, what: str) -> float | str:
    """Return a float as the format writes it: infinities and NaN are words."""
    if value in ("Infinity", "-Infinity", "NaN"):
        return str(value)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Unsound(f"{what} is {shown(value)} where a number belongs")
    return float(value)


def name(value: Any, what: str) -> str:
    """Return a name that may stand in Python source as a variable."""
    if (not isinstance(value, str) or not _NAME.fullmatch(value) or keyword.iskeyword(value)
            or value in _TAKEN):
        raise Unsound(f"{what} is called {shown(value)}, which is not a plain name")
    return value


def text(value: Any, what: str, longest: int) -> str:
    """Return a text without what a terminal would act on, cut to `longest` characters."""
    if not isinstance(value, str):
        raise Unsound(f"{what} is {shown(value)} where a text belongs")
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in value[:longest])


def each(check: Callable[[Any, str], Any]) -> Callable[[Any, str], list[Any]]:
    """Return a check of a list, every part of which passes `check`."""
    return lambda value, what: [check(part, what) for part in sequence(value, what)]


def device(value: Any, what: str) -> dict[str, Any]:
    """Return the processor; a model that was exported on a GPU is read onto it."""
    found = fields(value, what, ("type",), ("index",))
    text(found["type"], what, 40)
    return dict(CPU)


def shown(value: Any) -> str:
    """Return a value for a message: one line, short, in quotes where it is a text."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    try:
        found = ascii(value)
    except ValueError:      # an int of thousands of digits
        found = "a number beyond all bounds"
    return found if len(found) <= 60 else f"{found[:57]}..."
