"""How many components of a matrix are not noise: empirical variational Bayes, solved exactly.

Nakajima, Sugiyama, Babacan, Tomioka, "Global analytic solution of fully-observed variational
Bayesian matrix factorization", JMLR 14:1-37, 2013; used by P4 to choose the ranks of Tucker-2, as
Kim et al., arXiv 1511.06530.
"""

from __future__ import annotations

import math

import numpy as np

from celosia_spec.errors import ArgumentError

__all__ = ["evbmf"]

_TAU = 2.5129
"""Root of log(1 + z) / z = 1/2; ``tau = _TAU sqrt(alpha)`` is exact for square matrices and at
most about 1 % low otherwise."""

_GRID = 64
"""Noise variances that are tried before the search between the best one's neighbours."""


def evbmf(matrix: np.ndarray, sigma2: float | None = None) -> tuple[int, float]:
    """Return the rank that empirical variational Bayes keeps, and the variance of the noise.

    The matrix is taken for a low-rank one plus Gaussian noise of one variance. A component stays
    if its singular value g exceeds ``sqrt(M sigma2 xbar)`` with ``xbar = (1 + tau)
    (1 + alpha / tau)``, ``tau = 2.5129 sqrt(alpha)``, ``alpha = L / M`` for an L x M matrix with
    L <= M. An unknown variance is the one with the least free energy.

    Parameters
    ----------
    matrix
        Two-dimensional; a wide or a tall one gives the same answer.
    sigma2
        Variance of the noise, above 0, or None to estimate it.

    Returns
    -------
    The rank, 0 to L (0 for pure noise), and the variance that was given or found (0.0 for a
    matrix of zeros).

    Raises
    ------
    ArgumentError
        Not a matrix, an empty one, values that are not finite, or a variance not above 0.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ArgumentError(
            f"evbmf takes a matrix of finite numbers, not an array of shape {values.shape}"
            f"{'' if np.isfinite(values).all() else ' with NaN or infinity'}"
        )
    if sigma2 is not None and not sigma2 > 0:
        raise ArgumentError(f"the variance of the noise must be above 0, not {sigma2!r}")
    rows, columns = sorted(values.shape)
    singular = np.linalg.svd(values, compute_uv=False)
    if singular[0] == 0:
        return 0, 0.0 if sigma2 is None else float(sigma2)
    if sigma2 is None:
        sigma2 = _noise(singular, rows, columns)
    threshold = math.sqrt(columns * sigma2 * _bound(rows / columns))
    return int(np.count_nonzero(singular > threshold)), float(sigma2)


def _bound(alpha: float) -> float:
    """Return xbar, the least x = g^2 / (M sigma2) of a component that stays."""
    tau = _TAU * math.sqrt(alpha)
    return (1 + tau) * (1 + alpha / tau)


def _noise(singular: np.ndarray, rows: int, columns: int) -> float:
    """Return the variance of least free energy, within the bounds that Nakajima et al. derive."""
    from scipy.optimize import minimize_scalar  # takes as long to import as all else here

    alpha = rows / columns
    scale = float(np.sum(singular**2)) / (rows * columns)
    squares = singular**2 / (columns * scale)       # x at sigma2 = scale, the upper bound
    most = min(math.ceil(rows / (1 + alpha)) - 1, rows - 1)
    # Singular values below rounding errors are zeros, and must not pass for components.
    rounding = squares[0] * (max(rows, columns) * np.finfo(np.float64).eps) ** 2
    low = max(squares[most] / _bound(alpha), float(np.mean(squares[most:])), rounding)
    if low >= 1:
        return scale

    def energy(logarithm: float) -> float:
        return _free_energy(squares, math.exp(logarithm), alpha)

    grid = np.linspace(math.log(low), 0.0, _GRID)
    best = int(np.argmin([energy(point) for point in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    found = minimize_scalar(energy, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    return scale * math.exp(found.x)


def _free_energy(squares: np.ndarray, sigma2: float, alpha: float) -> float:
    """Return the free energy per M, up to a constant, for x = squares / sigma2.

    Only ``-log x = log sigma2 - log squares`` differs from the published form: its second part
    does not depend on sigma2 and is left out, so that zeros among the squares do no harm.
    """
    x = squares / sigma2
    kept = x[x > _bound(alpha)]
    shifted = kept - (1 + alpha)
    t = (shifted + np.sqrt(shifted**2 - 4 * alpha)) / 2
    gain = np.sum(-t + np.log1p(t) + alpha * np.log1p(t / alpha))
    return float(np.sum(x) + gain + len(x) * math.log(sigma2))
