"""What is expected of combinations without cells: their members, and interactions as learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.members import effects_alone, numbered, pooled
from nextpert.core.effects.averaged import Averaged
from nextpert.core.effects.interactions import Together, learn_interactions
from nextpert.core.effects.perturbations import Perturbations
from nextpert.core.effects.predictors.mean_perturbation import MeanPerturbation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.effects.interactions import Interactions

    Array = NDArray[np.float64]


def members_by_label(label: str, fit: FittedPosterior) -> tuple[str, ...]:
    """Return the members that a label names, as the fit reads labels."""
    return fit.naming.members(label)


def members_seen(fit: FittedPosterior) -> set[str]:
    """Return all members that some perturbation of the fit holds, alone or in a combination."""
    labels = fit.environments["perturbation"].astype(str)
    return {member for label in labels for member in members_by_label(label, fit)}


def told_in_company(fit: FittedPosterior) -> set[tuple[str, ...]]:
    """Return the members that measured combinations tell of, each as the members of a label."""
    if fit.expectation is None or fit.expectation.interactions is None:
        return set()
    labels = fit.environments["perturbation"].astype(str)
    several = (some for x in labels if len(some := members_by_label(x, fit)) > 1)
    return {(member,) for some in several for member in some}


def with_combinations(
    prior: Averaged,
    names: Sequence[str],
    fit: FittedPosterior,
    expect: Callable[[list[str]], Averaged],
) -> Averaged:
    """Return the prior with combinations that have no cells as their members do together.

    And with single members that have cells in combinations only, by what these say of them.

    Parameters
    ----------
    prior
        Prior of the perturbations.
    names
        Their labels.
    fit
        The fit.
    expect
        Returns the prior of members without cells of their own.
    """
    rows, members = _without_cells(names, fit, company=True)
    if not rows:
        return prior
    within = _within(fit)
    known, numbers = _interactions(members, fit, within, expect)
    mean, variance = known.predict(numbers)
    together = Together(np.array(rows), mean, variance, np.zeros_like(mean))
    return Averaged(
        tuple(
            replace(m, prior=together.told(m.prior, m.posteriors[0].noise_var / within))
            for m in prior.models
        )
    )


def shared_with_controls(names: Sequence[str], fit: FittedPosterior) -> tuple[list[int], Array]:
    """Return the combinations without cells, and how far the controls' mean is in what they do.

    Effects of members are differences from the controls' mean, as far as cells are believed of
    them; of a member without cells only the mean perturbation is such a difference.

    Returns
    -------
    rows
        Places among ``names`` of combinations without cells.
    shared
        Share of the sampling error of the controls' mean in the effect expected of each, shape
        ``(len(rows), n_genes)``.
    """
    rows, members = _without_cells(names, fit, company=True)
    used = [members_by_label(str(name), fit) for name in fit.environments["perturbation"]]
    row = {some[0]: j for j, some in enumerate(used) if len(some) == 1}
    known = fit.averaged.known()
    believed = np.sum([each.weight * each.share for each in known], axis=0)
    strength, expected = 1.0, np.zeros(len(fit.genes))
    if fit.expectation is not None:
        expected += fit.expectation.weights.get(MeanPerturbation.name, 0.0)
        if fit.expectation.interactions is not None:
            strength = fit.expectation.interactions.strength
    shared = np.zeros((len(rows), len(fit.genes)))
    for each, some in zip(shared, members, strict=True):
        each += np.sum([believed[row[m]] if m in row else expected for m in some], axis=0)
        each *= strength if len(some) > 1 else 1.0
    return rows, shared


def information_on_interactions(
    names: Sequence[str],
    fit: FittedPosterior,
    expect: Callable[[list[str]], Averaged],
    n_cells: int,
) -> dict[str, float]:
    """Return what cells of each combination without cells would tell of interactions, in nats.

    That is of what is not known of how far effects add up and of what its members do in company,
    against its own rest and the cells' noise, summed over genes.

    Parameters
    ----------
    names, fit, expect
        As in :func:`with_combinations`.
    n_cells
        Cells of a combination.
    """
    rows, members = _without_cells(names, fit)
    if not rows:
        return {}
    within = _within(fit)
    known, numbers = _interactions(members, fit, within, expect)
    _, variance = known.predict(numbers)
    rest = (known.rest_sd * known.scale) ** 2
    alone = np.array([known.variance[list(some)].sum(axis=0) for some in numbers])
    shared = np.maximum(variance - rest - known.strength**2 * alone, 0.0)
    told = 0.5 * np.log1p(shared / (rest + within / n_cells)).sum(axis=1)
    return {names[i]: float(nats) for i, nats in zip(rows, told, strict=True)}


def _without_cells(
    names: Sequence[str], fit: FittedPosterior, *, company: bool = False
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the places of combinations without cells, and their members.

    With ``company`` of members, too, that have cells in combinations alone.
    """
    used = {str(name) for name in fit.environments["perturbation"]}
    every = [members_by_label(name, fit) for name in names]
    told = told_in_company(fit) if company else set()
    rows = [
        i for i, some in enumerate(every)
        if names[i] not in used and (len(some) > 1 or some in told)
    ]  # fmt: skip
    return rows, [every[i] for i in rows]


