"""Known targets of perturbations. Four tables.

``targets``: simulated screens of 9, 20 and 50 genes of degree 2. Structural Hamming distance (SHD)
to the true graph of BOSS with targets learned, known, and known with 20 or 40% of them wrong (drawn
among the other genes), and of GIES (``pip install gies``, BSD 3-clause), which is always told. An
edge that is not oriented counts one: BOSS's are ``open`` in ``uns["dag"]["edges"]``. *Oriented* is
the share of edges found that cells or interventions orient. GIES is made for targets that are held:
it drops a target's own cells. Its score centres every environment, so that shifts of means tell it
nothing; here all are centred at the mean of the controls instead, which suits shifts
(``benchmarks/simulated_screens.py`` has both). Settings, with 500 control cells: *strong*, all
genes knocked out by 20 to 100% of their control means, 50 cells each; *weak*, by 10% (0.3 to 0.5 SD
of a cell), 20 cells each; *noisy*, as strong with measurement error of 0.3 of a gene's variance;
*half*, as weak with half of the genes perturbed.

``signalling``: cells simulated on the consensus network of 11 proteins (17 edges, as in bnlearn's
``sachs``; Sachs et al. 2005, doi:10.1126/science.1105809), by seven drugs whose targets a mapping
tells, since no label names a protein; 700 cells each and 850 controls. The noise of a drug's target
moves by *effect*, in SD. *Wells*: each drug's cells also have shifts of all proteins, of that SD.
With *one wrong*, the inhibitor of Akt is said to act on Raf. By the public calls.

``cytometry``: the cells of Sachs et al. themselves, from a file that is not shipped: a table of the
11 proteins, with the labels in a column ``condition``, or the 7,466 cells of nine conditions in the
order of the publication, as ``cdt`` has them (``pip download --no-deps cdt``, MIT, file
``cdt/data/resources/cyto_full_data.csv`` in the wheel), of which these labels are known. Values are
logarithms. Edges, SHD to the consensus network, and of the edges found those that are right,
reversed and not in the network; an edge that is not oriented counts one in the SHD.

``real``: panels of 60 variable genes and all targets of Papalexi and TAP-seq, where no graph is
known: the number of edges, what orients them, and the edges of perturbations.

    python -m benchmarks.known_targets --tables targets --sizes 9 20
    python -m benchmarks.known_targets --tables targets --sizes 50 --models 10 --gies-models 1
    python -m benchmarks.known_targets --tables signalling
    python -m benchmarks.known_targets --tables cytometry --file cyto_full_data.csv
    python -m benchmarks.known_targets --tables real  # data: NEXTPERT_DATA
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._peer_searches import distance, gies, is_there
from benchmarks._predictors import joint_moments
from benchmarks._screens import SOURCES, Statistics, read_screen
from benchmarks._simulated import Setting, simulate
from nextpert.core import Dag, boss
from nextpert.core.search._classes import INTERVENTIONS, OPEN, oriented_by

WEAK = {"efficacy": (0.1, 0.1), "n_cells": 20}
KINDS = {
    "strong": {"efficacy": (0.2, 1.0), "n_cells": 50},
    "weak": WEAK,
    "noisy": {"efficacy": (0.2, 1.0), "n_cells": 50, "error": 0.3},
    "half": WEAK,
}
SIZES = (9, 20, 50)
CONSENSUS = (
    "Raf Mek, Mek Erk, Erk Akt, PKC Raf, PKC Mek, PKC Jnk, PKC P38, PKC PKA, PKA Raf, PKA Mek, "
    "PKA Erk, PKA Akt, PKA Jnk, PKA P38, Plcg PIP2, Plcg PIP3, PIP3 PIP2"
)
DRUGS = {
    "Akt inhibitor": "Akt", "G06976": "PKC", "psitectorigenin": "PIP2", "U0126": "Mek",
    "LY294002": "PIP3", "PMA": "PKC", "b2cAMP": "PKA",
}  # fmt: skip  # and whether they activate: the last two
CYTOMETRY = {  # cells by condition, in the order of the publication
    "control": 853, "ICAM-2": 902, "Akt inhibitor": 911, "G06976": 723, "psitectorigenin": 810,
    "U0126": 799, "LY294002": 848, "PMA": 913, "b2cAMP": 707,
}  # fmt: skip
COLUMNS = {
    "praf": "Raf", "pmek": "Mek", "plcg": "Plcg", "p44/42": "Erk", "pakts473": "Akt", "pjnk": "Jnk",
}  # fmt: skip
PROTEINS = sorted(set(CONSENSUS.replace(",", "").split()))
_CLONE = 25  # cells
_N_STARTS = 10  # as of tl.learn_dag


def learn(
    found: Statistics, targets: dict[str, int] | None = None, penalty: float = 2.0
) -> tuple[np.ndarray, float, Dag]:
    """Return the edges, those not oriented both ways, the share that is oriented, and the graph."""
    joint, p = joint_moments(found), found.moments.n_nodes
    told = {k: [targets[n]] for k, n in enumerate(found.perturbations) if targets and n in targets}
    best = boss(
        joint, n_context=joint.n_nodes - p, targets=told, penalty=penalty, n_starts=_N_STARTS, rng=0
    )
    edges = np.zeros((p, p), bool)
    marks = oriented_by(best.dag, best.context_edges)
    for parent, child, how in marks:
        edges[parent, child] = True
        edges[child, parent] |= how == OPEN
    return edges, float(np.mean([how != OPEN for *_, how in marks] or [1.0])), best.dag


def mistaken(targets: dict[str, int], share: float, p: int, seed: int) -> dict[str, int]:
    """Return targets of which a share is another gene."""
    rng, out = np.random.default_rng(seed), dict(targets)
    for name in rng.choice(sorted(targets), round(share * len(targets)), replace=False):
        out[name] = int(rng.choice(np.delete(np.arange(p), targets[name])))
    return out


def targets_row(p: int, kind: str, n_models: int, n_gies: int) -> str:
    """Return the line of one setting: means over models, of GIES over the first of these."""
    n_seen = p // 2 if kind == "half" else p
    setting = Setting(2, n_genes=p, n_seen=n_seen, n_control=500, **KINDS[kind])
    rows, peers = [], []
    for seed in range(n_models):
        found = simulate(setting, seed)
        truth, all_cells = found.scm.weights.T != 0, found.statistics()
        told = {share: mistaken(found.targets, share, p, seed) for share in (0.0, 0.2, 0.4)}
        graphs = [learn(all_cells), *(learn(all_cells, targets) for targets in told.values())]
        row = [truth.sum(), graphs[0][1], graphs[1][1]]
        rows.append([*row, *(distance(edges, truth) for edges, *_ in graphs)])
        if seed < n_gies:
            shares = (0.0, 0.2)
            each = [gies(found, seed, means=True, targets=told[share]) for share in shares]
            peers.append([*(distance(graph, truth) for graph in each), *rows[-1][3:6]])
    edges, learned, known, *shd = np.mean(rows, axis=0)
    paired = np.array(rows)[:, 4] - np.array(rows)[:, 3]
    error = paired.std(ddof=1) / np.sqrt(n_models) if n_models > 1 else np.nan
    cells = [
        f"{p}", kind, f"{edges:.0f}", *(f"{value:.2f}" for value in shd),
        f"{paired.mean():+.2f} ± {error:.2f}", f"{100 * learned:.0f}%", f"{100 * known:.0f}%",
    ]  # fmt: skip
    peer = [f"{value:.2f}" for value in np.mean(peers, axis=0)] if peers else ["-"] * 5
    return f"| {' | '.join([*cells, f'{len(peers)}', *peer])} |"


def by_call(cells: np.ndarray, label: np.ndarray, genes: list[str], **options: Any) -> ad.AnnData:
    """Return cells with the graph of the public call."""
    obs = pd.DataFrame({"perturbation": label.astype(str)})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(cells.copy(), obs, pd.DataFrame(index=genes))
    npt.pp.setup_screen(adata, separator="", check_scale=False)
    npt.tl.learn_dag(adata, method="boss", environments="all", search_options=options)
    return adata


def edges_of(adata: ad.AnnData) -> np.ndarray:
    """Return the edges of a graph, those not oriented both ways."""
    edges = adata.varp["dag"].toarray() != 0
    table = adata.uns["dag"]["edges"]
    for parent, child, how in zip(*(table[c] for c in table.columns[:3]), strict=True):
        i, k = adata.var_names.get_indexer([parent, child])
        edges[k, i] |= how == OPEN
    return edges


def signalling(
    effect: tuple[float, float], shared: float, wells: float, seed: int
) -> tuple[np.ndarray, np.ndarray, Dag]:
    """Draw cells of the consensus network, unit noise: cells, labels, the network."""
    rng, genes = np.random.default_rng(seed), PROTEINS
    place = {gene: k for k, gene in enumerate(genes)}
    pairs = [tuple(place[gene] for gene in edge.split()) for edge in CONSENSUS.split(", ")]
    dag = Dag.from_edges(len(genes), pairs)
    weights = np.zeros((len(genes), len(genes)))
    for parent, child in pairs:
        weights[child, parent] = rng.uniform(0.2, 0.8) * rng.choice([-1, 1])
    label = np.repeat(["control", *DRUGS], [850, *[700] * len(DRUGS)])
    noise = np.sqrt(1 - shared) * rng.normal(size=(len(label), len(genes)))
    clone = rng.permutation(len(label)) // _CLONE
    noise += np.sqrt(shared) * rng.normal(size=(clone.max() + 1, len(genes)))[clone]
    for k, (drug, target) in enumerate(DRUGS.items()):
        own = label == drug
        noise[own, place[target]] += rng.uniform(*effect) * (1 if k >= 5 else -1)
        noise[own] += wells * rng.normal(size=len(genes))
    return noise @ np.linalg.inv(np.eye(len(genes)) - weights).T, label, dag


def signalling_row(effect: tuple[float, float], shared: float, wells: float, n_models: int) -> str:
    """Return the line of one setting: SHD and edges, targets learned or known."""
    rows, few = [], {"Akt inhibitor": "Raf"}  # a wrong target
    for seed in range(n_models):
        cells, label, dag = signalling(effect, shared, wells, seed)
        truth, row = dag.to_matrix().toarray() != 0, []
        for targets in ("learned", DRUGS, DRUGS | few):
            edges = edges_of(by_call(cells, label, PROTEINS, perturbation_targets=targets))
            row += [
                distance(edges, truth),
                np.triu(edges | edges.T).sum(),
                (edges & edges.T).sum() / 2,
            ]
        rows.append(row)
    shown = [f"{value:.1f}" for value in np.mean(rows, axis=0)]
    groups = [" / ".join(shown[k : k + 3]) for k in range(0, len(shown), 3)]
    low, high = effect
    return f"| {low:g} to {high:g} | {shared:g} | {wells:g} | {' | '.join(groups)} |"


def cytometry_rows(file: Path) -> list[str]:
    """Return the lines of the cells of Sachs et al.: no edges, the public calls, GIES."""
    table = pd.read_csv(file).rename(columns=COLUMNS)
    if "condition" not in table:
        table["condition"] = np.repeat(list(CYTOMETRY), list(CYTOMETRY.values()))
    label = table["condition"].to_numpy(str)
    cells = np.log(table[PROTEINS].to_numpy(float))
    place = {gene: k for k, gene in enumerate(PROTEINS)}
    truth = np.zeros((len(PROTEINS), len(PROTEINS)), bool)
    for edge in CONSENSUS.split(", "):
        truth[tuple(place[gene] for gene in edge.split())] = True
    graphs = {"no edges": np.zeros_like(truth)}
    for (told, targets), penalty in product((("learned",) * 2, ("known", DRUGS)), (2, 16)):
        options = {"penalty": penalty, "perturbation_targets": targets}
        called = by_call(cells, label, PROTEINS, **options)
        graphs[f"targets {told}, penalty {penalty}"] = edges_of(called)
    if is_there("gies"):
        found: Any = SimpleNamespace(
            cells=cells, label=label, targets={name: place[gene] for name, gene in DRUGS.items()},
            scm=SimpleNamespace(n_nodes=len(PROTEINS)),
        )  # fmt: skip
        graphs["GIES, environments centred"] = gies(found, 0)
        graphs["GIES, means kept"] = gies(found, 0, means=True)
    lines = []
    for name, edges in graphs.items():
        either, one_way = np.triu(edges | edges.T), edges & ~edges.T
        right, back = (one_way & truth).sum(), (one_way & truth.T).sum()
        cells_of = [
            name, either.sum(), distance(edges, truth), right, back, (edges & edges.T).sum() // 2,
            (either & ~(truth | truth.T)).sum(),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells_of))} |")
    return lines


def real_row(folder: Path, name: str, targets: str) -> str:
    """Return the line of a real screen and a call."""
    found = read_screen(folder, SOURCES[name], name=name, n_variable=60)
    roles, adata = found.environments.roles, found.cells
    npt.pp.setup_screen(
        adata, perturbation_key=roles.perturbation_key, control=roles.control, check_scale=False
    )
    options = {"perturbation_targets": targets}
    npt.tl.learn_dag(adata, method="boss", environments="all", search_options=options)
    stored = adata.uns["dag"]
    how = stored["edges"]["oriented_by"]
    cells = [
        name, f"{len(found.targets)}", targets, f"{len(how)}",
        f"{(how == INTERVENTIONS).sum()}", f"{(how == OPEN).sum()}",
        f"{len(stored['direct_targets'])}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.known_targets", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--tables", nargs="+", default=["targets", "signalling"])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--gies-models", type=int, default=5, help="of 50 genes one")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--data", type=Path, default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument("--file", type=Path, help="cells of Sachs et al., for cytometry")
    parser.add_argument("--kinds", nargs="+", default=tuple(KINDS))
    args = parser.parse_args(arguments)
    if "targets" in args.tables:
        print(
            "| genes | setting | true edges | learned | known | 20% wrong | 40% wrong "
            "| known - learned | oriented: learned | known | GIES models | GIES | 20% wrong "
            "| learned | known | known, 20% wrong |"
        )
        print("|---" * 16 + "|")
        for p in args.sizes:
            for kind in args.kinds:
                n_gies = args.gies_models if is_there("gies") else 0
                print(targets_row(p, kind, args.models, n_gies), flush=True)
    if "signalling" in args.tables:
        print("\nSHD / edges found / of these not oriented; 17 edges are true.\n")
        print("| effect | shared | wells | learned | known | one wrong |")
        print("|---" * 6 + "|")
        for shared, wells in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.1)):
            for effect in ((0.2, 1.0), (0.05, 0.2)):
                print(signalling_row(effect, shared, wells, args.models), flush=True)
    if "cytometry" in args.tables:
        print("\n| graph | edges | SHD | right | reversed | not oriented | not in the network |")
        print("|---" * 7 + "|")
        print("\n".join(cytometry_rows(args.file)), flush=True)
    if "real" in args.tables:
        print(
            "\n| screen | targets on the panel | targets | edges "
            "| by interventions | open | edges of perturbations |"
        )
        print("|---" * 7 + "|")
        for name, targets in product(("papalexi", "tapseq"), ("learned", "known")):
            print(real_row(args.data, name, targets), flush=True)


if __name__ == "__main__":
    main()
