"""Guides that nobody declared: what effects and ``tl.diagnose`` say with and without them.

Simulated screens whose truth is known: 30 genes, a random graph (given to the fit as it is), 18
knockouts of 0.4 to 1.0 of their gene's mean, 3 guides of 40 cells each, 12 control guides of 60
cells. Every guide shifts the mean of each gene by a normal deviation; its variance is a share of
the variance of a cell. In half of the screens perturbations have no effect at all. Each screen is
fitted and diagnosed

- without a column of guides in ``obs``,
- with the column, which is not declared, so that the fit does not use it,
- with the column declared as ``guide_key``.

The table has the coverage of 90% intervals of ``tl.perturbation_effects`` against the true effects
(all perturbations, and the strongest tenth of them), the coverage between halves that the diagnosis
reports (all effects, and large ones), the share of perturbations that the diagnosis calls different
from the controls, the share of screens in which it names the column as scattering, and its verdict.
Means over screens ± standard errors.

    python -m benchmarks.undeclared_guides                 # some minutes
    python -m benchmarks.undeclared_guides --screens 2     # a trial
"""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._table import options, save
from nextpert.core import LinearScm, random_scm

N_GENES, N_KNOCKED, N_GUIDES, N_CELLS = 30, 18, 3, 40
N_CONTROL_GUIDES, N_CONTROL_CELLS = 12, 60
VARIANCES = (0.0, 0.03, 0.1)
WAYS = ("no column", "not declared", "declared")
QUANTITIES = (
    "coverage of effects", "of the strongest tenth", "coverage between halves", "of large effects",
    "called different from controls", "column said to scatter",
)  # fmt: skip
LEVELS = ("trust", "care", "do not trust")


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("undeclared_guides", __doc__)
    parser.add_argument("--screens", type=int, default=12)
    args = parser.parse_args(arguments)
    columns = ("guide variance", "effects", "guides", *QUANTITIES, *LEVELS)
    lines = [
        f"Guides that are not declared, {args.screens} simulated screens a row, means ± standard "
        "errors. The last three columns count verdicts.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for variance in VARIANCES:
        for has_effects in (True, False):
            found = [diagnose_all(seed, variance, has_effects) for seed in range(args.screens)]
            for k, way in enumerate(WAYS):
                shown = [f"{variance:g}", "yes" if has_effects else "none", way]
                shown += [spread(each) for each in zip(*(one[k][0] for one in found), strict=True)]
                said = [one[k][1] for one in found]
                shown += [str(said.count(level)) for level in LEVELS]
                lines.append(f"| {' | '.join(shown)} |")
                print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    save([text], args.save)


def spread(values: tuple[float, ...]) -> str:
    """Return mean and standard error in two digits; nothing where there is none."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return ""
    error = f" ± {known.std(ddof=1) / np.sqrt(len(known)):.2f}" if len(known) > 1 else ""
    return f"{known.mean():.2f}{error}"


def simulate(seed: int, variance: float, has_effects: bool) -> tuple[ad.AnnData, np.ndarray]:
    """Return a screen with the true graph, and the true effects of its knockouts by label."""
    rng = np.random.default_rng([seed, 1])
    unit = random_scm(N_GENES, "erdos_renyi", expected_degree=4, rng=rng)
    place = rng.permutation(N_GENES)
    mean = rng.uniform(2.0, 4.0, N_GENES)
    weights = unit.weights[np.ix_(place, place)]
    scm = LinearScm(weights, unit.noise_var[place], mean - weights @ mean)
    total = np.linalg.inv(np.eye(N_GENES) - weights)
    sd = np.sqrt(np.einsum("ij,j,ij->i", total, scm.noise_var, total))
    genes = [f"G{k:02d}" for k in range(N_GENES)]
    knocked = np.sort(rng.choice(N_GENES, N_KNOCKED, replace=False))
    shifts = np.zeros((N_KNOCKED, N_GENES))
    if has_effects:
        shifts[np.arange(N_KNOCKED), knocked] = -rng.uniform(0.4, 1.0, N_KNOCKED) * mean[knocked]
    parts, obs = [], []
    for j in range(-1, N_KNOCKED):
        name = "control" if j < 0 else genes[knocked[j]]
        n_guides, n_cells = (N_CONTROL_GUIDES, N_CONTROL_CELLS) if j < 0 else (N_GUIDES, N_CELLS)
        for k in range(n_guides):
            cells = scm.sample(n_cells, None if j < 0 else shifts[j], rng=rng)
            parts.append(cells + np.sqrt(variance) * sd * rng.normal(size=N_GENES))
            obs += [(name, f"{name}_{k}")] * n_cells
    table = pd.DataFrame(obs, columns=["perturbation", "guide"])
    table.index = [f"c{k}" for k in range(len(table))]
    adata = ad.AnnData(np.concatenate(parts), table, pd.DataFrame(index=genes))
    npt.tl.learn_dag(adata, method="given", dag=weights.T, genes=genes)
    return adata, shifts @ total.T


def diagnose_all(seed: int, variance: float, has_effects: bool) -> list[tuple[list[float], str]]:
    """Return ``QUANTITIES`` and the verdict of one screen, for each of ``WAYS``."""
    adata, truth = simulate(seed, variance, has_effects)
    out = []
    for way in WAYS:
        each = adata.copy()
        if way == "no column":
            del each.obs["guide"]
        npt.pp.setup_screen(each, guide_key="guide" if way == "declared" else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            npt.tl.fit_dag_blr(each)
            npt.tl.perturbation_effects(each)
            npt.tl.diagnose(each)
        out.append(quantities(each, truth))
    return out


def quantities(adata: ad.AnnData, truth: np.ndarray) -> tuple[list[float], str]:
    """Return ``QUANTITIES`` and the verdict of one fit."""
    effects, found = adata.uns["perturbation_effects"], adata.uns["diagnosis"]
    inside = (effects["lower"] <= truth) & (truth <= effects["upper"])
    size = (truth**2).sum(axis=1)
    strongest = np.argsort(-size)[: max(len(size) // 10, 1)]
    summary = found["summary"].set_index(["part", "quantity"])
    of_strongest = inside[strongest].mean() if size.any() else np.nan
    key = ("guides", "undeclared_variance")
    scatters = summary.loc[key, "passed"] == "no" if key in summary.index else np.nan
    return [
        float(inside.mean()),
        float(of_strongest),
        float(summary.loc[("shrinkage", "coverage_90"), "value"]),
        float(summary.loc[("shrinkage", "coverage_90_large"), "value"]),
        float(found["perturbations"]["is_significant"].mean()),
        float(scatters),
    ], str(found["level"])


if __name__ == "__main__":
    main()
