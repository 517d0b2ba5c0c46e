"""What graphs from every environment cost: memory of a screen's statistics, time of the search.

Statistics: cells of 1,000 genes, as sparse blocks in random order of environments, are summed up
once; the bytes are those of everything that is kept. Search: random graphs of mean degree 6,
5,000 control cells, every gene knocked out (20 cells each, or 5), and BOSS over the genes and as
many indicators of perturbations; beside it BOSS on the control cells alone. Times are of the
processor, on one thread. Graphs of resamples are counted with their reading of the cells.

    python -m benchmarks.scale
    python -m benchmarks.scale --quick
    python -m benchmarks.scale --plot benchmarks/results/scale.png
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import nextpert as npt
from benchmarks._graphs import skeleton, skeleton_f1
from benchmarks._table import exponent, options, save
from nextpert._adata.read import block_rows
from nextpert.core import Dag, Moments, ScreenMoments, boss, context_moments, random_scm
from nextpert.core.screen.moments import PairwiseSum
from nextpert.core.screen.screen import empty_part, merge, screen_part

_DEGREE, _CONTROLS, _CELLS = 6, 5000, 20
_SHARE = 0.15  # of a screen's entries that are not zero


class Summed(NamedTuple):
    """Statistics of a made screen: what they take, and how long the cells took."""

    n_environments: int
    n_cells: int
    megabytes: float
    seconds: float


class Searched(NamedTuple):
    """BOSS with and without the perturbed cells."""

    n_genes: int
    n_cells: int
    seconds: float
    seconds_controls: float
    f1: float
    f1_controls: float
    directed: float
    directed_controls: float
    targets: float
    others: int


class Many(NamedTuple):
    """An ensemble of graphs."""

    n_genes: int
    n_graphs: int
    n_runs: int
    seconds: float


def sum_up(n_environments: int, n_genes: int, n_cells: int, seed: int = 0) -> Summed:
    """Make cells block by block and sum them up."""
    rng = np.random.default_rng(seed)
    total, seconds = PairwiseSum(empty_part(n_genes), merge), 0.0
    rows = block_rows(n_genes, n_environments)  # as a screen is read
    for start in range(0, n_cells, rows):
        n = min(rows, n_cells - start)
        block = sp.random_array((n, n_genes), density=_SHARE, format="csr", random_state=rng)
        block.sort_indices()
        groups = rng.integers(n_environments, size=n)
        begin = time.process_time()
        total.add(screen_part(block, groups))
        seconds += time.process_time() - begin
    begin = time.process_time()
    screen = ScreenMoments.from_part(total.total(), n_environments)
    seconds += time.process_time() - begin
    held = sum(getattr(screen, name).nbytes for name in ("n", "mean", "squares", "scatter"))
    return Summed(n_environments, int(screen.n.sum()), held / 1e6, seconds)


def draw_cells(n_genes: int, n_cells: int, seed: int = 0) -> tuple[Dag, np.ndarray, np.ndarray]:
    """Return graph, cells and labels (0: control) of a screen with all genes knocked out."""
    rng = np.random.default_rng(seed)
    scm = random_scm(n_genes, "erdos_renyi", expected_degree=_DEGREE, rng=rng)
    place = rng.permutation(n_genes)  # gene of each column; random graphs come in order
    truth = Dag.from_matrix(scm.dag.to_matrix().toarray()[np.ix_(place, place)])
    effects = np.linalg.inv(np.eye(n_genes) - scm.weights)[np.ix_(place, place)]
    label = np.r_[np.zeros(_CONTROLS, int), np.repeat(np.arange(n_genes) + 1, n_cells)]
    shift = rng.uniform(-4, -2, n_genes)
    cells = np.ascontiguousarray(scm.sample(len(label), rng=rng)[:, place])
    cells[_CONTROLS:] += (effects * shift).T[label[_CONTROLS:] - 1]
    return truth, cells, label


def search(n_genes: int, n_cells: int = _CELLS) -> Searched:
    """Search a screen with and without its perturbed cells."""
    truth, cells, label = draw_cells(n_genes, n_cells)
    screen = ScreenMoments.from_array(cells, label, n_genes + 1)
    controls = Moments.from_array(cells[:_CONTROLS])
    begin = time.process_time()
    joint = context_moments(screen, np.eye(n_genes + 1)[:, 1:])
    found = boss(joint, n_context=n_genes, rng=0)
    seconds = time.process_time() - begin
    begin = time.process_time()
    alone = boss(controls, rng=0)
    edges = found.context_edges
    return Searched(
        n_genes, n_cells, seconds, time.process_time() - begin, skeleton_f1(found.dag, truth),
        skeleton_f1(alone.dag, truth), directed(found.dag, truth), directed(alone.dag, truth),
        float(np.diag(edges).mean()), int(edges.sum() - np.diag(edges).sum()),
    )  # fmt: skip


def many_graphs(n_genes: int, n_graphs: int, n_runs: int) -> Many:
    """Learn an ensemble by ``tl.learn_dag``, the cells in memory."""
    _, cells, label = draw_cells(n_genes, _CELLS)
    names = np.array(["control", *(f"G{k}" for k in range(n_genes))])
    obs = pd.DataFrame({"perturbation": names[label]}, index=np.arange(len(label)).astype(str))
    adata = ad.AnnData(cells, obs, pd.DataFrame(index=names[1:]))
    begin = time.process_time()
    npt.tl.learn_dag(
        adata,
        method="boss",
        environments="all",
        n_graphs=n_graphs,
        search_options={"n_runs": n_runs},
        rng=0,
    )
    return Many(n_genes, n_graphs, n_runs, time.process_time() - begin)


def directed(found: Dag, truth: Dag) -> float:
    """Return the share of the true adjacencies found whose direction is right."""
    both = skeleton(found) & skeleton(truth)
    right = (found.to_matrix().toarray() != 0) & (truth.to_matrix().toarray() != 0)
    return float(right.sum() / max(both.sum() / 2, 1))


def draw(summed: list[Summed], searched: list[Searched], n_genes: int, path: str) -> None:
    """Draw time over genes, and memory over environments."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from benchmarks._plot import _COLOURS

    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.0), layout="constrained")
        searched = [row for row in searched if row.n_cells == _CELLS]
        genes = [row.n_genes for row in searched]
        left.plot(
            genes, [row.seconds for row in searched], "o-", color=_COLOURS["a"],
            label="all environments (as many perturbations)",
        )  # fmt: skip
        left.plot(
            genes, [row.seconds_controls for row in searched], "s--", color=_COLOURS["b"],
            markerfacecolor="white", label="control cells only",
        )  # fmt: skip
        left.set(xlabel="number of genes", ylabel="time (s)", xscale="log", yscale="log")
        left.set_title("BOSS, 5,000 controls, 20 cells each", loc="left", fontweight="bold")
        left.set_xticks(genes, [f"{n:,}" for n in genes])
        many = [row.n_environments for row in summed]
        right.plot(
            many, [row.megabytes for row in summed], "o-", color=_COLOURS["a"],
            label="n, means, variances, one pooled scatter",
        )  # fmt: skip
        right.plot(
            many, [8e-6 * n * n_genes**2 for n in many], "s--", color=_COLOURS["b"],
            markerfacecolor="white", label="a matrix of each environment",
        )  # fmt: skip
        right.set(xlabel="number of environments", ylabel="memory (MB)", xscale="log", yscale="log")
        right.set_title(f"Statistics of {n_genes:,} genes", loc="left", fontweight="bold")
        right.set_xticks(many, [f"{n:,}" for n in many])
        for ax in (left, right):
            ax.minorticks_off()
            ax.grid(which="major", color="0.9", linewidth=0.6)
            ax.set_axisbelow(True)
            low, high = ax.get_ylim()
            ax.set_ylim(low, high * 20)  # room for the legend
            ax.legend(frameon=False, fontsize=7, loc="upper left")
        figure.savefig(Path(path), dpi=200)
        plt.close(figure)


