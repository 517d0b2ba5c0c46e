"""What measured combinations say of their members, given how far effects add up.

In a combination member ``g`` counts for ``w_g = strength * s_g + v_g``, and a combination does
``sum w_g + rest``. So all that is asked for are the ``w`` of members that some combination holds:
systems of that size, whatever the number of combinations and of other members. Arrays run over
dimensions first; all is in units of the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
        Effects of the combinations and their sampling variance, ``(n_dims, n_combinations)``;
        infinite where nothing is known.
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
        """Return the posterior of the members' ``w``."""
        start, spread = strength * self.alone, np.sqrt(strength**2 * self.variance + member_sd**2)
        total = rest_sd**2 + self.noise
        return Solved(
            self, start, spread, total, self.effects - start[:, self.used] @ self.design.T
        )

    @cached_property
    def together(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Entries of a matrix of used members, flat, that each pair in a combination falls on.

        And the combination; a member with itself is a pair, too.
        """
        owner, member = np.nonzero(self.design)
        rows = [member[owner == k] for k in range(len(self.design))]
        flat = [np.add.outer(some * len(self.used), some).ravel() for some in rows]
        return np.concatenate([np.zeros(0, np.int64), *flat]), np.repeat(
            np.arange(len(rows)), [len(some) for some in flat]
        )


@dataclass(frozen=True)
class Solved:
    """Posterior of ``w``, given strength and standard deviations.

    Of used members it is ``start + spread * A^-1 right``, ``A = I + spread Z'R^-1 Z spread = LL'``
    and ``right = spread Z'R^-1 left``, with the covariance ``spread A^-1 spread``; of the others
    what they start from. ``A`` is well conditioned where members vary little. It is made one
    dimension at a time, for memory.
    """

    data: Measured
    start: Array
    spread: Array
    total: Array
    left: Array

    def _dims(self) -> Iterator[tuple[Array, Array]]:
        """Yield ``L`` and ``L^-1 right`` of each dimension."""
        used, (flat, owner) = self.data.used, self.data.together
        n = len(used)
        right = ((self.left / self.total) @ self.data.design) * self.spread[:, used]
        for root, total, side in zip(self.spread[:, used], self.total, right, strict=True):
            # Combinations hold few members each: pairs are counted, zeros not multiplied.
            counted = np.bincount(flat, (1.0 / total)[owner], n * n)
            matrix = counted.reshape(n, n) * (root[:, None] * root)
            matrix[np.arange(n), np.arange(n)] += 1.0
            factor = np.linalg.cholesky(matrix)
            yield factor, solve_triangular(factor, side, lower=True, check_finite=False)

    def log_evidence(self) -> float:
        """Return the log density of the measured effects."""
        known = self.total[np.isfinite(self.total)]
        log = -0.5 * (np.log(2 * np.pi * known).sum() + (self.left**2 / self.total).sum())
        for factor, half in self._dims():
            log += 0.5 * (half @ half) - np.log(factor.diagonal()).sum()
        return float(log)

    def sums(self, table: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return mean and variance of sums of ``w``, ``(n_dims, n_sums)``.

        ``table`` holds the members of each sum, filled up by ``n_members``.
        """
        used = self.data.used
        n_dims, n = self.start.shape
        place = np.full(n + 1, len(used))
        place[used] = np.arange(len(used))
        loose = np.pad(self.spread**2, ((0, 0), (0, 1)))
        loose[:, used] = 0.0
        start = np.pad(self.start, ((0, 0), (0, 1)))
        total, variance = np.zeros((2, n_dims, len(table)))
        for column in table.T:
            total += start[:, column]
            variance += loose[:, column]
        for d, (factor, half) in enumerate(self._dims()):
            root = solve_triangular(
                factor, np.diag(self.spread[d, used]), lower=True, check_finite=False
            )
            mean, covariance = np.append(half @ root, 0.0), np.pad(root.T @ root, (0, 1))
            for column in place[table.T]:
                total[d] += mean[column]
                for other in place[table.T]:
                    variance[d] += covariance[column, other]
        return total, variance

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Return draws of ``w``, ``(n, n_dims, n_members)``."""
        used = self.data.used
        normal = rng.normal(size=(n, *self.start.shape))
        out = self.start + self.spread * normal
        for d, (factor, half) in enumerate(self._dims()):
            solved = solve_triangular(
                factor, half[:, None] + normal[:, d, used].T, trans=1, lower=True,
                check_finite=False,
            )  # fmt: skip
            out[:, d, used] = self.start[d, used] + self.spread[d, used] * solved.T
        return out


def canonical(combinations: Iterable[Iterable[int]]) -> list[tuple[int, ...]]:
    """Return sorted members without repeats: A+B is B+A."""
    return [tuple(sorted(set(some))) for some in combinations]


def padded(asked: Sequence[tuple[int, ...]], n: int) -> NDArray[np.int64]:
    """Return members side by side, the number ``n`` where there are fewer."""
    table = np.full((len(asked), max(map(len, asked), default=0)), n, np.int64)
    for row, some in zip(table, asked, strict=True):
        row[: len(some)] = some
    return table
