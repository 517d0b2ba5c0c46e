"""Combinations among the candidates of a plate: the nearest of all that could be made."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.plan.nearest_sums import nearest_sums
from nextpert.core.posterior.pair_shifts import pair_shifts
from nextpert.core.predict.ranked_distance import expected_states
from nextpert.tl._design_interventions.candidates import expected_members, read_candidates
from nextpert.tl._design_interventions.combined import (
    information_on_interactions,
    members_by_label,
)

if TYPE_CHECKING:
    from nextpert._adata import FittedPosterior
    from nextpert.tl._design_interventions.candidates import Candidates
    from nextpert.tl._design_interventions.excluded import Excluded
    from nextpert.tl._design_interventions.target import Wanted

LISTED = 200  # combinations of each size that join the candidates


def with_combinations(
    pool: Candidates, fit: FittedPosterior, wanted: Wanted, most_combined: int, excluded: Excluded
) -> Candidates:
    """Return the candidates with those combinations of them that are expected nearest.

    All pairs are looked at, of three and more those that a beam search reaches, by the expected
    effects of their members added up as far as the screen's combinations say they do. Those that
    are excluded by name are left out.

    Raises
    ------
    ValueError
        If no two candidates can be combined: labels have no separator, or shifts come as a table.
    """
    names = pool.interventions.names
    separator = str(fit.params["separator"])
    single = [i for i, name in enumerate(names) if len(members_by_label(name, fit)) == 1]
    if not separator or len(single) < 2 or pool.interventions.sources[0] == "table":
        message = (
            "Combinations need a separator of labels, and at least two single candidates whose "
            "shifts are as fitted: use most_combined=1."
        )
        raise ValueError(message)
    states = expected_states(pair_shifts(fit.posteriors, fit.known(pool.prior)))
    effects = (states[:-1] - states[-1])[single]
    point, scale = wanted.goal.quadratic(states[-1])
    told = None if fit.expectation is None else fit.expectation.interactions
    adds = 1.0 if told is None else told.strength
    root = np.sqrt(scale)
    known = {members_by_label(name, fit) for name in names}
    found = list(names)
    for size in range(2, min(most_combined, len(single)) + 1):
        near = nearest_sums(adds * effects * root, (point - states[-1]) * root, size, LISTED)
        for members in near.members:
            label = separator.join(
                sorted(members_by_label(names[single[i]], fit)[0] for i in members)
            )
            if members_by_label(label, fit) not in known and not excluded.holds(label, (), fit):
                found.append(label)
    return read_candidates(found, None, fit)


def teaches_interactions(pool: Candidates, fit: FittedPosterior, n_cells: int) -> str:
    """Return the combination that would teach most of interactions; empty where there is none."""
    if fit.params["shift_sd"] != "learned" or pool.interventions.sources[0] == "table":
        return ""
    told = information_on_interactions(
        pool.interventions.names, fit, partial(expected_members, fit=fit), n_cells
    )
    return max(told, key=lambda name: told[name]) if told else ""
