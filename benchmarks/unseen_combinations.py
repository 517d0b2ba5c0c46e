"""Unseen combinations: predictions by learned interactions, compared with sums.

Norman: every double of the subset of cells is left out of the whole analysis, and
``tl.perturbation_effects`` predicts it as a combination without cells. The prediction is compared
with the means of its cells minus those of one half of the controls; fit and sums use the other
half, and then the halves are exchanged, so that predictions and observations do not share sampling
error. Squared errors have sampling error subtracted and are relative to those of "no effect"; 90%
intervals are widened by the sampling error of the observations. Genes count in units of their
spread over cells; those constant in a half of the controls are left out. In the eight axes of
``combinations.py``, means of all 131 doubles taken as exact, each is left out and the interactions
of the others learned.

Simulated: 20 perturbations of 60 genes, 100 cells each and 500 controls (noise 1, effects normal,
sd .5); 40 of the 190 pairs are measured, and 60 others are compared with the truth:
``strength * (s_a + s_b) + v_a + v_b + rest``, ``v`` and the rest in units of effects. Screens
differ in the seed; sums are of members with cells of their own; the standard error of the learned
strength is over screens.

    python -m benchmarks.unseen_combinations                # 2 minutes; data: NEXTPERT_DATA
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import norm

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import SOURCES, Screen, read_screen
from benchmarks.combinations import read_doubles
from nextpert.core.model.interactions import learn_interactions

if TYPE_CHECKING:
    from pathlib import Path

LEVEL = 0.9
OURS, SUM, CELLS = "ours", "sum of posteriors", "sum of cells' means"
ROWS = (OURS, SUM, CELLS)
N_MEMBERS, N_GENES, N_MEASURED, N_ASKED, SIZE = 20, 60, 40, 60, 0.5
SIMULATED = {
    # title: strength, sd of v, sd of the rest, share of members that are measured alone
    "members add up": (1.0, 0.0, 0.0, 1.0),
    "saturated": (0.6, 0.0, 0.0, 1.0),
    "saturated, members differ": (0.6, 0.3, 0.1, 1.0),
    "members add up, large rest": (1.0, 0.0, 0.5, 1.0),
    "rest alone": (0.0, 0.0, 0.5, 1.0),
    "saturated, members differ, half alone": (0.6, 0.3, 0.1, 0.5),
}


@dataclass
class Scores:
    """Squared errors and sizes by row, and what intervals cover."""

    errors: dict[str, list[float]] = field(default_factory=lambda: {row: [] for row in ROWS})
    sizes: dict[str, list[float]] = field(default_factory=lambda: {row: [] for row in ROWS})
    inside: list[np.ndarray] = field(default_factory=list)
    clear: list[np.ndarray] = field(default_factory=list)

    def add(self, guesses: dict[str, np.ndarray], truth: np.ndarray, variance: np.ndarray) -> None:
        """Add the prediction of one combination; all in units of the genes' spread."""
        for row, guess in guesses.items():
            self.errors[row].append(float(((guess - truth) ** 2 - variance).sum()))
            self.sizes[row].append(float((truth**2 - variance).sum()))

    def error(self, row: str) -> str:
        """Return the error over that of no effect; a dash where nothing was said."""
        if not self.sizes[row]:
            return "-"
        return f"{sum(self.errors[row]) / sum(self.sizes[row]):.3f}"

    def holds(self) -> tuple[str, str]:
        """Return the share inside of all and of the clearly changed, in percent."""
        inside, clear = np.concatenate(self.inside), np.concatenate(self.clear)
        some = f"{100 * inside[clear].mean():.0f} of {clear.sum()}" if clear.any() else "-"
        return f"{100 * inside.mean():.1f}", some


def asked(adata: ad.AnnData, names: list[str]) -> dict[str, np.ndarray]:
    """Return what the fit says of candidates; the graph has no edges of any use."""
    genes = list(adata.var_names)
    npt.tl.learn_dag(adata, method="given", dag=[(genes[0], genes[1])], genes=genes)
    npt.tl.fit_dag_blr(adata, shift="activation")
    npt.tl.perturbation_effects(adata, candidates=names, level=LEVEL)
    found: dict[str, np.ndarray] = adata.uns["perturbation_effects"]
    return found


