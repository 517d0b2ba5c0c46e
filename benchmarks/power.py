"""Plans of cells compared with simulations: power by the rule that is stated, and advice on noise.

*Rules*: the power that ``tl.plan_cells`` states, with effects learned from a screen of 20 cells per
perturbation or given, and the share of true effects of this size that are detected when screens are
simulated and fitted, by local false sign rate and by false discovery rate. *Real*: the same for
effects that are known from half of the cells of real screens, when few of the other cells are
fitted. *Learned*: how many effects fits to real screens learn, with the weights that are the
default of a first screen. *Targets*: which perturbations of real screens, each in turn the target
by its label, are said not to differ from the control, beside their significant effects. *Noise*:
``tl.plan_cells`` on simulated screens of nine perturbations with labels shuffled or cells drawn
like controls.

    python -m benchmarks.power                            # 20 minutes; data: NEXTPERT_DATA
    python -m benchmarks.power --tables rules             # eight minutes
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
from scipy.stats import false_discovery_control, ttest_ind

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import SOURCES, read_screen
from nextpert import _adata
from nextpert.core.design.detection import LFSR, RULES
from nextpert.core.design.effect_sizes import EffectSizes
from nextpert.core.design.power import Layout
from nextpert.core.design.stopping import KINDS
from nextpert.core.model.effect_draws import TAILS
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.tl import _plan_cells as planning

if TYPE_CHECKING:
    from pathlib import Path

SIZES, CELLS, SHARES = (0.4, 0.7, 1.0, 1.5), (5, 10, 20, 50), (0.02, 0.05, 0.2)
N, P, CONTROLS, SD = 20, 60, 300, 0.8  # perturbations, genes, control cells; SD of effects
HOW = ("learned", "given")
MANY = 5  # significant effects
REAL_CELLS, BINS = (10, 20, 50), ((0.1, 0.2), (0.2, 0.4), (0.4, 9.0))


def world(seed: int, n: int, share: float) -> tuple[ad.AnnData, np.ndarray]:
    """Return a fitted screen of ``n`` cells per perturbation, and its true effects.

    Two factors of coexpression have 0.4 of the variance of genes. A ``share`` of the effects is not
    zero: half of these are normal, half have one of four sizes, of which detections are counted.
    """
    rng = np.random.default_rng([seed, n])
    factors = rng.normal(size=(P, 2)) * np.sqrt(0.2)
    own = np.maximum(1 - (factors**2).sum(axis=1), 0.2)
    sd = np.sqrt(own + (factors**2).sum(axis=1))
    signs = rng.choice([-1.0, 1.0], (N, P)) * rng.choice(SIZES, (N, P))
    effects = np.where(rng.random((N, P)) < 0.5, rng.normal(0, SD, (N, P)), signs)
    effects = np.where(rng.random((N, P)) < share, effects, 0.0)
    labels = np.repeat(["control", *(f"P{j:02d}" for j in range(N))], [CONTROLS] + [n] * N)
    noise = rng.normal(size=(len(labels), 2)) @ factors.T
    noise += rng.normal(size=(len(labels), P)) * np.sqrt(own)
    mean = np.vstack([np.zeros((CONTROLS, P)), np.repeat(effects, n, axis=0)])
    adata = ad.AnnData((3 + noise / sd + mean).astype(np.float32))
    adata.obs["perturbation"] = labels
    npt.pp.setup_screen(adata, check_scale=False)
    fitted(adata)
    return adata, effects


def fit_cells(adata: ad.AnnData) -> None:
    """Fit a screen without a graph."""
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    npt.tl.fit_dag_blr(adata)


def fitted(adata: ad.AnnData) -> None:
    """Fit a screen without a graph, and summarise its effects."""
    fit_cells(adata)
    npt.tl.perturbation_effects(adata)


def detected(adata: ad.AnnData, rule: str) -> np.ndarray:
    """Return which effects of a screen are detected, ``(n_perturbations, n_genes)``."""
    stored = adata.uns["perturbation_effects"]
    if rule == LFSR:
        return np.asarray(stored["lfsr"]) < 0.05
    labels, x = adata.obs["perturbation"].astype(str).to_numpy(), np.asarray(adata.X, float)
    control, p = x[labels == "control"], []
    for name in stored["perturbations"]:
        p.append(ttest_ind(x[labels == name], control, equal_var=False).pvalue)
    return (false_discovery_control(np.ravel(p)) < 0.05).reshape(np.shape(p))


def stated(adata: ad.AnnData, rule: str, **assumed: Any) -> np.ndarray:
    """Return the power that ``tl.plan_cells`` states, ``(n_cells, n_sizes)``."""
    columns = []
    for size in SIZES:
        npt.tl.plan_cells(
            adata, effect={"size": size, **assumed}, rule=rule, budget={"n_perturbations": N}
        )
        table = adata.uns["plan_cells"]["screens"]
        planned = adata.uns["plan_cells"]["params"]["n_guides"]
        one = table[table["n_guides"] == planned].set_index("n_cells")
        columns.append(one.loc[list(CELLS), "power"].to_numpy())
    return np.transpose(columns)


def controls_of(adata: ad.AnnData) -> ad.AnnData:
    """Return the control cells of a screen, without results."""
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    controls.uns.clear()
    npt.pp.setup_screen(controls, check_scale=False)
    return controls


@quiet()
def rules_table(n_screens: int) -> str:
    """Return stated and simulated power, by rule, share of effects, cells and size."""
    texts, gaps = [], []
    for share in SHARES:
        # As many screens as give some hundred effects of every size.
        count = max(round(n_screens * (0.02 / share) ** 0.7), 4)
        pilots = [world(1000 + seed, 20, share)[0] for seed in range(4)]
        found = {n: found_share(n, share, count) for n in CELLS}
        sd = float(np.sqrt((SD**2 + np.mean(np.square(SIZES))) / 2))
        for rule in RULES:
            learned = np.mean([stated(pilot, rule) for pilot in pilots], axis=0)
            given = stated(controls_of(pilots[0]), rule, share=share, sd=sd)
            rows: dict[str, list[str]] = {}
            for n, *of_n in zip(CELLS, learned, given, strict=True):
                power, error = 100 * found[n][rule]
                gaps += [
                    (100 * x - f, e, f"{rule}, {share:.0%}, {n} cells, {size:g} SD", how)
                    for how, row in zip(HOW, of_n, strict=True)
                    for x, f, e, size in zip(row, power, error, SIZES, strict=True)
                ]
                rows[f"{n} cells"] = [
                    f"{100 * x:.0f} / {100 * y:.0f} / {f:.0f} ± {e:.1f}"
                    for x, y, f, e in zip(*of_n, power, error, strict=True)
                ]
            texts += [
                f"### {rule}, {share:.0%} of the effects are not zero, {count} screens",
                table(["", *(f"{size:g} SD" for size in SIZES)], rows),
            ]
    return "\n\n".join([
        "## Power in %: stated with effects learned from a screen of 20 cells each (mean of four), "
        "stated from controls with share and SD given, found by the same rule with standard error",
        f"{N} perturbations, {P} genes, {CONTROLS} controls, two factors of coexpression; effects "
        "of four sizes in SD of a gene between cells, among effects that are normal.",
        *texts, *(largest(gaps, how) for how in HOW),
    ])  # fmt: skip


def found_share(n: int, share: float, count: int) -> dict[str, np.ndarray]:
    """Return, by rule, shares of effects that are found and standard errors, ``(2, n_sizes)``."""
    sums = {rule: np.zeros((count, len(SIZES))) for rule in RULES}
    total = np.zeros((count, len(SIZES)))
    for seed in range(count):
        adata, effects = world(seed, n, share)
        has = [np.isclose(np.abs(effects), size) for size in SIZES]
        total[seed] = [some.sum() for some in has]
        for rule in RULES:
            is_found = detected(adata, rule)
            sums[rule][seed] = [is_found[some].sum() for some in has]
    out = {}
    for rule, hits in sums.items():
        power = hits.sum(axis=0) / total.sum(axis=0)
        error = np.sqrt(((hits - total * power) ** 2).sum(axis=0)) / total.sum(axis=0)
        out[rule] = np.array([power, error])
    return out


def largest(gaps: list[tuple[float, float, str, str]], how: str) -> str:
    """Return the largest difference of stated and found power, and how many exceed 5 points."""
    some = [gap for gap in gaps if gap[3] == how]
    worst = max(some, key=lambda gap: abs(gap[0]))
    above = sum(abs(gap[0]) > 5 for gap in some)
    beyond = sum(abs(gap[0]) > 5 + 2 * gap[1] for gap in some)
    return (
        f"Effects {how}: stated minus found is at most {worst[0]:.1f} points ({worst[2]}; standard "
        f"error {worst[1]:.1f}); more than 5 points in {above} of {len(some)} cells of these "
        f"tables, and more than 5 points beyond two standard errors in {beyond}."
    )


@quiet()
def real_table(folder: Path, n_draws: int) -> str:
    """Return stated power, and the share of known effects found with few cells of real screens.

    An effect is known if its difference of means is five standard errors or more in half of the
    cells; its size is that in the other half, from which cells are drawn without replacement, and
    fitted with all controls. Power is stated by that fit, and from the controls alone.
    """
    rng, rows = np.random.default_rng(3), {}
    for name in ("papalexi", "tapseq"):
        screen = read_screen(folder, SOURCES[name], name=name)
        labels, x = screen.labels(), np.asarray(screen.cells.X, float)
        names, control = sorted(set(labels) - {screen.control}), labels == screen.control
        mean, of_control = x[control].mean(axis=0), x[control].var(axis=0) / control.sum()
        pools, sizes, known = [], [], []
        for one in names:
            cells = rng.permutation(np.flatnonzero(labels == one))
            first, second = x[cells[::2]], x[cells[1::2]]
            error = np.sqrt(first.var(axis=0) / len(first) + of_control)
            known.append(np.abs(first.mean(axis=0) - mean) > 5 * error)
            sizes.append(second.mean(axis=0) - mean)
            pools.append(cells[1::2])
        effects, is_known = np.array(sizes), np.array(known)
        for rule, n in product(RULES, REAL_CELLS):
            hits, by_fit, by_controls = np.zeros((3, *effects.shape))
            for _ in range(n_draws):
                some = [rng.choice(pool, min(n, len(pool)), replace=False) for pool in pools]
                cells = np.concatenate([np.flatnonzero(control), *some])
                drawn = ad.AnnData(x[cells].astype(np.float32))
                drawn.var_names = screen.cells.var_names
                drawn.obs["perturbation"] = np.where(
                    labels[cells] == screen.control, "control", labels[cells]
                )
                npt.pp.setup_screen(drawn, check_scale=False)
                fitted(drawn)
                order = [list(drawn.uns["perturbation_effects"]["perturbations"]).index(one)
                         for one in names]  # fmt: skip
                hits += detected(drawn, rule)[order] / n_draws
                by_fit += power_at(drawn, effects, n, rule) / n_draws
            by_controls = power_at(controls_of(drawn), effects, n, rule)
            for low, high in BINS:
                large = is_known & (np.abs(effects) >= low) & (np.abs(effects) < high)
                label = f"{low:g} to {high:g}" if high < 9 else f"{low:g} and more"
                rows[f"{rule}, {name}, {n} cells, {label}"] = [
                    str(large.sum()), str(large.any(axis=1).sum()),
                    *(f"{100 * v[large].mean():.0f}" for v in (by_fit, by_controls, hits)),
                ]  # fmt: skip
    heads = ["effects", "perturbations", "stated by the fit", "stated from controls", "found"]
    return "\n\n".join([
        f"## Power on real screens in %, means over known effects, {n_draws} draws of cells",
        table(["", *heads], rows),
    ])  # fmt: skip


def power_at(adata: ad.AnnData, effects: np.ndarray, n: int, rule: str) -> np.ndarray:
    """Return the power that is stated for effects on every gene, in cells of one guide."""
    fit = _adata.posterior_from(adata) if "dag_blr" in adata.uns else None
    noise = planning._read_noise(adata, fit) if fit else planning._read_controls(adata)[2]
    sizes, _ = planning._sizes_of(fit, planning._Effect())
    every = {1.0: np.ones(effects.shape[1])}
    plans = planning._plans_of(noise, sizes, rule, 1.0, len(effects), every)
    planned = plans.noise_of(n, Layout())
    return np.array([plans.rule.power(planned, plans.effect * np.abs(row)) for row in effects])


def fitted_screen(folder: Path, name: str) -> ad.AnnData:
    """Return a real screen with a fit to all its cells, without a graph."""
    screen = read_screen(folder, SOURCES[name], name=name)
    adata = screen.cells
    npt.pp.setup_screen(adata, control=screen.control, guide_key=screen.guide_key)
    fit_cells(adata)
    return adata


@quiet()
def learned_table(folder: Path) -> str:
    """Return the effects that fits to four real screens learn: the default of a first screen."""
    texts = []
    for name in SOURCES:
        model = _adata.posterior_from(fitted_screen(folder, name)).hierarchical
        sizes = EffectSizes.of_draws(model.effects.place, model.along)
        shares = ", ".join(f"{100 * sizes.share(size):.1f}% > {size:g}" for size in (0.1, 0.2, 0.5))
        starts = np.argmax(sizes.mixtures > 0, axis=1)
        weights = ", ".join(
            f"{k}: {weight:.3f}" for k, weight in zip(starts, sizes.classes, strict=True)
        )
        tails = ", ".join(
            f"{weight:.3f}" for weight in sizes.mixtures[0, starts[0] :][: len(TAILS)]
        )
        texts.append(
            f"- {name}: {model.effects.place.shape[0]} perturbations; of the effects, in SD of a "
            f"gene between cells, {shares}. Weights of scales: {weights}; of tails: {tails}."
        )
    return "\n\n".join(["## Effects learned on real screens", "\n".join(texts)])


@quiet()
def targets_table(folder: Path) -> str:
    """Return how many perturbations of real screens are said not to differ from the control."""
    rows = {}
    for name in SOURCES:
        adata = fitted_screen(folder, name)
        npt.tl.perturbation_effects(adata)
        effects = npt.get.effects_df(adata)
        significant = (
            effects[(effects["lfsr"] < SIGNIFICANCE) & (effects["gene"] != effects["perturbation"])]
            .groupby("perturbation")
            .size()
        )
        denied, counts = [], []
        for label in effects["perturbation"].unique():
            npt.tl.plan_cells(adata, label)
            denied.append(not adata.uns["plan_cells"]["advice"]["target_differs"])
            counts.append(significant.get(label, 0))
        said, found = np.array(denied), np.array(counts)
        rows[name] = [
            f"{len(said)}",
            *(
                f"{said[within].sum()} of {within.sum()}"
                for within in (found == 0, (found > 0) & (found < MANY), found >= MANY)
            ),
        ]
    heads = ["targets", "no significant effect", f"1 to {MANY - 1}", f"{MANY} and more"]
    return "\n\n".join([
        "## Targets of real screens that are said not to differ from the control",
        table(["", *heads], rows),
        "Each perturbation is the target by its label; significant effects are those with a local "
        f"false sign rate below {SIGNIFICANCE:g}, without its target gene.",
    ])  # fmt: skip


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
    fit_cells(adata)
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
        "rules": lambda: rules_table(args.repeats),
        "real": lambda: real_table(args.data, args.draws),
        "learned": lambda: learned_table(args.data),
        "targets": lambda: targets_table(args.data),
        "noise": lambda: noise_table(args.screens),
    }  # fmt: skip
    parser.add_argument("--tables", nargs="+", default=list(made), choices=list(made))
    parser.add_argument("--screens", type=int, default=40, help="of every kind of noise")
    parser.add_argument("--repeats", type=int, default=150, help="screens with 2%% of effects")
    parser.add_argument("--draws", type=int, default=10, help="of real cells")
    args = parser.parse_args(arguments)
    save("power", [show(made[name]()) for name in args.tables], args.save)


if __name__ == "__main__":
    main()
