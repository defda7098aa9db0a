"""The shape expressions of a program, such as ``Add(Symbol('s0', integer=True), Integer(1))``.

torch hands them to ``sympy.sympify``, which is Python's ``eval``. Here only calls of a few sympy
functions on whole numbers and symbols pass, and only while the numbers stay small: a product of
products can otherwise be made to take all time and memory.
"""

import ast
import re
from collections.abc import Callable

from celosia.frontend.pt2.checks import Unsound, shown

SYMBOL = re.compile(r"s[0-9]{1,9}")
SYMBOL_BITS = 63
"""Bits of the largest value that a symbol stands for."""
MAX_BITS = 1024
"""Bits of the largest number that an expression, or a chain of operators on shapes, may reach."""
MAX_LENGTH = 2000
_ASSUMPTIONS = {"integer", "positive", "nonnegative", "negative", "real"}
_ONE_MORE: Callable[[list[int]], int] = lambda bits: max(bits) + len(bits)
_SUM: Callable[[list[int]], int] = lambda bits: sum(bits)
_LARGEST: Callable[[list[int]], int] = lambda bits: max(bits)
GROWTH: dict[str, Callable[[list[int]], int]] = {
    "Add": _ONE_MORE, "Mul": _SUM, "FloorDiv": _LARGEST, "CleanDiv": _LARGEST,
    "CeilDiv": _ONE_MORE, "Mod": _LARGEST, "PythonMod": _LARGEST, "ModularIndexing": _LARGEST,
    "Max": _LARGEST, "Min": _LARGEST, "Identity": _LARGEST,
}
"""For each sympy function that may occur: bits of its result from those of its arguments."""
OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "_operator.add": _ONE_MORE, "_operator.sub": _ONE_MORE, "_operator.mul": _SUM,
    "_operator.floordiv": _LARGEST, "_operator.mod": _LARGEST, "_operator.neg": _LARGEST,
    "torch.sym_max": _LARGEST, "torch.sym_min": _LARGEST,
}
"""Likewise for each operator on shapes that may stand in a graph."""
_POWERS = ("Pow", "PowByNatural")
_MAX_POWER = 8


def check_expression(source: object, symbols: set[str]) -> int:
    """Return the bits of the largest value of an expression in `symbols`; raise Unsound."""
    if not isinstance(source, str) or len(source) > MAX_LENGTH or not source.isascii():
        raise Unsound(f"a shape is {shown(source)}, which is not a plain expression")
    try:
        return _bits(ast.parse(source, mode="eval").body, source, symbols)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Unsound(f"a shape is {shown(source)}, which is not a plain expression") from None


def bounded(bits: int, what: str) -> int:
    """Return `bits`, or raise Unsound where they are more than `MAX_BITS`."""
    if bits > MAX_BITS:
        raise Unsound(f"{what} grows beyond {MAX_BITS} bits")
    return bits


def _bits(node: ast.expr, source: str, symbols: set[str]) -> int:
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
            return SYMBOL_BITS
        case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
            return bounded(_integer(value).bit_length() + 1, "a shape")
        case ast.Call(func=ast.Name(id=function), args=[base, power], keywords=[]) if (
                function in _POWERS):
            match power:
                case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
                    exponent = _integer(value)
                    if 1 <= exponent <= _MAX_POWER:
                        return bounded(_bits(base, source, symbols) * exponent, "a shape")
            raise ValueError
        case ast.Call(func=ast.Name(id=function), args=[_, *_] as parts, keywords=[]) if (
                function in GROWTH):
            return bounded(GROWTH[function]([_bits(part, source, symbols) for part in parts]),
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
