"""How well few cells tell an effect, by draws of cells rather than by normal numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from nextpert.core._checks import as_rng
from nextpert.core.cells.mean_distance import require_confidence

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.plan.power import EffectPrecision

    Array = NDArray[np.float64]

_VALUES = 4_000_000  # numbers drawn at once


def drawn_power(
    plan: EffectPrecision,
    cells: ArrayLike,
    n_cells: ArrayLike,
    effect: float,
    confidence: float = 0.95,
    *,
    n_draws: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> Array:
    """Return the probability that Welch's two-sided test finds an effect, by draws of cells.

    Logarithms of counts are no normal numbers: of 10 cells of real screens the power is up to 17
    points off that of :meth:`~nextpert.core.plan.power.EffectPrecision.power` in a gene. Here cells
    are drawn with replacement from some that were measured, scaled to the variance of the plan and
    moved by the effect, up and down by turns: few skewed cells find a rise and a fall by no means
    alike. What guides and replicates add, and the error of the controls' mean, is drawn as normal.

    Parameters
    ----------
    plan
        Variances, controls, guides and replicates.
    cells
        Cells to draw from, such as controls less what their batches add, shape
        ``(n, n_nodes)``, at least 2, units of the data.
    n_cells
        Numbers of cells of a perturbation, ascending, at least 2, shape ``(n_sizes,)``. Larger
        numbers use the cells of the smaller ones.
    effect
        In units of the data.
    confidence
        One less the level of the test.
    n_draws
        Number of draws.
    rng
        Seed or generator.

    Returns
    -------
    ~numpy.ndarray
        Shape ``(n_sizes, n_nodes)``.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.drawn_power import drawn_power
    >>> from nextpert.core.plan.power import EffectPrecision
    >>> cells = np.random.default_rng(0).normal(size=(2000, 1))
    >>> plan = EffectPrecision([1.0], [1.0], n_control=1e6)
    >>> plan.power([10], 1.0).round(2).tolist()
    [[0.8]]
    >>> bool(abs(drawn_power(plan, cells, [10], 1.0, rng=0) - 0.8) < 0.04)
    True
    """
    require_confidence(confidence)
    generator, sizes = as_rng(rng), np.asarray(n_cells, np.int64)
    x = np.asarray(cells, np.float64)
    x = x - x.mean(axis=0)
    sd = x.std(axis=0)
    variance = np.broadcast_to(np.asarray(plan.variance, np.float64), sd.shape)
    x *= np.sqrt(variance) / np.where(sd > 0, sd, 1.0)
    other = np.asarray(plan.control_variance) * plan.control_layout.spread(plan.n_control)
    quantile = _Quantile(confidence)
    found = np.zeros((len(sizes), x.shape[1]))
    at_once = max(1, _VALUES // max(int(sizes[-1]) * x.shape[1], 1))
    for start in range(0, n_draws, at_once):
        n = min(at_once, n_draws - start)
        sign = np.where(np.arange(start, start + n) % 2, -1.0, 1.0)[:, None]
        chosen = x[generator.integers(len(x), size=(int(sizes[-1]), n))]
        # Guides and replicates scatter alike at every size.
        apart = np.sqrt(variance * plan.layout.floor + other)
        away = sign * effect + apart * generator.standard_normal((n, x.shape[1]))
        sums, squares, last = np.zeros(away.shape), np.zeros(away.shape), 0
        for i, size in enumerate(sizes.tolist()):
            part, last = chosen[last:size], size
            sums += part.sum(axis=0)
            squares += (part**2).sum(axis=0)
            mean = sums / size
            own = np.maximum(squares / size - mean**2, 0.0) * size / (size - 1)
            own *= float(plan.layout.spread(size))
            total = np.maximum(own + other, np.finfo(float).tiny)
            rest = (own / total) ** 2 / (size - 1)
            rest += (other / total) ** 2 / max(plan.n_control - 1, 1.0)
            found[i] += (np.abs(mean + away) > quantile(rest) * np.sqrt(total)).sum(axis=0)
    return found / n_draws


class _Quantile:
    """Two-sided quantiles of Student's t distribution by one over the degrees of freedom."""

    def __init__(self, confidence: float) -> None:
        self.at = np.linspace(0, 1, 1001)[1:] ** 2
        self.values = student.ppf((1 + confidence) / 2, 1 / self.at)

    def __call__(self, inverse: Array) -> Array:
        return np.interp(inverse, self.at, self.values)
