"""Campaigns, simulated or drawn from a real screen, that ask after every plate whether to stop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core import (
    Dag,
    DagBlr,
    LinearScm,
    RankedDistance,
    ScreenMoments,
    random_scm,
    ranked_distance,
)
from nextpert.core.design.goal import Goal
from nextpert.core.design.plate import best_plate
from nextpert.core.design.stopping import (
    CONFIRM,
    Stopping,
    best_known,
    differing,
    draw_plate,
    record_chance,
    stopping,
)
from nextpert.core.evaluate.cell_pool import PoolEnvironments
from nextpert.core.fit.interventions import Plan
from nextpert.core.fit.learn import Graphs, Spec
from nextpert.core.fit.naming import Naming
from nextpert.core.model.scores import pooled_sizes
from nextpert.core.screen.guides import pool_guides
from nextpert.core.screen.mean_distance import distance_difference
from nextpert.core.screen.moments import Moments
from nextpert.tl._design_interventions.candidates import read_candidates
from nextpert.tl._design_interventions.target import read_target
from nextpert.tl._replay_design.modelled import Modelled, Setting

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

    from nextpert.core.evaluate.cell_pool import CellPool

N_GENES, N_CANDIDATES, N_CONTROL = 36, 24, 100
N_PLATES, SIZE, N_CELLS, DRAWS = 12, 4, 10, 400
TAU2, SHARE = (2.0**-9, 2.0**-5, 1.0), (0.6, 0.3, 0.1)
EFFICACY = (0.6, 0.2)
TOLERANCES = (0.05, 0.1, 0.2)
CHANCES = (0.8, 0.9, 0.95)
CONFIDENCE, CONFIDENCE_BEFORE = 0.95, 0.9
# The rule was chosen on seeds from 1000 ("as modelled") and 3000 ("programs") on.
FIRST_SEED = 5000
# Columns of what a campaign returns: by the present rule, by that before, and what is true.
GOOD, GAIN, STOPS, GOOD_BEFORE, GAP, TRUE = range(6)


class Way(NamedTuple):
    """A campaign to be: where to, what is true, and cells on demand.

    ``distance``: true squared distances of the candidates and of the control, the last.
    ``as_good``: which of them are not distinguished from the best. ``full``: shifts of full
    knockouts, a row a candidate. ``cells(j, n)``: up to ``n`` new cells.
    """

    goal: np.ndarray
    goal_variance: np.ndarray | None
    distance: np.ndarray
    as_good: np.ndarray
    full: np.ndarray
    control: np.ndarray
    cells: Callable[[int, int], np.ndarray]


def as_modelled(seed: int) -> tuple[LinearScm, np.ndarray, np.ndarray]:
    """Return a model, shifts of the candidates and one more, and what a full knockout would do.

    Off-target effects are independent, of three sizes; random graphs of degree 4.
    """
    rng = np.random.default_rng(seed)
    scm, mean = _scm(rng, "erdos_renyi", 4.0)
    n = N_CANDIDATES + 1
    tau2 = rng.choice(TAU2, size=(n, N_GENES), p=SHARE)
    shifts = rng.normal(size=(n, N_GENES)) * np.sqrt(tau2 * scm.noise_var)
    genes = rng.choice(N_GENES, n, replace=False)
    shifts[np.arange(n), genes] = -rng.normal(*EFFICACY, n) * mean[genes]
    return scm, shifts, _full(genes, mean)


def programs(seed: int) -> tuple[LinearScm, np.ndarray, np.ndarray]:
    """Return the same of a world the model does not know.

    Three programs of genes move together, in six of ten perturbations and now and then very far
    (t of 3 degrees of freedom); graphs with hubs, efficacies skewed.
    """
    rng = np.random.default_rng([seed, 77])
    scm, mean = _scm(rng, "barabasi_albert", 2.0)
    n = N_CANDIDATES + 1
    load = 0.35 * rng.normal(size=(3, N_GENES)) * np.sqrt(scm.noise_var)
    shifts = 0.6 * rng.standard_t(3, size=(n, 3)) @ load * (rng.random((n, 1)) < 0.6)
    genes = rng.choice(N_GENES, n, replace=False)
    shifts[np.arange(n), genes] -= rng.beta(4, 3, n) * mean[genes]
    return scm, shifts, _full(genes, mean)


WORLDS = {"as modelled": as_modelled, "programs": programs}


def _scm(rng: np.random.Generator, graph: str, degree: float) -> tuple[LinearScm, np.ndarray]:
    unit = random_scm(N_GENES, graph, expected_degree=degree, rng=rng)
    mean = rng.uniform(1, 3, N_GENES)
    return LinearScm(unit.weights, unit.noise_var, mean - unit.weights @ mean), mean


def _full(genes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    full = np.zeros((len(genes), N_GENES))
    full[np.arange(len(genes)), genes] = -mean[genes]
    return full


def simulated(world: str, seed: int, *, held_out: bool) -> np.ndarray:
    """Return what :func:`campaign` does in a simulated world."""
    scm, shifts, full = WORLDS[world](seed)
    rng = np.random.default_rng([seed, int(held_out)])
    may = np.arange(N_CANDIDATES) + int(held_out)  # the first is the target
    goal = scm.mean(shifts[0])
    states = np.array([*(scm.mean(shifts[j]) for j in may), scm.mean()])
    distance = ((states - goal) ** 2).sum(axis=1)

    def cells(j: int, n: int) -> np.ndarray:
        return np.asarray(scm.sample(n, shifts[may[j]], rng=rng))

    control = np.asarray(scm.sample(N_CONTROL, rng=rng))
    best = distance == distance.min()
    return campaign(Way(goal, None, distance, best, full[may], control, cells), rng)


def drawn(
    pool: CellPool,
    target: int,
    repeat: int,
    *,
    held_out: bool,
    full: np.ndarray | None = None,
) -> np.ndarray:
    """Return what :func:`campaign` does on a screen whose cells are dealt out one by one.

    ``full`` are shifts of full knockouts, a row a perturbation; none where no gene is known.
    """
    deal = pool.deal(target, min(N_CONTROL, len(pool.control)), rng=[target, repeat])
    may = np.delete(np.arange(pool.n_perturbations), [target] if held_out else [])
    truth = pool.truth(target)
    own = pool.cells[pool.start[target] : pool.start[target + 1]]
    used = dict.fromkeys(range(len(may)), 0)

    def cells(j: int, n: int) -> np.ndarray:
        rows = deal.orders[may[j]][used[j] : used[j] + n]
        used[j] += len(rows)
        return pool.cells[rows]

    way = Way(
        deal.target.states[0],
        own.var(axis=0, ddof=1) / max(len(own) // 2, 1),
        np.append(truth.distance[may], truth.control),
        np.append(truth.as_good(may), control_is_good(pool, target, may)),
        np.zeros((len(may), pool.cells.shape[1])) if full is None else full[may],
        pool.control[deal.warmup],
        cells,
    )
    return campaign(way, np.random.default_rng([target, repeat, int(held_out)]))


def control_is_good(pool: CellPool, target: int, may: np.ndarray) -> bool:
    """Return whether all cells do not distinguish the control from the best, at 95%."""
    truth = pool.truth(target)
    best = int(may[np.argmin(truth.distance[may])])
    if best == target:
        return truth.control <= 1.96 * truth.control_sd
    control = Moments.from_array(pool.control)
    return distance_difference(control, pool.moments(best), pool.moments(target))[1] <= 0


def campaign(way: Way, rng: np.random.Generator) -> np.ndarray:
    """Return, after every plate and for each tolerance, what the rules say and the truth.

    Shape ``(n_plates, n_tolerances, 6)``: probability that the best known is good enough and
    expected gain of the next plate (a share of the control's distance); whether the rule stops;
    that probability by the rule of before; true gap to the best candidate, and true distance of the
    best known, shares too.
    """
    n = len(way.full)
    run = strategy(way, rng)
    screen = ScreenMoments.from_array(way.control, np.zeros(len(way.control)), n + 1)
    out = np.empty((N_PLATES, len(TOLERANCES), 6))
    run.see(screen)
    for t in range(N_PLATES):
        plate = run.plate(np.arange(n), SIZE, N_CELLS)
        cells = [way.cells(j, N_CELLS) for j in plate]
        groups = np.repeat(plate + 1, [len(x) for x in cells])
        screen = screen + ScreenMoments.from_array(np.concatenate(cells), groups, n + 1)
        run.see(screen)
        found = ranked_distance(
            run.candidates.states(run.fit), way.goal, target_variance=way.goal_variance,
            n_samples=DRAWS, rng=rng,
        )  # fmt: skip
        ask = asking(run, screen, found, way, rng)
        for k, tolerance in enumerate(TOLERANCES):
            said = ask(tolerance=tolerance)
            gap = (way.distance[said.chosen] - way.distance.min()) / way.distance[-1]
            gap = 0.0 if way.as_good[said.chosen] else gap
            good = before(found, screen.n[1:] > 0, tolerance)
            true = way.distance[said.chosen] / way.distance[-1]
            stops = said.advice == CONFIRM
            out[t, k] = said.good_enough, said.relative_gain, stops, good, gap, true
    return out


def strategy(way: Way, rng: np.random.Generator) -> Modelled:
    """Return the strategy of a replay without a graph, its candidates named by their own genes."""
    n, p = way.full.shape
    genes = [f"gene {i}" for i in range(p)]
    targets = [[genes[i] for i in np.flatnonzero(row)] for row in way.full]
    direction = "activation" if way.full.max() > 0 else "knockout"
    plan = Plan([f"candidate {j}" for j in range(n)], targets, [], direction)
    spec = Spec(genes, plan, DagBlr, Naming(frozenset(genes), ""))
    environments = PoolEnvironments.plain(0, np.zeros(n, np.int64))
    told = Setting(spec, Graphs.single(Dag.from_edges(p, [])), environments)
    return Modelled(told, "exploit", Goal.point(way.goal), np.arange(n), rng)


def asking(
    run: Modelled,
    screen: ScreenMoments,
    found: RankedDistance,
    way: Way,
    rng: np.random.Generator,
) -> Callable[..., Stopping]:
    """Return the rule, by tolerance, for a next plate as large as those before."""
    seen = screen.n[1:] > 0
    chosen = _with_best_known(best_plate(found.centre[:-1], found.draws[:, :-1], SIZE), found, seen)
    noise = screen.squares.sum(axis=0) / np.maximum(screen.n - 1, 0).sum()
    on_plate = run.candidates.rows(chosen.tolist())
    plate = draw_plate(
        on_plate.states(run.fit), Goal.point(way.goal, way.goal_variance), chosen,
        variance=noise / N_CELLS, n_samples=DRAWS, rng=rng,
    )  # fmt: skip
    index = np.arange(len(screen.n))
    tests = pooled_sizes(pool_guides(screen, index, len(index)))
    distinct = bool(differing(*(test.q_value for test in tests)).any())
    return partial(stopping, found, seen, plate, confidence=CONFIDENCE, distinct=distinct)


def _with_best_known(plate: np.ndarray, found: RankedDistance, seen: np.ndarray) -> np.ndarray:
    """Return a plate, of which the last gives way to the best known where that is not on it."""
    first = best_known(found, seen)
    if first == len(seen) or first in plate:
        return np.sort(plate)
    return np.sort(np.append(plate[:-1], first))


def before(found: RankedDistance, measured: np.ndarray, tolerance: float) -> float:
    """Return the probability that the best known is good enough, by the rule of version 0.2.

    The draws of the best known as they are, of all others about the distances of their expected
    states; those never tried like those tried.
    """
    chosen = int(np.where(np.append(measured, True), found.mean, np.inf).argmin())
    best = found.draws[:, chosen]
    others = np.delete(found.draws - found.mean + found.centre, chosen, axis=1)
    enough = tolerance * max(float(found.mean[-1]), 0.0)
    good = float((best - others.min(axis=1) <= enough).mean())
    tried = found.mean[:-1][measured]
    farther = float(tried.min() - found.mean[chosen]) if len(tried) else 0.0
    room = farther + best - found.mean[chosen] + found.centre[chosen]
    record = record_chance(tried, (~measured).sum(), farther + enough, room)
    return good * (1 - float(record.mean()))


def rule_rows(found: np.ndarray) -> dict[str, list[str]]:
    """Return a row a rule; ``found`` as of :func:`campaign`, campaigns first."""
    limit, old = np.array(TOLERANCES), found[..., GOOD_BEFORE] >= CONFIDENCE_BEFORE
    good, gain = found[..., GOOD], found[..., GAIN]
    rules = {"the rule": found[..., STOPS] > 0, "the rule before": old}
    rules |= {f"probability {chance:g} alone": good >= chance for chance in CHANCES}
    rules["expected gain below a tenth of the tolerance alone"] = gain < limit / 10
    rows = {}
    for name, stops in rules.items():
        rows[name] = []
        for k in range(len(limit)):
            when, first = plates_until(stops[:, :, k]), plates_until(old[:, :, k])
            stopped = when <= found.shape[1]
            at = np.minimum(when, found.shape[1]) - 1
            early = (found[np.arange(len(found)), at, k, GAP] > limit[k]) & stopped
            rows[name].append(
                f"{early.sum()} ({with_error(100 * early, 1)}%) of {stopped.sum()}; "
                f"{np.median(when):g}; {with_error(first - when, 1)}, {np.median(first - when):g}"
            )
    return rows


def plates_until(stops: np.ndarray) -> np.ndarray:
    """Return the plates until a campaign stops; where it does not, one more than there are."""
    return np.where(stops.any(axis=1), stops.argmax(axis=1), stops.shape[1]) + 1


def said_rows(found: np.ndarray) -> dict[str, list[str]]:
    """Return, by plates so far, what is said with the tolerance 0.1 and what comes of it."""
    k, rows = TOLERANCES.index(0.1), {}
    for t in (0, 1, 2, 3, 5, 8):
        now = found[:, t, k]
        true = now[:, GAP] <= 0.1
        gained = now[:, TRUE] - found[:, t + 1, k, TRUE]
        rows[f"{t + 1}"] = [
            with_error(now[:, GOOD_BEFORE], 2), with_error(now[:, GOOD], 2), with_error(true, 2),
            with_error(now[:, GAIN], 3), with_error(gained, 3),
        ]  # fmt: skip
    return rows


def with_error(values: np.ndarray, digits: int) -> str:
    """Return a mean with its standard error, of what is known."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    return f"{x.mean():.{digits}f} ± {x.std(ddof=1) / np.sqrt(len(x)):.{digits}f}"


def noise_screen(seed: int, kind: str) -> tuple[ad.AnnData, dict[str, Any]]:
    """Return a fitted screen of nine perturbations that is noise, and two targets.

    ``kind``: the cells' labels shuffled (``"shuffled"``), or cells drawn like controls
    (``"noise"``). Targets: a label, and the state that its cells had before.
    """
    rng = np.random.default_rng(seed)
    adata = npt.datasets.simulated_screen(
        n_genes=20, n_control=150, n_perturbed=20, perturbed=9, expected_degree=3, rng=seed
    )
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    name = min(set(labels) - {"control"})
    state = dict(zip(adata.var_names, adata[labels == name].X.mean(axis=0).tolist(), strict=True))
    if kind == "noise":
        control = adata.X[labels == "control"]
        drawn = rng.normal(control.mean(axis=0), control.std(axis=0), adata.shape)
        adata.X = drawn.astype(np.float32)
    elif kind == "shuffled":
        adata.obs["perturbation"] = rng.permutation(labels)
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    npt.tl.fit_dag_blr(adata)
    return adata, {"a label": name, "a state": state}


def advised(adata: ad.AnnData, target: Any) -> tuple[str, bool]:
    """Return the advice of ``tl.plan_cells``, and whether the rule before said to go on."""
    npt.tl.plan_cells(adata, target, n_samples=DRAWS)
    fit = posterior_from(adata)
    wanted = read_target(adata, target, fit, "perturbation")
    pool = read_candidates(None, None, fit)
    kept = [j for j, name in enumerate(pool.interventions.names) if name != wanted.label]
    others = pool.rows(kept)
    found = ranked_distance(others.states(fit, wanted.targets), wanted.goal, n_samples=DRAWS, rng=0)
    good = before(found, np.ones(len(kept), bool), 0.1)
    return str(adata.uns["plan_cells"]["advice"]["kind"]), good < CONFIDENCE_BEFORE
