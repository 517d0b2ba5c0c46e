"""Coverage of intervals of distances, on screens with strong effects and with hardly any effects.

The cells of every perturbation are split into two halves: the last n cells of one half, with half
of the control cells, are used for fit and ranking; the other half gives the true distances. Towards
the state of every perturbation in turn (the strongest, by the held-out cells, or all with
``--targets 0``), ``tl.design_interventions`` is called twice: "label" names the perturbation,
"vector" gives the mean of its held-out cells as numbers. Genes that a perturbation of the screen
targets have the weight 0, because a ranking towards a named perturbation leaves out its target
genes and those of the candidate (equation 28; the panel of Hill has no other genes). Coverage is
that of the 90% intervals ``predicted_low`` to ``predicted_high``. The truth is the unbiased
distance of held-out means, at least 0; because it has an error of its own, the half widths of the
interval and 1.64 of its standard errors are added in quadrature. An interval that begins at 0
always covers a truth of 0, so truths above 0 (*above 0*, their number) are also counted alone. The
target as a vector is taken as exact. With ``--nothing``, cells of 12 perturbations without any
effect are simulated (100 genes with three common factors, 100 control cells); the truth is then
known exactly. Half width and truth are medians, relative to the sum of the variances of the
weighted genes within cells over n: the squared error of the mean of n cells. Values after ± are
standard errors over splits, which are of the same cells.

    python -m benchmarks.distance_coverage                           # data: NEXTPERT_DATA
    python -m benchmarks.distance_coverage --screens papalexi --without-strong 8 --targets 0
    python -m benchmarks.distance_coverage --nothing
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table, with_error
from benchmarks._screens import Screen, add_arguments, screens_of
from nextpert.core import Moments
from nextpert.core.screen.mean_distance import mean_distance

SIZES = (10, 25, 50)
Z = 1.6449  # of a 90% interval
KINDS = ("vector", "label")
COVERED = ("distances", "coverage", "above 0", "coverage of these")
HEAD = ("screen", "cells each", "target", *COVERED, "half width", "truth")


class Halves:
    """A screen's cells in two halves: to know, and to hold; of some perturbations."""

    def __init__(self, screen: Screen, n_targets: int, n_without: int, seed: int) -> None:
        roles = screen.environments.roles
        self.key, self.control, self.cells = roles.perturbation_key, roles.control, screen.cells
        label = screen.labels()
        rng, self.x = np.random.default_rng(seed), np.asarray(screen.cells.X)
        self.known: dict[str, np.ndarray] = {}
        self.held: dict[str, Moments] = {}
        for name in sorted(set(label)):
            parts = np.array_split(rng.permutation(np.flatnonzero(label == name)), 2)
            if len(parts[1]) >= SIZES[0]:
                self.known[name], self.held[name] = parts[1], Moments.from_array(self.x[parts[0]])
        varies = self.x[self.known[self.control]].std(axis=0) > 0
        counted = varies & ~np.isin(np.arange(len(varies)), list(screen.targets.values()))
        self.genes = list(self.cells.var_names[counted])
        if not self.genes:
            message = f"{screen.name}: every gene of the panel is a target, so no gene counts."
            raise ValueError(message)
        self.cells, self.x = self.cells[:, varies], self.x[:, varies]
        self.held = {
            name: Moments(each.n, each.mean[counted], each.scatter[np.ix_(counted, counted)])
            for name, each in self.held.items()
        }
        zero = self.held[self.control]
        away = {name: mean_distance(each, zero).estimate for name, each in self.held.items()}
        del away[self.control]
        order = sorted(away, key=lambda name: -away[name])
        for name in order[:n_without]:
            del self.known[name], self.held[name]
        self.targets = order[n_without:][: n_targets or None]

    def fitted(self, n: int) -> ad.AnnData:
        """Return the controls and ``n`` cells of each perturbation that are known, fitted."""
        rows = [cells if name == self.control else cells[:n] for name, cells in self.known.items()]
        adata = self.cells[np.concatenate(rows)].copy()
        npt.pp.setup_screen(
            adata, perturbation_key=self.key, control=self.control, check_scale=False
        )
        npt.tl.learn_dag(adata, method="given", dag=[])
        npt.tl.fit_dag_blr(adata)
        return adata

    def vector(self, name: str) -> np.ndarray:
        """Return the target as numbers, of the genes that count."""
        return np.asarray(self.held[name].mean)

    def truth(self, name: str, target: str, kind: str) -> tuple[float, float]:
        """Return the distance of a perturbation to a target, and its standard error."""
        wanted = self.vector(target) if kind == "vector" else self.held[target]
        found = mean_distance(self.held[name], wanted)
        return max(found.estimate, 0.0), found.sd


