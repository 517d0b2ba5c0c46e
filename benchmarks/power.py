"""Plans of cells compared with simulations: power, and advice on noise.

*Power*: the share of simulated tests that find an effect is compared with the power planned from
the same noise, with one and several guides; without guides, also with the textbook formula
(two-sample t test, noncentral t). *Real*: n control cells of a screen, with an effect added or
subtracted, are tested by Welch's test against the other controls, gene by gene; power is planned
from the variance of the other half of the controls. *First*: ``tl.plan_cells`` uses only the
controls of a screen; its power is compared with the share of known effects that are found when few
cells of each perturbation are drawn. *Noise*: ``tl.plan_cells`` on simulated screens of nine
perturbations with labels shuffled or cells drawn like controls.

    python -m benchmarks.power                            # five minutes; data: NEXTPERT_DATA
    python -m benchmarks.power --tables power             # half a minute
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import nct, ttest_ind_from_stats
from scipy.stats import t as student

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import SOURCES, read_screen
from nextpert.core.design.power import EffectPrecision, Layout
from nextpert.core.design.stopping import KINDS

if TYPE_CHECKING:
    import anndata as ad

DRAWS = 40000
CELLS, EFFECTS = (10, 25, 50, 100), ((0.1, 0.2), (0.2, 0.4), (0.4, 9))
ONE = np.ones(1)


def simulated_share(
    rng: np.random.Generator, n: int, n_control: int, guides: int, tau2: float, effect: float
) -> float:
    """Return how often Welch's test finds an effect; guides' spread known, cells' estimated."""
    means, squares = [], []
    for size, g, shift in ((n, guides, effect), (n_control, 4 * guides, 0.0)):
        own = shift + np.sqrt(tau2 + g / size) * rng.normal(size=(DRAWS, g))
        within = rng.chisquare(size - g, DRAWS) if size > g else np.zeros(DRAWS)
        total = within + size / g * ((own - own.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        of_cell = total / (size - 1 + tau2 * (size - size / g))
        means.append(own.mean(axis=1))
        squares.append(of_cell * (1 / size + tau2 / g))
    a, b = squares
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (n_control - 1))
    statistic = np.abs(means[0] - means[1]) / np.sqrt(a + b)
    return float((statistic > student.ppf(0.975, freedom)).mean())


def textbook(n: int, n_control: int, effect: float) -> float:
    """Return the power of the two-sample t test, variances alike and pooled."""
    freedom, noncentral = n + n_control - 2, effect / np.sqrt(1 / n + 1 / n_control)
    reach = student.ppf(0.975, freedom)
    return float(nct.sf(reach, freedom, noncentral) + nct.cdf(-reach, freedom, noncentral))


def power_table() -> str:
    """Return planned and simulated power, by cells, guides and their spread."""
    rng, rows, worst, off_book = np.random.default_rng(0), {}, 0.0, 0.0
    for n, (guides, tau2), effect in product(
        (8, 16, 48, 96, 200), ((1, 0.0), (1, 0.02), (4, 0.02), (4, 0.1)), (0.2, 0.5, 1.0)
    ):
        layout, of_control = (Layout(g, guide_variance=tau2) for g in (guides, 4 * guides))
        plan = EffectPrecision(ONE, ONE * of_control.spread(500), 500, layout)
        planned = float(plan.power([n], effect)[0, 0])
        simulated = simulated_share(rng, n, 500, guides, tau2, effect)
        worst = max(worst, abs(planned - simulated))
        name = f"{n} cells, {guides} guide{'s' * (guides > 1)}, tau2 {tau2:g}"
        rows.setdefault(name, []).append(f"{100 * planned:.1f} / {100 * simulated:.1f}")
    for n, effect in product((5, 20, 64, 394), (0.2, 0.5, 0.8)):
        same = float(EffectPrecision(ONE, ONE / n, n).power([n], effect)[0, 0])
        off_book = max(off_book, abs(same - textbook(n, n, effect)))
    return "\n\n".join([
        f"## Power, planned / simulated in %, 500 controls, {DRAWS:,} draws",
        table(["", "effect 0.2 sd", "0.5", "1"], rows),
        f"The largest difference is {100 * worst:.2f} points. With as many controls as cells and "
        f"no guides, planned power differs by at most {100 * off_book:.4f} points from the "
        "textbook two-sample formula.",
    ])  # fmt: skip


def real_table(folder: Path, n_draws: int) -> str:
    """Return planned power and that on control cells of real screens moved by an effect."""
    rng, rows = np.random.default_rng(1), {}
    for name in ("papalexi", "tapseq"):
        screen = read_screen(folder, SOURCES[name], name=name)
        label = screen.cells.obs[screen.environments.roles.perturbation_key].astype(str)
        x = rng.permutation(np.asarray(screen.cells.X)[(label == screen.control).to_numpy()])
        variance, x = x[::2].var(axis=0, ddof=1), x[1::2]
        for n, effect in product((10, 30, 100), (0.2, 0.4)):
            hits = np.zeros((2, x.shape[1]))
            for k in range(n_draws):
                order, up = rng.permutation(len(x)), k % 2
                own, other = x[order[:n]] + (effect if up else -effect), x[order[n:]]
                a, b = ((part.mean(axis=0), part.std(axis=0, ddof=1)) for part in (own, other))
                p = ttest_ind_from_stats(*a, n, *b, len(other), equal_var=False).pvalue
                hits[up] += p < 0.05
            falls, rises = hits / (n_draws // 2)
            found = hits.sum(axis=0) / n_draws
            planned = EffectPrecision(variance, variance / (len(x) - n), len(x) - n).power(
                [n], effect
            )[0]
            gap = np.abs(planned - found)
            shares = [share.mean() for share in (planned, found, rises, falls)]
            rows[f"{name}, {n} cells, effect {effect:g}"] = [
                f"{100 * share:.1f}" for share in (*shares, np.median(gap), gap.max())
            ]
    heads = ["planned", "found", "increases", "decreases", "median difference per gene", "largest"]
    return "\n\n".join([
        f"## Power on real control cells in %, {n_draws:,} tests with alternating increases and "
        "decreases: means over genes; differences between planned and found power",
        table(["", *heads], rows),
    ])  # fmt: skip


@quiet()
def first_table(folder: Path, n_draws: int) -> str:
    """Return the power planned from controls alone, and the share of known effects found.

    An effect is known if its difference of means is five standard errors or more in half of the
    cells. Its size is that in the other half, from which cells are drawn with replacement, in
    guides that are drawn with replacement as well.
    """
    rng, rows, gaps = np.random.default_rng(3), {}, {}
    for name in ("papalexi", "tapseq"):
        screen = read_screen(folder, SOURCES[name], name=name)
        labels, x = screen.labels(), np.asarray(screen.cells.X)
        guides = screen.cells.obs[screen.guide_key].astype(str).to_numpy()
        control = x[labels == screen.control]
        plan = plan_of_controls(screen.cells[labels == screen.control].copy())
        found: dict[str, list[list[tuple[float, ...]]]] = {}
        for perturbation in sorted(set(labels) - {screen.control}):
            own = rng.permutation(np.flatnonzero(labels == perturbation))
            first, second = x[own[::2]], own[1::2]
            error = np.sqrt(first.var(axis=0) / len(first) + control.var(axis=0) / len(control))
            is_known = np.abs(first.mean(axis=0) - control.mean(axis=0)) > 5 * error
            pools = [x[second[guides[second] == guide]] for guide in sorted(set(guides[second]))]
            pools = [pool for pool in pools if len(pool) > 1]
            effect = np.mean([pool.mean(axis=0) for pool in pools], axis=0) - control.mean(axis=0)
            for n, (low, high) in product(CELLS, EFFECTS):
                large = is_known & (np.abs(effect) >= low) & (np.abs(effect) < high)
                if large.any():
                    planned = plan.power([n], np.abs(effect))[0]
                    shown = share_found(control, pools, n, plan.layout, n_draws, rng)
                    sums = [
                        (one.sum(), planned[one].sum(), shown[one].sum())
                        for one in (large, large & (effect > 0), large & (effect < 0))
                    ]
                    row = f"{name}, {low:g} to {high:g}, {n} cells".replace("to 9", "and more")
                    found.setdefault(row, []).append(sums)
        for row in sorted(found, key=by_number):
            rows[row] = compared(drawn := np.array(found[row]), rng)
            n_effects, planned, shown = drawn.sum(axis=0).T
            gaps[row] = 100 * (planned - shown) / np.maximum(n_effects, 1)
    heads = ["effects", "perturbations", "planned", "found", "planned minus found"]
    heads += ["increases, planned / found", "decreases"]
    return "\n\n".join([
        f"## Power planned from controls alone, in %, {n_draws} draws of each perturbation: means "
        "over known effects, 95% intervals over perturbations",
        table(["", *heads], rows),
        misses(gaps),
    ])  # fmt: skip


def plan_of_controls(controls: ad.AnnData) -> EffectPrecision:
    """Return the precision that ``tl.plan_cells`` plans a first screen with."""
    controls.obs["perturbation"] = "control"
    npt.pp.setup_screen(controls, check_scale=False)
    npt.tl.plan_cells(controls)
    stored = controls.uns["plan_cells"]
    variance, n = stored["genes"]["cell_sd"].to_numpy() ** 2, controls.n_obs
    guide_variance = stored["noise"]["guide_variance"]
    layout = Layout(stored["params"]["n_guides"], guide_variance=guide_variance)
    return EffectPrecision(variance, variance / n, n, layout)


def share_found(
    control: np.ndarray, pools: list[np.ndarray], n: int, layout: Layout, n_draws: int,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Return how often Welch's test finds each gene changed in ``n`` cells of resampled guides."""
    other, m = control.var(axis=0, ddof=1) / len(control), len(control)
    hits = np.zeros(control.shape[1])
    for _ in range(n_draws):
        guides = rng.integers(len(pools), size=layout.n_guides)[np.arange(n) % layout.n_guides]
        cells = np.array([pools[g][rng.integers(len(pools[g]))] for g in guides])
        own = cells.var(axis=0, ddof=1) * layout.spread(n)
        freedom = (own + other) ** 2 / (own**2 / (n - 1) + other**2 / (m - 1))
        difference = np.abs(cells.mean(axis=0) - control.mean(axis=0))
        hits += difference > student.ppf(0.975, freedom) * np.sqrt(own + other)
    return hits / n_draws


def compared(sums: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Return planned and found power, with intervals over perturbations.

    ``sums`` are, of every perturbation, the number of effects and the sums of their planned and
    found power, over all effects, increases and decreases: ``(n_perturbations, 3, 3)``.
    """
    drawn = sums[rng.integers(len(sums), size=(2000, len(sums))), 0].sum(axis=1)
    of_draws = 100 * drawn[:, 1:] / drawn[:, :1]
    (n, planned, found), *by_sign = sums.sum(axis=0)
    limits = [
        np.quantile(values, (0.025, 0.975))
        for values in (of_draws[:, 1], of_draws[:, 0] - of_draws[:, 1])
    ]
    return [
        f"{n:.0f}", str(len(sums)), f"{100 * planned / n:.0f}",
        *(f"{value:.0f} ({low:.0f} to {high:.0f})" for value, (low, high) in zip(
            (100 * found / n, 100 * (planned - found) / n), limits, strict=True
        )),
        *(f"{100 * one[1] / one[0]:.0f} / {100 * one[2] / one[0]:.0f}" if one[0] else "-"
          for one in by_sign),
    ]  # fmt: skip


def misses(gaps: dict[str, np.ndarray]) -> str:
    """Return where planned power has the largest errors, with 10 cells and with more."""
    parts = []
    for (k, kind), few in product(enumerate(("all", "increases", "decreases")), (True, False)):
        rows = [row for row in gaps if row.endswith(", 10 cells") == few]
        most = max(rows, key=lambda row: abs(gaps[row][k]))
        parts.append(f"{kind}, {gaps[most][k]:.0f} ({most})")
    return f"Largest errors, planned minus found, in percentage points: {'; '.join(parts)}."


def by_number(row: str) -> tuple[str, int]:
    """Return what rows are sorted by: their size of effects, and the number of cells."""
    effect, cells = row.rsplit(", ", 1)
    return effect, int(cells.split()[0])


def noise_screen(seed: int, kind: str) -> tuple[ad.AnnData, dict[str, Any]]:
    """Return a fitted screen of nine perturbations, and two targets.

    ``kind``: the cells' labels are ``"shuffled"``, or cells are drawn like controls (``"noise"``).
    Targets: a label, and the state that its cells had before.
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


def noise_table(n_screens: int) -> str:
    """Return how often each advice is given on noise, and on screens with effects."""
    rows: dict[str, list[int]] = {}
    for kind, seed in product(("shuffled", "noise", "effects"), range(n_screens)):
        adata, targets = noise_screen(seed, kind)
        for name, target in targets.items():
            npt.tl.plan_cells(adata, target)
            counts = rows.setdefault(f"{kind}, towards {name}", [0] * len(KINDS))
            counts[KINDS.index(adata.uns["plan_cells"]["advice"]["kind"])] += 1
    return "\n\n".join([
        f"## Advice on noise, {n_screens} screens of each kind, 9 perturbations x 20 cells",
        table(["", *KINDS], rows),
        "Shuffled: the labels of all cells are shuffled. Noise: cells are drawn like controls, "
        "gene by gene. Effects: as simulated.",
    ])  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Print the tables asked for."""
    parser = options("power", __doc__, data=True)
    made = {
        "power": power_table, "real": lambda: real_table(args.data, args.draws),
        "first": lambda: first_table(args.data, args.draws // 5),
        "noise": lambda: noise_table(args.screens),
    }  # fmt: skip
    parser.add_argument("--tables", nargs="+", default=list(made), choices=list(made))
    parser.add_argument("--screens", type=int, default=40, help="of every kind of noise")
    parser.add_argument("--draws", type=int, default=1000, help="of real cells")
    args = parser.parse_args(arguments)
    save("power", [show(made[name]()) for name in args.tables], args.save)


if __name__ == "__main__":
    main()
