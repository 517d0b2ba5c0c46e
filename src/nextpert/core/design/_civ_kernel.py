"""CIV over candidates, compiled, and averages over groups of candidates.

Equations 14 to 16 of the mathematics page. Shifts are uncertain; exact ones, with ``w = t = 0``,
are a special case. For node i, candidate l and ``q = (1, mu*_P)`` the gap's term has the variance
``e_i (1/n + r_il)`` with ``r = y'My + t``, ``y = q - w z``: ``z = (1, mean of its cells)``, ``w``
the share of a departure that is believed, ``t`` the spare variance of its shift. Cells of j at
``x = (1, mean expected)`` observe the weights along ``v = x - w z``, and its shift, so that
``r_il`` falls by ``c^2 / d2`` with
``c = y_l'M v_j + [l = j] t_j`` and ``d2 = 1/n + v_j'M v_j + t_j``.

Where an effect f of a candidate is expected whatever the weights, target, mean and state are less
f. Candidates without cells and such effects have the same ``y = q``. So sums run over groups of
equal ``y``: one of all these (group 0), and each of the others by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import entry, inner
from nextpert.core.design._lookahead import cross, multiply

if TYPE_CHECKING:
    Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """Candidates grouped by how cells of others inform about them; those without cells are group 0.

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
        new = np.flatnonzero((cells > 0) & (self.group <= 0))
        if not len(new):
            return self
        group, alone = self.group.copy(), self.alone.copy()
        group[new], alone[new] = len(self.leaders) + np.arange(len(new)), True
        rest = np.append(np.flatnonzero(group == 0), -1)[:1]
        return Groups(self.weights, group, np.concatenate([rest, self.leaders[1:], new]), alone)

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
        """Return the average of one value per candidate, ``(size,)``."""
        weights = np.where(self.group > 0, self.scale, self.group == 0) * self.weights
        return float(weights @ values)

    def total(self, others: Vector, own: Vector, asked: Whole | slice = slice(None)) -> Vector:
        """Return averages after cells of each candidate ``asked``, ``(n_asked,)``.

        ``others`` (2, n_asked) are weighted sums over group 0 and over the other groups; ``own``
        is what it takes from a candidate's own value that its shift is learned too.
        """
        return others[0] + self.scale * others[1] - self.weights[asked] * own


class Between:
    """The average over candidates of the variance between graphs of their expected gaps.

    Of each group but the first, and of a candidate itself, mean and square over the graphs so far
    are kept, not every graph's.
    """

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._shares: list[float] = []
        self._mean: Vector = np.zeros((0, 0))
        self._square: Vector = np.zeros((0, 0))
        self._first: list[Vector] = []  # of group 0: what cells to come change
        self._fixed: list[Vector] = []  # and what they do not

    @property
    def share(self) -> float:
        """What its graphs count for together."""
        return sum(self._shares)

    def add(self, left: Vector, level: Vector, spare: Vector, share: float) -> None:
        """Add a graph of some weight: ``left`` of the kernel, and expected gaps without it.

        ``spare`` is the shift's own part of the gap, which ``left`` holds for j itself only.
        """
        if not self._shares:
            self._mean, self._square = np.zeros((2, *left[1:].shape))
        self._shares.append(share)
        self._first.append(left[0].copy())
        self._fixed.append(level + spare)
        gap = left[1:]
        gap[:-2] += (level + spare)[self.groups.leaders[1:], None]
        gap[-2:] += level
        change = gap - self._mean
        self._mean += change * (share / self.share)
        self._square += share * change * (gap - self._mean)

    def values(self) -> Vector:
        """Return it after cells of each candidate, ``(size,)``; zeros for one graph alone."""
        groups = self.groups
        if len(self._shares) < 2:
            return np.zeros(groups.size)
        first, fixed = np.array(self._first), np.array(self._fixed)
        weights = np.where(groups.group == 0, groups.weights, 0.0)
        shares = np.array(self._shares) / self.share
        part = fixed @ weights
        covariance = (shares * (part - shares @ part)) @ (first - shares @ first)
        alike = weights @ _variance(fixed, shares) + 2 * covariance
        alike += weights.sum() * _variance(first, shares)
        others = groups.weights[groups.leaders[1:]] @ self._square[:-2] / self.share
        told, untold = self._square[-2:] / self.share
        return groups.total(np.array([alike, others]), untold - told)


