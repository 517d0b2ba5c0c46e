"""Theorem 2 of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), seen in one table.

In a campaign by CIV the acquisition h (less what noise alone makes) falls as 1/t, and its gradient
at the ideal shift a* as 1/t^2. The table shows both, the products with t and t^2, which have to
converge, and the slopes of the logarithms over the last decade of rounds.

    python -m benchmarks.theory                # two minutes
    python -m benchmarks.theory --instances 2 --rounds 10 30 100 300
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks._page import options, save, show, table
from nextpert.core import Civ, DagBlr, design_loop, random_scm, random_target


def decay(seed: int, rounds: list[int], n_nodes: int = 10) -> pd.DataFrame:
    """Return h and the norm of its gradient at a* after each number of rounds of a campaign.

    The model is complete and standardised, its noise known, the prior M = I.
    """
    scm = random_scm(n_nodes, rng=[seed, 0])
    ideal, target = random_target(scm, n_nodes // 2, where="downstream", rng=[seed, 1])
    posterior = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    rows, done = [], 0
    for t in rounds:
        result = design_loop(scm, posterior, target, n_rounds=t - done, rng=[seed, 2, done])
        posterior, done = result.posterior, t
        civ = Civ(posterior, target)
        _, grad = civ.value_and_grad(ideal)
        rows.append({"t": t, "h": civ.excess(ideal[None])[0], "gradient": np.linalg.norm(grad)})
    return pd.DataFrame(rows).assign(instance=seed)


def with_error(values: pd.Series) -> str:
    """Return mean and standard error over instances, to significant digits."""
    return f"{values.mean():.3g} ± {values.sem():.1g}"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("theory", __doc__)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--rounds", type=int, nargs="+", default=[10, 30, 100, 300, 1000, 3000])
    args = parser.parse_args(arguments)
    found = pd.concat([decay(seed, args.rounds) for seed in range(args.instances)])
    found = found.assign(t_h=found.t * found.h, t2_gradient=found.t**2 * found.gradient)
    last = found[found.t >= args.rounds[-1] / 10]
    slopes = pd.DataFrame(
        {name: np.polyfit(np.log(part.t), np.log(part[name]), 1)[0] for name in ("h", "gradient")}
        for _, part in last.groupby("instance")
    )
    columns = ["h", "gradient", "t_h", "t2_gradient"]
    rows = found.groupby("t")[columns].agg(with_error)
    text = table(["t", "h", "gradient", "t h", "t² gradient"], rows.T.to_dict("list"))
    text += f"\n\nSlope of log h over the last decade: {with_error(slopes.h)} (theory -1); of log "
    text += f"gradient: {with_error(slopes.gradient)} (theory -2). {args.instances} instances."
    save("theory", [show(text)], args.save)


if __name__ == "__main__":
    main()
