"""Draws of effects whose own parts are normal given the rest, and their summaries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed
from scipy.special import ndtri

from nextpert.core._blas import in_blocks
from nextpert.core._checks import as_rng
from nextpert.core._codec import array, nested, sparse, table_type, text
from nextpert.core.model._hierarchical_kernel import (
    Drawn,
    Mixtures,
    Rows,
    fill_centres,
    summarise,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
_HELD = 2_000_000  # effects times draws whose means are held at once: 8 MB


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


# What cells say of perturbations in a draw: the draws are the first dimension, these the second.
_BY_DRAW = ("noise", "response", "scores", "along")


@dataclass(frozen=True)
class FromCells:
    """What means of effects follow from, given the rest of a draw: the cells, and that rest.

    So they need not be kept for every draw: of 200 draws of an effect that is 200 bytes, those of
    ``place``, and not 1,000.

    Parameters
    ----------
    change
        Means of the cells less what was expected, 0 of perturbations without cells, shape
        ``(n_perturbations, n_genes)``; in units of ``unit``, as all that follows.
    own_share
        What share of a departure is an own part whose variance was known beforehand, same shape.
    measured
        1 of perturbations with cells, 0 of those that are predicted, shape ``(n_perturbations,)``.
    noise
        Scores of the cells' noise along the factors, ``(n_draws, n_perturbations, n_factors)``.
    response
        By how much more than on average cells respond, shape ``(n_draws, n_perturbations)``.
    columns
        What batches leave in the means, over a cell's noise: columns that perturbations share,
        shape ``(n_perturbations, n_columns)``; by default there are none.
    batches
        Coefficients of these columns, shape ``(n_draws, n_columns, n_genes)``.
    control, program, factors, scores, along
        As for :class:`~nextpert.core.model.hierarchical.Hierarchical`, which stores them, but for
        the units of ``control``.
    """

    change: NDArray[np.float32] = array("n_measured", "n_nodes", dtype=np.float32)
    own_share: sp.csr_array = sparse("n_measured", "n_nodes", dense=False)
    measured: Array = array("n_measured")
    noise: Array = array("n_draws", "n_measured", "n_factors")
    response: Array = array("n_draws", "n_measured")
    columns: Array = array("n_measured", "n_columns", optional=True)
    batches: Array = array("n_draws", "n_columns", "n_nodes", optional=True)
    control: Array = field(default_factory=lambda: np.zeros((0, 0)))
    program: Array = field(default_factory=lambda: np.zeros((0, 0)))
    factors: Array = field(default_factory=lambda: np.zeros((0, 0)))
    scores: Array = field(default_factory=lambda: np.zeros((0, 0)))
    along: Array = field(default_factory=lambda: np.zeros((0, 0, 0)))


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
    place
        Entry of :data:`VARIANCE` of its own part's prior variance in every draw, shape
        ``(n_perturbations, n_genes, n_draws)``; the last where the variance was known beforehand.
    centre
        Mean of every effect, less what was expected, given the rest of a draw, in units of
        ``unit``, same shape; ``None`` where it follows from the cells.
    cells
        What it follows from; ``None`` where it does not.
    """

    unit: Array = array("n_nodes")
    expected: Array = array("n_measured", "n_nodes", is_table=True)
    precision: NDArray[np.float32] = array("n_measured", "n_nodes", dtype=np.float32)
    place: NDArray[np.int8] = array("n_measured", "n_nodes", "n_draws", dtype=np.int8)
    centre: NDArray[np.float32] | None = array(
        "n_measured", "n_nodes", "n_draws", dtype=np.float32, optional=True
    )
    cells: FromCells | None = nested(FromCells, optional=True)
    n_draws: int = field(init=False)

    def __post_init__(self) -> None:
        n, p, n_draws = self.place.shape
        cells = self.cells
        if cells is not None and cells.columns is None:  # without batches they are not stored
            none = {"columns": np.zeros((n, 0)), "batches": np.zeros((n_draws, 0, p))}
            cells = replace(cells, **none)
        vars(self).update(n_draws=n_draws, cells=cells)

    def rows(self, index: ArrayLike) -> EffectDraws:
        """Return some perturbations, in the order given."""
        which = np.asarray(index, np.int64)
        if np.array_equal(which, np.arange(len(self.expected))):
            return self
        cells = self.cells
        if cells is not None:
            by_draw = {x: getattr(cells, x)[:, which] for x in _BY_DRAW}
            cells = replace(
                cells, change=cells.change[which], own_share=cells.own_share[which],
                measured=cells.measured[which], columns=cells.columns[which], **by_draw,
            )  # fmt: skip
        return replace(
            self, expected=self.expected[which], precision=self.precision[which],
            place=self.place[which], cells=cells,
            centre=None if self.centre is None else self.centre[which],
        )  # fmt: skip

    def some_draws(self, index: ArrayLike) -> EffectDraws:
        """Return some of the draws."""
        which, cells = np.asarray(index, np.int64), self.cells
        if cells is not None:
            # Draws are the first dimension of all of these, the last of place and centre.
            names = (*_BY_DRAW, "batches", "control", "program")
            cells = replace(cells, **{name: getattr(cells, name)[which] for name in names})
        return replace(
            self, place=self.place[:, :, which], cells=cells,
            centre=None if self.centre is None else self.centre[:, :, which],
        )  # fmt: skip

    def joined(self, other: EffectDraws) -> EffectDraws:
        """Return these perturbations and then others, of the same draws."""
        if not len(other.expected):
            return self
        names = ("expected", "precision", "place")
        # Draws k of both are of the same program, controls and factors.
        both: dict[str, Any] = {
            x: np.concatenate([getattr(self, x), getattr(other, x)]) for x in names
        }
        cells, more = self.cells, other.cells
        if cells is not None and more is not None:
            every = {
                x: np.concatenate([getattr(cells, x), getattr(more, x)], axis=int(x in _BY_DRAW))
                for x in ("change", "measured", "columns", *_BY_DRAW)
            }
            share = sp.csr_array(sp.vstack([cells.own_share, more.own_share]))
            return replace(self, cells=replace(cells, own_share=share, **every), **both)
        centres = [each.centres(np.arange(len(each.expected))) for each in (self, other)]
        return replace(self, centre=np.concatenate(centres), cells=None, **both)

    def centres(
        self, index: NDArray[np.int64], draws: Sequence[int] | slice = slice(None)
    ) -> NDArray[np.float32]:
        """Return means of effects given the rest of draws, less what was expected.

        Of the perturbations ``index``, in units of ``unit``; shape ``(n_some, n_genes, n_draws)``.
        """
        held = self.centre
        if held is None and self.place.size <= _HELD and not isinstance(draws, slice):
            # All of them at once: draw by draw, small tables would cost mostly calls.
            if "_held" not in vars(self):
                vars(self)["_held"] = self.centres(np.arange(len(self.expected)))
            held = vars(self)["_held"]
        if held is not None:
            return held[:, :, draws][index]
        cells = self.cells
        assert cells is not None
        whole: Any = np.ascontiguousarray
        place = whole(self.place[index][:, :, draws])
        drawn = Drawn(
            cells.control[draws], cells.program[draws], cells.batches[draws],
            whole(cells.factors.T), whole(cells.scores[draws][:, index]),
            whole(cells.along[draws][:, index]), whole(cells.noise[draws][:, index]),
            whole(cells.response[draws][:, index]),
        )  # fmt: skip
        out = np.empty(place.shape, np.float32)
        rows = Rows(
            cells.change[index], self.expected[index] / self.unit, cells.measured[index],
            whole(cells.columns[index]), self.precision[index], cells.own_share[index].toarray(),
            place,
        )  # fmt: skip
        fill_centres(drawn, rows, 1.0 / VARIANCE, out, np.empty((2, place.shape[1])))
        return out

    def blocks(self, index: ArrayLike | None = None) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Yield rows of a result, and the perturbations these are, a few at a time.

        ``index`` are all of them, in the order given; those of the draws by default.
        """
        which = np.arange(len(self.expected)) if index is None else np.asarray(index, np.int64)
        for rows in in_blocks(len(which), self.place[0].size if len(self.place) else 1):
            yield rows, which[rows]

    def sd(self) -> Array:
        """Return their standard deviations, ``(n_perturbations, n_genes)``, units of the data."""
        sd = np.empty(self.expected.shape, table_type(self.expected.size))
        for rows, some in self.blocks():
            # Var = E[1 / (cells + prior)] + Var[centre], over draws.
            within = np.zeros_like(sd[rows])
            for k in range(self.n_draws):
                within += 1.0 / (self.precision[some] + 1.0 / VARIANCE[self.place[some, :, k]])
            variance = within / self.n_draws + self.centres(some).var(axis=2, dtype=np.float64)
            sd[rows] = self.unit * np.sqrt(variance)
        return sd

    def posterior_mean(self, index: NDArray[np.int64] | slice = slice(None)) -> Array:
        """Return the expected effects, shape ``(n_perturbations, n_genes)``, units of the data.

        ``index`` are the perturbations, in the order given; all by default.
        """
        which = np.arange(len(self.expected))[index]
        mean = np.empty((len(which), len(self.unit)))
        for rows, some in self.blocks(which):
            centre = self.centres(some).mean(axis=2, dtype=np.float64)
            mean[rows] = self.expected[some] + self.unit * centre
        return mean

    def draws(
        self, n_samples: int | None = None, *, rng: int | np.random.Generator | None = None
    ) -> Iterator[Array]:
        """Yield joint draws of all effects, each ``(n_perturbations, n_genes)``, units of the data.

        By default one of each draw that was kept. More repeat these with other own parts, fewer are
        spread evenly over them. Only one draw is held at a time.
        """
        generator = as_rng(rng)
        # Given a draw the own parts are independent normals: more draws repeat these alone.
        for k, count in self.taken(n_samples):
            mean, spread = self.given(k)
            for _ in range(count):
                drawn = generator.standard_normal(spread.shape, spread.dtype)
                drawn *= spread
                drawn += mean
                yield drawn
            del mean, spread, drawn  # before the next are made

    def given(self, k: int, index: ArrayLike | None = None) -> tuple[Array, Array]:
        """Return mean and standard deviation of all effects given the rest of a draw.

        Each of shape ``(n_perturbations, n_genes)``, units of the data; effects are independent.
        ``index`` is as in :meth:`posterior_mean`.
        """
        which = np.arange(len(self.expected)) if index is None else np.asarray(index, np.int64)
        shape = len(which), len(self.unit)
        kind = table_type(len(which) * len(self.unit))
        mean, spread = np.empty(shape, kind), np.empty(shape, kind)
        for rows in in_blocks(*shape):
            some = which[rows]
            own = self.precision[some] + 1.0 / VARIANCE[self.place[some, :, k]]
            # Given the draw: N(E + centre, 1 / (cells + prior)).
            mean[rows] = self.expected[some] + self.unit * self.centres(some, [k])[:, :, 0]
            spread[rows] = self.unit * np.sqrt(1.0 / own)
        return mean, spread

    def taken(self, n_samples: int | None = None) -> list[tuple[int, int]]:
        """Return which of the draws that were kept ``n_samples`` draws are of, and how often."""
        count = self.n_draws if n_samples is None else n_samples
        # Draw i of `count` is of the kept draw floor(i n_draws / count).
        kept = np.arange(count) * self.n_draws // max(count, 1)
        which, times = np.unique(kept, return_counts=True)
        return list(zip(which.tolist(), times.tolist(), strict=True))

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
        n, p, n_draws = self.place.shape
        levels = np.array([(1.0 - confidence) / 2, (1.0 + confidence) / 2])
        # Newton's method starts at the normal of the same mean and sd.
        start = ndtri(levels)
        tables = [np.empty((n, p), table_type(n * p)) for _ in Summary._fields]
        step = max(_ROWS // p, 1)

        def fill(first: int) -> None:
            rows = np.arange(first, min(first + step, n))
            size = len(rows) * p
            some, ends = np.empty((3, size)), np.empty((2, size))
            mixtures = Mixtures(
                self.centres(rows).reshape(size, n_draws), self.place[rows].reshape(size, n_draws),
                self.precision[rows].ravel(), (self.expected[rows] / self.unit).ravel(),
            )  # fmt: skip
            summarise(mixtures, VARIANCE, levels, start, some, ends, np.empty((2, n_draws)))
            mean, sd, above, low, high = (x.reshape(-1, p) for x in (*some, *ends))
            # Twice the smaller of P(> 0) and P(< 0).
            lfsr = np.minimum(1.0, 2.0 * np.minimum(above, 1.0 - above))
            filled = (*(x * self.unit for x in (mean, sd, low, high)), lfsr)
            for table, numbers in zip(tables, filled, strict=True):
                table[rows] = numbers

        tasks = (delayed(fill)(first) for first in range(0, n, step))
        Parallel(n_jobs=n_jobs, prefer="threads", require="sharedmem")(tasks)
        return Summary(*tables)


@dataclass(frozen=True)
class Condition:
    """What a fit says of one condition, such as a cell line (equation 24).

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
    n_cells: NDArray[np.int64] = array("n_measured", dtype=np.int64)
    change: Array = array("n_measured", "n_nodes")

    def rows(self, index: ArrayLike) -> Condition:
        """Return some perturbations, in the order given."""
        which = np.asarray(index, np.int64)
        return replace(
            self, effects=self.effects.rows(which), n_cells=self.n_cells[which],
            change=self.change[which],
        )  # fmt: skip
