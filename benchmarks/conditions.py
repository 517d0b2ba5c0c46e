"""Effects in three cell lines: each line alone, all pooled, and by condition.

Simulated screens of nine perturbations and 258 genes in three lines, with 40 cells of each
perturbation and 200 controls in every line. An effect changes 20 genes by 0.4 to 1; noise has a
variance of 1, plus four factors of coexpression. ``one line``: one perturbation has an effect, only
in the first line. ``counts``: the same in ln(1 + counts) of negative binomial counts (effects are
on the log scale of means), where two thirds of the genes are expressed in one line only. ``alike``:
four perturbations have the same effect in all lines. ``part``: three perturbations have the same
effect in all lines, and a fourth has an effect only in the first line. ``genes``: four
perturbations have effects of which each line lacks 40% of the genes. ``apart``: four perturbations
have different effects in every line. ``single``: of three perturbations with 30 cells each, one has
a weaker effect on 60 genes, with a sum of squares of 4, only in the first line.

Effects are those of the hierarchical model: fitted to each line *alone*; to all lines *pooled*,
means compared within lines; and *by condition*, as ``condition_key`` does it. All chains have 300
sweeps. The error is the squared error, summed over lines, perturbations and genes; ratios are those
of sums over screens, with standard errors by the jackknife over screens. *Acting* is the ratio to
each line alone, of perturbations in lines where they act, and *size* the slope of these estimates
on the true effects: a rule that borrows from lines without the effect has a small slope.
*Outside*: means outside
their own 90% interval. *Significant*, *false* (wrong sign, or none), *stated* (sum of the local
false sign rates of the significant ones) and *limit* (97.5% quantile of the Poisson distribution of
twice as many) are sums over screens. Coverage is that of 90% intervals: of all effects, of
significant ones, and of those above 0.4. True effects of counts are differences of expected values.

    python -m benchmarks.conditions                          # 20 screens of each kind
    python -m benchmarks.conditions --kinds counts --screens 2
"""

from __future__ import annotations

import numpy as np
from scipy.stats import nbinom, poisson

from benchmarks._page import options, quiet, save, show, table
from nextpert.core import ScreenMoments
from nextpert.core.model.conditions import fit_each
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.sampler import Chain
from nextpert.core.screen.guides import PooledGuides, pool_guides

N_LINES, N_PERTURBATIONS, N_GENES, N_CHANGED = 3, 9, 258, 20
N_CELLS, N_CONTROLS, SHAPE = 40, 200, 3.0
# Perturbations, cells of each, changed genes, and squared effect of the design ``single``.
SINGLE = (3, 30, 60, 4.0)
KINDS = ("one line", "counts", "alike", "part", "genes", "apart", "single")
ALONE, POOLED, OURS = METHODS = ("alone", "pooled", "by condition")
CHAIN = Chain(100, 100, 2)
COLUMNS = (
    "lines", "effects", "error / alone", "error / pooled", "acting", "size", "outside",
    "significant", "false", "stated", "limit", "coverage",
    "coverage, significant", "coverage, large",
)  # fmt: skip


def codes(kind: str) -> np.ndarray:
    """Return the number of the perturbation of every cell of a line, 0 for controls."""
    n, n_cells = SINGLE[:2] if kind == "single" else (N_PERTURBATIONS, N_CELLS)
    return np.repeat(np.arange(1 + n), [N_CONTROLS] + [n_cells] * n)


