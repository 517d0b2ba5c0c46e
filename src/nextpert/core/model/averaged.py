"""Models with and without graph and predictors, averaged by how well they estimate the cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core.graph.dag import Dag
from nextpert.core.model.dag_blr import DagBlr
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.random_shifts import RandomShifts, learn_mixtures, refit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.interactions import Together
    from nextpert.core.model.predictors.base import Prediction
    from nextpert.core.model.shift_posterior import ShiftPosterior
    from nextpert.core.model.shift_prior import ShiftPrior
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]


def with_expectation(
    prior: ShiftPrior, own: Array, predictions: Sequence[Prediction], weights: Mapping[str, Array]
) -> ShiftPrior:
    """Return the prior with the effects that weighted predictors expect.

    The graph's part is given as a shift of the target genes, so that what is not known of the
    graph's weights is not known of it either; that of the others as an effect.

    Parameters
    ----------
    prior
        The prior to change.
    own
        Expected change of target genes, 0 elsewhere, shape ``(n_perturbations, n_nodes)``, units
        of the data.
    predictions
        What predictors expect of these perturbations; the graph's own is not read.
    weights
        Weight of each predictor, by name, for each perturbation, shape ``(n_perturbations,)``.
    """
    effect = np.zeros_like(own)
    for each in predictions:
        if each.name != Graph.name and weights[each.name].any():
            effect += weights[each.name][:, None] * each.effects
    shift = weights.get(Graph.name, np.zeros(len(own)))[:, None] * own
    return replace(prior, shift=shift, effect=effect + own - shift)


def unseen_mixture(
    cells: PooledGuides, found: RandomShifts, expected: Array, together: Together | None = None
) -> Array:
    """Return the weights of the prior variances for perturbations without cells.

    They are learned from what perturbations differ by from the effects expected without their
    cells, in units of a gene's variance and on no graph. So the error of the graph and of other
    predictors, own changes that are not known, and shifts of many genes together are all in them. A
    shift of each gene ``i`` with the variance ``tau^2 sigma_i^2`` is one of ``tau^2`` times the
    variance of cells in every effect, whatever the graph: they serve as weights for shifts.

    Parameters
    ----------
    cells
        The controls, and then the perturbations.
    found
        The fit to them.
    expected
        Effect expected of every perturbation without its cells, shape
        ``(n_perturbations, n_nodes)``, units of the data.
    together
        What is expected of combinations, which are no matter of the mixture.
    """
    empty = DagBlr(Dag.from_edges(cells.mean.shape[1], []))
    prior = replace(found.prior, shift=expected, effect=np.zeros_like(expected))
    single = np.ones(len(expected), bool)
    if together is not None:
        prior = together.told(prior, np.ones(expected.shape[1]))
        single[together.rows] = False
    weights = learn_mixtures(refit(empty, cells, found), prior).weights
    return weights[single if single.any() else ~single].mean(axis=0)


_STEPS = 40  # of the grid of weights, from 0 to 1
_LEAST = 0.02  # the weight that a model has to have


@dataclass(frozen=True)
class AveragedModel:
    """One account of a screen: posteriors on graphs, which count alike, and a prior of shifts."""

    posteriors: Sequence[DagBlr]
    prior: ShiftPrior
    weight: float = 1.0
    name: str = ""

    @property
    def has_edges(self) -> bool:
        """Whether any of its graphs has edges."""
        return any(blr.dag.n_edges for blr in self.posteriors)


@dataclass(frozen=True)
class Averaged:
    """The perturbations of a screen by several models; the first is on the graph.

    Parameters
    ----------
    models
        The models, of the same perturbations, with the weight of each.
    """

    models: tuple[AveragedModel, ...]

    @property
    def posteriors(self) -> list[DagBlr]:
        """The posteriors of all models, one after the other."""
        return [blr for model in self.models for blr in model.posteriors]

    @property
    def priors(self) -> list[ShiftPrior]:
        """The prior of shifts that goes with each."""
        return [model.prior for model in self.models for _ in model.posteriors]

    @property
    def weights(self) -> Array:
        """The weight of each."""
        each = [[m.weight / len(m.posteriors)] * len(m.posteriors) for m in self.models]
        return np.concatenate(each)

    @property
    def graph_weight(self) -> float:
        """What models on graphs with edges count for together, 0 to 1."""
        return sum(model.weight for model in self.models if model.has_edges)

    @property
    def main(self) -> ShiftPrior:
        """The prior of shifts on the graph."""
        return self.models[0].prior

    def known(self) -> list[ShiftPosterior]:
        """Return what is known of the shifts with each of the posteriors."""
        return [
            replace(
                model.prior.given(blr),
                weight=model.weight / len(model.posteriors),
                group=int(not model.has_edges),
            )
            for model in self.models
            for blr in model.posteriors
        ]

    def rows(self, index: ArrayLike) -> Averaged:
        """Return some perturbations, in the order given."""
        return Averaged(tuple(replace(m, prior=m.prior.rows(index)) for m in self.models))

    def joined(self, unseen: ShiftPrior) -> Averaged:
        """Return these perturbations and then others, of which all models expect the same.

        What follows of their shifts on the graph is given as an effect where there is none.
        """
        told = as_effects(unseen, self.models[0].posteriors)
        return Averaged(
            tuple(
                replace(m, prior=m.prior.joined(unseen if m.has_edges else told))
                for m in self.models
            )
        )

    def on_graph(self, prior: ShiftPrior) -> Averaged:
        """Return perturbations whose shifts were told: these act on the graph, that is given."""
        first, *others = (replace(m, prior=prior, weight=0.0) for m in self.models)
        return Averaged((replace(first, weight=1.0), *others))


def as_effects(prior: ShiftPrior, posteriors: Sequence[DagBlr]) -> ShiftPrior:
    """Return the prior with what is expected to follow on graphs told as an effect."""
    shift = np.ascontiguousarray(prior.shift.T)
    follows = np.mean([blr.solve(shift).T for blr in posteriors], axis=0)
    return replace(prior, shift=np.zeros_like(prior.shift), effect=prior.effect + follows)


@one_thread()
def learn_average(models: Sequence[AveragedModel], covariance: ArrayLike) -> Array:
    r"""Return expected weights of models by the error of their means (13): at least 0, of sum 1.

    The means of all perturbations are estimated by :math:`\sum_k w_k m_k(x)`, ``m_k`` those that a
    model makes of the cells' means ``x``. Genes are in units of their standard deviation within
    perturbations, so that no weight depends on the units of a gene. Stein's unbiased estimate of
    the squared error (Stein 1981, doi:10.1214/aos/1176345632) is ``Q(w) = |x - m|^2 +
    2 tr(dm/dx Cov(x))`` less a constant: how far the estimate is from the cells, and how far it
    follows their noise. No cells are held out, and nothing of a model need be true: the evidence
    prefers a graph that copies how the noise of genes is correlated, even where it is wrong of
    effects.

    ``Q`` itself is noisy: where few perturbations have few cells, the weights that make it least
    are those of a lucky model as often as not, and an overconfident model may get all. Between
    two models that differ by ``d`` their sampling variance is :math:`\lambda / |d|^2`,
    :math:`\lambda = d' Cov(x) d / |d|^2`; so :math:`\exp(-Q(w) / 2 \lambda)` is the likelihood of
    the best weights. All weights are as likely before, and their expectation is returned. For
    more models ``lambda`` is that of all their differences.

    With ``T = (I - B)^-1``, ``dm/dx = T diag(n spare) (I - B)``: the slope of a shift's posterior
    mean on what cells depart by is its posterior variance over that of the noise. What weights and
    mixtures learn of a perturbation's own mean, one of many, is left out.

    Parameters
    ----------
    models
        Models of the same perturbations; their ``weight`` is not read.
    covariance
        Covariance of cells within perturbations, shape ``(n_nodes, n_nodes)``, squared units of
        the data.

    Returns
    -------
    ndarray
        Weights, shape ``(n_models,)``; all on the first where no perturbation has cells. A model
        of less than a fiftieth is left out.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, ScreenMoments
    >>> from nextpert.core.screen.guides import pool_guides
    >>> from nextpert.core.model.averaged import AveragedModel, learn_average
    >>> from nextpert.core.model.random_shifts import fit_random_shifts
    >>> rng, group = np.random.default_rng(0), np.repeat(np.arange(41), [1000, *[20] * 40])
    >>> x = rng.normal(size=(1800, 8))
    >>> x[:, 0] += np.append(0.0, rng.normal(size=40))[group]
    >>> x[:, 1:] += x[:, :1]  # gene 0 regulates all others, and is what is perturbed
    >>> cells = pool_guides(ScreenMoments.from_array(x, group, 41), range(41), 41)
    >>> graphs = ([(0, i) for i in range(1, 8)], [(i, 0) for i in range(1, 8)])
    >>> fits = [
    ...     fit_random_shifts(DagBlr(Dag.from_edges(8, edges)), cells, np.zeros((40, 8)))
    ...     for edges in graphs
    ... ]
    >>> models = [AveragedModel([fit.posterior], fit.prior) for fit in fits]
    >>> bool(learn_average(models, cells.scatter / (1800 - 41))[0] > 0.5)
    True
    """
    seen = np.flatnonzero(models[0].prior.n > 0)
    if not len(seen):
        return np.eye(len(models))[0]
    within = np.asarray(covariance, np.float64)
    sd = np.sqrt(np.where(within.diagonal() > 0, within.diagonal(), 1.0))
    found = [_estimated(replace(m, prior=m.prior.rows(seen)), within) for m in models]
    x, n = models[0].prior.mean[seen] / sd, models[0].prior.n[seen]
    means = np.array([mean for mean, _ in found]) / sd
    away, apart = means - x, means - means.mean(axis=0)
    noise = float(((apart @ (within / np.outer(sd, sd))) * apart / n[:, None]).sum())
    between = float((apart**2).sum())
    if between <= 1e-20 * float((away**2).sum()):  # they say the same: none is better
        return np.full(len(models), 1.0 / len(models))
    away = away.reshape(len(models), -1)
    follows = np.array([(follows / sd**2).sum() for _, follows in found])
    return _expected_weights(away @ away.T, follows, noise / between)


def _estimated(model: AveragedModel, within: Array) -> tuple[Array, Array]:
    """Return the means by a model, and the covariance of each gene's with that of the cells.

    The covariances, ``(n_nodes,)``, are sums over perturbations; their sum is the trace.
    """
    prior = model.prior
    counted = prior.counted()
    mean, follows = np.zeros_like(prior.mean), np.zeros(prior.mean.shape[1])
    for blr in model.posteriors:
        known = prior.given(blr)
        mean += known.states(blr) / len(model.posteriors)
        slope = counted * known.spare
        if blr.dag.n_edges:
            total = blr.solve(np.eye(len(within)))
            passed = slope @ (total.T * (within - blr.mean() @ within))
        else:
            passed = slope * within.diagonal()
        follows += (passed / counted).sum(axis=0)
    return mean, follows / len(model.posteriors)


def _expected_weights(gram: Array, follows: Array, noise: float) -> Array:
    """Return the mean of ``w`` of density ``exp(-(w'Gw + 2 w'f) / 2 noise)`` on the simplex."""
    every = _simplex(len(follows))
    value = ((every @ gram) * every).sum(axis=1) + 2.0 * every @ follows
    chance = np.exp(-0.5 * (value - value.min()) / max(noise, 1e-300))
    weights = chance @ every / chance.sum()
    weights[weights < _LEAST] = 0.0
    return weights / weights.sum()


def _simplex(k: int) -> Array:
    """Return an even grid of weights of ``k`` models, shape ``(n, k)``."""
    bars = np.array(list(combinations(range(_STEPS + k - 1), k - 1)), np.int64)
    ends = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, _STEPS + k - 1)))
    return (np.diff(ends, axis=1) - 1) / _STEPS
