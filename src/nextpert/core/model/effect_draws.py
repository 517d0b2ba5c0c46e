"""Draws of effects whose own parts are normal given the rest, and their summaries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.special import ndtri

from nextpert.core._checks import as_rng
from nextpert.core._codec import array, nested, packed, text
from nextpert.core.model._hierarchical_kernel import summarise
from nextpert.core.model.perturbations import ENOUGH, in_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

# Exponents of 2 of prior variances, in units of the variance within cells: of scores, of the scale
# of a perturbation, and of tails beside it. 2^-14 is what 16,000 cells tell from 0; 2^4 is four
# standard deviations, more than a knockout of a gene moves any other on the four real screens.
SCALES = np.arange(-12.0, 5.0)
TAILS = np.arange(-8.0, 6.0)
LOWEST, HIGHEST = -15, 7  # of a scale and a tail together
# The variance of scale m with tail t is entry m + t, as both grids ascend by 1. The last entry adds
# nothing to the precision of an effect: that of a variance known beforehand is added already.
VARIANCE = np.append(
    2.0 ** np.clip(np.arange(SCALES[0] + TAILS[0], SCALES[-1] + TAILS[-1] + 1), LOWEST, HIGHEST),
    np.inf,
)
_ROWS = 4096  # effects summarised by one task


def table_type(size: int) -> type[np.floating[Any]]:
    """Return the numbers of tables of so many effects: of very many in single precision."""
    return np.float32 if size > ENOUGH else np.float64


class Summary(NamedTuple):
    """Effects, all of shape ``(n_perturbations, n_genes)``, units of the data.

    Parameters
    ----------
    mean, sd
        Expected effect, and its standard deviation.
    lower, upper
        Ends of its interval.
    lfsr
        Local false sign rate. There is no exact 0 in the model: an effect of which the cells say
        nothing has both signs alike likely, so that twice the probability of the less likely sign
        is given, which is 1 there. For the same reason a draw whose expected effect is less than
        the standard error of the cells counts as of no sign, half for either: small effects and
        none look alike. Where 19 of 20 effects are exactly 0, 9 signs of 1,780 were false where 4.7
        were stated; if such draws count by their sign, 18 of 1,883 where 5.2 were.
    """

    mean: Array
    sd: Array
    lower: Array
    upper: Array
    lfsr: Array


@dataclass(frozen=True)
class EffectDraws:
    """Draws of the effects of perturbations; given the rest of a draw an effect is normal.

    Parameters
    ----------
    unit
        Standard deviation of every gene within cells, shape ``(n_genes,)``, units of the data.
    expected
        What was expected of the effects, shape ``(n_perturbations, n_genes)``, units of the data.
    precision
        Precision of the cells' means without program and factors, and of what was known of own
        parts beforehand, in units of ``unit``, same shape; 0 without either.
    centre
        Mean of every effect, less what was expected, given the rest of a draw, in units of
        ``unit``, shape ``(n_perturbations, n_genes, n_draws)``.
    place
        Entry of :data:`VARIANCE` of its own part's prior variance, same shape; the last where the
        variance was known beforehand.
    """

    unit: Array = array("n_nodes", above=0)
    expected: Array = array("n_measured", "n_nodes")
    precision: NDArray[np.float32] = packed(np.float32, "n_measured", "n_nodes", least=0)
    centre: NDArray[np.float32] = packed(np.float32, "n_measured", "n_nodes", "n_draws")
    place: NDArray[np.int8] = packed(
        np.int8, "n_measured", "n_nodes", "n_draws", least=0, most=len(VARIANCE) - 1
    )

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return self.centre.shape[2]

    def rows(self, index: ArrayLike) -> EffectDraws:
        """Return some perturbations, in the order given."""
        which = np.asarray(index, np.int64)
        if np.array_equal(which, np.arange(len(self.expected))):
            return self
        names = ("expected", "precision", "centre", "place")
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def some_draws(self, index: ArrayLike) -> EffectDraws:
        """Return some of the draws."""
        which = np.asarray(index, np.int64)
        return replace(self, centre=self.centre[:, :, which], place=self.place[:, :, which])

    def joined(self, other: EffectDraws) -> EffectDraws:
        """Return these perturbations and then others, of the same draws."""
        if not len(other.expected):
            return self
        names = ("expected", "precision", "centre", "place")
        both = {x: np.concatenate([getattr(self, x), getattr(other, x)]) for x in names}
        return replace(self, **both)

    def sd(self) -> Array:
        """Return their standard deviations, ``(n_perturbations, n_genes)``, units of the data."""
        sd = np.empty(self.expected.shape)
        for rows in in_blocks(len(sd), self.centre[0].size):
            within, centre = np.zeros_like(sd[rows]), self.centre[rows]
            for k in range(self.n_draws):
                within += 1.0 / (self.precision[rows] + 1.0 / VARIANCE[self.place[rows, :, k]])
            variance = within / self.n_draws + centre.var(axis=2, dtype=np.float64)
            sd[rows] = self.unit * np.sqrt(variance)
        return sd

    def posterior_mean(self, index: ArrayLike | None = None) -> Array:
        """Return the expected effects, shape ``(n_perturbations, n_genes)``, units of the data.

        ``index`` are the perturbations, in the order given; all by default.
        """
        which = np.arange(len(self.expected)) if index is None else np.asarray(index, np.int64)
        mean = np.empty((len(which), len(self.unit)))
        for rows in in_blocks(len(which), self.centre[0].size):
            centre = self.centre[which[rows]].mean(axis=2, dtype=np.float64)
            mean[rows] = self.expected[which[rows]] + self.unit * centre
        return mean

    def draws(
        self, n_samples: int | None = None, *, rng: int | np.random.Generator | None = None
    ) -> Iterator[Array]:
        """Yield joint draws of all effects, each of shape ``(n_perturbations, n_genes)``.

        Parameters
        ----------
        n_samples
            Number of draws; by default one of each that was kept. More repeat these with other
            own parts, fewer are spread evenly over them.
        rng
            Seed or generator.

        Yields
        ------
        ndarray
            Effects, units of the data. Only one draw is held at a time.
        """
        generator = as_rng(rng)
        for k, count in self.taken(n_samples):
            mean, spread = self.given(k)
            for _ in range(count):
                drawn = generator.standard_normal(spread.shape)
                drawn *= spread
                drawn += mean
                yield drawn

    def given(self, k: int, index: ArrayLike | None = None) -> tuple[Array, Array]:
        """Return mean and standard deviation of all effects given the rest of a draw.

        Each of shape ``(n_perturbations, n_genes)``, units of the data; effects are independent.
        ``index`` is as in :meth:`posterior_mean`.
        """
        which = np.arange(len(self.expected)) if index is None else np.asarray(index, np.int64)
        mean, spread = np.empty((2, len(which), len(self.unit)))
        for rows in in_blocks(*mean.shape):
            some = which[rows]
            own = self.precision[some] + 1.0 / VARIANCE[self.place[some, :, k]]
            mean[rows] = self.expected[some] + self.unit * self.centre[some, :, k]
            spread[rows] = self.unit * np.sqrt(1.0 / own)
        return mean, spread

    def taken(self, n_samples: int | None = None) -> list[tuple[int, int]]:
        """Return which of the draws that were kept ``n_samples`` draws are of, and how often."""
        count = self.n_draws if n_samples is None else n_samples
        kept = np.arange(count) * self.n_draws // max(count, 1)
        return [(int(k), int(n)) for k, n in zip(*np.unique(kept, return_counts=True), strict=True)]

    def summary(self, confidence: float = 0.9, *, n_jobs: int = 1) -> Summary:
        """Return means, standard deviations, intervals and local false sign rates of all effects.

        They are those of the mixture of the normals of all draws, so that no draw of own parts adds
        its noise.

        Parameters
        ----------
        confidence
            Coverage of the intervals.
        n_jobs
            Threads.
        """
        n, p, n_draws = self.centre.shape
        levels = np.array([(1.0 - confidence) / 2, (1.0 + confidence) / 2])
        start = ndtri(levels)
        centre, place = (x.reshape(n * p, n_draws) for x in (self.centre, self.place))
        precision, expected = self.precision.ravel(), self.expected.ravel()
        tables = [np.empty((n, p), table_type(n * p)) for _ in Summary._fields]

        def fill(first: int) -> None:
            rows = slice(first, first + _ROWS)
            unit = self.unit[np.arange(first, min(first + _ROWS, n * p)) % p]
            some, ends = np.empty((3, len(unit))), np.empty((2, len(unit)))
            summarise(
                centre[rows], place[rows], VARIANCE, precision[rows], expected[rows] / unit, levels,
                start, some, ends, np.empty((2, n_draws)),
            )  # fmt: skip
            lfsr = np.minimum(1.0, 2.0 * np.minimum(some[2], 1.0 - some[2]))
            filled = (*some[:2] * unit, *ends * unit, lfsr)
            for table, numbers in zip(tables, filled, strict=True):
                table.ravel()[rows] = numbers

        tasks = (delayed(fill)(first) for first in range(0, n * p, _ROWS))
        Parallel(n_jobs=n_jobs, prefer="threads", require="sharedmem")(tasks)
        return Summary(*tables)


@dataclass(frozen=True)
class Condition:
    """What draws say of one condition, such as a cell line (equation 28).

    Parameters
    ----------
    name
        Its name.
    effects
        Draws of the effects in it; of a perturbation without cells there, as others expect it.
    control
        Means of its controls, shape ``(n_draws, n_genes)``, units of the data.
    n_cells
        Cells of each perturbation in it, shape ``(n_perturbations,)``.
    change
        Differences of the cells' means to its controls, 0 without cells, shape
        ``(n_perturbations, n_genes)``, units of the data.
    """

    name: str = text()
    effects: EffectDraws = nested(EffectDraws)
    control: Array = array("n_draws", "n_nodes")
    n_cells: NDArray[np.int64] = array("n_measured", whole=True, least=0)
    change: Array = array("n_measured", "n_nodes")

    def some_draws(self, index: ArrayLike) -> Condition:
        """Return some of the draws."""
        which = np.asarray(index, np.int64)
        return replace(self, effects=self.effects.some_draws(which), control=self.control[which])

    def rows(self, index: ArrayLike) -> Condition:
        """Return some perturbations, in the order given."""
        which = np.asarray(index, np.int64)
        return replace(
            self, effects=self.effects.rows(which), n_cells=self.n_cells[which],
            change=self.change[which],
        )  # fmt: skip