def norman(screen: Screen) -> dict[str, Scores]:
    """Return scores of the doubles whose members were both measured alone, and of others."""
    roles = screen.environments.roles
    label, x = screen.labels(), np.asarray(screen.cells.X)
    controls = np.random.default_rng(0).permutation(np.flatnonzero(label == roles.control))
    halves = controls[: len(controls) // 2], controls[len(controls) // 2 :]
    varies = np.all([x[half].std(axis=0) > 0 for half in halves], axis=0)
    panel, x = screen.cells[:, varies], x[:, varies]
    spread = x.std(axis=0)
    out = {"both members alone": Scores(), "one member alone": Scores(), "neither": Scores()}
    for name in [str(n) for n in np.unique(label) if "+" in n]:
        others = {part for n in np.unique(label[label != name]) for part in str(n).split("+")}
        parts = name.split("+")
        alone = [part for part in parts if part in label]
        if not set(parts) <= others:
            continue  # nothing tells of a member
        scores = out[("neither", "one member alone", "both members alone")[len(alone)]]
        for fitted, left in (halves, halves[::-1]):
            cells = x[label == name]
            change = (cells.mean(axis=0) - x[left].mean(axis=0)) / spread
            variance = cells.var(axis=0) / len(cells) + x[left].var(axis=0) / len(left)
            variance = variance / spread**2
            kept = label != name
            kept[left] = False
            adata = panel[kept].copy()
            npt.pp.setup_screen(
                adata, perturbation_key=roles.perturbation_key, control=roles.control
            )
            found = asked(adata, [name, *alone])
            said = {k: found[k] / spread for k in ("mean", "lower", "upper")}
            guesses = {OURS: said["mean"][0]}
            if len(alone) == len(parts):
                guesses[SUM] = said["mean"][1:].sum(axis=0)
                means = sum(
                    x[label == part].mean(axis=0) - x[fitted].mean(axis=0) for part in parts
                )
                guesses[CELLS] = means / spread
            scores.add(guesses, change, variance)
            # Both ends move out as far as the sampling of the means adds to the width.
            z = norm.ppf((1 + LEVEL) / 2)
            mean = said["mean"][0]
            low = mean - np.hypot(mean - said["lower"][0], z * np.sqrt(variance))
            high = mean + np.hypot(said["upper"][0] - mean, z * np.sqrt(variance))
            scores.inside.append((low <= change) & (change <= high))
            scores.clear.append(np.abs(change) > 3 * np.sqrt(variance))
    return out


def axes(folder: Path) -> Scores:
    """Return scores of all doubles of Norman in eight axes, their means taken as exact."""
    doubles, scores = read_doubles(folder), Scores()
    exact = np.zeros_like(doubles.alone)
    size = np.sqrt((doubles.effects**2).mean(axis=0))
    for k, pair in enumerate(doubles.pairs):
        others = [j for j in range(len(doubles.pairs)) if j != k]
        known = learn_interactions(
            doubles.alone, exact, [doubles.pairs[j] for j in others], doubles.effects[others],
            exact[:1].repeat(len(others), axis=0),
        )  # fmt: skip
        mean, variance = known.predict([pair])
        total = doubles.alone[list(pair)].sum(axis=0)
        truth = doubles.effects[k]
        scores.add({OURS: mean[0] / size, SUM: total / size}, truth / size, 0 * size)
        reach = norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance[0])
        scores.inside.append(np.abs(mean[0] - truth) <= reach)
        scores.clear.append(np.abs(truth) > size)
    return scores


