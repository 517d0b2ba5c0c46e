"""Draws of effects, with own parts that are normal given all other parts, and summaries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtri

from nextpert.core._blas import in_blocks
from nextpert.core._checks import as_rng
from nextpert.core._codec import array, nested, sparse, table_type, text
from nextpert.core.model._hierarchical_kernel import Drawn, Mixtures, Rows, fill_centres, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

# Exponents of 2 for prior variances of own parts, in units of the variance between cells: scales of
# perturbations, and tails added to a scale. 16,000 cells distinguish 2^-14 from 0; 2^4 is four
# standard deviations, more than the effect of any knockout on another gene in four real screens.
SCALES = np.arange(-12.0, 5.0)
TAILS = np.arange(-8.0, 6.0)
LOWEST, HIGHEST = -15, 7  # range of the sum of a scale and a tail
# The variance of scale m with tail t is entry m + t, because both grids have steps of 1. The last
# entry adds nothing to the precision of an effect, which already includes known variances.
VARIANCE = np.append(
    2.0 ** np.clip(np.arange(SCALES[0] + TAILS[0], SCALES[-1] + TAILS[-1] + 1), LOWEST, HIGHEST),
    np.inf,
)
# Entries of EffectDraws.place: a prior variance, and from the second half on one with doubled
# variance of noise. Prior precisions, and what multiplies the precision of the cells.
PRIOR_PRECISION = np.tile(1.0 / VARIANCE, 2)
NOISE_PRECISION = np.repeat([1.0, 0.5], len(VARIANCE))
_DRAWS_AT_ONCE = 8  # stored draws that are copied together: 8 bytes per effect
_ROWS = 4096  # effects summarised by one task
_HELD = 2_000_000  # maximum effects times draws whose means are kept in memory: 8 MB


class Summary(NamedTuple):
    """Effects, all of shape ``(n_perturbations, n_genes)``, units of the data.

    Parameters
    ----------
    mean, sd
        Expected effect, and its standard deviation.
    lower, upper
        Ends of its interval.
    lfsr
        Local false sign rate. The model has no exact 0: both signs of an effect without information
        are equally probable, so the rate is twice the probability of the less probable sign, which
        is 1 in this case. For the same reason, a draw whose expected effect is smaller than the
        standard error of the cells counts half for either sign: small effects cannot be
        distinguished from 0. With 19 of 20 effects exactly 0, 9 of 1,780 signs were false (4.7
        expected); if such draws count by their sign, 18 of 1,883 (5.2 expected). The probability
        that large departures of all guides coincide is added (:attr:`FromCells.coincidence`).
    """

    mean: Array
    sd: Array
    lower: Array
    upper: Array
    lfsr: Array


# Fields of FromCells with draws along the first dimension and perturbations in the second.
_BY_DRAW = ("noise", "response", "scores", "along")


@dataclass(frozen=True)
class FromCells:
    """Quantities from which the conditional means of effects are computed in every draw.

    These means are therefore not stored: 200 draws of an effect take 200 bytes, for ``place``, and
    not 1,000.

    Parameters
    ----------
    change
        Means of the cells minus prior means, 0 for perturbations without cells, shape
        ``(n_perturbations, n_genes)``; this and all following fields are in units of ``unit``.
    own_share
        For own parts with known variance, their share of a departure, same shape; else 0.
    coincidence
        Probability that an effect is 0 and large departures of all guides of the perturbation
        coincide, same shape; it adds to local false sign rates.
    measured
        1 for perturbations with cells, 0 for predicted ones, shape ``(n_perturbations,)``.
    noise
        Scores of the cells' noise along the factors, ``(n_draws, n_perturbations, n_factors)``.
    response
        Response of cells relative to the average, minus 1, shape ``(n_draws, n_perturbations)``.
    columns
        Errors of batch effects in the means, in units of a cell's noise, as columns common to the
        perturbations, shape ``(n_perturbations, n_columns)``; by default there are none.
    batches
        Coefficients of these columns, shape ``(n_draws, n_columns, n_genes)``.
    control, program, factors, scores, along
        As for :class:`~nextpert.core.model.hierarchical.Hierarchical`, which stores them, except
        that ``control`` has other units.
    """

    change: NDArray[np.float32] = array("n_measured", "n_nodes", dtype=np.float32)
    own_share: sp.csr_array = sparse("n_measured", "n_nodes", dense=False)
    coincidence: sp.csr_array = sparse("n_measured", "n_nodes", dense=False)
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
    """Draws of the effects of perturbations; given all other parts of a draw, an effect is normal.

    Parameters
    ----------
    unit
        Standard deviation of every gene between cells, shape ``(n_genes,)``, units of the data.
    expected
        Prior means of the effects, shape ``(n_perturbations, n_genes)``, units of the data.
    precision
        Precision of the cells' means without program and factors, plus that of own parts with known
        variance, in units of ``unit``, same shape; 0 without either.
    place
        Index in :data:`VARIANCE` of the prior variance of the own part in every draw, shape
        ``(n_perturbations, n_genes, n_draws)``; the last index if the variance is known. The number
        of variances is added where the noise of the cells has twice its usual variance.
    centre
        Conditional mean of every effect in a draw, minus its prior mean, in units of ``unit``, same
        shape; ``None`` if it is computed from ``cells``.
    cells
        Quantities from which ``centre`` is computed; ``None`` if it is stored.
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
        if cells is not None and cells.columns is None:  # not stored without batches
            none = {"columns": np.zeros((n, 0)), "batches": np.zeros((n_draws, 0, p))}
            cells = replace(cells, **none)
        vars(self).update(n_draws=n_draws, cells=cells)

    def rows(self, index: ArrayLike) -> EffectDraws:
        """Return some perturbations, in the given order."""
        selected = np.asarray(index, np.int64)
        if np.array_equal(selected, np.arange(len(self.expected))):
            return self
        cells = self.cells
        if cells is not None:
            by_draw = {x: getattr(cells, x)[:, selected] for x in _BY_DRAW}
            names = ("change", "own_share", "coincidence", "measured", "columns")
            by_row = {x: getattr(cells, x)[selected] for x in names}
            cells = replace(cells, **by_row, **by_draw)
        return replace(
            self,
            expected=self.expected[selected],
            precision=self.precision[selected],
            place=self.place[selected],
            cells=cells,
            centre=None if self.centre is None else self.centre[selected],
        )

    def some_draws(self, index: ArrayLike) -> EffectDraws:
        """Return some of the draws."""
        selected, cells = np.asarray(index, np.int64), self.cells
        if cells is not None:
            # Draws are the first dimension of these fields, and the last of place and centre.
            names = (*_BY_DRAW, "batches", "control", "program")
            cells = replace(cells, **{name: getattr(cells, name)[selected] for name in names})
        return replace(
            self,
            place=self.place[:, :, selected],
            cells=cells,
            centre=None if self.centre is None else self.centre[:, :, selected],
        )

    def joined(self, other: EffectDraws) -> EffectDraws:
        """Return these perturbations followed by others, which must have the same draws."""
        if not len(other.expected):
            return self
        names = ("expected", "precision", "place")
        # Draw k has the same program, controls and factors in both.
        tables: dict[str, Any] = {
            x: np.concatenate([getattr(self, x), getattr(other, x)]) for x in names
        }
        cells, other_cells = self.cells, other.cells
        if cells is not None and other_cells is not None:
            cell_tables: dict[str, Any] = {
                x: np.concatenate(
                    [getattr(cells, x), getattr(other_cells, x)], axis=int(x in _BY_DRAW)
                )
                for x in ("change", "measured", "columns", *_BY_DRAW)
            }
            for x in ("own_share", "coincidence"):
                cell_tables[x] = sp.csr_array(
                    sp.vstack([getattr(cells, x), getattr(other_cells, x)])
                )
            return replace(self, cells=replace(cells, **cell_tables), **tables)
        centres = [draws.centres(np.arange(len(draws.expected))) for draws in (self, other)]
        return replace(self, centre=np.concatenate(centres), cells=None, **tables)

    def centres(
        self, index: NDArray[np.int64], draws: Sequence[int] | slice = slice(None)
    ) -> NDArray[np.float32]:
        """Return conditional means of effects in draws, minus prior means.

        They are those of the perturbations ``index``, in units of ``unit``; shape ``(n_some,
        n_genes, n_draws)``.
        """
        # Small tables are computed at once, because calls per draw would dominate the cost.
        at_once = self.place.size <= _HELD and not isinstance(draws, slice)
        stored = vars(self).get("_held") if at_once and self.centre is None else self.centre
        if stored is not None:
            return stored[:, :, draws][index]
        requested_rows, requested_draws = index, draws
        if at_once:
            index, draws = np.arange(len(self.expected)), slice(None)
        cells = self.cells
        assert cells is not None
        contiguous: Any = np.ascontiguousarray
        entries = contiguous(self.place[index][:, :, draws])
        drawn = Drawn(
            cells.control[draws],
            cells.program[draws],
            cells.batches[draws],
            contiguous(cells.factors.T),
            contiguous(cells.scores[draws][:, index]),
            contiguous(cells.along[draws][:, index]),
            contiguous(cells.noise[draws][:, index]),
            contiguous(cells.response[draws][:, index]),
        )
        out = np.empty(entries.shape, np.float32)
        rows = Rows(
            cells.change[index],
            self.expected[index] / self.unit,
            cells.measured[index],
            contiguous(cells.columns[index]),
            self.precision[index],
            cells.own_share[index].toarray(),
            entries,
        )
        fill_centres(drawn, rows, 1.0 / VARIANCE, out, np.empty((2, entries.shape[1])))
        if at_once:
            vars(self)["_held"] = out
            return out[:, :, requested_draws][requested_rows]
        return out

    def sd(self) -> Array:
        """Return posterior standard deviations, ``(n_perturbations, n_genes)``, data units."""
        sd = np.empty(self.expected.shape, table_type(self.expected.size))
        for rows in in_blocks(len(sd), len(self.unit) * self.n_draws):
            block = np.arange(len(sd))[rows]
            # Var = E[1 / (cells + prior)] + Var[centre], over draws.
            within = np.zeros_like(sd[rows])
            for k in range(self.n_draws):
                entries = self.place[block, :, k]
                noise = self.precision[block] * NOISE_PRECISION[entries]
                within += 1.0 / (noise + PRIOR_PRECISION[entries])
            variance = within / self.n_draws + self.centres(block).var(axis=2, dtype=np.float64)
            sd[rows] = self.unit * np.sqrt(variance)
        return sd

    def posterior_mean(self, index: NDArray[np.int64] | slice = slice(None)) -> Array:
        """Return posterior mean effects, shape ``(n_perturbations, n_genes)``, units of the data.

        ``index`` lists the perturbations in the order of the result; by default all.
        """
        selected = np.arange(len(self.expected))[index]
        mean = np.empty((len(selected), len(self.unit)))
        for rows in in_blocks(len(selected), len(self.unit) * self.n_draws):
            block = selected[rows]
            centre = self.centres(block).mean(axis=2, dtype=np.float64)
            mean[rows] = self.expected[block] + self.unit * centre
        return mean

    def draws(
        self, n_samples: int | None = None, *, rng: int | np.random.Generator | None = None
    ) -> Iterator[Array]:
        """Yield joint draws of all effects, each ``(n_perturbations, n_genes)``, units of the data.

        The default is one per stored draw. More draws repeat stored draws with new own parts; fewer
        are evenly spread over them. Only one draw is in memory at a time.
        """
        generator = as_rng(rng)
        # Given a stored draw, effects are independent normal variables.
        taken = self.taken(n_samples)
        for first in range(0, len(taken), _DRAWS_AT_ONCE):
            block = taken[first : first + _DRAWS_AT_ONCE]
            # Entries of one draw are far apart in memory, so a block of draws is copied at once. Of
            # small tables, `centres` holds all draws.
            is_small = self.place.size <= _HELD
            of_block = self if is_small else self.some_draws([k for k, _ in block])
            for number, (k, count) in enumerate(block):
                mean, spread = of_block.given(k if is_small else number)
                for _ in range(count):
                    drawn = generator.standard_normal(spread.shape, spread.dtype)
                    drawn *= spread
                    drawn += mean
                    yield drawn
                del mean, spread, drawn  # frees memory before the next draw

    def given(self, k: int, index: ArrayLike | None = None) -> tuple[Array, Array]:
        """Return conditional means and standard deviations of all effects in draw ``k``.

        Both have the shape ``(n_perturbations, n_genes)``, in units of the data; given the draw,
        effects are independent. ``index`` is as in :meth:`posterior_mean`.
        """
        selected = np.arange(len(self.expected)) if index is None else np.asarray(index, np.int64)
        shape = len(selected), len(self.unit)
        kind = table_type(len(selected) * len(self.unit))
        mean, spread = np.empty(shape, kind), np.empty(shape, kind)
        for rows in in_blocks(*shape):
            block = selected[rows]
            entries = self.place[block, :, k]
            conditional_precision = (
                self.precision[block] * NOISE_PRECISION[entries] + PRIOR_PRECISION[entries]
            )
            # Given the draw: N(E + centre, 1 / (cells + prior)).
            mean[rows] = self.expected[block] + self.unit * self.centres(block, [k])[:, :, 0]
            spread[rows] = self.unit * np.sqrt(1.0 / conditional_precision)
        return mean, spread

    def taken(self, n_samples: int | None = None) -> list[tuple[int, int]]:
        """Return which stored draws are used for ``n_samples`` draws, and how often."""
        count = self.n_draws if n_samples is None else n_samples
        # Draw i of `count` uses the stored draw floor(i n_draws / count).
        stored = np.arange(count) * self.n_draws // max(count, 1)
        draw_index, times = np.unique(stored, return_counts=True)
        return list(zip(draw_index.tolist(), times.tolist(), strict=True))

    def summary(self, confidence: float = 0.9, *, n_jobs: int = 1) -> Summary:
        """Return means, standard deviations, intervals and local false sign rates of all effects.

        They are computed for the mixture of the conditional normals of all draws, so that they have
        no noise from drawing own parts.

        Parameters
        ----------
        confidence
            Coverage of the intervals.
        n_jobs
            Number of threads.
        """
        n, p, n_draws = self.place.shape
        levels = np.array([(1.0 - confidence) / 2, (1.0 + confidence) / 2])
        # Newton's method starts at the quantiles of the normal with the same mean and SD.
        start = ndtri(levels)
        tables = [np.empty((n, p), table_type(n * p)) for _ in Summary._fields]
        step = max(_ROWS // p, 1)

        def fill(first: int) -> None:
            rows = np.arange(first, min(first + step, n))
            size = len(rows) * p
            moments, ends = np.empty((3, size)), np.empty((2, size))
            mixtures = Mixtures(
                self.centres(rows).reshape(size, n_draws),
                self.place[rows].reshape(size, n_draws),
                self.precision[rows].ravel(),
                (self.expected[rows] / self.unit).ravel(),
            )
            summarise(mixtures, VARIANCE, levels, start, moments, ends, np.empty((2, n_draws)))
            mean, sd, above, low, high = (x.reshape(-1, p) for x in (*moments, *ends))
            # Twice the smaller of P(> 0) and P(< 0).
            lfsr = np.minimum(1.0, 2.0 * np.minimum(above, 1.0 - above))
            if self.cells is not None:
                lfsr += self.cells.coincidence[rows].toarray() * (1.0 - lfsr)
            filled = (*(x * self.unit for x in (mean, sd, low, high)), lfsr)
            for table, numbers in zip(tables, filled, strict=True):
                table[rows] = numbers

        with ThreadPoolExecutor(n_jobs) as pool:
            list(pool.map(fill, range(0, n, step)))  # raises errors of tasks
        return Summary(*tables)


@dataclass(frozen=True)
class Condition:
    """The fit to one condition, such as a cell line (equation 24).

    Parameters
    ----------
    name
        Name of the condition.
    effects
        Draws of the effects in the condition; those of a perturbation without cells there are
        predicted from other conditions.
    control
        Means of its controls, shape ``(n_draws, n_genes)``, units of the data.
    n_cells
        Number of cells of each perturbation in the condition, shape ``(n_perturbations,)``.
    change
        Differences of the cells' means from its controls, 0 without cells, shape
        ``(n_perturbations, n_genes)``, units of the data.
    """

    name: str = text()
    effects: EffectDraws = nested(EffectDraws)
    control: Array = array("n_draws", "n_nodes")
    n_cells: NDArray[np.int64] = array("n_measured", dtype=np.int64)
    change: Array = array("n_measured", "n_nodes")

    def rows(self, index: ArrayLike) -> Condition:
        """Return some perturbations, in the given order."""
        selected = np.asarray(index, np.int64)
        return replace(
            self,
            effects=self.effects.rows(selected),
            n_cells=self.n_cells[selected],
            change=self.change[selected],
        )