def _variance(values: Vector, shares: Vector) -> Vector:
    """Return the variance over graphs, the first axis."""
    return shares @ (values - shares @ values) ** 2


Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Gaps(NamedTuple):
    """All arrays of one posterior; flat blocks as in the posterior's kernels, others (p, m)."""

    indptr: Whole
    indices: Whole
    vptr: Whole
    mptr: Whole
    cov: Array  # M of each node, flat
    target: Array  # mu*, (p, m), or (p, 1) where it is the same for all
    mean: Array  # of the cells, the posterior's fixed columns after the nodes
    state: Array  # expected
    share: Array  # w
    again: Array  # share believed of hypothetical cells at the state, of what w leaves
    spare: Array  # t


@inner
def _direction(gaps: Any, i: int, base: Array, rows: Array) -> None:
    """Fill ``rows`` (d, m) with ``(1, base) - w z``; ``base`` is (p, m) or (p, 1).

    After hypothetical cells ``w z`` is ``(1 - again) w z + again x``.
    """
    first = gaps.indptr[i]
    degree = gaps.indptr[i + 1] - first
    k = gaps.vptr[i + 1] - gaps.vptr[i] - degree
    step, p = 1 if base.shape[1] > 1 else 0, len(gaps.indptr) - 1
    for j in range(rows.shape[1]):
        again = gaps.again[i, j]
        share = (1.0 - again) * gaps.share[i, j]
        if k:
            rows[0, j] = 1.0 - share - again
        for a in range(1, k):  # fixed columns, which come after the nodes of the cells' means
            rows[a, j] = -share * gaps.mean[p + a - 1, j] if len(gaps.mean) > p else 0.0
        for a in range(degree):
            node = gaps.indices[first + a]
            rows[k + a, j] = base[node, step * j] - share * gaps.mean[node, j]
            rows[k + a, j] -= again * gaps.state[node, j]


@entry
def _fill_weights_part(gaps: Any, out: Array) -> None:
    p = len(gaps.vptr) - 1
    for i in range(p):
        d = gaps.vptr[i + 1] - gaps.vptr[i]
        rows, product = np.empty((d, out.shape[1])), np.empty((d, out.shape[1]))
        _direction(gaps, i, gaps.target, rows)
        multiply(gaps.cov, gaps.mptr[i], rows, product, out[i])


def weights_part(gaps: Gaps) -> Array:
    """Return ``y'My`` of every node and candidate, (p, m)."""
    out = np.empty_like(gaps.spare)
    _fill_weights_part(gaps, out)
    return out


@entry
def _take_in(gaps: Any, one: Any, inv_n: float) -> None:
    for i in range(len(gaps.vptr) - 1):
        d, start = gaps.vptr[i + 1] - gaps.vptr[i], gaps.mptr[i]
        rows, product, square = np.empty((d, 1)), np.empty((d, 1)), np.empty(1)
        _direction(one, i, one.state, rows)
        multiply(gaps.cov, gaps.mptr[i], rows, product, square)
        t = one.spare[i, 0]
        d2 = inv_n + t + square[0]
        for a in range(d):
            for b in range(d):
                gaps.cov[start + a * d + b] -= product[a, 0] * product[b, 0] / d2
        told = t / (t + inv_n)
        one.again[i, 0] += told * (1.0 - one.again[i, 0])
        one.spare[i, 0] = t * (1.0 - told)


def columns(gaps: Gaps, some: Whole) -> Gaps:
    """Return the gaps of some candidates alone, as they are now."""
    names = ["mean", "state", "share", "again", "spare"]
    names += ["target"] if gaps.target.shape[1] > 1 else []
    one: dict[str, Any] = {
        name: np.ascontiguousarray(getattr(gaps, name)[:, some]) for name in names
    }
    return gaps._replace(**one)


