"""Fig. 6 and ED 7 to 10: the Perturb-CITE-seq screen, or a simulated stand-in for it.

The steps are those of the paper: ``pp.perturb_cite_seq(preset="zhang2023")``, GSP on unperturbed
cells, contrastive PCA, distances, and the design loop on measured cells.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import nextpert as npt
from benchmarks.paper._draw import LOOKS, STYLE, legend, plt, save
from benchmarks.paper._figures import ACQUISITIONS, NAMES
from benchmarks.paper._files import write_csv
from nextpert._adata.panel import ZHANG2023
from nextpert.core import Dag, DagBlr, Moments, Pool, design_loops

Array = np.ndarray
FIGURES = {
    "fig6": "Fig. 6: optimal interventions towards CDH19",
    "ed7": "ED Fig. 7: the graph by GSP on unperturbed cells",
    "ed8": "ED Fig. 8: replays towards five genes",
    "ed9": "ED Fig. 9: expression of the target gene in unperturbed and perturbed cells",
    "ed10": "ED Fig. 10: replays towards MYC",
}
STANDIN = "SIMULATED STAND-IN, not the real screen"
REAL = "Perturb-CITE-seq (Frangieh et al. 2021)"
GSP = {"n_runs": 1000}
RUNS, WARM_UP, CELLS, STEPS = 50, 100, 10, 10
TARGETS = {
    "fig6": ("CDH19",), "ed8": ("CDH19", "EIF3K", "HLA-C", "SERPINE2", "TGFB1"), "ed10": ("MYC",),
}  # fmt: skip
SHOWN = ("random", "greedy", "civ")  # in Fig. 6c and the lower panels of ED 8 and ED 10
PRINTED = {"MYC": (1.52, 2.58), "EIF3K": (5.19, 4.78), "HLA-C": (5.98, 4.16)}


@lru_cache(maxsize=1)
def load(study: str | None, controls: str, *, quick: bool) -> tuple[Any, str]:
    """Return the screen as the paper preprocesses it, and whose cells it holds."""
    options: Any = {"condition": "Control", "genes": "zhang2023"}
    source = REAL
    try:
        if quick:
            raise OSError("a trial")
        adata = npt.datasets.perturb_cite_seq(*([study] if study else []), **options)
    except Exception as error:
        if study:
            raise
        print(f"the study cannot be fetched ({error}): {STANDIN}", file=sys.stderr)
        source = STANDIN
        with tempfile.TemporaryDirectory() as folder:
            npt.datasets.perturb_cite_seq_standin(folder, **({"n_cells": 9000} if quick else {}))
            adata = npt.datasets.perturb_cite_seq(folder, **options)
    npt.pp.perturb_cite_seq(adata, preset="zhang2023", controls=controls)
    npt.tl.learn_dag(adata, method="gsp", search_options={**GSP, "n_runs": 5} if quick else GSP)
    return adata, source


@dataclass(frozen=True)
class Knockouts:
    """Where the cells of a replay come from: cells of the knockout whose shift is asked for.

    Parameters
    ----------
    shifts
        Minus the control mean of each gene, ``(n_candidates, n_genes)``.
    cells
        Cells of every candidate, less the control mean.
    """

    shifts: Array
    cells: list[Array]

    def _which(self, shift: Array) -> int:
        return int(((self.shifts - shift) ** 2).sum(axis=1).argmin())

    def sample(self, n_cells: int, shift: Array, *, rng: np.random.Generator) -> Array:
        """Draw cells of the knockout with replacement."""
        own = self.cells[self._which(shift)]
        return own[rng.integers(len(own), size=n_cells)]

    def mean(self, shift: Array) -> Array:
        """Return the mean of all cells of the knockout; zero is the controls'."""
        if not np.any(shift):
            return np.zeros(self.shifts.shape[1])
        return self.cells[self._which(shift)].mean(axis=0)


def warmed_up(dag: Dag, warm: Array) -> DagBlr:
    """Return the paper's posterior: m = 0, M = I, alpha = 2, beta = 0, and 100 unperturbed cells.

    Further updates take the expected noise variances as known.
    """
    cells, none = Moments.from_array(warm), np.zeros(dag.n_nodes)
    prior: Any = {"intercept": False, "prior_scale": 1.0, "prior_units": "data"}
    first = DagBlr(dag, prior_shape=2.0, prior_rate=0.0, **prior).update(cells, none)
    # Genes without a count in these cells have no variance: they take that of the median gene.
    noise_var, constant = first.noise_var.copy(), cells.constant_nodes()
    noise_var[constant] = np.median(np.delete(noise_var, constant))
    return DagBlr(dag, noise_var=noise_var, **prior).update(cells, none)


