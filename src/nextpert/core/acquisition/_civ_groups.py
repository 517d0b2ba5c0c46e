"""Averages over candidates in groups, and the variance between graphs under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_vector

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]
    Whole = NDArray[np.int64]


def average_weights(weights: ArrayLike | None, size: int) -> Vector:
    """Return what each candidate counts for in the average, sum 1."""
    if weights is None:
        return np.full(size, 1 / size)
    given = as_vector(weights, size, "weights")
    if given.min() < 0 or given.sum() == 0:
        message = "weights of candidates must be 0 or more, and one of them above."
        raise ValueError(message)
    return given / given.sum()


@dataclass(frozen=True)
class Groups:
    """Candidates by what cells of others teach of them: those without cells alike (group 0).

    Of those alone, each a group by itself, some may be left out of the average (group -1); the
    others then stand for them.
    """

    weights: Vector  # of each candidate, sum 1
    group: Whole
    leaders: Whole  # a candidate of each group; -1 where group 0 is empty
    alone: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        weights: Vector,
        alone: NDArray[np.bool_],
        n_average: int,
        rng: np.random.Generator,
    ) -> Groups:
        """Group the candidates; at most ``n_average`` of those alone, drawn at random."""
        chosen, alike = np.flatnonzero(alone), np.flatnonzero(~alone)
        if len(chosen) > n_average:  # those that count for nothing are left out first
            chosen = chosen[np.argsort(weights[chosen] == 0, kind="stable")]
            chosen = chosen[: max(n_average, int((weights[chosen] > 0).sum()))]
        if len(chosen) > n_average:
            chosen = np.sort(rng.choice(chosen, n_average, replace=False))
        group = np.where(alone, -1, 0)
        group[chosen] = 1 + np.arange(len(chosen))
        first = alike[:1] if len(alike) else [-1]
        return cls(weights, group, np.concatenate([first, chosen]).astype(np.int64), alone)

    def with_cells(self, cells: Vector) -> Groups:
        """Return the groups once candidates have cells, hypothetical ones, ``(size,)``."""
        groups = self
        for j in np.flatnonzero(cells).tolist():
            groups = groups.with_alone(j)
        return groups

    def with_alone(self, j: int) -> Groups:
        """Return the groups once candidate ``j`` has cells, hypothetical ones."""
        if self.group[j] > 0:
            return self
        group, leaders, alone = self.group.copy(), self.leaders.copy(), self.alone.copy()
        group[j], alone[j] = len(leaders), True
        rest = np.flatnonzero(group == 0)
        leaders[0] = rest[0] if len(rest) else -1
        return Groups(self.weights, group, np.append(leaders, j), alone)

    @property
    def size(self) -> int:
        """Number of candidates."""
        return len(self.weights)

    @property
    def scale(self) -> float:
        """What the groups after the first count for, for they stand for those left out too."""
        chosen = self.group > 0
        if (chosen == self.alone).all():
            return 1.0
        return float(self.weights[self.alone].sum() / self.weights[chosen].sum())

    def sums(self, values: Vector) -> Vector:
        """Return weighted sums over every group of values (p, size), shape (p, n_groups)."""
        first = values @ np.where(self.group == 0, self.weights, 0.0)
        own = self.leaders[1:]
        return np.column_stack([first, values[:, own] * self.weights[own]])

    def average(self, values: Vector) -> float:
        """Return the average of one value a candidate, ``(size,)``."""
        weights = np.where(self.group > 0, self.scale, self.group == 0) * self.weights
        return float(weights @ values)

    def total(self, others: Vector, own: Vector, asked: Whole | slice = slice(None)) -> Vector:
        """Return averages after cells of each candidate ``asked``, ``(n_asked,)``.

        ``others`` (2, n_asked) are weighted sums over group 0 and over the other groups; ``own``
        is what it takes from a candidate's own value that its shift is learned too.
        """
        return others[0] + self.scale * others[1] - self.weights[asked] * own


class Between:
    """The average over candidates of the variance between graphs of their expected gaps."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._shares: list[float] = []
        self._mean: Vector = np.zeros((0, 0))  # of the groups' expected gaps over graphs so far
        self._square: Vector = np.zeros((0, 0))
        self._first: list[Vector] = []  # of group 0: what cells to come change
        self._fixed: list[Vector] = []  # and what they do not
        self._told: list[Vector] = []
        self._untold: list[Vector] = []

    @property
    def share(self) -> float:
        """What its graphs count for together."""
        return sum(self._shares)

    def add(self, left: Vector, level: Vector, spare: Vector, share: float) -> None:
        """Add a graph of some weight: ``left`` of the kernel, and expected gaps without it.

        ``spare`` is the shift's own part of the gap, which ``left`` holds for j itself only.
        """
        own = self.groups.leaders[1:]
        gap = left[1:-2] + (level + spare)[own, None]
        if not self._shares:
            self._mean, self._square = np.zeros_like(gap), np.zeros_like(gap)
        self._shares.append(share)
        change = gap - self._mean
        self._mean += change * (share / sum(self._shares))
        self._square += share * change * (gap - self._mean)
        self._first.append(left[0].copy())
        self._fixed.append(level + spare)
        self._told.append(left[-2] + level)
        self._untold.append(left[-1] + level)

    def values(self) -> Vector:
        """Return it after cells of each candidate, ``(size,)``; zeros for one graph alone."""
        groups = self.groups
        if len(self._shares) < 2:
            return np.zeros(groups.size)
        others = np.zeros((2, groups.size))
        first, fixed = np.array(self._first), np.array(self._fixed)
        weights = np.where(groups.group == 0, groups.weights, 0.0)
        shares = np.array(self._shares) / sum(self._shares)
        part = fixed @ weights
        covariance = (shares * (part - shares @ part)) @ (first - shares @ first)
        others[0] = weights @ _variance(fixed, shares) + 2 * covariance
        others[0] += weights.sum() * _variance(first, shares)
        others[1] = groups.weights[groups.leaders[1:]] @ self._square / sum(self._shares)
        own = _variance(np.array(self._untold), shares) - _variance(np.array(self._told), shares)
        return groups.total(others, own)


def _variance(values: Vector, shares: Vector) -> Vector:
    """Return the variance over graphs, the first axis."""
    return shares @ (values - shares @ values) ** 2
