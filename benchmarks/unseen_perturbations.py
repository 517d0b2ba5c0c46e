"""Unseen perturbations: predictions by single predictors, and by their weighted sum.

Each perturbation is left out of the graph, of the data of every predictor, and of the weights,
which are learned by leaving out the others in turn. Its effect on the other genes is then predicted
from the measured change of its own gene. Perturbations without a measured target are left out too;
only the mean of the others predicts them. The tables have the mean correlation (0 where a
prediction is constant), the total squared error relative to that of "no effect", the same with
sampling error subtracted from both (a predictor that shares the controls' error with the measured
effects predicts that error, too), and the mean weights. A stack is the weighted sum; its weights
use the graph learned without the outer perturbation also for the inner ones, which that graph has
seen. With "own change expected", the change of the own gene is not known, but expected from the
efficacy of the others.

    python -m benchmarks.unseen_perturbations
    python -m benchmarks.unseen_perturbations --screens --file mine.h5ad --control NT
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed

from benchmarks._page import options, save, show, table
from benchmarks._predictors import fit_weights, search_all
from benchmarks._screens import Screen, Statistics, add_arguments, screens_of
from nextpert.core.model.effects import learn_efficacy
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictor_weights import learn_predictor_weights
from nextpert.core.model.predictors.base import Prediction
from nextpert.core.model.predictors.coexpression import Coexpression
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation

SINGLE = ("graph", "coexpression, all other cells", "mean of the other perturbations")
EXPECTED = "stack, own change expected"
# Rows of stacks: their predictors among SINGLE.
STACKS = {"stack": (0, 1, 2), "stack without a graph": (1, 2), EXPECTED: (0, 1, 2)}


@dataclass(frozen=True)
class Found:
    """Predictions of one perturbation: effects, shared error and weights, by row."""

    effects: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def perturbations_of(
    screen: Screen, found: Statistics, unseen: str | None = None, change: np.ndarray | None = None
) -> Perturbations:
    """Return the perturbations of some statistics, and one without cells whose change is given."""
    names, codes = np.unique(found.label.astype(str), return_inverse=True)
    moments = found.moments
    if found.fixed is not None and found.fixed.shape[1]:
        moments = moments.without_fixed(found.fixed, codes)
    pooled = moments.pool(codes, len(names))
    place = {str(name): k for k, name in enumerate(names)}
    every = [*found.perturbations, *([] if unseen is None else [unseen])]
    targets = [[screen.targets[q]] if q in screen.targets else [] for q in every]
    changes = np.full((len(every), pooled.n_nodes), np.nan)
    if change is not None:
        changes[-1] = change
    members = [place.get(q, -1) for q in every]
    return Perturbations(pooled, place[found.control], members, targets, changes)


def graph_without(screen: Screen, left: str) -> np.ndarray:
    """Return the weights of a graph learned and fitted without a perturbation."""
    kept = [screen.control, *(q for q in screen.environments.perturbations() if q != left)]
    rest = screen.statistics(kept)
    return fit_weights(rest, *search_all(rest), screen.targets)


def predict(screen: Screen, name: str, everything: Perturbations) -> Found:
    """Return what predictors and their weighted sums predict of a left-out perturbation."""
    others = [q for q in screen.environments.perturbations() if q not in (name, screen.control)]
    rest = screen.statistics([screen.control, *others])
    row = sorted([*others, name]).index(name)
    here = perturbations_of(screen, rest, name, everything.observed[row])
    graph = graph_without(screen, name)
    single = predictions(here, graph)
    effects = {label: e.effects[-1] for label, e in zip(SINGLE, single, strict=True)}
    # Sampling error that the prediction shares with what it is compared with, its change measured.
    measured = Perturbations(
        everything.moments, everything.control, everything.members, everything.targets
    )
    sharing = predictions(measured, graph)
    shared = {label: np.asarray(e.shared)[row] for label, e in zip(SINGLE, sharing, strict=True)}
    weights = {}
    for label, chosen in STACKS.items():
        weights[label] = learn_predictor_weights(
            here.observed, here.variance, [single[k] for k in chosen], here.scored(), sd=here.sd
        ).weights
        predicted = [single[k].effects[-1] for k in chosen]
        own = [shared[SINGLE[k]] for k in chosen]
        if label == EXPECTED:
            predicted = [e.effects[-1] for e in with_expected_change(here, screen, rest, graph)]
            own = [own[0] * 0, own[1] * 0, own[2]]
        effects[label], shared[label] = weights[label] @ predicted, weights[label] @ own
    return Found(effects, shared, weights)


def predictions(here: Perturbations, graph: np.ndarray) -> list[Prediction]:
    """Return what the graph, coexpression and the mean perturbation predict."""
    on_graph = Graph(graph).predict(here, here)
    return [on_graph, *(each.held_out(here) for each in (Coexpression(), MeanPerturbation()))]


def with_expected_change(
    here: Perturbations, screen: Screen, rest: Statistics, graph: np.ndarray
) -> list[Prediction]:
    """Return what is predicted where the last one's own change is that expected by efficacy."""
    known = [(j, genes[0]) for j, genes in enumerate(here.targets[:-1]) if genes]
    control = here.moments.mean[here.control]
    change = np.array([here.observed[j, k] for j, k in known])
    se = np.sqrt([here.variance[j, k] for j, k in known])
    # A screen by activation has risen targets, all in all.
    direction = 1 if len(change) and change.sum() > 0 else -1
    mu = control[[k for _, k in known]]
    efficacy = learn_efficacy(mu, change, se, direction=direction)
    name = next(q for q in screen.environments.perturbations() if q not in rest.label)
    expected = direction * efficacy.mean * control
    unseen = perturbations_of(screen, rest, name, expected)
    return predictions(unseen, graph)


