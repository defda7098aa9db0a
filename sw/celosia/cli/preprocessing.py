"""What `compile` is told of pixels and of class names, and reading it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from celosia.zoo import NETWORKS
from celosia_spec.errors import CelosiaError

if TYPE_CHECKING:
    from celosia_spec.preprocessing import Preprocessing

Labels = Annotated[Path | None, typer.Option(
    metavar="FILE", help="Names of the classes, one on each line, stored with the program.")]
Scale = Annotated[str | None, typer.Option(
    help="Factor of a pixel, 0 to 255: inputs are (pixel * scale - mean) / deviation; such as "
         "1/255, which it is if --mean or --deviation is given.")]
Mean = Annotated[str | None, typer.Option(help="One number, or one a channel: 0.485,0.456,0.406.")]
Deviation = Annotated[str | None, typer.Option(help="Likewise.")]


def told(model: str, labels: Path | None, scale: str | None, mean: str | None,
         deviation: str | None) -> "Preprocessing | None":
    """Return what is stored with a program; the package's own networks bring theirs.

    CelosiaError where an option or the file of names is not what it must be.
    """
    from celosia.labels import read_labels
    from celosia_spec.preprocessing import Preprocessing

    found: Preprocessing | None = None
    if model in NETWORKS and NETWORKS[model].trained:
        from celosia.models import LENET5_PREPROCESSING

        found = LENET5_PREPROCESSING
    if scale is not None or mean is not None or deviation is not None:
        found = Preprocessing(
            scale=_numbers("--scale", "1/255" if scale is None else scale)[0],
            mean=_numbers("--mean", "0" if mean is None else mean, several=True),
            deviation=_numbers("--deviation", "1" if deviation is None else deviation,
                               several=True),
            labels=found.labels if found else ())
    if labels is not None:
        found = replace(found or Preprocessing(), labels=read_labels(labels))
    return found


Rule: TypeAlias = tuple[tuple[float, ...] | None, tuple[float, ...] | None]
"""Mean and deviation of a data set's pixels, one number a channel; None for the usual ones."""


def rule(mean: str | None, deviation: str | None) -> Rule:
    """Return what --mean and --deviation say of a data set; CelosiaError where they say nothing."""
    return (None if mean is None else _numbers("--mean", mean, several=True),
            None if deviation is None else _numbers("--deviation", deviation, several=True))


def _numbers(option: str, text: str, *, several: bool = False) -> tuple[float, ...]:
    """Return the numbers of "0.5,1/4"."""
    parts = text.split(",") if several else [text]
    try:
        if not text.isascii() or max(map(len, parts)) > 40:    # Fraction of many digits takes long
            raise ValueError
        return tuple(float(part) if "/" not in part else float(Fraction(part)) for part in parts)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise CelosiaError(f"{option} {text[:60]!r}: give a number such as 0.25 or 1/255"
                           + (", or one for each channel with commas between" if several else "")
                           ) from None
