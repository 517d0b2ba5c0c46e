"""Verdicts of ``tl.diagnose`` on real screens, and on a simulated screen.

Graphs are learned from all cells by ``tl.learn_dag`` with its defaults, fits are those of
``tl.fit_dag_blr``, with guides where the screen names them. The simulated screen has 20 genes. It
is diagnosed with its true graph, with all edges reversed, and with labels shuffled among perturbed
cells and among all cells.

The second table has the negative and positive controls of the real screens, and of three shuffles
of the labels (and guides) of all their cells: effects of control guides that take the place of
perturbations, how many of them are significant (local false sign rate below 0.05), the resulting
upper estimate of the share of the screen's significant effects that are false, the width of their
null, and the target genes that are found. The last columns have the verdict on the negative
controls, the overall level, and the advice of ``tl.plan_cells`` with the first perturbation as the
target.

    python -m benchmarks.diagnosis                          # all, ten minutes
    python -m benchmarks.diagnosis --screens tapseq --shuffles 0
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import add_arguments, screens_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    import pandas as pd

COLUMNS = {
    "differ from the controls": ("cells", "n_significant"),
    "of these, from the others": ("cells", "n_distinct"),
    "error of shrunken effects / raw means": ("shrinkage", "error_to_raw_means"),
    "error on left-out guide / no effect": ("guides", "error_to_no_effect"),
    "error on left-out perturbations / no effect": ("unseen perturbations", "error_to_no_effect"),
    "the same / mean perturbation": ("unseen perturbations", "error_to_mean"),
    "weight of the graph": ("graph", "weight"),
}


CONTROLS = (
    "controls", "false / effects", "95% interval", "significant effects", "of these false, at most",
    "width of the null", "target genes found", "negative controls", "level", "advice",
)  # fmt: skip


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
        ("the same, edges reversed", weights, labels),
        ("labels shuffled among perturbed cells", weights.T, shuffled),
        ("labels shuffled among all cells", weights.T, none),
    ):
        each = adata.copy()
        each.obs["perturbation"] = label
        npt.tl.learn_dag(each, method="given", dag=dag)
        npt.tl.fit_dag_blr(each)
        yield name, each


def real(args: argparse.Namespace) -> Iterator[tuple[str, ad.AnnData]]:
    """Yield the real screens asked for, fitted."""
    for screen in screens_of(args):
        name, adata, roles = screen.name, screen.cells, screen.environments.roles
        npt.pp.setup_screen(
            adata, perturbation_key=roles.perturbation_key, control=roles.control,
            guide_key=screen.guide_key, batch_key=roles.batch_key or None,
        )  # fmt: skip
        columns = [each for each in (roles.perturbation_key, screen.guide_key) if each]
        for shuffle in range(1 + args.shuffles):
            each, title = adata.copy(), f"{name} ({adata.n_vars} genes)"
            if shuffle:
                order = np.random.default_rng(shuffle).permutation(adata.n_obs)
                each.obs[columns] = adata.obs[columns].to_numpy()[order]
                control = (each.obs[roles.perturbation_key] == roles.control).to_numpy()
                each = each[:, np.ptp(each.X[control], axis=0) > 0].copy()
                title = f"{name}, shuffled ({shuffle})"
            npt.tl.learn_dag(each, method="boss", environments="all")
            npt.tl.fit_dag_blr(each, shift="activation" if name == "norman" else "knockout")
            yield title, each


def controls(adata: ad.AnnData) -> list[str]:
    """Return the row of a screen in the table of negative and positive controls."""
    found = adata.uns["diagnosis"]
    by = found["summary"].set_index(["part", "quantity"])
    negative, parts = by.loc["negative controls"], found["parts"].set_index("part")
    groups = found["negative_controls"]
    npt.tl.perturbation_effects(adata)
    effects = adata.uns["perturbation_effects"]
    npt.tl.plan_cells(adata, str(effects["perturbations"][0]))
    value = negative["value"]
    target = by.loc[("positive controls", "n_found")]
    return [
        f"{len(groups)} ({groups['n_cells'].sum()} cells)",
        f"{value['n_false']:.0f} / {negative.loc['n_false', 'n']:.0f}",
        f"{value['false_share_lower']:.4f} to {value['false_share_upper']:.4f}",
        f"{(effects['lfsr'] < 0.05).mean():.4f}",
        "" if np.isnan(value["false_discovery_rate"]) else f"{value['false_discovery_rate']:.3f}",
        f"{value['null_width']:.2f} ± {negative.loc['null_width', 'standard_error']:.2f}",
        f"{target['value']:.0f} of {target['n']:.0f}",
        str(parts.loc["negative controls", "level"]),
        str(found["level"]),
        str(adata.uns["plan_cells"]["advice"]["kind"]),
    ]


def parts_of(summary: pd.DataFrame) -> list[str]:
    """Return the row of a screen in the table of the parts of a fit."""
    shown, by = [], summary.set_index(["part", "quantity"])
    for key in COLUMNS.values():
        value, error, n = by.loc[key, ["value", "standard_error", "n"]] if key in by.index else (
            np.nan, np.nan, np.nan
        )  # fmt: skip
        if not np.isfinite(value):
            shown.append("")
        elif key[1].startswith("n_"):
            shown.append(f"{value:.0f} of {n:.0f}")
        else:
            spread = f" ± {error:.2f}" if np.isfinite(error) else ""
            shown.append(f"{round(value, 2) + 0.0:.2f}{spread}")
    return shown


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Diagnose the screens and print the tables and the verdicts."""
    parser = options("diagnosis", __doc__, data=True)
    parser.add_argument("--shuffles", type=int, default=3, help="of the labels of all cells")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    parts, proof, verdicts = {}, {}, []
    for is_real, screens in enumerate((simulated(), real(args))):
        for name, adata in screens:
            npt.tl.diagnose(adata)
            found = adata.uns["diagnosis"]
            if "shuffled (" not in name:
                parts[name] = parts_of(found["summary"])
                verdicts.append(f"**{name}**: *{found['level']}*. {found['verdict']}")
            if is_real:
                proof[name] = controls(adata)
    tables = {
        "Parts of the fit:": (COLUMNS, parts),
        "Negative and positive controls:": (CONTROLS, proof),
    }
    sections = [
        f"{words}\n\n{table(('screen', *head), rows)}" for words, (head, rows) in tables.items()
    ]
    save("diagnosis", map(show, [*sections, *verdicts]), args.save)


if __name__ == "__main__":
    main()
