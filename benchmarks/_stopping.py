"""Simulated campaigns that ask after every plate whether to stop."""

from __future__ import annotations

import numpy as np

from nextpert.core import Dag, LinearScm, ScreenMoments, random_scm, ranked_distance
from nextpert.core.loop.strategies import build_strategy
from nextpert.core.plan.stopping import stopping

N_GENES, N_CANDIDATES, N_CONTROL = 36, 24, 100
N_PLATES, SIZE, N_CELLS, DRAWS = 12, 4, 10, 300
TAU2, SHARE = (2.0**-9, 2.0**-5, 1.0), (0.6, 0.3, 0.1)
EFFICACY = (0.6, 0.2)
TOLERANCES = (0.05, 0.1, 0.2)
CHANCES = (0.8, 0.9, 0.95)


def simulate(seed: int) -> tuple[LinearScm, np.ndarray, np.ndarray]:
    """Return a model, shifts of the candidates and one more, and what a full knockout would do."""
    rng = np.random.default_rng(seed)
    unit = random_scm(N_GENES, "erdos_renyi", expected_degree=4.0, rng=rng)
    mean = rng.uniform(1, 3, N_GENES)
    scm = LinearScm(unit.weights, unit.noise_var, mean - unit.weights @ mean)
    n = N_CANDIDATES + 1
    tau2 = rng.choice(TAU2, size=(n, N_GENES), p=SHARE)
    shifts = rng.normal(size=(n, N_GENES)) * np.sqrt(tau2 * scm.noise_var)
    genes = rng.choice(N_GENES, n, replace=False)
    shifts[np.arange(n), genes] = -rng.normal(*EFFICACY, n) * mean[genes]
    full = np.zeros((n, N_GENES))
    full[np.arange(n), genes] = -mean[genes]
    return scm, shifts, full


def campaign(seed: int, *, held_out: bool) -> np.ndarray:
    """Return, after every plate and for each tolerance, what the rule says and the truth.

    Shape ``(n_plates, n_tolerances, 4)``: probability that the best known is good enough, the same
    by the draws as they are, expected gap and true gap, as shares of the distance of doing nothing.
    """
    scm, shifts, full = simulate(seed)
    rng = np.random.default_rng([seed, int(held_out)])
    may = np.arange(N_CANDIDATES) + int(held_out)  # the first is the target
    goal = scm.mean(shifts[0])
    states = np.array([*(scm.mean(shifts[j]) for j in may), scm.mean()])
    truth = ((states - goal) ** 2).sum(axis=1)
    empty = Dag.from_edges(N_GENES, [])
    run = build_strategy("thompson", goal, full[may], empty, N_CELLS, rng)
    n_groups = len(may) + 1
    control = scm.sample(N_CONTROL, rng=rng)
    screen = ScreenMoments.from_array(control, np.zeros(N_CONTROL), n_groups)
    out = np.empty((N_PLATES, len(TOLERANCES), 4))
    run.see(screen)
    for t in range(N_PLATES):
        plate = run.plate(np.arange(len(may)), SIZE)
        cells = [scm.sample(N_CELLS, shifts[may[j]], rng=rng) for j in plate]
        screen = screen + ScreenMoments.from_array(
            np.concatenate(cells), np.repeat(plate + 1, N_CELLS), n_groups
        )
        run.see(screen)
        found = ranked_distance(run.posterior, run.known, goal, n_samples=DRAWS, rng=rng)
        for k, tolerance in enumerate(TOLERANCES):
            said = stopping(found, screen.n[1:] > 0, tolerance=tolerance)
            gap = (truth[said.chosen] - truth.min()) / truth[-1]
            left = found.draws[:, said.chosen] - found.draws.min(axis=1)
            plain = (left <= tolerance * max(found.mean[-1], 0.0)).mean()
            out[t, k] = said.good_enough, plain, said.relative_gap, gap
    return out


def rule_rows(found: np.ndarray) -> dict[str, list[str]]:
    """Return a row a rule; ``found`` as of :func:`campaign`, campaigns first."""
    good, plain, expected, true = np.moveaxis(found, -1, 0)
    limit = np.array(TOLERANCES)
    rules = {f"probability {chance:g}": good >= chance for chance in CHANCES}
    rules["probability 0.9, draws as they are"] = plain >= 0.9
    rules["expected gap"] = expected <= limit
    rows = {}
    for name, stops in rules.items():
        rows[name] = []
        for k in range(len(limit)):
            stopped = stops[:, :, k].any(axis=1)
            when = stops[:, :, k].argmax(axis=1)
            early = true[np.arange(len(true)), when, k] > limit[k]
            n, n_early = int(stopped.sum()), int((early & stopped).sum())
            plates = f"{(when[stopped] + 1).mean():.1f}" if n else "-"
            rows[name].append(f"{n_early} of {n} ({n_early / max(n, 1):.0%}), {plates} plates")
    return rows
