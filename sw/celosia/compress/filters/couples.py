"""Filters that can only go together, and filters that must stay, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["Couples"]


class Couples:
    """Every filter of a network under a number, the label, from 1; 0 is no filter.

    sizes : {layer: its filters, or outputs of a linear layer}.

    reasons : {layer: why its filters stay}, as `block` was told first.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        starts = np.cumsum([1, *sizes.values()])
        self.layers = tuple(sizes)
        self.labels = {name: np.arange(start, start + size) for (name, size), start
                       in zip(sizes.items(), starts[:-1], strict=True)}
        self.reasons: dict[str, str] = {}
        self._parent = np.arange(starts[-1])
        self._owner = np.concatenate([[-1], np.repeat(np.arange(len(sizes)),
                                                      list(sizes.values()))]).astype(int)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Couple label i of one array with label i of another; both are above 0."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self._root(a), self._root(b)))
            self._parent[high] = low

    def block(self, labels: np.ndarray, reason: str) -> None:
        """Keep filters, and those that are coupled with them by now."""
        for name in self.owners(labels):
            self.reasons.setdefault(name, reason)

    def owners(self, labels: np.ndarray) -> tuple[str, ...]:
        """Return the layers of some labels and of the filters coupled with them."""
        wanted = np.unique(self.roots()[labels[labels > 0]])
        found = np.flatnonzero(np.isin(self.roots(), wanted))
        return tuple(self.layers[index] for index in np.unique(self._owner[found[found > 0]]))

    def roots(self) -> np.ndarray:
        """Return for each label one that is the same for all coupled with it."""
        while not np.array_equal(above := self._parent[self._parent], self._parent):
            self._parent = above
        return self._parent

    def _root(self, label: int) -> int:
        while (above := int(self._parent[label])) != label:
            self._parent[label] = self._parent[above]
            label = above
        return label
