"""Detection of side information that contains the sampling errors of a screen's own effects.

Features are independent of the sampling errors of a screen unless they were computed from the same
cells. No function of independent features therefore predicts observed effects better than with a
mean squared error of their sampling variance, even if the features are the true effects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._blas import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

MIN_PERTURBATIONS, MIN_GENES = 8, 5  # fewer leave no freedom to compare
# Standard deviations by which residuals are smaller than sampling variance, and the share of it,
# from which features are taken for those of the same cells. In `benchmarks.shared_errors` the true
# effects, which predict best, give no alarm with them.
DEVIATIONS, SHARE = 4.0, 0.93
RIDGE = 0.1  # added to the variances of components: few cells underestimate the smallest


class SharedErrors(NamedTuple):
    """How much of the sampling variance of a screen's effects features leave unpredicted.

    Parameters
    ----------
    ratio
        Mean squared error of the best prediction over that of a prediction from true effects; at
        least 1 up to chance, unless the errors are shared.
    deviations
        Standard deviations by which ``ratio`` differs from 1.
    """

    ratio: float = 1.0
    deviations: float = 0.0

    @property
    def found(self) -> bool:
        """Whether the features contain the sampling errors of the effects."""
        return self.deviations < -DEVIATIONS and self.ratio < SHARE


@one_thread()
def shared_errors(
    effects: ArrayLike,
    variance: ArrayLike,
    correlation: ArrayLike,
    features: ArrayLike,
    same_genes: ArrayLike = (),
) -> SharedErrors:
    r"""Return the evidence that features contain the sampling errors of observed effects.

    Effects are predicted from features in three ways: from the column of the same gene, from the
    column that correlates most, and from principal components; columns, slopes and loadings are
    learned from the other half of the perturbations. On the principal components of the errors,
    which have the covariance ``C``, the residual of a perturbation's effects after regression on
    its predictions ``f`` has the expected sum of squares
    :math:`\operatorname{tr} C - f^T C f / f^T f`, plus what the features do not predict. All
    perturbations are tested, and those with the smallest predictions, whose effects consist mostly
    of errors.

    Parameters
    ----------
    effects, variance
        Observed effects and their sampling variances without that of the controls, shape
        ``(n_perturbations, n_genes)``.
    correlation
        Correlation of the errors of genes, shape ``(n_genes, n_genes)``.
    features
        Numbers of every perturbation, shape ``(n_perturbations, n_columns)``.
    same_genes
        Column of ``features`` with the name of each gene, -1 for none, shape ``(n_genes,)``.
    """
    y, v = np.asarray(effects, np.float64), np.asarray(variance, np.float64)
    x, c = np.asarray(features, np.float64), np.asarray(correlation, np.float64)
    columns = np.asarray(same_genes, np.int64)
    if len(y) < MIN_PERTURBATIONS or y.shape[1] < MIN_GENES:
        return SharedErrors()
    sd, share = np.sqrt(v), (1 / v) / (1 / v).sum(axis=0)
    y = (y - (share * y).sum(axis=0)) / sd  # also removes the error of the controls
    x = x - x.mean(axis=0)
    # Errors are made nearly independent, which gives each of their components the same weight.
    size, axes = np.linalg.eigh(c)
    size = np.maximum(size, 0.0)
    rotation = axes / np.sqrt(size + RIDGE)
    spread = size / (size + RIDGE)
    tests: list[SharedErrors] = []
    for predicted in _predictions(y * sd, x, columns):
        z = (predicted - (share * predicted).sum(axis=0)) / sd
        # Which perturbations are small depends on the features alone, not on the errors.
        length = (z**2).sum(axis=1)
        for largest in (np.inf, np.median(length)):
            is_used = (length <= largest) & (length > 1e-12)
            if is_used.sum() >= MIN_PERTURBATIONS // 2:
                freedom = 1 - share[is_used].mean(axis=1)
                tests.append(
                    _compared(y[is_used] @ rotation, z[is_used] @ rotation, freedom, spread)
                )
    return min(tests, key=lambda test: test.deviations, default=SharedErrors())


def _predictions(y: Array, x: Array, columns: Index) -> Iterator[Array]:
    """Yield effects predicted from centred features; none from the errors of the same rows."""
    if columns.size and (columns >= 0).sum() >= MIN_GENES:
        yield np.where(columns >= 0, x[:, columns], 0.0)
    even = np.arange(len(y)) % 2 == 0
    matched, components = np.zeros_like(y), np.zeros_like(y)
    u, size, _ = np.linalg.svd(x, full_matrices=False)
    rank = min(int((size > 1e-9 * max(size[0], 1e-300)).sum()), max(len(y) // 6, 1))
    scores = u[:, :rank] * size[:rank]
    for half, other in ((even, ~even), (~even, even)):
        product = x[other].T @ y[other]
        squares = (x[other] ** 2).sum(axis=0)[:, None]
        slope = product / np.where(squares > 0, squares, np.inf)
        best = (product * slope).argmax(axis=0)  # explains most of the sum of squares
        matched[half] = x[half][:, best] * slope[best, np.arange(y.shape[1])]
        components[half] = scores[half] @ np.linalg.lstsq(scores[other], y[other], rcond=None)[0]
    yield matched
    yield components


def _compared(y: Array, z: Array, freedom: Array, spread: Array) -> SharedErrors:
    """Compare residuals of effects ``y``, given predictions ``z``, with their errors.

    The errors of both have the variances ``spread``, shape ``(n_components,)``, times the share
    ``freedom`` that centring leaves of those of a perturbation.
    """
    squares = (z**2).sum(axis=1)
    residual = float(((y**2).sum(axis=1) - (y * z).sum(axis=1) ** 2 / squares).sum())
    lost = (z**2 @ spread) / squares
    expected = float((freedom * (spread.sum() - lost)).sum())
    sd = float(np.sqrt(2 * len(y) * (spread**2).sum()))
    return SharedErrors(residual / expected, (residual - expected) / sd)
