"""The theory of CIV (Zhang et al. 2023, doi:10.1038/s42256-023-00719-0), seen in one table.

    python -m benchmarks.theory                # about four minutes
    python -m benchmarks.theory --quick

Theorem 2: in a campaign by CIV the acquisition h (less what noise alone makes) falls as 1/t, and
its gradient at the ideal shift a* as 1/t^2. The table shows both, the products with t and t^2,
which has to converge, and the slopes of the logarithms over the last decade of rounds.

Theorem 1 (n = 1), in the form in which it is derived here: one cell x under a shift a tells about
the optimality gap g(a') of a shift a', averaged over a' on the unit sphere, at least

    E_a' I(g(a'); x)  >=  E_a' H(g(a')) - log(2 pi e h(a)) / 2,   h(a) = E_x E_a' Var(g(a') | x),

as a normal has the largest entropy of its variance and the logarithm is concave; so the shift of
the least h has the largest bound. The left side is estimated by Monte Carlo over x; given x,
g(a') is a sum of scaled non-central chi-squares, whose entropy is computed from its characteristic
function. The bound is loose by what g(a') lacks to a normal, much the same for all a, and empty
where that exceeds the information; ``log(h now / h) / 2`` is free of it, but no bound. The last
column is the bound with h as it is optimised, x at its mean (the paper's plug-in), which need not
hold.
Two settings: the paper's (standardised, prior M = I) and quiet cells (noise variance 0.05, weights
of prior variance 1), where one cell tells much.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from nextpert.core import Civ, DagBlr, LinearScm, Moments, design_loop, random_scm, random_target

Array = np.ndarray


def setting(
    seed: int, n_nodes: int, *, quiet: bool = False
) -> tuple[LinearScm, DagBlr, Array, Array]:
    """Return a complete model, its prior (known noise), a* and the target mean."""
    options = {"noise_var": 0.05, "standardise": False} if quiet else {}
    scm = random_scm(n_nodes, rng=[seed, 0], **options)
    shift, target = random_target(scm, n_nodes // 2, where="downstream", rng=[seed, 1])
    scale = 20.0 if quiet else 1.0
    prior = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=scale)
    return scm, prior, shift, target


def decay(seed: int, rounds: list[int], n_nodes: int = 10) -> pd.DataFrame:
    """Return h and the norm of its gradient at a* after each number of rounds of a campaign."""
    scm, posterior, ideal, target = setting(seed, n_nodes)
    rows, done = [], 0
    for t in rounds:
        result = design_loop(scm, posterior, target, n_rounds=t - done, rng=[seed, 2, done])
        posterior, done = result.posterior, t
        civ = Civ(posterior, target)
        _, grad = civ.value_and_grad(ideal)
        rows.append({"t": t, "h": civ.excess(ideal[None])[0], "gradient": np.linalg.norm(grad)})
    return pd.DataFrame(rows).assign(instance=seed)


def entropy(scale: Array, offset: Array, n_points: int = 2048) -> Array:
    """Entropy (nats) of ``sum_i (offset_i + sqrt(scale_i) z_i)^2``, z standard normal.

    ``scale`` and ``offset`` have shape ``(m, p)``; the result ``(m,)``. The density is the inverse
    Fourier transform of the characteristic function.
    """
    mean = (scale + offset**2).sum(axis=1)
    sd = np.sqrt((2 * scale**2 + 4 * scale * offset**2).sum(axis=1))
    end = mean + 8 * sd + 40 * scale.max(axis=1)
    u = 2 * np.pi / end[:, None] * np.arange(n_points // 2 + 1)
    log_phi = np.zeros(u.shape, dtype=complex)
    for i in range(scale.shape[1]):
        bend = 1 - 2j * u * scale[:, i : i + 1]
        log_phi += 1j * u * offset[:, i : i + 1] ** 2 / bend - np.log(bend) / 2
    step = end / n_points
    density = np.fft.irfft(np.conj(np.exp(log_phi)), n_points, axis=1) / step[:, None]
    # Rounding leaves the far tail a little off zero, on either side.
    logs = np.log(np.clip(density, 1e-12, None))
    return -(np.where(density > 1e-12, density * logs, 0.0)).sum(axis=1) * step


def gap_law(posterior: DagBlr, target: Array, shifts: Array) -> tuple[Array, Array]:
    """Return scale and offset, each ``(m, p)``, of the gap of shifts: noise and posterior."""
    dag, variance = posterior.dag, np.array(posterior.noise_var)
    for i in range(posterior.n_nodes):
        parents = dag.parents(i)
        d = len(parents)
        first = posterior.mptr[i]
        cov = posterior.blocks["cov"][first : first + d * d].reshape(d, d)
        variance[i] *= 1 + target[parents] @ cov @ target[parents]
    return np.tile(variance, (len(shifts), 1)), shifts - posterior.ideal_shift(target)


def gap_variance(scale: Array, offset: Array) -> Array:
    """Return the variance of the gap, ``(m,)``."""
    return (2 * scale**2 + 4 * scale * offset**2).sum(axis=1)


def information(
    posterior: DagBlr, target: Array, shift: Array, others: Array, n_draws: int, seed: list[int]
) -> dict[str, float]:
    """Return mutual information (mean, standard error) and both bounds for a cell of a shift."""
    rng = np.random.default_rng(seed)
    now = entropy(*gap_law(posterior, target, others)).mean()
    flat, _ = posterior.sample(n_draws, rng)
    noise = rng.standard_normal((n_draws, posterior.n_nodes)) * np.sqrt(posterior.noise_var)
    scale, offset = gap_law(posterior, target, others)
    left, variance = np.empty(n_draws), np.empty(n_draws)
    controls = np.empty((n_draws, 1 + 2 * posterior.n_nodes))
    for k, (weights, eps) in enumerate(zip(flat, noise, strict=True)):
        cell = reach(posterior, weights, shift + eps)
        later = posterior.update(Moments.from_array(cell[None]), shift)
        law = gap_law(later, target, others)
        left[k], variance[k] = entropy(*law).mean(), gap_variance(*law).mean()
        # First and second moments of the ideal shift do not change on average: exact controls.
        moved, spread = law[1][0] - offset[0], law[0][0] - scale[0]
        ideal = others[0] - offset[0]
        controls[k] = np.concatenate([[1.0], moved, (ideal - moved) ** 2 - ideal**2 + spread])
    fit = np.linalg.lstsq(controls, np.column_stack([left, variance]), rcond=None)[0]
    rest = (left - controls @ fit[:, 0]).std(ddof=controls.shape[1])
    remaining, h = fit[0]
    mean_cell = posterior.predict_mean(shift)
    plug_in = posterior.update(Moments.from_array(mean_cell[None]), shift)
    h_plug_in = gap_variance(*gap_law(plug_in, target, others)).mean()
    return {
        "information": now - remaining,
        "error": rest / np.sqrt(n_draws),
        "bound": now - np.log(2 * np.pi * np.e * h) / 2,
        "removed": np.log(gap_variance(scale, offset).mean() / h) / 2,
        "plug_in": now - np.log(2 * np.pi * np.e * h_plug_in) / 2,
    }


def reach(posterior: DagBlr, weights: Array, source: Array) -> Array:
    """Return the cell of one draw of the weights: a substitution along the order."""
    x = source.copy()
    for i in posterior.dag.order:
        own = weights[posterior.vptr[i] : posterior.vptr[i + 1]]
        x[i] += own @ x[posterior.dag.parents(i)]
    return x


def first_theorem(
    seed: int, rounds: list[int], n_draws: int, *, quiet: bool, n_nodes: int = 5
) -> pd.DataFrame:
    """Return information and bounds after each number of rounds, for three kinds of shifts."""
    scm, posterior, _, target = setting(seed, n_nodes, quiet=quiet)
    rng = np.random.default_rng([seed, 3])
    sphere = rng.standard_normal((13, n_nodes))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    rows, done = [], 0
    for t in rounds:
        posterior = design_loop(
            scm, posterior, target, "random", n_rounds=t - done, rng=[seed, 4, done]
        ).posterior
        done = t
        civ = Civ(posterior, target)
        tried = {
            "best by CIV": civ.domain.minimise(civ, rng=0).shift,
            "random": sphere[0],
            "none": np.zeros(n_nodes),
        }
        for name, shift in tried.items():
            found = information(posterior, target, shift, sphere[1:], n_draws, [seed, 5, t])
            rows.append({"t": t, "shift": name, **found})
    return pd.DataFrame(rows).assign(instance=seed, cells="quiet" if quiet else "standardised")


def with_error(values: pd.Series) -> str:
    """Return mean and standard error over instances."""
    return f"{values.mean():.3g} ± {values.sem():.1g}"


def tables(
    seeds: range, rounds: list[int], early: list[int], n_draws: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return decay by round, slopes of the last decade, and information by round and shift."""
    second = pd.concat([decay(seed, rounds) for seed in seeds])
    second = second.assign(t_h=second.t * second.h, t2_gradient=second.t**2 * second.gradient)
    last = second[second.t >= rounds[-1] / 10]
    names = ["h", "gradient"]
    slopes = pd.DataFrame(
        {name: np.polyfit(np.log(part.t), np.log(part[name]), 1)[0] for name in names}
        for _, part in last.groupby("instance")
    )
    first = pd.concat(
        [first_theorem(seed, early, n_draws, quiet=q) for q in (False, True) for seed in seeds]
    )
    return second, slopes, first


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--draws", type=int, default=200, help="cells drawn for the information")
    parser.add_argument("--quick", action="store_true", help="2 instances, fewer rounds and draws")
    parser.add_argument("--csv", help="also write both tables to <csv>-decay and <csv>-information")
    args = parser.parse_args()
    rounds, early = [10, 30, 100, 300, 1000, 3000], [0, 5, 20]
    if args.quick:
        args.instances, args.draws = min(args.instances, 2), min(args.draws, 60)
        rounds, early = [10, 30, 100, 300], [0, 5]
    second, slopes, first = tables(range(args.instances), rounds, early, args.draws)
    print(f"Mean ± standard error over {args.instances} instances (models and targets).\n")
    print("Theorem 2, 10 genes: h at a* and the norm of its gradient there, after t rounds of CIV")
    columns = ["h", "gradient", "t_h", "t2_gradient"]
    shown = second.groupby("t")[columns].agg(with_error)
    print(shown.rename(columns={"t_h": "t h", "t2_gradient": "t² gradient"}).to_string())
    print(f"slope of log h over the last decade: {with_error(slopes.h)} (theory -1)")
    print(f"slope of log gradient: {with_error(slopes.gradient)} (theory -2)\n")
    print("Theorem 1, 5 genes, n = 1: information of one cell about g(a'), nats, after t rounds")
    first["holds"] = first.bound <= first.information + 2 * first.error
    groups = first.groupby(["cells", "t", "shift"], sort=False)
    shown = groups[["information", "bound", "removed", "plug_in"]].agg(with_error)
    shown.insert(1, "mc error", groups["error"].mean().map("{:.1g}".format))
    shown.insert(3, "bound holds", groups["holds"].agg(lambda part: f"{part.sum()}/{len(part)}"))
    names = {"removed": "log(h now / h) / 2", "plug_in": "bound, plug-in h"}
    print(shown.rename(columns=names).to_string())
    if args.csv:
        second.to_csv(f"{args.csv}-decay.csv", index=False)
        first.to_csv(f"{args.csv}-information.csv", index=False)


if __name__ == "__main__":
    main()
