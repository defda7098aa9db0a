"""How much is to go: the ways in which it can be said, on a command line too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from celosia.compress.spans import COUNT, SHARE, Span
from celosia_spec.errors import ArgumentError

__all__ = ["CYCLES", "FILTER_RATE", "HIDDEN_RATE", "MACS", "PARAMETERS", "RANKS", "RATE", "RATES",
           "SEARCH", "Amount", "Chosen"]


@dataclass(frozen=True, kw_only=True)
class Amount:
    """One way to say how much is to go.

    name    : what a method is given it as.   about : what it says, for the help.
    flag    : the command line's option.   word : what stands behind the flag, where it is one word.
    kind    : type of the flag's value; text where `read` makes the value of it.
    least   : of a number, or None.   span : where a number must lie, or None.
    read    : (flag, text) -> value, or ArgumentError; None where the flag's value is it.
    needs   : options of the method that go with this amount alone, and must be given with it.
    without : options of the method that do not go with it.
    data    : why it needs data, or "".
    """

    name: str
    about: str
    flag: str
    word: str = ""
    kind: type = float
    least: int | None = None
    span: Span | None = None
    read: Callable[[str, str], Any] | None = None
    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    data: str = ""

    @property
    def said(self) -> str:
        """The flag, and the word behind it."""
        return f"{self.flag} {self.word}".rstrip()


class Chosen(NamedTuple):
    """An amount's name, and its value."""

    name: str
    value: Any


def read_rates(flag: str, text: str) -> dict[str, float]:
    """Return the rates of "conv1=0.4,fc1=0.9"."""
    found = _by_layer(flag, text, float, "give LAYER=RATE with commas between, such as "
                                         "conv1=0.4,fc1=0.9")
    for name, rate in found.items():
        SHARE.check(f"{flag}: the rate of layer {name!r}", rate)
    return found


def read_ranks(flag: str, text: str) -> dict[str, int | tuple[int, ...]]:
    """Return the ranks of "conv1=3,fc1=20" or "conv2=10x5"."""

    def numbers(value: str) -> int | tuple[int, ...]:
        first, *second = (int(number) for number in value.split("x", 1))
        return (first, *second) if second else first

    found = _by_layer(flag, text, numbers, "give LAYER=RANK with commas between, such as "
                                           "conv1=3,fc1=20, or of pairs conv2=10x5")
    for name, ranks in found.items():
        for rank in ranks if isinstance(ranks, tuple) else (ranks,):
            COUNT.check(f"{flag}: a rank of layer {name!r}", rank)
    return found


def _by_layer(flag: str, text: str, read: Callable[[str], Any], way: str) -> dict[str, Any]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        found: dict[str, Any] = {name.strip(): read(value) for name, value in pairs}
    except ValueError:
        raise ArgumentError(f"{flag} {text!r}: {way}") from None
    if len(found) != len(pairs):
        raise ArgumentError(f"{flag} {text!r}: a layer stands there twice; give each once")
    return found


RATE = Amount(name="rate", flag="--rate", span=SHARE,
              about="share of each layer's weights to remove")
FILTER_RATE = Amount(name="rate", flag="--rate", span=SHARE,
                     about="share of each layer's filters to remove")
HIDDEN_RATE = Amount(name="rate", flag="--rate", span=SHARE,
                     about="share of each hidden linear layer's weights to remove")
RATES = Amount(name="rate", flag="--rates", kind=str, read=read_rates,
               about="a rate for each layer, LAYER=RATE,...")
SEARCH = Amount(name="search", flag="--rates", word="search", kind=str, needs=("accuracy_budget",),
                data="to measure accuracy on",
                about="or search: rates found by each layer's accuracy curve on training images")
CYCLES = Amount(name="cycles", flag="--budget-cycles", kind=int, least=1,
                without=("order", "scope", "select", "strong"),
                about="instead of rates: predicted cycles of one inference to come down to")
MACS = Amount(name="macs", flag="--macs-removed", span=SHARE,
              about="share of the network's multiply-accumulates to remove")
PARAMETERS = Amount(name="parameters", flag="--parameters-removed", span=SHARE,
                    about="share of the network's parameters to remove")
RANKS = Amount(name="ranks", flag="--ranks", kind=str, read=read_ranks,
               about="instead of a rule: LAYER=RANK,... or of pairs LAYER=OUTxIN,...")
