"""The shape expressions of a program, such as ``Add(Symbol('s0', integer=True), Integer(1))``.

torch hands them to ``sympy.sympify``, which is Python's ``eval``, and has sympy expand and compare
what comes out. Here only calls of a few sympy functions on whole numbers and symbols pass, and only
while numbers, sums and nests stay small: a few characters, such as the eighth power of a sum, can
otherwise be made to take all time and memory.
"""

import ast
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from celosia.frontend.pt2.checks import Unsound, shown

SYMBOL = re.compile(r"s[0-9]{1,9}")
MAX_BITS = 1024
"""Bits of the largest number that an expression, or a chain of operators on shapes, may reach."""
MAX_TERMS = 256
"""Most products that are added in an expression once all brackets in it are multiplied out."""
MAX_ROUNDED = 48
"""Most quotients, remainders, largest and smallest values in an expression; sympy compares the
parts of each with each other."""
MAX_LENGTH = 2000
_ASSUMPTIONS = {"integer", "positive", "nonnegative", "negative", "real"}


class Extent(NamedTuple):
    """How far an expression reaches.

    bits : of its largest value.   terms : products that are added once brackets are multiplied
    out.   rounded : quotients, remainders, largest and smallest values in it.
    """

    bits: int
    terms: int = 1
    rounded: int = 0


SYMBOL_EXTENT = Extent(63)
"""Of a symbol, or a size that the graph finds out."""


def _add(parts: list[Extent]) -> Extent:
    return Extent(_largest(parts) + len(parts), sum(part.terms for part in parts), _rounded(parts))


def _multiply(parts: list[Extent]) -> Extent:
    return Extent(sum(part.bits for part in parts), math.prod(part.terms for part in parts),
                  _rounded(parts))


def _raise(base: Extent, power: int) -> Extent:
    """Return the extent of a power; of n terms it has as many as n kinds of thing can be picked
    ``power`` times."""
    return Extent(base.bits * power, math.comb(base.terms + power - 1, power), base.rounded)


def _round(parts: list[Extent]) -> Extent:
    """Return the extent of what is one term to others, but is worked out of every term of one part
    with every term of the next."""
    work = bounded(Extent(_largest(parts) + len(parts), math.prod(part.terms for part in parts),
                          _rounded(parts) + len(parts) - 1), "a shape")
    return work._replace(terms=1)


def _compare(parts: list[Extent]) -> Extent:
    found = _round(parts)
    return found._replace(rounded=found.rounded + 7 * (len(parts) - 1))


def _same(parts: list[Extent]) -> Extent:
    return Extent(_largest(parts), max(part.terms for part in parts), _rounded(parts))


def _largest(parts: list[Extent]) -> int:
    return max(part.bits for part in parts)


def _rounded(parts: list[Extent]) -> int:
    return sum(part.rounded for part in parts)


Rule = Callable[[list[Extent]], Extent]
GROWTH: dict[str, Rule] = {
    "Add": _add, "Mul": _multiply, "FloorDiv": _round, "CleanDiv": _round, "CeilDiv": _round,
    "Mod": _round, "PythonMod": _round, "ModularIndexing": _round, "Max": _compare, "Min": _compare,
    "Identity": _same,
}
"""For each sympy function that may occur: the extent of its result from those of its arguments."""
OPERATORS: dict[str, Rule] = {
    "_operator.add": _add, "_operator.sub": _add, "_operator.mul": _multiply,
    "_operator.floordiv": _round, "_operator.mod": _round, "_operator.neg": _same,
    "torch.sym_max": _compare, "torch.sym_min": _compare,
}
"""Likewise for each operator on shapes that may stand in a graph."""
_POWERS = ("Pow", "PowByNatural")
_MAX_POWER = 8


def check_expression(source: object, symbols: set[str]) -> Extent:
    """Return the extent of an expression in `symbols`; raise Unsound where it reaches too far."""
    if not isinstance(source, str) or len(source) > MAX_LENGTH or not source.isascii():
        raise Unsound(f"a shape is {shown(source)}, which is not a plain expression")
    try:
        return _extent(ast.parse(source, mode="eval").body, source, symbols)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Unsound(f"a shape is {shown(source)}, which is not a plain expression") from None


def bounded(extent: Extent, what: str) -> Extent:
    """Return an extent, or raise Unsound where it is beyond a bound."""
    for found, most, unit in ((extent.bits, MAX_BITS, "bits"), (extent.terms, MAX_TERMS, "terms"),
                              (extent.rounded, MAX_ROUNDED, "quotients, remainders, largest and "
                               "smallest values")):
        if found > most:
            raise Unsound(f"{what} grows beyond {most} {unit}",
                          "export the model with fewer open sizes")
    return extent


def _extent(node: ast.expr, source: str, symbols: set[str]) -> Extent:
    match node:
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(symbol))],
                      keywords=keywords):
            if not all(keyword.arg in _ASSUMPTIONS and isinstance(keyword.value, ast.Constant)
                       and isinstance(keyword.value.value, bool) for keyword in keywords):
                raise ValueError
            if symbol not in symbols:
                raise Unsound(f"a shape has the symbol {shown(symbol)}, whose range is not given "
                              "or whose value depends on data",
                              "export the model with shapes that only its input decides")
            return SYMBOL_EXTENT
        case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
            return bounded(Extent(_integer(value).bit_length() + 1), "a shape")
        case ast.Call(func=ast.Name(id=function), args=[base, power], keywords=[]) if (
                function in _POWERS):
            match power:
                case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
                    exponent = _integer(value)
                    if 1 <= exponent <= _MAX_POWER:
                        return bounded(_raise(_extent(base, source, symbols), exponent),
                                       "a shape")
            raise ValueError
        case ast.Call(func=ast.Name(id=function), args=[_, *_] as parts, keywords=[]) if (
                function in GROWTH):
            return bounded(GROWTH[function]([_extent(part, source, symbols) for part in parts]),
                           "a shape")
    raise ValueError


def _integer(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int(value)) if type(value) is int:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))) if (
                type(value) is int):
            return -value
    raise ValueError