class Nothing(Halves):
    """A simulated screen without any effect, and a target that is a mean of other cells."""

    def __init__(self, seed: int, n_targets: int, *, p: int = 100, n_control: int = 100) -> None:
        rng = np.random.default_rng([seed, 5])
        names = ["control", *(f"P{k:02}" for k in range(12))]
        sizes = [n_control, *[max(SIZES)] * 12]
        loadings = 0.4 * rng.normal(size=(3, p))
        x = rng.normal(size=(sum(sizes), 3)) @ loadings + rng.normal(size=(sum(sizes), p)) + 5.0
        label = np.repeat(names, sizes)
        obs = pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(len(x))])
        self.genes = [f"G{k}" for k in range(p)]
        self.cells = ad.AnnData(x, obs, pd.DataFrame(index=self.genes))
        self.key, self.control, self.x = "perturbation", "control", x
        self.known = {name: np.flatnonzero(label == name) for name in names}
        self.targets = names[1:][: n_targets or None]
        sd = np.sqrt((1.0 + (loadings**2).sum(axis=0)) / 100)
        self.vectors = {name: 5.0 + sd * rng.normal(size=p) for name in self.targets}

    def vector(self, name: str) -> np.ndarray:
        """Return the target as numbers."""
        return self.vectors[name]

    def truth(self, name: str, target: str, kind: str) -> tuple[float, float]:
        """Return the distance of a perturbation to a target, and its standard error."""
        return (float(((self.vector(target) - 5.0) ** 2).sum()) if kind == "vector" else 0.0), 0.0


def asked(screen: Halves, n: int) -> dict[str, np.ndarray]:
    """Return whether each interval covers, its half width and the truth, by kind of target."""
    adata, genes = screen.fitted(n), screen.genes
    rows: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
    label = adata.obs[screen.key].astype(str).to_numpy()
    x = np.asarray(adata[:, genes].X)
    within = sum(x[label == one].var(axis=0, ddof=1) for one in set(label))
    unit = float(np.sum(within)) / len(set(label)) / n
    for target in screen.targets:
        numbers = dict(zip(genes, screen.vector(target).tolist(), strict=True))
        for kind, state in (("vector", numbers), ("label", target)):
            wanted = npt.Target(state=state, weights=genes)
            npt.tl.design_interventions(adata, wanted, acquisition="greedy", key_added=kind)
            table = adata.uns[kind]["ranking"].set_index("perturbation")
            for name in table.index.drop([screen.control, target], errors="ignore"):
                low, middle, high = table.loc[
                    name, ["predicted_low", "predicted_distance", "predicted_high"]
                ].to_numpy(float)
                truth, sd = screen.truth(name, target, kind)
                below, above = (np.hypot(side, Z * sd) for side in (middle - low, high - middle))
                inside = middle - below - 1e-12 <= truth <= middle + above
                rows[kind].append((inside, (high - low) / 2 / unit, truth / unit))
    return {kind: np.array(each, float) for kind, each in rows.items()}


def rows_of(name: str, n: int, splits: list[dict[str, np.ndarray]]) -> list[list[str]]:
    """Return rows of the table, from the distances of every split."""
    rows = []
    for kind in KINDS:
        every = np.concatenate([split[kind] for split in splits])
        width, truth = np.median(every[:, 1:], axis=0)
        covered = with_error([split[kind][:, 0].mean() for split in splits])
        above = [split[kind][split[kind][:, 2] > 0, 0] for split in splits]
        n_above = sum(map(len, above))
        of_these = with_error([each.mean() for each in above if len(each)])
        counts = [len(every), covered, n_above, of_these]
        rows.append([name, n, kind, *counts, f"{width:.2f}", f"{truth:.2f}"])
    return rows


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("distance_coverage", __doc__, data=True)
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--targets", type=int, default=6, help="the strongest; 0 for all")
    parser.add_argument(
        "--without-strong", type=int, default=0, help="leave out the strongest perturbations"
    )
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--nothing", action="store_true", help="simulated screens without effects")
    add_arguments(parser, "papalexi", "tapseq")
    args = parser.parse_args(arguments)
    seeds, rows = range(args.splits), []
    screens = () if args.nothing else screens_of(args)
    without = args.without_strong
    every = {"nothing": [Nothing(k, args.targets) for k in seeds]} if args.nothing else {}
    every |= {
        screen.name + (f" without {without}" if without else ""): [
            Halves(screen, args.targets, without, seed) for seed in seeds
        ]
        for screen in screens
    }
    for name, splits in every.items():
        for n in args.cells:
            rows += rows_of(name, n, [asked(each, n) for each in splits])
    save("distance_coverage", [show(table(HEAD, rows))], args.save)


if __name__ == "__main__":
    main()
