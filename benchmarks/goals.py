"""How soon acquisitions find the best candidate towards goals of other kinds than a state.

Linear models of 20 nodes and expected degree 8, unit noise; 40 candidates shift one node by 2 up or
down. The graph and 8 control cells are known. A pick gives 3 cells of one candidate; six picks. The
goal is made from what a candidate drawn at random does to the four other nodes it moves most:

- state: the mean under four fifths of its shift, all nodes;
- signature: three times its effect on those nodes, so that more is always nearer;
- bounds: at least half of its effect on those nodes;
- direction: that of its effect on all nodes, by the cosine.

Told is what the recommended candidate (the nearest expected state) lacks of the best one, in
percent of what the best gains on the control, mean and standard error after each pick.
``civ, point`` is CIV towards the point of the goal that is the nearest to the controls, all nodes
alike: what one would do without goals.

    python -m benchmarks.goals                          # 150 models, four minutes
    python -m benchmarks.goals --models 3 --kinds signature
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks._cells import table
from benchmarks._table import options, save
from nextpert.core import (
    Candidates,
    DagBlr,
    Goal,
    LinearScm,
    Moments,
    find_acquisition,
    random_scm,
)
from nextpert.core.design.distances import states_of

NODES, CONTROLS, CELLS, PICKS = 20, 8, 3, 6
ACQUISITIONS = ("random", "civ, point", "civ", "greedy", "thompson", "ei", "probability")
KINDS = ("state", "signature", "bounds", "direction")


def draw_goal(
    kind: str, scm: LinearScm, states: np.ndarray, shifts: np.ndarray, rng: np.random.Generator
) -> Goal:
    """Return a goal that a candidate drawn at random reaches, or nearly does."""
    control = scm.mean()
    effects = states - control
    moved = np.abs(effects - shifts)
    able = np.flatnonzero((moved > 0.3).sum(axis=1) >= 3)
    j = int(rng.choice(able)) if len(able) else int(moved.sum(axis=1).argmax())
    some = np.zeros(NODES, bool)
    some[np.argsort(-moved[j])[:4]] = True
    effect = np.where(some, effects[j], 0.0)
    if kind == "signature":
        return Goal(control, signature=3 * effect)
    if kind == "bounds":
        low = np.where(some & (effect > 0), control + effect / 2, -np.inf)
        return Goal(
            control, low=low, high=np.where(some & (effect < 0), control + effect / 2, np.inf)
        )
    part = control + 0.8 * effects[j]
    return Goal(control, states=part[None], direction_only=kind == "direction")


def values(
    acquisition: str, blr: DagBlr, shifts: np.ndarray, goal: Goal, rng: np.random.Generator
) -> np.ndarray:
    """Return an acquisition of every candidate, lower is better."""
    name, _, point = acquisition.partition(", ")
    wanted = goal.quadratic(goal.origin).point if point else goal
    asked = Candidates(blr, shifts, wanted, n_cells=CELLS, noise_aware=True, n_samples=200, rng=rng)
    return find_acquisition(name).of_candidates(asked).values


def regrets(kind: str, seed: int) -> np.ndarray:
    """Return what is lacked of the best after each pick, ``(n_acquisitions, n_picks)``."""
    rng = np.random.default_rng(seed)
    scm = random_scm(NODES, "erdos_renyi", expected_degree=8, standardise=False, rng=rng)
    shifts = 2 * np.vstack([np.eye(NODES), -np.eye(NODES)])
    states = np.array([scm.mean(shift) for shift in shifts])
    goal = draw_goal(kind, scm, states, shifts, rng)
    truth, nothing = goal.distance(states), goal.distance(scm.mean()[None])[0]
    controls = Moments.from_array(scm.sample(CONTROLS, rng=rng))
    out = np.empty((len(ACQUISITIONS), PICKS))
    for row, acquisition in enumerate(ACQUISITIONS):
        blr, own = (
            DagBlr(scm.dag, prior_scale=1.0).update(controls),
            np.random.default_rng([seed, 1]),
        )
        for pick in range(PICKS):
            j = int(values(acquisition, blr, shifts, goal, own).argmin())
            cells = scm.sample(CELLS, shifts[j], rng=own)
            blr = blr.update(Moments.from_array(cells), shifts[j])
            expected = states_of(blr, shifts).mean
            best = int(goal.distance(expected[:-1], expected[-1]).argmin())
            out[row, pick] = (truth[best] - truth.min()) / (nothing - truth.min())
    return 100 * out


def run(kind: str, n_models: int) -> str:
    """Return the section of one kind of goal."""
    start = time.perf_counter()
    found = np.array([regrets(kind, seed) for seed in range(n_models)])
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(n_models)
    rows = {
        name: [f"{m:.1f} ± {e:.1f}" for m, e in zip(mean[i], error[i], strict=True)]
        for i, name in enumerate(ACQUISITIONS)
    }
    print(f"{kind}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    heads = [f"{pick + 1}" for pick in range(PICKS)]
    return f"## {kind}, {n_models} models\n\n{table(['picks', *heads], rows)}\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the kinds of goals asked for and print their tables."""
    parser = options("goals", __doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--models", type=int, default=150)
    args = parser.parse_args(arguments)
    sections = []
    for kind in args.kinds:
        sections.append(run(kind, args.models))
        print(sections[-1], flush=True)
        save(sections, args.save)


if __name__ == "__main__":
    main()
