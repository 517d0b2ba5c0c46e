"""Calibration with shifts learned, where the model holds: simulated screens, the truth known.

Simulated screens (36 genes; 1,000 controls; 18 knockouts of measured genes with efficacies from
N(.6, .2^2), 6 perturbations of genes that are not measured; 40 cells each). Besides, every
perturbation shifts every gene, by ``N(0, sigma_i^2 tau^2)`` with ``tau^2`` from a mixture: of few
weight on strong off-target effects. How often the truth lies inside 90% intervals of

- effects on all genes, and those on genes that are no own ones and move by more than .1;
- direct shifts, own genes left out;
- efficacies (own changes over the control mean) before their cells are seen;
- squared distances to a random target, of perturbations seen, and of knockouts without cells;

on the true graph, the one learned from all cells and the graphs of resamples. Mean ± standard error
over models.

    python -m benchmarks.shift_calibration               # some minutes
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import norm

import nextpert as npt
from benchmarks._table import options, save
from nextpert._adata import posterior_from
from nextpert.core import LinearScm, random_scm, random_target

QUANTITIES = (
    "effects", "effects above 0.1", "shifts", "efficacies", "distance, seen", "distance, unseen",
)  # fmt: skip
GRAPHS = ("true", "one, learned", "of resamples")
N_GENES, N_KNOCKED, N_UNMEASURED, N_CONTROL, N_CELLS = 36, 18, 6, 1000, 40
TAU2, SHARE = (2.0**-9, 2.0**-5, 1.0), (0.6, 0.3, 0.1)
EFFICACY = (0.6, 0.2)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("shift_calibration", __doc__)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--graphs", type=int, default=10)
    parser.add_argument("--degree", type=float, default=4.0)
    args = parser.parse_args(arguments)
    found = np.array([coverage(seed, args.degree, args.graphs) for seed in range(args.models)])
    mean = 100 * np.nanmean(found, axis=0)
    error = 100 * np.nanstd(found, axis=0, ddof=1) / np.sqrt(args.models)
    lines = [
        f"Coverage of 90% intervals in %, {args.models} models, degree {args.degree:g}, "
        f"{args.graphs} resamples.",
        "",
        f"| graphs | {' | '.join(QUANTITIES)} |",
        "|---" * (1 + len(QUANTITIES)) + "|",
    ]
    for name, row, spread in zip(GRAPHS, mean, error, strict=True):
        shown = [f"{m:.1f} ± {e:.1f}" for m, e in zip(row, spread, strict=True)]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    print("\n".join(lines), flush=True)
    save(lines, args.save)


def simulate(seed: int, degree: float) -> tuple[ad.AnnData, LinearScm, dict[str, np.ndarray]]:
    """Return cells, model and the shift of every knockout (of all genes) and other perturbation.

    The last genes are knocked out in no cell of the screen.
    """
    rng = np.random.default_rng(seed)
    unit = random_scm(N_GENES, "erdos_renyi", expected_degree=degree, rng=rng)
    mean = rng.uniform(2, 4, N_GENES)
    scm = LinearScm(unit.weights, unit.noise_var, mean - unit.weights @ mean)
    order = rng.permutation(N_GENES)
    names = [f"G{i}" for i in order] + [f"X{k}" for k in range(N_UNMEASURED)]
    shifts = {}
    for k, name in enumerate(names):
        tau2 = rng.choice(TAU2, size=N_GENES, p=SHARE)
        shift = rng.normal(size=N_GENES) * np.sqrt(tau2 * scm.noise_var)
        if k < N_GENES:
            shift[order[k]] = -rng.normal(*EFFICACY) * mean[order[k]]
        shifts[name] = shift
    seen = names[:N_KNOCKED] + names[N_GENES:]
    cells = [scm.sample(N_CONTROL, rng=rng)]
    cells += [scm.sample(N_CELLS, shifts[name], rng=rng) for name in seen]
    label = np.repeat(["control", *seen], [N_CONTROL, *[N_CELLS] * len(seen)])
    obs = pd.DataFrame({"perturbation": label}, [f"c{k}" for k in range(len(label))])
    var = pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)])
    return ad.AnnData(np.concatenate(cells), obs, var), scm, shifts


def coverage(seed: int, degree: float, n_graphs: int) -> list[list[float]]:
    """Return ``QUANTITIES`` for each of ``GRAPHS``, of one simulated screen."""
    adata, scm, shifts = simulate(seed, degree)
    genes = list(adata.var_names)
    rng = np.random.default_rng([seed, 1])
    _, goal = random_target(scm, N_GENES // 3, rng=rng)
    target = dict(zip(genes, goal.tolist(), strict=True))
    rows = []
    for name in GRAPHS:
        if name == "true":
            npt.tl.learn_dag(adata, method="given", dag=scm.weights.T, genes=genes)
        else:
            several = n_graphs if name == "of resamples" else 1
            npt.tl.learn_dag(
                adata, genes=genes, method="boss", environments="all", n_graphs=several, rng=seed
            )
        npt.tl.fit_dag_blr(adata)
        rows.append(held(adata, scm, shifts, target, goal))
    return rows


def held(
    adata: ad.AnnData,
    scm: LinearScm,
    shifts: dict[str, np.ndarray],
    target: dict[str, float],
    goal: np.ndarray,
) -> list[float]:
    """Return the shares of truths inside their intervals, for one fit."""
    npt.tl.perturbation_effects(adata)
    found = adata.uns["perturbation_effects"]
    names = [str(name) for name in found["perturbations"]]
    truth = np.array([scm.mean(shifts[name]) - scm.mean() for name in names])
    inside = (found["lower"] <= truth) & (truth <= found["upper"])
    own = np.array([[name == gene for gene in adata.var_names] for name in names])
    fit = posterior_from(adata)
    known, blr = fit.prior.given(fit.posterior), fit.posterior
    away = known.departure(blr)
    # Of a mixture, by the two moments.
    low, high = (
        known.prior + known.share * away + z * np.sqrt(known.spare * blr.noise_var)
        for z in norm.interval(0.9)
    )
    direct = np.array([shifts[name] for name in names])
    shift_in = (low <= direct) & (direct <= high)
    made = fit.efficacy
    mean, sd = (np.nan, np.nan) if made is None else (made.mean, made.sd)
    unseen = [n for n in shifts if n not in names]
    rho = np.array([-shifts[n][int(n[1:])] / scm.mean()[int(n[1:])] for n in unseen])
    npt.tl.design_interventions(adata, target, acquisition="civ", candidates=[*names, *unseen])
    ranking = adata.uns["design"]["ranking"]
    table = ranking[~ranking["is_control"]].set_index("perturbation")
    reached = np.array([((scm.mean(shifts[n]) - goal) ** 2).sum() for n in table.index])
    within = (table["predicted_low"] <= reached) & (reached <= table["predicted_high"])
    return [
        float(inside.mean()),
        float(inside[~own & (np.abs(truth) > 0.1)].mean()),
        float(shift_in[~own].mean()),
        float((np.abs(rho - mean) <= norm.ppf(0.95) * sd).mean()),
        float(within[names].mean()),
        float(within[unseen].mean()),
    ]


if __name__ == "__main__":
    main()