def statistics_table(summed: list[Summed], n_genes: int) -> list[str]:
    """Return the table of memory."""
    head = [
        f"## Statistics of a screen of {n_genes:,} genes (wanted: under 200 MB at 10,000)", "",
        "| environments | cells | MB kept | MB of a matrix each | s to sum up |", "|---" * 5 + "|",
    ]  # fmt: skip
    return head + [
        f"| {row.n_environments:,} | {row.n_cells:,} | {row.megabytes:.0f} "
        f"| {8e-6 * row.n_environments * n_genes**2:,.0f} | {row.seconds:.1f} |"
        for row in summed
    ]


def search_table(searched: list[Searched]) -> list[str]:
    """Return the table of searches."""
    lines = [
        "## BOSS over genes and as many perturbations (wanted: under 60 s at 1,000)", "",
        "| genes | cells each | all environments, s | controls only, s "
        "| skeleton F1 (controls only) "
        "| directed right (controls only) | targets found | other direct effects |",
        "|---" * 8 + "|",
    ]  # fmt: skip
    lines += [
        f"| {row.n_genes:,} | {row.n_cells} | {row.seconds:.2f} | {row.seconds_controls:.2f} "
        f"| {row.f1:.3f} ({row.f1_controls:.3f}) "
        f"| {row.directed:.3f} ({row.directed_controls:.3f}) "
        f"| {100 * row.targets:.0f}% | {row.others} |"
        for row in searched
    ]
    curve = [row for row in searched if row.n_cells == _CELLS]
    power = exponent([row.n_genes for row in curve], [row.seconds for row in curve])
    said = f"At {_CELLS} cells the time grows as the number of genes to the power {power:.1f}."
    return [*lines, "", said]


