"""Side information: the gain from features of perturbations, and the cost of uninformative ones.

**Simulated.** In every screen, drawn by its seed, 60 perturbations belong to 6 modules, none of
their targets is on the panel of 40 genes, and 20 of them have no cells. The effect of a
perturbation is the sum of that of its module (standard deviation 0.25 per gene), that of all
perturbations (0.2), and its own (0.2). Features are noisy coordinates of the module; permuted ones
are those of other perturbations. ``tl.fit_dag_blr`` and ``tl.perturbation_effects`` predict the 20.
The table has the squared error relative to that of the fit without features (the mean
perturbation), with its standard error and largest value over screens, the coverage of 90% intervals
of the true effects, and the weight of features, as means over the screens.

**Real.** On the four screens a fifth of the perturbations is left out at a time. Coexpression and
the mean perturbation predict them, alone and with random tables (10 normal columns), or with the
effects of perturbations in one half of the cells and their standard errors, rows permuted, as
another screen. The table has the squared error on genes that are not targets, relative to that
without features.

    python -m benchmarks.side_information           # data: NEXTPERT_DATA
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, save, show, table, with_error
from benchmarks._screens import SOURCES, Screen, read_screen
from nextpert._adata.features import read_features
from nextpert.core import ScreenMoments
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictor_weights import learn_predictor_weights
from nextpert.core.model.predictors.base import Predictor
from nextpert.core.model.predictors.coexpression import Coexpression
from nextpert.core.model.predictors.features import Features, OtherScreen
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

N_MODULES, N_SEEN, N_UNSEEN, N_GENES = 6, 40, 20, 40
TABLES = ("informative", "permuted", "none")


def simulated(seed: int) -> dict[str, tuple[float, float, float]]:
    """Return squared error, coverage and the weight of features of one screen, by table."""
    rng = np.random.default_rng(seed)
    n = N_SEEN + N_UNSEEN
    module = rng.integers(N_MODULES, size=n)
    effects = 0.2 * rng.normal(size=N_GENES) + 0.2 * rng.normal(size=(n, N_GENES))
    effects += 0.25 * rng.normal(size=(N_MODULES, N_GENES))[module]
    label = np.repeat(np.arange(N_SEEN + 1), [1000, *[50] * N_SEEN])
    x = 2 + rng.normal(size=(len(label), N_GENES)) + np.vstack([np.zeros(N_GENES), effects])[label]
    names = [f"P{j}" for j in range(n)]
    obs = pd.DataFrame({"perturbation": np.array(["control", *names])[label]})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"G{g}" for g in range(N_GENES)]))
    npt.pp.setup_screen(adata, check_scale=False)
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    axes = rng.normal(size=(N_MODULES, 8))[module] + 0.5 * rng.normal(size=(n, 8))
    table = pd.DataFrame(axes, index=names)
    permuted = pd.DataFrame(rng.permutation(axes), index=names)
    out = {}
    for which, features in zip(TABLES, (table, permuted, None), strict=True):
        with warnings.catch_warnings():  # that nothing is known of the perturbations without cells
            warnings.simplefilter("ignore", UserWarning)
            npt.tl.fit_dag_blr(adata, features=features)
            npt.tl.perturbation_effects(adata, candidates=names[N_SEEN:])
        found, truth = adata.uns["perturbation_effects"], effects[N_SEEN:]
        inside = (found["lower"] <= truth) & (truth <= found["upper"])
        learned = adata.uns["dag_blr"]["predictors"]
        weight = dict(zip(learned["predictors"], learned["weights"], strict=True))
        error = float(((found["mean"] - truth) ** 2).sum())
        out[which] = error, float(inside.mean()), float(weight.get("features", 0.0))
    return out


def simulated_table(n_screens: int) -> str:
    """Return the table of the simulated screens."""
    draws = [simulated(seed) for seed in range(n_screens)]
    rows = {}
    for which in TABLES:
        ratio = np.array([one[which][0] / one["none"][0] for one in draws])
        covered, weight = np.array([one[which][1:] for one in draws]).T
        rows[which] = [
            *with_error(ratio, 3).split(" ± "), f"{ratio.max():.3f}", f"{covered.mean():.0%}",
            f"{weight.mean():.2f}", f"{(weight > 0).sum()} of {len(weight)}",
        ]  # fmt: skip
    head = ("features", "error / without", "±", "largest", "coverage", "weight", "used in")
    title = f"## Simulated: {n_screens} screens of {N_SEEN} perturbations, {N_UNSEEN} unseen"
    return f"{title}\n\n{table(head, rows)}"


def perturbations(screen: Screen, kept: np.ndarray) -> Perturbations:
    """Return the perturbations of some cells of a screen."""
    label = screen.labels()
    names = sorted(set(label) - {screen.control})
    place = {name: k for k, name in enumerate([screen.control, *names])}
    code = np.array([place[name] for name in label])
    x = np.asarray(screen.cells.X)[kept]
    moments = ScreenMoments.from_array(x, code[kept], len(place))
    targets = [[screen.targets[q]] if q in screen.targets else [] for q in names]
    return Perturbations(moments, 0, np.arange(1, len(place)), targets, names=names)


def left_out_errors(
    every: Perturbations, tables: Sequence[list[Predictor]], n_folds: int
) -> np.ndarray:
    """Return squared errors of perturbations, a fold left out at a time, in units of sd.

    Rows are all predictors with their weights, and the same with what each of ``tables`` adds; one
    that gets no weight is not weighed again.
    """
    n, always = len(every.targets), [Coexpression(), MeanPerturbation()]
    errors = np.zeros((1 + len(tables), n))
    for fold in range(n_folds):
        rows = np.arange(fold, n, n_folds)
        rest, gone = every.without(rows), every.some(rows)
        held, predicted = zip(
            *((each.held_out(rest), each.predict(rest, gone).effects) for each in always),
            strict=True,
        )
        expected: list[np.ndarray] = []
        for extra in ([], *tables):
            more = [each.held_out(rest) for each in extra]
            if extra and not any(each.most for each in more):
                expected.append(expected[0])
                continue
            learned = learn_predictor_weights(
                rest.observed, rest.variance, [*held, *more], rest.scored(), sd=rest.sd
            )
            parts = [*predicted, *(each.predict(rest, gone).effects for each in extra)]
            expected.append(np.tensordot(learned.weights, parts, axes=1))
        by = np.where(rest.sd > 0, rest.sd, 1.0)
        gap = np.where(gone.scored(), (gone.observed - np.array(expected)) / by, 0.0)
        errors[:, rows] = (gap**2).sum(axis=2)
    return errors


def described(features: Any, every: Perturbations, genes: list[str]) -> list[Predictor]:
    """Return the predictors that side information gives."""
    labels: Any = SimpleNamespace(names=every.names, naming=None)
    known = read_features(features, genes, labels)
    if known is None:
        return []
    both: list[Predictor] = [Features(known)]
    return both if known.effects is None else [OtherScreen(known), *both]


def real_table(data: Path, names: list[str], n_draws: int) -> str:
    """Return the results of uninformative tables on real screens."""
    rows = {}
    for name in names:
        screen = read_screen(data, SOURCES[name], name=name)
        every = perturbations(screen, np.ones(screen.cells.n_obs, bool))
        genes = [str(gene) for gene in screen.cells.var_names]
        tables = []
        for seed in range(n_draws):
            rng = np.random.default_rng(seed)
            half = perturbations(screen, rng.random(screen.cells.n_obs) < 0.5)
            index = pd.Index(every.names)
            random = pd.DataFrame(rng.normal(size=(len(index), 10)), index=index)
            order = rng.permutation(len(index))
            other = ad.AnnData(half.observed[order], pd.DataFrame(index=index))
            other.var_names = genes
            other.layers["se"] = np.sqrt(half.variance[order])
            other.layers["se"][~(other.layers["se"] > 0)] = np.nan
            tables += [described(each, every, genes) for each in (random, other)]
        plain, *total = left_out_errors(every, tables, 5).sum(axis=1)
        ratio = (np.array(total) / plain).reshape(-1, 2)
        shown = [[*with_error(each, 3).split(" ± "), f"{each.max():.3f}"] for each in ratio.T]
        rows[name] = [len(every.targets), *shown[0], *shown[1]]
    head = ("screen", "perturbations", "random", "±", "largest", "permuted", "±", "largest")
    title = f"## Real screens: uninformative tables, {n_draws} of each kind"
    return f"{title}\n\n{table(head, rows)}"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = options("side_information", __doc__, data=True)
    parser.add_argument("--simulated", type=int, default=20, help="number of screens")
    parser.add_argument("--draws", type=int, default=20, help="tables on real screens; 0 for none")
    parser.add_argument("--screens", nargs="+", default=list(SOURCES))
    args = parser.parse_args(arguments)
    sections = [show(simulated_table(args.simulated))]
    if args.draws:
        sections.append(show(real_table(args.data, args.screens, args.draws)))
    save("side_information", sections, args.save)


if __name__ == "__main__":
    main()
