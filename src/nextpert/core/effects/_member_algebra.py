"""What measured combinations say of their members, given how far effects add up.

In a combination member ``g`` counts for ``w_g = strength * s_g + v_g``, and a combination does
``sum w_g + rest``. So all that is asked for are the ``w`` of members that some combination holds:
systems of that size, whatever the number of combinations and of other members. Arrays run over
dimensions first; all is in units of the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Measured combinations.

    Parameters
    ----------
    used
        Members that some combination holds.
    design
        Whether one of these is in a combination, 0 or 1, shape ``(n_combinations, n_used)``.
    alone, variance
        What is known of all members alone: mean and variance, shape ``(n_dims, n_members)``.
    effects, noise
        Effects of the combinations and their sampling variance, ``(n_dims, n_combinations)``.
    """

    used: NDArray[np.int64]
    design: Array
    alone: Array
    variance: Array
    effects: Array
    noise: Array

    @classmethod
    def in_units(
        cls,
        scale: Array,
        alone: Array,
        variance: Array,
        members: Sequence[tuple[int, ...]],
        effects: Array,
        noise: Array,
    ) -> Measured:
        """Return tables with dimensions last, in units of the data, in units of the scale."""
        used = np.array(sorted({g for some in members for g in some}), np.int64)
        design = np.zeros((len(members), len(used)))
        for row, some in zip(design, members, strict=True):
            row[np.searchsorted(used, some)] = 1.0
        by = scale[:, None]
        return cls(used, design, alone.T / by, variance.T / by**2, effects.T / by, noise.T / by**2)

    def solved(self, strength: float, member_sd: float, rest_sd: float) -> Solved:
        """Return the posterior of the members' ``w``, and the log evidence."""
        start, spread = strength * self.alone, np.sqrt(strength**2 * self.variance + member_sd**2)
        root = spread[:, self.used]
        total = rest_sd**2 + self.noise
        left = self.effects - start[:, self.used] @ self.design.T
        # A = I + P^1/2 Z'R^-1 Z P^1/2 is well conditioned where members vary little.
        n = len(self.used)
        matrix = np.empty((len(root), n, n))
        for d, row in enumerate(root):
            weighted = self.design * row
            matrix[d] = (weighted.T / total[d]) @ weighted
        matrix[:, np.arange(n), np.arange(n)] += 1.0
        factor = np.linalg.cholesky(matrix).astype(np.float64)
        right: Array = ((left / total) @ self.design) * root
        half = np.linalg.solve(factor, right[..., None])[..., 0].astype(np.float64)
        log = -0.5 * (np.log(2 * np.pi * total).sum() + (left**2 / total).sum())
        log += 0.5 * (half**2).sum() - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum()
        return Solved(self.used, factor, half, spread, start, float(log))


@dataclass(frozen=True)
class Solved:
    """Posterior of ``w``, given strength and standard deviations.

    Of used members it is ``start + spread * A^-1 right``, ``A = LL'`` and ``half = L^-1 right``,
    with the covariance ``spread A^-1 spread``; of the others what they start from.
    """

    used: NDArray[np.int64]
    factor: Array
    half: Array
    spread: Array
    start: Array
    log_evidence: float

    def mean(self) -> Array:
        """Return the mean of ``w``, ``(n_dims, n_members)``."""
        return self._with(self.half[None])[0]

    def sums(self, table: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return mean and variance of sums of ``w``, ``(n_dims, n_sums)``.

        ``table`` holds the members of each sum, filled up by ``n_members``.
        """
        n_dims, n = self.start.shape
        place = np.full(n + 1, len(self.used))
        place[self.used] = np.arange(len(self.used))
        loose = np.pad(self.spread**2, ((0, 0), (0, 1)))
        loose[:, self.used] = 0.0
        mean = np.pad(self.mean(), ((0, 0), (0, 1)))
        total, variance = np.zeros((2, n_dims, len(table)))
        for column in table.T:
            total += mean[:, column]
            variance += loose[:, column]
        for d, factor in enumerate(self.factor):  # one at a time, for memory
            root = np.linalg.solve(factor, np.diag(self.spread[d, self.used]))
            covariance = np.pad(root.T @ root, (0, 1))
            for column in place[table.T]:
                for other in place[table.T]:
                    variance[d] += covariance[column, other]
        return total, variance

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Return draws of ``w``, ``(n, n_dims, n_members)``."""
        drawn = self._with(self.half + rng.normal(size=(n, *self.half.shape)))
        others = np.ones(self.start.shape[1], bool)
        others[self.used] = False
        noise = rng.normal(size=(n, len(self.start), int(others.sum())))
        drawn[:, :, others] += self.spread[:, others] * noise
        return drawn

    def _with(self, half: Array) -> Array:
        """Return ``w`` where ``L' x`` is ``half``, for each of its rows."""
        solved = np.linalg.solve(np.swapaxes(self.factor, 1, 2), np.moveaxis(half, 0, -1))
        out = np.repeat(self.start[None], len(half), axis=0)
        out[:, :, self.used] += self.spread[:, self.used] * np.moveaxis(solved, -1, 0)
        return out


def canonical(combinations: Sequence[Iterable[int]], n: int) -> list[tuple[int, ...]]:
    """Return sorted members without repeats: A+B is B+A."""
    out = [tuple(sorted(set(as_nodes(some, n, "combinations")))) for some in combinations]
    if not all(out):
        message = f"Combination {[len(some) for some in out].index(0)} has no members: give some."
        raise ValueError(message)
    return out


def padded(asked: Sequence[tuple[int, ...]], n: int) -> NDArray[np.int64]:
    """Return members side by side, the number ``n`` where there are fewer."""
    table = np.full((len(asked), max(map(len, asked), default=0)), n, np.int64)
    for row, some in zip(table, asked, strict=True):
        row[: len(some)] = some
    return table
