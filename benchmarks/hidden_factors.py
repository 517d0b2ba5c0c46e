"""Hidden factors, estimated from control cells and adjusted for: a trial, not in the package.

Perturbations that move a hidden factor, such as the cell cycle, change all of its genes. Factors
are the leading principal axes of control cells in units of their standard deviation (RUV, Risso et
al. 2014). What a perturbation moves them by is taken off its cells, by least squares over all
genes ("projected"), or by Huber's regression, which is right where direct effects are sparse
("robust"; CATE, Wang et al. 2017). Effects are then estimated without a graph.

Simulated screens: 24 perturbations of 60 genes, 50 cells each and 1,000 controls. A hidden factor
loads on all genes and is moved by half of the perturbations; two pathways of 15 genes make others
coexpressed. Half of the perturbations change 8 genes at random, and in the second setting 6 others
change a pathway. Scored are all effects but those of the hidden factor, the truth known: squared
error relative to the cells' means as they are, coverage of 90% intervals, and the share of
perturbations of which less than 70% of effects are covered.

Real screens: effects estimated from half of the cells and scored on the other half as they are,
sampling variance subtracted, relative to the means of the first half.

    python -m benchmarks.hidden_factors
"""

from __future__ import annotations

import os

import numpy as np

from benchmarks._screens import add_arguments, screens_of
from benchmarks._table import options, save
from benchmarks.few_cells import fit, pool
from nextpert.core import Dag, ScreenMoments
from nextpert.core.model.effects import estimate_effects

J, P, N, N_CONTROL = 24, 60, 50, 1000
WAYS = [("as they are", 0), *((way, q) for way in ("projected", "robust") for q in (1, 3))]


def moved(effects: np.ndarray, axes: np.ndarray, *, robust: bool) -> np.ndarray:
    """Return what factors move effects by, ``(n, p)``, in units of genes' standard deviations."""
    weight = np.ones_like(effects)
    for _ in range(50 if robust else 1):  # iteratively reweighted least squares
        gram = np.einsum("jg,gk,gl->jkl", weight, axes, axes)
        right = np.einsum("jg,gk,jg->jk", weight, axes, effects)
        along = np.linalg.solve(gram, right[..., None])[..., 0] @ axes.T
        away = np.abs(effects - along)
        scale = 1.345 * np.median(away, axis=1, keepdims=True) / 0.6745  # 95% efficient if normal
        weight = np.minimum(1.0, np.maximum(scale, 1e-9) / np.maximum(away, 1e-9))
    return along


def estimates(x: np.ndarray, group: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """Return mean and ends of 90% intervals of effects, by way; group 0 are the controls."""
    n = group.max() + 1
    control = x[group == 0]
    sd = np.maximum(control.std(axis=0), 1e-9)
    means = np.array([x[group == j].mean(axis=0) for j in range(n)])
    axes = np.linalg.svd((control - means[0]) / sd, full_matrices=False)[2].T
    out = {}
    for way, q in WAYS:
        off = np.zeros_like(means)
        if q:
            off = moved((means - means[0]) / sd, axes[:, :q], robust=way == "robust") * sd
        pooled = pool(ScreenMoments.from_array(x - off[group], group, n))
        found = fit(Dag.from_edges(x.shape[1], []), pooled)
        effects = estimate_effects([found.posterior], found.prior)
        out[f"{way}, {q}" if q else way] = (effects.mean, effects.lower, effects.upper)
    return out


def simulated(seed: int, pathways: bool, hidden: float) -> dict[str, list[float]]:
    """Return squared error over that of means, coverage and perturbations below 70%, by way."""
    rng = np.random.default_rng(seed)
    factor, program = rng.choice([-1, 1], P) * rng.uniform(0.2, 0.8, P), np.zeros((2, P))
    for row, genes in zip(program, rng.permutation(P).reshape(4, 15), strict=False):
        row[genes] = 0.6
    effects = np.zeros((J, P))
    for row in effects[::2]:
        row[rng.choice(P, 8, replace=False)] = 0.8 * rng.normal(size=8)
    if pathways:
        effects[1:12:2] = -rng.uniform(0.5, 1.5, (6, 1)) * program[np.arange(6) // 3]
    moves = hidden * rng.normal(size=J) * (rng.random(J) < 0.5)
    group = np.repeat(np.arange(J + 1), [N_CONTROL, *[N] * J])
    activity = rng.normal(size=len(group)) + np.append(0, moves)[group]
    x = np.outer(activity, factor) + rng.normal(size=(len(group), 2)) @ program
    x += rng.normal(size=x.shape) + np.vstack([np.zeros(P), effects])[group]
    raw = np.array([x[group == j].mean(axis=0) for j in range(1, J + 1)]) - x[group == 0].mean(0)
    out = {}
    for way, (mean, low, high) in estimates(x, group).items():
        inside = (low <= effects) & (effects <= high)
        error = ((mean - effects) ** 2).sum() / ((raw - effects) ** 2).sum()
        out[way] = [error, inside.mean(), (inside.mean(axis=1) < 0.7).mean()]
    return out


def halves(x: np.ndarray, group: np.ndarray, seed: int) -> dict[str, float]:
    """Return the squared error on the other half over that of the means, by way."""
    half = np.random.default_rng(seed).permutation(len(x)) % 2 == 0
    n, sd = group.max() + 1, x[group == 0].std(axis=0)
    used = sd > 0

    def means(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [x[which & (group == j)] for j in range(n)]
        mean = np.array([part.mean(axis=0) for part in parts])
        noise = np.array([part.var(axis=0, ddof=1) / len(part) for part in parts])
        return mean[1:] - mean[0], noise[1:] + noise[0]

    (mine, _), (other, noise) = means(half), means(~half)

    def error(guess: np.ndarray) -> float:
        return float(((((guess - other) ** 2 - noise) / np.where(used, sd, 1) ** 2)[:, used]).sum())

    found = estimates(x[half], group[half])
    return {way: error(mean) / error(mine) for way, (mean, _, _) in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = options("hidden_factors", __doc__)
    parser.add_argument("--screens", nargs="+", default=["papalexi", "tapseq"])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    add_arguments(parser)
    args = parser.parse_args(arguments)
    lines = ["| simulated screens | factors | error | coverage | below 70% |", "|---" * 5 + "|"]
    for pathways, hidden in ((False, 0.0), (False, 1.0), (True, 0.0), (True, 1.0)):
        rows = [simulated(seed, pathways, hidden) for seed in range(args.models)]
        name = ("pathways, " if pathways else "") + ("factor moved" if hidden else "not moved")
        for way in rows[0]:
            error, inside, below = np.mean([row[way] for row in rows], axis=0)
            lines.append(f"| {name} | {way} | {error:.2f} | {inside:.3f} | {100 * below:.0f}% |")
    lines += ["", "| screen | factors | error on the other half |", "|---|---|---|"]
    for _, screen in screens_of(args):
        label = screen.cells.obs[screen.environments.roles.perturbation_key].astype(str).to_numpy()
        names = [screen.control, *sorted(set(label) - {screen.control})]
        group = np.array([names.index(each) for each in label])
        splits = [halves(np.asarray(screen.cells.X), group, seed) for seed in range(args.splits)]
        for way in splits[0]:
            values = [split[way] for split in splits]
            error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            lines.append(f"| {screen.name} | {way} | {np.mean(values):.2f} ± {error:.2f} |")
    print("\n".join(lines), flush=True)
    save(lines, args.save)


if __name__ == "__main__":
    main()
