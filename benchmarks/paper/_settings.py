"""Models and targets of the experiments: one setting per panel, one seed per instance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np

from nextpert.core import Dag, DagBlr, LinearScm, perturb_dag, random_scm, random_target

Array = np.ndarray
PRIORS: dict[str, float | str] = {"fixed": 1.0, "learned": "evidence"}


@dataclass(frozen=True)
class Setting:
    """A family of models and targets, and how far the graph of the posterior is from the truth."""

    name: str
    n_nodes: int = 30
    family: str = "complete"
    density: float = 0.5  # of Erdos-Renyi graphs: probability of an edge
    n_targets: int = 10
    where: str = "downstream"
    n_missing: int = 0
    n_extra: int = 0
    n_reversed: int = 0
    changeable: int = 0  # smallest number of edges, and of pairs without one


@dataclass(frozen=True)
class Instance:
    """One model with its target, and the graph that the posterior is given."""

    scm: LinearScm
    shift: Array
    target_mean: Array
    dag: Dag


def _draw_scm(setting: Setting, seed: int) -> LinearScm:
    """Draw the model; graphs in which too few edges can be changed are drawn anew."""
    p, degree = setting.n_nodes, setting.density * (setting.n_nodes - 1)
    for attempt in count():
        rng = np.random.default_rng([seed, 0] if attempt == 0 else [seed, 0, attempt])
        scm = random_scm(p, setting.family, expected_degree=degree, rng=rng)
        edges = scm.dag.n_edges
        if setting.changeable <= min(edges, p * (p - 1) // 2 - edges):
            break
    return scm


@lru_cache(maxsize=256)
def instance(setting: Setting, seed: int) -> Instance:
    """Draw the instance of a seed; every seed is a different model and target."""
    scm = _draw_scm(setting, seed)
    shift, target = random_target(
        scm, setting.n_targets, where=setting.where, rng=np.random.default_rng([seed, 1])
    )
    dag = perturb_dag(
        scm.dag,
        n_missing=setting.n_missing,
        n_extra=setting.n_extra,
        n_reversed=setting.n_reversed,
        rng=np.random.default_rng([seed, 2]),
    )
    return Instance(scm, shift, target, dag)


def task(
    setting: Setting, seed: int, run: int, acquisition: str, prior: str, n_rounds: int
) -> dict[str, object]:
    """Return the arguments of one campaign; one seed for all acquisitions and priors."""
    drawn = instance(setting, seed)
    return {
        "source": drawn.scm,
        "posterior": DagBlr(
            drawn.dag,
            noise_var=drawn.scm.noise_var,
            intercept=False,
            prior_scale=PRIORS[prior],
            prior_units="noise" if prior == "learned" else "data",
        ),
        "target_mean": drawn.target_mean,
        "acquisition": acquisition,
        "n_rounds": n_rounds,
        "rng": [seed, 3, run],
    }