def score(found: dict[str, Found], everything: Perturbations) -> dict[str, np.ndarray]:
    """Return r, error, shared error, noise and size of the effect by row: ``(n, 5)``."""
    sd = np.where(everything.sd > 0, everything.sd, 1.0)
    out: dict[str, list[tuple[float, ...]]] = {}
    for j, part in enumerate(found.values()):
        used = everything.scored()[j]
        truth = (everything.observed[j] / sd)[used]
        noise = (everything.variance[j] / sd**2)[used].sum()
        rows = {"no effect": np.zeros(len(sd))} | part.effects
        for row, effects in rows.items():
            guess = (effects / sd)[used]
            shared = (part.shared.get(row, np.zeros(len(sd))) / sd**2)[used].sum()
            r = np.corrcoef(guess, truth)[0, 1] if np.ptp(guess) > 0 else 0.0
            out.setdefault(row, []).append(
                (r, ((guess - truth) ** 2).sum(), shared, noise, (truth**2).sum())
            )
    return {row: np.array(values) for row, values in out.items()}


def shown(scores: dict[str, np.ndarray], weights: dict[str, np.ndarray], chosen: np.ndarray) -> str:
    """Return the table over some of the perturbations."""
    rows = {}
    for row, values in scores.items():
        r, error, shared, noise, size = values[chosen].T
        sem = r.std(ddof=1) / np.sqrt(len(r)) if len(r) > 1 else np.nan
        true_size = (size - noise).sum()
        clean = (error + 2 * shared - noise).sum() / true_size if true_size > 0 else np.nan
        mean = weights[row][chosen].mean(axis=0) if row in weights else ()
        of_each = [""] * 3 if row not in weights else ["-"] * (3 - len(mean))
        rows[row] = [
            f"{r.mean():.3f}", f"{sem:.3f}", f"{error.sum() / size.sum():.3f}", f"{clean:.2f}",
            *of_each, *(f"{w:.2f}" for w in mean),
        ]  # fmt: skip
    head = (
        "prediction", "mean r", "±", "error / no effect", "sampling error taken out",
        "weight of graph", "of coexpression", "of the mean",
    )  # fmt: skip
    return table(head, rows)


def run(screen: Screen, workers: int) -> str:
    """Return the section of one screen."""
    whole = screen.statistics([screen.control, *screen.environments.perturbations()])
    everything, names = perturbations_of(screen, whole), whole.perturbations
    results = Parallel(n_jobs=workers)(delayed(predict)(screen, name, everything) for name in names)
    scores = score(dict(zip(names, results, strict=True)), everything)
    weights = {row: np.array([f.weights[row] for f in results]) for row in STACKS}
    with_target = np.array([name in screen.targets for name in names])
    return "\n\n".join([
        f"## {screen.name}: {len(names)} perturbations left out one by one, {with_target.sum()} "
        f"with a measured target, {screen.cells.n_vars} genes, {whole.moments.n.sum():,} cells",
        "Those with a measured target:", shown(scores, weights, with_target),
        "All:", shown(scores, weights, np.ones(len(names), bool)),
    ])  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run the screens asked for and print their tables."""
    parser = options("unseen_perturbations", __doc__, data=True)
    parser.add_argument("--workers", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args(arguments)
    sections = [show(run(screen, args.workers)) for screen in screens_of(args)]
    save("unseen_perturbations", sections, args.save)


if __name__ == "__main__":
    main()