def replay(
    adata: Any, targets: tuple[str, ...], *, quick: bool, workers: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return mean and s.e.m. over runs of two squared distances, by target, acquisition and step.

    Candidates are the single knockouts of the panel, the target one of them. ``shift`` is
    ``|a*_t - a*|^2`` with the target's own knockout as a*; ``state`` is the squared distance of the
    mean of the target's cells and that of the candidate nearest to ``a*_t``.
    """
    runs, steps = (3, 4) if quick else (RUNS, STEPS)
    labels, values = adata.obs["perturbation"].to_numpy(), adata.to_df()
    control = values[labels == "control"].to_numpy(float)
    centre = control.mean(axis=0)
    cells = {name: values[labels == name].to_numpy(float) - centre for name in set(labels)}
    # A target without counts in controls is not in the panel: its knockout is no known shift.
    genes = [gene for gene in values if gene in cells]
    shifts = -np.diag(centre)[[values.columns.get_loc(gene) for gene in genes]]
    source = Knockouts(shifts, [cells[gene] for gene in genes])
    dag = Dag.from_matrix(adata.varp["dag"])
    rows, ends = [], []
    for target in targets:
        which = ZHANG2023.index(target)
        wanted, ideal = cells[target].mean(axis=0), -centre * (values.columns == target)
        starts = [np.random.default_rng([which, run]) for run in range(runs)]
        warm = [
            warmed_up(dag, (control - centre)[rng.choice(len(control), WARM_UP, replace=False)])
            for rng in starts
        ]
        for acquisition in ACQUISITIONS:
            tasks = [
                {"source": source, "posterior": warm[run], "target_mean": wanted,
                 "acquisition": acquisition, "domain": Pool(shifts), "n_rounds": steps,
                 "n_cells": CELLS, "rng": [which, run, 1]}
                for run in range(runs)
            ]  # fmt: skip
            results = design_loops(tasks, n_jobs=workers)
            measured = {
                "shift": [((r.recommended - ideal) ** 2).sum(axis=1) for r in results],
                "state": [r.distance * (wanted**2).sum() for r in results],
            }
            for name, found in measured.items():
                mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(runs)
                pairs = zip(mean, error, strict=True)
                rows += [(target, acquisition, name, t, *pair) for t, pair in enumerate(pairs)]
                ends += [(target, acquisition, name, run, d[-1]) for run, d in enumerate(found)]
        print(f"replayed towards {target}", file=sys.stderr)
    columns = ["target", "acquisition", "distance"]
    table = pd.DataFrame(rows, columns=[*columns, "step", "mean", "sem"])
    return table, compared(pd.DataFrame(ends, columns=[*columns, "run", "value"]))


def compared(ends: pd.DataFrame) -> pd.DataFrame:
    """Return CIV less the other acquisitions at the last step, paired by run.

    ``low`` and ``high`` bound the 95% interval (Student's t), ``ties`` counts equal runs.
    """
    rows = []
    for (target, distance), part in ends.groupby(["target", "distance"], sort=False):
        wide = part.pivot_table(index="run", columns="acquisition", values="value")
        for other in [name for name in ACQUISITIONS if name != "civ"]:
            gap = (wide["civ"] - wide[other]).to_numpy()
            gap = np.where(np.abs(gap) < 1e-9 * wide[other].abs().max(), 0.0, gap)
            half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
            middle, ties = gap.mean(), int((gap == 0).sum())
            rows.append((target, distance, other, middle, middle - half, middle + half, ties))
    columns = ["target", "distance", "other", "difference", "low", "high", "ties"]
    return pd.DataFrame(rows, columns=columns)


def draw_replays(table: pd.DataFrame, folder: Path, name: str, source: str) -> None:
    """Draw the replays of every target: all six acquisitions, three of them alone, and states."""
    targets = list(dict.fromkeys(table["target"]))
    sets = [("shift", ACQUISITIONS), ("shift", SHOWN), ("state", SHOWN)][name == "fig6c" :]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(sets), len(targets), figsize=(max(2.2 * len(targets), 4.4), 2.3 * len(sets) + 0.7),
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for row, (distance, shown) in zip(axes, sets, strict=True):
            for ax, target in zip(row, targets, strict=True):
                for acquisition in shown:
                    own = table["acquisition"] == acquisition
                    own &= (table["target"] == target) & (table["distance"] == distance)
                    colour, line, marker = LOOKS[acquisition]
                    ax.errorbar(
                        table["step"][own], table["mean"][own], table["sem"][own], color=colour,
                        linestyle=line, marker=marker, markersize=3, markevery=2, errorevery=1,
                        linewidth=1.2, elinewidth=0.8, label=NAMES[acquisition],
                    )  # fmt: skip
                ax.set_title(f"towards {target}", loc="left", fontsize=8)
                ax.set(xlabel="step", ylim=0)
                ax.xaxis.get_major_locator().set_params(integer=True)
                ax.grid(axis="y", color="0.92", linewidth=0.6)
            words = {"shift": "of the estimate a*", "state": "of the nearest\ncandidate's mean"}
            row[0].set_ylabel(f"squared distance {words[distance]}")
        legend(figure, axes[0, 0], 6 if len(targets) > 1 else 3)
        _save(figure, folder, name, source)


def _save(figure: Any, folder: Path, name: str, source: str) -> None:
    """Write whose cells are shown above a figure, and save it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for each in figure.legends:
        each.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    colour = "#D55E00" if source == STANDIN else "#0072B2"
    figure.text(0.005, 1 + 0.08 / figure.get_figheight(), source, color=colour, fontweight="bold",
                fontsize=9)  # fmt: skip
    save(figure, folder, name)


def _fig6(adata: Any, folder: Path, source: str) -> None:
    npt.tl.cpca(adata)
    groups = ["CDH19", "SOX4", "HLA-C"]
    _save(npt.pl.cpca_density(adata, groups=groups, return_fig=True), folder, "fig6a", source)
    target = npt.Target(state="CDH19", own_genes="include")  # as in the paper
    npt.tl.target_distances(adata, target, confidence=0.95)
    _save(npt.pl.target_distances(adata, return_fig=True), folder, "fig6b", source)
    write_csv(beside_printed(adata), folder, "fig6-printed")
    found = adata.uns["target_distances"]["table"]
    columns = ["perturbation", "n_cells", "distance", "low", "high", "plug_in_distance"]
    write_csv(found[columns], folder, "fig6-distances")


def beside_printed(adata: Any) -> pd.DataFrame:
    """Return squared distances of means to CDH19 beside the printed ones, with sampling errors."""
    cells = adata.to_df().astype(float).groupby(adata.obs["perturbation"], observed=True)
    mean, error = cells.mean(), cells.var().div(cells.size(), axis=0)
    gap, variance = mean - mean.loc["CDH19"], error + error.loc["CDH19"]
    parts = 4 * gap**2 * variance + 2 * variance**2
    others = gap.index.difference(["CDH19", "control"])
    total, sd = (gap**2).sum(axis=1)[others], np.sqrt(parts.sum(axis=1))[others]
    own = mean.loc["control", "HLA-C"] - mean.loc["HLA-C", "HLA-C"]
    own_sd = 2 * abs(own) * np.sqrt(error.loc["HLA-C", "HLA-C"] + error.loc["control", "HLA-C"])
    low, high = total.idxmin(), total.idxmax()
    rows = [
        (f"smallest ({low})", 0.4, total[low], sd[low]),
        (f"largest ({high})", 5.1, total[high], sd[high]),
        ("HLA-C", 4.35, total["HLA-C"], sd["HLA-C"]),
        ("HLA-C, its own fall from control", 3.31, own**2, own_sd),
        ("median", np.nan, total.median(), np.nan),
        ("SOX4", np.nan, total["SOX4"], sd["SOX4"]),
        ("of sampling errors alone, median", np.nan, variance.sum(axis=1)[others].median(), np.nan),
    ]
    return pd.DataFrame(rows, columns=["distance", "printed", "here", "sd"])


def _ed7(adata: Any, folder: Path, source: str) -> None:
    npt.tl.dag_fit(adata, n_random=100)
    _save(npt.pl.dag(adata, modules="module", return_fig=True), folder, "ed7-dag", source)
    _save(npt.pl.dag_fit(adata, return_fig=True), folder, "ed7-fit", source)
    write_csv(adata.uns["dag_fit"]["table"], folder, "ed7")


def _ed9(adata: Any, folder: Path, source: str) -> None:
    figure = npt.pl.expression_shift(adata, genes=list(PRINTED), return_fig=True)
    _save(figure, folder, "ed9", source)
    labels, rows = adata.obs["perturbation"].to_numpy(), []
    for gene, printed in PRINTED.items():
        values = adata.to_df()[gene].to_numpy(float)
        here = [values[labels == label] for label in ("control", gene)]
        rows.append((gene, *printed, *(v.mean() for v in here), *(len(v) for v in here)))
    columns = ["gene", "printed_control", "printed_perturbed", "control", "perturbed"]
    columns += ["n_control", "n_perturbed"]
    write_csv(pd.DataFrame(rows, columns=columns), folder, "ed9")


def run(
    key: str, folder: Path, *, quick: bool, workers: int, study: str | None, controls: str
) -> dict[str, object]:
    """Make one figure of the screen; return what it was made with."""
    adata, source = load(study, controls, quick=quick)
    others = {"fig6": _fig6, "ed7": _ed7, "ed9": _ed9}
    if key in others:
        others[key](adata, folder, source)
    if key in TARGETS:
        table, pairs = replay(adata, TARGETS[key], quick=quick, workers=workers)
        write_csv(table, folder, key)
        write_csv(pairs, folder, f"{key}-pairs")
        draw_replays(table, folder, "fig6c" if key == "fig6" else key, source)
    labels, fit = adata.obs["perturbation"], adata.uns.get("dag_fit", {})
    facts = {"source": source, "controls": controls, "n_control": int((labels == "control").sum())}
    facts |= {"n_cells": len(labels), "n_perturbations": int(labels.nunique()) - 1}
    facts["n_edges"] = int(adata.uns["dag"]["n_edges"])
    if key == "ed7":
        facts |= {"mean_r": round(float(fit["mean_r"]), 4), "p_value": float(fit["p_value"])}
        facts["random_mean_r"] = round(float(np.mean(fit["random_mean_r"])), 4)
        facts["largest_random_mean_r"] = round(float(np.max(fit["random_mean_r"])), 4)
    return facts
