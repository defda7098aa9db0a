"""Plots of results, as SVG files that the documentation shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

__all__ = ["FOLDER", "lines"]

FOLDER = Path("docs") / "plots"

Numbers = Sequence[float]
Series = tuple[Numbers, Numbers] | tuple[Numbers, Numbers, Numbers]


def lines(path: str | Path, series: Mapping[str, Series], xlabel: str, ylabel: str, title: str, *,
          log_x: bool = False) -> Path:
    """Draw one line a series into ``docs/plots/<path>`` and return the path of the file.

    series : {label: (x, y)} or {label: (x, y, spread)}; a spread is drawn as error bars.
    """
    plt.rcParams["svg.hashsalt"] = "celosia"       # the same figures give the same file
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for marker, (label, values) in zip("osD^vP*Xd<>h" * 4, series.items(), strict=False):
        x, y, *spread = values
        axes.errorbar(x, y, yerr=spread[0] if spread else None, label=label, marker=marker,
                      markersize=4, linewidth=1.4, capsize=2)
    if log_x:
        axes.set_xscale("log")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(fontsize="small")
    target = FOLDER / path
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
    return target
