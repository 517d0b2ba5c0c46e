"""Intervals of predicted distances against distances of cells held out, on real screens.

The cells of every perturbation are split in three: one third gives the states to reach, one the
means to hold, and of the last n cells (1,000: at most all of them) with all controls are what
graph, fit and ranking know; or none at all, a perturbation left out of everything. Towards the
states of the strongest perturbations: how often the 90% interval of the ranking holds the distance
of the mean held out (less what its sampling adds): that of the hierarchical model, as the ranking
has it, and that of random shifts on the graph. The interval is about the true mean, so it is
asked twice: as it stands, and as the interval of what such a mean will show, its sampling added to
every draw. The target is taken as given, so that its error is on neither side. Median half width of
the interval and 1.64 standard errors of the distance held out, in units of the distance of doing
nothing. After ± the standard error over splits, of the same cells, so too small for another screen.

    python -m benchmarks.distance_coverage                  # some minutes; data: NEXTPERT_DATA
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import nextpert as npt
from benchmarks._quiet import quiet
from benchmarks._screens import Screen, Source, add_arguments, screens_of
from nextpert._adata import posterior_from
from nextpert.core import Moments, ranked_distance
from nextpert.core.design.distances import states_of
from nextpert.core.screen.mean_distance import mean_distance
from nextpert.tl._design_interventions.candidates import read_candidates

if TYPE_CHECKING:
    import anndata as ad

SIZES = (10, 100, 1000)
Z = 1.6449  # of a 90% interval
MODELS = ("hierarchical", "on the graph")
HEAD = (
    "screen", "cells of each", "model", "distances", "as it stands",
    "sampling of the mean held out added", "half width", "1.64 se held out",
)  # fmt: skip


class Thirds:
    """A screen's cells, those of every perturbation in thirds: to reach, to hold, to know."""

    def __init__(self, screen: Screen, source: Source, n_targets: int, seed: int) -> None:
        roles = screen.environments.roles
        self.cells, self.roles, self.guide_key = screen.cells, roles, source.guide_key
        self.shift = "activation" if screen.name == "norman" else "knockout"
        self.measured = sorted(screen.targets)
        self.label = screen.cells.obs[roles.perturbation_key].astype(str).to_numpy()
        rng, x = np.random.default_rng(seed), np.asarray(screen.cells.X)
        self.known: dict[str, np.ndarray] = {}
        self.held: dict[str, Moments] = {}
        states: dict[str, Moments] = {}
        for name in sorted(set(self.label) - {roles.control}):
            parts = np.array_split(rng.permutation(np.flatnonzero(self.label == name)), 3)
            if len(parts[-1]) < max(SIZES[0], 2):
                continue
            states[name], self.held[name] = (Moments.from_array(x[part]) for part in parts[:2])
            self.known[name] = parts[2]
        zero = x[self.label == roles.control].mean(axis=0)
        away = {name: mean_distance(each, zero).estimate for name, each in states.items()}
        strongest = sorted(away, key=lambda name: -away[name])[:n_targets]
        genes = list(screen.cells.var_names)
        self.states = {
            name: dict(zip(genes, states[name].mean.tolist(), strict=True)) for name in strongest
        }

    def fit(self, n_cells: int, *, without: str | None = None) -> ad.AnnData:
        """Return controls and ``n_cells`` of each perturbation, fitted."""
        kept = [np.flatnonzero(self.label == self.roles.control)]
        kept += [rows[:n_cells] for name, rows in self.known.items() if name != without]
        adata = self.cells[np.concatenate(kept)].copy()
        npt.pp.setup_screen(
            adata, perturbation_key=self.roles.perturbation_key, control=self.roles.control,
            guide_key=self.guide_key,
        )  # fmt: skip
        npt.tl.learn_dag(adata, method="boss", environments="all")
        npt.tl.fit_dag_blr(adata, shift=self.shift)
        return adata

    def asked(self, adata: ad.AnnData, names: list[str]) -> dict[str, list[tuple[float, ...]]]:
        """Return both intervals, the distance held out and its error, over that of nothing.

        By the model.
        """
        fit, rng = posterior_from(adata), np.random.default_rng(0)
        rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in MODELS}
        for target, state in self.states.items():
            others = [name for name in names if name != target]
            if not others:
                continue
            pool = read_candidates(others, None, fit)
            known = fit.known(pool.prior)
            goal = np.array(list(state.values()))
            held = [mean_distance(self.held[name], goal) for name in others]
            each = pool.states(fit), states_of(fit.posteriors, known)
            for model, states in zip(MODELS, each, strict=True):
                drawn = ranked_distance(fit.posteriors, known, goal, states=states, rng=0)
                unit = float(drawn.mean[-1])
                for k, found in enumerate(held):
                    seen = drawn.draws[:, k] + found.sd * rng.standard_normal(len(drawn.draws))
                    ends = (drawn.low[k], drawn.high[k], *np.quantile(seen, [0.05, 0.95]))
                    rows[model].append(tuple(x / unit for x in (*ends, found.estimate, found.sd)))
        return rows


def shown(name: str, n: str, found: list[dict[str, list[tuple[float, ...]]]]) -> list[str]:
    """Return rows of the table, from the distances of every split by the model."""
    return [row(f"{name} | {n} | {model}", [each[model] for each in found]) for model in MODELS]


def row(head: str, splits: list[list[tuple[float, ...]]]) -> str:
    """Return a row of the table, from the distances of every split."""
    held = []
    for rows in splits:
        low, high, wide_low, wide_high, truth, _ = np.array(rows).T
        plain = (low <= truth) & (truth <= high)
        added = (wide_low <= truth) & (truth <= wide_high)
        held.append((100 * plain.mean(), 100 * added.mean()))
    every = np.concatenate([np.array(rows) for rows in splits])
    width, error = np.median((every[:, 1] - every[:, 0]) / 2), Z * np.median(every[:, 5])
    spread = np.std(held, axis=0, ddof=1) / np.sqrt(len(held)) if len(held) > 1 else None
    shares = [f"{share:.0f}" for share in np.mean(held, axis=0)]
    if spread is not None:
        shares = [f"{share} ± {se:.0f}" for share, se in zip(shares, spread, strict=True)]
    cells = f"| {head} | {len(every)} | {' | '.join(f'{share}%' for share in shares)} |"
    return f"{cells} {width:.3f} | {error:.3f} |"


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.distance_coverage", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--screens", nargs="+", default=["papalexi", "tapseq", "norman"])
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--targets", type=int, default=6)
    parser.add_argument("--left-out", type=int, default=6, help="perturbations left out, at most")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument("--save", metavar="FILE", help="also write the table to this file")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for source, screen in screens_of(args):
        parts = [Thirds(screen, source, args.targets, seed) for seed in range(args.splits)]
        for n in args.cells:
            splits = [each.asked(each.fit(n), list(each.known)) for each in parts]
            lines += shown(screen.name, str(n), splits)
            print(*lines[-len(MODELS) :], sep="\n", flush=True)
        one = parts[0]
        absent = [name for name in one.measured if name in one.known][: args.left_out]
        each = [one.asked(one.fit(10**9, without=name), [name]) for name in absent]
        joined = {model: [row for found in each for row in found[model]] for model in MODELS}
        lines += shown(screen.name, "left out", [joined])
        print(*lines[-len(MODELS) :], sep="\n", flush=True)
    text = "\n".join(lines) + "\n"
    if args.save:
        Path(args.save).write_text(text)
    print("\n" + text)


if __name__ == "__main__":
    main()