def _within(fit: FittedPosterior) -> Array:
    """Return the variance of cells of one perturbation, ``(n_genes,)``."""
    if fit.expectation is None:
        return fit.posterior.noise_var
    variance = Perturbations(fit.expectation.screen, 0, [], []).covariance().diagonal()
    return np.maximum(variance, np.finfo(np.float64).tiny)


def _labels(
    wanted: Sequence[tuple[str, ...]], used: Sequence[str], fit: FittedPosterior
) -> tuple[list[str], list[int], list[tuple[int, ...]]]:
    """Return all members, and rows of the fit and members of its measured combinations."""
    measured = [members_by_label(name, fit) for name in used]
    rows = [j for j, some in enumerate(measured) if len(some) > 1]
    if fit.expectation is None or fit.expectation.interactions is None:
        rows = []
    labels, numbers = numbered([*(measured[j] for j in rows), *wanted])
    return labels, rows, numbers[: len(rows)]


def _interactions(
    wanted: Sequence[tuple[str, ...]],
    fit: FittedPosterior,
    within: Array,
    expect: Callable[[list[str]], Averaged],
) -> tuple[Interactions, list[list[int]]]:
    """Return the interactions of the fit, and the members of the combinations wanted in it."""
    used = [str(name) for name in fit.environments["perturbation"]]
    labels, rows, combined = _labels(wanted, used, fit)
    single = {
        some[0]: j for j, name in enumerate(used) if len(some := members_by_label(name, fit)) == 1
    }
    other = {} if fit.expectation is None else fit.expectation.other
    alone, variance = np.full((2, len(labels), len(fit.genes)), np.nan)
    cells = [k for k, label in enumerate(labels) if label in single]
    without = [
        k for k, label in enumerate(labels)
        if label not in single and (label in fit.genes or label in other)
    ]  # fmt: skip
    if cells:
        seen = fit.averaged.rows([single[labels[k]] for k in cells])
        alone[cells], variance[cells] = effects_alone(seen.posteriors, seen.known(), within)
    if without:
        unseen = expect([labels[k] for k in without])
        alone[without], variance[without] = effects_alone(unseen.posteriors, unseen.known(), within)
    effects, noise = np.zeros((2, len(rows), len(fit.genes)))
    told = None if fit.expectation is None else fit.expectation.interactions
    if fit.expectation is not None and rows:
        found = Perturbations(fit.expectation.screen, 0, 1 + np.array(rows), [()] * len(rows))
        combined, effects, noise, _ = pooled(combined, found.observed, found.variance)
    scale: Array | None = None if cells else np.sqrt(within)
    learned = None
    if told is not None:
        scale = told.scale
        learned = told.member_sd, told.rest_sd, told.strengths, told.chances
    known = learn_interactions(
        alone, variance, combined, effects, noise, scale=scale, learned=learned
    )
    place = {label: k for k, label in enumerate(labels)}
    return known, [[place[member] for member in some] for some in wanted]
