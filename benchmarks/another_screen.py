"""Another screen: the gain from effects of the same perturbations in another screen.

Replicate 1 of Papalexi is the other screen; ten cells of every perturbation in each of replicates 2
and 3 (20 in total), and half of the controls, are seen. Effects are scored on the other cells and
controls, with sampling error subtracted: by the total squared error relative to that of "no
effect", before the cells (as expected by the weighted predictors, each perturbation with weights
learned without it) and after them (shrunk towards the expectation by ``t^2 / (t^2 + v)``, with
``t^2`` the variance that the predictors do not explain and ``v`` the sampling variance). Target
genes are left out. The other screen is given with its standard errors, whole, with half of its
perturbations drawn at random, or with rows permuted; it predicts perturbations of the same label
directly, and others as features (by similarity of effects in it). Then come simulated cell lines
that share the effects of none, half and all of the perturbations. Values are means over the draws.

With ``--fits``, effects of perturbations with cells are estimated by ``tl.fit_dag_blr`` and
``tl.perturbation_effects`` on an empty graph, without another screen, with it as ``features``, and
with its cells as one more condition (``condition_key``). On four screens, for perturbations with at
least 60 cells, 20 cells per perturbation are seen; half of the remaining perturbed cells and a
third of the controls are the other screen, and the rest is scored. On Papalexi, replicate 1 is also
used as the other screen. The other screen is also given with permuted labels and with halved
standard errors. The 90% intervals are widened by the error of the scored cells.

    python -m benchmarks.another_screen
    python -m benchmarks.another_screen --fits 6
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, save, show, table, with_error
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
    names, code = np.unique(screen.labels(), return_inverse=True)
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
    here, there, apart = (
        Perturbations(m, 0, members, targets, names=names) for m in (two, one, three)
    )
    return compare(here, there, apart, seed)


class Split(NamedTuple):
    """Cells of a screen in three parts: the other screen (0), seen (1) and scored (2)."""

    x: np.ndarray
    label: np.ndarray
    part: np.ndarray
    control: str
    names: list[str]
    genes: list[str]
    own: np.ndarray

    @classmethod
    def of(cls, screen: Screen, seed: int, column: str | None = None) -> Split:
        """Return a random split, or with ``column`` its first value as the other screen."""
        rng = np.random.default_rng(seed)
        label = screen.labels()
        sizes = pd.Series(label).value_counts()
        names = sorted(set(sizes.index[sizes >= 60]) - {screen.control})
        part, genes = np.full(len(label), -1), list(screen.cells.var_names)
        batch = None if column is None else screen.cells.obs[column].astype(str).to_numpy()
        for name in [screen.control, *names]:
            some = np.flatnonzero(label == name)
            if batch is not None:
                there = batch[some] == min(batch)
                part[some[there]] = 0
                some = some[~there]
            cells, alone = rng.permutation(some), batch is None
            n_seen = 20 if name != screen.control else len(cells) // (3 if alone else 2)
            part[cells[:n_seen]], left = 1, cells[n_seen:]
            part[left], half = 2, len(left) // 2
            if alone:
                part[left[:half]] = 0
        x = np.asarray(screen.cells.X)
        varies = x[(part == 1) & (label == screen.control)].std(axis=0) > 0
        x, genes = x[:, varies], [gene for gene, kept in zip(genes, varies, strict=True) if kept]
        own = np.array([[g == screen.targets.get(n) for g in genes] for n in names])
        return cls(x, label, part, screen.control, names, genes, own)

    def effects(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Return differences of means in one part, and their variances."""
        means, variances = [], []
        for name in [self.control, *self.names]:
            cells = self.x[(self.part == part) & (self.label == name)]
            means.append(cells.mean(axis=0))
            variances.append(cells.var(axis=0, ddof=1) / len(cells))
        return np.array(means[1:]) - means[0], np.array(variances[1:]) + variances[0]

    def other(self, order: np.ndarray, factor: float = 1.0) -> ad.AnnData:
        """Return the other screen, its effects in another order, standard errors by a factor."""
        effects, variance = self.effects(0)
        found = ad.AnnData(
            effects[order], pd.DataFrame(index=self.names), pd.DataFrame(index=self.genes)
        )
        error = factor * np.sqrt(variance[order])
        found.layers["se"] = np.where(error > 0, error, np.nan)
        return found

    def fitted(self, features: ad.AnnData | None = None, *, condition: bool = False) -> np.ndarray:
        """Return squared error on the scored cells over that of no effect, and coverage."""
        kept = (self.part == 1) | ((self.part == 0) & condition)
        obs = pd.DataFrame(
            {"perturbation": self.label[kept]}, index=np.flatnonzero(kept).astype(str)
        )
        obs["screen"] = np.array(["there", "here", ""])[self.part[kept]]
        cells = ad.AnnData(self.x[kept], obs, pd.DataFrame(index=self.genes))
        key = "screen" if condition else None
        npt.pp.setup_screen(cells, control=self.control, condition_key=key, check_scale=False)
        npt.tl.learn_dag(cells, method="given", dag=[])
        npt.tl.fit_dag_blr(cells, features=features)
        found = npt.tl.perturbation_effects(
            cells, candidates=self.names, condition="here" if condition else None, as_anndata=True
        )
        observed, variance = self.effects(2)
        sd = np.sqrt(np.maximum(self.x[self.label == self.control].var(axis=0), 1e-12))
        used, mean = ~self.own, np.asarray(found.X)
        noise = (variance / sd**2)[used].sum()
        error = (((mean - observed) / sd)[used] ** 2).sum() - noise
        size = ((observed / sd)[used] ** 2).sum() - noise
        more = 1.645**2 * variance
        low = mean - np.sqrt((mean - found.layers["lower"]) ** 2 + more)
        high = mean + np.sqrt((found.layers["upper"] - mean) ** 2 + more)
        inside = (low <= observed) & (observed <= high)
        large = used & (np.abs(observed) > 4 * np.sqrt(variance))
        return np.array([error / size, inside[used].mean(), inside[large].mean()])


