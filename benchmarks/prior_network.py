"""Prior networks: how much is learned to be believed, and what the graph gains.

Random models of 36 genes, standardised internally, and control cells only. A network holds a share
of the true edges, and so many others, drawn among all ordered pairs of genes that are no true edge,
that the share of right ones is as said; the random one is as large as the one of 70%, drawn
among all ordered pairs. The structural Hamming distance (SHD) is that to the true graph, and, of
Markov classes, that to the true class. Medians over models; *changed* is the share of the edges
that are otherwise than without a network (mean over models).

    python -m benchmarks.prior_network            # two minutes
    python -m benchmarks.prior_network --quick
"""

from __future__ import annotations

import argparse

import numpy as np

from nextpert.core import Dag, LinearScm, Moments, boss, boss_with_network, random_scm, shd
from nextpert.core.graph._equivalence import Pdag

_N_GENES, _N_STARTS = 36, 3
_NETWORKS = ("100%", "70%", "50%", "random")


def main(arguments: list[str] | None = None) -> None:
    """Run all settings and print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.prior_network", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--cells", type=int, nargs="+", default=[500])
    parser.add_argument("--quick", action="store_true", help="2 models: a trial")
    args = parser.parse_args(arguments)
    n_models = 2 if args.quick else args.models
    print(
        "| cells | degree | true edges in it | correct | trusted | log-odds along | against "
        "| SHD without | with | class SHD without | with | changed |"
    )
    print("|---" * 12 + "|")
    for n_cells in args.cells:
        for degree in (2, 4, 8):
            for covered in (0.5, 1.0):
                for network in _NETWORKS:
                    rows = [one(degree, n_cells, covered, network, k) for k in range(n_models)]
                    print(_line(n_cells, degree, covered, network, np.array(rows)), flush=True)


def _line(n_cells: int, degree: int, covered: float, network: str, rows: np.ndarray) -> str:
    along, against, *distances = np.median(rows[:, :6], axis=0)
    believed = f"{(rows[:, 0] != 0).sum()} of {len(rows)}"
    shown = [f"{value:.3g}" for value in distances]
    shares = f"{100 * covered:.0f}%" if network != "random" else "-"
    cells = [
        f"{n_cells:,}", str(degree), shares, network, believed,
        f"{along:.1f}", f"{against:.1f}", *shown, f"{100 * rows[:, 6].mean():.1f}%",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def one(degree: int, n_cells: int, covered: float, network: str, seed: int) -> list[float]:
    """Return the log-odds learned, both distances without and with, and the share changed."""
    rng = np.random.default_rng(seed)
    scm = random_scm(_N_GENES, "erdos_renyi", expected_degree=degree, standardise=True, rng=rng)
    place = rng.permutation(_N_GENES)  # the order of the columns tells nothing
    weights = np.zeros_like(scm.weights)
    weights[np.ix_(place, place)] = scm.weights
    noise_var = np.empty(_N_GENES)
    noise_var[place] = scm.noise_var
    scm = LinearScm(weights, noise_var)
    cells = Moments.from_array(scm.sample(n_cells, rng=rng))
    prior = draw_network(scm.dag, covered, network, rng)
    plain = boss(cells, n_starts=_N_STARTS, rng=seed).dag
    found, belief = boss_with_network(cells, prior, n_starts=_N_STARTS, rng=seed)
    pairs = [shd(plain, scm.dag), shd(found.dag, scm.dag)]
    classes = [class_distance(plain, scm.dag), class_distance(found.dag, scm.dag)]
    changed = shd(plain, found.dag) / max(plain.n_edges, 1)
    return [belief.along, belief.against, *pairs, *classes, changed]


def draw_network(truth: Dag, covered: float, network: str, rng: np.random.Generator) -> np.ndarray:
    """Return a network of which a share is right, row = parent."""
    edges = truth.to_matrix().toarray() != 0
    out = np.zeros(edges.shape)
    kept = rng.permutation(np.argwhere(edges))[: round(covered * edges.sum())]
    right = 0.7 if network == "random" else float(network.removesuffix("%")) / 100
    n_wrong = round(len(kept) * (1 - right) / right)
    others = ~np.eye(len(edges), dtype=bool)
    if network == "random":
        n_wrong += len(kept)
    else:
        out[tuple(kept.T)] = 1.0
        others &= ~edges
    wrong = rng.permutation(np.argwhere(others))[:n_wrong]
    out[tuple(wrong.T)] = 1.0
    return out


def class_distance(one: Dag, two: Dag) -> int:
    """Return the number of pairs of nodes that two Markov classes join differently."""
    marks = []
    for dag in (one, two):
        graph = Pdag.of_class(dag)
        marks.append(
            {(x, y, True) for y, above in enumerate(graph.parents) for x in above}
            | {(x, y, False) for y, beside in enumerate(graph.neighbours) for x in beside}
        )
    return len({frozenset(mark[:2]) for mark in marks[0] ^ marks[1]})


if __name__ == "__main__":
    main()
