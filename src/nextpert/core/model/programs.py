"""Gene programs that perturbations share, from draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from nextpert.core._blas import in_blocks, one_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from nextpert.core.model.effect_draws import EffectDraws
    from nextpert.core.model.hierarchical import Hierarchical

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_MAX_PROGRAMS = 20  # maximum number of programs
# Maximum number of perturbations compared, those with the largest effects: products of 1,000 on
# 1,000 genes take seconds, products of 10,000 minutes.
MAX_COMPARED = 1000
CLEAR = 3.0  # standard deviations from 0 that a program, or a score on it, must exceed
_PART = 0.25  # minimum score to share a program, relative to the largest score
_DRAWS = 100  # maximum number of draws for standard deviations
_MAX_HELD = 25_000_000  # maximum effects times draws that are held in memory: 200 MB
_TURNS, _STILL = 200, 1e-9  # maximum number of iterations, and tolerance of convergence


class Programs(NamedTuple):
    """Programs that perturbations share, ordered by their share of the effects.

    The effects are approximately ``scores @ genes``. The largest score on a program is 1, so that
    ``genes`` is the effect of the program in the perturbation with the largest score.

    Parameters
    ----------
    scores, scores_sd
        Scores of perturbations, and their standard deviations, shape
        ``(n_perturbations, n_programs)``.
    genes, genes_sd
        Effect of a score of 1 on every gene, and its standard deviation, shape
        ``(n_programs, n_genes)``, units of the data.
    share
        Share of the squared differences of means from the controls that each program explains,
        shape ``(n_programs,)``, 0 to 1, descending. The rest is other effects and cell noise.
    """

    scores: Array
    scores_sd: Array
    genes: Array
    genes_sd: Array
    share: Array

    @property
    def takes_part(self) -> Mask:
        """Whether each perturbation takes part in each program, same shape as ``scores``."""
        return _takes_part(self.scores, self.scores_sd)


def _takes_part(scores: Array, sd: Array) -> Mask:
    size = np.abs(scores)
    return (size > CLEAR * sd) & (size > _PART * size.max(axis=0, initial=0.0))


def strongest(mean: Array) -> NDArray[np.int64]:
    """Return the perturbations with the largest effects, at most :data:`MAX_COMPARED`, in order.

    ``mean`` are posterior means in units of cells, 0 for target genes; the size is the sum of their
    squares.
    """
    size = (mean**2).sum(axis=1)
    return np.sort(np.argsort(-size, kind="stable")[:MAX_COMPARED])


@one_thread()
def find_programs(fit: Hierarchical, targets: Mask) -> Programs:
    """Return the gene programs that two or more perturbations share (equation 22).

    With effects in units of the standard deviation of genes between cells, the products of the
    effects of two perturbations, summed over genes, are ``A A'`` plus a diagonal of specific
    effects. The loadings ``A`` are found by principal-axis factoring, with as many columns as there
    are directions in which draws of the products are three standard deviations above 0, and rotated
    by varimax (Kaiser 1958, doi:10.1007/BF02289233). A program has at least two perturbations with
    scores above a quarter of the largest and three standard deviations from 0. With more than 1,000
    perturbations, programs are learned from the 1,000 with the largest effects, and scores are
    computed for all. ``targets`` marks the target genes of each perturbation, which are left out of
    all sums.
    """
    effects, unit = fit.effects, fit.effects.unit
    mean = _in_others(effects.posterior_mean(), effects, targets)
    among = strongest(mean)
    strong_mean, strong, strong_targets = mean[among], effects.rows(among), targets[among]
    compared: Iterable[Array] = _taken(strong, strong_targets)
    # If all are compared, and their draws fit into memory, these are drawn once.
    is_held = len(among) == len(mean) and mean.size * min(_DRAWS, effects.n_draws) <= _MAX_HELD
    compared = list(compared) if is_held else compared
    products = _Products(strong_mean)
    base = _varimax(_loadings(products, _clear(products, compared)))
    # Genes regressed on loadings, then perturbations on genes: (D'D)^-1 D' x with separate D.
    by_base = _inverses(base, (~strong_targets).T)
    genes = np.einsum("ikl,il->ki", by_base, strong_mean.T @ base)
    by_genes = np.concatenate(
        [_inverses(genes.T, ~targets[rows]) for rows in in_blocks(*mean.shape)]
    )
    scores = np.einsum("jkl,jl->jk", by_genes, mean @ genes.T)
    # The same regressions on every draw give the standard deviations.
    drawn = []
    for x in compared if is_held else _taken(effects, targets):
        of_genes = np.einsum("ikl,il->ki", by_base, x[among].T @ base)
        drawn.append((of_genes, np.einsum("jkl,jl->jk", by_genes, x @ genes.T)))
    genes_sd, scores_sd = (np.std(values, axis=0) for values in zip(*drawn, strict=True))
    shared = np.flatnonzero(_takes_part(scores, scores_sd).sum(axis=0) > 1)
    # |A_.k|^2 |genes_k|^2, divided by all squared differences of means.
    share = (scores[:, shared] ** 2).sum(axis=0) * (genes[shared] ** 2).sum(axis=1)
    share = np.minimum(share / fit.squares.mean(), 1.0)
    order = shared[np.argsort(-share)]
    scores, genes = scores[:, order], genes[order]
    scale = scores[np.abs(scores).argmax(axis=0), np.arange(len(order))]
    return Programs(
        scores / scale,
        scores_sd[:, order] / np.abs(scale),
        genes * scale[:, None] * unit,
        genes_sd[order] * np.abs(scale)[:, None] * unit,
        np.sort(share)[::-1],
    )


def _taken(effects: EffectDraws, targets: Mask) -> Iterator[Array]:
    """Yield draws of effects as in :func:`_in_others`; large screens have fewer."""
    for drawn in effects.draws(min(_DRAWS, effects.n_draws), rng=0):
        yield _in_others(drawn, effects, targets)


def _in_others(values: Array, effects: EffectDraws, targets: Mask) -> Array:
    """Return effects in units of ``effects.unit``, 0 for the target genes of each perturbation.

    ``values`` is changed in place, because a copy for a large screen might not fit into memory.
    """
    values /= effects.unit
    values[targets] = 0.0
    return values


def _inverses(design: Array, included: Mask) -> Array:
    """Return the inverses of ``D' diag(w) D`` for ``m`` regressions with some rows of a design.

    ``design`` has the shape ``(n, k)``, ``included`` ``(m, n)``, and the result ``(m, k, k)``.
    """
    k = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), k * k)
    products = (included.astype(np.float64) @ squares).reshape(len(included), k, k)
    return np.asarray(np.linalg.pinv(products, hermitian=True), np.float64)


def _clear(products: _Products, draws: Iterable[Array]) -> int:
    """Return the number of directions in which draws of the products are clearly above 0."""
    # The diagonal contains specific effects and noise, and is left out.
    n = len(products.effects)
    values, vectors = products.largest(np.zeros(n), min(_MAX_PROGRAMS, n))
    vectors = vectors[:, values > 0]
    # v' (X X' without its diagonal) v, for every direction v and draw X.
    drawn = [((vectors.T @ x) ** 2).sum(axis=1) - (x**2).sum(axis=1) @ vectors**2 for x in draws]
    clear = np.mean(drawn, axis=0) > CLEAR * np.std(drawn, axis=0)
    return int(clear.size if clear.all() else clear.argmin())


def _loadings(products: _Products, n_programs: int) -> Array:
    """Return loadings ``(n, n_programs)`` with the given products, except on the diagonal."""
    loadings = np.zeros((len(products.effects), n_programs))
    for _ in range(_TURNS if n_programs else 0):
        # The diagonal comes from the loadings; A of A A' from the largest eigenvalues.
        diagonal = (loadings**2).sum(axis=1)
        values, vectors = products.largest(diagonal, n_programs)
        loadings = vectors * np.sqrt(np.maximum(values, 0.0))
        if np.abs((loadings**2).sum(axis=1) - diagonal).max() < _STILL:
            break
    return loadings


class _Products:
    """The products of the effects of perturbations, with another diagonal."""

    def __init__(self, effects: Array) -> None:
        self.effects, self.diagonal = effects, (effects**2).sum(axis=1)
        n, p = effects.shape
        # With few genes, a product with a vector takes longer from the matrix than from effects.
        self.matrix = effects @ effects.T if 2 * p >= n or n <= 4 * _MAX_PROGRAMS else None

    def largest(self, diagonal: Array, k: int) -> tuple[Array, Array]:
        """Return the ``k`` largest eigenvalues, and their vectors as columns."""
        n, effects, added = len(diagonal), self.effects, diagonal - self.diagonal
        if self.matrix is None:
            matrix = LinearOperator(
                (n, n), lambda v: effects @ (v @ effects) + added * v, dtype=np.float64
            )
        else:
            matrix = self.matrix + np.diag(added)
        # Lanczos' method requires few of many eigenvalues.
        if 4 * k >= n:
            values, vectors = np.linalg.eigh(matrix)
        else:
            values, vectors = eigsh(matrix, k, which="LA", v0=np.ones(n))
        order = np.argsort(-values)[:k]
        return values[order], vectors[:, order]


def _varimax(base: Array) -> Array:
    """Return columns after the varimax rotation, which maximises the variance of their squares."""
    n, k = base.shape
    turn, before = np.eye(k), 0.0
    for _ in range(_TURNS if k > 1 else 0):
        # Maximise the variance of squared loadings, with one SVD per step (Kaiser 1958).
        turned = base @ turn
        left_vectors, size, right = np.linalg.svd(
            base.T @ (turned**3 - turned * (turned**2).sum(axis=0) / n)
        )
        turn = left_vectors @ right
        if size.sum() < before * (1.0 + _STILL):
            break
        before = size.sum()
    return base @ turn