def observe(gaps: Gaps, j: int, inv_n: float) -> None:
    """Take in 1 / ``inv_n`` hypothetical cells of candidate j, in place.

    They change ``cov``, and ``again`` and ``spare`` of j.
    """
    one = columns(gaps, np.array([j]))
    _take_in(gaps, one, inv_n)
    gaps.again[:, j], gaps.spare[:, j] = one.again[:, 0], one.spare[:, 0]


@entry
def look_ahead(
    gaps: Any, lead: Any, inv_n: float, quad: Array, lin: Array, kappa: Array, slope: Array,
    e: Array, own: Array, others: Array, left: Array,
) -> None:  # fmt: skip
    """Fill how the gaps' variances change by 1 / ``inv_n`` cells of each candidate j of ``gaps``.

    ``lead`` are the gaps of a candidate of each of G groups. Of a group, ``v`` left of the
    weights' part adds ``quad v^2 + lin v``, both (p, G), to the average; of candidate j alone,
    ``r`` left adds ``kappa r^2 + slope r``, (p,) and (p, m), to its variance. ``others`` (2, m):
    changes of the sums over group 0 and over all other groups, as if the cells told nothing of j's
    own shift. ``own`` (m,): what they tell of it takes from j's variance. ``left`` (G + 2, m), or
    (0, m) where it is not wanted: ``sum_i e v`` of every group, then ``sum_i e r`` of j itself
    with the information about its shift, and without.
    """
    p, m = gaps.spare.shape
    n_groups = quad.shape[1]
    shared, now, d2, level = np.empty(m), np.empty(m), np.empty(m), np.empty(n_groups)
    own[:], others[:], left[:] = 0.0, 0.0, 0.0
    for i in range(p):
        d = gaps.vptr[i + 1] - gaps.vptr[i]
        rows, taught, product = np.empty((d, m)), np.empty((d, m)), np.empty((d, m))
        leading, spent = np.empty((d, n_groups)), np.empty((d, n_groups))
        _direction(lead, i, lead.target, leading)
        multiply(lead.cov, lead.mptr[i], leading, spent, level)
        _direction(gaps, i, gaps.target, rows)
        multiply(gaps.cov, gaps.mptr[i], rows, product, now)
        _direction(gaps, i, gaps.state, taught)
        multiply(gaps.cov, gaps.mptr[i], taught, product, d2)
        for j in range(m):
            d2[j] += inv_n + gaps.spare[i, j]
        at_once = d == 1 and len(left) == 0
        if at_once:
            # Without parents, what is shared is a product of a number of the group and one of the
            # candidate, so that sums over groups are taken once.
            one, two = np.zeros(2), np.zeros(2)
            for c in range(n_groups):
                square, top = leading[0, c] ** 2, lin[i, c] + 2.0 * quad[i, c] * level[c]
                one[min(c, 1)] += top * square
                two[min(c, 1)] += quad[i, c] * square * square
            for j in range(m):
                fall = product[0, j] * product[0, j] / d2[j]
                others[0, j] -= (one[0] - two[0] * fall) * fall
                others[1, j] -= (one[1] - two[1] * fall) * fall
        for c in range(0 if at_once else n_groups):
            cross(leading[:, c], product, shared)
            row, top = others[min(c, 1)], lin[i, c] + 2.0 * quad[i, c] * level[c]
            for j in range(m):
                fall = shared[j] * shared[j] / d2[j]  # equation 16
                row[j] -= (top - quad[i, c] * fall) * fall
                if len(left):
                    left[c, j] += e[i] * (level[c] - fall)
        for j in range(m):
            own_cross = 0.0
            for a in range(d):
                own_cross += rows[a, j] * product[a, j]
            t = gaps.spare[i, j]
            told = now[j] + t - (own_cross + t) * (own_cross + t) / d2[j]
            gain = t * (2.0 * own_cross + t) / d2[j]
            own[j] += gain * (kappa[i] * (2.0 * told + gain) + slope[i, j])
            if len(left):
                left[n_groups, j] += e[i] * told
                left[n_groups + 1, j] += e[i] * (told + gain)
