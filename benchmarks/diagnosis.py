"""What ``tl.diagnose`` says of real screens, and of one whose truth is known.

Graphs are learned from all cells by ``tl.learn_dag`` with its defaults, fits are those of
``tl.fit_dag_blr``, with guides where the screen names them. The simulated screen has 20 genes, its
true graph, the same turned round, labels shuffled among perturbed cells, and among all cells.

    python -m benchmarks.diagnosis                          # all, half a minute
    python -m benchmarks.diagnosis --screens tapseq
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import nextpert as npt
from benchmarks._screens import SOURCES, add_arguments, screens_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    import pandas as pd

COLUMNS = {
    "differ from the controls": ("cells", "n_significant"),
    "and from the others": ("cells", "n_distinct"),
    "shrunken effects over the cells' means": ("shrinkage", "error_to_raw_means"),
    "own state found": ("shrinkage", "own_state_first"),
    "by the cells' means": ("shrinkage", "own_state_first_by_raw_means"),
    "left-out guide over no effect": ("guides", "error_to_no_effect"),
    "left-out perturbations over no effect": ("unseen perturbations", "error_to_no_effect"),
    "over the mean perturbation": ("unseen perturbations", "error_to_mean"),
    "weight of the graph": ("graph", "weight"),
}


def simulated() -> Iterator[tuple[str, ad.AnnData]]:
    """Yield the simulated screens, fitted."""
    adata = npt.datasets.simulated_screen(n_genes=20, n_control=2000, expected_degree=5, rng=4)
    weights = adata.uns["truth"]["weights"]
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    perturbed = labels != "control"
    shuffled, none = labels.copy(), np.random.default_rng(0).permutation(labels)
    shuffled[perturbed] = np.random.default_rng(0).permutation(labels[perturbed])
    for name, dag, label in (
        ("simulated, true graph", weights.T, labels),
        ("its graph turned round", weights, labels),
        ("labels shuffled among perturbed cells", weights.T, shuffled),
        ("among all cells", weights.T, none),
    ):
        each = adata.copy()
        each.obs["perturbation"] = label
        npt.tl.learn_dag(each, method="given", dag=dag)
        npt.tl.fit_dag_blr(each)
        yield name, each


def real(args: argparse.Namespace) -> Iterator[tuple[str, ad.AnnData]]:
    """Yield the real screens asked for, fitted."""
    for source, screen in screens_of(args):
        name, adata = screen.name, screen.cells
        roles = source.roles
        npt.pp.setup_screen(
            adata, perturbation_key=roles.perturbation_key, control=roles.control,
            guide_key=source.guide_key, batch_key=roles.batch_key or None,
        )  # fmt: skip
        npt.tl.learn_dag(adata, method="boss", environments="all")
        shift = "activation" if name == "norman" else "knockout"
        npt.tl.fit_dag_blr(adata, shift=shift)
        yield f"{name} ({adata.n_vars} genes)", adata


def row(name: str, summary: pd.DataFrame) -> str:
    """Return the row of a screen in the table."""
    shown = [name]
    by = summary.set_index(["part", "quantity"])
    for key in COLUMNS.values():
        if key not in by.index:
            shown.append("")
            continue
        value, error, n = by.loc[key, ["value", "standard_error", "n"]]
        if key[1].startswith("n_"):
            shown.append(f"{value:.0f} of {n:.0f}")
        else:
            spread = f" ± {error:.2f}" if np.isfinite(error) else ""
            shown.append(f"{round(value, 2) + 0.0:.2f}{spread}" if np.isfinite(value) else "")
    return f"| {' | '.join(shown)} |"


def main(arguments: list[str] | None = None) -> None:
    """Diagnose the screens and print the table and the verdicts."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.diagnosis", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--screens", nargs="*", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument("--save", metavar="FILE", help="also write the table to this file")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    lines = [f"| screen | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for screens in (simulated(), real(args)):
            for name, adata in screens:
                npt.tl.diagnose(adata)
                found = adata.uns["diagnosis"]
                lines.append(row(name, found["summary"]))
                said.append(f"**{name}**: *{found['level']}*. {found['verdict']}")
    text = "\n".join([*lines, "", *("\n" + each for each in said)]) + "\n"
    print(text)
    if args.save:
        Path(args.save).write_text(text)


if __name__ == "__main__":
    main()