def by_fits(title: str, splits: list[Split]) -> str:
    """Return what fits of some splits have as errors and coverage, as a table."""
    rows: dict[str, list[np.ndarray]] = {}
    for seed, split in enumerate(splits):
        every = np.arange(len(split.names))
        permuted = np.random.default_rng(seed).permutation(every)
        each = {
            "without another screen": split.fitted(),
            "with it": split.fitted(split.other(every)),
            "with it, permuted": split.fitted(split.other(permuted)),
            "with it, standard errors halved": split.fitted(split.other(every, 0.5)),
            "its cells as a condition": split.fitted(condition=True),
        }
        for name, values in each.items():
            rows.setdefault(name, []).append(values)
    alone = np.array(rows["without another screen"])[:, 0]
    shown = {}
    for name, values in rows.items():
        error, inside, large = np.mean(values, axis=0)
        over = with_error(np.array(values)[:, 0] / alone)
        shown[name] = [f"{error:.3f}", over, f"{inside:.2f}", f"{large:.2f}"]
    head = ("fit", "error", "relative to that without", "coverage", "coverage, large")
    return f"## {title}\n\n{table(head, shown)}"


def by_expectation(title: str, draws: list[Scores]) -> str:
    """Return the means over draws as a table."""
    rows = {}
    for row in draws[0]:
        values = np.mean([scores[row] for scores in draws], axis=0)
        rows[row] = ["-" if np.isnan(v) else f"{v:.2f}" for v in values]
    head = ("prediction", "before the cells", "after them", "weight", "weight of features")
    return f"## {title}\n\n{table(head, rows)}"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = options("another_screen", __doc__, data=True)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cells", type=int, default=10, help="of a perturbation in a replicate")
    parser.add_argument("--fits", type=int, default=0, help="splits of fits, and nothing else")
    parser.add_argument("--simulated", action="store_true", help="simulated cell lines alone")
    args = parser.parse_args(arguments)
    sections, seeds = [], range(0 if args.fits else args.draws)
    for name, source in SOURCES.items() if args.fits else ():
        screen = read_screen(args.data, source, name=name)
        splits = [Split.of(screen, seed) for seed in range(args.fits)]
        sections.append(show(by_fits(f"{name}, cells at random", splits)))
        if name == "papalexi":
            splits = [Split.of(screen, seed, "bio_rep") for seed in range(args.fits)]
            title = f"{name}, replicate 1 for replicates 2 and 3"
            sections.append(show(by_fits(title, splits)))
    if seeds and not args.simulated:
        screen = read_screen(args.data, SOURCES["papalexi"], name="papalexi")
        draws = [of_replicates(screen, "bio_rep", args.cells, seed) for seed in seeds]
        title = f"Papalexi, replicate 1 for replicates 2 and 3, {args.cells} cells each"
        sections.append(show(by_expectation(title, draws)))
    for same, words in ((0.0, "none"), (0.5, "half"), (1.0, "all")) if seeds else ():
        draws = [simulated(same, 2 * args.cells, seed) for seed in seeds]
        title = f"Simulated cell lines, {words} of the effects alike, {2 * args.cells} cells"
        sections.append(show(by_expectation(title, draws)))
    save("another_screen", sections, args.save)


if __name__ == "__main__":
    main()