def simulated(
    strength: float, member_sd: float, rest_sd: float, share: float, seed: int, scores: Scores
) -> float:
    """Add the scores of one simulated screen, and return the strength that was learned."""
    rng = np.random.default_rng(seed)
    names = [f"P{i:02d}" for i in range(N_MEMBERS)]
    alone = SIZE * rng.normal(size=(N_MEMBERS, N_GENES))
    member = SIZE * member_sd * rng.normal(size=alone.shape)
    pairs = list(itertools.combinations(range(N_MEMBERS), 2))
    chosen = [pairs[k] for k in rng.permutation(len(pairs))]
    measured, unseen = chosen[:N_MEASURED], chosen[N_MEASURED : N_MEASURED + N_ASKED]
    told = {k for pair in measured for k in pair}
    single = list(range(round(share * N_MEMBERS)))
    unseen = [pair for pair in unseen if set(pair) <= told | set(single)]

    def does(pair: tuple[int, ...]) -> np.ndarray:
        a, b = pair
        rest = SIZE * rest_sd * rng.normal(size=N_GENES)
        out: np.ndarray = strength * (alone[a] + alone[b]) + member[a] + member[b] + rest
        return out

    effects = {names[k]: alone[k] for k in single}
    effects |= {f"{names[a]}+{names[b]}": does((a, b)) for a, b in measured}
    wanted = np.array([does(pair) for pair in unseen])
    label = np.repeat(["control", *effects], [500, *[100] * len(effects)])
    shift = {"control": np.zeros(N_GENES)} | effects
    x = 3 + np.array([shift[name] for name in label]) + rng.normal(size=(len(label), N_GENES))
    obs = pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(len(label))])
    adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]))
    asks = [f"{names[a]}+{names[b]}" for a, b in unseen]
    found = asked(adata, [*asks, *(names[k] for k in single)])
    mean = found["mean"]
    row = {names[k]: len(asks) + i for i, k in enumerate(single)}
    means = {n: x[label == n].mean(axis=0) - x[label == "control"].mean(axis=0) for n in effects}
    for i, ask in enumerate(asks):
        guesses, parts = {OURS: mean[i]}, ask.split("+")
        if all(part in row for part in parts):
            guesses[SUM] = sum(mean[row[part]] for part in parts)
            guesses[CELLS] = sum(means[part] for part in parts)
        scores.add(guesses, wanted[i], np.zeros(N_GENES))
    k = len(asks)
    scores.inside.append(((found["lower"][:k] <= wanted) & (wanted <= found["upper"][:k])).ravel())
    scores.clear.append(np.abs(wanted).ravel() > SIZE)
    return float(adata.uns["dag_blr"]["predictors"]["interactions"]["strength"])


def row(count: int, scores: Scores) -> list[str]:
    """Return one row of a table."""
    return [str(count), *(scores.error(row) for row in ROWS), *scores.holds()]


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = options("unseen_combinations", __doc__, data=True)
    parser.add_argument("--seeds", type=int, default=5, help="simulated screens of each kind")
    args = parser.parse_args(arguments)
    head = ["combinations", *ROWS, "intervals cover, %", "of clear effects, %"]
    screen = read_screen(args.data, SOURCES["norman"], name="norman", min_seen=0.0)
    doubles = {
        title: row(len(s.sizes[OURS]) // 2, s) for title, s in norman(screen).items() if s.inside
    }
    all_doubles = axes(args.data)
    doubles["both, 8 axes"] = row(len(all_doubles.inside), all_doubles)
    made = {}
    for title, truth in SIMULATED.items():
        scores = Scores()
        learned = [simulated(*truth, seed, scores) for seed in range(args.seeds)]
        error = np.std(learned, ddof=1) / np.sqrt(len(learned)) if len(learned) > 1 else np.nan
        strengths = [f"{value:.2f}" for value in (truth[0], np.mean(learned), error)]
        made[title] = [*row(len(scores.sizes[OURS]), scores), *strengths]
    sections = [
        f"## Norman: doubles left out one by one\n\n{table(['members', *head], doubles)}",
        f"## Simulated: {N_MEASURED} pairs of {N_MEMBERS} measured, {args.seeds} screens each\n\n"
        + table(["truth", *head, "strength", "learned", "±"], made),
    ]
    save("unseen_combinations", map(show, sections), args.save)


if __name__ == "__main__":
    main()