def effects(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return the effects, shape ``(N_LINES, n_perturbations, N_GENES)``."""
    found = np.zeros((N_LINES, int(codes(kind).max()), N_GENES))

    def one(n_changed: int = N_CHANGED) -> np.ndarray:
        effect, genes = np.zeros(N_GENES), rng.choice(N_GENES, n_changed, replace=False)
        effect[genes] = rng.choice([-1, 1], n_changed) * rng.uniform(0.4, 1.0, n_changed)
        return effect

    if kind == "single":
        effect = one(SINGLE[2])
        found[0, 0] = effect * np.sqrt(SINGLE[3] / (effect**2).sum())
        return found
    if kind in ("one line", "counts"):
        found[0, 0] = one()
        return found
    for j in range(4):
        found[:, j] = [one() for _ in range(N_LINES)] if kind == "apart" else one()
    if kind == "part":
        found[1:, 0] = 0.0
    if kind == "genes":
        found *= rng.random(found.shape) < 0.6
    return found


def screen(
    kind: str, effect: np.ndarray, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the cells of every line, and the true effects."""
    shift, code = np.concatenate([np.zeros((N_LINES, 1, N_GENES)), effect], axis=1), codes(kind)
    if kind != "counts":
        factors = 0.3 * rng.normal(size=(4, N_GENES))
        return [
            rng.normal(size=N_GENES) + each[code] + rng.normal(size=(len(code), N_GENES))
            + rng.normal(size=(len(code), 4)) @ factors
            for each in shift
        ], effect  # fmt: skip
    level, own = rng.normal(1.0, 0.7, size=N_GENES), rng.integers(N_LINES, size=N_GENES)
    only = rng.random(N_GENES) < 2 / 3
    off = 5.0 * (only & (own != np.arange(N_LINES)[:, None]))
    log_mean = level + 0.3 * rng.normal(size=off.shape) - off
    means = np.exp(log_mean[:, None] + shift)
    gamma = [rng.gamma(SHAPE, 1 / SHAPE, size=(len(code), N_GENES)) for _ in means]
    cells = [np.log1p(rng.poisson(g * mean[code])) for g, mean in zip(gamma, means, strict=True)]
    counts = np.arange(1000)
    expected = means.copy()
    for place in np.ndindex(N_LINES, 1 + N_PERTURBATIONS):
        chance = nbinom.pmf(counts[:, None], SHAPE, SHAPE / (SHAPE + means[place]))
        expected[place] = np.log1p(counts) @ chance
    return cells, expected[:, 1:] - expected[:, :1]


def pooled(cells: list[np.ndarray], code_of_line: np.ndarray) -> PooledGuides:
    """Return controls and perturbations of all lines, means compared within them."""
    n, lines = int(code_of_line.max()) + 1, len(cells)
    code = np.concatenate([code_of_line + n * k for k in range(lines)])
    moments = ScreenMoments.from_array(np.vstack(cells), code, n * lines)
    group = np.tile(np.arange(n), lines)
    clean, sd = moments.without_batches(np.repeat(np.eye(lines)[:, 1:], n, axis=0), group)
    return pool_guides(clean, group, n, fixed_sd=sd)


def judge(kind: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of the effects of one screen, by method."""
    rng = np.random.default_rng([100 + seed, KINDS.index(kind)])
    cells, truth = screen(kind, effects(kind, rng), rng)
    code = codes(kind)
    parts = [pooled([each], code) for each in cells]
    whole = fit_hierarchical(pooled(cells, code), rng=0, chain=CHAIN).effects.summary()
    fits = {
        ALONE: [fit_hierarchical(x, rng=0, chain=CHAIN).effects.summary() for x in parts],
        POOLED: [whole] * N_LINES,
        OURS: [fit.effects.summary() for fit in fit_each(parts, rng=0, chain=CHAIN)],
    }
    return {name: _scores(found, truth) for name, found in fits.items()}


def _scores(found: list, truth: np.ndarray) -> dict[str, float]:
    mean, lower, upper, lfsr = (
        np.array([getattr(each, x) for each in found]) for x in ("mean", "lower", "upper", "lfsr")
    )
    inside, called = (lower <= truth) & (truth <= upper), lfsr < 0.05
    large, acts = np.abs(truth) > 0.4, (truth != 0).any(axis=2)
    return {
        "error": ((mean - truth) ** 2).sum(),
        "error acting": ((mean - truth)[acts] ** 2).sum(),
        "along": (mean * truth).sum(),
        "square": (truth**2).sum(),
        "outside": ((mean < lower) | (mean > upper)).sum(),
        "significant": called.sum(),
        "false": (called & (mean * truth <= 0)).sum(),
        "stated": lfsr[called].sum(),
        "inside": inside.mean(),
        "inside significant": inside[called].sum(),
        "inside large": inside[large].sum(),
        "large": large.sum(),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> str:
    """Return a ratio of sums over screens, and its standard error by leaving one out."""
    if not below.sum():
        return ""
    n, value = len(above), above.sum() / below.sum()
    if n == 1:
        return f"{value:.3f}"
    left = (above.sum() - above) / np.maximum(below.sum() - below, 1e-12)
    return f"{value:.3f} ± {np.sqrt((n - 1) * left.var()):.3f}"


def rows(kind: str, scores: list[dict[str, dict[str, float]]]) -> list[list[str]]:
    """Return the rows of a kind."""
    by_method = {
        name: {key: np.array([one[name][key] for one in scores], float) for key in scores[0][name]}
        for name in METHODS
    }
    return [
        [
            kind, name, *(_ratio(each["error"], by_method[m]["error"]) for m in (ALONE, POOLED)),
            _ratio(each["error acting"], by_method[ALONE]["error acting"]),
            _ratio(each["along"], each["square"]),
            *(f"{each[key].sum():.0f}" for key in ("outside", "significant", "false")),
            f"{each['stated'].sum():.1f}", f"{poisson.ppf(0.975, 2 * each['stated'].sum()):.0f}",
            _ratio(each["inside"], np.ones(len(scores))),
            _ratio(each["inside significant"], each["significant"]),
            _ratio(each["inside large"], each["large"]),
        ]
        for name, each in by_method.items()
    ]  # fmt: skip


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("conditions", __doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--screens", type=int, default=20)
    args = parser.parse_args(arguments)
    found = []
    for kind in args.kinds:
        found += rows(kind, [judge(kind, seed) for seed in range(args.screens)])
    save("conditions", [show(table(COLUMNS, found))], args.save)


if __name__ == "__main__":
    main()
