"""Another screen: what effects of the same perturbations elsewhere are worth, and how far believed.

Replicate 1 of Papalexi is the other screen; of replicates 2 and 3 ten cells of every perturbation
are seen (20 in all), and half of the controls. Effects are scored on the other cells and controls,
their sampling error taken out: total squared error over that of "no effect", before the cells (the
stack's expectation, each perturbation by weights learned without it) and after (drawn to the
expectation by ``t^2 / (t^2 + v)``, ``t^2`` the variance the stack leaves, ``v`` the sampling
variance). Own genes are left out. The other screen is given with its standard errors, whole, with
half of its perturbations drawn at random, or with rows permuted; it predicts perturbations of the
same label, and as features (effects of perturbations that are alike there). Then simulated cell
lines whose effects are alike in none, half and all of the perturbations. Means over the draws.

    python -m benchmarks.another_screen
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from benchmarks._screens import SOURCES, read_screen
from benchmarks.side_information import described
from nextpert.core import ScreenMoments
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictor_weights import learn_predictor_weights
from nextpert.core.model.predictors.base import Prediction
from nextpert.core.model.predictors.coexpression import Coexpression
from nextpert.core.model.predictors.features import Features, OtherScreen
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation

if TYPE_CHECKING:
    from benchmarks._screens import Screen

ROWS = (
    "no expectation", "without another screen", "with it", "with half of it", "with it, permuted",
    "it alone",
)  # fmt: skip
# Before the cells, after them, weight of effects in the other screen, and of features.
Scores = dict[str, tuple[float, float, float, float]]


def elsewhere(
    there: Perturbations, names: np.ndarray, rows: np.ndarray, here: Perturbations
) -> list[Prediction]:
    """Return what another screen predicts; its perturbations ``rows`` are named as ``names``."""
    index = pd.Index([here.names[k] for k in names])
    error = np.sqrt(there.variance[rows])
    other = ad.AnnData(there.observed[rows], pd.DataFrame(index=index))
    other.layers["se"] = np.where(error > 0, error, np.nan)
    return [each.held_out(here) for each in described(other, here, list(other.var_names))]


def compare(here: Perturbations, there: Perturbations, apart: Perturbations, seed: int) -> Scores:
    """Return errors on cells set apart and the other screen's weights, by row."""
    rng, every = np.random.default_rng(seed), np.flatnonzero(there.n > 0)
    others = [Coexpression().held_out(here), MeanPerturbation().held_out(here)]
    half = np.sort(rng.permutation(every)[: len(every) // 2])
    screen, part, permuted = (
        elsewhere(there, names, rows, here)
        for names, rows in ((every, every), (half, half), (every, rng.permutation(every)))
    )
    chosen: dict[str, list[Prediction]] = {
        ROWS[0]: [Prediction("nothing", np.zeros(here.observed.shape))], ROWS[1]: others,
        ROWS[2]: [*screen, *others], ROWS[3]: [*part, *others], ROWS[4]: [*permuted, *others],
        ROWS[5]: screen,
    }  # fmt: skip
    sd = np.where(here.sd > 0, here.sd, 1.0)
    used = here.scored() & apart.scored()
    noise = (apart.variance / sd**2)[used].sum()
    size = ((apart.observed / sd)[used] ** 2).sum() - noise

    def error(effects: np.ndarray) -> float:
        return ((((effects - apart.observed) / sd)[used] ** 2).sum() - noise) / size

    out = {"cells' means": (np.nan, error(here.observed), np.nan, np.nan)}
    for row, predictions in chosen.items():
        stack = learn_predictor_weights(
            here.observed, here.variance, predictions, here.scored(), sd=here.sd
        )
        before = stack.expected(predictions)
        left = stack.residual_variance
        share = left / (left + here.variance / sd**2)
        after = before + share * (here.observed - before)
        weight = dict(zip(stack.names, stack.weights.tolist(), strict=True))
        own = (weight.get(kind.name, np.nan) for kind in (OtherScreen, Features))
        out[row] = (error(before), error(after), *own)
    return out


def without_batches(
    x: np.ndarray, code: np.ndarray, batch: np.ndarray, kept: np.ndarray, n_codes: int
) -> ScreenMoments:
    """Return the moments of every label in some of the cells, batches taken off."""
    n_batches = int(batch.max()) + 1
    both = np.where(kept, code * n_batches + batch, -1)
    moments = ScreenMoments.from_array(x, both, n_codes * n_batches)
    of_label, of_batch = np.divmod(np.arange(n_codes * n_batches), n_batches)
    indicators = (of_batch[:, None] == np.arange(1, n_batches)).astype(float)
    return moments.without_fixed(indicators, of_label).pool(of_label, n_codes)


def of_replicates(screen: Screen, column: str, n_cells: int, seed: int) -> Scores:
    """Return the scores of one draw of cells of a real screen, its first replicate the other."""
    rng = np.random.default_rng(seed)
    label = screen.cells.obs[screen.environments.roles.perturbation_key].astype(str)
    names, code = np.unique(label.to_numpy(), return_inverse=True)
    batch = np.unique(screen.cells.obs[column].astype(str).to_numpy(), return_inverse=True)[1]
    control = int(np.flatnonzero(names == screen.control)[0])
    seen = np.zeros(len(code), bool)
    for k in range(len(names)):
        for b in range(1, int(batch.max()) + 1):
            cells = rng.permutation(np.flatnonzero((code == k) & (batch == b)))
            seen[cells[: len(cells) // 2 if k == control else n_cells]] = True
    x = np.asarray(screen.cells.X)
    there, here, apart = (
        without_batches(x, code, batch, kept, len(names))
        for kept in (batch == 0, seen, (batch > 0) & ~seen)
    )
    members = [k for k in range(len(names)) if k != control]
    targets = [[screen.targets[names[k]]] if names[k] in screen.targets else [] for k in members]
    labels = [str(names[k]) for k in members]
    one, two, three = (
        Perturbations(m, control, members, targets, names=labels) for m in (here, there, apart)
    )
    return compare(one, two, three, seed)


def simulated(same: float, n_cells: int, seed: int) -> Scores:
    """Return the scores of one pair of cell lines: 30 perturbations, 60 genes, none measured."""
    rng = np.random.default_rng(seed)
    n, p = 30, 60
    size = 0.3 * np.exp(rng.normal(size=(n, 1)))
    here = size * rng.normal(size=(n, p))
    fresh = 0.3 * np.exp(rng.normal(size=(n, 1))) * rng.normal(size=(n, p))
    alike = rng.permutation(n) < same * n
    there = np.where(alike[:, None], here, fresh)

    def line(effects: np.ndarray, cells: int) -> ScreenMoments:
        means = np.vstack([np.zeros(p), effects])
        code = np.repeat(np.arange(n + 1), [2000, *[cells] * n])
        return ScreenMoments.from_array(rng.normal(size=(len(code), p)) + means[code], code, n + 1)

    members = np.arange(1, n + 1)
    one, two, three = line(there, 200), line(here, n_cells), line(here, 500)
    names, targets = [f"P{k}" for k in members], [[] for _ in members]
    found = [Perturbations(m, 0, members, targets, names=names) for m in (two, one, three)]
    return compare(*found, seed)


def table(title: str, draws: list[Scores]) -> str:
    """Return the means over draws as a table."""
    lines = [f"## {title}", ""]
    lines.append("| expectation | before the cells | after them | weight of it | of its features |")
    lines.append("|---|---|---|---|---|")
    for row in draws[0]:
        values = np.mean([draw[row] for draw in draws], axis=0)
        shown = ["-" if np.isnan(v) else f"{v:.2f}" for v in values]
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.another_screen", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cells", type=int, default=10, help="of a perturbation in a replicate")
    parser.add_argument("--simulated", action="store_true", help="simulated cell lines alone")
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument("--save", metavar="FILE", help="also write the tables to this file")
    args = parser.parse_args(arguments)
    sections, seeds = [], range(args.draws)
    if not args.simulated:
        screen = read_screen(Path(args.data), SOURCES["papalexi"], name="papalexi")
        draws = [of_replicates(screen, "bio_rep", args.cells, seed) for seed in seeds]
        title = f"Papalexi, replicate 1 for replicates 2 and 3, {args.cells} cells of each"
        sections.append(table(title, draws))
    for same, words in ((0.0, "none"), (0.5, "half"), (1.0, "all")):
        draws = [simulated(same, 2 * args.cells, seed) for seed in seeds]
        title = f"Simulated cell lines, effects of {words} alike, {2 * args.cells} cells"
        sections.append(table(title, draws))
    print("\n".join(sections))
    if args.save:
        Path(args.save).write_text("\n".join(sections))


if __name__ == "__main__":
    main()