def graphs_table(many: list[Many]) -> list[str]:
    """Return the table of ensembles."""
    head = [
        "## Graphs of resamples by tl.learn_dag (wanted: 50 of 100 genes in 10 s on two cores)",
        "", "| genes | graphs | starts of the whole | s | half of it |", "|---" * 5 + "|",
    ]  # fmt: skip
    return head + [
        f"| {row.n_genes:,} | {row.n_graphs} | {row.n_runs} | {row.seconds:.1f} "
        f"| {row.seconds / 2:.1f} |"
        for row in many
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables and draw the figure."""
    parser = options("scale", __doc__)
    names = ("statistics", "search", "graphs")
    parser.add_argument("--tables", nargs="+", default=list(names), choices=names)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a trial")
    parser.add_argument("--plot", metavar="FILE", help="draw memory and searches to this file")
    args = parser.parse_args(arguments)
    if args.plot and not {"statistics", "search"} <= set(args.tables):
        parser.error("--plot needs the tables statistics and search")
    genes, environments, n_genes, n_graphs = (100, 300, 1000), (100, 1000, 10_000), 1000, 50
    if args.quick:
        genes, environments, n_genes, n_graphs = (10, 20, 30), (5, 10, 20), 12, 3
    search(10)  # compiles
    summed, searched, parts = [], [], []
    if "statistics" in args.tables:
        summed = [sum_up(n, n_genes, 20 * n) for n in environments]
        parts.append(statistics_table(summed, n_genes))
    if "search" in args.tables:
        searched = [search(n) for n in genes] + [search(genes[-1], 5)]
        parts.append(search_table(searched))
    if "graphs" in args.tables:
        parts.append(graphs_table([many_graphs(genes[0], n_graphs, n) for n in (1, 10)]))
    text = "\n\n".join("\n".join(part) for part in parts)
    print(text)
    save([text], args.save)
    if args.plot:
        draw(summed, searched, n_genes, args.plot)


if __name__ == "__main__":
    main()
